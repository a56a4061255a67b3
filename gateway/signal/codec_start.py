"""What every run of the waveform codec starts from: tables that are worked out, and a start that was trained.

The trained start is part of the format: `codec_start_1.npz` belongs to format version 1 and never changes.
`tools/train_codec.py` makes it.
"""

import decimal
import functools
import io
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

import numpy as np

from gateway.signal import codec_kernels as kernels

START: Final = Path(__file__).with_name("codec_start_1.npz")
ODDS_STEP: Final = 16
"""The file keeps the log odds of a slot in steps of 16 / 256,"""
MIXER_STEP: Final = 8
"""and the weights of the mixers in steps of 8 / 65536."""


@dataclass(frozen=True, slots=True, eq=False)
class Start:
    """Arrays as the kernels take them; who uses them copies what changes.

    Attributes:
        weights: of the regression, one row for each kind of lead: alone, first of several, later.
        spread: covariance of these weights, over the variance of the noise.
        slots: probability and count of each decision in each context.
        mixers: how much each table counts.
    """

    weights: kernels.Floats
    spread: kernels.Floats
    slots: kernels.Words
    mixers: kernels.Ints


@functools.cache
def tables() -> kernels.Ints:
    """Log odds by probability, probability by log odds, learning rate by count: one array, see the kernels.

    Worked out in decimal arithmetic, whose exp() is the same on every machine.
    """
    with decimal.localcontext(decimal.Context(prec=20)):
        one = decimal.Decimal(1)
        squash = [
            int((kernels.ONE / (one + (-decimal.Decimal(odds) / 256).exp())).to_integral_value())
            for odds in range(-kernels.SQUASH_HALF, kernels.SQUASH_HALF + 1)
        ]
    middles = np.arange(4096) * 16 + 8
    stretch = np.searchsorted(np.array(squash), middles) - kernels.SQUASH_HALF
    counts = np.arange(kernels.COUNT_MOST + 1)
    return np.concatenate(
        (
            np.clip(stretch, -kernels.STRETCH_HALF, kernels.STRETCH_HALF),
            squash,
            5 * kernels.ONE // (5 * counts + 8),
        )
    ).astype(np.int32)


def slots(odds: kernels.Ints, counts: kernels.Ints) -> kernels.Words:
    """Slots of the given log odds, in steps, and counts."""
    chances = tables()[kernels.EVEN_AT + ODDS_STEP * odds.astype(np.int64)]
    return ((chances.astype(np.uint32) << 16) | counts.astype(np.uint32)).astype(np.uint32)


@functools.cache
def trained() -> Start:
    """The start of format version 1."""
    return load(START)


def rounded(start: Start) -> Start:
    """A start as it comes back from a file."""
    file = io.BytesIO()
    save(file, start)
    file.seek(0)
    return load(file)


def load(path: Path | BinaryIO) -> Start:
    """Reads a trained start."""
    with np.load(path) as file:
        spread = np.zeros((3, kernels.TAPS, kernels.TAPS))
        lower = np.tril_indices(kernels.TAPS)
        for kind, values in enumerate(file["spread"].astype(np.float64)):
            spread[kind][lower] = values
            spread[kind].T[lower] = values
        return Start(
            weights=file["weights"].astype(np.float64),
            spread=spread,
            slots=slots(file["odds"], file["counts"]),
            mixers=file["mixers"].astype(np.int32) * MIXER_STEP,
        )


def save(path: Path | BinaryIO, start: Start) -> None:
    """Writes a start, rounded to what the file holds."""
    lower = np.tril_indices(kernels.TAPS)
    stretch = tables()[:4096]
    odds = np.rint(stretch[start.slots >> 20] / ODDS_STEP)
    np.savez_compressed(
        path,
        weights=start.weights.astype(np.float32),
        spread=np.stack([matrix[lower] for matrix in start.spread]).astype(np.float32),
        odds=np.clip(odds, -127, 127).astype(np.int8),
        counts=(start.slots & 1023).astype(np.uint8),
        mixers=np.clip(start.mixers // MIXER_STEP, -32768, 32767).astype(np.int16),
    )

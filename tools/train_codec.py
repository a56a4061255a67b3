# noqa: INP001 - tools are no package
"""Trains the start of the waveform codec on WFDB records.

    python -m tools.train_codec FOLDER... --out gateway/signal/codec_start_1.npz
    python -m tools.train_codec FOLDER... --cross

The same records give the same file. `--cross` trains on every second record and measures on the rest, and the other
way round. Formats 212 and 16 are read, where a record is one file.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.signal import codec, codec_start
from gateway.signal import codec_kernels as kernels

Floats = NDArray[np.float64]
Samples = NDArray[np.int32]

BLOCK_S, PACKET_S, KEY_EVERY = 10, 1, 60
BLOCK_HEAD_BYTES, PACKET_HEAD_BYTES = 8, 6
COUNT_MOST = 60
"""How sure a slot may be of what it learnt from other people's records."""
ROUNDS = 2
SEED = 1
REGRESSION_BLOCKS = 400
ITERATIONS = 30


class Record:
    """Rate in Hz, and samples of all leads, one row for each instant."""

    def __init__(self, header: Path) -> None:
        first, second = header.read_text().split("\n")[:2]
        _, channels, rate_hz = first.split()[:3]
        data = np.fromfile(header.with_suffix(".dat"), np.uint8)
        if (kind := second.split()[1]) == "16":
            values = data.view("<i2").astype(np.int32)
        elif kind == "212":
            three = data[: len(data) // 3 * 3].reshape(-1, 3).astype(np.int32)
            low, middle, high = three.T
            pair = np.stack((low | (middle & 15) << 8, high | (middle >> 4) << 8), 1)
            values = (pair.reshape(-1) ^ 0x800) - 0x800
        else:
            raise SystemExit(f"{header}: got format {kind}, expected 212 or 16")
        self.rate_hz = float(rate_hz.partition("/")[0])
        self.samples: Samples = values.reshape(-1, int(channels)).astype(np.int32)

    def pieces(self, seconds: int) -> list[Samples]:
        """Of equal length; the rest is left away."""
        rows = round(self.rate_hz * seconds)
        ends = range(rows, len(self.samples) + 1, rows)
        return [self.samples[end - rows : end] for end in ends]


# --- The regression's start ------------------------------------------------------------------------


def normal_equations(block: Samples, c: int, taps: int) -> tuple[Floats, Floats]:
    """Sums of squares and of products of the inputs that the kernel gives to lead `c` of two, weighted by the noise."""
    steps = np.diff(block.astype(np.float64), axis=0)
    first, end = kernels.HISTORY, len(steps)
    columns = [steps[first - 1 - i : end - 1 - i, c] for i in range(kernels.OWN)]
    if taps > kernels.OWN:
        late = 1 - c  # of the lead before it, the second one knows the present sample
        columns += [steps[first - late - i : end - late - i, 1 - c] for i in range(kernels.FIRST)]
    inputs, aims = np.stack(columns, 1), steps[first:, c]
    squares: Floats = inputs.T @ inputs
    ridge = 1e-3 * np.eye(taps) * (np.mean(inputs * inputs) + 1e-9) * len(inputs)
    errors = aims - inputs @ np.linalg.solve(squares + ridge, inputs.T @ aims)
    noise = np.convolve(errors * errors, np.ones(33) / 33, "same") + kernels.FLOOR
    return (inputs.T / noise) @ inputs, (inputs.T / noise) @ aims


def regression_start(blocks: Sequence[Samples]) -> tuple[Floats, Floats]:
    """Mean and covariance of the weights over the blocks, by expectation and maximisation.

    What no record of two leads can tell (the lead before the last one) starts at zero, and wide.
    """
    weights = np.zeros((kernels.KINDS, kernels.TAPS))
    spread = np.stack([0.05 * np.eye(kernels.TAPS)] * kernels.KINDS)
    both = kernels.OWN + kernels.FIRST
    for kind, (taps, leads) in enumerate(((kernels.OWN, (0, 1)), (both, (0,)), (both, (1,)))):
        sums = [normal_equations(block, c, taps) for block in blocks for c in leads]
        left, right = (np.stack(parts) for parts in zip(*sums, strict=True))
        mean, cover = np.zeros(taps), np.eye(taps)
        for _ in range(ITERATIONS):
            inverse = np.linalg.inv(cover)
            each = np.linalg.inv(left + inverse)
            best = np.einsum("bij,bj->bi", each, right + inverse @ mean)
            mean = best.mean(0)
            away = best - mean
            cover = (each + away[:, :, None] * away[:, None, :]).mean(0) + 1e-6 * np.eye(taps)
        weights[kind, :taps] = mean
        spread[kind, :taps, :taps] = (cover + cover.T) / 2
    return weights, spread


# --- The tables' start -----------------------------------------------------------------------------


class Training(codec.Model):
    """A model whose tables go on from block to block, while its regression starts anew."""

    def learnt(self, start: codec_start.Start) -> codec_start.Start:
        """The start with the tables as they are now."""
        mixers = self._net[kernels.MIXER_AT :].reshape(-1, kernels.TABLES)
        return replace(start, slots=self._slots, mixers=mixers)


def trained(blocks: Sequence[Samples]) -> codec_start.Start:
    """Learns the regression from some blocks, and the tables from all, in a shuffled order."""
    weights, spread = regression_start(blocks[:: max(1, len(blocks) // REGRESSION_BLOCKS)])
    start = codec_start.Start(
        weights,
        spread,
        slots=np.full(kernels.SLOTS, 1 << 31, np.uint32),
        mixers=np.full((kernels.MIXERS, kernels.TABLES), kernels.ONE * 2 // 5, np.int32),
    )
    dice = np.random.default_rng(SEED)
    for _ in range(ROUNDS):
        for index in dice.permutation(len(blocks)).tolist():
            model = Training(blocks[index].shape[1], 16, start)
            model.encode(blocks[index], 0)
            start = model.learnt(start)
    return replace(start, slots=generalised(start.slots))


def generalised(slots: kernels.Words) -> kernels.Words:
    """Bounds the counts. A slot that was never met takes the mean of its node, and learns at once."""
    chance, count = slots >> 10, slots & 1023
    table = np.repeat(np.arange(kernels.TABLES), [n * kernels.NODES for n in kernels.CONTEXTS])
    node = np.arange(len(slots)) % kernels.NODES + table * kernels.NODES
    total = np.bincount(node, count) + 1e-9
    mean = np.bincount(node, count * chance.astype(np.float64)) / total
    mean[total < 1] = 1 << 21
    chance = np.where(count == 0, np.rint(mean[node]), chance).astype(np.uint32)
    out: kernels.Words = (chance << 10 | np.minimum(count, COUNT_MOST)).astype(np.uint32)
    return out


# --- Measuring -------------------------------------------------------------------------------------


def bytes_a_sample(records: Sequence[Record], start: codec_start.Start) -> tuple[float, float]:
    """Of blocks that stand alone, and of a stream's packets, headers included."""
    block_bytes = packet_bytes = block_samples = packet_samples = 0
    for record in records:
        channels = record.samples.shape[1]
        for block in record.pieces(BLOCK_S):
            payload = codec.Model(channels, 16, start).encode(block, 2 * block.size)
            block_bytes += len(payload or bytes(2 * block.size)) + BLOCK_HEAD_BYTES
            block_samples += block.size
        model = codec.Model(channels, 16, start)
        for number, packet in enumerate(record.pieces(PACKET_S)):
            if number % KEY_EVERY == 0:
                model = codec.Model(channels, 16, start)
                packet_bytes += BLOCK_HEAD_BYTES - PACKET_HEAD_BYTES
            payload = model.encode(packet, 2 * packet.size)
            packet_bytes += len(payload or bytes(2 * packet.size)) + PACKET_HEAD_BYTES
            packet_samples += packet.size
    return block_bytes / block_samples, packet_bytes / packet_samples


def main() -> None:
    """Trains, or trains and measures crosswise."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="+")
    task = parser.add_mutually_exclusive_group(required=True)
    task.add_argument("--out", type=Path, help="where the start is written")
    task.add_argument("--cross", action="store_true", help="measure instead")
    options = parser.parse_args()
    headers = [header for folder in options.folder for header in sorted(folder.glob("*.hea"))]
    records = [Record(header) for header in headers]
    if options.out:
        blocks = [record.pieces(BLOCK_S) for record in records]
        codec_start.save(options.out, trained(list(itertools.chain(*blocks))))
        return
    for half in (0, 1):
        blocks = [record.pieces(BLOCK_S) for record in records[half::2]]
        start = codec_start.rounded(trained(list(itertools.chain(*blocks))))
        block, packet = bytes_a_sample(records[1 - half :: 2], start)
        sys.stdout.write(
            f"trained on {len(blocks)} records, measured on {len(records[1 - half :: 2])} others: "
            f"{block:.4f} bytes a sample in blocks of {BLOCK_S} s, "
            f"{packet:.4f} in packets of {PACKET_S} s\n"
        )


if __name__ == "__main__":
    main()

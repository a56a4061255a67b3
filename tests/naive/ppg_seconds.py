"""What each second of a photoplethysmogram is worth, again, from whole recordings and their beats."""

import itertools
import math

import numpy as np
from numpy.typing import NDArray

from gateway.signal import ppg_seconds as kernel

Floats = NDArray[np.float64]
Beat = tuple[float, float, float, float]  # place, height, quality, known


def runs(samples: Floats) -> list[int]:
    """For each sample, for how many samples the value has been the same. What is no number goes on with the run."""
    lengths: list[int] = []
    last = math.nan
    for sample in samples:
        same = not math.isfinite(sample) or sample == last
        lengths.append((lengths[-1] if lengths else 0) + 1 if same else 1)
        last = float(sample) if math.isfinite(sample) else last
    return lengths


def flags_of(
    samples: Floats,
    lengths: list[int],
    begin: int,
    end: int,
    rate_hz: float,
    rails: tuple[float, float],
    height: float,
) -> int:
    inside = samples[begin:end]
    good = inside[np.isfinite(inside)]
    flags = 0
    if ((good <= rails[0]) | (good >= rails[1])).any():
        flags |= kernel.SATURATED
    if max(lengths[begin:end]) >= kernel.FLAT_S * rate_hz:
        flags |= kernel.FLAT
    if height > 0 and good.size and np.ptp(good) > kernel.LEAP * height:
        flags |= kernel.MOTION
    if good.size < inside.size:
        flags |= kernel.MISSING
    return flags


def usual_height(beats: list[Beat]) -> float:
    usual = 0.0
    for _, height, _, _ in beats:
        if usual:
            usual += kernel.HEIGHT_GAIN * (min(height, kernel.HEIGHT_CLIP * usual) - usual)
        else:
            usual = height
    return usual


def usual_interval(beats: list[Beat], now: float, rate_hz: float, least: float) -> float:
    ends = itertools.pairwise(beats)
    recent = [
        b[0] - a[0]
        for a, b in list(ends)[-kernel.INTERVALS :]
        if b[0] > now - kernel.RATE_S * rate_hz and min(a[2], b[2]) >= least
    ]
    if len(recent) < kernel.RATE_LEAST:
        return 0.0
    median = np.median(recent)
    near = [one for one in recent if abs(one - median) <= kernel.RATE_APART * median]
    return float(np.mean(near)) if len(near) >= kernel.RATE_LEAST else 0.0


def seconds(
    samples: Floats,
    beats: list[Beat],
    rate_hz: float,
    rails: tuple[float, float] = (-math.inf, math.inf),
) -> list[tuple[float, float, float, float]]:
    """(second, quality, flags, beats per minute) of each whole second of a run that was not flushed, but the last."""
    rows = []
    within = kernel.DUE_MOST_S * rate_hz
    flags: list[int] = []
    lengths = runs(samples)
    number = 0
    while (ended := math.ceil((number + 1) * rate_hz)) <= len(samples):
        known = [beat for beat in beats if beat[3] <= ended]
        begin = math.ceil(number * rate_hz)
        if number:
            row, within = row_of(number, known, flags[-1], rate_hz, within)
            rows.append(row)
        height = usual_height(known)
        flags.append(flags_of(samples, lengths, begin, ended, rate_hz, rails, height))
        number += 1
    return rows


def row_of(
    number: int, known: list[Beat], flags: int, rate_hz: float, within_then: float
) -> tuple[tuple[float, float, float, float], float]:
    """Second number - 1, when second `number` has ended; and within how many samples a beat is due from now on."""
    begin, end = (number - 1) * rate_hz, number * rate_hz
    inside = [beat for beat in known if begin <= beat[0] < end]
    quality = min((beat[2] for beat in inside), default=1.0)
    quality = min(quality, known[-1][2]) if known else 0.0
    usual = usual_interval(known, end, rate_hz, 0.0)
    within = min(kernel.DUE_MOST_S * rate_hz, kernel.DUE * usual if usual else math.inf)
    last = known[-1][0] if known else -math.inf
    after = [k for k, beat in enumerate(known) if beat[0] >= end]
    if (
        not inside
        and after
        and after[0] > 0
        and known[after[0]][0] - known[after[0] - 1][0] > within_then
    ):
        quality = 0.0
    if flags or end - last > within:
        quality = 0.0
    good = usual_interval(known, end, rate_hz, kernel.RATE_GOOD)
    rate = 60 * rate_hz / good if good and quality > 0 else math.nan
    return (number - 1.0, quality, float(flags), rate), within

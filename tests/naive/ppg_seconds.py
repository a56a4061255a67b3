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
    before = samples[:begin][np.isfinite(samples[:begin])][-1:]
    good = np.concatenate((before, inside[np.isfinite(inside)]))
    flags = 0
    if ((good <= rails[0]) | (good >= rails[1])).any():
        flags |= kernel.SATURATED
    if max(lengths[begin:end]) >= kernel.FLAT_S * rate_hz:
        flags |= kernel.FLAT
    if height > 0 and good.size and np.ptp(good) > kernel.LEAP * height:
        flags |= kernel.MOTION
    if not np.isfinite(inside).all():
        flags |= kernel.MISSING
    return flags


def usual_height(beats: list[Beat]) -> float:
    usual = 0.0
    for _, height, _, _ in beats:
        if usual:
            usual += kernel.USUAL_GAIN * (min(height, kernel.HEIGHT_CLIP * usual) - usual)
        else:
            usual = height
    return usual


def good_interval(beats: list[Beat], now: float, rate_hz: float) -> tuple[float, float]:
    """(weighted mean of the good intervals, how much of the time they fill); (0, 0) if they are too few."""
    fade, since = kernel.FADE_S * rate_hz, now - kernel.RATE_S * rate_hz
    recent = []
    for a, b in itertools.pairwise(beats[-kernel.BEATS :]):
        if since < b[0] < now and min(a[2], b[2]) >= kernel.RATE_GOOD:
            share = min(1.0, (now - b[0]) / fade, (b[0] - since) / fade)
            recent.append((b[0] - a[0], share, min(a[2], b[2])))
    median = np.median([length for length, _, _ in recent]) if recent else 0.0
    near = [one for one in recent if abs(one[0] - median) <= kernel.RATE_APART * median]
    if len(near) < kernel.RATE_LEAST:
        return 0.0, 0.0
    length, share, quality = np.array(near).T
    return float(np.average(length, weights=share * quality)), float(share @ length)


def due_within(beats: list[Beat], rate_hz: float) -> float:
    """A beat is due within so many samples after the last of `beats`."""
    most = usual = kernel.DUE_MOST_S * rate_hz
    for a, b in itertools.pairwise(beats):
        usual += kernel.USUAL_GAIN * (min(b[0] - a[0], most) - usual)
    return min(most, kernel.DUE * usual)


def seconds(
    samples: Floats,
    beats: list[Beat],
    rate_hz: float,
    rails: tuple[float, float] = (-math.inf, math.inf),
) -> list[tuple[float, float, float, float]]:
    """(second, quality, flags, beats per minute) of each whole second of a run that was not flushed, but the last."""
    rows = []
    flags: list[int] = []
    lengths = runs(samples)
    number = 0
    while (ended := math.ceil((number + 1) * rate_hz)) <= len(samples):
        known = [beat for beat in beats if beat[3] <= ended]
        begin = math.ceil(number * rate_hz)
        if number:
            rows.append(row_of(number, known, flags[-1], rate_hz))
        height = usual_height(known)
        flags.append(flags_of(samples, lengths, begin, ended, rate_hz, rails, height))
        number += 1
    return rows


def row_of(
    number: int, known: list[Beat], flags: int, rate_hz: float
) -> tuple[float, float, float, float]:
    """Second number - 1, when second `number` has ended."""
    begin, end = (number - 1) * rate_hz, number * rate_hz
    inside = [beat for beat in known if begin <= beat[0] < end]
    quality = min((beat[2] for beat in inside), default=1.0)
    quality = min(quality, known[-1][2]) if known else 0.0
    last = known[-1][0] if known else -math.inf
    after = [k for k, beat in enumerate(known) if beat[0] >= end]
    if after:
        before = known[: after[0]]
        if not before or end - before[-1][0] > due_within(before, rate_hz):
            quality = 0.0
    good, filled = good_interval(known, end, rate_hz)
    whole = (kernel.RATE_S - kernel.FADE_S) * rate_hz
    told = good > 0 and (quality > 0 or filled >= kernel.COVERED * whole)
    if flags or end - last > due_within(known, rate_hz):
        quality, told = 0.0, False
    return number - 1.0, quality, float(flags), 60 * rate_hz / good if told else math.nan

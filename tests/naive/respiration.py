"""Respiration again, from spectra by their definition over a whole series of beats."""

import math

import numpy as np
from numpy.typing import NDArray

from gateway.signal import respiration as kernel

Floats = NDArray[np.float64]
BPM = np.arange(kernel.LEAST_BPM, kernel.MOST_BPM + 1)


def stretches(beats: Floats) -> list[Floats]:
    """The usable beats, cut where more than GAP_S lies between two."""
    usable: list[Floats] = []
    for beat in beats:
        if np.isfinite(beat).all() and (not usable or beat[0] > usable[-1][0]):
            usable.append(beat)
    cuts = [k for k in range(1, len(usable)) if usable[k][0] - usable[k - 1][0] > kernel.GAP_S]
    return [np.array(part) for part in np.split(np.array(usable), cuts)]


def peak(wave: Floats, intervals: Floats) -> tuple[float, Floats]:
    """(rate of the greatest power, NaN without any; power of each rate as a part of all)."""
    places = np.arange(kernel.WINDOW)
    flat = wave - np.polyval(np.polyfit(places, wave, 1), places)
    turns = np.exp(-2j * np.pi * np.outer(BPM / 60, places / kernel.GRID_HZ))
    power = BPM * np.abs(turns @ (flat * np.hanning(kernel.WINDOW))) ** 2
    power[30 * np.mean(1 / intervals) <= BPM] = 0
    if not power.any():
        return math.nan, power
    power /= power.sum()
    best = int(power.argmax())
    shift = 0.0
    if 0 < best < len(power) - 1:
        left, middle, right = power[best - 1 : best + 2]
        shift = (left - right) / 2 / (left - 2 * middle + right)
    return float(BPM[best] + shift), power


def rates(beats: Floats, leads: int) -> list[tuple[float, float, float]]:
    """(end of the window in s, breaths a minute or NaN, quality)."""
    rows = []
    for part in stretches(beats):
        first = math.ceil(part[0, 0] * kernel.GRID_HZ)
        grid = np.arange(first, math.floor(part[-1, 0] * kernel.GRID_HZ) + 1) / kernel.GRID_HZ
        waves = np.array([np.interp(grid, part[:, 0], part[:, 1 + k]) for k in range(3)])
        for end in range(kernel.WINDOW, len(grid) + 1):
            if end % kernel.STEP == 0:
                inside = waves[:, end - kernel.WINDOW : end]
                rows.append((float(grid[end - 1]), *decide(inside, leads)))
    return rows


def decide(waves: Floats, leads: int) -> tuple[float, float]:
    rate, power = peak(waves[leads], waves[kernel.INTERVAL])
    if math.isnan(rate):
        return math.nan, 0.0
    best = math.floor(rate - kernel.LEAST_BPM + 0.5)
    held = float(power[max(0, best - 1) : best + 2].sum())
    others = [peak(waves[k], waves[kernel.INTERVAL])[0] for k in range(3) if k != leads]
    agreed = any(abs(other - rate) <= kernel.NEAR_BPM for other in others)
    given = held >= kernel.ALONE or (held >= kernel.AGREED and agreed)
    return (rate if given else math.nan), held

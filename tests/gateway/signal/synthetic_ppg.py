"""A photoplethysmogram whose beats are known: a systolic and a dicrotic bell a beat on a chosen rhythm."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

UPSTROKE_S = 0.1
"""From the beat's foot to the steepest place of the upstroke."""
RISE_S = 0.06
"""Standard deviation of the rising half of the systolic bell: it is steepest so long before its top."""


def pleth(
    beats_s: Floats,
    seconds: float,
    rate_hz: float,
    heights: Floats | None = None,
    dicrotic: float = 0.3,
    notch_s: float = 0.3,
    width: float = 1.0,
) -> Floats:
    """1000 counts a beat. Each upstroke is steepest at its place in `beats_s`, the dicrotic wave `notch_s` after it.

    `width` is that of the systolic bell, 1 what is usual at rest.
    """
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    x = np.zeros(t.size)
    sizes = np.ones(len(beats_s)) if heights is None else heights
    for beat, size in zip(beats_s, sizes, strict=True):
        since = t - beat - RISE_S * width
        half = width * np.where(since < 0, RISE_S, 0.13)
        x += 1000 * size * np.exp(-0.5 * (since / half) ** 2)
        x += 1000 * size * dicrotic * np.exp(-0.5 * ((since - notch_s) / 0.06) ** 2)
    return x


def rhythm(seconds: float, mean_s: float, rng: np.random.Generator, spread: float = 0.05) -> Floats:
    """Beats with independent intervals: 5 % spread is sinus rhythm, 25 % as irregular as atrial fibrillation."""
    intervals = mean_s * (1 + spread * rng.uniform(-1.7, 1.7, round(2 * seconds / mean_s)))
    beats = 0.4 + np.cumsum(intervals)
    return beats[beats < seconds - 0.6]


def noisy(
    x: Floats, rms: float, rate_hz: float, rng: np.random.Generator, wander: float = 300
) -> Floats:
    """Adds white noise and the slow wander of breathing, and rounds to counts."""
    t = np.arange(x.size) / rate_hz
    counts: Floats = np.rint(x + wander * np.sin(2 * np.pi * 0.25 * t) + rng.normal(0, rms, x.size))
    return counts

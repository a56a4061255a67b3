"""An ECG whose R peaks are known: five bells a beat on a chosen rhythm. Amplitudes in uV, so counts of 1 uV."""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

# Height in uV, place and width (standard deviation) in s, as seen from the R peak.
NARROW = (
    (120.0, -0.16, 0.02),
    (-120.0, -0.025, 0.008),
    (1000.0, 0.0, 0.011),
    (-200.0, 0.025, 0.009),
    (250.0, 0.28, 0.045),
)
WIDE = ((1100.0, 0.0, 0.035), (-500.0, 0.09, 0.04), (-300.0, 0.3, 0.05))


def ecg(
    beats_s: Floats, seconds: float, rate_hz: float, wide: frozenset[int] = frozenset()
) -> Floats:
    """A clean ECG with its R peaks at `beats_s`; those whose numbers are in `wide` are ventricular ectopics."""
    t = np.arange(round(seconds * rate_hz)) / rate_hz
    x = np.zeros(t.size)
    for number, beat in enumerate(beats_s):
        for height, place, width in WIDE if number in wide else NARROW:
            x += height * np.exp(-0.5 * ((t - beat - place) / width) ** 2)
    return x


def rhythm(
    seconds: float, mean_rr_s: float, rng: np.random.Generator, spread: float = 0.05
) -> Floats:
    """R peaks with independent intervals: 5 % spread is sinus rhythm, 25 % as irregular as atrial fibrillation."""
    intervals = mean_rr_s * (1 + spread * rng.uniform(-1.7, 1.7, round(2 * seconds / mean_rr_s)))
    beats = 0.4 + np.cumsum(intervals)
    return beats[beats < seconds - 0.4]


def noisy(x: Floats, rms_uv: float, rate_hz: float, rng: np.random.Generator) -> Floats:
    """Adds white noise, baseline wander of 1 mV and, where the rate can show it, mains hum; rounds to counts."""
    t = np.arange(x.size) / rate_hz
    wander = 1000 * np.sin(2 * np.pi * 0.23 * t)
    hum = rms_uv * np.sin(2 * np.pi * 50 * t) if rate_hz > 110 else 0.0
    counts: Floats = np.rint(x + wander + hum + rng.normal(0, rms_uv, x.size))
    return counts

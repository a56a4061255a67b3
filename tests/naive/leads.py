"""Cleaning and quality again, over a whole lead at once: filters by their definition, seconds cut out as arrays.

Its constants are those of the kernels.
"""

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from gateway.signal import biquad, clean, quality
from tests.naive.qrs import section

Floats = NDArray[np.float64]


def held(samples: Floats, limit: float, first: float) -> Floats:
    """What is no number or out of range repeats the sample before it, `first` at the beginning."""
    out: list[float] = []
    for sample in samples:
        good = abs(sample) <= limit
        out.append(float(sample) if good else (out[-1] if out else first))
    return np.array(out)


def zeroed(samples: Floats, limit: float) -> Floats:
    """Without what is no number, and the first sample as zero where it is one."""
    if not len(samples):
        return samples
    base = samples[0] if abs(samples[0]) <= limit else 0.0
    return held(samples - base, limit, 0.0)


def line(x: Floats, at_hz: float, rate_hz: float) -> float:
    """|sum of x exp(-i omega n)|^2."""
    turn = np.exp(-2j * math.pi * at_hz / rate_hz * np.arange(len(x)))
    return float(abs((x * turn).sum()) ** 2)


def notches(x: Floats, rate_hz: float) -> list[float | None]:
    """The notch of each sample: 50, 60 or None."""
    window = round(rate_hz)
    lines = (50.0, 60.0)
    votes = dict.fromkeys(lines, 0)
    runs: float | None = None
    out: list[float | None] = []
    for n in range(len(x)):
        out.append(runs)
        if rate_hz < clean.NOTCH_LEAST_HZ or n % (clean.LISTEN_EVERY * window) != window - 1:
            continue
        heard = x[n + 1 - window : n + 1]
        power = {f: line(heard, f, rate_hz) / window for f in (*lines, 45.0, 55.0)}
        around = (power[45.0] + power[55.0]) / 2 + clean.QUIET
        for f in lines:
            if power[f] > clean.STANDS_OUT * around:
                votes[f] = min(int(clean.VOTES_MOST), votes[f] + 1)
            elif power[f] < clean.FADES * around:
                votes[f] = max(0, votes[f] - 1)
        if runs is None or votes[runs] == 0:
            fit = [f for f in lines if votes[f] >= clean.VOTES_ON]
            runs = max(fit, key=power.__getitem__) if fit else None
    return out


def cleaned(samples: Floats, rate_hz: float) -> Floats:
    """High-pass, notch where one runs, low-pass."""
    x = zeroed(samples, clean.SAMPLE_LIMIT)
    u = section(biquad.high_pass(clean.BASELINE_HZ, rate_hz), x)
    v = [0.0, 0.0]
    padded = [0.0, 0.0, *u.tolist()]
    for n, runs in enumerate(notches(x, rate_hz), start=2):
        if runs is None:
            v.append(padded[n])
            continue
        b0, b1, b2, a1, a2 = biquad.notch(runs, clean.NOTCH_Q, rate_hz)
        feed = b0 * padded[n] + b1 * padded[n - 1] + b2 * padded[n - 2]
        v.append(feed - a1 * v[n - 1] - a2 * v[n - 2])
    top = min(clean.TOP_HZ, clean.TOP_SHARE * rate_hz)
    return section(biquad.low_pass(top, rate_hz), np.array(v[2:]))


@dataclass(frozen=True)
class Second:
    """What one second shows."""

    noise: float
    beat: float
    share: float
    flat: bool
    lost: float
    at_limit: float
    mains: float
    slow: float


def bins(band: Floats, second: int, rate_hz: float) -> list[float]:
    """The root mean square of each bin of a second, the quietest first."""
    ends = [
        math.floor((second * quality.BINS + k) * rate_hz / quality.BINS + 0.5)
        for k in range(quality.BINS + 1)
    ]
    return sorted(float(np.sqrt(np.mean(band[a:b] ** 2))) for a, b in pairwise(ends))


def stuck(x: Floats, rate_hz: float) -> Floats:
    """For each sample how many it adds to those at a limit that nobody told."""
    need = round(quality.STUCK_S * rate_hz)
    out, run = np.zeros(len(x)), 0
    for n in range(len(x)):
        extreme = x[n] in {x[: n + 1].min(), x[: n + 1].max()}
        before = x[n - 1] if n else x[0]
        run = run + 1 if extreme and x[n] == before else 0
        if run >= need:
            out[n] = 1 if run > need else need
    return out


def seconds(
    samples: Floats, rate_hz: float, limits: tuple[float, float] | None, floor: float
) -> list[Second]:
    """Every whole second of a lead."""
    band = section(
        biquad.low_pass(quality.HIGH_HZ, rate_hz),
        section(biquad.high_pass(quality.LOW_HZ, rate_hz), cleaned(samples, rate_hz)),
    )
    first = samples[0] if len(samples) and abs(samples[0]) <= quality.SAMPLE_LIMIT else 0.0
    raw = held(samples, quality.SAMPLE_LIMIT, first)
    lost = ~(np.abs(samples) <= quality.SAMPLE_LIMIT)
    slow = section(biquad.low_pass(quality.SLOW_HZ, rate_hz), raw - first)
    if limits is None:
        limited = stuck(raw, rate_hz)
    else:
        limited = ((raw <= limits[0]) | (raw >= limits[1])).astype(float)
    out = []
    second = 0
    while (end := math.floor((second + 1) * rate_hz + 0.5)) <= len(samples):
        a, b = math.floor(second * rate_hz + 0.5), end
        ranked = bins(band, second, rate_hz)
        flat = bool(np.ptp(raw[a:b]) <= quality.FLAT_FLOORS * floor)
        at_limit, missing = limited[a:b].sum() / (b - a), lost[a:b].sum() / (b - a)
        share = 1.0 if flat else min(1.0, at_limit + missing)
        lines = [line(raw[a:b] - first, f, rate_hz) / (b - a) ** 2 for f in (50.0, 60.0)]
        out.append(
            Second(
                noise=ranked[quality.NOISE_BIN],
                beat=ranked[quality.BEAT_BIN] if share <= quality.SATURATED_SHARE else 0.0,
                share=share,
                flat=flat,
                lost=missing,
                at_limit=at_limit,
                mains=math.sqrt(2 * max(lines)) if rate_hz >= clean.NOTCH_LEAST_HZ else 0.0,
                slow=float(np.ptp(slow[a:b])),
            )
        )
        second += 1
    return out


def status(second: Second, level: float, *, limits_known: bool, silent: bool) -> float:
    """What is wrong with it, the gravest first."""
    if second.lost > quality.LOST_SHARE:
        return quality.UNKNOWN
    if limits_known and second.at_limit >= quality.OFF_SHARE:
        return quality.OFF
    if second.flat:
        return quality.FLAT
    if second.at_limit > quality.SATURATED_SHARE:
        return quality.SATURATED
    if level <= 0:
        return quality.UNKNOWN
    if second.mains > quality.MAINS * level:
        return quality.MAINS_DOMINATED
    if silent:
        return quality.SILENT
    if second.slow > quality.MOTION * level:
        return quality.MOVING
    return quality.GOOD


def index(parts: list[Second], level: float) -> float:
    """1 / (1 + (mean share of noise / HALF)^2)."""
    shares = [min(1.0, part.noise / level + part.share) for part in parts]
    return 1 / (1 + (sum(shares) / len(shares) / quality.HALF) ** 2)


def judge(
    samples: Floats,
    rate_hz: float,
    limits: tuple[float, float] | None = None,
    floor: float = 1.0,
) -> list[tuple[float, float, float]]:
    """(index, recent, status) of each whole second of a lead."""
    out = []
    every = seconds(samples, rate_hz, limits, floor)
    silence = 0
    for k, second in enumerate(every):
        window = every[max(0, k + 1 - quality.SECONDS) : k + 1]
        loudest = sorted((part.beat for part in window), reverse=True)
        level = loudest[math.ceil(3 * len(window) / 10) - 1]
        quiet = second.share <= quality.SATURATED_SHARE
        silence = silence + 1 if quiet and second.beat < quality.SILENT_SHARE * level else 0
        values = (0.0, 0.0)
        if len(window) < quality.LEAST_SECONDS:
            values = (math.nan, math.nan)
        elif level > floor:
            values = (index(window, level), index(window[-quality.LATELY :], level))
        if silence > 1:
            values = (values[0], min(values[1], quality.UNSURE))
        what = status(second, level, limits_known=limits is not None, silent=silence > 1)
        out.append((*values, what))
    return out

"""The noise stress test: noise of a stated ratio onto a clean record, as WFDB's nst and sigamp define it.

The first five minutes stay clean, then two minutes with noise and two without follow each other. The ratio compares the
size of the normal QRS complexes (peak to peak, a sinusoid of which has an eighth of its square as power) with the
power of the noise in windows of a second. The noise comes and goes without a step.
"""

import math

import numpy as np

from tools.signal_bench.records import Floats, Record, Spans

CLEAN_S = 300.0
TURN_S = 120.0
MEASURED = 300
"""Complexes, and seconds of noise, that the two sizes are taken from."""
HALF_S = 0.05
"""A complex reaches so far on each side of its mark."""
ABNORMAL = frozenset("VFEr?")
"""Beats that the size of a normal complex does not count."""


def noisy_spans(seconds: float) -> Spans:
    """When the noise is on."""
    starts = np.arange(CLEAN_S, seconds, 2 * TURN_S).tolist()
    return tuple((start, min(start + TURN_S, seconds)) for start in starts)


def trimmed_mean(values: Floats) -> float:
    """Without the twentieth of the values at either end."""
    cut = len(values) // 20
    return float(np.sort(values)[cut : len(values) - cut].mean())


def qrs_size(record: Record) -> float:
    """Peak to peak, in counts.

    Raises:
        ValueError: the record has no normal beat.
    """
    half = round(HALF_S * record.rate_hz)
    normal = [
        round(at * record.rate_hz)
        for at, code in zip(record.beats_s.tolist(), record.codes, strict=True)
        if code not in ABNORMAL
    ]
    inside = [at for at in normal if half <= at < len(record.counts) - half][:MEASURED]
    if not inside:
        raise ValueError(f"{record.name}: got no normal beat, expected some; choose another record")
    sizes = [np.ptp(record.counts[at - half : at + half + 1]) for at in inside]
    return trimmed_mean(np.array(sizes, np.float64))


def noise_size(noise: Floats, rate_hz: float) -> float:
    """Root mean square about the mean of a second, in counts."""
    second = round(rate_hz)
    seconds = min(MEASURED, len(noise) // second)
    return trimmed_mean(noise[: seconds * second].reshape(seconds, second).std(axis=1))


def gain(record: Record, noise: Floats, snr_db: float) -> float:
    """What the noise is multiplied with."""
    ratio = qrs_size(record) / noise_size(noise, record.rate_hz)
    return ratio * math.sqrt(1 / 8) * 10 ** (-snr_db / 20)


def noise_test(record: Record, noise: Floats, snr_db: float) -> Floats:
    """The record's counts with the noise, rounded as a converter gives them.

    Where the noise sets in or ends the signal is shifted so that it goes on from where it was: a step would be an
    artefact of the test.
    """
    on = np.zeros(len(record.counts), np.bool_)
    for begin, end in noisy_spans(record.seconds):
        on[round(begin * record.rate_hz) : round(end * record.rate_hz)] = True
    scaled = gain(record, noise, snr_db) * np.resize(noise, len(on))
    turns = np.flatnonzero(np.diff(on)) + 1
    shift = np.zeros(len(on))
    # The sample before a turn decides: what it would have been after the turn, against what it was.
    shift[turns] = np.where(on[turns], -scaled[turns - 1], scaled[turns - 1])
    return np.rint(record.counts + np.where(on, scaled, 0.0) + np.cumsum(shift))

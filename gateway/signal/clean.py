"""Cleaning of ECG leads: baseline removal, a mains notch that finds its frequency itself, low-pass. Kernels only.

    x -> high-pass -> u -> notch -> v -> low-pass -> y

For detection, for the quality index and for a picture; what is stored stays as it came. The notch of a lead is off until
a line at 50 or 60 Hz stands out of its neighbours, and goes off again when it does not any more. Whether it does is
listened for in one second out of LISTEN_EVERY (Goertzel's recursion at both, and at 45 and 55 Hz for comparison), and
decided by votes, so that one jump of an electrode decides nothing.

All that is remembered is the state array, each lead has its own part of it, and coefficients change at fixed sample
numbers only: neither the cutting of the samples nor the other leads have an influence.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

BASELINE_HZ: Final = 0.5
"""The high-pass. Standards of monitors ask for 0.5 or 0.67 Hz in this place, those of diagnostic ECGs for 0.05 Hz (AHA
2007, IEC 60601-2-25 and -2-47; quoted from memory). With a cut-off this high and without looking ahead ST segments are
bent: the cleaned signal is not one to measure ST on."""
TOP_HZ: Final = 40.0
TOP_SHARE: Final = 0.4
"""The low-pass, at this part of the sample rate where 40 Hz is above it."""
NOTCH_Q: Final = 20.0
"""2.5 to 3 Hz wide: it follows what a grid drifts (0.2 Hz leave a sixth) and rings for 0.13 s."""
NOTCH_LEAST_HZ: Final = 122.5
"""At lower sample rates there is no notch: 60 Hz cannot be told from what it mirrors."""
LISTEN_EVERY: Final = 4
STANDS_OUT: Final = 16.0
FADES: Final = 4.0
"""A second votes for a line whose power is above STANDS_OUT times its neighbours' mean, against it below FADES times.
White noise passes the first in one second out of 81."""
VOTES_ON: Final = 3.0
VOTES_MOST: Final = 4.0
SAMPLE_LIMIT: Final = 2.0**40
"""A sample that is not below this in size (or is not a number) is taken to be as the one before."""
QUIET: Final = 1.0 / 12.0
"""Added to the neighbours' power: the noise of rounding to counts."""

# Slots of the state array that all leads share. The sections are of gateway.signal.biquad, without what their
# numerators have in common: (1 - z)^2 of the high-pass, (1 + z)^2 of the low-pass.
WINDOW, COUNT = 0, 1  # samples of a listening second, 0 without any; samples seen
GAIN, D1, D2, A1, A2 = 2, 3, 4, 5, 6  # numerators of both, high-pass, low-pass
NOTCHES = 7  # b0, b1 / b0, a2 for 50 and for 60 Hz; a1 is b1
RESONANCE = 13  # 2 cos(2 pi f / rate) for 50, 60, 45, 55 Hz
LEADS_0: Final = 17

# Slots of a lead, from LEADS_0 + LEAD_SIZE * lead.
BASE, X1, E1, U1, U2, V1, V2, S1, Y1, Y2 = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
RUNS, VOTES_50, VOTES_60, HELD = 10, 11, 12, 13  # which notch: NONE, AT_50, AT_60; last good sample
GOERTZEL = 14  # two for each resonance
LEAD_SIZE: Final = 22

NONE: Final = 0.0
AT_50: Final = 1.0
AT_60: Final = 2.0


@kernel("void(float64[:,::1], int64, float64[::1], int64, float64[:,::1])")
def clean_hold(samples: Floats, lead: int, state: Floats, at: int, out: Floats) -> None:
    """Takes a lead whose part of the state begins at `at` to `out`, with numbers only, and its first sample as zero."""
    base, x = state[at + BASE], state[at + HELD]
    for i in range(samples.shape[0]):
        sample = samples[i, lead] - base
        if abs(sample) <= SAMPLE_LIMIT:  # does not hold for NaN
            x = sample
        out[i, lead] = x
    state[at + HELD] = x


@kernel("void(float64[:,::1], int64, int64, int64, float64[::1], int64)")
def clean_plain(out: Floats, lead: int, first: int, end: int, state: Floats, at: int) -> None:
    """High-pass and low-pass of samples `first` to `end` of a lead, in place."""
    gain, d1, d2, a1, a2 = state[GAIN], state[D1], state[D2], state[A1], state[A2]
    x1, e1 = state[at + X1], state[at + E1]
    u1, u2, s1 = state[at + U1], state[at + U2], state[at + S1]
    y1, y2 = state[at + Y1], state[at + Y2]
    for i in range(first, end):
        x = out[i, lead] * gain
        e = x - x1
        u = ((e - e1) - d2 * u2) - d1 * u1
        s = u + u1
        y = ((s + s1) - a2 * y2) - a1 * y1
        out[i, lead] = y
        x1, e1, u2, u1, s1, y2, y1 = x, e, u1, u, s, y1, y
    state[at + X1], state[at + E1], state[at + U1], state[at + U2] = x1, e1, u1, u2
    state[at + V1], state[at + V2], state[at + S1] = u1, u2, s1
    state[at + Y1], state[at + Y2] = y1, y2


@kernel("void(float64[:,::1], int64, int64, int64, float64[::1], int64)")
def clean_notched(out: Floats, lead: int, first: int, end: int, state: Floats, at: int) -> None:
    """As `clean_plain`, with the notch of this lead between the two."""
    gain, d1, d2, a1, a2 = state[GAIN], state[D1], state[D2], state[A1], state[A2]
    k = NOTCHES + 3 * (int(state[at + RUNS]) - 1)
    n0, n1, m2 = state[k], state[k + 1], state[k + 2]
    m1 = n0 * n1
    x1, e1 = state[at + X1], state[at + E1]
    u1, u2, v1, v2, s1 = (
        state[at + U1],
        state[at + U2],
        state[at + V1],
        state[at + V2],
        state[at + S1],
    )
    y1, y2 = state[at + Y1], state[at + Y2]
    for i in range(first, end):
        x = out[i, lead] * gain
        e = x - x1
        u = ((e - e1) - d2 * u2) - d1 * u1
        v = (n0 * ((u + u2) + n1 * u1) - m2 * v2) - m1 * v1
        s = v + v1
        y = ((s + s1) - a2 * y2) - a1 * y1
        out[i, lead] = y
        x1, e1, u2, u1, v2, v1, s1, y2, y1 = x, e, u1, u, v1, v, s, y1, y
    state[at + X1], state[at + E1], state[at + U1], state[at + U2] = x1, e1, u1, u2
    state[at + V1], state[at + V2], state[at + S1] = v1, v2, s1
    state[at + Y1], state[at + Y2] = y1, y2


@kernel("void(float64[:,::1], int64, int64, int64, float64[::1], int64)")
def clean_listen(out: Floats, lead: int, first: int, end: int, state: Floats, at: int) -> None:
    """Goes on with the four recursions of Goertzel."""
    r0, r1, r2, r3 = (
        state[RESONANCE],
        state[RESONANCE + 1],
        state[RESONANCE + 2],
        state[RESONANCE + 3],
    )
    g = at + GOERTZEL
    p0, q0, p1, q1 = state[g], state[g + 1], state[g + 2], state[g + 3]
    p2, q2, p3, q3 = state[g + 4], state[g + 5], state[g + 6], state[g + 7]
    for i in range(first, end):
        x = out[i, lead]
        p0, q0 = (x - q0) + r0 * p0, p0
        p1, q1 = (x - q1) + r1 * p1, p1
        p2, q2 = (x - q2) + r2 * p2, p2
        p3, q3 = (x - q3) + r3 * p3, p3
    state[g], state[g + 1], state[g + 2], state[g + 3] = p0, q0, p1, q1
    state[g + 4], state[g + 5], state[g + 6], state[g + 7] = p2, q2, p3, q3


@kernel("float64(float64[::1], int64, int64)")
def clean_power(state: Floats, at: int, which: int) -> float:
    """Power at one resonance over the window, in (sample unit)^2 times samples; forgets it."""
    g = at + GOERTZEL + 2 * which
    p, q = state[g], state[g + 1]
    state[g], state[g + 1] = 0.0, 0.0
    return float((p * p + q * q - state[RESONANCE + which] * p * q) / state[WINDOW])


@kernel("float64(float64, float64, float64)")
def clean_count(votes: float, power: float, around: float) -> float:
    """The votes for a line after one more second."""
    if power > STANDS_OUT * around:
        return min(VOTES_MOST, votes + 1.0)
    if power < FADES * around:
        return max(0.0, votes - 1.0)
    return votes


@kernel("void(float64[::1], int64)")
def clean_vote(state: Floats, at: int) -> None:
    """A listening second is over: counts its votes, and switches the notch when they decide so."""
    line_50, line_60 = clean_power(state, at, 0), clean_power(state, at, 1)
    around = 0.5 * (clean_power(state, at, 2) + clean_power(state, at, 3)) + QUIET
    votes_50 = clean_count(state[at + VOTES_50], line_50, around)
    votes_60 = clean_count(state[at + VOTES_60], line_60, around)
    state[at + VOTES_50], state[at + VOTES_60] = votes_50, votes_60
    runs = state[at + RUNS]
    if (runs == AT_50 and votes_50 > 0.0) or (runs == AT_60 and votes_60 > 0.0):
        return
    runs = NONE
    if votes_50 >= VOTES_ON:
        runs = AT_50
    if votes_60 >= VOTES_ON and (runs == NONE or line_60 > line_50):
        runs = AT_60
    state[at + RUNS] = runs


@kernel("int64(float64[:,::1], float64[::1], float64[:,::1])")
def clean_process(samples: Floats, state: Floats, out: Floats) -> int:
    """Goes on by `samples`, of shape (samples, leads), fills `out`, of the same shape, and returns how many there are."""
    size, leads = samples.shape
    window, seen = int(state[WINDOW]), int(state[COUNT])
    for lead in range(leads):
        at = LEADS_0 + LEAD_SIZE * lead
        if seen == 0 and size > 0 and abs(samples[0, lead]) <= SAMPLE_LIMIT:
            state[at + BASE] = samples[0, lead]
        clean_hold(samples, lead, state, at, out)
        first = 0
        while first < size:
            end, phase = size, window
            if window > 0:
                phase = (seen + first) % (LISTEN_EVERY * window)
                turn = window if phase < window else LISTEN_EVERY * window
                end = min(size, first + turn - phase)
            if phase < window:
                clean_listen(out, lead, first, end, state, at)
            if state[at + RUNS] == NONE:
                clean_plain(out, lead, first, end, state, at)
            else:
                clean_notched(out, lead, first, end, state, at)
            if phase < window and phase + end - first == window:
                clean_vote(state, at)
            first = end
    state[COUNT] = seen + size
    return int(size)

"""The QRS detector: raw samples in, R-peak positions out, one sample after the other. Kernels only.

    x -> low-pass -> u -> high-pass -> y -> y^2 -> moving sum  = energy in the QRS band (8 to 20 Hz)

Each greatest energy within +-SEPARATION is a candidate; its root mean square is the candidate's amplitude. Two levels
follow the amplitudes of beats (signal) and of the rest (noise); a candidate above a threshold made of both is a beat.
Candidates that were refused wait in a queue: when no beat came for 1.5 RR they are judged again, more leniently
(search-back), and when none came for LOST_S, and at the start, the levels are learnt from them.

All that is remembered from one call to the next is the state array, so the cutting of the samples has no influence.
Everything after the filters compares ratios of amplitudes: the scale of the samples has no influence either, save for
the floor. Polarity has none.

Amplitudes rather than slopes or templates: nothing but the band assumes a shape, so bundle branch block, paced and
ectopic beats count like any other.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

LOW_HZ: Final = 8.0
HIGH_HZ: Final = 20.0
"""The band: P and T waves and electrode motion lie mostly below it, muscle noise above, QRS energy within."""
ENERGY_S: Final = 0.08
"""Length of the moving sum: a narrow QRS."""
SEPARATION_S: Final = 0.22
"""No two beats are nearer than this (the absolute refractory period of the ventricles): 270 /min."""
THRESHOLD: Final = 0.3
"""A beat exceeds the noise level by this part of the signal level. When noise comes near the signal nothing passes at
once, so noise does not turn into beats."""
T_RAISE: Final = 2.0
T_SHARE: Final = 0.55
T_MOST_S: Final = 0.5
"""Right after a beat the threshold is 1 + T_RAISE times as high and falls to normal until the T wave is over: after
0.55 of the RR interval, at most 0.5 s."""
MISSED: Final = 1.5
"""A beat is missed after this many RR intervals."""
LENIENT: Final = 0.6
"""Search-back takes the best candidate above this part of the threshold."""
SIGNAL_GAIN: Final = 0.125
NOISE_GAIN: Final = 0.25
RR_GAIN: Final = 0.125
"""How far each level goes towards a new value: about 8 beats, 4 refused candidates, 8 intervals."""
CLIP: Final = 3.0
"""One artefact moves the signal level as a beat of 3 times its size at most."""
LEARN_S: Final = 3.0
"""The levels are learnt from the candidates of the first seconds, which are then judged as all others."""
LOST_S: Final = 4.0
"""Without a beat for so long the levels are learnt again."""
ALONE: Final = 0.4
"""What is learnt as signal level is the second greatest amplitude, since the greatest may be the jump of an electrode;
but at least this part of the greatest, since of a slow rhythm a single beat may have been seen."""
FALL: Final = 0.25
"""The signal level falls at most to this part at once: a pause must not turn P waves or noise into beats. Also the
noise level that is supposed after learning."""
RR_START_S: Final = 1.5
RR_LEAST_S: Final = 0.3
RR_MOST_S: Final = 2.0
"""The RR interval that is expected before any is known (long, so that a slow rhythm is not searched for beats that it
does not have), and the bounds of what it learns from."""
BEFORE_S: Final = 0.06
AFTER_S: Final = 0.01
"""The R peak is looked for in the stretch whose energy was greatest, and so much around it: the energy of a wide QRS
is greatest on the slope after its peak."""
SAMPLE_LIMIT: Final = 2.0**40
"""A sample that is not below this in size (or is not a number) is taken to be as the one before."""

RING: Final = 512
MASK: Final = RING - 1
QUEUE: Final = 32
WINDOW_MOST: Final = 128
"""Room in the state. At 1000 samples/s 0.35 s of u and 0.08 s of energies are needed; 32 candidates last 7 s."""

# Slots of the state array.
B0, B1, B2, A1, A2 = 0, 1, 2, 3, 4  # low-pass
C0, C1, C2, D1, D2 = 5, 6, 7, 8, 9  # high-pass
RATE, WINDOW, SEPARATION, DELAY, FLOOR = (
    10,
    11,
    12,
    13,
    14,
)  # Hz, samples, samples, samples, energy sum
COUNT, BASE = 15, 16  # samples seen; the first sample, subtracted from all
X1, X2, U1, U2, Y1, Y2 = 17, 18, 19, 20, 21, 22
SUM, FRESH, SLOT, BEFORE = (
    23,
    24,
    25,
    26,
)  # moving sum, sum since the ring began anew, place in it, last sum
TOP, TOP_AT = 27, 28  # the open candidate's energy sum and place; -1: none is open
SIGNAL, NOISE, LAST, RR, DUE, HELD = (
    29,
    30,
    31,
    32,
    33,
    34,
)  # levels, last beat, RR, next look-back, queue length
AT_0: Final = 40
AMP_0: Final = AT_0 + QUEUE
ENERGY_0: Final = AMP_0 + QUEUE
U_0: Final = ENERGY_0 + WINDOW_MOST
STATE_SIZE: Final = U_0 + RING

# Columns of the output.
AT, RATIO, LATE = 0, 1, 2
COLUMNS: Final = 3


@kernel("float64(float64[::1], int64)")
def qrs_locate(state: Floats, energy_at: int) -> float:
    """Where the R peak of the energy maximum at `energy_at` lies.

    It is the turning point of u that departs most from the mean of u nearby; where u does not turn, its greatest
    departure.
    """
    rate = state[RATE]
    first = max(1, energy_at - int(state[WINDOW]) - int(BEFORE_S * rate))
    last = min(int(state[COUNT]) - 2, energy_at + int(AFTER_S * rate))
    mean = 0.0
    for i in range(first, last + 1):
        mean += state[U_0 + (i & MASK)]
    mean /= max(1, last + 1 - first)
    best, best_at, best_turns = -1.0, first, False
    left, right, best_left, best_right = 0.0, 0.0, 0.0, 0.0
    for i in range(first, last + 1):
        left = abs(state[U_0 + ((i - 1) & MASK)] - mean)
        size = abs(state[U_0 + (i & MASK)] - mean)
        right = abs(state[U_0 + ((i + 1) & MASK)] - mean)
        turns = left <= size and right <= size
        if (turns and not best_turns) or (turns == best_turns and size > best):
            best, best_at, best_turns = size, i, turns
            best_left, best_right = left, right
    # The vertex of the parabola through the three samples around the peak: finer than one sample.
    bend = best_left - 2.0 * best + best_right
    shift = 0.5 * (best_left - best_right) / bend if best_turns and bend < 0.0 else 0.0
    return max(0.0, best_at + shift - float(state[DELAY]))


@kernel("float64(float64[::1], float64)")
def qrs_threshold(state: Floats, at: float) -> float:
    """The amplitude that a candidate at `at` must exceed."""
    threshold = float(state[NOISE] + THRESHOLD * state[SIGNAL])
    since = at - state[LAST]
    t_wave = min(T_MOST_S * state[RATE], T_SHARE * state[RR])
    if since < t_wave:
        threshold *= 1.0 + T_RAISE * (1.0 - since / t_wave)
    return threshold


@kernel("int64(float64[::1], float64, float64, float64, float64[:,::1], int64)")
def qrs_accept(
    state: Floats, at: float, amplitude: float, late: float, out: Floats, found: int
) -> int:
    """Gives out a beat and lets levels and RR learn from it. `late` is 1 for search-back, else 0."""
    rate, signal = state[RATE], state[SIGNAL]
    out[found, AT] = at
    out[found, RATIO] = state[NOISE] / signal
    out[found, LATE] = late
    if state[LAST] > -math.inf:
        rr = min(max(at - state[LAST], RR_LEAST_S * rate), RR_MOST_S * rate)
        state[RR] += RR_GAIN * (rr - state[RR])
    state[SIGNAL] = signal + SIGNAL_GAIN * (min(amplitude, CLIP * signal) - signal)
    state[LAST] = at
    state[DUE] = at + MISSED * state[RR] + 2.0 * state[SEPARATION]
    return found + 1


@kernel("int64(float64[::1], float64, float64, float64[:,::1], int64)")
def qrs_judge(state: Floats, at: float, amplitude: float, out: Floats, found: int) -> int:
    """Takes a candidate for a beat, or learns noise from it and queues it. While nothing is learnt, only queues."""
    if state[SIGNAL] > 0.0:
        apart = at - state[LAST] > 0.5 * state[SEPARATION]
        if apart and amplitude > qrs_threshold(state, at):
            state[HELD] = 0.0
            return qrs_accept(state, at, amplitude, 0.0, out, found)
        state[NOISE] += NOISE_GAIN * (min(amplitude, state[SIGNAL]) - state[NOISE])
    held = int(state[HELD])
    if held == QUEUE:
        for i in range(QUEUE - 1):
            state[AT_0 + i] = state[AT_0 + i + 1]
            state[AMP_0 + i] = state[AMP_0 + i + 1]
        held -= 1
    state[AT_0 + held] = at
    state[AMP_0 + held] = amplitude
    state[HELD] = held + 1
    return found


@kernel("int64(float64[::1], int64, float64[:,::1], int64)")
def qrs_replay(state: Floats, first: int, out: Floats, found: int) -> int:
    """Judges the queue from entry `first` on again. It refills from the front, never faster than it is read."""
    held = int(state[HELD])
    state[HELD] = 0.0
    for i in range(first, held):
        found = qrs_judge(state, state[AT_0 + i], state[AMP_0 + i], out, found)
    return found


@kernel("int64(float64[::1], float64[:,::1], int64)")
def qrs_search_back(state: Floats, out: Floats, found: int) -> int:
    """Takes the greatest queued candidate after the T wave for a beat, if it passes the lenient threshold."""
    after = state[LAST] + min(T_MOST_S * state[RATE], T_SHARE * state[RR])
    best = LENIENT * (state[NOISE] + THRESHOLD * state[SIGNAL])
    best_i = -1
    for i in range(int(state[HELD])):
        if state[AT_0 + i] > after and state[AMP_0 + i] > best:
            best, best_i = state[AMP_0 + i], i
    if best_i < 0:
        return found
    found = qrs_accept(state, state[AT_0 + best_i], best, 1.0, out, found)
    return qrs_replay(state, best_i + 1, out, found)


@kernel("int64(float64[::1], float64, float64[:,::1], int64)")
def qrs_learn(state: Floats, now: float, out: Floats, found: int) -> int:
    """Sets the levels from the queue, and judges it with them. Needs two candidates at least."""
    state[DUE] = now + LEARN_S * state[RATE] / 2.0
    first, second = 0.0, 0.0
    for i in range(int(state[HELD])):
        amplitude = state[AMP_0 + i]
        if amplitude > first:
            first, second = amplitude, first
        elif amplitude > second:
            second = amplitude
    if second <= 0.0:
        return found
    state[SIGNAL] = max(second, ALONE * first, FALL * state[SIGNAL])
    state[NOISE] = FALL * state[SIGNAL]
    state[LAST] = -math.inf
    state[RR] = RR_START_S * state[RATE]
    return qrs_replay(state, 0, out, found)


@kernel("int64(float64[::1], float64, float64[:,::1], int64)")
def qrs_overdue(state: Floats, now: float, out: Floats, found: int) -> int:
    """What is due at sample `now` when no beat came: search back, and when that finds nothing, learn anew."""
    if state[LAST] > -math.inf:
        before = found
        found = qrs_search_back(state, out, found)
        lost_at = state[LAST] + LOST_S * state[RATE]
        if found > before:
            return found
        if now < lost_at:
            state[DUE] = lost_at
            return found
    return qrs_learn(state, now, out, found)


@kernel("int64(float64[::1], int64, float64, float64[:,::1], int64)")
def qrs_candidate(state: Floats, energy_at: int, energy: float, out: Floats, found: int) -> int:
    """A candidate is complete: fill the pause before it, if there was one, then judge it."""
    at = qrs_locate(state, energy_at)
    before = -1
    while state[LAST] > -math.inf and at - state[LAST] > MISSED * state[RR] and found != before:
        before = found
        found = qrs_search_back(state, out, found)
    return qrs_judge(state, at, math.sqrt(energy / state[WINDOW]), out, found)


@kernel("int64(float64[::1], float64[::1], float64[:,::1])")
def qrs_process(samples: Floats, state: Floats, out: Floats) -> int:
    """Goes on by `samples` and returns how many rows of `out` it filled.

    `out` has room for samples.size / SEPARATION + QUEUE + 2 rows: each candidate gives one at most.
    """
    b0, b1, b2, a1, a2 = state[B0], state[B1], state[B2], state[A1], state[A2]
    c0, c1, c2, d1, d2 = state[C0], state[C1], state[C2], state[D1], state[D2]
    window, separation, floor = int(state[WINDOW]), int(state[SEPARATION]), state[FLOOR]
    n, base = int(state[COUNT]), state[BASE]
    x1, x2, u1, u2, y1, y2 = state[X1], state[X2], state[U1], state[U2], state[Y1], state[Y2]
    total, fresh, slot, before = state[SUM], state[FRESH], int(state[SLOT]), state[BEFORE]
    top, top_at = state[TOP], int(state[TOP_AT])
    due = state[DUE]
    found = 0
    for sample in samples:
        if n == 0 and abs(sample) <= SAMPLE_LIMIT:
            base = sample
        x = sample - base
        if not abs(x) <= SAMPLE_LIMIT:  # holds for NaN too
            x = x1
        u = (b0 * x + b1 * x1 + b2 * x2 - a2 * u2) - a1 * u1
        y = (c0 * u + c1 * u1 + c2 * u2 - d2 * y2) - d1 * y1
        x2, x1, u2, u1, y2, y1 = x1, x, u1, u, y1, y
        state[U_0 + (n & MASK)] = u
        # The moving sum begins anew with each round of the ring, so that rounding errors never add up.
        energy = y * y
        total += energy - state[ENERGY_0 + slot]
        state[ENERGY_0 + slot] = energy
        fresh += energy
        slot += 1
        if slot == window:
            total, fresh, slot = fresh, 0.0, 0
        n += 1
        if total > top and total > before:
            top, top_at = total, n - 1
        elif top_at >= 0 and n - 1 - top_at >= separation:
            state[COUNT] = n
            found = qrs_candidate(state, top_at, top, out, found)
            top, top_at, due = floor, -1, state[DUE]
        if n >= due:
            found = qrs_overdue(state, n, out, found)
            due = state[DUE]
        before = total
    state[COUNT], state[BASE] = n, base
    state[X1], state[X2], state[U1], state[U2], state[Y1], state[Y2] = x1, x2, u1, u2, y1, y2
    state[SUM], state[FRESH], state[SLOT], state[BEFORE] = total, fresh, slot, before
    state[TOP], state[TOP_AT] = top, top_at
    return found


@kernel("int64(float64[::1], float64[:,::1])")
def qrs_flush(state: Floats, out: Floats) -> int:
    """The samples end here: judges the open candidate, and what still waits. The state is used up afterwards."""
    found = 0
    if state[TOP_AT] >= 0.0:
        found = qrs_candidate(state, int(state[TOP_AT]), state[TOP], out, found)
    if state[SIGNAL] == 0.0:
        return qrs_learn(state, state[COUNT], out, found)
    if state[LAST] > -math.inf and state[COUNT] - state[LAST] > MISSED * state[RR]:
        found = qrs_search_back(state, out, found)
    return found

"""Pulse waves of a photoplethysmogram: raw samples in, beats out, one sample after the other. Kernels only.

    x -> mean of STRIDE -> low-pass -> u ;  a rise of u from a turning point to the next is one upstroke

Each upstroke is a candidate; its strength is the geometric mean of its greatest slope and of what of its height is above
the running mean. That sets the systolic upstroke apart from the dicrotic wave (as high at times, never as steep), from
the rebound of a sensor that passes no slow change (as high, but from far below), and from slow drift (not steep). Of
upstrokes within SEPARATION the strongest counts. From there on it goes as with QRS complexes: two levels follow the
strengths of beats and of the rest, what passes a threshold made of both is a beat, the refused wait in a queue, and
when no beat came for MISSED intervals they are judged again, more leniently (search-back). At the start, and when no
beat came for LOST_S, the levels are learnt from the queue.

A beat's quality is how far its wave resembles the waves before it. The rhythm plays no part in it: an irregular one is
not a bad signal. All that is remembered is the state array, so the cutting of the samples has no influence.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

INNER_HZ: Final = 62.5
"""Samples are averaged down to about this rate (47 to 94 samples/s, or the sensor's own when that is less)."""
LOW_PASS_HZ, MEAN_HZ = 10.0, 0.3
ABOVE_LEAST: Final = 0.3
"""What of an upstroke lies above the running mean counts for its height, but this part of the whole at least."""
UPSTROKE_MOST_S: Final = 1.5
"""A longer rise is no pulse wave."""
SEPARATION_S, SHORT = 0.2, 0.4
"""Of the upstrokes nearer than this only the strongest may be a beat; no two beats are nearer than half of it. An upstroke
that has begun by then is waited for, and is one of those if it is nearer than SHORT of the interval too."""
THRESHOLD: Final = 0.14
"""A beat exceeds the noise level by this part of the signal level."""
T_RAISE, T_SHARE, T_MOST_S = 4.5, 0.64, 0.5
T_CAP, T_REBOUND = 0.7, 1.0
"""Right after a beat the threshold is 1 + T_RAISE times as high, and falls to normal until the dicrotic wave is over:
after T_SHARE of the pulse interval, at most T_MOST_S. T_CAP of the signal level is always enough: a doubled interval
must not hold back every other beat. But what rises from below the foot of the last beat is the rebound of a sensor that
passes no slow change: it takes T_REBOUND of the signal level."""
MISSED, LENIENT = 1.5, 0.28
"""After MISSED intervals without a beat the best candidate above LENIENT times the threshold is taken."""
SIGNAL_GAIN, NOISE_GAIN, INTERVAL_GAIN = 0.17, 0.16, 0.25
CLIP: Final = 2.2
"""One artefact moves the signal level as a beat of this many times its size at most."""
LEARN_S, LOST_S = 4.0, 7.0
ALONE: Final = 0.4
"""What is learnt as signal level is the second greatest strength, but at least this part of the greatest."""
FALL: Final = 0.08
"""The signal level falls at most to this part at once; also the noise level that is supposed after learning."""
STRONG: Final = 0.6
INTERVAL_START_S, INTERVAL_LEAST_S, INTERVAL_MOST_S = 1.0, 0.3, 2.0
"""The interval expected at first is the mean between the queue's waves of STRONG of the signal level, if three are, and
at most INTERVAL_START_S; and the bounds of what it learns from."""
BEFORE_S, AFTER_S = 0.15, 0.35
"""The stretch of a wave that is compared, around its steepest place: the same for slow and fast rhythms."""
SHAPE_GAIN, ALIKE = 0.125, 0.7
"""A correlation with the waves before of so much or less is quality 0; 1 is quality 1."""
SAMPLE_LIMIT: Final = 2.0**40
"""A sample that is not below this in size (or is not a number) is taken to be as the one before."""

RING: Final = 512
MASK: Final = RING - 1
QUEUE, PENDING, SHAPE = 24, 12, 32

# Slots of the state array. Places and intervals in inner samples, strengths and heights in the unit of the samples.
B0, B1, B2, A1, A2 = 0, 1, 2, 3, 4  # low-pass
RAW_COUNT, BASE, RAW_LAST, TOTAL, FILL = 5, 6, 7, 8, 9  # of the sensor's samples
STRIDE, RATE, SIGN, DELAY, FLOOR, SEPARATION = 10, 11, 12, 13, 14, 15
COUNT, X1, X2, U1, U2 = 16, 17, 18, 19, 20
FOOT_AT, STEEP_AT, STEEPEST, WAKE = 21, 22, 23, 24  # the open upstroke; when to look again
SIGNAL, NOISE, LAST, LAST_LEVEL, INTERVAL = 25, 26, 27, 28, 29  # levels; last beat, its foot
DUE, HELD, WAITING, SHAPED, MEAN, MEAN_GAIN = 30, 31, 32, 33, 34, 35  # both queues' lengths; waves
TOP: Final = 36
"""The open candidate, a row as those of the queue; its place is -1 when none is open."""

# Columns of a candidate, and of a beat as given out.
AT, STRENGTH, FOOT, PEAK, HEIGHT, LEVEL, CANDIDATE = 0, 1, 2, 3, 4, 5, 6
OUT_AT, OUT_FOOT, OUT_PEAK, OUT_HEIGHT, OUT_LEVEL, OUT_QUALITY, OUT_KNOWN = 0, 1, 2, 3, 4, 5, 6
COLUMNS: Final = 7

QUEUE_0: Final = TOP + CANDIDATE
PENDING_0: Final = QUEUE_0 + QUEUE * CANDIDATE
SHAPE_0: Final = PENDING_0 + PENDING * CANDIDATE
WAVE_0: Final = SHAPE_0 + SHAPE
U_0: Final = WAVE_0 + SHAPE
STATE_SIZE: Final = U_0 + RING


@kernel("float64(float64, float64, float64)")
def ppg_vertex(left: float, middle: float, right: float) -> float:
    """Where the parabola through three neighbouring values has its top, as seen from the middle one."""
    bend = left - 2.0 * middle + right
    return 0.5 * (left - right) / bend if bend < 0.0 else 0.0


@kernel("void(float64[::1])")
def ppg_locate(state: Floats) -> None:
    """Finds the places of the open candidate between the samples; the foot by the tangent at the steepest place."""
    steep, peak = int(state[TOP + AT]), int(state[TOP + PEAK])
    foot_level = state[U_0 + (int(state[TOP + FOOT]) & MASK)]
    u0, u1 = state[U_0 + ((steep - 2) & MASK)], state[U_0 + ((steep - 1) & MASK)]
    u2, u3 = state[U_0 + (steep & MASK)], state[U_0 + ((steep + 1) & MASK)]
    state[TOP + AT] = steep - 0.5 + ppg_vertex(u1 - u0, u2 - u1, u3 - u2)
    if u2 > u1:
        state[TOP + FOOT] = steep - 0.5 - (0.5 * (u1 + u2) - foot_level) / (u2 - u1)
    u0, u1 = state[U_0 + ((peak - 1) & MASK)], state[U_0 + (peak & MASK)]
    state[TOP + PEAK] = peak + ppg_vertex(u0, u1, state[U_0 + ((peak + 1) & MASK)])
    state[TOP + LEVEL] = foot_level


@kernel("float64(float64[::1], int64)")
def ppg_threshold(state: Floats, row: int) -> float:
    """The strength that the candidate in slot `row` must exceed."""
    threshold = float(state[NOISE] + THRESHOLD * state[SIGNAL])
    since = state[row + AT] - state[LAST]
    dicrotic = min(T_MOST_S * state[RATE], T_SHARE * state[INTERVAL])
    if since < dicrotic:
        raised = threshold * (1.0 + T_RAISE * (1.0 - since / dicrotic))
        threshold = max(threshold, min(raised, T_CAP * state[SIGNAL]))
        if state[row + LEVEL] < state[LAST_LEVEL]:
            threshold = max(threshold, T_REBOUND * state[SIGNAL])
    return threshold


@kernel("float64(float64[::1], float64)")
def ppg_shape(state: Floats, at: float) -> float:
    """How far the wave around `at` resembles those before it (0 to 1), which then learn from it. 0 for the first."""
    wave, shape = state[WAVE_0:U_0], state[SHAPE_0:WAVE_0]
    first, newest = at - BEFORE_S * state[RATE], int(state[COUNT]) - 1
    step = (BEFORE_S + AFTER_S) * state[RATE] / (SHAPE - 1)
    if first < max(0, newest + 2 - RING):
        return 0.0
    # Where a run ends within the wave, the last sample stands for the rest.
    there, last = min(SHAPE, math.ceil((newest - first) / step)), state[U_0 + (newest & MASK)]
    mean, own, common, known = (SHAPE - there) * last, 0.0, 0.0, 0.0
    wave[there:] = last
    for k in range(there):
        place = first + k * step
        i = int(place)
        here = state[U_0 + (i & MASK)]
        wave[k] = here + (place - i) * (state[U_0 + ((i + 1) & MASK)] - here)
        mean += wave[k]
    mean /= SHAPE
    for k in range(0, SHAPE, 2):  # by twos, which do not wait for each other
        one, two = wave[k] - mean, wave[k + 1] - mean
        own += one * one + two * two
        common += one * shape[k] + two * shape[k + 1]
        known += shape[k] * shape[k] + shape[k + 1] * shape[k + 1]
    if not own > 0.0:
        return 0.0
    gain = max(SHAPE_GAIN, 1.0 / (1.0 + state[SHAPED]))
    own_gain = gain / math.sqrt(own)
    state[SHAPED] += 1.0
    for k in range(SHAPE):
        shape[k] += own_gain * (wave[k] - mean) - gain * shape[k]
    alike = common / math.sqrt(own * known) if known > 0.0 else 0.0
    return max(0.0, min(1.0, (alike - ALIKE) / (1.0 - ALIKE)))


@kernel("int64(float64[::1], float64[:,::1], int64)")
def ppg_finish(state: Floats, out: Floats, found: int) -> int:
    """Gives out the beat that waited longest for the rest of its wave."""
    stride, waiting = state[STRIDE], int(state[WAITING]) - 1
    quality = ppg_shape(state, state[PENDING_0 + AT])
    for column, slot in ((OUT_AT, AT), (OUT_FOOT, FOOT), (OUT_PEAK, PEAK)):
        inner = state[PENDING_0 + slot] - state[DELAY]
        out[found, column] = max(0.0, inner * stride + 0.5 * (stride - 1.0))
    out[found, OUT_HEIGHT] = state[PENDING_0 + HEIGHT]
    out[found, OUT_LEVEL] = state[BASE] + state[SIGN] * state[PENDING_0 + LEVEL]
    out[found, OUT_QUALITY] = quality
    out[found, OUT_KNOWN] = state[RAW_COUNT]
    for k in range(CANDIDATE * waiting):
        state[PENDING_0 + k] = state[PENDING_0 + k + CANDIDATE]
    state[WAITING] = waiting
    return found + 1


@kernel("int64(float64[::1], int64, float64[:,::1], int64)")
def ppg_accept(state: Floats, row: int, out: Floats, found: int) -> int:
    """Takes the candidate in slot `row` for a beat: levels and interval learn from it, and its wave is waited for."""
    if state[WAITING] == PENDING:
        found = ppg_finish(state, out, found)
    rate, signal, at = state[RATE], state[SIGNAL], state[row + AT]
    if state[LAST] > -math.inf:
        interval = min(max(at - state[LAST], INTERVAL_LEAST_S * rate), INTERVAL_MOST_S * rate)
        state[INTERVAL] += INTERVAL_GAIN * (interval - state[INTERVAL])
    state[SIGNAL] = signal + SIGNAL_GAIN * (min(state[row + STRENGTH], CLIP * signal) - signal)
    state[LAST], state[LAST_LEVEL] = at, state[row + LEVEL]
    state[DUE] = at + MISSED * state[INTERVAL] + 2.0 * state[SEPARATION]
    to = PENDING_0 + int(state[WAITING]) * CANDIDATE
    for k in range(CANDIDATE):
        state[to + k] = state[row + k]
    state[WAITING] += 1.0
    return found


@kernel("int64(float64[::1], int64, float64[:,::1], int64)")
def ppg_judge(state: Floats, row: int, out: Floats, found: int) -> int:
    """Takes a candidate for a beat, or learns noise from it and queues it. While nothing is learnt, only queues."""
    strength = state[row + STRENGTH]
    if state[SIGNAL] > 0.0:
        apart = state[row + AT] - state[LAST] > 0.5 * state[SEPARATION]
        if apart and strength > ppg_threshold(state, row):
            state[HELD] = 0.0
            return ppg_accept(state, row, out, found)
        state[NOISE] += NOISE_GAIN * (min(strength, state[SIGNAL]) - state[NOISE])
    held = int(state[HELD])
    if held == QUEUE:
        held -= 1
        for k in range(held * CANDIDATE):
            state[QUEUE_0 + k] = state[QUEUE_0 + k + CANDIDATE]
    for k in range(CANDIDATE):
        state[QUEUE_0 + held * CANDIDATE + k] = state[row + k]
    state[HELD] = held + 1
    return found


@kernel("int64(float64[::1], int64, float64[:,::1], int64)")
def ppg_replay(state: Floats, first: int, out: Floats, found: int) -> int:
    """Judges the queue from entry `first` on again. It refills from the front, never faster than it is read."""
    held = int(state[HELD])
    state[HELD] = 0.0
    for i in range(first, held):
        found = ppg_judge(state, QUEUE_0 + i * CANDIDATE, out, found)
    return found


@kernel("int64(float64[::1], float64[:,::1], int64)")
def ppg_search_back(state: Floats, out: Floats, found: int) -> int:
    """Takes the strongest queued candidate after the dicrotic wave for a beat, if it passes the lenient threshold."""
    after = state[LAST] + min(T_MOST_S * state[RATE], T_SHARE * state[INTERVAL])
    best, best_i = LENIENT * (state[NOISE] + THRESHOLD * state[SIGNAL]), -1
    for i in range(int(state[HELD])):
        row = QUEUE_0 + i * CANDIDATE
        if state[row + AT] > after and state[row + STRENGTH] > best:
            best, best_i = state[row + STRENGTH], i
    if best_i < 0:
        return found
    found = ppg_accept(state, QUEUE_0 + best_i * CANDIDATE, out, found)
    return ppg_replay(state, best_i + 1, out, found)


@kernel("int64(float64[::1], float64, float64[:,::1], int64)")
def ppg_learn(state: Floats, now: float, out: Floats, found: int) -> int:
    """Sets the levels from the queue, and judges it with them. Needs two candidates at least."""
    state[DUE] = now + 0.5 * LEARN_S * state[RATE]
    held = int(state[HELD])
    if held < 2:
        return found
    queue = state[QUEUE_0 : QUEUE_0 + held * CANDIDATE].reshape(-1, CANDIDATE)
    strengths = np.sort(queue[:, STRENGTH])
    state[SIGNAL] = max(strengths[-2], ALONE * strengths[-1], FALL * state[SIGNAL])
    state[NOISE] = FALL * state[SIGNAL]
    state[LAST] = -math.inf
    strong, begin, end = 0, 0.0, 0.0
    for i in range(held):
        if queue[i, STRENGTH] >= STRONG * state[SIGNAL]:
            begin, end = queue[i, AT] if strong == 0 else begin, queue[i, AT]
            strong += 1
    state[INTERVAL] = INTERVAL_START_S * state[RATE]
    if strong > 2:
        mean = max((end - begin) / (strong - 1), INTERVAL_LEAST_S * state[RATE])
        state[INTERVAL] = min(mean, state[INTERVAL])
    return ppg_replay(state, 0, out, found)


@kernel("int64(float64[::1], float64, float64[:,::1], int64)")
def ppg_overdue(state: Floats, now: float, out: Floats, found: int) -> int:
    """What is due at inner sample `now` when no beat came: search back, and when that finds nothing, learn anew."""
    if state[LAST] > -math.inf:
        last = state[LAST]
        found = ppg_search_back(state, out, found)
        lost_at = state[LAST] + LOST_S * state[RATE]
        if state[LAST] > last:
            return found
        if now < lost_at:
            state[DUE] = lost_at
            return found
    return ppg_learn(state, now, out, found)


@kernel("int64(float64[::1], float64[:,::1], int64)")
def ppg_candidate(state: Floats, out: Floats, found: int) -> int:
    """The open candidate is complete: fill the pause before it, if there was one, then judge it."""
    ppg_locate(state)
    at, last = state[TOP + AT], math.nan
    while -math.inf < state[LAST] < at - MISSED * state[INTERVAL] and state[LAST] != last:
        last = state[LAST]
        found = ppg_search_back(state, out, found)
    found = ppg_judge(state, TOP, out, found)
    state[TOP + STRENGTH], state[TOP + AT] = 0.0, -1.0
    return found


@kernel("void(float64[::1], int64, int64, float64)")
def ppg_upstroke(state: Floats, foot_at: int, steep_at: int, steepest: float) -> None:
    """An upstroke has ended with the last sample but one: if it is the strongest for now, it is the open candidate."""
    peak_at = int(state[COUNT]) - 2
    height = state[U_0 + (peak_at & MASK)] - state[U_0 + (foot_at & MASK)]
    above = max(ABOVE_LEAST * height, min(height, state[U_0 + (peak_at & MASK)] - state[MEAN]))
    strength = math.sqrt(above * steepest * state[RATE])
    short = peak_at - foot_at <= int(UPSTROKE_MOST_S * state[RATE])
    if short and height > state[FLOOR] and strength > state[TOP + STRENGTH]:
        state[TOP + AT], state[TOP + STRENGTH], state[TOP + FOOT] = steep_at, strength, foot_at
        state[TOP + PEAK], state[TOP + HEIGHT] = peak_at, height


@kernel("int64(float64[::1], float64[:,::1], int64)")
def ppg_wake(state: Floats, out: Floats, found: int) -> int:
    """Does what is due, and says when to look next."""
    now = state[COUNT]
    if state[TOP + AT] >= 0.0 and now > state[TOP + AT] + state[SEPARATION]:
        found = ppg_candidate(state, out, found)
    if now >= state[DUE]:
        found = ppg_overdue(state, now, out, found)
    wave = math.ceil(AFTER_S * state[RATE]) + 1.0
    while state[WAITING] > 0.0 and now > state[PENDING_0 + AT] + wave:
        found = ppg_finish(state, out, found)
    wake = state[DUE]
    if state[TOP + AT] >= 0.0:
        wake = min(wake, state[TOP + AT] + state[SEPARATION] + 1.0)
    if state[WAITING] > 0.0:
        wake = min(wake, state[PENDING_0 + AT] + wave)
    state[WAKE] = wake
    return found


@kernel("int64(float64[::1], float64[::1], float64[:,::1])")
def ppg_process(samples: Floats, state: Floats, out: Floats) -> int:
    """Goes on by `samples` and returns how many rows of `out` it filled.

    `out` has room for samples.size / (SEPARATION * STRIDE) + QUEUE + PENDING + 2 rows: each candidate gives one at most.
    """
    b0, b1, b2, a1, a2 = state[B0], state[B1], state[B2], state[A1], state[A2]
    n, stride, scale = int(state[RAW_COUNT]), int(state[STRIDE]), state[SIGN] / state[STRIDE]
    base, last, total = state[BASE], state[RAW_LAST], state[TOTAL]
    last_of = stride - 1 - int(state[FILL])  # the last sample of the stride
    m, x1, x2, u1, u2 = int(state[COUNT]), state[X1], state[X2], state[U1], state[U2]
    foot_at, steep_at, steepest = int(state[FOOT_AT]), int(state[STEEP_AT]), state[STEEPEST]
    mean, mean_gain, wake = state[MEAN], state[MEAN_GAIN], state[WAKE]
    longest, found = int(UPSTROKE_MOST_S * state[RATE]), 0
    for i, sample in enumerate(samples):
        if abs(sample - base) <= SAMPLE_LIMIT:
            last = sample - base
        elif base != base and abs(sample) <= SAMPLE_LIMIT:  # noqa: PLR0124 - NaN until then
            base = state[BASE] = sample
        total += last
        if i < last_of:
            continue
        last_of += stride
        x = total * scale
        u = (b0 * x + b1 * x1 + b2 * x2 - a2 * u2) - a1 * u1
        rise = u - u1
        x2, x1, u2, u1, total = x1, x, u1, u, 0.0
        state[U_0 + (m & MASK)] = u
        m += 1
        mean += max(mean_gain, 1.0 / m) * (u - mean)
        if rise > 0.0:
            if steepest == 0.0:
                foot_at = m - 2
            if rise > steepest:
                steepest, steep_at = rise, m - 1
            if m - foot_at <= longest:
                continue  # what is due waits for the end of this upstroke
        elif steepest > 0.0:
            state[COUNT], state[MEAN], state[RAW_COUNT] = m, mean, n + i + 1
            if 0.0 <= state[TOP + AT] < steep_at - max(state[SEPARATION], SHORT * state[INTERVAL]):
                found = ppg_candidate(state, out, found)
            ppg_upstroke(state, foot_at, steep_at, steepest)
            steepest = 0.0
            if state[TOP + AT] == steep_at:
                wake = min(wake, steep_at + state[SEPARATION] + 1.0)
        if m >= wake:
            state[COUNT], state[RAW_COUNT] = m, n + i + 1
            found = ppg_wake(state, out, found)
            wake = state[WAKE]
    state[RAW_COUNT], state[RAW_LAST], state[TOTAL] = n + samples.size, last, total
    state[FILL] = stride - 1 - (last_of - samples.size)
    state[COUNT], state[X1], state[X2], state[U1], state[U2] = m, x1, x2, u1, u2
    state[FOOT_AT], state[STEEP_AT], state[STEEPEST] = foot_at, steep_at, steepest
    state[WAKE], state[MEAN] = wake, mean
    return found


@kernel("int64(float64[::1], float64[:,::1])")
def ppg_flush(state: Floats, out: Floats) -> int:
    """The samples end here: judges the open candidate, and what still waits. The state is used up afterwards."""
    found = 0
    if state[TOP + AT] >= 0.0:
        found = ppg_candidate(state, out, found)
    if state[SIGNAL] == 0.0:
        found = ppg_learn(state, state[COUNT], out, found)
    while state[WAITING] > 0.0:
        found = ppg_finish(state, out, found)
    return found

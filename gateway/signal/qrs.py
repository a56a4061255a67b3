"""The QRS detector: raw samples in, R-peak positions out. Kernels only.

    x -> low-pass -> u -> high-pass -> y          -> y^2 -> moving sum = energy of the low band, 8 to 20 Hz
    x -> low-pass -> high-pass -> high-pass -> h  -> h^2 -> moving sum = energy of the high band, 20 to 40 Hz

Each greatest low + weight * high energy within +-SEPARATION is a candidate. From the amplitudes of beats (signal) and of
the rest (noise) in each band follow
- the weight: next to none while the signal is clean, much where noise fills the low band more than the high one;
- the threshold, noise plus a part of the signal, which a beat exceeds. It is higher until the T wave is over;
- the doubt, 0 to 1: how near noise comes to the signal. With it the threshold rises for what is unlike the mean beat or
  early in a regular rhythm. Without it only the amplitude counts, for ectopic beats as for others.
Refused candidates wait in a queue: when no beat came for MISSED RR they are judged again, more leniently (search-back);
when none came for LOST_S, and at the start, the levels are learnt from them. All that is remembered is the state, so
the cutting of the samples has no influence; only ratios of amplitudes count, so neither has the scale, save the floor.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

THRESHOLD: Final = 0.3  # a beat exceeds the noise level by this part of the signal level
# The high band's weight: WEIGHT times that which makes beats equally high in both bands, times the square of
# (noise / signal power in the low band) / (the same in the high band + WEIGHT_CLEAN).
WEIGHT, WEIGHT_CLEAN = 0.5, 0.1
# After a beat the threshold is 1 + T_RAISE times as high; it falls to normal until 0.55 RR, at most 0.5 s, are over.
T_RAISE, T_SHARE, T_MOST_S = 2.0, 0.55, 0.5
# No T wave is what comes so late, exceeds the high band's noise by SHARP of its signal while that noise is below QUIET of
# it, and correlates so with the mean beat: its threshold is LENIENT times the normal one.
SHARP_FROM_S, SHARP, SHARP_QUIET, SHARP_LIKE = 0.36, 0.15, 0.08, 0.5
DOUBT_FROM, DOUBT_SLOPE = 0.2, 3.0  # doubt begins at this noise / signal; a third above it is whole
# In doubt the threshold rises by what the correlation lacks of LIKE; and after a beat it is 1 + EARLY times as high and
# falls to normal until 0.8 RR, less so the more the intervals change.
LIKE, EARLY, EARLY_SHARE, IRREGULAR = 0.7, 2.0, 0.8, 2.0
MISSED, LENIENT = 1.5, 0.6  # after so many RR what exceeds this part of its threshold is a beat
# How far each level goes towards a new value: about 8 beats, 4 refused candidates, 8 intervals. A beat teaches less by
# DISTRUST times noise / signal, but never less than TRUST_LEAST: rhythm and shape outlive a disturbance. The signal is
# a geometric mean: neither artefacts nor large ectopic beats hide the rest, and a gain is followed up as well as down.
SIGNAL_GAIN, NOISE_GAIN, RR_GAIN, DISTRUST, TRUST_LEAST = 0.125, 0.25, 0.125, 2.0, 0.05
LEARN_S, LOST_S = 3.0, 4.0  # learning begins so long after the start, and after the last beat
# Levels are learnt from what reaches STRONG of the second greatest amplitude, since the greatest may be the jump of an
# electrode; or of ALONE of the greatest, since it may be the only beat; or of WEAK of it when nothing lies between that and
# CLEAR of it: small beats between large ectopic ones. The signal falls to FALL at once at most.
STRONG, ALONE, WEAK, CLEAR, FALL = 0.4, 0.4, 0.27, 0.12, 0.25
# RR before it is known: as learnt between two bounds, since neither must noise be a fast rhythm, nor a slow one be
# searched for beats it does not have; and the bounds of the intervals that count later.
RR_FIRST_S, RR_START_S, RR_LEAST_S, RR_MOST_S = 0.7, 1.5, 0.3, 2.0
BEFORE_S, AFTER_S = 0.06, 0.01  # the R peak is in the window of greatest energy or so near to it
LAGS: Final = 3  # shapes may lie so many steps apart: the R peak may be another one than last time
SAMPLE_LIMIT: Final = 2.0**40  # a sample not below it in size (or NaN) counts as the one before

# Room: samples filtered before they are judged, 0.5 s and these, candidates of 7 s, a moving sum, a shape and its lags.
BLOCK, RING, MASK, QUEUE, SUM, SHAPE = 64, 256, 255, 32, 32, 32

# Slots of the state array: feedback of the sections and what else is fixed; what changes.
B1, B2, C1, C2, D1, D2, E1, E2 = range(8)
RATE, FACTOR, WINDOW, SEPARATION, DELAY, FLOOR, STEP, HALF = range(8, 16)
BEGUN, BASE, LATEST, TOTAL, WAITS, AHEAD, COUNT, FOUND = range(16, 24)
X, SX, U, UU, DU, Y, YY, G, GG, DG, P, PP, DP, H, HH = range(24, 39)  # what each section remembers
LOW, HIGH, FRESH_LOW, FRESH_HIGH, PLACE = range(39, 44)  # moving sums; fresh: since PLACE was 0
TOP, TOP_AT, TOP_LOW, TOP_HIGH, BEFORE = range(44, 49)  # the open candidate; TOP_AT -1: none
SIGNAL_LOW, SIGNAL_HIGH, NOISE_LOW, NOISE_HIGH, WEIGH, SIGNAL, NOISE, TRUST = range(49, 57)
LAST, RR, CHANGE, DUE, HELD, TAUGHT = range(57, 63)  # DUE: to look back; TAUGHT: beats in the mean
AT_0, LOW_0, HIGH_0, LIKE_0 = range(63, 63 + 4 * QUEUE, QUEUE)
MEAN_0, SHAPE_0, MIDDLE = range(LIKE_0 + QUEUE, LIKE_0 + QUEUE + 3 * SHAPE, SHAPE)
SUM_LOW_0, SUM_HIGH_0, BLOCK_LOW_0 = range(MIDDLE, MIDDLE + 3 * SUM, SUM)
BLOCK_HIGH_0, U_0 = BLOCK_LOW_0 + BLOCK, BLOCK_LOW_0 + 2 * BLOCK
H_0, STATE_SIZE = U_0 + RING, U_0 + 2 * RING
AT, RATIO, LATE, WAITED, COLUMNS = range(5)  # of a call's beats: FOUND rows after the state


@kernel("float64(float64[::1], float64, float64)")
def qrs_amplitude(state: Floats, low: float, high: float) -> float:
    """One amplitude from those of both bands."""
    return math.sqrt(low * low + float(state[WEIGH]) * high * high)


@kernel("void(float64[::1])")
def qrs_weigh(state: Floats) -> None:
    """Sets what follows from the levels: the weight of the high band, signal, noise over signal, and trust."""
    low, high = state[SIGNAL_LOW], state[SIGNAL_HIGH]
    noise_low, noise_high = state[NOISE_LOW] / low, state[NOISE_HIGH] / high
    worth = noise_low * noise_low / (noise_high * noise_high + WEIGHT_CLEAN)
    state[WEIGH] = WEIGHT * worth * worth * (low / high) * (low / high)
    state[SIGNAL] = qrs_amplitude(state, low, high)
    state[NOISE] = qrs_amplitude(state, state[NOISE_LOW], state[NOISE_HIGH]) / state[SIGNAL]
    state[TRUST] = max(TRUST_LEAST, 1.0 - DISTRUST * state[NOISE])


@kernel("float64(float64[::1], int64)")
def qrs_locate(state: Floats, energy_at: int) -> float:
    """Where in u the R peak lies: the turning point, or else the place, that departs most from the mean nearby."""
    rate = state[RATE]
    first = max(1, energy_at - int(state[WINDOW]) - int(BEFORE_S * rate))
    last = min(int(state[COUNT]) - 2, energy_at + int(AFTER_S * rate))
    mean = 0.0
    for i in range(first, last + 1):
        mean += state[U_0 + (i & MASK)]
    mean /= max(1, last + 1 - first)
    best, best_at, best_turns, best_left, best_right = -1.0, first, False, 0.0, 0.0
    for i in range(first, last + 1):
        left = abs(state[U_0 + ((i - 1) & MASK)] - mean)
        size = abs(state[U_0 + (i & MASK)] - mean)
        right = abs(state[U_0 + ((i + 1) & MASK)] - mean)
        turns = left <= size and right <= size
        if (turns and not best_turns) or (turns == best_turns and size > best):
            best, best_at, best_turns, best_left, best_right = size, i, turns, left, right
    # The vertex of the parabola through the three samples around the peak: finer than one sample.
    bend = best_left - 2.0 * best + best_right
    shift = 0.5 * (best_left - best_right) / bend if best_turns and bend < 0.0 else 0.0
    return float(best_at + shift)


@kernel("float64(float64[::1], int64)")
def qrs_likeness(state: Floats, at: int) -> float:
    """The correlation of h around `at` with the mean beat, -1 to 1, and the shape that gave it; LIKE without a mean."""
    step, count = int(state[STEP]), int(state[COUNT])
    lags = LAGS if state[TAUGHT] > 0.0 else 0
    first, points = at - (lags + int(state[HALF])) * step, 2 * int(state[HALF]) + 1
    for k in range(points + 2 * lags):
        i = first + k * step
        state[SHAPE_0 + k] = state[H_0 + (i & MASK)] if 0 <= i < count else 0.0
    best, best_lag, best_scale = -2.0, 0, 0.0
    for lag in range(2 * lags + 1):
        product, power = 0.0, 0.0
        for k in range(points):
            value = state[SHAPE_0 + lag + k]
            product += value * state[MEAN_0 + k]
            power += value * value
        scale = 1.0 / math.sqrt(power) if power > 0.0 else 0.0
        if product * scale > best:
            best, best_lag, best_scale = product * scale, lag, scale
    for k in range(points):
        state[SHAPE_0 + k] = state[SHAPE_0 + best_lag + k] * best_scale
    return float(best) if lags > 0 else LIKE


@kernel("float64(float64[::1], int64)")
def qrs_share(state: Floats, i: int) -> float:
    """How much of its threshold the amplitude of queue entry `i` is."""
    at, high, likeness = state[AT_0 + i], state[HIGH_0 + i], state[LIKE_0 + i]
    doubt = min(1.0, max(0.0, DOUBT_SLOPE * (state[NOISE] - DOUBT_FROM)))
    threshold = state[SIGNAL] * (THRESHOLD + state[NOISE]) * (1.0 + doubt * (LIKE - likeness))
    since = at - state[LAST]
    t_wave = min(T_MOST_S * state[RATE], T_SHARE * state[RR])
    quiet = state[NOISE_HIGH] < SHARP_QUIET * state[SIGNAL_HIGH]
    sharp = high > state[NOISE_HIGH] + SHARP * state[SIGNAL_HIGH] and likeness > SHARP_LIKE
    if quiet and sharp and since > SHARP_FROM_S * state[RATE]:
        threshold *= LENIENT
    elif since < t_wave:
        threshold *= 1.0 + T_RAISE * (1.0 - since / t_wave)
    early = EARLY_SHARE * state[RR]
    if since < early:
        regular = max(0.0, 1.0 - IRREGULAR * state[CHANGE])
        threshold *= 1.0 + EARLY * doubt * regular * (1.0 - since / early)
    return qrs_amplitude(state, state[LOW_0 + i], high) / float(threshold)


@kernel("void(float64[::1], int64, float64)")
def qrs_accept(state: Floats, i: int, late: float) -> None:
    """Gives out queue entry `i` as a beat, from which the levels and RR learn. `late` is 1 for search-back, else 0."""
    at, low, high, rate = state[AT_0 + i], state[LOW_0 + i], state[HIGH_0 + i], state[RATE]
    index = max(0.0, (at - state[DELAY] + 0.5) * state[FACTOR] - 0.5)
    row = STATE_SIZE + COLUMNS * int(state[FOUND])
    state[row + AT], state[row + RATIO], state[row + LATE] = index, state[NOISE], late
    state[row + WAITED] = (state[COUNT] - index / state[FACTOR]) / rate
    state[FOUND] += 1.0
    if state[LAST] > -math.inf:
        change = min(max(at - state[LAST], RR_LEAST_S * rate), RR_MOST_S * rate) - state[RR]
        gain = RR_GAIN * state[TRUST]
        state[CHANGE] += gain * (abs(change) / state[RR] - state[CHANGE])
        state[RR] += gain * change
    for level, value in ((SIGNAL_LOW, low), (SIGNAL_HIGH, high)):
        state[level] *= math.exp(SIGNAL_GAIN * state[TRUST] * math.log(value / state[level]))
    qrs_weigh(state)
    state[LAST] = at
    state[DUE] = at + MISSED * state[RR] + 2.0 * state[SEPARATION]


@kernel("boolean(float64[::1], int64)")
def qrs_judge(state: Floats, i: int) -> bool:
    """Takes queue entry `i` for a beat, or learns noise from it and keeps it. While nothing is learnt, only keeps."""
    if state[SIGNAL_LOW] > 0.0:
        apart = state[AT_0 + i] - state[LAST] > 0.5 * state[SEPARATION]
        if apart and qrs_share(state, i) > 1.0:
            state[HELD] = 0.0
            qrs_accept(state, i, 0.0)
            return True
        low, high = state[LOW_0 + i], state[HIGH_0 + i]
        share = min(1.0, state[SIGNAL] / qrs_amplitude(state, low, high))
        state[NOISE_LOW] += NOISE_GAIN * (share * low - state[NOISE_LOW])
        state[NOISE_HIGH] += NOISE_GAIN * (share * high - state[NOISE_HIGH])
        qrs_weigh(state)
    held = int(state[HELD])
    for first in (AT_0, LOW_0, HIGH_0, LIKE_0):
        state[first + held] = state[first + i]
    state[HELD] = held + 1
    return False


@kernel("void(float64[::1], int64)")
def qrs_replay(state: Floats, first: int) -> None:
    """Judges the queue from entry `first` on again. It refills from the front, never faster than it is read."""
    held = int(state[HELD])
    state[HELD] = 0.0
    for i in range(first, held):
        qrs_judge(state, i)


@kernel("boolean(float64[::1])")
def qrs_search_back(state: Floats) -> bool:
    """Takes the queued candidate after the T wave that stands out most for a beat, if it passes leniently."""
    after = state[LAST] + min(T_MOST_S * state[RATE], T_SHARE * state[RR])
    best, best_i = LENIENT, -1
    for i in range(int(state[HELD])):
        share = qrs_share(state, i) if state[AT_0 + i] > after else 0.0
        if share > best:
            best, best_i = share, i
    if best_i < 0:
        return False
    qrs_accept(state, best_i, 1.0)
    qrs_replay(state, best_i + 1)
    return True


@kernel("void(float64[::1], float64)")
def qrs_learn(state: Floats, now: float) -> None:
    """Sets the levels from the queue, and judges it with them. Needs two candidates at least."""
    state[DUE] = now + LEARN_S * state[RATE] / 2.0
    lows = np.sort(state[LOW_0 : LOW_0 + int(state[HELD])])
    if lows.size < 2:
        return
    most = lows[lows.size - 1]
    least = STRONG * max(lows[lows.size - 2], ALONE * most)
    if not np.any((CLEAR * most <= lows) & (lows < WEAK * most)):
        least = min(least, WEAK * most)
    beats, low, high, begin, end = 0, 0.0, 0.0, math.inf, 0.0
    for i in range(int(state[HELD])):
        if state[LOW_0 + i] >= least:
            low, high = low + math.log(state[LOW_0 + i]), high + math.log(state[HIGH_0 + i])
            beats, begin, end = beats + 1, min(begin, state[AT_0 + i]), state[AT_0 + i]
    rr = RR_START_S * state[RATE]
    if state[SIGNAL_LOW] == 0.0 and beats > 2:
        rr = min(rr, max(RR_FIRST_S * state[RATE], (end - begin) / (beats - 1)))
    low, high = math.exp(low / beats), math.exp(high / beats)
    share = max(1.0, FALL * state[SIGNAL_LOW] / low)
    state[SIGNAL_LOW], state[SIGNAL_HIGH] = share * low, share * high
    state[NOISE_LOW], state[NOISE_HIGH] = FALL * share * low, FALL * share * high
    qrs_weigh(state)
    state[LAST], state[RR], state[CHANGE], state[TAUGHT] = -math.inf, rr, 1.0, 0.0
    state[MEAN_0:SHAPE_0] = 0.0
    qrs_replay(state, 0)


@kernel("void(float64[::1], float64)")
def qrs_overdue(state: Floats, now: float) -> None:
    """What is due at sample `now` when no beat came: search back, and when that finds nothing, learn anew."""
    if state[LAST] > -math.inf:
        if qrs_search_back(state):
            return
        state[DUE] = state[LAST] + LOST_S * state[RATE]
        if now < state[DUE]:
            return
    qrs_learn(state, now)


@kernel("void(float64[::1])")
def qrs_candidate(state: Floats) -> None:
    """The open candidate is complete: fill the pause before it, if there was one, judge it, and learn its shape."""
    at = qrs_locate(state, int(state[TOP_AT]))
    likeness, more = qrs_likeness(state, int(at + 0.5)), True
    while state[LAST] > -math.inf and at - state[LAST] > MISSED * state[RR] and more:
        more = qrs_search_back(state)
    held = int(state[HELD])
    if held == QUEUE - 1:  # the oldest goes
        held, state[HELD] = held - 1, held - 1
        for i in range(AT_0, LIKE_0 + held):
            state[i] = state[i + 1]
    state[AT_0 + held], state[LIKE_0 + held] = at, likeness
    state[LOW_0 + held] = math.sqrt(state[TOP_LOW] / state[WINDOW])
    # Rounding may leave nothing of a sum, or less.
    state[HIGH_0 + held] = math.sqrt(max(state[TOP_HIGH], 1e-6 * state[TOP_LOW]) / state[WINDOW])
    if not qrs_judge(state, held):
        return
    state[TAUGHT] += 1.0
    gain = state[TRUST] * max(SIGNAL_GAIN, 1.0 / state[TAUGHT])
    points, power = 2 * int(state[HALF]) + 1, 0.0
    for k in range(points):
        state[MEAN_0 + k] += gain * (state[SHAPE_0 + k] - state[MEAN_0 + k])
        power += state[MEAN_0 + k] * state[MEAN_0 + k]
    scale = 1.0 / math.sqrt(power) if power > 0.0 else 0.0
    for k in range(points):
        state[MEAN_0 + k] *= scale


@kernel("int64(float64[::1], int64, int64, float64[::1])")
def qrs_filter(samples: Floats, first: int, leads: int, state: Floats) -> int:
    """Filters up to BLOCK of every `leads`-th sample from `first` on. Returns how many came out after the averaging."""
    b1, b2, c1, c2, d1, d2 = state[B1], state[B2], state[C1], state[C2], state[D1], state[D2]
    e1, e2, x1, s1, u1, u2 = state[E1], state[E2], state[X], state[SX], state[U], state[UU]
    v1, y1, y2, g1, g2, w1 = state[DU], state[Y], state[YY], state[G], state[GG], state[DG]
    p1, p2, q1, h1, h2 = state[P], state[PP], state[DP], state[H], state[HH]
    low, high, new_low, new_high = state[LOW], state[HIGH], state[FRESH_LOW], state[FRESH_HIGH]
    base, latest, begin = state[BASE], state[LATEST], int(state[AHEAD])
    n, place, window = begin, int(state[PLACE]), int(state[WINDOW])
    total, waits, factor = state[TOTAL], int(state[WAITS]), int(state[FACTOR])
    for k in range(first, min(first + BLOCK * leads, samples.size), leads):
        x = samples[k] - base
        x = x if abs(x) <= SAMPLE_LIMIT else latest  # so is a NaN
        latest, total, waits = x, total + x, waits + 1
        if waits < factor:
            continue
        x, total, waits = total / factor, 0.0, 0
        # Sections without their gains: x + 2/z + 1/z^2 of a low-pass, x - 2/z + 1/z^2 of a high-pass.
        s = x + x1
        u = ((s + s1) - b2 * u2) - b1 * u1
        g = ((s + s1) - d2 * g2) - d1 * g1
        v, w = u - u1, g - g1
        y = ((v - v1) - c2 * y2) - c1 * y1
        p = ((w - w1) - e2 * p2) - e1 * p1
        q = p - p1
        h = ((q - q1) - e2 * h2) - e1 * h1
        x1, s1, v1, w1, q1, u2, u1, y2, y1 = x, s, v, w, q, u1, u, y1, y
        g2, g1, p2, p1, h2, h1 = g1, g, p1, p, h1, h
        state[U_0 + (n & MASK)], state[H_0 + (n & MASK)] = u, h
        # The sums begin anew with each round of their rings, so that rounding errors never add up.
        low += y * y - state[SUM_LOW_0 + place]
        high += h * h - state[SUM_HIGH_0 + place]
        state[SUM_LOW_0 + place], state[SUM_HIGH_0 + place] = y * y, h * h
        new_low, new_high, place = new_low + y * y, new_high + h * h, place + 1
        if place == window:
            low, high, new_low, new_high, place = new_low, new_high, 0.0, 0.0, 0
        state[BLOCK_LOW_0 + n - begin], state[BLOCK_HIGH_0 + n - begin] = low, high
        n += 1
    state[U], state[UU], state[Y], state[YY], state[G], state[GG] = u1, u2, y1, y2, g1, g2
    state[P], state[PP], state[H], state[HH], state[X], state[SX] = p1, p2, h1, h2, x1, s1
    state[DU], state[DG], state[DP], state[AHEAD], state[LATEST] = v1, w1, q1, n, latest
    state[LOW], state[HIGH], state[FRESH_LOW], state[FRESH_HIGH] = low, high, new_low, new_high
    state[PLACE], state[TOTAL], state[WAITS] = place, total, waits
    return n - begin


@kernel("void(float64[::1], int64)")
def qrs_scan(state: Floats, size: int) -> None:
    """Looks for candidates in the energies of a block of `size`, and for what is due."""
    n, separation, floor = int(state[COUNT]), int(state[SEPARATION]), state[FLOOR]
    before, top, top_at = state[BEFORE], state[TOP], int(state[TOP_AT])
    weight, due = state[WEIGH], state[DUE]
    for k in range(size):
        low, high = state[BLOCK_LOW_0 + k], state[BLOCK_HIGH_0 + k]
        energy = low + weight * high
        n += 1
        if energy > top and energy > before and low > floor:
            top, top_at = energy, n - 1
            state[TOP_LOW], state[TOP_HIGH] = low, high
        elif top_at >= 0 and n - 1 - top_at >= separation:
            state[COUNT], state[TOP_AT] = n, top_at
            qrs_candidate(state)
            top, top_at, due, weight = floor, -1, state[DUE], state[WEIGH]
        if n >= due:
            state[COUNT] = n
            qrs_overdue(state, n)
            due, weight = state[DUE], state[WEIGH]
        before = energy
    state[COUNT], state[BEFORE], state[TOP], state[TOP_AT] = n, before, top, top_at


@kernel("int64(float64[::1], float64[:,::1])")
def qrs_process(samples: Floats, states: Floats) -> int:
    """Goes on by samples, a moment's leads side by side. How many beats there are, state[FOUND] of them of each lead."""
    leads, total = states.shape[0], 0.0
    for lead in range(leads):
        state = states[lead]
        state[FOUND] = 0.0
        if state[BEGUN] == 0.0 and samples.size > lead:
            state[BEGUN] = 1.0
            state[BASE] = samples[lead] if abs(samples[lead]) <= SAMPLE_LIMIT else 0.0
        for first in range(lead, samples.size, BLOCK * leads):
            qrs_scan(state, qrs_filter(samples, first, leads, state))
        total += state[FOUND]
    return int(total)


@kernel("void(float64[:,::1])")
def qrs_flush(states: Floats) -> None:
    """The samples end here: judges the open candidate, and what still waits. The states are used up afterwards."""
    for lead in range(states.shape[0]):
        state = states[lead]
        state[FOUND] = 0.0
        if state[TOP_AT] >= 0.0:
            qrs_candidate(state)
        if state[SIGNAL_LOW] == 0.0:
            qrs_learn(state, state[COUNT])
        elif state[LAST] > -math.inf and state[COUNT] - state[LAST] > MISSED * state[RR]:
            qrs_search_back(state)

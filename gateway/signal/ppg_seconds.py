"""What each second of a photoplethysmogram is worth, and the pulse rate in it. Kernels only.

A second is as good as the worst of its beats, whose quality the pulse-wave kernels give. It is worth nothing where the
line is clipped, flat, torn or leaps, and where no beat came although one was due. A row says so one second later, when
its beats are known.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

FLAT_S: Final = 0.25
"""An unchanged value for so long is no pulse: a clipped, frozen or lost signal."""
LEAP: Final = 3.0
"""A second whose samples, with the last one before it, span more than so many heights of a beat holds a movement."""
USUAL_GAIN: Final = 0.125
HEIGHT_CLIP: Final = 2.0
"""How far the usual height and interval go towards new ones; a height counts as twice the usual one at most."""
DUE: Final = 1.6
DUE_MOST_S: Final = 2.5
"""A beat is due so many usual intervals after the last one, at most 2.5 s."""
RATE_S: Final = 18.0
FADE_S: Final = 4.0
"""The pulse rate is made of the intervals that ended within RATE_S. They count more and more in the first FADE_S of it, and
less and less in the last: none moves the rate by a jump, neither when it comes nor when it goes."""
RATE_LEAST: Final = 3
"""With fewer good intervals it is unknown."""
RATE_GOOD: Final = 0.5
"""An interval counts as far as the worse of its two beats is good; below this not at all."""
RATE_APART: Final = 0.4
"""Nor does one that departs by more than this part from the median: a missed or a false beat."""
COVERED: Final = 0.7
"""In a second of quality 0 there is a rate if good intervals fill this part of the time that it is made of: one odd
beat does not undo the good ones before it. There is none where a flag is set or no beat came."""

SATURATED: Final = 1
FLAT: Final = 2
MOTION: Final = 4
MISSING: Final = 8
"""Bits of a second's flags."""

BEATS: Final = 80
"""Room for the beats of RATE_S and of the second after it at 240 a minute, and the one before them."""

# Slots of the state array. Places and intervals in samples.
RATE_HZ, RAIL_LOW, RAIL_HIGH, COUNT, LAST = 0, 1, 2, 3, 4  # LAST: the last good sample
SAME, SAME_MOST, HIGH, LOW, LOST = 5, 6, 7, 8, 9  # samples since it changed; of this second
SECOND, END, FLAGS, WORST, WORST_NOW = 10, 11, 12, 13, 14
"""The running second and its end; flags and the worst beat of the one before; the worst beat of the running one."""
BEAT_AT, BEAT_QUALITY, HEIGHT, USUAL, KNOWN, WITHIN = 15, 16, 17, 18, 19, 20
"""Of the last beat; the usual height and interval; how many beats there were; a beat is due within so many samples."""
LEAST, MOST, FILLED = 21, 22, 23  # the good intervals, and how much of the time they fill
BEAT_0: Final = 24
"""Place and quality of the last BEATS beats."""
STATE_SIZE: Final = BEAT_0 + 2 * BEATS

# Columns of the beats that come in: those of `gateway.signal.ppg`.
IN_AT, IN_HEIGHT, IN_QUALITY, IN_KNOWN = 0, 3, 5, 6
# Columns of a row.
ROW_SECOND, ROW_QUALITY, ROW_FLAGS, ROW_RATE = 0, 1, 2, 3
COLUMNS: Final = 4


@kernel("void(float64[::1], float64, float64, float64)")
def ppgs_beat(state: Floats, at: float, height: float, quality: float) -> None:
    """Enters a beat into its second, the usual height, and the intervals."""
    begin = state[SECOND] * state[RATE_HZ]
    if at >= begin:
        if begin - state[BEAT_AT] > state[WITHIN]:  # it was due before
            state[WORST] = 0.0
        state[WORST_NOW] = min(state[WORST_NOW], quality)
    elif at >= begin - state[RATE_HZ]:
        state[WORST] = min(state[WORST], quality)
    if state[HEIGHT] > 0.0:
        clipped = min(height, HEIGHT_CLIP * state[HEIGHT])
        state[HEIGHT] += USUAL_GAIN * (clipped - state[HEIGHT])
    else:
        state[HEIGHT] = height
    if state[BEAT_AT] > -math.inf:
        most = DUE_MOST_S * state[RATE_HZ]
        interval = min(at - state[BEAT_AT], most)
        state[USUAL] += USUAL_GAIN * (interval - state[USUAL])
        state[WITHIN] = min(most, DUE * state[USUAL])
    slot = BEAT_0 + 2 * (int(state[KNOWN]) % BEATS)
    state[slot], state[slot + 1] = at, quality
    state[BEAT_AT], state[BEAT_QUALITY] = at, quality
    state[KNOWN] += 1.0


@kernel("float64(float64[::1], float64, float64, float64)")
def ppgs_mean(state: Floats, now: float, least: float, most: float) -> float:
    """The weighted mean of the good intervals from `least` to `most` long that ended within RATE_S to `now`.

    0 when they are too few. Leaves in the state the shortest and the longest of them, and what they fill.
    """
    since, steepness = now - RATE_S * state[RATE_HZ], 1.0 / (FADE_S * state[RATE_HZ])
    count, filled, weights, total, shortest, longest = 0, 0.0, 0.0, 0.0, math.inf, 0.0
    end, end_quality = state[BEAT_AT], state[BEAT_QUALITY]
    slot = BEAT_0 + 2 * ((int(state[KNOWN]) - 1) % BEATS)
    for _ in range(min(int(state[KNOWN]), BEATS) - 1):
        slot = slot - 2 if slot > BEAT_0 else BEAT_0 + 2 * BEATS - 2
        interval, quality = end - state[slot], min(end_quality, state[slot + 1])
        if end <= since:
            break
        if end < now and quality >= RATE_GOOD and least <= interval <= most:
            share = min(1.0, min(now - end, end - since) * steepness)
            part = share * interval
            count, filled = count + 1, filled + part
            weights, total = weights + share * quality, total + part * quality
            shortest, longest = min(shortest, interval), max(longest, interval)
        end, end_quality = state[slot], state[slot + 1]
    state[LEAST], state[MOST], state[FILLED] = shortest, longest, filled
    return total / weights if count >= RATE_LEAST else 0.0


@kernel("float64(float64[::1], float64)")
def ppgs_median(state: Floats, now: float) -> float:
    """The median of the good intervals that ended within RATE_S to `now`, of which there is one at least."""
    since, recent, count = now - RATE_S * state[RATE_HZ], np.empty(BEATS), 0
    end, end_quality = state[BEAT_AT], state[BEAT_QUALITY]
    slot = BEAT_0 + 2 * ((int(state[KNOWN]) - 1) % BEATS)
    for _ in range(min(int(state[KNOWN]), BEATS) - 1):
        slot = slot - 2 if slot > BEAT_0 else BEAT_0 + 2 * BEATS - 2
        recent[count] = end - state[slot]
        count += since < end < now and min(end_quality, state[slot + 1]) >= RATE_GOOD
        end, end_quality = state[slot], state[slot + 1]
    lower = upper = 0.0
    # For so few it is quicker to count those that are less than to sort.
    for k in range(count):
        less = 0
        for one in recent[:count]:
            less += one < recent[k]
        lower = max(lower, recent[k]) if less <= (count - 1) // 2 else lower
        upper = max(upper, recent[k]) if less <= count // 2 else upper
    return 0.5 * (lower + upper)


@kernel("float64(float64[::1], float64)")
def ppgs_interval(state: Floats, now: float) -> float:
    """The mean of the good intervals before `now` that do not depart from their median; 0 when they are too few."""
    mean = ppgs_mean(state, now, 0.0, math.inf)
    # Within that span none departs so far from the median, wherever it lies.
    if state[MOST] - state[LEAST] <= RATE_APART * state[LEAST]:
        return mean
    median = ppgs_median(state, now)
    return ppgs_mean(state, now, (1.0 - RATE_APART) * median, (1.0 + RATE_APART) * median)


@kernel("void(float64[::1], float64[:,::1], int64)")
def ppgs_row(state: Floats, rows: Floats, row: int) -> None:
    """Gives out the second before the one that has just ended."""
    end = state[SECOND] * state[RATE_HZ]
    quality = min(state[WORST], state[BEAT_QUALITY])
    sound = state[FLAGS] == 0.0 and end - state[BEAT_AT] <= state[WITHIN]
    interval = ppgs_interval(state, end)
    enough = COVERED * (RATE_S - FADE_S) * state[RATE_HZ]
    known = sound and interval > 0.0 and (quality > 0.0 or state[FILLED] >= enough)
    rows[row, ROW_SECOND] = state[SECOND] - 1.0
    rows[row, ROW_QUALITY] = quality if sound else 0.0
    rows[row, ROW_FLAGS] = state[FLAGS]
    rows[row, ROW_RATE] = 60.0 * state[RATE_HZ] / interval if known else math.nan


@kernel("int64(float64[::1], float64[:,::1], int64)")
def ppgs_end(state: Floats, rows: Floats, row: int) -> int:
    """A second has ended: gives out the one before it, whose beats are known by now, and begins the next."""
    if state[SECOND] > 0.0:
        ppgs_row(state, rows, row)
        row += 1
    flags = 0.0
    if state[HIGH] >= state[RAIL_HIGH] or state[LOW] <= state[RAIL_LOW]:
        flags += SATURATED
    if state[SAME_MOST] >= FLAT_S * state[RATE_HZ]:
        flags += FLAT
    if state[HEIGHT] > 0.0 and state[HIGH] - state[LOW] > LEAP * state[HEIGHT]:
        flags += MOTION
    if state[LOST] > 0.0:
        flags += MISSING
    state[FLAGS] = flags
    state[SECOND] += 1.0
    state[END] = math.ceil((state[SECOND] + 1.0) * state[RATE_HZ])
    state[WORST], state[WORST_NOW] = state[WORST_NOW], 1.0
    state[SAME_MOST], state[LOST] = 0.0, 0.0
    if abs(state[LAST]) < math.inf:
        state[HIGH] = state[LOW] = state[LAST]
    return row


@kernel("void(float64[::1], float64[::1])")
def ppgs_torn(samples: Floats, state: Floats) -> None:
    """Enters samples of one second, some of which are no numbers: those go on with the run of the value before them."""
    for sample in samples:
        if abs(sample) < math.inf:
            state[SAME] = state[SAME] + 1.0 if sample == state[LAST] else 1.0
            state[LAST] = sample
            state[HIGH], state[LOW] = max(state[HIGH], sample), min(state[LOW], sample)
        else:
            state[SAME] += 1.0
            state[LOST] += 1.0
        state[SAME_MOST] = max(state[SAME_MOST], state[SAME])


@kernel("void(float64[::1], float64[::1])")
def ppgs_same(samples: Floats, state: Floats) -> None:
    """Enters for how many samples of one second the value stayed the same: exact where it is FLAT_S or longer.

    Looks where the running one would be that long, and back from there for the last change: unless the line is flat, that
    is near, and most samples are never looked at.
    """
    long = math.ceil(FLAT_S * state[RATE_HZ])
    begin = 0 if samples[0] != state[LAST] else -int(state[SAME])
    same_most, seen, newest = max(state[SAME_MOST], 1.0 - begin), 0, samples.size - 1
    while seen < newest:
        place = min(max(begin + long - 1, seen + 1), newest)
        change = place
        while change > seen and samples[change] == samples[change - 1]:
            change -= 1
        begin = change if change > seen else begin
        same_most, seen = max(same_most, place + 1.0 - begin), place
    state[SAME_MOST], state[SAME], state[LAST] = same_most, newest + 1 - begin, samples[newest]


@kernel("void(float64[::1], float64[::1])")
def ppgs_enter(samples: Floats, state: Floats) -> None:
    """Enters samples of one second. By twos, which do not wait for each other; 0 stays 0 while all are numbers."""
    high = other_high = state[HIGH]
    low = other_low = state[LOW]
    zero = other_zero = 0.0
    for k in range(1, samples.size, 2):
        sample, other = samples[k - 1], samples[k]
        high, other_high = max(high, sample), max(other_high, other)
        low, other_low = min(low, sample), min(other_low, other)
        zero, other_zero = zero + (sample - sample), other_zero + (other - other)
    newest = samples[samples.size - 1]
    if zero + other_zero + (newest - newest) != 0.0:
        ppgs_torn(samples, state)
        return
    state[HIGH] = max(high, other_high, newest)
    state[LOW] = min(low, other_low, newest)
    ppgs_same(samples, state)


@kernel("int64(float64[::1], float64[:,::1], int64, float64[::1], float64[:,::1])")
def ppgs_process(samples: Floats, beats: Floats, found: int, state: Floats, rows: Floats) -> int:
    """Goes on by `samples` and the `found` beats decided with them, and returns how many `rows` it filled.

    `rows` has room for samples.size / RATE_HZ + 2.
    """
    row, k, at, before = 0, 0, 0, int(state[COUNT])
    while at < samples.size:
        until = min(samples.size, int(state[END]) - before)
        ppgs_enter(samples[at:until], state)
        at = until
        if before + at == int(state[END]):
            while k < found and beats[k, IN_KNOWN] <= before + at:
                ppgs_beat(state, beats[k, IN_AT], beats[k, IN_HEIGHT], beats[k, IN_QUALITY])
                k += 1
            row = ppgs_end(state, rows, row)
    while k < found:
        ppgs_beat(state, beats[k, IN_AT], beats[k, IN_HEIGHT], beats[k, IN_QUALITY])
        k += 1
    state[COUNT] = before + at
    return row


@kernel("int64(float64[::1], float64[:,::1])")
def ppgs_flush(state: Floats, rows: Floats) -> int:
    """The samples end here: gives out the last whole second, if there was one."""
    if state[SECOND] == 0.0:
        return 0
    ppgs_row(state, rows, 0)
    return 1

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
RATE_S: Final = 15.0
"""The pulse rate is made of the intervals that ended within so many seconds."""
RATE_LEAST: Final = 3
"""With fewer good intervals it is unknown."""
RATE_GOOD: Final = 0.2
"""An interval between beats of less quality does not count."""
RATE_APART: Final = 0.4
"""Nor does one that departs by more than this part from the median: a missed or a false beat."""

SATURATED: Final = 1
FLAT: Final = 2
MOTION: Final = 4
MISSING: Final = 8
"""Bits of a second's flags."""

INTERVALS: Final = 64
"""Room for the intervals of RATE_S at 240 beats a minute."""

# Slots of the state array. Places and intervals in samples.
RATE_HZ, RAIL_LOW, RAIL_HIGH, COUNT, LAST = 0, 1, 2, 3, 4  # LAST: the last good sample
SAME, SAME_MOST, HIGH, LOW, LOST = 5, 6, 7, 8, 9  # samples since it changed; of this second
SECOND, END, FLAGS, WORST, WORST_NOW = 11, 12, 13, 14, 15
"""The running second and its end; flags and the worst beat of the one before; the worst beat of the running one."""
BEAT_AT, BEAT_QUALITY, HEIGHT, USUAL, KNOWN, WITHIN = 16, 17, 18, 19, 20, 21
"""Of the last beat; the usual height and interval; how many intervals there were; a beat is due within so many samples."""
INTERVAL_0: Final = 22
STATE_SIZE: Final = INTERVAL_0 + 3 * INTERVALS

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
        slot = INTERVAL_0 + 3 * (int(state[KNOWN]) % INTERVALS)
        state[slot] = at
        state[slot + 1] = at - state[BEAT_AT]
        state[slot + 2] = min(quality, state[BEAT_QUALITY])
        state[KNOWN] += 1.0
    state[BEAT_AT], state[BEAT_QUALITY] = at, quality


@kernel("float64(float64[::1], float64)")
def ppgs_interval(state: Floats, now: float) -> float:
    """The mean of the good intervals of the last RATE_S before `now`; 0 when they are too few."""
    recent, count, known = np.empty(INTERVALS), 0, int(state[KNOWN])
    since, total, least, most = now - RATE_S * state[RATE_HZ], 0.0, math.inf, 0.0
    for k in range(known - 1, max(known - INTERVALS, 0) - 1, -1):
        slot = INTERVAL_0 + 3 * (k % INTERVALS)
        if state[slot] <= since:
            break
        if state[slot + 2] >= RATE_GOOD:
            interval = state[slot + 1]
            recent[count] = interval
            total, least, most = total + interval, min(least, interval), max(most, interval)
            count += 1
    if count < RATE_LEAST:
        return 0.0
    if most - least <= RATE_APART * least:  # then none departs so far from the median
        return total / count
    ordered = np.sort(recent[:count])
    median = 0.5 * (ordered[(count - 1) // 2] + ordered[count // 2])
    total, used = 0.0, 0
    for k in range(count):
        if abs(ordered[k] - median) <= RATE_APART * median:
            total += ordered[k]
            used += 1
    return total / used if used >= RATE_LEAST else 0.0


@kernel("void(float64[::1], float64[:,::1], int64)")
def ppgs_row(state: Floats, rows: Floats, row: int) -> None:
    """Gives out the second before the one that has just ended."""
    end = state[SECOND] * state[RATE_HZ]
    quality = min(state[WORST], state[BEAT_QUALITY])
    if state[FLAGS] != 0.0 or not end - state[BEAT_AT] <= state[WITHIN]:
        quality = 0.0
    good = ppgs_interval(state, end)
    rows[row, ROW_SECOND] = state[SECOND] - 1.0
    rows[row, ROW_QUALITY] = quality
    rows[row, ROW_FLAGS] = state[FLAGS]
    rows[row, ROW_RATE] = 60.0 * state[RATE_HZ] / good if good > 0.0 and quality > 0.0 else math.nan


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


@kernel("int64(float64[::1], float64[:,::1], int64, float64[::1], float64[:,::1])")
def ppgs_process(samples: Floats, beats: Floats, found: int, state: Floats, rows: Floats) -> int:
    """Goes on by `samples` and the `found` beats decided with them, and returns how many `rows` it filled.

    `rows` has room for samples.size / RATE_HZ + 2.
    """
    n, end, last, same = int(state[COUNT]), int(state[END]), state[LAST], int(state[SAME])
    same_most, lost, high, low = int(state[SAME_MOST]), state[LOST], state[HIGH], state[LOW]
    row, k = 0, 0
    # Choices and no branches: no processor foresees whether noise rises, falls or stays.
    for sample in samples:
        n += 1
        if abs(sample) < math.inf:
            same = same + 1 if sample == last else 1
            last = sample
            high, low = max(high, sample), min(low, sample)
        else:
            same += 1
            lost += 1.0
        same_most = max(same_most, same)
        if n >= end:
            while k < found and beats[k, IN_KNOWN] <= n:
                ppgs_beat(state, beats[k, IN_AT], beats[k, IN_HEIGHT], beats[k, IN_QUALITY])
                k += 1
            state[SAME_MOST], state[LOST] = same_most, lost
            state[HIGH], state[LOW], state[LAST] = high, low, last
            row = ppgs_end(state, rows, row)
            same_most, lost, end = 0, 0.0, int(state[END])
            high, low = state[HIGH], state[LOW]
    while k < found:
        ppgs_beat(state, beats[k, IN_AT], beats[k, IN_HEIGHT], beats[k, IN_QUALITY])
        k += 1
    state[COUNT], state[LAST], state[SAME] = n, last, same
    state[SAME_MOST], state[LOST], state[HIGH], state[LOW] = same_most, lost, high, low
    return row


@kernel("int64(float64[::1], float64[:,::1])")
def ppgs_flush(state: Floats, rows: Floats) -> int:
    """The samples end here: gives out the last whole second, if there was one."""
    if state[SECOND] == 0.0:
        return 0
    ppgs_row(state, rows, 0)
    return 1

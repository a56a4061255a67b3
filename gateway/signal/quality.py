"""How far an ECG lead can be read, second by second: a signal-quality index, and what is wrong with it. Kernels only.

    cleaned -> 10 to 25 Hz -> root mean square of each of 20 bins a second

Between beats nothing is in this band but noise, and in a beat there is much: the fourth quietest bin of a second is its
noise, the second loudest its beat. Against the third loudest beat of the last ten seconds (so a slow rhythm is judged by
beats too) the noise of each second is a share, and the index is a falling function of the mean share: 1 without noise,
0.5 at HALF. One band that every rate has, no template, no rhythm: ectopic beats, bundle branch block and atrial
fibrillation change it little. What is flat, at a limit or no number counts as a share of noise as large as it is long.

Noise says nothing of an electrode that loses its contact quietly. Where two seconds on end lack what is in a beat, that or
a pause is there, and nothing tells which: the index of what is recent is UNSURE at most then, and the status says why.

All that is remembered is the state array; seconds are counted in samples, so the cutting has no influence.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

LOW_HZ: Final = 10.0
HIGH_HZ: Final = 25.0
"""The band. Motion is below it, P and T waves and fibrillation too; muscle noise is in it as it is above."""
BINS: Final = 20
NOISE_BIN: Final = 3
BEAT_BIN: Final = 18
"""Which of a second's bins, from the quietest. At 180 beats a minute half of a second is still without QRS."""
SECONDS: Final = 10
LATELY: Final = 3
"""The index looks back so far; `RECENT` so far, to see trouble begin."""
LEAST_SECONDS: Final = 3
"""The level of beats is the third greatest of ten seconds, the second of six, the first of three: it stands for 20 beats
a minute, and later one jump does not set it."""
HALF: Final = 0.1
"""The share of noise where the index is 0.5. On 21 MIT-BIH records with noise of electrodes and muscles added, so many
noise makes 5 % of heart rates wrong by more than 5 beats a minute; half of it 1 %, twice as much 35 %."""

SLOW_HZ: Final = 1.0
MOTION: Final = 5.0
"""Motion: what is below SLOW_HZ swings within a second by more than so many times the beats' level, which is
about an R wave."""
MAINS: Final = 1.0
"""Mains: the line at 50 or 60 Hz has a greater root mean square than the beats' bins."""
OFF_SHARE: Final = 0.8
SATURATED_SHARE: Final = 0.02
LOST_SHARE: Final = 0.1
"""Shares of a second: at the limits it is off, saturated; no numbers, and nothing can be said."""
SILENT_SHARE: Final = 0.08
"""A second is silent when its beat's bin is below this part of the beats' level; the second one on end says so. In 22
records of MIT-BIH seven places are found so: in four of them beats went on unseen, in three nothing beat, and the noise
fell to between 0.3 and 0.9 of the least before in either."""
UNSURE: Final = 0.4
STUCK_S: Final = 0.1
"""Where the limits are not known, the same number for so long, greatest or least of all so far, is taken for one."""
FLAT_FLOORS: Final = 2.0
"""A second is flat when it moves by no more than so many times the floor."""
SAMPLE_LIMIT: Final = 2.0**40

UNKNOWN: Final = 0.0
GOOD: Final = 1.0
OFF: Final = 2.0
FLAT: Final = 3.0
SATURATED: Final = 4.0
MAINS_DOMINATED: Final = 5.0
MOVING: Final = 6.0
SILENT: Final = 7.0

# Slots of the state array that all leads share.
RATE, COUNT, BIN, BIN_END = (
    0,
    1,
    2,
    3,
)  # Hz; samples seen; bins done; sample number at which the open bin ends
BOTTOM, TOP, FLOOR, STUCK = 4, 5, 6, 7  # limits (infinite: not known), floor, STUCK_S in samples
HP, LP, SLOW = 8, 13, 18  # sections b0 b1 b2 a1 a2
RESONANCE = 23  # 2 cos(2 pi f / rate) for 50 and 60 Hz; both 0: not listened for
SEEN = 25  # seconds done
LEADS_0: Final = 26

# Slots of a lead, from LEADS_0 + LEAD_SIZE * lead.
X1, X2, U1, U2, Y1, Y2 = 0, 1, 2, 3, 4, 5  # the band, from the cleaned signal
BASE, LAST, Z1, Z2, S1, S2 = (
    6,
    7,
    8,
    9,
    10,
    11,
)  # first sample, last good one; slow part of the raw signal
LEAST, MOST, SLOW_LEAST, SLOW_MOST = 12, 13, 14, 15  # of this second
AT_LIMIT, LOST, SAME = 16, 17, 18  # samples of this second; length of the run at a limit
EVER_LEAST, EVER_MOST = 19, 20
P50, Q50, P60, Q60, ENERGY = 21, 22, 23, 24, 25
SILENCE: Final = 26  # silent seconds on end
BINS_0: Final = 27
NOISE_0: Final = BINS_0 + BINS
BEAT_0: Final = NOISE_0 + SECONDS
SHARE_0: Final = BEAT_0 + SECONDS
LEAD_SIZE: Final = SHARE_0 + SECONDS

# Columns of the output.
AT, INDEX, RECENT, STATUS = 0, 1, 2, 3
COLUMNS: Final = 4


@kernel("void(float64[:,::1], int64, int64, int64, float64[::1], int64)")
def quality_band(cleaned: Floats, lead: int, first: int, end: int, state: Floats, at: int) -> None:
    """Adds the energy of the band to the open bin."""
    c0, c1, c2, d1, d2 = state[HP], state[HP + 1], state[HP + 2], state[HP + 3], state[HP + 4]
    b0, b1, b2, a1, a2 = state[LP], state[LP + 1], state[LP + 2], state[LP + 3], state[LP + 4]
    x1, x2, u1, u2 = state[at + X1], state[at + X2], state[at + U1], state[at + U2]
    y1, y2, energy = state[at + Y1], state[at + Y2], state[at + ENERGY]
    for i in range(first, end):
        x = cleaned[i, lead]
        u = (c0 * x + c1 * x1 + c2 * x2 - d2 * u2) - d1 * u1
        y = (b0 * u + b1 * u1 + b2 * u2 - a2 * y2) - a1 * y1
        energy += y * y
        x2, x1, u2, u1, y2, y1 = x1, x, u1, u, y1, y
    state[at + X1], state[at + X2], state[at + U1], state[at + U2] = x1, x2, u1, u2
    state[at + Y1], state[at + Y2], state[at + ENERGY] = y1, y2, energy


@kernel("void(float64[:,::1], int64, int64, int64, float64[::1], int64)")
def quality_raw(samples: Floats, lead: int, first: int, end: int, state: Floats, at: int) -> None:
    """What the raw samples show: their range, the limits, what is no number, the slow part, the mains."""
    bottom, top, stuck = state[BOTTOM], state[TOP], state[STUCK]
    known = bottom > -np.inf or top < np.inf
    s0, s1, s2, e1, e2 = (
        state[SLOW],
        state[SLOW + 1],
        state[SLOW + 2],
        state[SLOW + 3],
        state[SLOW + 4],
    )
    r0, r1 = state[RESONANCE], state[RESONANCE + 1]
    last, base, same = state[at + LAST], state[at + BASE], state[at + SAME]
    z1, z2, y1, y2 = state[at + Z1], state[at + Z2], state[at + S1], state[at + S2]
    p0, q0, p1, q1 = state[at + P50], state[at + Q50], state[at + P60], state[at + Q60]
    for i in range(first, end):
        x = samples[i, lead]
        if not abs(x) <= SAMPLE_LIMIT:
            state[at + LOST] += 1.0
            x = last
        state[at + LEAST], state[at + MOST] = min(state[at + LEAST], x), max(state[at + MOST], x)
        if known:
            state[at + AT_LIMIT] += 1.0 if x <= bottom or x >= top else 0.0
        else:
            state[at + EVER_LEAST] = min(state[at + EVER_LEAST], x)
            state[at + EVER_MOST] = max(state[at + EVER_MOST], x)
            extreme = x == state[at + EVER_LEAST] or x == state[at + EVER_MOST]
            same = same + 1.0 if extreme and x == last else 0.0
            if same >= stuck:
                state[at + AT_LIMIT] += 1.0 if same > stuck else stuck
        last = x
        z = x - base
        y = (s0 * z + s1 * z1 + s2 * z2 - e2 * y2) - e1 * y1
        state[at + SLOW_LEAST] = min(state[at + SLOW_LEAST], y)
        state[at + SLOW_MOST] = max(state[at + SLOW_MOST], y)
        z2, z1, y2, y1 = z1, z, y1, y
        p0, q0 = (z - q0) + r0 * p0, p0
        p1, q1 = (z - q1) + r1 * p1, p1
    state[at + LAST], state[at + SAME] = last, same
    state[at + Z1], state[at + Z2], state[at + S1], state[at + S2] = z1, z2, y1, y2
    state[at + P50], state[at + Q50], state[at + P60], state[at + Q60] = p0, q0, p1, q1


@kernel("void(float64[::1], int64)")
def quality_begin(state: Floats, at: int) -> None:
    """A new second of a lead."""
    state[at + LEAST] = state[at + SLOW_LEAST] = np.inf
    state[at + MOST] = state[at + SLOW_MOST] = -np.inf
    state[at + AT_LIMIT] = state[at + LOST] = 0.0
    state[at + P50] = state[at + Q50] = state[at + P60] = state[at + Q60] = 0.0


@kernel("void(float64[::1], int64)")
def quality_sort(state: Floats, at: int) -> None:
    """Sorts the bins of a lead in place, the quietest first."""
    for i in range(at + BINS_0 + 1, at + BINS_0 + BINS):
        value, k = state[i], i
        while k > at + BINS_0 and state[k - 1] > value:
            state[k] = state[k - 1]
            k -= 1
        state[k] = value


@kernel("float64(float64[::1], int64, float64)")
def quality_level(state: Floats, at: int, known: float) -> float:
    """The level of the beats among the `known` last seconds; 0 where there is none."""
    first, second, third = 0.0, 0.0, 0.0
    for i in range(int(known)):
        level = state[at + BEAT_0 + i]
        if level > first:
            first, second, third = level, first, second
        elif level > second:
            second, third = level, second
        elif level > third:
            third = level
    if known > 6.0:
        return third
    return second if known > 3.0 else first


@kernel("float64(float64[::1], int64, int64, float64)")
def quality_index(state: Floats, at: int, seconds: int, level: float) -> float:
    """The index over the last `seconds`: 1 / (1 + (share / HALF)^2)."""
    share = 0.0
    done = int(state[SEEN])
    for back in range(seconds):
        k = (done - back) % SECONDS
        share += min(1.0, state[at + NOISE_0 + k] / level + state[at + SHARE_0 + k])
    parts = share / seconds / HALF
    return 1.0 / (1.0 + parts * parts)


@kernel("float64(float64[::1], int64, float64, float64)")
def quality_status(state: Floats, at: int, length: float, level: float) -> float:
    """What is wrong with the second, the gravest first."""
    if state[at + LOST] > LOST_SHARE * length:
        return UNKNOWN
    known = state[BOTTOM] > -np.inf or state[TOP] < np.inf
    if known and state[at + AT_LIMIT] >= OFF_SHARE * length:
        return OFF
    if state[at + MOST] - state[at + LEAST] <= FLAT_FLOORS * state[FLOOR]:
        return FLAT
    if state[at + AT_LIMIT] > SATURATED_SHARE * length:
        return SATURATED
    if level <= 0.0:
        return UNKNOWN
    p, q = state[at + P50], state[at + Q50]
    line = p * p + q * q - state[RESONANCE] * p * q
    p, q = state[at + P60], state[at + Q60]
    line = max(line, p * p + q * q - state[RESONANCE + 1] * p * q)
    # An amplitude A gives (A / 2 * length)^2, and its mean square is A^2 / 2.
    if state[RESONANCE] != 0.0 and 2.0 * line > (MAINS * level * length) ** 2:
        return MAINS_DOMINATED
    if state[at + SILENCE] > 1.0:
        return SILENT
    if state[at + SLOW_MOST] - state[at + SLOW_LEAST] > MOTION * level:
        return MOVING
    return GOOD


@kernel("void(float64[::1], int64, float64, float64[:,:,::1], int64, int64)")
def quality_second(state: Floats, at: int, length: float, out: Floats, row: int, lead: int) -> None:
    """A second of a lead is complete: what it was, and the index with it."""
    done = int(state[SEEN])
    k = done % SECONDS
    quality_sort(state, at)
    floor = state[FLOOR]
    share = (state[at + AT_LIMIT] + state[at + LOST]) / length
    if state[at + MOST] - state[at + LEAST] <= FLAT_FLOORS * floor:
        share = 1.0
    state[at + NOISE_0 + k] = state[at + BINS_0 + NOISE_BIN]
    # A jump to a limit is no beat.
    state[at + BEAT_0 + k] = state[at + BINS_0 + BEAT_BIN] if share <= SATURATED_SHARE else 0.0
    state[at + SHARE_0 + k] = min(1.0, share)
    known = min(done + 1, SECONDS)
    level = quality_level(state, at, known)
    beat = state[at + BEAT_0 + k]
    silent = beat < SILENT_SHARE * level and share <= SATURATED_SHARE
    state[at + SILENCE] = state[at + SILENCE] + 1.0 if silent else 0.0
    most = UNSURE if state[at + SILENCE] > 1.0 else 1.0
    out[row, lead, AT] = state[BIN_END]
    out[row, lead, STATUS] = quality_status(state, at, length, level)
    if known < LEAST_SECONDS:
        out[row, lead, INDEX] = out[row, lead, RECENT] = np.nan
    elif level <= floor:
        out[row, lead, INDEX] = out[row, lead, RECENT] = 0.0
    else:
        out[row, lead, INDEX] = quality_index(state, at, known, level)
        out[row, lead, RECENT] = min(most, quality_index(state, at, LATELY, level))
    quality_begin(state, at)


@kernel("int64(float64[:,::1], float64[:,::1], float64[::1], float64[:,:,::1])")
def quality_process(samples: Floats, cleaned: Floats, state: Floats, out: Floats) -> int:
    """Goes on by raw and cleaned samples, of shape (samples, leads), and returns how many rows of `out` it filled.

    `out`, of shape (seconds, leads, COLUMNS), has a row for each second that ends in the samples.
    """
    size, leads = samples.shape
    seen, rows, first = state[COUNT], 0, 0
    if seen == 0.0 and size > 0:
        for lead in range(leads):
            at = LEADS_0 + LEAD_SIZE * lead
            if abs(samples[0, lead]) <= SAMPLE_LIMIT:
                state[at + BASE] = state[at + LAST] = samples[0, lead]
            state[at + EVER_LEAST], state[at + EVER_MOST] = np.inf, -np.inf
            quality_begin(state, at)
    while first < size:
        end = min(size, first + int(state[BIN_END] - seen))
        for lead in range(leads):
            at = LEADS_0 + LEAD_SIZE * lead
            quality_raw(samples, lead, first, end, state, at)
            quality_band(cleaned, lead, first, end, state, at)
        seen += end - first
        first = end
        if seen < state[BIN_END]:
            break
        bins = int(state[BIN])
        rate = state[RATE]
        # Samples of the bin and of the second that end here; bins end at the sample nearest to their time.
        start = np.floor(bins * rate / BINS + 0.5)
        second = np.floor((bins // BINS) * rate + 0.5)
        for lead in range(leads):
            at = LEADS_0 + LEAD_SIZE * lead
            state[at + BINS_0 + bins % BINS] = np.sqrt(state[at + ENERGY] / max(1.0, seen - start))
            state[at + ENERGY] = 0.0
            if bins % BINS == BINS - 1:
                quality_second(state, at, max(1.0, seen - second), out, rows, lead)
        if bins % BINS == BINS - 1:
            rows += 1
            state[SEEN] += 1.0
        state[BIN] = bins + 1.0
        state[BIN_END] = np.floor((bins + 2) * rate / BINS + 0.5)
    state[COUNT] = seen
    return rows

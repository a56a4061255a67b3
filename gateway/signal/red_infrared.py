"""The ratio of ratios of red to infrared light, over the last 8 s of each second. Kernels only.

Both signals are averaged down, low-passed and freed from their slow part by the same filters; within a second, sums of
squares and products of what pulsates and of the level are kept; eight seconds of sums give

    R = (slope of red over infrared) / (level of red / level of infrared)

with the slope by regression through the origin, which noise in one channel moves less than a quotient of amplitudes.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

INNER_HZ: Final = 62.5
"""Samples are averaged down to about this rate."""
HIGH_HZ: Final = 0.5
LOW_HZ: Final = 5.0
"""The band of the pulse."""
WINDOW: Final = 8
"""Seconds of sums that make one value."""
SETTLE: Final = 4
"""Seconds after the start, or after a bad one, in which the filters still settle."""
SAMPLE_LIMIT: Final = 2.0**40

# Slots of the state array.
B0, B1, B2, A1, A2 = 0, 1, 2, 3, 4  # low-pass
C0, C1, C2, D1, D2 = 5, 6, 7, 8, 9  # high-pass
RATE_HZ, STRIDE, COUNT, FILL, SECOND, END = 10, 11, 12, 13, 14, 15
SETTLING, BAD, GOOD = (
    16,
    17,
    18,
)  # seconds left; samples of this second that were no numbers or at a rail; seconds held
RAIL_LOW, RAIL_HIGH = 19, 20
RED_0: Final = 24
INFRARED_0: Final = 32
TOTAL, X1, X2, U1, U2, Y1, Y2, BASE = 0, 1, 2, 3, 4, 5, 6, 7
"""Of each channel: running total, filter memory, first sample."""
SUM_0: Final = 40
SUMS: Final = 6
"""Of the running second, then of WINDOW seconds: red^2, infrared^2, red x infrared, red level, infrared level, samples."""
STATE_SIZE: Final = SUM_0 + SUMS * (WINDOW + 1)

# Columns of a row.
ROW_SECOND, ROW_RATIO, ROW_CORRELATION, ROW_RED, ROW_INFRARED = 0, 1, 2, 3, 4
COLUMNS: Final = 5


@kernel("float64(float64[::1], int64, float64)")
def red_ir_filter(state: Floats, channel: int, x: float) -> float:
    """One sample of one channel through low-pass and high-pass."""
    x1, u1, y1 = state[channel + X1], state[channel + U1], state[channel + Y1]
    u = (
        state[B0] * x
        + state[B1] * x1
        + state[B2] * state[channel + X2]
        - state[A2] * state[channel + U2]
    ) - state[A1] * u1
    y = (
        state[C0] * u
        + state[C1] * u1
        + state[C2] * state[channel + U2]
        - state[D2] * state[channel + Y2]
    ) - state[D1] * y1
    state[channel + X2], state[channel + X1] = x1, x
    state[channel + U2], state[channel + U1] = u1, u
    state[channel + Y2], state[channel + Y1] = y1, y
    return float(y)


@kernel("int64(float64[::1], float64[:,::1], int64)")
def red_ir_second(state: Floats, rows: Floats, row: int) -> int:
    """A second has ended: gives out what the last WINDOW good seconds say; NaN when there are not so many in a run."""
    if state[BAD] > 0.0:
        state[SETTLING], state[GOOD] = SETTLE, 0.0
    elif state[SETTLING] > 0.0:
        state[SETTLING] -= 1.0
    else:
        at = SUM_0 + SUMS * (1 + int(state[GOOD]) % WINDOW)
        for k in range(SUMS):
            state[at + k] = state[SUM_0 + k]
        state[GOOD] += 1.0
    for k in range(SUMS):
        state[SUM_0 + k] = 0.0
    rows[row, ROW_SECOND] = state[SECOND]
    for k in range(1, COLUMNS):
        rows[row, k] = math.nan
    state[SECOND] += 1.0
    state[END] = math.ceil((state[SECOND] + 1.0) * state[RATE_HZ])
    state[BAD] = 0.0
    if state[GOOD] < WINDOW:
        return row + 1
    sums = np.zeros(SUMS)
    for second in range(WINDOW):
        for k in range(SUMS):
            sums[k] += state[SUM_0 + SUMS * (1 + second) + k]
    red, infrared, both = sums[0], sums[1], sums[2]
    level_red, level_infrared, count = sums[3], sums[4], sums[5]
    if red > 0.0 and infrared > 0.0 and level_red > 0.0 and level_infrared > 0.0 and count > 0.0:
        rows[row, ROW_RATIO] = both / infrared * (level_infrared / level_red)
        rows[row, ROW_CORRELATION] = both / math.sqrt(red * infrared)
        rows[row, ROW_RED] = 100.0 * math.sqrt(red / count) / (level_red / count)
        rows[row, ROW_INFRARED] = 100.0 * math.sqrt(infrared / count) / (level_infrared / count)
    return row + 1


@kernel("int64(float64[::1], float64[::1], float64[::1], float64[:,::1])")
def red_ir_process(red: Floats, infrared: Floats, state: Floats, rows: Floats) -> int:
    """Goes on by as many samples of both, and returns how many `rows` it filled: samples / RATE_HZ + 1 at most."""
    n, fill, end, stride = int(state[COUNT]), int(state[FILL]), state[END], int(state[STRIDE])
    low, high, row = state[RAIL_LOW], state[RAIL_HIGH], 0
    for i in range(red.size):
        r, v = red[i], infrared[i]
        if abs(r) <= SAMPLE_LIMIT and abs(v) <= SAMPLE_LIMIT:
            if r <= low or r >= high or v <= low or v >= high:
                state[BAD] += 1.0
            if math.isnan(state[RED_0 + BASE]):
                state[RED_0 + BASE], state[INFRARED_0 + BASE] = r, v
            state[RED_0 + TOTAL] += r
            state[INFRARED_0 + TOTAL] += v
            fill += 1
        else:
            state[BAD] += 1.0
        n += 1
        if fill == stride:
            r, v = state[RED_0 + TOTAL] / stride, state[INFRARED_0 + TOTAL] / stride
            state[RED_0 + TOTAL], state[INFRARED_0 + TOTAL], fill = 0.0, 0.0, 0
            y = red_ir_filter(state, RED_0, r - state[RED_0 + BASE])
            z = red_ir_filter(state, INFRARED_0, v - state[INFRARED_0 + BASE])
            state[SUM_0] += y * y
            state[SUM_0 + 1] += z * z
            state[SUM_0 + 2] += y * z
            state[SUM_0 + 3] += r
            state[SUM_0 + 4] += v
            state[SUM_0 + 5] += 1.0
        if n >= end:
            row = red_ir_second(state, rows, row)
            end = state[END]
    state[COUNT], state[FILL] = n, fill
    return row

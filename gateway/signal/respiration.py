"""Breaths per minute from what breathing does to the beats of an ECG or of a pulse wave. Kernels only.

Breathing moves the baseline, the amplitude and the interval of beats. Each of the three is drawn on a grid of 2 Hz and
its spectrum taken over the last 32 s, times the frequency: slow waves of blood pressure are often the stronger, and the
weight takes that from them. One of the three leads: the baseline of a pulse wave, the amplitude of an ECG. Its peak
counts when it holds much of the power, or fairly much and another of the three has its own peak nearby; else the rate
is unknown. Nothing above half of the pulse rate is looked at: the beats cannot show it.
"""

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

Floats = NDArray[np.float64]

GRID_HZ: Final = 2.0
WINDOW: Final = 64
"""Grid samples of one spectrum: 32 s."""
STEP: Final = 8
"""A value each 4 s."""
GAP_S: Final = 3.0
"""Beats further apart than this have a hole between them, after which the window fills again."""
LEAST_BPM: Final = 5
MOST_BPM: Final = 45
"""The rates looked for, in steps of 1 a minute, refined by a parabola."""
ALONE: Final = 0.6
"""The peak (with its two neighbours) of the leading spectrum counts when it holds this part of all power."""
AGREED: Final = 0.35
NEAR_BPM: Final = 2.0
"""Or this part, with the peak of another within so many breaths a minute."""

BASELINE, AMPLITUDE, INTERVAL = 0, 1, 2
"""The three modulations."""

# Slots of the state array.
LEADS, LAST, LAST_0, NEXT, COUNT = (
    0,
    1,
    2,
    5,
    6,
)  # LAST_0: the values of the last beat; NEXT: grid time
RING_0: Final = 8
STATE_SIZE: Final = RING_0 + 3 * WINDOW

# Columns of the beats that come in, and of a row.
IN_TIME, IN_0 = 0, 1
ROW_TIME, ROW_RATE, ROW_QUALITY = 0, 1, 2
COLUMNS: Final = 3


@kernel("float64(float64[::1], int64, float64[::1])")
def resp_peak(state: Floats, modulation: int, power: Floats) -> float:
    """Fills `power` from LEAST_BPM to MOST_BPM, and returns the place of its greatest; -1 without any power."""
    first, ring = int(state[COUNT]), RING_0 + modulation * WINDOW
    wave, middle = np.empty(WINDOW), 0.5 * (WINDOW - 1)
    mean, slope, spread = 0.0, 0.0, 0.0
    for k in range(WINDOW):
        wave[k] = state[ring + (first + k) % WINDOW]
        mean += wave[k] / WINDOW
        slope += wave[k] * (k - middle)
        spread += (k - middle) * (k - middle)
    for k in range(WINDOW):
        hann = 0.5 - 0.5 * math.cos(2.0 * math.pi * k / (WINDOW - 1))
        wave[k] = hann * (wave[k] - mean - slope / spread * (k - middle))
    pulse_hz = 0.0
    for k in range(WINDOW):
        interval = state[RING_0 + INTERVAL * WINDOW + k]
        pulse_hz += (1.0 / interval if interval > 0.0 else 0.0) / WINDOW
    # Goertzel's recursion for all rates side by side.
    turn = 2.0 * np.cos(2.0 * np.pi / 60.0 / GRID_HZ * (LEAST_BPM + np.arange(power.size)))
    s1, s2 = np.zeros(power.size), np.zeros(power.size)
    for k in range(WINDOW):
        for j in range(power.size):
            s1[j], s2[j] = wave[k] + turn[j] * s1[j] - s2[j], s1[j]
    total, best = 0.0, -1
    for j in range(power.size):
        bpm = float(LEAST_BPM + j)
        power[j] = 0.0
        if bpm < 30.0 * pulse_hz:
            squared = s1[j] * s1[j] + s2[j] * s2[j] - turn[j] * s1[j] * s2[j]
            power[j] = max(0.0, bpm * squared)
        total += power[j]
        if power[j] > 0.0 and (best < 0 or power[j] > power[best]):
            best = j
    if best < 0:
        return -1.0
    for j in range(power.size):
        power[j] /= total
    place = float(best)
    if 0 < best < power.size - 1:
        bend = power[best - 1] - 2.0 * power[best] + power[best + 1]
        if bend < 0.0:
            place += 0.5 * (power[best - 1] - power[best + 1]) / bend
    return place


@kernel("void(float64[::1], float64, float64[:,::1], int64)")
def resp_row(state: Floats, time: float, rows: Floats, row: int) -> None:
    """The rate at grid time `time`, NaN when unknown, and the part of the power that its peak holds."""
    power, leads = np.empty(MOST_BPM - LEAST_BPM + 1), int(state[LEADS])
    rows[row, ROW_TIME], rows[row, ROW_RATE], rows[row, ROW_QUALITY] = time, math.nan, 0.0
    place = resp_peak(state, leads, power)
    if place < 0.0:
        return
    best = math.floor(place + 0.5)
    held = 0.0
    for j in range(max(0, best - 1), min(power.size, best + 2)):
        held += power[j]
    rows[row, ROW_QUALITY] = held
    agreed = False
    for modulation in range(3):
        if modulation != leads and held >= AGREED:
            other = resp_peak(state, modulation, power)
            agreed = agreed or (other >= 0.0 and abs(other - place) <= NEAR_BPM)
    if held >= ALONE or agreed:
        rows[row, ROW_RATE] = LEAST_BPM + place


@kernel("int64(float64[:,::1], float64[::1], float64[:,::1])")
def resp_process(beats: Floats, state: Floats, rows: Floats) -> int:
    """Goes on by `beats` (time in s, baseline, amplitude, interval in s) and returns how many `rows` it filled.

    A beat with a value that is no number is passed over. `rows` has room for GAP_S * GRID_HZ / STEP + 1 rows a beat.
    """
    row = 0
    for i in range(beats.shape[0]):
        time = beats[i, IN_TIME]
        total = time + beats[i, IN_0] + beats[i, IN_0 + 1] + beats[i, IN_0 + 2]
        if not abs(total) < math.inf or not time > state[LAST]:
            continue
        since = time - state[LAST]
        if not since <= GAP_S:
            state[COUNT] = 0.0
            state[NEXT] = math.ceil(time * GRID_HZ) / GRID_HZ
        while since <= GAP_S and state[NEXT] <= time:
            part, count = (state[NEXT] - state[LAST]) / since, int(state[COUNT])
            for k in range(3):
                value = state[LAST_0 + k] + part * (beats[i, IN_0 + k] - state[LAST_0 + k])
                state[RING_0 + k * WINDOW + count % WINDOW] = value
            state[COUNT] = count + 1.0
            if count + 1 >= WINDOW and (count + 1) % STEP == 0:
                resp_row(state, state[NEXT], rows, row)
                row += 1
            state[NEXT] += 1.0 / GRID_HZ
        state[LAST] = time
        for k in range(3):
            state[LAST_0 + k] = beats[i, IN_0 + k]
    return row

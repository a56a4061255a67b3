"""Beats from an ECG stream: the QRS kernels with their memory."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.signal import biquad, qrs

RATE_LEAST_HZ: Final = 60.0
RATE_MOST_HZ: Final = 1000.0

BLOCK: Final = 4096
"""Samples of one kernel call: bounds the output buffer. Packets are far shorter."""

FLOOR_COUNTS: Final = 1.0
"""Rounding noise of a converter stays below 1 count rms in the QRS band."""


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """Beats in order of time: arrays of one length.

    Attributes:
        index: position of the R peak in samples since the start of the run, finer than one sample.
        noise_ratio: noise level over signal level when the beat was found: 0 is clean, towards 1 beats and noise
            cannot be told apart.
        late: found by search-back, so more than the usual 0.4 s after it happened.
    """

    index: NDArray[np.float64]
    noise_ratio: NDArray[np.float64]
    late: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.index)


NO_BEATS: Final = Beats(np.empty(0), np.empty(0), np.empty(0, np.bool_))


class EcgStream:
    """Finds the beats of one lead. Any cutting of the samples gives the same beats, bit for bit.

    A beat is given out 0.4 s after it happened at the latest, save for the first 3 s, which are judged together, and
    for those found by search-back. Scale, offset and polarity of the samples are free.
    """

    def __init__(self, rate_hz: float, floor: float = FLOOR_COUNTS) -> None:
        """Takes 60 to 1000 samples/s.

        Args:
            rate_hz: sample rate.
            floor: least rms amplitude in the QRS band that may be a beat, in the unit of the samples. The default
                suits raw counts of a converter.
        """
        if not RATE_LEAST_HZ <= rate_hz <= RATE_MOST_HZ:
            raise ValueError(f"rate {rate_hz} Hz: expected {RATE_LEAST_HZ:g} to {RATE_MOST_HZ:g}")
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(
                f"floor {floor}: expected a positive number in the unit of the samples"
            )
        separation = round(qrs.SEPARATION_S * rate_hz)
        self._start = _start(rate_hz, floor, separation)
        self._state = self._start.copy()
        self._out = np.empty((BLOCK // separation + qrs.QUEUE + 2, qrs.COLUMNS))

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self._state.nbytes

    @property
    def count(self) -> int:
        """Samples since the start of the run."""
        return int(self._state[qrs.COUNT])

    def reset(self) -> None:
        """Forgets everything: the next sample is number 0 of a new run. After a gap, `flush` first."""
        self._state[:] = self._start

    def process(self, samples: ArrayLike) -> Beats:
        """Takes the next samples of the run, and returns the beats that were decided with them."""
        data = np.ascontiguousarray(samples, np.float64)
        if data.size <= BLOCK:
            found = qrs.qrs_process(data, self._state, self._out)
            return self._beats(found) if found else NO_BEATS
        parts = [
            self._beats(qrs.qrs_process(data[at : at + BLOCK], self._state, self._out))
            for at in range(0, data.size, BLOCK)
        ]
        return Beats(
            np.concatenate([part.index for part in parts]),
            np.concatenate([part.noise_ratio for part in parts]),
            np.concatenate([part.late for part in parts]),
        )

    def flush(self) -> Beats:
        """Ends the run: returns the beats that were still waiting for a decision, and starts anew."""
        beats = self._beats(qrs.qrs_flush(self._state, self._out))
        self.reset()
        return beats

    def _beats(self, found: int) -> Beats:
        if found == 0:
            return NO_BEATS
        rows = self._out[:found].copy()
        return Beats(rows[:, qrs.AT], rows[:, qrs.RATIO], rows[:, qrs.LATE] != 0)


def _start(rate_hz: float, floor: float, separation: int) -> NDArray[np.float64]:
    """The state before the first sample."""
    state = np.zeros(qrs.STATE_SIZE)
    state[qrs.B0 : qrs.A2 + 1] = biquad.low_pass(qrs.HIGH_HZ, rate_hz)
    state[qrs.C0 : qrs.D2 + 1] = biquad.high_pass(qrs.LOW_HZ, rate_hz)
    window = round(qrs.ENERGY_S * rate_hz)
    state[qrs.RATE] = rate_hz
    state[qrs.WINDOW] = window
    state[qrs.SEPARATION] = separation
    state[qrs.DELAY] = biquad.low_pass_delay_s(qrs.HIGH_HZ) * rate_hz
    state[qrs.FLOOR] = state[qrs.TOP] = floor * floor * window
    state[qrs.TOP_AT] = -1
    state[qrs.LAST] = -math.inf
    state[qrs.RR] = qrs.RR_START_S * rate_hz
    state[qrs.DUE] = qrs.LEARN_S * rate_hz
    return state

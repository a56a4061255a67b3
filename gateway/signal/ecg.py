"""Beats from an ECG stream: the QRS kernels with their memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.signal import biquad, qrs

RATE_LEAST_HZ: Final = 60.0
RATE_MOST_HZ: Final = 1000.0

BLOCK: Final = 4096
"""Moments of one kernel call: bounds the output buffer. Packets are far shorter."""

FLOOR_COUNTS: Final = 1.0
"""Rounding noise of a converter stays below 1 count rms in the QRS band."""

RATE_ENOUGH_HZ: Final = 250.0
"""At higher rates 2, 3 or 4 neighbouring samples become one, their mean, so that none is above this one."""
LOW_HZ: Final = (8.0, 20.0)
"""The low band: P and T waves and electrode motion lie mostly below it, muscle noise above, QRS energy within."""
HIGH_HZ: Final = (20.0, 40.0)
"""The high band: T waves and electrode motion hardly reach it. Its high-pass is twice as steep."""
HIGHEST: Final = 0.42
"""No cut-off is above this part of the rate."""
ENERGY_S: Final = 0.08
"""Length of the moving sums of energy: a narrow QRS."""
SEPARATION_S: Final = 0.22
"""No two beats are nearer than this (the refractory period of the ventricles): 270 /min."""
SHAPE_S: Final = 0.08
STEP_S: Final = 0.01
"""The shape of a beat is the high band from so long before its R peak to as long after it, in such steps."""


@dataclass(frozen=True, slots=True, eq=False)
class Beats:
    """Beats in order of time.

    Attributes:
        rows: what the kernel gave out, of shape (beats, qrs.COLUMNS).
    """

    rows: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def index(self) -> NDArray[np.float64]:
        """Positions of the R peaks in samples since the start of the run, finer than one sample."""
        return self.rows[:, qrs.AT]

    @property
    def noise_ratio(self) -> NDArray[np.float64]:
        """Noise level over signal level when each was found: 0 is clean, towards 1 nothing can be told apart."""
        return self.rows[:, qrs.RATIO]

    @property
    def late(self) -> NDArray[np.bool_]:
        """Which were found by search-back, so more than the usual 0.4 s after they happened."""
        found: NDArray[np.bool_] = self.rows[:, qrs.LATE] != 0
        return found

    @property
    def delay_s(self) -> NDArray[np.float64]:
        """The time from each R peak to the sample that decided it."""
        return self.rows[:, qrs.WAITED]


NO_BEATS: Final = Beats(np.empty((0, qrs.COLUMNS)))


class _Detector:
    """The kernels with the states of some leads and room for their beats."""

    def __init__(self, rate_hz: float, leads: int, floor: float) -> None:
        if not RATE_LEAST_HZ <= rate_hz <= RATE_MOST_HZ:
            raise ValueError(f"rate {rate_hz} Hz: expected {RATE_LEAST_HZ:g} to {RATE_MOST_HZ:g}")
        if leads < 1:
            raise ValueError(f"{leads} leads: expected at least one")
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(
                f"floor {floor}: expected a positive number in the unit of the samples"
            )
        self.rate_hz, self.leads = rate_hz, leads
        self.start = _start(rate_hz, floor)
        self.states = np.tile(self.start, (leads, 1))
        rows = BLOCK // round(SEPARATION_S * rate_hz) + qrs.QUEUE + 2
        self.out = np.empty((leads, rows, qrs.COLUMNS))

    @property
    def count(self) -> int:
        state = self.states[0]
        return int(state[qrs.COUNT] * state[qrs.FACTOR] + state[qrs.WAITS])

    def beats(self, lead: int) -> Beats:
        found = int(self.states[lead, qrs.FOUND])
        return Beats(self.out[lead, :found].copy()) if found else NO_BEATS


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
        self._detector = _Detector(rate_hz, 1, floor)
        self._states, self._out = self._detector.states, self._detector.out

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self._detector.start.nbytes

    @property
    def count(self) -> int:
        """Samples since the start of the run."""
        return self._detector.count

    def reset(self) -> None:
        """Forgets everything: the next sample is number 0 of a new run. After a gap, `flush` first."""
        self._states[:] = self._detector.start

    def process(self, samples: ArrayLike) -> Beats:
        """Takes the next samples of the run, and returns the beats that were decided with them."""
        data = np.ascontiguousarray(samples, np.float64)
        if data.size <= BLOCK:
            found = qrs.qrs_process(data, self._states, self._out)
            return self._detector.beats(0) if found else NO_BEATS
        return joined([self.process(data[at : at + BLOCK]) for at in range(0, data.size, BLOCK)])

    def flush(self) -> Beats:
        """Ends the run: returns the beats that were still waiting for a decision, and starts anew."""
        qrs.qrs_flush(self._states, self._out)
        beats = self._detector.beats(0)
        self.reset()
        return beats


class EcgLeads:
    """Finds the beats of leads that are sampled together, of each as an EcgStream would: one kernel call a packet."""

    def __init__(self, rate_hz: float, leads: int, floor: float = FLOOR_COUNTS) -> None:
        """Takes 60 to 1000 samples/s of each lead; `floor` as for an EcgStream."""
        self._detector = _Detector(rate_hz, leads, floor)
        self._states, self._out = self._detector.states, self._detector.out

    @property
    def state_bytes(self) -> int:
        """What is remembered of each lead from one call to the next. It never grows."""
        return self._detector.start.nbytes

    @property
    def count(self) -> int:
        """Samples of each lead since the start of the run."""
        return self._detector.count

    def reset(self) -> None:
        """Forgets everything: the next sample is number 0 of a new run. After a gap, `flush` first."""
        self._states[:] = self._detector.start

    def process(self, samples: ArrayLike) -> tuple[Beats, ...]:
        """Takes the next samples, of shape (n, leads), and returns the beats of each lead that were decided with them."""
        data = np.ascontiguousarray(samples, np.float64).reshape(-1, self._detector.leads)
        if len(data) <= BLOCK:
            found = qrs.qrs_process(data.reshape(-1), self._states, self._out)
            return self._beats() if found else (NO_BEATS,) * self._detector.leads
        parts = [self.process(data[at : at + BLOCK]) for at in range(0, len(data), BLOCK)]
        return tuple(joined(lead) for lead in zip(*parts, strict=True))

    def flush(self) -> tuple[Beats, ...]:
        """Ends the run: returns the beats that were still waiting for a decision, and starts anew."""
        qrs.qrs_flush(self._states, self._out)
        beats = self._beats()
        self.reset()
        return beats

    def _beats(self) -> tuple[Beats, ...]:
        return tuple(self._detector.beats(lead) for lead in range(self._detector.leads))


def joined(parts: Sequence[Beats]) -> Beats:
    """The beats of calls one after the other."""
    return Beats(np.concatenate([part.rows for part in parts]))


def _start(rate_hz: float, floor: float) -> NDArray[np.float64]:
    """The state before the first sample."""
    factor = math.ceil(rate_hz / RATE_ENOUGH_HZ)
    rate = rate_hz / factor
    most = HIGHEST * rate
    state = np.zeros(qrs.STATE_SIZE)
    (low_from, low_to), (high_from, high_to) = LOW_HZ, HIGH_HZ
    low_pass, high_pass = biquad.low_pass(low_to, rate), biquad.high_pass(low_from, rate)
    second = biquad.low_pass(min(high_to, most), rate), biquad.high_pass(min(high_from, most), rate)
    state[qrs.B1 : qrs.E2 + 1] = [*low_pass[3:], *high_pass[3:], *second[0][3:], *second[1][3:]]
    # The kernel leaves out the gains of the sections, but for the floor only ratios of amplitudes count.
    gain = low_pass[0] * high_pass[0]
    window = round(ENERGY_S * rate)
    step = max(1, round(STEP_S * rate))
    state[qrs.RATE], state[qrs.FACTOR], state[qrs.WINDOW] = rate, factor, window
    state[qrs.SEPARATION] = round(SEPARATION_S * rate)
    state[qrs.DELAY] = biquad.low_pass_delay_s(low_to) * rate
    state[qrs.FLOOR] = state[qrs.TOP] = (floor / gain) ** 2 * window
    state[qrs.STEP], state[qrs.HALF] = step, round(SHAPE_S * rate / step)
    state[qrs.TOP_AT] = -1
    state[qrs.LAST] = -math.inf
    state[qrs.RR], state[qrs.CHANGE] = qrs.RR_START_S * rate, 1.0
    state[qrs.DUE] = qrs.LEARN_S * rate
    return state

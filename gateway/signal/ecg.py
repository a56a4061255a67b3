"""Beats from an ECG stream: the QRS kernels with their memory."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.signal import biquad, qrs

FLOAT64: Final = np.dtype(np.float64)

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


class _Stream:
    """The states of some leads, each followed by room for the beats of a call."""

    __slots__ = ("_rows", "_start", "_states")

    def __init__(self, rate_hz: float, leads: int, floor: float) -> None:
        if not RATE_LEAST_HZ <= rate_hz <= RATE_MOST_HZ:
            raise ValueError(f"rate {rate_hz} Hz: expected {RATE_LEAST_HZ:g} to {RATE_MOST_HZ:g}")
        if leads < 1:
            raise ValueError(f"{leads} leads: expected at least one")
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(
                f"floor {floor}: expected a positive number in the unit of the samples"
            )
        rows = BLOCK // round(SEPARATION_S * rate_hz) + qrs.QUEUE + 2
        self._start = _start(rate_hz, floor)
        self._states = np.zeros((leads, qrs.STATE_SIZE + rows * qrs.COLUMNS))
        self._rows = [lead[qrs.STATE_SIZE :].reshape(rows, qrs.COLUMNS) for lead in self._states]
        self.reset()

    @property
    def state_bytes(self) -> int:
        """What is remembered of each lead from one call to the next. It never grows."""
        return self._start.nbytes

    @property
    def count(self) -> int:
        """Samples of each lead since the start of the run."""
        state = self._states[0]
        return int(state[qrs.COUNT] * state[qrs.FACTOR] + state[qrs.WAITS])

    def reset(self) -> None:
        """Forgets everything: the next sample is number 0 of a new run. After a gap, `flush` first."""
        self._states[:, : qrs.STATE_SIZE] = self._start

    def _found(self) -> tuple[Beats, ...]:
        counts = self._states[:, qrs.FOUND].tolist()
        return tuple(
            Beats(rows[: int(count)].copy()) if count else NO_BEATS
            for rows, count in zip(self._rows, counts, strict=True)
        )

    def _ended(self) -> tuple[Beats, ...]:
        qrs.qrs_flush(self._states)
        beats = self._found()
        self.reset()
        return beats


class EcgStream(_Stream):
    """Finds the beats of one lead. Any cutting of the samples gives the same beats, bit for bit.

    A beat is given out 0.4 s after it happened at the latest, save for the first 3 s, which are judged together, and
    for those found by search-back. Scale, offset and polarity of the samples are free.
    """

    __slots__ = ()

    def __init__(self, rate_hz: float, floor: float = FLOOR_COUNTS) -> None:
        """Takes 60 to 1000 samples/s.

        Args:
            rate_hz: sample rate.
            floor: least rms amplitude in the QRS band that may be a beat, in the unit of the samples. The default
                suits raw counts of a converter.
        """
        super().__init__(rate_hz, 1, floor)

    def process(self, samples: ArrayLike) -> Beats:
        """Takes the next samples of the run, of shape (n,), and returns the beats that were decided with them."""
        data = np.ascontiguousarray(samples, FLOAT64)
        if data.ndim != 1:
            raise ValueError(f"samples of shape {data.shape}: expected (samples,)")
        if data.size > BLOCK:
            return joined(list(map(self.process, _blocks(data))))
        found = qrs.qrs_process(data, self._states)
        return Beats(self._rows[0][:found].copy()) if found else NO_BEATS

    def flush(self) -> Beats:
        """Ends the run: returns the beats that were still waiting for a decision, and starts anew."""
        return self._ended()[0]


class EcgLeads(_Stream):
    """Finds the beats of leads that are sampled together, of each as an EcgStream would: one kernel call a packet."""

    __slots__ = ()

    def __init__(self, rate_hz: float, leads: int, floor: float = FLOOR_COUNTS) -> None:
        """Takes 60 to 1000 samples/s of each lead; `floor` as for an EcgStream."""
        super().__init__(rate_hz, leads, floor)

    def process(self, samples: ArrayLike) -> tuple[Beats, ...]:
        """Takes the next samples, of shape (n, leads), and returns the beats of each lead that were decided with them."""
        data, leads = np.ascontiguousarray(samples, FLOAT64), len(self._rows)
        if data.ndim != 2 or data.shape[1] != leads:
            raise ValueError(f"samples of shape {data.shape}: expected (samples, {leads})")
        if len(data) > BLOCK:
            parts = map(self.process, _blocks(data))
            return tuple(map(joined, zip(*parts, strict=True)))
        found = qrs.qrs_process(data.reshape(-1), self._states)
        return self._found() if found else (NO_BEATS,) * leads

    def flush(self) -> tuple[Beats, ...]:
        """Ends the run: returns the beats that were still waiting for a decision, and starts anew."""
        return self._ended()


def _blocks(data: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    return [data[at : at + BLOCK] for at in range(0, len(data), BLOCK)]


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

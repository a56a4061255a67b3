"""The leads of an ECG together: cleaned signals, and the quality of each second."""

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.signal import biquad, clean, quality
from gateway.signal.ecg import FLOOR_COUNTS, RATE_LEAST_HZ, RATE_MOST_HZ

Floats = NDArray[np.float64]

BLOCK: Final = 4096
"""Values of one kernel call: what they need stays in the processor's nearest cache. Packets are far shorter."""
LEADS_MOST: Final = 16
MAINS_HZ: Final = (50.0, 60.0)
BESIDE_HZ: Final = (45.0, 55.0)
"""Where mains are listened for, and what they are compared with."""


class LeadStatus(IntEnum):
    """What is wrong with a second of a lead, the gravest that applies."""

    UNKNOWN = int(quality.UNKNOWN)
    """Too few numbers, or none yet that a beat could be known from."""
    GOOD = int(quality.GOOD)
    OFF = int(quality.OFF)
    """At a limit of the converter for most of the second: the electrode has lost its contact. Said only where the
    limits are known."""
    FLAT = int(quality.FLAT)
    SATURATED = int(quality.SATURATED)
    MAINS = int(quality.MAINS_DOMINATED)
    MOTION = int(quality.MOVING)
    SILENT = int(quality.SILENT)
    """For two seconds or more nothing like a beat where beats were: a pause, or an electrode that lost its contact without
    noise. Nothing in the signal tells which."""


@dataclass(frozen=True, slots=True, eq=False)
class Seconds:
    """The quality of whole seconds: arrays of shape (seconds, leads), save `at`.

    Attributes:
        at: the sample number at which each second ends, of shape (seconds,).
        index: signal-quality index of the ten seconds that end there, 0 to 1; NaN (unknown) for the first two.
        recent: the same of the last three seconds alone: it falls sooner when trouble begins.
        status: LeadStatus of the second itself.
    """

    at: NDArray[np.int64]
    index: Floats
    recent: Floats
    status: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.at)


class CleanStream:
    """Removes baseline wander, mains hum and what is above 40 Hz. Any cutting gives the same samples, bit for bit.

    For eyes and for detectors, not for measuring ST segments. It looks back only: `delay_s` late, and the notch runs from
    about ten seconds after hum begins.
    """

    def __init__(self, rate_hz: float, leads: int = 1) -> None:
        """Takes 60 to 1000 samples/s of 1 to 16 leads."""
        _check(rate_hz, leads)
        self._rate_hz = rate_hz
        self._leads = leads
        self._top_hz = min(clean.TOP_HZ, clean.TOP_SHARE * rate_hz)
        self._start = _clean_start(rate_hz, leads, self._top_hz)
        self._state = self._start.copy()

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self._state.nbytes

    @property
    def delay_s(self) -> float:
        """How late QRS complexes and slow shapes come: the low-pass's group delay."""
        # The transform puts the poles of the cut-off's tangent there: it matters near half the rate alone.
        warped_hz = math.tan(math.pi * self._top_hz / self._rate_hz) * self._rate_hz / math.pi
        return biquad.low_pass_delay_s(warped_hz)

    @property
    def mains_hz(self) -> tuple[float | None, ...]:
        """The mains frequency that the notch of each lead takes out; None where none was found."""
        runs = self._state[clean.LEADS_0 + clean.RUNS :: clean.LEAD_SIZE]
        return tuple((None, *MAINS_HZ)[int(run)] for run in runs)

    def reset(self) -> None:
        """Forgets everything, the mains too."""
        self._state[:] = self._start

    def process(self, samples: ArrayLike) -> Floats:
        """Takes the next samples, of shape (samples, leads) or (samples,), and returns as many cleaned ones."""
        data = _columns(samples, self._leads)
        cleaned = np.empty_like(data)
        step = BLOCK // self._leads
        for at in range(0, len(data), step):
            clean.clean_process(data[at : at + step], self._state, cleaned[at : at + step])
        return cleaned.reshape(np.shape(samples))


class QualityStream:
    """Judges each second of each lead. Any cutting of the samples gives the same seconds, bit for bit."""

    def __init__(
        self,
        rate_hz: float,
        leads: int = 1,
        limits: tuple[float, float] | None = None,
        floor: float = FLOOR_COUNTS,
    ) -> None:
        """Takes 60 to 1000 samples/s of 1 to 16 leads.

        Args:
            rate_hz: sample rate.
            leads: how many.
            limits: the least and the greatest number that the converter gives, where that is known.
            floor: rms noise of the converter, in the unit of the samples.
        """
        _check(rate_hz, leads)
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(
                f"floor {floor}: expected a positive number in the unit of the samples"
            )
        if limits is not None and not limits[0] < limits[1]:
            raise ValueError(f"limits {limits}: expected the lower one first")
        self._leads = leads
        self._clean = CleanStream(rate_hz, leads)
        self._start = _quality_start(rate_hz, leads, limits or (-math.inf, math.inf), floor)
        self._state = self._start.copy()
        rows = math.ceil(BLOCK // leads / rate_hz) + 1
        self._out = np.empty((rows, leads, quality.COLUMNS))
        whole = np.empty((0, leads))
        self._none = Seconds(np.empty(0, np.int64), whole, whole, whole.astype(np.int64))

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self._state.nbytes + self._clean.state_bytes

    @property
    def second_ends(self) -> int:
        """The sample number at which the open second ends."""
        seconds, rate_hz = float(self._state[quality.SEEN]), float(self._state[quality.RATE])
        return math.floor((seconds + 1) * rate_hz + 0.5)

    def reset(self) -> None:
        """Forgets everything: the next sample begins the first second of a new run."""
        self._clean.reset()
        self._state[:] = self._start

    def process(self, samples: ArrayLike) -> Seconds:
        """Takes the next samples, of shape (samples, leads) or (samples,), and returns the seconds they complete."""
        data = _columns(samples, self._leads)
        step = BLOCK // self._leads
        if len(data) <= step:
            rows = self._block(data)
        else:
            parts = [self._block(data[at : at + step]) for at in range(0, len(data), step)]
            rows = np.concatenate(parts)
        if len(rows) == 0:
            return self._none
        return Seconds(
            rows[:, 0, quality.AT].astype(np.int64),
            rows[:, :, quality.INDEX],
            rows[:, :, quality.RECENT],
            rows[:, :, quality.STATUS].astype(np.int64),
        )

    def _block(self, data: Floats) -> Floats:
        cleaned = self._clean.process(data)
        rows = quality.quality_process(data, cleaned, self._state, self._out)
        return self._out[:rows].copy()


def _check(rate_hz: float, leads: int) -> None:
    if not RATE_LEAST_HZ <= rate_hz <= RATE_MOST_HZ:
        raise ValueError(f"rate {rate_hz} Hz: expected {RATE_LEAST_HZ:g} to {RATE_MOST_HZ:g}")
    if not 1 <= leads <= LEADS_MOST:
        raise ValueError(f"{leads} leads: expected 1 to {LEADS_MOST}")


def _columns(samples: ArrayLike, leads: int) -> Floats:
    data = np.ascontiguousarray(samples, np.float64)
    if data.ndim == 1 and leads == 1:
        return data.reshape(-1, 1)
    if data.ndim != 2 or data.shape[1] != leads:
        raise ValueError(f"samples of shape {data.shape}: expected (samples, {leads})")
    return data


def _resonance(at_hz: float, rate_hz: float) -> float:
    return 2 * math.cos(2 * math.pi * at_hz / rate_hz)


def _clean_start(rate_hz: float, leads: int, top_hz: float) -> Floats:
    state = np.zeros(clean.LEADS_0 + clean.LEAD_SIZE * leads)
    high = biquad.high_pass(clean.BASELINE_HZ, rate_hz)
    low = biquad.low_pass(top_hz, rate_hz)
    state[clean.GAIN : clean.A2 + 1] = (high[0] * low[0], *high[3:], *low[3:])
    if rate_hz >= clean.NOTCH_LEAST_HZ:
        state[clean.WINDOW] = round(rate_hz)
        for k, at_hz in enumerate(MAINS_HZ):
            b0, b1, _, _, a2 = biquad.notch(at_hz, clean.NOTCH_Q, rate_hz)
            state[clean.NOTCHES + 3 * k : clean.NOTCHES + 3 * k + 3] = (b0, b1 / b0, a2)
        for k, at_hz in enumerate((*MAINS_HZ, *BESIDE_HZ)):
            state[clean.RESONANCE + k] = _resonance(at_hz, rate_hz)
    return state


def _quality_start(rate_hz: float, leads: int, limits: tuple[float, float], floor: float) -> Floats:
    state = np.zeros(quality.LEADS_0 + quality.LEAD_SIZE * leads)
    state[quality.RATE] = rate_hz
    state[quality.BIN_END] = math.floor(rate_hz / quality.BINS + 0.5)
    state[quality.BOTTOM], state[quality.TOP] = limits
    state[quality.FLOOR] = floor
    state[quality.STUCK] = round(quality.STUCK_S * rate_hz)
    state[quality.HP : quality.HP + 5] = biquad.high_pass(quality.LOW_HZ, rate_hz)
    state[quality.LP : quality.LP + 5] = biquad.low_pass(quality.HIGH_HZ, rate_hz)
    state[quality.SLOW : quality.SLOW + 5] = biquad.low_pass(quality.SLOW_HZ, rate_hz)
    if rate_hz >= clean.NOTCH_LEAST_HZ:
        for k, at_hz in enumerate(MAINS_HZ):
            state[quality.RESONANCE + k] = _resonance(at_hz, rate_hz)
    return state

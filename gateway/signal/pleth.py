"""Beats from a photoplethysmogram stream: the pulse-wave kernels with their memory."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.signal import biquad, ppg, ppg_seconds

Floats = NDArray[np.float64]

RATE_LEAST_HZ: Final = 25.0
RATE_MOST_HZ: Final = 1000.0

ROWS: Final = 512
"""Waves that one kernel call has room for, which bounds its samples. Packets are far shorter."""

FLOOR_COUNTS: Final = 1.0
"""Rounding noise of a converter makes no upstrokes as high as 1 count, once averaged and low-passed."""


@dataclass(frozen=True, slots=True, eq=False)
class Pulses:
    """Pulse waves in order of time: arrays of one length. Places are in samples since the start of the run.

    Attributes:
        index: the steepest place of the upstroke, finer than one sample. Intervals are taken from here: it moves least.
        foot: where the wave begins: the tangent at the steepest place meets the level of the minimum before it.
        peak: the systolic peak.
        height: from foot to peak, in the unit of the samples, after the low-pass.
        level: the samples' value at the foot. With a sensor that gives the light itself (not a wave that a device has
            scaled and centred) 100 height / level is the perfusion index in percent.
        quality: how far the wave resembles those before it, 0 (not at all) to 1. The first has nothing to resemble: 0.
        known: how many samples of the run had been seen when the beat was decided: `known - index` is its delay.
    """

    index: Floats
    foot: Floats
    peak: Floats
    height: Floats
    level: Floats
    quality: Floats
    known: Floats

    def __len__(self) -> int:
        return len(self.index)


NO_PULSES: Final = Pulses(*(np.empty(0) for _ in range(ppg.COLUMNS)))


class PlethStream:
    """Finds the pulse waves of one sensor. Any cutting of the samples gives the same, bit for bit.

    A wave is given out about 0.4 s after its upstroke, save for the first 4 s, which are judged together, and for those
    found by search-back. Scale and offset of the samples are free, polarity is not: what the light lets through falls
    with each beat, what devices draw rises.
    """

    def __init__(
        self, rate_hz: float, *, inverted: bool = False, floor: float = FLOOR_COUNTS
    ) -> None:
        """Takes 25 to 1000 samples/s.

        Args:
            rate_hz: sample rate.
            inverted: the samples fall when the blood comes: light as the sensor receives it.
            floor: least height of an upstroke that may be a beat, in the unit of the samples. The default suits raw
                counts of a converter.
        """
        if not RATE_LEAST_HZ <= rate_hz <= RATE_MOST_HZ:
            raise ValueError(f"rate {rate_hz} Hz: expected {RATE_LEAST_HZ:g} to {RATE_MOST_HZ:g}")
        if not (math.isfinite(floor) and floor > 0):
            raise ValueError(
                f"floor {floor}: expected a positive number in the unit of the samples"
            )
        stride = max(1, round(rate_hz / ppg.INNER_HZ))
        self._start = _start(rate_hz, stride, inverted=inverted, floor=floor)
        self._state = self._start.copy()
        spare = ppg.QUEUE + ppg.PENDING + 2
        self.block = (ROWS - spare) * int(self._start[ppg.SEPARATION]) * stride
        self.rows = np.empty((ROWS, ppg.COLUMNS))

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self._state.nbytes

    @property
    def count(self) -> int:
        """Samples since the start of the run, down to the last one that took part."""
        return int(self._state[ppg.RAW_COUNT])

    def reset(self) -> None:
        """Forgets everything: the next sample is number 0 of a new run. After a gap, `flush` first."""
        self._state[:] = self._start

    def process(self, samples: ArrayLike) -> Pulses:
        """Takes the next samples of the run, and returns the waves that were decided with them."""
        data = np.ascontiguousarray(samples, np.float64)
        parts = []
        for at in range(0, data.size, self.block):
            found = self.advance(data[at : at + self.block])
            if found:
                parts.append(self.rows[:found].copy())
        return pulses_of(parts)

    def advance(self, block: Floats) -> int:
        """Takes `block` samples at most, and returns how many of `rows` were filled: for who goes on with the rows."""
        return ppg.ppg_process(block, self._state, self.rows)

    def flush(self) -> Pulses:
        """Ends the run: returns the waves that were still waiting for a decision, and starts anew."""
        found = ppg.ppg_flush(self._state, self.rows)
        pulses = pulses_of([self.rows[:found]])
        self.reset()
        return pulses


def pulses_of(parts: list[Floats]) -> Pulses:
    """What the kernels filled in several calls, copied."""
    return Pulses(*np.concatenate(parts).T.copy()) if parts else NO_PULSES


@dataclass(frozen=True, slots=True, eq=False)
class Seconds:
    """Whole seconds of a run in order of time: arrays of one length.

    Attributes:
        second: number of the second since the start of the run.
        quality: 0 (worth nothing) to 1: that of the worst beat in it; 0 where a flag is set, and where no beat came
            although one was due.
        flags: bits `ppg_seconds.SATURATED`, `FLAT`, `MOTION` and `MISSING` (samples that are no numbers).
        rate_bpm: pulse rate, the mean of the good intervals of the last 18 s, weighted by their quality, and less where
            they are newer than 4 s or older than 14. NaN (unknown) with fewer than 3 of them, where a flag is set or no
            beat came although one was due, and in a second of quality 0 unless they fill most of that time.
    """

    second: NDArray[np.int64]
    quality: Floats
    flags: NDArray[np.int64]
    rate_bpm: Floats

    def __len__(self) -> int:
        return len(self.second)


class PlethMonitor:
    """A pleth stream that says of each second what it is worth, and the pulse rate. Any cutting gives the same bits."""

    def __init__(
        self,
        rate_hz: float,
        *,
        inverted: bool = False,
        floor: float = FLOOR_COUNTS,
        rails: tuple[float, float] = (-math.inf, math.inf),
    ) -> None:
        """Takes 25 to 1000 samples/s.

        Args:
            rate_hz: sample rate.
            inverted: as of `PlethStream`.
            floor: as of `PlethStream`.
            rails: a sample at or beyond one of these values is saturated: the ends of the converter's range.
        """
        if not rails[0] < rails[1]:
            raise ValueError(f"rails {rails}: expected the lower one first")
        self.stream = PlethStream(rate_hz, inverted=inverted, floor=floor)
        self._start = _seconds_start(rate_hz, rails)
        self._state = self._start.copy()
        self._rows = np.empty((int(self.stream.block / rate_hz) + 2, ppg_seconds.COLUMNS))

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self.stream.state_bytes + self._state.nbytes

    def reset(self) -> None:
        """Forgets everything: the next sample is number 0 of a new run. After a gap, `flush` first."""
        self.stream.reset()
        self._state[:] = self._start

    def process(self, samples: ArrayLike) -> tuple[Pulses, Seconds]:
        """Takes the next samples of the run, and returns the waves and the seconds that were decided with them.

        A second is given out when the next one has ended.
        """
        data = np.ascontiguousarray(samples, np.float64)
        pulses, seconds = [], []
        for at in range(0, data.size, self.stream.block):
            part = data[at : at + self.stream.block]
            found = self.stream.advance(part)
            beats = self.stream.rows
            count = ppg_seconds.ppgs_process(part, beats, found, self._state, self._rows)
            if found:
                pulses.append(beats[:found].copy())
            if count:
                seconds.append(self._rows[:count].copy())
        return pulses_of(pulses), _seconds_of(seconds)

    def flush(self) -> tuple[Pulses, Seconds]:
        """Ends the run: returns what still waited, down to the last whole second, and starts anew."""
        pulses = self.stream.flush()
        count = ppg_seconds.ppgs_process(
            np.empty(0), self.stream.rows, len(pulses), self._state, self._rows
        )
        count = ppg_seconds.ppgs_flush(self._state, self._rows)
        seconds = _seconds_of([self._rows[:count]])
        self._state[:] = self._start
        return pulses, seconds


NO_SECONDS: Final = Seconds(np.empty(0, np.int64), np.empty(0), np.empty(0, np.int64), np.empty(0))


def _seconds_of(parts: list[Floats]) -> Seconds:
    """As `pulses_of`."""
    if not parts:
        return NO_SECONDS
    second, quality, flags, rate = np.concatenate(parts).T.copy()
    return Seconds(second.astype(np.int64), quality, flags.astype(np.int64), rate)


def _seconds_start(rate_hz: float, rails: tuple[float, float]) -> Floats:
    """The state before the first sample."""
    state = np.zeros(ppg_seconds.STATE_SIZE)
    state[ppg_seconds.RATE_HZ] = rate_hz
    state[ppg_seconds.RAIL_LOW], state[ppg_seconds.RAIL_HIGH] = rails
    state[ppg_seconds.LAST] = math.nan
    state[ppg_seconds.HIGH], state[ppg_seconds.LOW] = -math.inf, math.inf
    state[ppg_seconds.END] = math.ceil(rate_hz)
    state[ppg_seconds.WORST] = state[ppg_seconds.WORST_NOW] = 1.0
    state[ppg_seconds.BEAT_AT] = -math.inf
    state[ppg_seconds.USUAL] = ppg_seconds.DUE_MOST_S * rate_hz
    state[ppg_seconds.WITHIN] = ppg_seconds.DUE_MOST_S * rate_hz
    return state


def joined(parts: list[Pulses]) -> Pulses:
    """The waves of several calls as one."""
    if not parts:
        return NO_PULSES
    names = Pulses.__dataclass_fields__
    return Pulses(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def _start(rate_hz: float, stride: int, *, inverted: bool, floor: float) -> Floats:
    """The state before the first sample."""
    state = np.zeros(ppg.STATE_SIZE)
    inner_hz = rate_hz / stride
    state[ppg.B0 : ppg.A2 + 1] = biquad.low_pass(ppg.LOW_PASS_HZ, inner_hz)
    state[ppg.BASE] = math.nan
    state[ppg.STRIDE] = stride
    state[ppg.RATE] = inner_hz
    state[ppg.SIGN] = -1.0 if inverted else 1.0
    state[ppg.DELAY] = biquad.low_pass_delay_s(ppg.LOW_PASS_HZ) * inner_hz
    state[ppg.FLOOR] = floor
    state[ppg.MEAN_GAIN] = 2 * math.pi * ppg.MEAN_HZ / inner_hz
    state[ppg.SEPARATION] = round(ppg.SEPARATION_S * inner_hz)
    state[ppg.TOP + ppg.AT] = -1
    state[ppg.LAST] = -math.inf
    state[ppg.INTERVAL] = ppg.INTERVAL_START_S * inner_hz
    state[ppg.DUE] = ppg.LEARN_S * inner_hz
    return state

"""Red and infrared light, and the oxygen saturation that a sensor's own calibration makes of them.

What a device says of SpO2 is passed on as it is. A saturation is computed here only with the calibration curve of that
very sensor: the same ratio means another saturation in front of other light-emitting diodes, so without the curve there
is no honest value.
"""

import math
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.signal import biquad, red_infrared

Floats = NDArray[np.float64]

RATE_LEAST_HZ: Final = 25.0
RATE_MOST_HZ: Final = 1000.0
BLOCK: Final = 4096

CORRELATION_LEAST: Final = 0.95
"""With less the two lights do not see the same pulse: movement, or stray light."""
PULSATION_LEAST_PERCENT: Final = 0.05
"""With less of infrared the pulse drowns in the converter's noise."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """A sensor's curve: SpO2 in percent = c[0] + c[1] R + c[2] R^2 + ..., within the range in which it was measured.

    Attributes:
        sensor: which sensor, and by whom calibrated: goes into the record of each value.
        coefficients: of the polynomial in R, the constant first.
        ratio_least, ratio_most: the range of R in which the maker states the curve.
    """

    sensor: str
    coefficients: tuple[float, ...]
    ratio_least: float
    ratio_most: float

    def __post_init__(self) -> None:
        if not self.coefficients or not all(map(math.isfinite, self.coefficients)):
            raise ValueError(
                f"coefficients {self.coefficients}: expected one finite number or more"
            )
        if not 0 < self.ratio_least < self.ratio_most < math.inf:
            raise ValueError(
                f"range of R {self.ratio_least} to {self.ratio_most}: expected two positive numbers in order"
            )


def spo2_percent(
    calibration: Calibration, ratio: float, correlation: float, infrared_percent: float
) -> float | None:
    """The saturation of one second of `RedInfrared`; None (unknown) where the curve or the signal does not carry it.

    Nothing is clipped: outside of the curve's range, or above 100 or below 0 percent, the value is unknown.
    """
    if not (correlation >= CORRELATION_LEAST and infrared_percent >= PULSATION_LEAST_PERCENT):
        return None
    if not calibration.ratio_least <= ratio <= calibration.ratio_most:
        return None
    value = 0.0
    for coefficient in reversed(calibration.coefficients):
        value = value * ratio + coefficient
    return value if 0 <= value <= 100 else None


@dataclass(frozen=True, slots=True, eq=False)
class Ratios:
    """What each whole second of a run, with the seven before it, says. NaN is unknown.

    Attributes:
        second: number of the second since the start of the run.
        ratio: the ratio of ratios R of red to infrared.
        correlation: of the two pulsations, -1 to 1: near 1 both see the same pulse.
        red_percent, infrared_percent: root mean square of the pulsation in percent of the level.
    """

    second: NDArray[np.int64]
    ratio: Floats
    correlation: Floats
    red_percent: Floats
    infrared_percent: Floats

    def __len__(self) -> int:
        return len(self.second)


class RedInfrared:
    """Follows the light of a red and an infrared diode. Any cutting of the samples gives the same, bit for bit.

    Seconds with samples that are no numbers or at a rail give no value, nor do those in which the window fills again.
    """

    def __init__(self, rate_hz: float, rails: tuple[float, float] = (-math.inf, math.inf)) -> None:
        """Takes 25 to 1000 samples/s of light as the sensor receives it: its level must be that of the light.

        Args:
            rate_hz: sample rate of both.
            rails: a sample at or beyond one of these values is saturated: the ends of the converter's range.
        """
        if not RATE_LEAST_HZ <= rate_hz <= RATE_MOST_HZ:
            raise ValueError(f"rate {rate_hz} Hz: expected {RATE_LEAST_HZ:g} to {RATE_MOST_HZ:g}")
        if not rails[0] < rails[1]:
            raise ValueError(f"rails {rails}: expected the lower one first")
        self._start = _start(rate_hz, rails)
        self._state = self._start.copy()
        self._rows = np.empty((int(BLOCK / rate_hz) + 2, red_infrared.COLUMNS))

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self._state.nbytes

    def reset(self) -> None:
        """Forgets everything: the next sample is number 0 of a new run."""
        self._state[:] = self._start

    def process(self, red: ArrayLike, infrared: ArrayLike) -> Ratios:
        """Takes the next samples of both, as many of one as of the other, and returns the seconds that ended."""
        x, y = (np.ascontiguousarray(samples, np.float64) for samples in (red, infrared))
        if x.shape != y.shape or x.ndim != 1:
            raise ValueError(f"red {x.shape}, infrared {y.shape}: expected as many samples of both")
        parts = []
        for at in range(0, max(1, x.size), BLOCK):
            count = red_infrared.red_ir_process(
                x[at : at + BLOCK], y[at : at + BLOCK], self._state, self._rows
            )
            parts.append(self._rows[:count].copy())
        second, *rest = np.concatenate(parts).T.copy()
        return Ratios(second.astype(np.int64), *rest)


def _start(rate_hz: float, rails: tuple[float, float]) -> Floats:
    """The state before the first sample."""
    state = np.zeros(red_infrared.STATE_SIZE)
    stride = max(1, round(rate_hz / red_infrared.INNER_HZ))
    inner_hz = rate_hz / stride
    state[red_infrared.B0 : red_infrared.A2 + 1] = biquad.low_pass(red_infrared.LOW_HZ, inner_hz)
    state[red_infrared.C0 : red_infrared.D2 + 1] = biquad.high_pass(red_infrared.HIGH_HZ, inner_hz)
    state[red_infrared.RATE_HZ] = rate_hz
    state[red_infrared.STRIDE] = stride
    state[red_infrared.END] = math.ceil(rate_hz)
    state[red_infrared.SETTLING] = red_infrared.SETTLE
    state[red_infrared.RAIL_LOW], state[red_infrared.RAIL_HIGH] = rails
    for channel in (red_infrared.RED_0, red_infrared.INFRARED_0):
        state[channel + red_infrared.BASE] = math.nan
    return state


@dataclass(frozen=True, slots=True)
class Desaturation:
    """A fall of SpO2. It tells of the numbers, not of the person.

    Attributes:
        begin_s: first second below the limit.
        end_s: first second at or above it again (or without a value). None while it lasts.
        baseline_percent: mean of the values before it.
        lowest_percent: the lowest value so far.
        recovered: it ended because the values rose again; False: it lasts, or no value came, or the run ended.
    """

    begin_s: float
    end_s: float | None
    baseline_percent: float
    lowest_percent: float
    recovered: bool


class Desaturations:
    """Finds falls of an SpO2 series by `drop_percent` or more below the running baseline for 10 s or longer.

    The baseline is the mean of the last 120 s of values outside of falls, and known after 30 of them. A value that is
    unknown ends a fall: what happens in a hole is not guessed. This interprets numbers: who uses it says so in the
    configuration.
    """

    BASELINE_S: Final = 120.0
    BASELINE_LEAST: Final = 30
    LASTS_S: Final = 10.0
    GAP_S: Final = 5.0
    """Values further apart than this have a hole between them."""

    def __init__(self, drop_percent: float = 3.0) -> None:
        """`drop_percent`: 3 or 4 are usual."""
        if not 1 <= drop_percent <= 20:
            raise ValueError(f"drop of {drop_percent} %: expected 1 to 20, usual are 3 and 4")
        self._drop = drop_percent
        self._before: deque[tuple[float, float]] = deque(maxlen=int(self.BASELINE_S))
        self._begin: float | None = None
        self._said = False
        self._baseline = self._lowest = 0.0
        self._last: float | None = None

    def process(self, time_s: float, spo2_percent: float | None) -> Desaturation | None:
        """Takes the next value, at 1 a second at most, None when it is unknown or bad.

        What is unknown may have the time of the value before it. Returns a fall without an end, once, when it has
        lasted 10 s; and one that long when it has ended.
        """
        if self._last is not None and (
            time_s < self._last or (time_s == self._last and spo2_percent is not None)
        ):
            raise ValueError(f"time {time_s} s after {self._last} s: expected ascending times")
        ended = None
        if self._last is not None and time_s - self._last > self.GAP_S:
            ended = self._finish(self._last, recovered=False)
        if spo2_percent is None or not math.isfinite(spo2_percent):
            return ended or self._finish(time_s, recovered=False)
        self._last = time_s
        if self._begin is not None:
            if spo2_percent <= self._baseline - self._drop:
                self._lowest = min(self._lowest, spo2_percent)
                return self._lasting(time_s)
            ended = self._finish(time_s, recovered=True)
        while self._before and time_s - self._before[0][0] > self.BASELINE_S:
            self._before.popleft()
        if len(self._before) >= self.BASELINE_LEAST:
            baseline = sum(value for _, value in self._before) / len(self._before)
            if spo2_percent <= baseline - self._drop:
                self._begin, self._baseline, self._lowest = time_s, baseline, spo2_percent
                self._said = False
                return ended
        self._before.append((time_s, spo2_percent))
        return ended

    def flush(self) -> Desaturation | None:
        """Ends the run: returns a fall that still lasts, and starts anew."""
        ended = None if self._last is None else self._finish(self._last, recovered=False)
        self._before.clear()
        self._last = None
        return ended

    def _lasting(self, time_s: float) -> Desaturation | None:
        if self._begin is None or self._said or time_s - self._begin < self.LASTS_S:
            return None
        self._said = True
        return Desaturation(self._begin, None, self._baseline, self._lowest, recovered=False)

    def _finish(self, end_s: float, *, recovered: bool) -> Desaturation | None:
        begin, self._begin = self._begin, None
        if begin is None or end_s - begin < self.LASTS_S:
            return None
        return Desaturation(begin, end_s, self._baseline, self._lowest, recovered)

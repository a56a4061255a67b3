"""A photoplethysmogram: pulse rate and perfusion index, as far as the quality of its seconds allows."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from statistics import median

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quality, Quantity, Record, Special, Validity
from gateway.conditioner.breaths import Breathing
from gateway.conditioner.grade import USABLE, derived, quality
from gateway.conditioner.status import UNKNOWN, StatusLine
from gateway.conditioner.stretch import Samples, Stretch
from gateway.signal import ppg_seconds
from gateway.signal.pleth import RATE_LEAST_HZ, RATE_MOST_HZ, PlethMonitor, Pulses, Seconds
from gateway.signal.respiration import BASELINE

FLAGS = (
    (ppg_seconds.MISSING, UNKNOWN),
    (ppg_seconds.FLAT, "flat"),
    (ppg_seconds.SATURATED, "saturated"),
    (ppg_seconds.MOTION, "motion"),
)
"""What an event calls a flag, the gravest first."""
PULSES_KEPT = 16
LATELY = 5
"""What is said of a second is as good as the worst of so many up to it: in motion a single one may look like a pulse.
A pulse rate is the mean of many intervals: an odd beat makes it questionable, and unknown only where most of those
seconds are bad. Once it is unknown, all of them have to be good."""
NO_PULSE = Quality(Validity.INVALID, reason="no_beats")


class PlethRun:
    """A second is told when the next one is over, since a pulse wave needs half a second to be known."""

    RATES_HZ = (RATE_LEAST_HZ, RATE_MOST_HZ)

    def __init__(
        self, stretch: Stretch, code: Code, limits: tuple[int, int] | None, *, raw: bool
    ) -> None:
        """Takes a signal of one sensor.

        Args:
            stretch: its time line.
            code: what it is.
            limits: of the converter, where they are known.
            raw: the light that the sensor receives, which falls as blood comes in; else a wave that a device has drawn.
        """
        rails = (-math.inf, math.inf) if limits is None else limits
        self._stretch = stretch
        self._raw = raw
        self._monitor = PlethMonitor(stretch.rate_hz, inverted=raw, rails=rails)
        self._taken = self._seconds = 0
        self._status = StatusLine(code)
        self._pulses: deque[tuple[float, float]] = deque(maxlen=PULSES_KEPT)
        self._breathing = Breathing(stretch, Code.PULS_OXIM_PLETH_RESP_RATE, BASELINE)
        self._last_pulse: float | None = None
        self._indices: deque[float] = deque(maxlen=LATELY)
        self._known = False
        self.sqi: float | None = None
        self.worst: float | None = None

    def take(self, samples: Samples) -> Iterator[Record]:
        """Rates and indices of the seconds that are decided with these samples."""
        while len(samples):
            # Never across the end of a second: what is known then does not depend on how samples come.
            ends = math.ceil((self._seconds + 1) * self._stretch.rate_hz)
            part = samples[: ends - self._taken]
            samples = samples[len(part) :]
            self._taken += len(part)
            self._seconds += self._taken == ends
            yield from self._told(*self._monitor.process(part))

    def end(self) -> Iterator[Record]:
        """What is known down to the last whole second."""
        yield from self._told(*self._monitor.flush())

    def _told(self, pulses: Pulses, seconds: Seconds) -> Iterator[Record]:
        self._pulses += zip(pulses.index.tolist(), perfusion(pulses), strict=True)
        yield from self._breaths(pulses)
        for number, index, flags, bpm in zip(
            seconds.second.tolist(),
            seconds.quality.tolist(),
            seconds.flags.tolist(),
            seconds.rate_bpm.tolist(),
            strict=True,
        ):
            begin, end = (round((number + k) * self._stretch.rate_hz) for k in (0, 1))
            begin_ns, end_ns = self._stretch.time_ns(begin), self._stretch.time_ns(end)
            yield from self._status.see(_word(flags), begin_ns, end_ns)
            self.sqi = index
            self._indices.append(index)
            self.worst = worst = min(self._indices)
            yield from self._rate(worst, median(self._indices), bpm, end_ns)
            if self._raw and worst >= USABLE:
                yield from self._perfusion(begin, end, worst, end_ns)

    def _breaths(self, pulses: Pulses) -> Iterator[Record]:
        for at, level, height, index in zip(
            pulses.index.tolist(),
            pulses.level.tolist(),
            pulses.height.tolist(),
            pulses.quality.tolist(),
            strict=True,
        ):
            if index >= USABLE and self._last_pulse is not None:
                yield from self._breathing.beat(at, level, height, at - self._last_pulse)
            self._last_pulse = at

    def _rate(self, worst: float, most: float, bpm: float, at_ns: int) -> Iterator[Observation]:
        how_well = quality(worst)
        least = most if self._known else worst
        if least >= USABLE and math.isfinite(bpm):
            self._known = True
            if worst < USABLE:
                how_well = replace(how_well, validity=Validity.QUESTIONABLE)
            rate = Quantity(Decimal(round(bpm)), Unit.BEAT_PER_MIN)
            yield derived(Code.PULS_OXIM_PULS_RATE, rate, at_ns, how_well)
        elif self._known:
            # That it is not known any more is said once.
            self._known = False
            unknown = Quantity(Special.UNKNOWN, Unit.BEAT_PER_MIN)
            why = how_well if worst < USABLE else NO_PULSE
            yield derived(Code.PULS_OXIM_PULS_RATE, unknown, at_ns, why)

    def _perfusion(self, begin: int, end: int, index: float, at_ns: int) -> Iterator[Observation]:
        inside = [share for at, share in self._pulses if begin <= at < end and 0 < share < math.inf]
        if inside:
            percent = Quantity(Decimal(f"{median(inside):.2f}"), Unit.PERCENT)
            yield derived(Code.BLD_PERF_INDEX, percent, at_ns, quality(index))


def perfusion(pulses: Pulses) -> list[float]:
    """Height over level of each pulse in percent; NaN where the level is none of light."""
    return [
        100 * height / level if level > 0 else math.nan
        for height, level in zip(pulses.height.tolist(), pulses.level.tolist(), strict=True)
    ]


def _word(flags: int) -> str:
    for bit, word in FLAGS:
        if flags & bit:
            return word
    return "good"

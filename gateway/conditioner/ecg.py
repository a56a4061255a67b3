"""An ECG lead: RR intervals and heart rate, as far as the quality of its seconds allows."""

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quality, Quantity, Record, Special, Validity
from gateway.conditioner.breaths import Breathing
from gateway.conditioner.grade import derived, grade, is_bad, quality
from gateway.conditioner.shapes import Shapes
from gateway.conditioner.status import LEADS, StatusLine
from gateway.conditioner.stretch import Samples, Stretch
from gateway.signal.ecg import RATE_LEAST_HZ, RATE_MOST_HZ, Beats, EcgStream
from gateway.signal.leads import LeadStatus, QualityStream
from gateway.signal.rate import RATE_INTERVALS, RATE_SILENCE_NS, heart_rate_bpm, rr_intervals_ns
from gateway.signal.respiration import AMPLITUDE

NS_PER_MS = 1_000_000
HISTORY_S = 6
"""Samples that are kept for the heights of beats: all but those that were found very late."""
HEIGHT_S = 0.06
"""The height of a beat is from the least to the greatest sample so near to its R peak."""
SECONDS_KEPT = 16
"""Grades that are kept for beats that are found late."""
MOVED = 0.15
"""A missed or a false beat would move a rate by more than such a part when its middle intervals lie so far apart."""
UNLIKE_MOST = 1
"""So many of the last twelve beats may then be unlike the others, and none found by search-back."""
UNLIKE, UNCERTAIN = "beats_unlike", "beats_uncertain"
NO_BEATS = Quality(Validity.INVALID, reason="no_beats")


@dataclass(frozen=True, slots=True)
class _Interval:
    length_ns: int
    grade: float | None
    late: bool


class EcgRun:
    """Beats wait until the second that they lie in is over and judged, so that trouble is known before a rate is said."""

    RATES_HZ = (RATE_LEAST_HZ, RATE_MOST_HZ)

    def __init__(self, stretch: Stretch, code: Code, limits: tuple[int, int] | None) -> None:
        self._stretch = stretch
        self._beats = EcgStream(stretch.rate_hz)
        self._judge = QualityStream(stretch.rate_hz, 1, limits)
        self._status = StatusLine(code)
        self._breathing = Breathing(stretch, Code.RESP_RATE, AMPLITUDE)
        self._shapes = Shapes(stretch.rate_hz)
        self._history: Samples = np.empty(0, np.int32)
        self._waiting: list[tuple[float, bool]] = []
        self._taken = self._judged = 0
        self._grades: deque[tuple[int, float]] = deque(maxlen=SECONDS_KEPT)
        self._intervals: deque[_Interval] = deque(maxlen=RATE_INTERVALS)
        self._last_beat: float | None = None
        self._last_late = False
        self._beat_ns: int | None = None
        self._known = False
        self.sqi: float | None = None
        self.worst: float | None = None

    def take(self, samples: Samples) -> Iterator[Record]:
        """Intervals and rates of the seconds that these samples complete."""
        while len(samples):
            # Never across the end of a second: what is known then does not depend on how samples come.
            part = samples[: self._judge.second_ends - self._taken]
            samples = samples[len(part) :]
            self._taken += len(part)
            kept = round(HISTORY_S * self._stretch.rate_hz)
            self._history = np.concatenate((self._history, part))[-kept:]
            self._wait(self._beats.process(part))
            seconds = self._judge.process(part)
            if len(seconds):
                status = LeadStatus(int(seconds.status[0, 0]))
                yield from self._second(
                    status, float(seconds.index[0, 0]), float(seconds.recent[0, 0])
                )

    def _second(self, status: LeadStatus, index: float, recent: float) -> Iterator[Record]:
        begin_ns, end_ns = self._stretch.time_ns(self._judged), self._stretch.time_ns(self._taken)
        self._judged = self._taken
        yield from self._status.see(LEADS[status], begin_ns, end_ns)
        found = grade(index, recent)
        if found is None:
            return  # the first index that is known speaks for the seconds before it too
        # The ten seconds behind the index do not show that the lead has just gone silent.
        self.sqi, self.worst = found if status is LeadStatus.SILENT else index, found
        self._grades.append((self._taken, found))
        yield from self._settle(self._taken)
        yield from self._doubt(found, end_ns)

    def end(self) -> Iterator[Record]:
        """The beats of the last second, which nobody has judged."""
        self._wait(self._beats.flush())
        yield from self._settle(self._taken)

    def _wait(self, beats: Beats) -> None:
        if len(beats):
            self._waiting += zip(beats.index.tolist(), beats.late.tolist(), strict=True)

    def _settle(self, end: int) -> Iterator[Record]:
        ready = [beat for beat in self._waiting if beat[0] < end]
        self._waiting = self._waiting[len(ready) :]
        for index, late in ready:
            yield from self._beat(index, late=late)
        if ready and self._last_beat is not None:
            yield from self._rate(self._stretch.time_ns(self._last_beat))

    def _grade(self, first: float, last: float) -> float | None:
        """The worst of the seconds from one sample number to another; None where the last is not judged."""
        worst: float | None = None
        for end, found in self._grades:
            if first < end:
                worst = found if worst is None else min(worst, found)
            if last < end:
                return worst
        return None

    def _beat(self, index: float, *, late: bool) -> Iterator[Observation]:
        found = self._grade(index if self._last_beat is None else self._last_beat, index)
        if is_bad(found):
            # Where it is and whether it is one, nobody knows: no interval begins or ends here.
            self._last_beat = None
            return
        beat_ns = self._beat_ns = self._stretch.time_ns(index)
        self._shapes.beat(self._history, self._in_history(index))
        if self._last_beat is not None:
            # By the device's own sample count: the hub's time line moves with the delays on the wire.
            ends = np.array([index])
            (length_ns,) = rr_intervals_ns(ends, self._stretch.rate_hz, self._last_beat).tolist()
            self._intervals.append(_Interval(length_ns, found, late or self._last_late))
            interval = Quantity(Decimal(round(length_ns / NS_PER_MS)), Unit.MILLI_SEC)
            yield derived(Code.ECG_TIME_PD_RR_GL, interval, beat_ns, quality(found))
            yield from self._breathing.beat(
                index, 0.0, self._height(index), index - self._last_beat
            )
        self._last_beat, self._last_late = index, late

    def _in_history(self, index: float) -> int:
        return round(index) - (self._taken - len(self._history))

    def _height(self, index: float) -> float:
        """NaN where the beat lies too far back."""
        at = self._in_history(index)
        reach = round(HEIGHT_S * self._stretch.rate_hz)
        around = self._history[max(0, at - reach) : max(0, at + reach + 1)]
        return float(around.max()) - float(around.min()) if len(around) else math.nan

    def _rate(self, beat_ns: int) -> Iterator[Observation]:
        """Once for each second with a beat."""
        lengths = np.array([interval.length_ns for interval in self._intervals], dtype=np.int64)
        bpm = heart_rate_bpm(lengths)
        if bpm is None:
            return
        self._known = True
        grades = [interval.grade for interval in self._intervals]
        known = [found for found in grades if found is not None]
        # As good as the worst of what it was made of.
        worst = min(known) if len(known) == len(grades) else None
        rate = Quantity(Decimal(round(bpm)), Unit.BEAT_PER_MIN)
        how_well = quality(worst)
        if how_well.validity is Validity.VALID and (doubt := self._doubted(np.sort(lengths))):
            how_well = Quality(Validity.QUESTIONABLE, sqi=how_well.sqi, reason=doubt)
        yield derived(Code.ECG_HEART_RATE, rate, beat_ns, how_well)

    def _doubted(self, ordered: NDArray[np.int64]) -> str | None:
        """Why a rate from good seconds is not to be relied on."""
        if not self._shapes.trusted:
            return UNLIKE
        middle = len(ordered) // 2
        apart = ordered[middle + 1] - ordered[len(ordered) - 2 - middle]
        late = any(interval.late for interval in self._intervals)
        if apart >= MOVED * ordered[middle] and (late or self._shapes.unlike > UNLIKE_MOST):
            return UNCERTAIN
        return None

    def _doubt(self, found: float, now_ns: int) -> Iterator[Observation]:
        """That the rate is not known any more is said once, when it begins."""
        silent = self._beat_ns is not None and now_ns - self._beat_ns > RATE_SILENCE_NS
        if not (silent or is_bad(found)):
            return
        # Nothing from before goes into a rate after it.
        self._intervals.clear()
        self._shapes.forget()
        if not self._known:
            return
        self._known = False
        why = quality(found) if is_bad(found) else NO_BEATS
        unknown = Quantity(Special.UNKNOWN, Unit.BEAT_PER_MIN)
        yield derived(Code.ECG_HEART_RATE, unknown, now_ns, why)

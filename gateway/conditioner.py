"""Records in, records out: applies the signal kernels and derives rates. Total: it never raises and never withholds.

Every record passes through unchanged; what the hub determines itself comes as records of its own, marked as such.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise

import numpy as np

from drivers.assigned import Code, Unit
from drivers.model import (
    Event,
    EventKind,
    Observation,
    Origin,
    Quality,
    Quantity,
    Record,
    SampleArray,
    Validity,
)
from gateway.signal.ecg import EcgStream

ECG = frozenset({Code.ECG_ELEC_POTL, Code.ECG_ELEC_POTL_I, Code.ECG_ELEC_POTL_II})
NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
JUMP_NS = 100_000_000
"""Sample times of one run drift against each other by less than this; more is a hole."""
RATE_BEATS = 8
"""Heart rate is 60 s over the median of this many RR intervals: one missed or false beat does not move it."""
RATE_EVERY_NS = NS_PER_S
BLOCKS_KEPT = 64
"""Blocks whose times are kept for beats that are found late: more than ten seconds of fifths of a second."""
BREAKS = frozenset({EventKind.GAP, EventKind.LOST, EventKind.CONNECTED})


@dataclass(slots=True)
class _EcgRun:
    """One ECG signal between two gaps."""

    period_ns: int
    stream: EcgStream
    count: int = 0
    expected_ns: int = 0
    starts: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=BLOCKS_KEPT))
    beats: deque[float] = field(default_factory=lambda: deque(maxlen=RATE_BEATS + 1))
    rated_ns: int | None = None

    def time_of(self, index: float) -> int:
        """Hub time of a sample index of this run."""
        start, start_ns = self.starts[0]
        for begin, begin_ns in reversed(self.starts):
            if begin <= index:
                start, start_ns = begin, begin_ns
                break
        return start_ns + round((index - start) * self.period_ns)


class Conditioner:
    """Keeps one run for each ECG signal of each device; a gap begins a new one."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, Code], _EcgRun] = {}

    def process(self, device: str, record: Record) -> Iterable[Record]:
        """The record, then what the hub determines from it."""
        yield record
        match record:
            case Event(kind=kind) if kind in BREAKS:
                for key in [key for key in self._runs if key[0] == device]:
                    yield from self._end(key)
            case Observation(code=code, value=SampleArray() as samples) if code in ECG:
                yield from self._ecg(device, record, samples)
            case _:
                pass

    def _ecg(self, device: str, record: Observation, samples: SampleArray) -> Iterable[Record]:
        key = (device, record.code)
        run = self._runs.get(key)
        attached = record.quality.validity is not Validity.INVALID
        jumped = run is not None and abs(record.determined_at_ns - run.expected_ns) > JUMP_NS
        if run is not None and (jumped or not attached or run.period_ns != samples.period_ns):
            yield from self._end(key)
            run = None
        if not attached or len(samples) == 0:
            return
        if run is None:
            rate_hz = NS_PER_S / samples.period_ns
            if not EcgStream.MIN_RATE_HZ <= rate_hz <= EcgStream.MAX_RATE_HZ:
                return
            run = self._runs[key] = _EcgRun(samples.period_ns, EcgStream(rate_hz))
        run.starts.append((run.count, record.determined_at_ns))
        run.expected_ns = record.ends_ns
        run.count += len(samples)
        beats = run.stream.process(np.asarray(samples.samples(), dtype=np.int32))
        yield from self._beats(run, beats.indices.tolist(), record)

    def _end(self, key: tuple[str, Code]) -> Iterable[Record]:
        run = self._runs.pop(key)
        beats = run.stream.flush()
        yield from self._beats(run, beats.indices.tolist(), None)

    def _beats(
        self, run: _EcgRun, indices: list[float], source: Observation | None
    ) -> Iterable[Observation]:
        site = source.body_site if source is not None else None
        for index in indices:
            beat_ns = run.time_of(index)
            if run.beats:
                # By the device's own sample count: the hub's time line moves with the delays on the wire.
                interval_ns = (index - run.beats[-1]) * run.period_ns
                interval_ms = Decimal(round(interval_ns / NS_PER_MS))
                quantity = Quantity(interval_ms, Unit.MILLI_SEC)
                yield Observation(
                    Code.ECG_TIME_PD_RR_GL, quantity, beat_ns, origin=Origin.HUB, body_site=site
                )
            run.beats.append(index)
            yield from self._rate(run, beat_ns)

    def _rate(self, run: _EcgRun, beat_ns: int) -> Iterable[Observation]:
        if len(run.beats) <= RATE_BEATS // 2:
            return
        if run.rated_ns is not None and beat_ns - run.rated_ns < RATE_EVERY_NS:
            return
        run.rated_ns = beat_ns
        intervals = sorted(later - earlier for earlier, later in pairwise(run.beats))
        middle_ns = intervals[len(intervals) // 2] * run.period_ns
        rate = Decimal(round(60 * NS_PER_S / middle_ns))
        quantity = Quantity(rate, Unit.BEAT_PER_MIN)
        yield Observation(Code.ECG_HEART_RATE, quantity, beat_ns, Quality(), Origin.HUB)

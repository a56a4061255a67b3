"""Records in, records out: applies the signal kernels and derives rates. Total: it never raises and never withholds.

Every record passes through unchanged; what the hub determines itself comes as records of its own, marked as such.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from drivers.assigned import ECG_CODES, Code, Unit
from drivers.model import (
    Event,
    EventKind,
    Observation,
    Origin,
    Quantity,
    Record,
    SampleArray,
    Validity,
)
from gateway.signal.ecg import RATE_LEAST_HZ, RATE_MOST_HZ, Beats, EcgStream
from gateway.signal.rate import RATE_INTERVALS, heart_rate_bpm, rr_intervals_ns

NS_PER_S = 1_000_000_000
NS_PER_MS = 1_000_000
JUMP_NS = 100_000_000
"""Sample times of one run drift against each other by less than this; more is a hole."""
RATE_EVERY_NS = NS_PER_S
BLOCKS_KEPT = 64
"""Blocks whose times are kept for beats that are found late: more than ten seconds of fifths of a second."""
BREAKS = frozenset({EventKind.GAP, EventKind.LOST, EventKind.CONNECTED})


@dataclass(slots=True)
class _EcgRun:
    """One ECG signal between two gaps."""

    period_ns: int
    stream: EcgStream
    expected_ns: int = 0
    starts: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=BLOCKS_KEPT))
    intervals_ns: deque[int] = field(default_factory=lambda: deque(maxlen=RATE_INTERVALS))
    last_beat: float | None = None
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
            case Observation(code=code, value=SampleArray() as samples) if code in ECG_CODES:
                yield from self._ecg((device, code), record, samples)
            case _:
                pass

    def _ecg(
        self, key: tuple[str, Code], record: Observation, samples: SampleArray
    ) -> Iterable[Record]:
        run = self._runs.get(key)
        attached = record.quality.validity is not Validity.INVALID
        if run is not None and not (attached and _continues(run, record, samples)):
            yield from self._end(key)
            run = None
        if not attached or len(samples) == 0:
            return
        if run is None:
            rate_hz = NS_PER_S / samples.period_ns
            if not RATE_LEAST_HZ <= rate_hz <= RATE_MOST_HZ:
                return
            run = self._runs[key] = _EcgRun(samples.period_ns, EcgStream(rate_hz))
        run.starts.append((run.stream.count, record.determined_at_ns))
        run.expected_ns = record.ends_ns
        yield from _beats(run, run.stream.process(np.asarray(samples.samples())))

    def _end(self, key: tuple[str, Code]) -> Iterable[Record]:
        run = self._runs.pop(key)
        yield from _beats(run, run.stream.flush())


def _continues(run: _EcgRun, record: Observation, samples: SampleArray) -> bool:
    jumped = abs(record.determined_at_ns - run.expected_ns) > JUMP_NS
    return not jumped and run.period_ns == samples.period_ns


def _beats(run: _EcgRun, beats: Beats) -> Iterable[Observation]:
    # By the device's own sample count: the hub's time line moves with the delays on the wire.
    intervals = rr_intervals_ns(beats.index, NS_PER_S / run.period_ns, run.last_beat).tolist()
    begins_run = run.last_beat is None and len(beats) > 0
    ends: list[int | None] = [None, *intervals] if begins_run else [*intervals]
    for index, interval_ns in zip(beats.index.tolist(), ends, strict=True):
        beat_ns = run.time_of(index)
        if interval_ns is not None:
            run.intervals_ns.append(interval_ns)
            interval = Quantity(Decimal(round(interval_ns / NS_PER_MS)), Unit.MILLI_SEC)
            yield Observation(Code.ECG_TIME_PD_RR_GL, interval, beat_ns, origin=Origin.HUB)
        run.last_beat = index
        yield from _rate(run, beat_ns)


def _rate(run: _EcgRun, beat_ns: int) -> Iterable[Observation]:
    if run.rated_ns is not None and beat_ns - run.rated_ns < RATE_EVERY_NS:
        return
    bpm = heart_rate_bpm(np.array(run.intervals_ns, dtype=np.int64))
    if bpm is not None:
        run.rated_ns = beat_ns
        rate = Quantity(Decimal(round(bpm)), Unit.BEAT_PER_MIN)
        yield Observation(Code.ECG_HEART_RATE, rate, beat_ns, origin=Origin.HUB)

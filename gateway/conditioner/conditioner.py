"""Records in, records out: applies the signal kernels and derives rates. Total: it never raises and never withholds.

Every record passes through; a waveform gets the index of its signal where that is known, and all else of a record stays
as it came. What the hub determines itself comes as records of its own, marked as such.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

from drivers.assigned import ECG_CODES, Code
from drivers.model import Event, EventKind, Observation, Record, SampleArray, Validity
from gateway.conditioner.ecg import EcgRun
from gateway.conditioner.grade import rounded
from gateway.conditioner.stretch import Run, Stretch
from gateway.config.device import Device

BREAKS = frozenset({EventKind.GAP, EventKind.LOST, EventKind.CONNECTED})

Limits = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is made of a signal: at these sample rates, such runs."""

    rates_hz: tuple[float, float]
    run: Callable[[Stretch, Code, Limits | None], Run]


KINDS: Mapping[Code, Kind] = dict.fromkeys(ECG_CODES, Kind(EcgRun.RATES_HZ, EcgRun))
"""The signals that the hub looks into. All others pass."""


class Conditioner:
    """Keeps one run for each known signal of each device; a gap begins a new one."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        """Takes the devices for what is configured of their signals; of others nothing is known."""
        self._limits = {device.id: device.adc_limits for device in devices}
        self._runs: dict[tuple[str, Code], tuple[Stretch, Run]] = {}

    def process(self, device: str, record: Record) -> Iterable[Record]:
        """The record, then what the hub determines from it."""
        match record:
            case Event(kind=kind) if kind in BREAKS:
                yield record
                for key in [key for key in self._runs if key[0] == device]:
                    yield from self._end(key)
            case Observation(code=code, value=SampleArray() as samples) if code in KINDS:
                yield from self._wave((device, code), record, samples)
            case _:
                yield record

    def _wave(
        self, key: tuple[str, Code], record: Observation, samples: SampleArray
    ) -> Iterable[Record]:
        ended: list[Record] = []
        attached = record.quality.validity is not Validity.INVALID
        if key in self._runs and not (attached and self._runs[key][0].continues(record, samples)):
            ended += self._end(key)
        if not attached or len(samples) == 0 or not self._begin(key, samples.period_ns):
            yield record
            yield from ended
            return
        stretch, run = self._runs[key]
        found = list(run.take(stretch.add(record, samples)))
        yield _graded(record, run.sqi)
        yield from ended
        yield from found

    def _begin(self, key: tuple[str, Code], period_ns: int) -> bool:
        """Whether there is a run for this signal."""
        if key in self._runs:
            return True
        stretch, kind = Stretch(period_ns), KINDS[key[1]]
        least, most = kind.rates_hz
        if not least <= stretch.rate_hz <= most:
            return False
        self._runs[key] = stretch, kind.run(stretch, key[1], self._limits.get(key[0]))
        return True

    def _end(self, key: tuple[str, Code]) -> Iterable[Record]:
        _, run = self._runs.pop(key)
        return run.end()


def _graded(record: Observation, sqi: float | None) -> Observation:
    if sqi is None or record.quality.sqi is not None:
        return record
    return replace(record, quality=replace(record.quality, sqi=rounded(sqi)))

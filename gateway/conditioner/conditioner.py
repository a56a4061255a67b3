"""Records in, records out: applies the signal kernels and derives rates. Total: it never raises and never withholds.

Every record passes through; a waveform gets the index of its signal where that is known, and all else of a record stays
as it came. What the hub determines itself comes as records of its own, marked as such.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter

from drivers.assigned import ECG_CODES, Code
from drivers.model import Event, EventKind, Observation, Record, SampleArray, Validity
from gateway.conditioner.desaturation import Falls
from gateway.conditioner.ecg import EcgRun
from gateway.conditioner.grade import rounded
from gateway.conditioner.oximeter import Oximeter
from gateway.conditioner.pleth import PlethRun
from gateway.conditioner.stretch import Run, Stretch
from gateway.config.device import Device
from gateway.config.signals import Limits

BREAKS = frozenset({EventKind.GAP, EventKind.LOST, EventKind.CONNECTED})


@dataclass(frozen=True, slots=True)
class Kind:
    """What is made of a signal: at these sample rates, such runs. `limits` finds those of its converter."""

    rates_hz: tuple[float, float]
    run: Callable[[Stretch, Code, Limits | None], Run]
    limits: Callable[[Device], Limits | None]


LIGHT = attrgetter("ppg_limits")

KINDS: Mapping[Code, Kind] = {
    **dict.fromkeys(ECG_CODES, Kind(EcgRun.RATES_HZ, EcgRun, attrgetter("ecg_limits"))),
    Code.WARDLINK_PPG_INFRARED: Kind(PlethRun.RATES_HZ, partial(PlethRun, raw=True), LIGHT),
    Code.PULS_OXIM_PLETH: Kind(PlethRun.RATES_HZ, partial(PlethRun, raw=False), LIGHT),
}
"""The signals that the hub looks into. All others pass."""


class Conditioner:
    """Keeps one run for each known signal of each device; a gap begins a new one."""

    def __init__(self, devices: Iterable[Device] = ()) -> None:
        """Takes the devices for what is configured of their signals; of others nothing is known."""
        self._devices = {device.id: device for device in devices}
        self._falls = {
            device.id: Falls(device.desaturation_percent)
            for device in self._devices.values()
            if device.desaturation_percent is not None
        }
        self._oximeters: dict[str, Oximeter] = {}
        self._runs: dict[tuple[str, Code], tuple[Stretch, Run]] = {}

    def process(self, device: str, record: Record) -> Iterable[Record]:
        """The record, then what the hub determines from it, and what it interprets where that is configured."""
        determined = self._determined(device, record)
        falls = self._falls.get(device)
        return determined if falls is None else falls.follow(determined)

    def _determined(self, device: str, record: Record) -> Iterable[Record]:
        match record:
            case Event(kind=kind) if kind in BREAKS:
                yield record
                self._oximeters.pop(device, None)
                for key in [key for key in self._runs if key[0] == device]:
                    yield from self._end(key)
            case Observation(code=code, value=SampleArray() as samples) if code in KINDS:
                yield from self._wave((device, code), record, samples)
            case Observation(code=Code.WARDLINK_PPG_RED, value=SampleArray() as samples):
                yield record
                infrared = self._runs.get((device, Code.WARDLINK_PPG_INFRARED))
                index = infrared[1].worst if infrared else None
                yield from self._oximeter(device).red(record, samples, index)
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
        counts = stretch.add(record, samples)
        if key[1] is Code.WARDLINK_PPG_INFRARED:
            self._oximeter(key[0]).infrared(record, counts)
        found = list(run.take(counts))
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
        device = self._devices.get(key[0])
        limits = None if device is None else kind.limits(device)
        self._runs[key] = stretch, kind.run(stretch, key[1], limits)
        return True

    def _oximeter(self, name: str) -> Oximeter:
        if name not in self._oximeters:
            device = self._devices.get(name)
            known = (None, None) if device is None else (device.ppg_limits, device.spo2_curve)
            self._oximeters[name] = Oximeter(*known)
        return self._oximeters[name]

    def _end(self, key: tuple[str, Code]) -> Iterable[Record]:
        _, run = self._runs.pop(key)
        return run.end()


def _graded(record: Observation, sqi: float | None) -> Observation:
    if sqi is None or record.quality.sqi is not None:
        return record
    return replace(record, quality=replace(record.quality, sqi=rounded(sqi)))

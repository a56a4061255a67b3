"""Waveforms as EDF+ files, for the tools that read them. One file is one run of samples without a hole.

EDF+ may hold interrupted recordings, but few readers honour that; so a gap ends the file, and the next one begins with
an annotation that names it. No sample is made up, none is left out: a run that does not end on a whole data record
has its remainder in a file of its own. Samples above 16 bits make the file a BDF+ (24 bits).
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path

import numpy as np
from edfio import Bdf, BdfSignal, Edf, EdfAnnotation, EdfSignal, Patient, Recording
from numpy.typing import NDArray

from drivers.assigned import UCUM, Code, Unit
from drivers.model import Observation, SampleArray, Validity
from gateway.clock import ClockReading, ClockState
from gateway.journal.entry import Batch, Entry, Stream
from gateway.journal.inspect import JournalFiles
from gateway.journal.keys import HubKey

JUMP_NS = 100_000_000
"""Sample times of one run drift against each other by less than this; more is a hole."""
FILE_NS = 3_600_000_000_000
"""A file holds at most an hour, so that the memory for it is bounded."""
NS_PER_S = 1_000_000_000
EDF_BITS, BDF_BITS = 16, 24
PHYSICAL_LIMIT = 9_999_999
"""The header has eight characters for the value of the largest sample."""


@dataclass(slots=True)
class Exported:
    """What was written. `left_out` names what EDF+ cannot hold: the JSON lines have it."""

    files: int = 0
    samples: int = 0
    gaps: int = 0
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Kind:
    """What must stay the same within one signal of a file."""

    code: Code
    period_ns: int
    unit: Unit
    scale: Decimal
    offset: Decimal


@dataclass(slots=True)
class _Signal:
    """One signal of a run. `notes`: (first sample, number of samples, what is wrong with them)."""

    start_ns: int
    expected_ns: int
    parts: list[NDArray[np.int32]] = field(default_factory=list)
    notes: list[tuple[int, int, str]] = field(default_factory=list)
    count: int = 0


@dataclass(slots=True)
class _Run:
    """The samples of one device since its last gap."""

    subject: str | None
    boot_id: str
    clock: ClockReading
    after_gap_ns: int | None
    signals: dict[_Kind, _Signal] = field(default_factory=dict)


_Fitted = tuple[_Kind, NDArray[np.int32], int]
"""A signal, its samples, and how many low bits were taken off them."""


@dataclass(frozen=True, slots=True)
class _Shared:
    """What a file says beside its signals."""

    patient: Patient
    recording: Recording
    starttime: time | None
    record_s: float
    annotations: list[EdfAnnotation]


class Exporter:
    """Takes batches in order, writes a file at each gap."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._runs: dict[str, _Run] = {}
        self.done = Exported()
        """What was written so far."""

    def take(self, batch: Batch, entry: Entry) -> None:
        """One entry of the waveform stream."""
        record = entry.record
        if not isinstance(record, Observation) or not isinstance(record.value, SampleArray):
            return
        samples = record.value
        kind = _Kind(record.code, samples.period_ns, samples.unit, samples.scale, samples.offset)
        run = self._runs.get(entry.device)
        gap_ns = None if run is None else _broken(run, kind, batch, entry, record)
        if run is not None and gap_ns is not None:
            self.end(entry.device)
            same_boot = run.boot_id == batch.boot_id
            self.done.gaps += gap_ns > JUMP_NS or not same_boot
            after = gap_ns if same_boot and gap_ns > JUMP_NS else None
            run = self._runs[entry.device] = _Run(entry.subject, batch.boot_id, batch.clock, after)
        elif run is None:
            run = self._runs[entry.device] = _Run(entry.subject, batch.boot_id, batch.clock, None)
        signal = run.signals.setdefault(
            kind, _Signal(record.determined_at_ns, record.determined_at_ns)
        )
        if record.quality.validity is not Validity.VALID:
            why = f"{record.quality.validity}: {record.quality.reason or 'no reason given'}"
            signal.notes.append((signal.count, len(samples), why))
        signal.parts.append(np.asarray(samples.samples(), np.int32))
        signal.count += len(samples)
        signal.expected_ns = record.ends_ns

    def end(self, device: str) -> None:
        """Writes what a device's run holds. Signals that do not begin and end together go into files apart."""
        run = self._runs.pop(device)
        together: dict[tuple[int, int, int], list[_Kind]] = {}
        for kind, signal in run.signals.items():
            key = signal.start_ns, kind.period_ns, signal.count
            together.setdefault(key, []).append(kind)
        for (start_ns, period_ns, count), kinds in together.items():
            for first, last, record in _parts(count, round(NS_PER_S / period_ns)):
                self._write(device, run, kinds, start_ns + first * period_ns, (first, last, record))

    def close(self) -> None:
        """Writes the rest."""
        for device in list(self._runs):
            self.end(device)

    def _write(
        self, device: str, run: _Run, kinds: list[_Kind], start_ns: int, part: tuple[int, int, int]
    ) -> None:
        first, last, record = part
        fitted: list[_Fitted] = []
        bits = EDF_BITS
        for kind in kinds:
            digital, shift = _narrowed(np.concatenate(run.signals[kind].parts)[first:last])
            if _bits(digital) > BDF_BITS:
                text = (
                    f"{device} {_label(kind.code)}: {last - first} samples need more than 24 bits"
                )
                self.done.left_out.append(text)
                continue
            fitted.append((kind, digital, shift))
            bits = max(bits, EDF_BITS if _bits(digital) <= EDF_BITS else BDF_BITS)
        if not fitted:
            return
        start = _start(run.clock, start_ns)
        shared = _Shared(
            Patient(code=_token(run.subject or "X")),
            Recording(startdate=start.date() if start else None, equipment_code=_token(device)),
            start.time() if start else None,
            record * kinds[0].period_ns / NS_PER_S,
            _notes(run, fitted, part, start),
        )
        suffix = "edf" if bits == EDF_BITS else "bdf"
        document = _edf(fitted, shared) if bits == EDF_BITS else _bdf(fitted, shared)
        self._folder.mkdir(parents=True, exist_ok=True)
        stamp = f"{start:%Y%m%dT%H%M%S}" if start else "unset"
        name = f"{device}-{stamp}-{run.boot_id[:8]}-{start_ns}"
        if len(kinds) < len(run.signals):
            name += f"-{_label(kinds[0].code)}"
        document.write(self._folder / f"{name}.{suffix}")
        self.done.files += 1
        self.done.samples += sum(len(digital) for _, digital, _ in fitted)


def export_waveforms(
    files: JournalFiles, key: HubKey | None, device: str | None, folder: Path
) -> Exported:
    """Writes the waveform stream into `folder`, one file for each run and device.

    Raises:
        JournalError: there is no key.
    """
    exporter = Exporter(folder)
    for batch in files.batches(Stream.WAVEFORM, key):
        if isinstance(batch, Batch):  # damage shows in the times of the samples: the run ends there
            for entry in batch.entries:
                if device in {None, entry.device}:
                    exporter.take(batch, entry)
    exporter.close()
    return exporter.done


def _broken(run: _Run, kind: _Kind, batch: Batch, entry: Entry, record: Observation) -> int | None:
    """How long the hole before an array is, where the run ends; None where it goes on."""
    if run.boot_id != batch.boot_id or run.subject != entry.subject:
        return 0
    signal = run.signals.get(kind)
    if signal is None:
        others = [s for k, s in run.signals.items() if k.code is kind.code]
        begins = min((s.start_ns for s in run.signals.values()), default=record.determined_at_ns)
        return 0 if others or record.determined_at_ns - begins > JUMP_NS else None
    gap_ns = record.determined_at_ns - signal.expected_ns
    if abs(gap_ns) > JUMP_NS or record.ends_ns - signal.start_ns > FILE_NS:
        return gap_ns
    return None


def _parts(count: int, rate: int) -> Sequence[tuple[int, int, int]]:
    """(first, last, samples in a data record): all of it in whole records, or with the remainder in a file apart."""
    record = next(k for k in range(min(rate, count), 0, -1) if count % k == 0)
    if record * 5 >= rate or count <= rate:
        return ((0, count, record if record * 5 >= rate else count),)
    whole = count - count % rate
    return ((0, whole, rate), (whole, count, count - whole))


def _narrowed(samples: NDArray[np.int32]) -> tuple[NDArray[np.int32], int]:
    """Without the low bits that are zero in every sample, where the rest needs more than 24: exact all the same."""
    if _bits(samples) <= BDF_BITS:
        return samples, 0
    bits = int(np.bitwise_or.reduce(samples.astype(np.int64)))
    shift = (bits & -bits).bit_length() - 1
    return samples >> shift, shift


def _bits(samples: NDArray[np.int32]) -> int:
    low, high = int(samples.min()), int(samples.max())
    return max((-low - 1).bit_length() if low < 0 else 0, high.bit_length()) + 1


def _edf(fitted: list[_Fitted], shared: _Shared) -> Edf:
    made = [
        EdfSignal.from_digital(
            digital.astype(np.int16),
            NS_PER_S / kind.period_ns,
            label=_label(kind.code),
            physical_dimension=_scaling(kind, digital, shift).dimension,
            physical_range=_scaling(kind, digital, shift).physical,
            digital_range=_scaling(kind, digital, shift).digital,
        )
        for kind, digital, shift in fitted
    ]
    return Edf(
        made,
        patient=shared.patient,
        recording=shared.recording,
        starttime=shared.starttime,
        data_record_duration=shared.record_s,
        annotations=shared.annotations,
    )


def _bdf(fitted: list[_Fitted], shared: _Shared) -> Bdf:
    made = [
        BdfSignal.from_digital(
            digital,
            NS_PER_S / kind.period_ns,
            label=_label(kind.code),
            physical_dimension=_scaling(kind, digital, shift).dimension,
            physical_range=_scaling(kind, digital, shift).physical,
            digital_range=_scaling(kind, digital, shift).digital,
        )
        for kind, digital, shift in fitted
    ]
    return Bdf(
        made,
        patient=shared.patient,
        recording=shared.recording,
        starttime=shared.starttime,
        data_record_duration=shared.record_s,
        annotations=shared.annotations,
    )


@dataclass(frozen=True, slots=True)
class _Scaling:
    """What turns stored samples into values. `note` says it where the header's eight characters cannot."""

    digital: tuple[int, int]
    physical: tuple[float, float]
    dimension: str
    note: str = ""


def _scaling(kind: _Kind, digital: NDArray[np.int32], shift: int) -> _Scaling:
    limit = 1 << ((EDF_BITS if _bits(digital) <= EDF_BITS else BDF_BITS) - 1)
    span, unit = (-limit, limit - 1), UCUM.get(kind.unit, "")
    step, offset = kind.scale * (1 << shift), kind.offset
    physical = float(step * span[0] + offset), float(step * span[1] + offset)
    if max(abs(value) for value in physical) < PHYSICAL_LIMIT:
        return _Scaling(span, physical, unit)
    note = f"{_label(kind.code)} in steps of {step} {unit or 'of unknown unit'}, from {offset}"
    return _Scaling(span, (float(span[0]), float(span[1])), "", note)


def _notes(
    run: _Run,
    fitted: list[_Fitted],
    part: tuple[int, int, int],
    start: datetime | None,
) -> list[EdfAnnotation]:
    """Gap, clock, and what is wrong with samples."""
    first, last, _ = part
    notes: list[EdfAnnotation] = []
    if first == 0 and run.after_gap_ns is not None:
        notes.append(
            EdfAnnotation(0.0, None, f"after a gap of {run.after_gap_ns / NS_PER_S:.3f} s")
        )
    state = "never set: date and time are unknown" if start is None else run.clock.state
    notes.append(EdfAnnotation(0.0, None, f"hub clock {state}, boot {run.boot_id}"))
    for kind, digital, shift in fitted:
        if scaling := _scaling(kind, digital, shift).note:
            notes.append(EdfAnnotation(0.0, None, scaling))
        for at, count, why in run.signals[kind].notes:
            begin, end = max(at, first), min(at + count, last)
            if begin < end:
                s = kind.period_ns / NS_PER_S
                text = f"{_label(kind.code)} {why}"
                notes.append(EdfAnnotation((begin - first) * s, (end - begin) * s, text))
    return notes


def _start(clock: ClockReading, boottime_ns: int) -> datetime | None:
    """Wall time; None where nobody ever set the clock."""
    if clock.state is ClockState.UNSET:
        return None
    microseconds = clock.wall_of(boottime_ns) // 1000
    seconds, rest = divmod(microseconds, 1_000_000)
    return datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest)


def _label(code: Code) -> str:
    return code.name.removeprefix("WARDLINK_")[:16]


def _token(text: str) -> str:
    """What EDF+ allows in a subfield: printable ASCII without a space."""
    return re.sub(r"[^!-~]", "_", text)

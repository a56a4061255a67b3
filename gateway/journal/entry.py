"""What goes into the journal and comes out of it: entries in streams, in batches that never change."""

from dataclasses import dataclass, field
from enum import StrEnum

from drivers.model import Event, EventKind, Observation, Raw, Record, SampleArray
from gateway.clock import ClockReading


class Stream(StrEnum):
    """The four logs, in the order in which they are sent."""

    ALARM = "alarm"
    VITALS = "vitals"
    WAVEFORM = "waveform"
    AUDIT = "audit"


URGENT = frozenset(
    {EventKind.GAP, EventKind.FAULT, EventKind.EVICTED, EventKind.LOST, EventKind.CLOCK}
)


def stream_of(record: Record) -> Stream:
    """Which log a record belongs into: gaps and faults travel with the alarms, so that they arrive first.

    So does what happened to the clock: it explains the times of all others, and must neither come after them nor be
    evicted before them. What is wrong with a signal travels with what was determined from it.
    """
    match record:
        case Observation(value=SampleArray()):
            return Stream.WAVEFORM
        case Observation() | Raw():
            return Stream.VITALS
        case Event(kind=kind) if kind in URGENT:
            return Stream.ALARM
        case Event(kind=EventKind.SIGNAL):
            return Stream.VITALS
        case Event():
            return Stream.AUDIT


def at_ns(record: Record) -> int:
    """When it happened, in CLOCK_BOOTTIME of its batch; 0 where its time is one of another boot."""
    if not isinstance(record, Observation):
        return record.at_ns
    return 0 if record.decoded and record.decoded.boot_id else record.determined_at_ns


@dataclass(frozen=True, slots=True)
class Entry:
    """A record with its identity. `device` is "" for a record about the hub itself.

    Attributes:
        sequence: its number in its stream, from 1, without a hole. It, not the time, is the identity.
    """

    sequence: int
    device: str
    record: Record
    subject: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """What was committed together: durable, and the same bytes for ever.

    Attributes:
        epoch: names the life of this journal; sequence numbers of two epochs are not comparable.
        boot_id: the boot that all boottimes in it belong to.
        clock: both clocks at the commit, which turn boottimes into wall time; a better reading of the same moment
            where one is known since.
        stamped: what they said at the commit, where `clock` is another time.
    """

    hub: str
    stream: Stream
    epoch: str
    boot_id: str
    clock: ClockReading
    entries: tuple[Entry, ...]
    stamped: ClockReading | None = field(default=None, kw_only=True)

    @property
    def first_sequence(self) -> int:
        """The sequence number of the first entry."""
        return self.entries[0].sequence

    @property
    def last_sequence(self) -> int:
        """The sequence number of the last entry."""
        return self.entries[-1].sequence


@dataclass(frozen=True, slots=True)
class ClosedBatch(Batch):
    """A batch that nobody read here: it has no entries, and goes on its way as it was written.

    Attributes:
        span: the first and the last sequence number.
    """

    span: tuple[int, int]

    @property
    def first_sequence(self) -> int:
        """The sequence number of the first entry."""
        return self.span[0]

    @property
    def last_sequence(self) -> int:
        """The sequence number of the last entry."""
        return self.span[1]


@dataclass(frozen=True, slots=True)
class SealedBatch(ClosedBatch):
    """A batch that only the clinic can open.

    Attributes:
        header: the segment header that its data key is wrapped in, without padding.
        frame: the frame, without padding.
    """

    header: bytes
    frame: bytes

    @property
    def size_bytes(self) -> int:
        """Of the frame."""
        return len(self.frame)


@dataclass(frozen=True, slots=True)
class PackedBatch(ClosedBatch):
    """A batch whose records nobody decoded.

    Attributes:
        records: the plaintext of its frame (docs/journal-format.md), proved and not looked at.
    """

    records: bytes

    @property
    def size_bytes(self) -> int:
        """Of the records."""
        return len(self.records)

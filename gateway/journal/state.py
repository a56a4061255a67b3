"""What the journal tells about itself: to its caller, and to the process after it."""

from dataclasses import dataclass, field

import cbor2

from gateway.clock import ClockReading
from gateway.journal.entry import Stream
from gateway.journal.scan import Damage


@dataclass(frozen=True, slots=True)
class Evicted:
    """Sequence numbers whose records were given up, not acknowledged, to make room.

    Attributes:
        boot_id: the boot that the times belong to; "" where nobody knows it any more.
        begins, ends: both clocks when the first and the last of them were committed.
    """

    stream: Stream
    first_sequence: int
    last_sequence: int
    boot_id: str = field(default="", compare=False)
    begins: ClockReading | None = field(default=None, compare=False)
    ends: ClockReading | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a start found.

    Attributes:
        clean: the journal was closed in order, or is new.
        previous_boot_id: the boot of the process before this one; None when the journal is new or its state lost.
        last_commit: both clocks at the last commit of that boot.
        damage: what turned out unreadable so far; more may come from `take_damage` as older segments are read.
    """

    clean: bool
    previous_boot_id: str | None
    last_commit: ClockReading | None
    damage: tuple[Damage, ...]


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream in figures.

    Attributes:
        size_bytes: what its files take on disk.
        bytes_s: what it took on disk in a second of late; None where that cannot be told yet.
    """

    stream: Stream
    high_water: int
    acknowledged: int
    size_bytes: int
    segments: int
    bytes_s: float | None = None


@dataclass(frozen=True, slots=True)
class JournalStatus:
    """The journal in figures. `size_bytes` includes spare files.

    Attributes:
        key_kind: where the hub's key came from: "credential", "file", "memory".
        readers: who can open new segments: "hub", "hub+clinic", "clinic".
    """

    epoch: str
    algorithm: str
    key_kind: str
    readers: str
    size_bytes: int
    max_bytes: int
    pending_bytes: int
    streams: tuple[StreamStatus, ...]


@dataclass(frozen=True, slots=True)
class State:
    """What a process leaves to the next one: at its start, when evictions are named, and at an orderly end.

    Attributes:
        evicted: up to which sequence number of each stream the evictions stand in the alarm stream, durable.
    """

    hub: str
    epoch: bytes
    boot_id: str
    clean: bool
    high_water: dict[Stream, int]
    evicted: dict[Stream, int]

    def pack(self) -> bytes:
        """As bytes for a slot."""
        numbers = [self.high_water[stream] for stream in Stream]
        evicted = [self.evicted[stream] for stream in Stream]
        return cbor2.dumps([self.hub, self.epoch, self.boot_id, self.clean, numbers, evicted])

    @classmethod
    def parse(cls, payload: bytes | None) -> "State | None":
        """From a slot; None when there is nothing in it."""
        match cbor2.loads(payload) if payload else None:
            case [
                str() as hub,
                bytes() as epoch,
                str() as boot_id,
                bool() as clean,
                [*numbers],
                *late,
            ]:
                evicted = (
                    late[0] if late else [0] * len(numbers)
                )  # the first release did not note it
                return cls(
                    hub,
                    epoch,
                    boot_id,
                    clean,
                    dict(zip(Stream, numbers, strict=True)),
                    dict(zip(Stream, evicted, strict=True)),
                )
            case _:
                return None

"""Records between `append` and `commit`: in memory, numbered, bounded in bytes. No I/O."""

from dataclasses import dataclass, field
from threading import Lock

from gateway.journal.active import Chunk
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError, JournalFull
from gateway.journal.records import OVERHEAD

PENDING_BYTES = 4_194_304
"""Most encoded bytes between `append` and `commit`: four minutes of ten devices, or a disk that hangs."""


@dataclass(slots=True)
class Group:
    """Records that become one frame.

    Attributes:
        newest_ns: CLOCK_BOOTTIME of each device's newest one.
    """

    entries: list[bytes] = field(default_factory=list)
    size_bytes: int = 0
    newest_ns: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True)
class _Row:
    """One stream's records, and the sequence number of the next one.

    Attributes:
        open: the newest group, unless it is on its way to the disk, or failed to get there: then it stays as it is.
    """

    following: int
    groups: list[Group] = field(default_factory=list)
    open: Group | None = None


class Buffer:
    """A record stays in it until it is durable, so a failed commit loses nothing."""

    def __init__(self, lock: Lock, frame_bytes: int, following: dict[Stream, int]) -> None:
        """Takes the most bytes of records in a frame, and each stream's next sequence number."""
        self._lock = lock
        self._frame_bytes = frame_bytes
        self._rows = {stream: _Row(following[stream]) for stream in Stream}
        self.size_bytes = 0
        """Encoded bytes in it."""

    def add(self, stream: Stream, device: str, at_ns: int, data: bytes) -> int:
        """Numbers an encoded record and keeps it. Raises JournalFull, or JournalError when it is larger than a frame."""
        size = len(data)
        if size > self._frame_bytes:
            raise JournalError(
                f"record of {device!r}: got {size} bytes, expected at most"
                f" {self._frame_bytes}; split it"
            )
        row = self._rows[stream]
        with self._lock:
            waiting_bytes = self.size_bytes + size
            if waiting_bytes > PENDING_BYTES:
                raise JournalFull(
                    f"journal: {self.size_bytes} of {PENDING_BYTES} bytes wait for a commit;"
                    " commit, or look at the disk"
                )
            group = row.open
            if group is None or group.size_bytes + size > self._frame_bytes:
                group = row.open = Group()
                row.groups.append(group)
            group.entries.append(data)
            group.size_bytes += size
            newest_ns = group.newest_ns
            if newest_ns.get(device, at_ns) <= at_ns:
                newest_ns[device] = at_ns
            self.size_bytes = waiting_bytes
            sequence = row.following
            row.following = sequence + 1
        return sequence

    def following(self, stream: Stream) -> int:
        """The number that the next record of a stream gets."""
        return self._rows[stream].following

    def waiting(self) -> list[Stream]:
        """The streams that have records in it, in the order in which they are sent."""
        return [stream for stream, row in self._rows.items() if row.groups]

    def chunks(self, stream: Stream) -> list[Chunk]:
        """What is in it now, in order, as frames."""
        row = self._rows[stream]
        with self._lock:
            row.open = None
            groups = row.groups[:]
        return [Chunk(group.entries, OVERHEAD + group.size_bytes) for group in groups]

    def remove(self, stream: Stream, count: int) -> list[Group]:
        """Takes the oldest frames out: they are durable."""
        row = self._rows[stream]
        with self._lock:
            taken = row.groups[:count]
            del row.groups[:count]
            self.size_bytes -= sum([group.size_bytes for group in taken])
        return taken

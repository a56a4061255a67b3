"""Records between `append` and `commit`: in memory, numbered, bounded in bytes. No I/O."""

from dataclasses import dataclass, field
from threading import Lock
from typing import NamedTuple

from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError, JournalFull
from gateway.journal.log import Chunk
from gateway.journal.records import join

PENDING_BYTES = 4_194_304
"""Most encoded bytes between `append` and `commit`: four minutes of ten devices, or a disk that hangs."""


class Pending(NamedTuple):
    """A record that is numbered and not durable yet."""

    device: str
    at_ns: int
    data: bytes


@dataclass(slots=True)
class _Row:
    """One stream's records, and the sequence number of the next one."""

    following: int
    items: list[Pending] = field(default_factory=list)
    size_bytes: int = 0


class Buffer:
    """A record stays in it until it is durable, so a failed commit loses nothing."""

    def __init__(self, lock: Lock, frame_bytes: int, following: dict[Stream, int]) -> None:
        """Takes the most bytes of records in a frame, and each stream's next sequence number."""
        self._lock = lock
        self._frame_bytes = frame_bytes
        self._rows = {stream: _Row(following[stream]) for stream in Stream}
        self.size_bytes = 0
        """Encoded bytes in it."""

    def add(self, stream: Stream, item: Pending) -> int:
        """Numbers a record and keeps it. Raises JournalFull, or JournalError when it is larger than a frame."""
        size = len(item.data)
        if size > self._frame_bytes:
            raise JournalError(
                f"record of {item.device!r}: got {size} bytes, expected at most"
                f" {self._frame_bytes}; split it"
            )
        row = self._rows[stream]
        with self._lock:
            if self.size_bytes + size > PENDING_BYTES:
                raise JournalFull(
                    f"journal: {self.size_bytes} of {PENDING_BYTES} bytes wait for a commit;"
                    " commit, or look at the disk"
                )
            row.items.append(item)
            row.size_bytes += size
            self.size_bytes += size
            sequence = row.following
            row.following = sequence + 1
            return sequence

    def following(self, stream: Stream) -> int:
        """The number that the next record of a stream gets."""
        return self._rows[stream].following

    def waiting(self) -> list[Stream]:
        """The streams that have records in it, in the order in which they are sent."""
        return [stream for stream, row in self._rows.items() if row.items]

    def chunks(self, stream: Stream) -> list[Chunk]:
        """What is in it now, in order, cut into frames."""
        row = self._rows[stream]
        with self._lock:
            items, size = row.items[:], row.size_bytes
        if size <= self._frame_bytes:
            return [Chunk(len(items), join([item.data for item in items]))]
        chunks: list[Chunk] = []
        group: list[bytes] = []
        size = 0
        for item in items:
            if size + len(item.data) > self._frame_bytes:
                chunks.append(Chunk(len(group), join(group)))
                group, size = [], 0
            group.append(item.data)
            size += len(item.data)
        if group:
            chunks.append(Chunk(len(group), join(group)))
        return chunks

    def remove(self, stream: Stream, count: int) -> list[Pending]:
        """Takes the oldest records out: they are durable."""
        with self._lock:
            row = self._rows[stream]
            taken, row.items = row.items[:count], row.items[count:]
            size = sum([len(item.data) for item in taken])
            row.size_bytes -= size
            self.size_bytes -= size
        return taken

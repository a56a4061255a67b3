"""How far the log is durable, told to other processes: one block, written in place after each commit.

A mark is published after its fsync, so what stands here never promises too much, whoever wrote it and whatever became
of it since: after a crash it lags behind at most. So it need not be durable itself; each start writes it anew. A torn
block fails its checksum and is followed by the event of the whole one.
"""

import struct
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import cbor2

from gateway.journal.entry import Stream
from gateway.journal.slots import SLOT_BYTES, parse_slot, slot_head
from gateway.journal.storage import File, Storage

NAME = "published"
_ARRAY_OF_4 = b"\x84"
_U64_HEAD = 0x1B
_U64 = struct.Struct(">BQ")
"""The heads of CBOR (RFC 8949, section 3): an array of so many items, an integer of 8 bytes."""


@dataclass(frozen=True, slots=True)
class Published:
    """What a reader has to know of a journal. `high_water`: the last durable sequence number of each stream."""

    hub: str
    epoch: bytes
    segment_bytes: int
    high_water: dict[Stream, int]


def exists(directory: Path, storage: Storage) -> bool:
    """Whether there is a file, whole or not."""
    try:
        return NAME in storage.list(directory)
    except OSError:
        return False


def make_file(directory: Path, storage: Storage) -> Path:
    """The file, empty unless it is there: a reader may be first, and needs something to watch. May raise OSError."""
    if NAME not in storage.list(directory):
        with suppress(FileExistsError):
            storage.create(directory / NAME, SLOT_BYTES)
    return directory / NAME


def load(directory: Path, storage: Storage) -> Published | None:
    """What was published last; None when nothing whole stands there."""
    try:
        with storage.open(directory / NAME) as file:
            found = parse_slot(file.pread(SLOT_BYTES, 0))
    except OSError:
        return None
    match cbor2.loads(found[1]) if found else None:
        case [str() as hub, bytes() as epoch, int() as size, [*numbers]]:
            return Published(hub, epoch, size, dict(zip(Stream, numbers, strict=True)))
        case _:
            return None


class Publisher:
    """The writing end. It never fails a commit: a reader that learns late has lost nothing."""

    def __init__(
        self, directory: Path, storage: Storage, hub: str, epoch: bytes, segment_bytes: int
    ) -> None:
        self._directory = directory
        self._storage = storage
        self._file: File | None = None
        journal = cbor2.dumps(hub) + cbor2.dumps(epoch) + cbor2.dumps(segment_bytes)
        self._head = _ARRAY_OF_4 + journal + _ARRAY_OF_4
        self._said: list[int] = []
        self._count = 0

    def publish(self, numbers: list[int]) -> None:
        """The last durable sequence number of each stream. Readers see it, and wake, unless they know it already."""
        if numbers == self._said:
            return
        # By hand, since it is done with each commit and a general encoder takes as long as a sync.
        payload = self._head + b"".join([_U64.pack(_U64_HEAD, number) for number in numbers])
        self._count += 1
        try:
            if self._file is None:
                self._file = self._storage.open(make_file(self._directory, self._storage))
            self._file.pwrite(slot_head(self._count, payload), 0)
        except OSError:
            self.close()  # with the next commit in a new descriptor
        else:
            self._said = numbers

    def close(self) -> None:
        """Lets go of the file; what it says stays true."""
        if self._file is not None:
            self._file.close()
        self._file = None

"""A few bytes that change in place and survive a power cut: two checksummed slots, written in turn."""

import struct
import zlib
from pathlib import Path

from gateway.journal.storage import Storage

SLOT_BYTES = 4096
_HEAD = struct.Struct("<4sQI")
_MAGIC = b"WLS1"
_CRC = struct.Struct("<I")


class Slots:
    """The newest whole slot counts. One writer."""

    def __init__(self, path: Path, storage: Storage) -> None:
        self._path = path
        self._storage = storage
        self._generation = 0
        self._usable = False
        self._seen = b""

    def load(self) -> bytes | None:
        """What was last written durably, or None when there is nothing, or nothing whole."""
        self._seen = b""
        return self.news()

    def news(self) -> bytes | None:
        """As `load`; None as well when the file is as the last of both found it."""
        try:
            with self._storage.open(self._path) as file:
                seen = file.pread(2 * SLOT_BYTES, 0)
        except OSError:
            return None
        if seen == self._seen:
            return None
        self._seen = seen
        slots = parse_slot(seen[:SLOT_BYTES]), parse_slot(seen[SLOT_BYTES:])
        newest = max(filter(None, slots), default=None)
        if newest is None:
            return None
        self._generation, self._usable = newest[0], True
        return newest[1]

    def write(self, payload: bytes) -> None:
        """Durable on return. Raises OSError when neither this file nor a new one takes it; the old value stands."""
        self._generation += 1
        slot = pack_slot(self._generation, payload)
        if self._usable:
            try:
                with self._storage.open(self._path) as file:
                    file.pwrite(slot, self._generation % 2 * SLOT_BYTES)
                    file.datasync()
            except OSError:
                self._usable = False  # what its cache says is no longer what is on the disk
            else:
                return
        self._replace(slot)

    def _replace(self, slot: bytes) -> None:
        temporary, directory = self._path.with_suffix(".new"), self._path.parent
        if temporary.name in self._storage.list(directory):
            self._storage.unlink(temporary)
        self._storage.create(temporary, 2 * SLOT_BYTES)
        with self._storage.open(temporary) as file:
            file.pwrite(slot, self._generation % 2 * SLOT_BYTES)
            file.datasync()
        self._storage.rename(temporary, self._path)
        self._storage.sync_directory(directory)
        self._usable = True


def pack_slot(generation: int, payload: bytes) -> bytes:
    """A slot as it stands on disk."""
    return slot_head(generation, payload).ljust(SLOT_BYTES, b"\0")


def slot_head(generation: int, payload: bytes) -> bytes:
    """A slot as far as it says anything."""
    body = _HEAD.pack(_MAGIC, generation, len(payload)) + payload
    return body + _CRC.pack(zlib.crc32(body))


def parse_slot(slot: bytes) -> tuple[int, bytes] | None:
    """Generation and payload, or None when no whole slot stands there."""
    if len(slot) != SLOT_BYTES:
        return None
    magic, generation, length = _HEAD.unpack_from(slot)
    end = _HEAD.size + length
    if magic != _MAGIC or end + _CRC.size > SLOT_BYTES:
        return None
    if _CRC.unpack_from(slot, end) != (zlib.crc32(slot[:end]),):
        return None
    return generation, slot[_HEAD.size : end]

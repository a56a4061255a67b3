"""Destroys what a returned kit held, proves it, and says so in a signed receipt.

The keys go first: from then on the data is noise, whatever happens to the rest. Then the wrapped data keys are
overwritten where they lie, all files are searched for them, and every file is removed.
"""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gateway.clock import Clock
from gateway.journal import keyfile
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import places_in, read_segment
from gateway.journal.keys import MAGIC, HubKey
from gateway.journal.offline import (
    SPARE,
    header_offsets,
    headers,
    held,
    segment_files,
    spare_files,
    write_headers,
)
from gateway.journal.scan import find_header, scan
from gateway.journal.segment import BLOCK_BYTES
from gateway.journal.slots import Slots
from gateway.journal.state import Cursor, State
from gateway.journal.storage import Storage

SCHEMA = "wardlink.shred/1"
HOW = (
    "private keys overwritten with zeros, synced and unlinked, before anything else",
    "both headers of every segment and spare file, with the wrapped data keys, overwritten with zeros and synced",
    "every file read back and searched",
    "every file unlinked, every directory synced",
    "frames not overwritten: without their data keys they are noise",
    "flash may keep old copies of overwritten blocks where only its controller reaches",
)

Json = dict[str, object]


@dataclass(slots=True)
class _Search:
    """What was looked at after the overwriting, and what should not have been there."""

    files: int = 0
    size_bytes: int = 0
    headers: int = 0
    wrapped_keys: int = 0
    private_keys: int = 0
    wrapped: list[bytes] = field(default_factory=list)

    def look(self, data: bytes, wrapped: Sequence[bytes]) -> None:
        self.files += 1
        self.size_bytes += len(data)
        self.headers += find_header(data) is not None
        self.wrapped_keys += sum(data.find(key) >= 0 for key in wrapped)
        self.private_keys += data.find(MAGIC) >= 0


def shred(
    directory: Path, storage: Storage, clock: Clock, key: HubKey | None, key_files: Sequence[Path]
) -> Json:
    """Destroys the keys and the journal.

    Args:
        key: signs the receipt, from memory: its file is the first to go. None when it is gone already.
        key_files: where private keys lie or may have been left.

    Returns:
        The receipt: `{"receipt": {...}, "sha256": ..., "verify_key": ..., "signature": ...}`. Both stand for the
        canonical bytes of the inner object, see `canonical`.

    Raises:
        JournalError: a hub runs, the disk failed, or the search found what should be gone. Repeat it.
    """
    with held(directory, storage):
        what = _inventory(directory, storage)
        destroyed = [path.name for path in key_files if keyfile.destroy(path)]
        search = _destroy(directory, storage)
        _remove(directory, storage)
        if search.headers or search.wrapped_keys or search.private_keys:
            raise JournalError(
                f"shred: {search.headers} headers, {search.wrapped_keys} wrapped keys and"
                f" {search.private_keys} private keys could still be read; destroy the card"
            )
    reading = clock.read()
    receipt: Json = {
        "schema": SCHEMA,
        **what,
        "when": {
            "wall_ns": reading.wall_ns,
            "clock": reading.state,
            "error_ns": reading.error_ns,
            "boot_id": clock.boot_id,
            "boottime_ns": reading.boottime_ns,
        },
        "key_files_destroyed": destroyed,
        "how": list(HOW),
        "proof": {
            "files_searched": search.files,
            "bytes_searched": search.size_bytes,
            "wrapped_keys_searched_for": len(search.wrapped),
            "headers_found": 0,
            "wrapped_keys_found": 0,
            "private_keys_found": 0,
        },
    }
    return _signed(receipt, key)


def canonical(receipt: Json) -> bytes:
    """The bytes that a receipt's hash and signature stand for: JSON, keys sorted, no spaces, ASCII."""
    return json.dumps(receipt, sort_keys=True, separators=(",", ":")).encode("ascii")


def _signed(receipt: Json, key: HubKey | None) -> Json:
    data = canonical(receipt)
    return {
        "receipt": receipt,
        "sha256": hashlib.sha256(data).hexdigest(),
        "verify_key": None if key is None else base64.b64encode(key.verify_key).decode("ascii"),
        "signature": None if key is None else base64.b64encode(key.sign(data)).decode("ascii"),
    }


def _inventory(directory: Path, storage: Storage) -> Json:
    """What there is, by what stands in the clear: no key is needed, so a sealed journal is no exception."""
    state = State.parse(Slots(directory / "state", storage).load())
    epoch, hub = (state.epoch, state.hub) if state else (b"", None)
    streams: list[Json] = []
    for stream in Stream:
        places = places_in(storage, directory / stream)
        if not places:
            continue
        segment = read_segment(storage, directory / stream / places[-1].name)
        header = find_header(segment)
        if header is not None:
            epoch, hub = header.epoch, header.hub
        newest = places[-1]
        found = scan(segment, stream, epoch, newest.number, newest.first_sequence, None)
        streams.append(
            {
                "stream": stream.value,
                "first": places[0].first_sequence,
                "last": found.end - 1,
                "segments": [place.number for place in places],
            }
        )
    cursor = Cursor(directory / "cursor", storage, epoch)
    known = cursor.load()
    for row in streams:
        row["acknowledged"] = cursor.acknowledged[Stream(str(row["stream"]))] if known else None
    return {
        "hub": hub,
        "epoch": epoch.hex() or None,
        "streams": streams,
        "spare_files": len(spare_files(directory, storage)),
    }


def _destroy(directory: Path, storage: Storage) -> _Search:
    """Overwrites every wrapped key, then reads every file from end to end."""
    search = _Search()
    for path in (*segment_files(directory, storage), *spare_files(directory, storage)):
        offsets = header_offsets(storage, path)
        with storage.open(path) as file:
            wrapped = {r.wrapped for _, recipients in headers(file, offsets) for r in recipients}
            write_headers(file, offsets, bytes(BLOCK_BYTES))
        search.wrapped.extend(wrapped)
        search.look(read_segment(storage, path), sorted(wrapped))
    for name in storage.list(directory):
        if name not in {*Stream, SPARE, "lock"}:
            search.look(read_segment(storage, directory / name), search.wrapped)
    return search


def _remove(directory: Path, storage: Storage) -> None:
    """All files, the lock last: what was begun is known by it."""
    for room in (*(directory / stream for stream in Stream), directory / SPARE, directory):
        for name in storage.list(room):
            if room != directory or name not in {*Stream, SPARE, "lock"}:
                storage.unlink(room / name)
        storage.sync_directory(room)
    storage.unlink(directory / "lock")
    storage.sync_directory(directory)

"""Another hub key for a journal: the data keys are wrapped anew, no frame is touched.

First every segment is wrapped for the old key and the new one, then the new key takes the old one's place, then every
segment is wrapped for the new one alone. So at any moment the key file opens every segment that it opened before, and
whoever was interrupted only has to begin again.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.journal.access import recipients
from gateway.journal.errors import JournalError
from gateway.journal.keys import HubKey
from gateway.journal.offline import (
    header_offsets,
    headers,
    held,
    segment_files,
    spare_files,
    write_headers,
)
from gateway.journal.readers import MLKEM768_X25519, Reader
from gateway.journal.segment import (
    BLOCK_BYTES,
    Cipher,
    Recipient,
    SegmentHeader,
    pack_header,
    unwrap_cipher,
)
from gateway.journal.storage import Storage


@dataclass(frozen=True, slots=True)
class Rotation:
    """What a rotation did, in segments: wrapped anew; sealed, so the hub's key never opened them; unreadable."""

    rewrapped: int
    sealed: int
    unreadable: int
    spares_wiped: int


def rotate(
    directory: Path,
    storage: Storage,
    old: HubKey,
    new: HubKey,
    readers: tuple[Reader, ...],
    switch: Callable[[], None],
) -> Rotation:
    """Wraps every segment for `readers`, and makes the old key open nothing.

    Args:
        readers: for whom, once all is done; the new key stands in it for the hub.
        switch: puts the new key in the place of the old one, durably.

    Raises:
        JournalError: a hub runs, or the disk failed: the key that is in place opens everything, repeat it.
    """
    with held(directory, storage):
        both = tuple(dict.fromkeys((old.reader, new.reader, *readers)))
        paths = segment_files(directory, storage)
        for path in paths:
            _rewrap(storage, path, old, both)
        switch()
        outcomes = [_rewrap(storage, path, new, readers) for path in paths]
        wiped = sum(_wipe(storage, path, paths) for path in spare_files(directory, storage))
        return Rotation(
            outcomes.count("rewrapped"),
            outcomes.count("sealed"),
            outcomes.count("unreadable"),
            wiped,
        )


def _rewrap(storage: Storage, path: Path, key: HubKey, readers: tuple[Reader, ...]) -> str:
    offsets = header_offsets(storage, path)
    with storage.open(path) as file:
        found = headers(file, offsets)
        cipher = next((cipher for header in found if (cipher := _cipher(*header, key))), None)
        if cipher is not None:
            write_headers(
                file, offsets, pack_header(cipher.header, recipients(cipher, key, readers))
            )
            return "rewrapped"
    kinds = {recipient.suite for _, known in found for recipient in known}
    return "sealed" if MLKEM768_X25519 in kinds else "unreadable"


def _cipher(header: SegmentHeader, recipients: tuple[Recipient, ...], key: HubKey) -> Cipher | None:
    try:
        return unwrap_cipher(header, recipients, key)
    except JournalError:
        return None


def _wipe(storage: Storage, path: Path, in_use: list[Path]) -> bool:
    """A spare file must not keep what the old key opens. False when it was only another name of a segment."""
    offsets = header_offsets(storage, path)
    with storage.open(path) as file:
        for header, _ in headers(file, offsets):
            name = f"{header.number:08x}-{header.first_sequence:016x}.seg"
            if path.parent.parent / header.stream / name in in_use:
                storage.unlink(path)
                storage.sync_directory(path.parent)
                return False
        write_headers(file, offsets, bytes(BLOCK_BYTES))
    return True

"""The directory of a journal: who writes in it, whose it is, and what its readers left there."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from gateway.journal.cursor import Cursor
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import newest_header
from gateway.journal.log import StreamLog
from gateway.journal.state import State
from gateway.journal.storage import File, Storage


def lock(directory: Path, storage: Storage) -> File:
    """The directories of a journal, locked for its one writer until the file is closed."""
    storage.make_directory(directory)
    lock_file = storage.lock(directory / "lock")
    if lock_file is None:
        raise JournalError(f"journal {directory}: another process has it open; stop that one first")
    try:
        for name in (*Stream, "spare"):
            storage.make_directory(directory / name)
        storage.sync_directory(directory)
        storage.sync_directory(directory.parent)
    except OSError:
        lock_file.close()
        raise
    return lock_file


def is_begun(directory: Path) -> bool:
    """Whether a hub has written here before. A reader that came first makes only the file that it waits on."""
    return (directory / "state").exists()


def check_epoch(directory: Path, storage: Storage, hub: str, state: State | None) -> bytes | None:
    """The epoch of what is there already, even when the state is lost; None when the journal is new."""
    epoch, owner = (state.epoch, state.hub) if state else (None, hub)
    if state is None:
        headers = (newest_header(storage, directory / stream) for stream in Stream)
        header = next((header for header in headers if header), None)
        if header:
            epoch, owner = header.epoch, header.hub
    if owner != hub:
        raise JournalError(
            f"journal {directory}: belongs to hub {owner!r}, expected {hub!r};"
            " set hub.id back, or move the directory away"
        )
    return epoch


def follow_cursor(cursor: Cursor, logs: Mapping[Stream, StreamLog]) -> None:
    """What a reader in another process has passed may be used again; what it could not read gets its name here."""
    if cursor.is_ours:
        return
    if cursor.follow():
        for damage in cursor.damage:
            logs[damage.stream].damage.note(damage)
    for stream, log in logs.items():
        if len(log.numbers) > 1:
            with suppress(OSError):  # nothing is lost: the next commit tries again
                log.recycle(cursor.acknowledged[stream])

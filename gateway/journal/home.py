"""The directory of a journal: who writes in it, and whose it is."""

from pathlib import Path

from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import newest_header
from gateway.journal.state import State
from gateway.journal.storage import File, Storage


def lock(directory: Path, storage: Storage) -> File:
    """The directories of a journal, locked until the file is closed."""
    storage.make_directory(directory)
    lock_file = storage.lock(directory / "lock")
    if lock_file is None:
        raise JournalError(f"journal {directory}: another process has it open; stop that one first")
    for name in (*Stream, "spare"):
        storage.make_directory(directory / name)
    storage.sync_directory(directory)
    storage.sync_directory(directory.parent)
    return lock_file


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

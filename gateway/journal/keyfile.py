"""Private keys as files: made whole or not at all, read only where nobody else may, overwritten before they go."""

import os
import stat
from pathlib import Path

from gateway.journal.errors import JournalError

OTHERS = stat.S_IRWXG | stat.S_IRWXO
MOST_BYTES = 4096
"""No key file is larger; more of a file than this is never read."""


def create(path: Path, data: bytes) -> None:
    """Under a temporary name first: a power cut leaves no half key, and a link never replaces a key."""
    temporary = _write_beside(path, data)
    path.hardlink_to(temporary)
    temporary.unlink()
    sync_directory(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Puts another key in the place of one, in one step; then overwrites the old one."""
    temporary = _write_beside(path, data)
    with path.open("rb+") as old:
        temporary.replace(path)
        sync_directory(path.parent)
        _overwrite(old.fileno())


def read(path: Path) -> bytes:
    """A key that its owner alone may read. Raises JournalError when others may use it, or it cannot be read."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & OTHERS:
                raise JournalError(
                    f"key {path}: others may use it (mode {mode:04o}), expected 0600;"
                    " replace the key if it may have been read, else chmod 600"
                )
            return file.read(MOST_BYTES)
    except OSError as error:
        raise JournalError(f"key {path}: cannot be read: {error.strerror}") from error


def destroy(path: Path) -> bool:
    """Overwrites a key, then removes it, durably. False when there is none."""
    try:
        with path.open("rb+") as file:
            _overwrite(file.fileno())
    except FileNotFoundError:
        return False
    path.unlink()
    sync_directory(path.parent)
    return True


def sync_directory(path: Path) -> None:
    """The names in it are durable on return."""
    directory = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def _write_beside(path: Path, data: bytes) -> Path:
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    return temporary


def _overwrite(fd: int) -> None:
    os.pwrite(fd, bytes(os.fstat(fd).st_size), 0)
    os.fsync(fd)

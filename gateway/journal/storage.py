"""The only door between the journal and the disk. No format, no policy: a crash simulator stands here in the tests."""

import errno
import fcntl
import os
from mmap import mmap
from pathlib import Path
from threading import local
from typing import Protocol, Self

ZEROS = bytes(65_536)
DIRECT_BYTES = 524_288
"""Most bytes in one write past the page cache: so much memory stays with a thread that once wrote as much."""


class File(Protocol):
    """An open file. Every method may raise OSError."""

    def pread(self, size: int, offset: int) -> bytes:
        """Up to `size` bytes; fewer only at the end of the file."""
        ...

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        """Writes all of `data`. Not durable before `datasync`."""
        ...

    def datasync(self) -> None:
        """Everything written is durable on return. After an OSError it never will be: use another file."""
        ...

    def close(self) -> None:
        """Lets go of the file, and of its lock."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...


class Writer(Protocol):
    """A file to which whole blocks are written, at whole blocks. Every method may raise OSError."""

    def pwrite(self, data: memoryview, offset: int) -> None:
        """Writes all of `data`, which lies in `page_memory`. Not durable before `datasync`."""
        ...

    def datasync(self) -> None:
        """As of File."""
        ...

    def close(self) -> None:
        """Lets go of the file."""
        ...


class Storage(Protocol):
    """Files and directories. A name is durable only after `sync_directory`. Every method may raise OSError."""

    def make_directory(self, path: Path) -> None:
        """Makes it, readable by its owner only, unless it is there."""
        ...

    def sync_directory(self, path: Path) -> None:
        """The names in it are durable on return."""
        ...

    def list(self, path: Path) -> list[str]:
        """The names in a directory, in no order."""
        ...

    def size(self, path: Path) -> int:
        """Bytes in a file."""
        ...

    def create(self, path: Path, size: int) -> None:
        """Makes a new file of zero bytes that are written out and durable, so that no later write can lack room."""
        ...

    def open(self, path: Path) -> File:
        """Opens an existing file to read and write."""
        ...

    def open_writer(self, path: Path) -> Writer:
        """Opens an existing file to write blocks of 4 KiB, in the way that is durable soonest."""
        ...

    def lock(self, path: Path) -> File | None:
        """Opens and locks a file until it is closed or the process ends; None when another holds the lock."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Gives a file another name, in the place of any file that had it."""
        ...

    def unlink(self, path: Path) -> None:
        """Removes a name."""
        ...


class _DiskFile:
    """A file descriptor."""

    def __init__(self, path: Path, flags: int) -> None:
        self._fd = os.open(path, flags | os.O_CLOEXEC, 0o600)

    @property
    def fd(self) -> int:
        return self._fd

    def pread(self, size: int, offset: int) -> bytes:
        data = os.pread(self._fd, size, offset)
        while len(data) < size and (
            more := os.pread(self._fd, size - len(data), offset + len(data))
        ):
            data += more
        return data

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        written = os.pwrite(self._fd, data, offset)
        while written < len(data):
            written += os.pwrite(self._fd, data[written:], offset + written)

    def datasync(self) -> None:
        os.fdatasync(self._fd)

    def close(self) -> None:
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Pages(local):
    """Each thread has its own."""

    def __init__(self) -> None:
        self.memory = memoryview(mmap(-1, DIRECT_BYTES))


_pages = _Pages()


def page_memory() -> memoryview:
    """This thread's `DIRECT_BYTES` that begin at a page, as a write past the page cache wants them."""
    return _pages.memory


class FileStorage:
    """The file system of this machine."""

    def make_directory(self, path: Path) -> None:
        """See Storage."""
        path.mkdir(mode=0o700, exist_ok=True)

    def sync_directory(self, path: Path) -> None:
        """See Storage."""
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def list(self, path: Path) -> list[str]:
        """See Storage."""
        return os.listdir(path)  # noqa: PTH208 - a Path for each of ten thousand takes its memory

    def size(self, path: Path) -> int:
        """See Storage."""
        return path.stat().st_size

    def create(self, path: Path, size: int) -> None:
        """See Storage. A file that could not be filled is removed, so that a full disk stays no fuller."""
        with _DiskFile(path, os.O_RDWR | os.O_CREAT | os.O_EXCL) as file:
            try:
                for offset in range(0, size, len(ZEROS)):
                    file.pwrite(ZEROS[: size - offset], offset)
                os.fsync(file.fd)
            except OSError:
                path.unlink()
                raise

    def open(self, path: Path) -> File:
        """See Storage."""
        return _DiskFile(path, os.O_RDWR)

    def open_writer(self, path: Path) -> Writer:
        """See Storage. Through the page cache where the file system knows no other way."""
        try:
            # Past the page cache: a sync then has nothing left to copy, and takes two thirds of the time.
            return _DiskFile(path, os.O_WRONLY | os.O_DIRECT)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return _DiskFile(path, os.O_WRONLY)

    def lock(self, path: Path) -> File | None:
        """See Storage."""
        file = _DiskFile(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(file.fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        return file

    def rename(self, old: Path, new: Path) -> None:
        """See Storage."""
        old.rename(new)

    def unlink(self, path: Path) -> None:
        """See Storage."""
        path.unlink()


DISK = FileStorage()


class ReadOnlyStorage(FileStorage):
    """For whoever only looks: works beside a running hub, and on a copy that cannot be written."""

    def open(self, path: Path) -> File:
        """Opens an existing file to read."""
        return _DiskFile(path, os.O_RDONLY)

"""A disk in memory that loses power: what was not synced survives in part, torn, or not at all."""

from collections.abc import Callable
from errno import ENOENT
from pathlib import Path
from random import Random
from typing import Self


class PowerCutError(Exception):
    """The power went away in the middle of an operation."""


class Inode:
    def __init__(self, size: int) -> None:
        self.durable = bytearray(size)
        self.cache = bytearray(size)
        self.unsynced: list[tuple[int, bytes]] = []

    def sync(self) -> None:
        for offset, data in self.unsynced:
            self.durable[offset : offset + len(data)] = data
        self.unsynced.clear()

    def crash(self, random: Random) -> None:
        survivors = [write for write in self.unsynced if random.random() < 0.5]
        for n, (offset, whole) in enumerate(survivors):
            torn = n == len(survivors) - 1 and random.random() < 0.7
            data = whole[: random.randrange(len(whole) + 1)] if torn else whole
            self.durable[offset : offset + len(data)] = data
        self.unsynced.clear()
        self.cache[:] = self.durable


class Directory:
    def __init__(self) -> None:
        self.durable: dict[str, Inode] = {}
        self.cache: dict[str, Inode] = {}
        self.unsynced: list[tuple[str, Inode | None]] = []

    def set(self, name: str, inode: Inode | None) -> None:
        self.unsynced.append((name, inode))
        _apply(self.cache, name, inode)

    def sync(self) -> None:
        for name, inode in self.unsynced:
            _apply(self.durable, name, inode)
        self.unsynced.clear()

    def crash(self, random: Random) -> None:
        del self.unsynced[random.randrange(len(self.unsynced) + 1) :]
        self.sync()
        self.cache = dict(self.durable)


def _apply(names: dict[str, Inode], name: str, inode: Inode | None) -> None:
    if inode is None:
        names.pop(name, None)
    else:
        names[name] = inode


class SimulatedFile:
    def __init__(self, disk: "SimulatedDisk", path: Path, inode: Inode) -> None:
        self._disk, self._path, self._inode = disk, path, inode

    def pread(self, size: int, offset: int) -> bytes:
        self._disk.check("pread", self._path, offset, size)
        return bytes(self._inode.cache[offset : offset + size])

    def pwrite(self, data: bytes, offset: int) -> None:
        self._inode.cache[offset : offset + len(data)] = data
        self._inode.unsynced.append((offset, data))
        self._disk.step("pwrite", self._path)

    def datasync(self) -> None:
        self._disk.step("datasync", self._path)
        self._inode.sync()

    def close(self) -> None:
        self._disk.locked.discard(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimulatedDisk:
    """Storage with a power cut after a number of steps, and faults on demand."""

    def __init__(self) -> None:
        self.directories: dict[Path, Directory] = {Path("/"): Directory()}
        self.locked: set[Path] = set()
        self.steps_left: int | None = None
        self.fault: Callable[[str, Path], OSError | None] = lambda _operation, _path: None
        self.bad_blocks: Callable[[Path, int, int], OSError | None] = lambda _path, _offset, _size: (
            None
        )

    def step(self, operation: str, path: Path) -> None:
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise PowerCutError
            self.steps_left -= 1
        if error := self.fault(operation, path):
            raise error

    def check(self, operation: str, path: Path, offset: int, size: int) -> None:
        if error := self.fault(operation, path) or self.bad_blocks(path, offset, size):
            raise error

    def crash(self, random: Random) -> None:
        """The power goes, and comes back."""
        inodes = {id(i): i for d in self.directories.values() for i in d.cache.values()}
        inodes |= {id(i): i for d in self.directories.values() for i in d.durable.values()}
        for inode in inodes.values():
            inode.crash(random)
        for directory in self.directories.values():
            directory.crash(random)
        self.locked.clear()
        self.steps_left = None

    def _inode(self, path: Path) -> Inode:
        try:
            return self.directories[path.parent].cache[path.name]
        except KeyError:
            raise FileNotFoundError(ENOENT, "no such file", str(path)) from None

    def make_directory(self, path: Path) -> None:
        self.directories.setdefault(path, Directory())  # never lost: making it again is harmless

    def sync_directory(self, path: Path) -> None:
        self.step("sync_directory", path)
        self.directories[path].sync()

    def list(self, path: Path) -> list[str]:
        return list(self.directories[path].cache)

    def size(self, path: Path) -> int:
        return len(self._inode(path).cache)

    def create(self, path: Path, size: int) -> None:
        self.step("create", path)
        self.directories[path.parent].set(path.name, Inode(size))

    def open(self, path: Path) -> SimulatedFile:
        if error := self.fault("open", path):
            raise error
        return SimulatedFile(self, path, self._inode(path))

    def lock(self, path: Path) -> SimulatedFile | None:
        if path in self.locked:
            return None
        self.locked.add(path)
        return SimulatedFile(self, path, Inode(0))

    def rename(self, old: Path, new: Path) -> None:
        inode = self._inode(old)
        self.directories[old.parent].set(old.name, None)
        self.directories[new.parent].set(new.name, inode)
        self.step("rename", new)

    def unlink(self, path: Path) -> None:
        self._inode(path)
        self.directories[path.parent].set(path.name, None)
        self.step("unlink", path)

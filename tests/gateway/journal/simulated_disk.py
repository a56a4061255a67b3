"""A disk in memory that loses power: what was not synced survives in part, torn, or not at all."""

from collections.abc import Callable
from errno import ENOENT
from pathlib import Path
from random import Random
from typing import Self

BLOCK_BYTES = 4096
SECTOR_BYTES = 512


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
        """Each write survives whole, up to some byte, in any of its sectors, or not at all."""
        for start, data in self.unsynced:
            sectors = -(-len(data) // SECTOR_BYTES)
            match random.randrange(4):
                case 0:
                    spans = [(0, len(data))]
                case 1:
                    spans = [(0, random.randrange(len(data) + 1))]
                case 2:
                    kept = [n * SECTOR_BYTES for n in range(sectors) if random.random() < 0.5]
                    spans = [(at, at + SECTOR_BYTES) for at in kept]
                case _:
                    spans = []
            for at, end in spans:
                piece = data[at:end]
                self.durable[start + at : start + at + len(piece)] = piece
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
        if self.unsynced:
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
        self.locks = False

    def pread(self, size: int, offset: int) -> bytes:
        self._disk.check("pread", self._path, offset, size)
        return bytes(memoryview(self._inode.cache)[offset : offset + size])

    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        self._inode.cache[offset : offset + len(data)] = data
        self._inode.unsynced.append((offset, bytes(data)))
        self._disk.dirty.append(self._inode)
        self._disk.step("pwrite", self._path)

    def datasync(self) -> None:
        self._disk.step("datasync", self._path)
        self._inode.sync()

    def close(self) -> None:
        if self.locks:
            self._disk.locked.discard(self._path)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimulatedWriter(SimulatedFile):
    def pwrite(self, data: bytes | memoryview, offset: int) -> None:
        assert offset % BLOCK_BYTES == len(data) % BLOCK_BYTES == 0
        super().pwrite(data, offset)


class SimulatedDisk:
    """Storage with a power cut after a number of steps, and faults on demand.

    Attributes:
        steps_left: changes and syncs until the power goes; None for never.
        fault: asked at each call with its name and path; what it returns is raised. A write that fails may have
            reached the disk in part; any other call that fails has done nothing.
        dirty: files that were written since the last crash, with repeats.
    """

    def __init__(self) -> None:
        self.directories: dict[Path, Directory] = {Path("/"): Directory()}
        self._by_name = {"": self.directories[Path("/")]}
        self.locked: set[Path] = set()
        self.steps_left: int | None = None
        self.fault: Callable[[str, Path], OSError | None] = lambda _operation, _path: None
        self.bad_blocks: Callable[[Path, int, int], OSError | None] = lambda _path, _offset, _size: (
            None
        )
        self.dirty: list[Inode] = []

    def step(self, operation: str, path: Path) -> None:
        self.look(operation, path)
        self.burn()

    def burn(self) -> None:
        """One step nearer to the power cut. What was done but not synced may or may not survive it."""
        if self.steps_left is not None:
            if self.steps_left == 0:
                raise PowerCutError
            self.steps_left -= 1

    def look(self, operation: str, path: Path) -> None:
        if error := self.fault(operation, path):
            raise error

    def check(self, operation: str, path: Path, offset: int, size: int) -> None:
        if error := self.fault(operation, path) or self.bad_blocks(path, offset, size):
            raise error

    def crash(self, random: Random) -> None:
        """The power goes, and comes back."""
        for inode in self.dirty:
            if inode.unsynced:
                inode.crash(random)
        self.dirty.clear()
        for directory in self.directories.values():
            directory.crash(random)
        self.locked.clear()
        self.steps_left = None

    def _inode(self, path: Path) -> Inode:
        try:
            directory, _, name = str(path).rpartition("/")
            return self._by_name[directory].cache[name]
        except KeyError:
            raise FileNotFoundError(ENOENT, "no such file", str(path)) from None

    def make_directory(self, path: Path) -> None:
        self.look("make_directory", path)
        if path not in self.directories:  # never lost: making it again is harmless
            self.directories[path] = self._by_name[str(path)] = Directory()

    def sync_directory(self, path: Path) -> None:
        self.step("sync_directory", path)
        self._by_name[str(path).rstrip("/")].sync()

    def list(self, path: Path) -> list[str]:
        self.look("list", path)
        return list(self._by_name[str(path).rstrip("/")].cache)

    def size(self, path: Path) -> int:
        self.look("size", path)
        return len(self._inode(path).cache)

    def create(self, path: Path, size: int) -> None:
        self.look("create", path)
        self.directories[path.parent].set(path.name, Inode(size))
        self.burn()

    def open(self, path: Path) -> SimulatedFile:
        self.look("open", path)
        return SimulatedFile(self, path, self._inode(path))

    def open_writer(self, path: Path) -> "SimulatedWriter":
        self.look("open_writer", path)
        return SimulatedWriter(self, path, self._inode(path))

    def lock(self, path: Path) -> SimulatedFile | None:
        self.look("lock", path)
        if path in self.locked:
            return None
        self.locked.add(path)
        file = SimulatedFile(self, path, Inode(0))
        file.locks = True
        return file

    def rename(self, old: Path, new: Path) -> None:
        self.look("rename", new)
        inode = self._inode(old)
        self.directories[old.parent].set(old.name, None)
        self.directories[new.parent].set(new.name, inode)
        self.burn()

    def unlink(self, path: Path) -> None:
        self.look("unlink", path)
        self._inode(path)
        self.directories[path.parent].set(path.name, None)
        self.burn()

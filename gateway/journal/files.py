"""Segment files by name, and their bytes, whatever state they are in."""

import re
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gateway.journal.entry import Stream
from gateway.journal.scan import UNREADABLE, find_header, scan
from gateway.journal.segment import BLOCK_BYTES, FrameHeader, SegmentHeader, parse_header
from gateway.journal.storage import File, Storage

_NAME = re.compile(r"([0-9a-f]{8})-([0-9a-f]{16})\.seg")


@dataclass(frozen=True, slots=True)
class Place:
    """A segment file, as its name says it: no header needs to be read to find a sequence number."""

    number: int
    first_sequence: int

    @property
    def name(self) -> str:
        """The file's name."""
        return f"{self.number:08x}-{self.first_sequence:016x}.seg"


class Places:
    """The segments of a stream, oldest first, in 16 bytes each: a full disk has ten thousand of them."""

    def __init__(self) -> None:
        self.numbers = array("Q")
        self._firsts = array("Q")

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, at: int) -> Place:
        return Place(self.numbers[at], self._firsts[at])

    def __iter__(self) -> Iterator[Place]:
        return map(Place, self.numbers, self._firsts)

    def __contains__(self, place: Place) -> bool:
        at = bisect_left(self.numbers, place.number)
        return at < len(self) and self[at] == place

    def insert(self, at: int, place: Place) -> None:
        """Puts one before the one that stands there, or behind the last."""
        self.numbers.insert(at, place.number)
        self._firsts.insert(at, place.first_sequence)

    def pop(self, at: int) -> Place:
        """Takes one out."""
        return Place(self.numbers.pop(at), self._firsts.pop(at))

    def at(self, sequence: int) -> int:
        """Which of them may hold a sequence number: the last that begins at or before it, else the first."""
        return max(bisect_right(self._firsts, sequence) - 1, 0)


def places_in(storage: Storage, directory: Path) -> Places:
    """The segments in a stream's directory, oldest first."""
    places = Places()
    for name in sorted(storage.list(directory)):
        if match := _NAME.fullmatch(name):
            places.insert(len(places), Place(int(match[1], 16), int(match[2], 16)))
    return places


def read_segment(storage: Storage, path: Path) -> bytes:
    """A whole segment file. A block that the disk cannot read is UNREADABLE: it costs its frame and no more."""
    try:
        with storage.open(path) as file:
            size = storage.size(path)
            try:
                return file.pread(size, 0)
            except OSError:
                return b"".join(_block(file, offset) for offset in range(0, size, BLOCK_BYTES))
    except FileNotFoundError:
        return b""


def _block(file: File, offset: int) -> bytes:
    try:
        return file.pread(BLOCK_BYTES, offset)
    except OSError:
        return UNREADABLE


def frames_in(
    storage: Storage, path: Path, stream: Stream, epoch: bytes, place: Place, until: int
) -> list[FrameHeader]:
    """What a segment holds, to tell its times: none of it where the disk cannot be read."""
    try:
        segment = read_segment(storage, path)
    except OSError:
        return []
    return scan(segment, stream, epoch, place.number, place.first_sequence, until).frames


def newest_header(storage: Storage, directory: Path) -> SegmentHeader | None:
    """The header of the newest segment in a stream's directory that has one."""
    for place in reversed(places_in(storage, directory)):
        if header := find_header(read_segment(storage, directory / place.name)):
            return header
    return None


def file_header(storage: Storage, path: Path) -> SegmentHeader | None:
    """What a file says it is, or was, by its first block or by the copy in its last."""
    copy = max(storage.size(path) - BLOCK_BYTES, 0)
    with storage.open(path) as file:
        parsed = parse_header(_block(file, 0)) or parse_header(_block(file, copy))
    return parsed[0] if parsed else None

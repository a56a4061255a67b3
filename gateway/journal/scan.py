"""What a segment holds: its whole frames, and by name what is missing between them. Needs no key and no I/O."""

from bisect import bisect_left
from dataclasses import dataclass, field
from threading import Lock

from gateway.journal.entry import Stream
from gateway.journal.segment import (
    BLOCK_BYTES,
    FRAME_HEADER_BYTES,
    FrameHeader,
    SegmentHeader,
    body_is_whole,
    frame_tag,
    parse_frame,
    parse_header,
)

RATE_SPAN_NS = 10_000_000_000
"""A rate over less than ten commits says more about their moments than about the devices."""


UNREADABLE = b"\xff" * BLOCK_BYTES
"""Stands for a block that the disk does not give back. No frame begins like it."""
LEAST_ENTRY_BYTES = 16
"""No record is shorter: a bound for how many a block can hold."""


@dataclass(frozen=True, slots=True)
class Damage:
    """Sequence numbers that were given to records and cannot be read any more.

    Attributes:
        reason: a stable token: "missing", "checksum", "padding", "chain", "authentication", "header", "no key",
            "decode", "unreadable".
    """

    stream: Stream
    first_sequence: int
    last_sequence: int
    reason: str


class DamageNotes:
    """What has been found and not been told yet. A range is told once in the life of a process."""

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self._found: list[Damage] = []
        self._told: set[tuple[int, int]] = set()

    def note(self, damage: Damage) -> None:
        """Keeps it, unless that range is known."""
        span = damage.first_sequence, damage.last_sequence
        with self._lock:
            if span not in self._told:
                self._told.add(span)
                self._found.append(damage)

    def take(self) -> list[Damage]:
        """What was found since the last call."""
        with self._lock:
            taken, self._found = self._found, []
        return taken


@dataclass(slots=True)
class Contents:
    """The frames of one segment in order, and what is damaged.

    Attributes:
        end: the sequence number that follows them.
        hidden: most records that unreadable blocks may hold behind the last frame: their numbers are not given again.
    """

    end: int
    frames: list[FrameHeader] = field(default_factory=list)
    damage: list[Damage] = field(default_factory=list)
    last_tag: bytes | None = None
    hidden: int = 0

    def bytes_s(self) -> float | None:
        """Bytes on disk a second between its first frame and its last; None where that is too short to tell."""
        frames = self.frames
        if not frames or frames[0].boot_id != frames[-1].boot_id:
            return None
        span_ns = frames[-1].clock.boottime_ns - frames[0].clock.boottime_ns
        if span_ns < RATE_SPAN_NS:
            return None
        return sum(frame.size for frame in frames[1:]) * 1e9 / span_ns

    def find(self, sequence: int) -> FrameHeader | None:
        """The frame that holds a sequence number, or the next one behind it."""
        at = bisect_left(self.frames, sequence, key=lambda frame: frame.last_sequence)
        return self.frames[at] if at < len(self.frames) else None


def find_header(segment: bytes) -> SegmentHeader | None:
    """The header of a segment from its first block, or from the copy in its last."""
    parsed = parse_header(segment[:BLOCK_BYTES]) or parse_header(segment[-BLOCK_BYTES:])
    return parsed[0] if parsed else None


def scan(
    segment: bytes,
    stream: Stream,
    epoch: bytes,
    number: int,
    first: int,
    until: int | None,
    *,
    known: Contents | None = None,
    start: int = 0,
) -> Contents:
    """Walks the blocks of a segment.

    Whatever a recycled file still holds of its former life names another segment, and is passed over. A frame whose
    header is whole but whose body is not counts as damage even at the end of the log: its sequence numbers were
    given away, so they must not be given again.

    Args:
        segment: the whole file; blocks that could not be read are UNREADABLE.
        first: the sequence number that the segment begins with.
        until: the one that the next segment begins with; None for the newest segment, whose end is where no
            frame follows.
        known: what an earlier look found before `start`; it is added to.
        start: the block with which `segment` begins, if it is a part of one.
    """
    contents = known
    if contents is None:
        header = find_header(segment)
        contents = Contents(end=first, last_tag=header.previous_tag if header else None)
    block, blocks = max(start, 1), start + len(segment) // BLOCK_BYTES - 1
    behind = block
    while block < blocks:
        offset = (block - start) * BLOCK_BYTES
        frame = parse_frame(segment[offset : offset + FRAME_HEADER_BYTES])
        if (
            frame is None
            or (frame.stream, frame.epoch, frame.segment) != (stream, epoch, number)
            or frame.block != block
            or frame.first_sequence < contents.end
            or offset + frame.size > (blocks - start) * BLOCK_BYTES
        ):
            block += 1
            continue
        if until is not None and frame.last_sequence >= until:
            break  # written again in the next segment, after this one's fsync failed
        _take(contents, frame, segment[offset : offset + frame.size])
        behind = block = block + frame.size // BLOCK_BYTES
    if until is None:
        contents.hidden = _hidden(
            segment[(behind - start) * BLOCK_BYTES : (blocks - start) * BLOCK_BYTES]
        )
    if until is not None and contents.end < until:
        contents.damage.append(Damage(stream, contents.end, until - 1, "missing"))
        contents.end = until
    return contents


def _hidden(rest: bytes) -> int:
    """Most records in what follows the first unreadable block."""
    starts = range(0, len(rest), BLOCK_BYTES)
    first = next((at for at in starts if rest.startswith(UNREADABLE, at)), len(rest))
    return (len(rest) - first) // LEAST_ENTRY_BYTES


def _take(contents: Contents, frame: FrameHeader, data: bytes) -> None:
    stream = frame.stream
    if frame.first_sequence > contents.end:
        missing = Damage(stream, contents.end, frame.first_sequence - 1, "missing")
        contents.damage.append(missing)
        contents.last_tag = None
    contents.end = frame.last_sequence + 1
    if not body_is_whole(frame, data):
        contents.damage.append(
            Damage(stream, frame.first_sequence, frame.last_sequence, "checksum")
        )
        contents.last_tag = None
    elif contents.last_tag not in {None, frame.previous_tag}:
        contents.damage.append(Damage(stream, frame.first_sequence, frame.last_sequence, "chain"))
        contents.last_tag = None
    else:
        contents.frames.append(frame)
        contents.last_tag = frame_tag(frame, data)

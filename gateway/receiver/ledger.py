"""Who sent what already, and what is missing. Pure: no I/O and no clock.

For each (hub, stream, epoch) a high-water mark and the holes below it. That is enough to drop every repeat and to
name every gap, in memory that does not grow with what was received.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from gateway.journal.entry import Stream
from gateway.uplink.notice import HubStatus
from gateway.uplink.receipt import Held

MAX_HOLES = 256
"""Holes kept in one track. Hubs send in order, so holes are evictions or crimes; of more, the oldest is final."""
MAX_EPOCHS = 16
"""Epochs kept of one stream; of more, the one that began first is forgotten."""


@dataclass(frozen=True, slots=True)
class Key:
    """Sequence numbers of two keys are not comparable."""

    hub: str
    stream: Stream
    epoch: str


@dataclass(frozen=True, slots=True)
class Span:
    """Sequence numbers from first to last, both included."""

    first: int
    last: int

    def __len__(self) -> int:
        return self.last - self.first + 1

    def overlap(self, other: "Span") -> "Span | None":
        """What both have."""
        first, last = max(self.first, other.first), min(self.last, other.last)
        return Span(first, last) if first <= last else None

    def without(self, other: "Span") -> Iterator["Span"]:
        """What is left of this around the other."""
        if self.first < other.first:
            yield Span(self.first, min(self.last, other.first - 1))
        if self.last > other.last:
            yield Span(max(self.first, other.last + 1), self.last)


class Cause(StrEnum):
    """How a gap was proved."""

    SEQUENCE = "sequence"
    """Later entries came, these did not."""
    TAIL = "tail"
    """The hub's heartbeat says that the broker has them."""
    ROLLBACK = "rollback"
    """The hub's journal reaches less far than its earlier heartbeat: its tail was cut off."""
    UNREADABLE = "unreadable"
    """They came, sealed, and do not open: what the hub's disk says is not what was written there. Final."""
    TOO_MANY = "too_many"
    """More holes than can be kept: this one is final, what comes of it later is not taken."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Entries that are missing, since when, and whether that was said already."""

    span: Span
    since_ns: int
    cause: Cause
    named: bool = False


@dataclass(frozen=True, slots=True)
class Gap:
    """What is to be written out: entries are missing, or (`closed`) came after all."""

    key: Key
    span: Span
    cause: Cause
    closed: bool = False


@dataclass(slots=True)
class Track:
    """One key.

    Attributes:
        floor: up to here nothing is known any more in detail: what comes from there is stale.
        high: the highest sequence number that came, or is known to exist.
        claimed: the highest high-water mark in a heartbeat.
        holes: below `high`, in order, apart from each other.
    """

    floor: int = 0
    high: int = 0
    claimed: int = 0
    holes: list[Hole] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Taken:
    """What a range of entries turned out to be: new ones, repeats, and stale ones from below the floor."""

    new: tuple[Span, ...]
    repeats: int
    stale: int
    gaps: tuple[Gap, ...]


class Ledger:
    """The tracks of all hubs."""

    def __init__(self) -> None:
        self.tracks: dict[Key, Track] = {}
        """To be read; `put` changes it."""
        self._epochs: dict[tuple[str, Stream], deque[str]] = {}
        self.beats: dict[str, tuple[str, int]] = {}
        """Boot and boottime of each hub's last heartbeat."""
        self.statuses: dict[str, HubStatus] = {}
        """What each hub said last of itself."""

    def track(self, key: Key) -> Track:
        """The track of a key; a new one where there is none."""
        track = self.tracks.get(key)
        if track is None:
            track = Track()
            self.put(key, track)
        return track

    def put(self, key: Key, track: Track) -> None:
        """Sets the track of a key."""
        if key not in self.tracks:
            epochs = self._epochs.setdefault((key.hub, key.stream), deque())
            if len(epochs) >= MAX_EPOCHS:
                del self.tracks[Key(key.hub, key.stream, epochs.popleft())]
            epochs.append(key.epoch)
        self.tracks[key] = track

    def receive(self, key: Key, span: Span, now_ns: int) -> Taken:
        """Entries came. Each number of `new` is returned once in the life of the ledger."""
        track = self.track(key)
        new: list[Span] = []
        gaps: list[Gap] = []
        holes: list[Hole] = []
        for hole in track.holes:
            filled = hole.span.overlap(span)
            if filled is None:
                holes.append(hole)
                continue
            new.append(filled)
            holes.extend(replace(hole, span=rest) for rest in hole.span.without(filled))
            if hole.named:
                gaps.append(Gap(key, filled, hole.cause, closed=True))
        track.holes = holes
        if span.first > track.high + 1:
            missing = Span(track.high + 1, span.first - 1)
            track.holes.append(Hole(missing, now_ns, Cause.SEQUENCE))
        if span.last > track.high:
            new.append(Span(max(span.first, track.high + 1), span.last))
            track.high = span.last
        gaps.extend(self._retire(key, track))
        stale = max(0, min(span.last, track.floor) - span.first + 1)
        repeats = len(span) - sum(len(part) for part in new)
        return Taken(tuple(new), max(0, repeats - stale), stale, tuple(gaps))

    def is_new_beat(self, hub: str, boot_id: str, boottime_ns: int) -> bool:
        """Whether a heartbeat is newer than the last one; a repeat or an old one must not prove a rollback."""
        last_boot, last_ns = self.beats.get(hub, ("", 0))
        if boot_id == last_boot and boottime_ns <= last_ns:
            return False
        self.beats[hub] = (boot_id, boottime_ns)
        return True

    def heartbeat(self, key: Key, high_water: int, acknowledged: int, now_ns: int) -> list[Gap]:
        """The hub's journal reaches to `high_water`, and the broker has all up to `acknowledged`."""
        track = self.track(key)
        gaps: list[Gap] = []
        if high_water < track.claimed:
            gaps.append(Gap(key, Span(high_water + 1, track.claimed), Cause.ROLLBACK))
        track.claimed = high_water
        if acknowledged > track.high:
            missing = Span(track.high + 1, acknowledged)
            track.holes.append(Hole(missing, now_ns, Cause.TAIL))
            track.high = acknowledged
        gaps.extend(self._retire(key, track))
        return gaps

    def due(self, now_ns: int, grace_ns: int) -> list[Gap]:
        """The holes that are to be named now, as gaps; each once."""
        gaps = []
        for key, track in self.tracks.items():
            for n, hole in enumerate(track.holes):
                if not hole.named and now_ns - hole.since_ns >= grace_ns:
                    track.holes[n] = replace(hole, named=True)
                    gaps.append(Gap(key, hole.span, hole.cause))
        return gaps

    def open_gaps(self) -> list[Gap]:
        """Every gap that was named and is still open."""
        return [
            Gap(key, hole.span, hole.cause)
            for key, track in self.tracks.items()
            for hole in track.holes
            if hole.named
        ]

    def held(self, hub: str, epoch: str) -> dict[Stream, Held]:
        """What came of each stream of one journal, for its receipt."""
        found = ((stream, self.tracks.get(Key(hub, stream, epoch))) for stream in Stream)
        return {
            stream: Held(track.high, tuple((h.span.first, h.span.last) for h in track.holes))
            for stream, track in found
            if track is not None
        }

    def missing(self) -> int:
        """Entries known to be missing, named or not."""
        return sum(len(hole.span) for track in self.tracks.values() for hole in track.holes)

    def _retire(self, key: Key, track: Track) -> Iterator[Gap]:
        while len(track.holes) > MAX_HOLES:
            hole = track.holes.pop(0)
            track.floor = hole.span.last
            yield Gap(key, hole.span, Cause.TOO_MANY)

    # --- Replaying what was written out, after a restart ---------------------------------------------------

    def mark_named(self, key: Key, span: Span) -> None:
        """This gap was named before the restart."""
        track = self.track(key)
        for n, hole in enumerate(track.holes):
            if hole.span.overlap(span):
                track.holes[n] = replace(hole, named=True)

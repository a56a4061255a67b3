"""Who sent what already, and what is missing. Pure: no I/O and no clock.

For each (hub, stream, epoch) a high-water mark and the holes below it. That is enough to drop every repeat and to
name every gap, in memory that does not grow with what was received.

A hub sends what is new before what waits, so a hole by itself is no loss. Each heartbeat says what is still to come; a
hole is missing from the moment on that one says it is not, and after its grace it is named.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import StrEnum

from gateway.journal.entry import Stream
from gateway.receiver.chain import Chain
from gateway.timeline import Timeline
from gateway.uplink.notice import HubStatus
from gateway.uplink.payload import FrameTags
from gateway.uplink.receipt import MAX_HOLES as RECEIPT_HOLES
from gateway.uplink.receipt import Held
from gateway.uplink.spans import Spans

MAX_HOLES = 256
"""Holes kept in one track; of more, the oldest is final that the hub does not still mean to fill."""
MAX_PENDING_HOLES = 1024
"""Holes kept in one track when it means to fill all of them: many times what a hub makes before it fills some."""
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
    CHAIN = "chain"
    """They came, and do not follow on what came before or behind them: two histories of one journal. Final."""
    TOO_MANY = "too_many"
    """More holes than can be kept: this one is final, what comes of it later is not taken."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Entries that did not come.

    Attributes:
        since_ns: since when they should be here; None while they may be still to come.
        named: whether that was said already.
    """

    span: Span
    since_ns: int | None
    cause: Cause
    named: bool = False

    @property
    def is_missing(self) -> bool:
        """Whether it should be here."""
        return self.named or self.since_ns is not None

    def is_due(self, now_ns: int, grace_ns: int) -> bool:
        """Whether it is to be named now."""
        return not self.named and self.since_ns is not None and now_ns - self.since_ns >= grace_ns


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
        floor: up to here only the holes are known in detail: what else comes from there is stale.
        high: the highest sequence number that came, or is known to exist.
        claimed: the highest high-water mark in a heartbeat.
        holes: below `high`, in order. Two that touch differ in more than their place.
        pending: what was still to come by the last heartbeat.
        chain: what frames that come must fit to.
    """

    floor: int = 0
    high: int = 0
    claimed: int = 0
    holes: list[Hole] = field(default_factory=list)
    pending: Spans = field(default_factory=Spans)
    chain: Chain = field(default_factory=Chain.begin)

    def has(self, number: int) -> bool:
        """Whether it came, or will never be taken. Everything has what is before the first."""
        at = bisect_right(self.holes, number, key=lambda hole: hole.span.first) - 1
        return number <= self.high and (at < 0 or number > self.holes[at].span.last)

    def reach(self, last: int, cause: Cause) -> None:
        """Numbers up to here exist: a hole up to there."""
        if last > self.high:
            self.holes.append(Hole(Span(self.high + 1, last), None, cause))
            self.high = last

    def settle(self, now_ns: int) -> None:
        """What the hub does not mean to send any more should be here."""
        self._rebuild(part for hole in self.holes for part in self._parts(hole, now_ns))

    def _parts(self, hole: Hole, now_ns: int) -> Iterator[Hole]:
        if hole.named:
            yield hole
            return
        first, last = hole.span.first, hole.span.last
        known = min(last, self.claimed)
        since_ns = now_ns if hole.since_ns is None else hole.since_ns
        missing = self.pending.outside(first, known)
        parts: list[tuple[int, int, int | None]] = [(a, b, since_ns) for a, b in missing]
        waiting = [*self.pending.within(first, known), (max(first, known + 1), last)]
        parts += [(a, b, None) for a, b in waiting if a <= b]
        for a, b, since in sorted(parts, key=lambda part: part[0]):
            yield replace(hole, span=Span(a, b), since_ns=since)

    def name(self, span: Span) -> None:
        """This much of the holes has been named."""
        parts = []
        for hole in self.holes:
            common = hole.span.overlap(span)
            if common is None:
                parts.append(hole)
            else:
                parts += [replace(hole, span=rest) for rest in hole.span.without(common)]
                parts.append(replace(hole, span=common, named=True))
        self._rebuild(sorted(parts, key=lambda hole: hole.span.first))

    def _rebuild(self, parts: Iterable[Hole]) -> None:
        holes: list[Hole] = []
        for part in parts:
            last = holes[-1] if holes else None
            if last and replace(part, span=last.span) == last and _touch(last, part):
                holes[-1] = replace(last, span=Span(last.span.first, part.span.last))
            else:
                holes.append(part)
        self.holes = holes

    def receipt_holes(self) -> tuple[tuple[int, int], ...]:
        """The holes for a receipt; of too many, what lies between two counts as missing, too, which only repeats it."""
        return tuple(Spans((h.span.first, h.span.last) for h in self.holes).coarse(RECEIPT_HOLES))

    def retire(self) -> Hole | None:
        """Takes out what is one hole too many, if one is; it is final."""
        if len(self.holes) <= MAX_HOLES:
            return None
        wanted = (n for n, hole in enumerate(self.holes) if not self._is_pending(hole))
        at = next(wanted, 0 if len(self.holes) > MAX_PENDING_HOLES else None)
        if at is None:
            return None
        hole = self.holes.pop(at)
        self.floor = max(self.floor, hole.span.last)
        self.chain.settle(hole.span.first, hole.span.last, self.has)
        return hole

    def _is_pending(self, hole: Hole) -> bool:
        return any(True for _ in self.pending.within(hole.span.first, hole.span.last))


def _touch(before: Hole, behind: Hole) -> bool:
    return before.span.last + 1 == behind.span.first


def _common(one: Span, other: Span) -> int:
    """How many numbers both have."""
    return max(0, min(one.last, other.last) - max(one.first, other.first) + 1)


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
        self.timelines: dict[tuple[str, str], Timeline] = {}
        """Of each hub and epoch, what is known of its boots."""

    def timeline(self, hub: str, epoch: str) -> Timeline:
        """The boots of a journal; a new one where none is known."""
        timeline = self.timelines.get((hub, epoch))
        if timeline is None:
            same = [key for key in self.timelines if key[0] == hub]
            if len(same) >= MAX_EPOCHS:
                del self.timelines[same[0]]
            timeline = self.timelines[hub, epoch] = Timeline()
        return timeline

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

    def fits(self, key: Key, span: Span, frame: FrameTags) -> bool:
        """A whole frame came, and is received next: whether it fits to those that came. See Chain.takes."""
        return self.track(key).chain.takes(span.first, span.last, frame)

    def receive(self, key: Key, span: Span) -> Taken:
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
        floor = Span(1, track.floor)
        track.reach(span.first - 1, Cause.SEQUENCE)
        if span.last > track.high:
            new.append(Span(max(span.first, track.high + 1), span.last))
            track.high = span.last
        track.chain.settle(span.first, span.last, track.has)
        gaps.extend(self._retire(key, track))
        known = len(span) - sum(len(part) for part in new)
        stale = _common(span, floor) - sum(_common(part, floor) for part in new)
        return Taken(tuple(new), known - stale, stale, tuple(gaps))

    def is_new_beat(self, hub: str, boot_id: str, boottime_ns: int) -> bool:
        """Whether a heartbeat is newer than the last one; a repeat or an old one must not prove a rollback."""
        last_boot, last_ns = self.beats.get(hub, ("", 0))
        if boot_id == last_boot and boottime_ns <= last_ns:
            return False
        self.beats[hub] = (boot_id, boottime_ns)
        return True

    def heartbeat(self, key: Key, high_water: int, pending: Spans, now_ns: int) -> list[Gap]:
        """The hub's journal reaches to `high_water`, and all of it but `pending` was delivered or is gone."""
        track = self.track(key)
        gaps: list[Gap] = []
        if high_water < track.claimed:
            gaps.append(Gap(key, Span(high_water + 1, track.claimed), Cause.ROLLBACK))
        track.claimed, track.pending = high_water, pending
        *_, (_, delivered) = [(0, 0), *pending.outside(1, high_water)]
        track.reach(delivered, Cause.TAIL)
        track.settle(now_ns)
        gaps.extend(self._retire(key, track))
        return gaps

    def due(self, now_ns: int, grace_ns: int) -> list[Gap]:
        """The holes that are to be named now, as gaps; each once."""
        gaps = []
        for key, track in self.tracks.items():
            for n, hole in enumerate(track.holes):
                if hole.is_due(now_ns, grace_ns):
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
            stream: Held(track.high, track.receipt_holes())
            for stream, track in found
            if track is not None
        }

    def missing(self) -> int:
        """Entries that should be here, named or not."""
        return sum(
            len(hole.span)
            for track in self.tracks.values()
            for hole in track.holes
            if hole.is_missing
        )

    def _retire(self, key: Key, track: Track) -> Iterator[Gap]:
        while (hole := track.retire()) is not None:
            yield Gap(key, hole.span, Cause.TOO_MANY)

    # --- Replaying what was written out, after a restart ---------------------------------------------------

    def mark_named(self, key: Key, span: Span, cause: Cause) -> None:
        """This gap was named before the restart."""
        track = self.track(key)
        track.reach(span.last, cause)
        track.name(span)

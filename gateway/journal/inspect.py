"""A journal's directory as it lies there, for whoever only looks: beside a running hub, or a copy of it.

Nothing here takes the writer's lock or writes a byte. A file may be given back and used again while it is read: what
then seems to be damage is looked at again, and a file that is gone is passed over.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cbor2

from gateway.clock import ClockReading
from gateway.journal.batches import decode
from gateway.journal.blocks import SampleReader
from gateway.journal.entry import Batch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import Place, Places, newest_header, places_in, read_segment
from gateway.journal.keys import HubKey
from gateway.journal.scan import Contents, Damage, find_header, scan
from gateway.journal.segment import (
    BLOCK_BYTES,
    Cipher,
    FrameHeader,
    SegmentHeader,
    open_cipher,
)
from gateway.journal.slots import Slots
from gateway.journal.state import JournalStatus, State, StreamStatus
from gateway.journal.storage import ReadOnlyStorage
from gateway.timeline import Timeline

LOOKS = 3
"""How often a segment with damage is read before that is believed: its writer may be in the middle of a frame."""


@dataclass(frozen=True, slots=True)
class Segment:
    """One segment file: its bytes, and the whole frames in them."""

    place: Place
    data: bytes
    header: SegmentHeader | None
    contents: Contents


@dataclass(slots=True)
class StreamSummary:
    """What a stream holds. `first` is above `last` when it holds nothing.

    Attributes:
        missing: sequence numbers that are neither acknowledged nor on disk: given up, as the alarm stream says.
        begins, ends: both clocks at the oldest and the newest commit.
    """

    stream: Stream
    acknowledged: int
    first: int = 1
    last: int = 0
    segments: int = 0
    size_bytes: int = 0
    missing: int = 0
    begins: ClockReading | None = None
    ends: ClockReading | None = None
    bytes_s: float | None = None


@dataclass(slots=True)
class Verdict:
    """What a walk over every frame of a stream found.

    Attributes:
        unopened: frames that were checked by checksum and chain alone, for want of their key.
    """

    stream: Stream
    segments: int = 0
    frames: int = 0
    records: int = 0
    size_bytes: int = 0
    unopened: int = 0
    damage: list[Damage] = field(default_factory=list)


class JournalFiles:
    """One journal, read-only."""

    def __init__(self, directory: Path, codec: SampleReader) -> None:
        """Raises JournalError when no journal is there."""
        self._directory = directory
        self._codec = codec
        self._storage = ReadOnlyStorage()
        try:
            self._state = State.parse(Slots(directory / "state", self._storage).load())
            found = (newest_header(self._storage, directory / stream) for stream in Stream)
            header = next((header for header in found if header), None)
        except OSError as error:
            raise JournalError(f"journal {directory}: cannot be read: {error}") from error
        if self._state is None and header is None:
            raise JournalError(f"journal {directory}: no journal is there; name its directory")
        known = self._state or header
        assert known is not None  # noqa: S101 - one of them is, or the line above has raised
        self.hub = known.hub
        """Whose journal it is."""
        self._epoch = known.epoch
        self.segment_bytes = header.segment_bytes if header else 0

    @property
    def epoch(self) -> str:
        """Names the life of this journal."""
        return self._epoch.hex()

    def acknowledged(self) -> dict[Stream, int]:
        """The cursor; zeros where it cannot be read."""
        payload = Slots(self._directory / "cursor", self._storage).load()
        match cbor2.loads(payload) if payload else None:
            case [bytes() as epoch, [*numbers], *_] if epoch == self._epoch:
                return dict(zip(Stream, numbers, strict=True))
            case _:
                return dict.fromkeys(Stream, 0)

    def places(self, stream: Stream) -> Places:
        """The segment files of a stream that there are now, oldest first."""
        return places_in(self._storage, self._directory / stream)

    def segments(self, stream: Stream) -> Iterator[Segment]:
        """Each segment of a stream, oldest first; one that is given back meanwhile is passed over."""
        places = self.places(stream)
        for at, place in enumerate(places):
            until = places[at + 1].first_sequence if at + 1 < len(places) else None
            if (segment := self._segment(stream, place, until)) is not None:
                yield segment

    def _segment(self, stream: Stream, place: Place, until: int | None) -> Segment | None:
        path, first = self._directory / stream / place.name, place.first_sequence
        looks = 0
        while True:
            data, looks = read_segment(self._storage, path), looks + 1
            contents = scan(data, stream, self._epoch, place.number, first, until)
            if not contents.damage or looks == LOOKS:
                break
        if contents.damage and not path.exists():
            return None
        return Segment(place, data, find_header(data), contents) if data else None

    def timeline(self) -> Timeline:
        """What the commits on this disk tell of its boots' clocks. Sealed ones tell it as well."""
        timeline = Timeline()
        for stream in Stream:
            for segment in self.segments(stream):
                for frame in segment.contents.frames:
                    alarm = frame.first_sequence if stream is Stream.ALARM else None
                    boot = timeline.boot(frame.boot_id).lasted(frame.clock.boottime_ns, alarm)
                    timeline.keep(boot.observe(frame.clock))
        return timeline

    def summary(self, stream: Stream) -> StreamSummary:
        """A stream in figures."""
        found = StreamSummary(stream, self.acknowledged()[stream])
        for segment in self.segments(stream):
            frames = segment.contents.frames
            if found.segments == 0:
                found.first = segment.place.first_sequence
            found.segments += 1
            found.size_bytes += len(segment.data)
            found.last = segment.contents.end - 1
            if frames:
                found.begins = found.begins or frames[0].clock
                found.ends = frames[-1].clock
            found.bytes_s = segment.contents.bytes_s() or found.bytes_s
        if found.segments:
            found.missing = max(0, found.first - 1 - found.acknowledged)
        return found

    def batches(self, stream: Stream, key: HubKey | None) -> Iterator[Batch | Damage]:
        """Everything that can be read, in order, and by name what cannot.

        Raises:
            JournalError: there is no key.
        """
        if key is None:
            raise JournalError("hub key: there is none here, and without it nothing can be read")
        for segment in self.segments(stream):
            yield from sorted(segment.contents.damage, key=lambda damage: damage.first_sequence)
            cipher = self._cipher(stream, segment, key)
            for frame in segment.contents.frames:
                yield self._open(segment, frame, cipher)

    def _open(self, segment: Segment, frame: FrameHeader, cipher: Cipher | str) -> Batch | Damage:
        span = frame.first_sequence, frame.last_sequence
        if isinstance(cipher, str):
            return Damage(frame.stream, *span, cipher)
        try:
            data = segment.data[frame.offset : frame.offset + frame.size]
            entries = decode(cipher.open(frame, data), frame, self._codec)
        except JournalError as error:
            return Damage(frame.stream, *span, str(error))
        return Batch(self.hub, frame.stream, self.epoch, frame.boot_id, frame.clock, entries)

    def _cipher(self, stream: Stream, segment: Segment, key: HubKey) -> Cipher | str:
        """What opens a segment, or why it does not open: "header" or "no key"."""
        reasons = []
        for block in (segment.data[:BLOCK_BYTES], segment.data[-BLOCK_BYTES:]):
            try:
                cipher = open_cipher(block, key)
            except JournalError as error:
                reasons.append(str(error))
                continue
            header, place = cipher.header, segment.place
            said = header.stream, header.epoch, header.number, header.first_sequence
            if said == (stream, self._epoch, place.number, place.first_sequence):
                return cipher
            reasons.append("header")
        return "no key" if "no key" in reasons else "header"

    def verify(self, stream: Stream, key: HubKey | None) -> Iterator[Verdict]:
        """Walks every frame. Yields the same growing verdict after each segment, and at the end."""
        verdict, tag, end = Verdict(stream), None, None
        for segment in self.segments(stream):
            contents, header = segment.contents, segment.header
            verdict.segments += 1
            verdict.frames += len(contents.frames)
            verdict.size_bytes += len(segment.data)
            verdict.records += sum(frame.count for frame in contents.frames)
            verdict.damage += contents.damage
            if header is None and not contents.damage:
                first = segment.place.first_sequence
                verdict.damage.append(Damage(stream, first, contents.end - 1, "header"))
            elif header and tag not in {None, header.previous_tag}:
                first = segment.place.first_sequence
                verdict.damage.append(Damage(stream, first, contents.end - 1, "chain"))
            self._verify_frames(stream, segment, key, verdict)
            tag, end = (None if contents.damage else contents.last_tag), contents.end
            yield verdict
        known = max(
            self._state.high_water[stream] if self._state else 0, self.acknowledged()[stream]
        )
        if (end or 1) <= known:
            verdict.damage.append(Damage(stream, end or 1, known, "missing"))
        yield verdict

    def _verify_frames(
        self, stream: Stream, segment: Segment, key: HubKey | None, verdict: Verdict
    ) -> None:
        cipher = "no key" if key is None else self._cipher(stream, segment, key)
        for frame in segment.contents.frames:
            if cipher == "no key":
                verdict.unopened += 1
                continue
            opened = self._open(segment, frame, cipher)
            if isinstance(opened, Damage):
                verdict.damage.append(opened)
                verdict.records -= frame.count

    def sealed(self, stream: Stream, key: HubKey | None) -> int:
        """How many frames of a stream this key does not open: they are for another reader, the clinic."""
        return sum(
            len(segment.contents.frames)
            for segment in self.segments(stream)
            if key is None or self._cipher(stream, segment, key) == "no key"
        )

    def status(self, max_bytes: int) -> JournalStatus:
        """What a running hub would say of itself, as far as its files tell it."""
        streams = []
        for stream in Stream:
            found = self.summary(stream)
            streams.append(
                StreamStatus(
                    stream,
                    found.last,
                    found.acknowledged,
                    found.size_bytes,
                    found.segments,
                    found.bytes_s,
                )
            )
        size = sum(stream.size_bytes for stream in streams)
        return JournalStatus(self.epoch, "", "", "", size, max_bytes, 0, tuple(streams))

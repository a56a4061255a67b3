"""A journal that another process writes: follows it, reads it, moves its cursor. Nothing here makes the writer wait.

Only what the writer has published as durable is handed out. A frame may be visible in the page cache before that, and
a power cut could still take it back. A segment may be used again while it is read: then its frames do not open, its
name is gone, and the reader looks again.
"""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from threading import Lock

from gateway.clock import ClockReading
from gateway.journal import published
from gateway.journal.access import Access
from gateway.journal.cursor import Cursor, Span
from gateway.journal.entry import Batch, PackedBatch, SealedBatch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import Place, Places, file_header, places_in
from gateway.journal.keys import HubKey
from gateway.journal.log import Identity, StreamLog
from gateway.journal.pool import Pool
from gateway.journal.published import Published
from gateway.journal.readers import Reader
from gateway.journal.scan import Contents, Damage, scan
from gateway.journal.segment import BLOCK_BYTES, SegmentHeader
from gateway.journal.storage import DISK, Storage
from gateway.journal.times import SegmentTimes
from gateway.journal.watch import Watch

GLANCE_BYTES = 131_072
"""Read first of what is new in a segment: a commit or two."""


class FollowedLog(StreamLog):
    """One stream's log as another process writes it. It is never written here."""

    _former: tuple[Place, Contents] | None = None
    """What was known of a segment before the mark moved on."""
    _index: SegmentTimes | None = None
    announced = 0
    """How far the writer says it is durable; `read` takes it up together with the segments that it finds then."""

    @property
    def _times(self) -> SegmentTimes:
        if self._index is None:
            self._index = SegmentTimes(self._header)
        return self._index

    def read(self, after: int, *, packed: bool = False) -> Batch | None:
        """See StreamLog."""
        if self.announced != self.high_water:
            self._take_up(self.announced)
        return super().read(after, packed=packed)

    def _take_up(self, high_water: int) -> None:
        """The mark first and the names after it: so the names are those of every segment that the mark covers."""
        places = places_in(self._storage, self._directory)
        with self._lock:
            self.high_water, self._places = high_water, places
            # It may have ended at the former mark.
            self._former, self._scanned = self._scanned or self._former, None

    def _scan(self, place: Place, until: int | None) -> Contents:
        """A commit costs its own bytes: the rest of the segment is known, or is read when a glance does not do."""
        known, start = None, 0
        if self._former and self._former[0] == place and self._former[1].frames:
            known = replace(self._former[1], frames=self._former[1].frames[:], damage=[])
            last = known.frames[-1]
            start = last.block + last.size // BLOCK_BYTES
        try:
            with self._storage.open(self._directory / place.name) as file:
                part = file.pread(GLANCE_BYTES, start * BLOCK_BYTES)
        except OSError:
            return super()._scan(place, until)
        contents = scan(
            part,
            self.stream,
            self._identity.epoch,
            place.number,
            place.first_sequence,
            until,
            known=known,
            start=start,
        )
        return super()._scan(place, until) if contents.damage else contents

    def day_begin(self, sequence: int) -> int:
        """See JournalReader."""
        places = self._known()
        self._times.update(places)
        return self._times.day_begin(places, sequence)

    def during(
        self, from_wall_ns: int, until_wall_ns: int, boot_id: str, now: ClockReading
    ) -> tuple[tuple[Span, ...], bool]:
        """See JournalReader."""
        places = self._known()
        all_of_it = self._times.update(places)
        self._times.note(boot_id, now)
        spans: list[Span] = []
        for first, last in self._times.during(places, from_wall_ns, until_wall_ns):
            begin, _ = self._commit_at(places, first, from_wall_ns)
            _, end = self._commit_at(places, last, until_wall_ns)
            if begin <= end:
                spans.append((begin, end))
        return tuple(reversed(spans)), all_of_it

    def _known(self) -> Places:
        """The segments now. One that was begun behind what is durable holds nothing yet."""
        if self.announced != self.high_water:
            self._take_up(self.announced)
        return self._places

    def _commit_at(self, places: Places, at: int, wall_ns: int) -> Span:
        """The first commit of a segment that was not before a time: its entries, or nothing behind the segment."""
        place, behind = places[at], self.high_water + 1
        if at + 1 < len(places):
            behind = min(behind, places[at + 1].first_sequence)
        contents = self._contents(place) or self._scan(place, behind)
        for frame in contents.frames:
            if frame.last_sequence < behind and self._times.frame_wall_ns(frame) >= wall_ns:
                return frame.first_sequence, frame.last_sequence
        return behind, behind - 1

    def _header(self, place: Place) -> SegmentHeader | None:
        try:
            return file_header(self._storage, self._directory / place.name)
        except OSError:
            return None

    def look(self) -> None:
        """Finds the segments that there are now."""
        places = places_in(self._storage, self._directory)
        with self._lock:
            self._places = places

    def _holds(self, place: Place) -> bool:
        """Asked when something cannot be read: it may have been given back meanwhile."""
        self.look()
        return super()._holds(place)


class JournalReader:
    """The uplink's end of a journal: the directory first, and after `begin` what is in it.

    `read` and `acknowledge` are for a worker thread, one at a time; the rest is for the event loop.
    """

    def __init__(
        self,
        directory: Path,
        *,
        hub: str,
        hub_key: HubKey,
        readers: tuple[Reader, ...] = (),
        storage: Storage = DISK,
        acknowledges: bool = True,
    ) -> None:
        """The directory's parent exists.

        Args:
            directory: the journal's; made when the writer has not been there yet.
            hub: whose journal is expected there.
            hub_key: opens its segments.
            readers: for whom they are written; when this hub is not among them, frames are handed out as they are.
            storage: the disk.
            acknowledges: False for one that only looks; of the others there may be one.

        Raises:
            JournalError: another process acknowledges, or the disk cannot be used.
        """
        self._directory = directory
        self._hub = hub
        self._access = Access(hub_key, readers)
        self._storage = storage
        self._acknowledges = acknowledges
        self._cursor = Cursor(directory, storage)
        self._logs: dict[Stream, FollowedLog] = {}
        self._marks: Published | None = None
        self._watch: Watch | None = None
        self.wakes = 0
        """How often the writer woke it."""
        try:
            storage.make_directory(directory)
            self._file = published.make_file(directory, storage)
        except OSError as error:
            raise JournalError(f"journal {directory}: cannot be followed: {error}") from error
        if acknowledges:
            self._cursor.take()

    @property
    def epoch(self) -> str:
        """Names the life of this journal."""
        return self._cursor.epoch.hex()

    async def begin(self) -> None:
        """Returns when a writer has published something.

        Raises:
            JournalError: the journal belongs to another hub, or the disk cannot be used.
        """
        try:
            watch = self._watch = Watch(self._file)
            while (marks := published.load(self._directory, self._storage)) is None:
                await watch.changed()
            self.follow(marks)
        except OSError as error:
            raise JournalError(f"journal {self._directory}: cannot be read: {error}") from error

    def follow(self, marks: Published) -> None:
        """Reads from here on what the marks say. `begin` calls it; may raise OSError."""
        if marks.hub != self._hub:
            raise JournalError(
                f"journal {self._directory}: belongs to hub {marks.hub!r}, expected {self._hub!r};"
                " set hub.id back"
            )
        # A boot, an algorithm and spare files of its own matter only to one who writes.
        identity = Identity(marks.hub, marks.epoch, "", 0, marks.segment_bytes)
        pool = Pool(self._directory / "spare", self._storage, marks.segment_bytes, 0)
        memory = Lock()
        self._logs = {
            stream: FollowedLog(
                stream,
                self._directory / stream,
                identity,
                access=self._access,
                storage=self._storage,
                pool=pool,
                lock=memory,
                entropy=bytes,
            )
            for stream in Stream
        }
        self._take(marks)
        self._cursor.epoch = marks.epoch
        if self._acknowledges:
            self._cursor.begin({stream: self._beginning(stream) for stream in Stream})
        else:
            self._cursor.load()

    async def advanced(self) -> None:
        """Returns when the writer has published something new since the last return.

        Raises:
            JournalError: this journal is no more; start again to follow the one in its place.
        """
        if self._watch is None:
            raise JournalError(f"journal {self._directory}: the reader is closed; open it again")
        while True:
            await self._watch.changed()
            self.wakes += 1
            if self.refresh():
                return

    def refresh(self) -> bool:
        """Looks how far the journal is durable now. False when that is no news, or is just being written."""
        marks = published.load(self._directory, self._storage)
        if marks is None and published.exists(self._directory, self._storage):
            return False
        if marks is None or marks.epoch != self._cursor.epoch:
            raise JournalError(
                f"journal {self._directory}: its epoch {self.epoch} is no more; start again to"
                " follow the one in its place"
            )
        if marks == self._marks:
            return False
        self._take(marks)
        return True

    def _take(self, marks: Published) -> None:
        self._marks = marks
        for stream, log in self._logs.items():
            log.announced = marks.high_water[stream]

    def _beginning(self, stream: Stream) -> int:
        """Without a cursor: what is on disk is sent again."""
        log = self._logs[stream]
        log.look()
        return log.first_sequence - 1 if log.numbers else self.high_water(stream)

    def read(self, stream: Stream, after: int) -> Batch | None:
        """The durable batch with sequence `after + 1`, or the next one that still exists. None when there is none yet.

        What cannot be read is told to the writer of the journal, which names it as a gap.
        """
        return self._read(stream, after, packed=False)

    def read_packed(
        self, stream: Stream, after: int, until: int, most_bytes: int
    ) -> tuple[Batch, ...]:
        """As `read`, but many batches of one kind that follow each other without a hole, with their records undecoded.

        Returns:
            The first whatever it is, and as many behind it as begin up to `until` and keep the records, or the frames,
            within `most_bytes`: PackedBatch, or SealedBatch where this hub cannot open them. Nothing when there is none
            yet.
        """
        batches: list[Batch] = []
        size_bytes = 0
        while after < until:
            batch = self._read(stream, after, packed=True)
            if not isinstance(batch, PackedBatch | SealedBatch):
                break
            size_bytes += batch.size_bytes
            goes_on = batch.first_sequence == after + 1 and size_bytes <= most_bytes
            if batches and not (goes_on and type(batch) is type(batches[0])):
                break
            batches.append(batch)
            after = batch.last_sequence
        return tuple(batches)

    def _read(self, stream: Stream, after: int, *, packed: bool) -> Batch | None:
        log = self._logs[stream]
        try:
            batch = log.read(after, packed=packed)
            if damage := self._news(log):
                self._cursor.write(self._cursor.acknowledged, damage)
        except OSError as error:
            raise JournalError(f"journal {stream}: cannot read: {error}") from error
        return batch

    def _news(self, log: FollowedLog) -> tuple[Damage, ...]:
        known = {(d.stream, d.first_sequence, d.last_sequence) for d in self._cursor.damage}
        passed = self._cursor.acknowledged[log.stream]
        return tuple(
            found
            for found in log.damage.take()
            if self._cursor.is_ours
            and found.last_sequence > passed
            and (found.stream, found.first_sequence, found.last_sequence) not in known
        )

    def day_begin(self, stream: Stream, sequence: int) -> int:
        """Where the day of an entry begins, as far as it is known, and to the segment: `sequence` itself or before it.

        A day is one of UTC by the clock of its boot. Every call learns of some more segments, the newest first.
        """
        try:
            return self._logs[stream].day_begin(sequence)
        except OSError as error:
            raise JournalError(f"journal {stream}: cannot read: {error}") from error

    def during(
        self, stream: Stream, from_wall_ns: int, until_wall_ns: int, boot_id: str, now: ClockReading
    ) -> tuple[tuple[Span, ...], bool]:
        """Where the entries lie that were committed in a time, by the best clock of their boot.

        Args:
            boot_id, now: this boot and both its clocks now, which may have been set only after the last commit.

        Returns:
            The spans of whole frames, and whether that is all: else it is to be asked again, and gives more.
        """
        try:
            return self._logs[stream].during(from_wall_ns, until_wall_ns, boot_id, now)
        except OSError as error:
            raise JournalError(f"journal {stream}: cannot read: {error}") from error

    def remembered(self, stream: Stream) -> tuple[Span, ...]:
        """What `acknowledge` was told last to be delivered behind the cursor; less where that was lost."""
        return self._cursor.beyond[stream]

    def acknowledge(self, stream: Stream, sequence: int, beyond: Iterable[Span] = ()) -> None:
        """Everything up to `sequence` has arrived and need not be kept. Durable on return.

        Args:
            beyond: what has arrived behind it: remembered as far as there is room, and kept all the same.

        Raises:
            JournalError: nothing with that number was ever handed out, this reader only looks, or the disk failed.
        """
        if not self._cursor.is_ours:
            raise JournalError(f"journal {stream}: this reader only looks; acknowledge elsewhere")
        if sequence > max(self.high_water(stream), self.acknowledged(stream)):
            raise JournalError(
                f"journal {stream}: got an acknowledgement of {sequence}, expected at most"
                f" {self.high_water(stream)}; the receiver may know another journal by this hub's name"
            )
        try:
            if sequence > self.acknowledged(stream):
                self._cursor.write(self._cursor.acknowledged | {stream: sequence})
            self._cursor.write_beyond(stream, beyond)
        except OSError as error:
            raise JournalError(f"journal {stream}: cannot acknowledge: {error}") from error

    def acknowledged(self, stream: Stream) -> int:
        """The last acknowledged sequence number."""
        return self._cursor.acknowledged[stream]

    def high_water(self, stream: Stream) -> int:
        """The last sequence number that the writer has published as durable."""
        return self._marks.high_water[stream] if self._marks else 0

    def close(self) -> None:
        """Lets another process acknowledge."""
        self._cursor.release()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

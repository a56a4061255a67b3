"""A journal that another process writes: follows it, reads it, moves its cursor. Nothing here makes the writer wait.

Only what the writer has published as durable is handed out. A frame may be visible in the page cache before that, and
a power cut could still take it back. A segment may be used again while it is read: then its frames do not open, its
name is gone, and the reader looks again.
"""

from pathlib import Path
from threading import Lock
from typing import Self

from gateway.journal import published
from gateway.journal.cursor import Cursor
from gateway.journal.entry import Batch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import Place, places_in
from gateway.journal.keys import HubKey
from gateway.journal.log import Identity, StreamLog
from gateway.journal.pool import Pool
from gateway.journal.scan import Damage
from gateway.journal.storage import DISK, Storage
from gateway.journal.watch import Watch


class FollowedLog(StreamLog):
    """One stream's log as another process writes it. It is never written here."""

    announced = 0
    """How far the writer says it is durable; `read` takes it up together with the segments that it finds then."""

    def read(self, after: int) -> Batch | None:
        """See StreamLog."""
        if self.announced != self.high_water:
            self._take_up(self.announced)
        return super().read(after)

    def _take_up(self, high_water: int) -> None:
        """The mark first and the names after it: so the names are those of every segment that the mark covers."""
        places = places_in(self._storage, self._directory)
        with self._lock:
            self.high_water, self._places = high_water, places
            self._scanned = None  # it may have ended at the former mark

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
    """The uplink's end of a journal. Open it with `await JournalReader.open(...)`.

    `read` and `acknowledge` are for a worker thread, one at a time; the rest is for the event loop.
    """

    def __init__(
        self,
        directory: Path,
        marks: published.Published,
        watch: Watch | None,
        *,
        hub_key: HubKey,
        storage: Storage,
        acknowledges: bool,
    ) -> None:
        """Takes what `open` found."""
        self._directory = directory
        self._storage = storage
        self._watch = watch
        self._marks = marks
        self._lock = Lock()
        self.wakes = 0
        """How often the writer woke it."""
        self.epoch = marks.epoch.hex()
        """Names the life of this journal."""
        # A reader's own boot, algorithm and spare files would say something only in frames that it wrote.
        identity = Identity(marks.hub, marks.epoch, "", 0, marks.segment_bytes)
        pool = Pool(directory / "spare", storage, marks.segment_bytes, 0)
        self._logs = {
            stream: FollowedLog(
                stream,
                directory / stream,
                identity,
                key=hub_key,
                storage=storage,
                pool=pool,
                lock=self._lock,
                entropy=bytes,
            )
            for stream in Stream
        }
        self._cursor = Cursor(directory, storage, marks.epoch)
        self._take(marks)
        if acknowledges:
            self._cursor.take()
            self._cursor.begin({stream: self._beginning(stream) for stream in Stream})
        else:
            self._cursor.load()

    @classmethod
    async def open(
        cls,
        directory: Path,
        *,
        hub: str,
        hub_key: HubKey,
        storage: Storage = DISK,
        acknowledges: bool = True,
    ) -> Self:
        """Waits until a writer has published something; the directory need not be there yet, its parent must.

        Args:
            directory: the journal's.
            hub: whose journal is expected there.
            hub_key: opens its segments.
            storage: the disk.
            acknowledges: False for one that only looks; of the others there may be one.

        Raises:
            JournalError: it belongs to another hub, another process acknowledges, or the disk cannot be used.
        """
        try:
            storage.make_directory(directory)
            watch = Watch(published.make_file(directory, storage))
        except OSError as error:
            raise JournalError(f"journal {directory}: cannot be followed: {error}") from error
        try:
            while (marks := published.load(directory, storage)) is None:
                await watch.changed()
            if marks.hub != hub:
                raise JournalError(  # noqa: TRY301 - one way to close the watch
                    f"journal {directory}: belongs to hub {marks.hub!r}, expected {hub!r}; set hub.id back"
                )
            return cls(
                directory,
                marks,
                watch,
                hub_key=hub_key,
                storage=storage,
                acknowledges=acknowledges,
            )
        except OSError as error:
            watch.close()
            raise JournalError(f"journal {directory}: cannot be read: {error}") from error
        except BaseException:
            watch.close()
            raise

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
        if marks is None or (marks.hub, marks.epoch) != (self._marks.hub, self._marks.epoch):
            raise JournalError(
                f"journal {self._directory}: its epoch {self.epoch} is no more; start again to"
                " follow the one in its place"
            )
        if marks == self._marks:
            return False
        self._take(marks)
        return True

    def _take(self, marks: published.Published) -> None:
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
        log = self._logs[stream]
        try:
            batch = log.read(after)
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

    def acknowledge(self, stream: Stream, sequence: int) -> None:
        """Everything up to `sequence` has arrived and need not be kept. Durable on return.

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
        if sequence <= self.acknowledged(stream):
            return
        try:
            self._cursor.write(self._cursor.acknowledged | {stream: sequence})
        except OSError as error:
            raise JournalError(f"journal {stream}: cannot acknowledge: {error}") from error

    def acknowledged(self, stream: Stream) -> int:
        """The last acknowledged sequence number."""
        return self._cursor.acknowledged[stream]

    def high_water(self, stream: Stream) -> int:
        """The last sequence number that the writer has published as durable."""
        return self._marks.high_water[stream]

    def close(self) -> None:
        """Lets another process acknowledge."""
        self._cursor.release()
        if self._watch is not None:
            self._watch.close()
            self._watch = None

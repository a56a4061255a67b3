"""One stream's log: a row of segments, the newest of which may be open for writing. No policy, no buffers.

Writing (commit, recycle, evict) is for one thread at a time; `read` may go on beside it. The lock is held only
to look at or change what is in memory, never during I/O.
"""

import errno
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

from gateway.clock import ClockReading
from gateway.journal.access import Access, Opened
from gateway.journal.active import Active, Chunk
from gateway.journal.batches import batch_of
from gateway.journal.blocks import NoSamples, SampleReader
from gateway.journal.entry import Batch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import Place, Places, frames_in, places_in, read_segment
from gateway.journal.pool import Pool
from gateway.journal.scan import Contents, Damage, DamageNotes, scan
from gateway.journal.segment import (
    BLOCK_BYTES,
    TAG_BYTES,
    FrameHeader,
    SegmentHeader,
    frame_size,
    frame_tag,
)
from gateway.journal.state import Evicted
from gateway.journal.storage import File, Storage, page_memory


@dataclass(frozen=True, slots=True)
class Identity:
    """What is the same in every segment that a process writes."""

    hub: str
    epoch: bytes
    boot_id: str
    algorithm: int
    segment_bytes: int


class StreamLog:
    """Frames in, batches out, in the order of their sequence numbers."""

    def __init__(
        self,
        stream: Stream,
        directory: Path,
        identity: Identity,
        *,
        access: Access,
        storage: Storage,
        pool: Pool,
        lock: Lock,
        entropy: Callable[[int], bytes],
        codec: SampleReader | None = None,
    ) -> None:
        self.stream = stream
        self._directory = directory
        self._identity = identity
        self._access = access
        self._storage = storage
        self._pool = pool
        self._lock = lock
        self._entropy = entropy
        self._codec = codec
        self._places = Places()
        self._active: Active | None = None
        self._last_tag = bytes(TAG_BYTES)
        self._scanned: tuple[Place, Contents] | None = None
        self._opened: tuple[Place, Opened] | None = None
        self.damage = DamageNotes(lock)
        """What was found unreadable."""
        self.high_water = 0
        """The last durable sequence number."""
        self.recent: Contents | None = None
        """What this process wrote last: it tells the present rate."""
        self.last_frame: FrameHeader | None = None
        """The newest whole frame."""

    def recover(self, floor: int) -> None:
        """Finds the end of the log. `floor` is a sequence number that is known to have been reached."""
        self._places = places_in(self._storage, self._directory)
        end = 1
        if self._places:
            self._sync(self._places[-1])
            contents = self._scan(self._places[-1], None)
            end = contents.end
            self._last_tag = contents.last_tag or self._last_tag
            self.last_frame = contents.frames[-1] if contents.frames else None
            if contents.hidden:
                self.damage.note(Damage(self.stream, end, end + contents.hidden - 1, "unreadable"))
                end += contents.hidden
            elif end > floor:
                self._scanned = self._places[-1], contents
        if end <= floor:
            self.damage.note(Damage(self.stream, end, floor, "missing"))
            end = floor + 1
        self.high_water = end - 1

    def _sync(self, place: Place) -> None:
        """A killed process may have left frames in the page cache alone. What is found there must last like the rest."""
        # A disk that refuses costs nothing yet: the numbers stay taken, and what is lost is named.
        with suppress(OSError), self._storage.open(self._directory / place.name) as file:
            file.datasync()

    @property
    def first_sequence(self) -> int:
        """The oldest sequence number that is still on disk, or the next one to come."""
        return self._places[0].first_sequence if self._places else self.high_water + 1

    @property
    def numbers(self) -> Sequence[int]:
        """The numbers of the segments that hold this log, ascending."""
        return self._places.numbers

    def read(self, after: int, *, packed: bool = False) -> Batch | None:
        """The batch with sequence `after + 1`, or the next one behind it that can be read. None at the end.

        With `packed` its records are not decoded.
        """
        want = after + 1
        while True:
            with self._lock:
                if want > self.high_water or not self._places:
                    return None
                at = self._places.at(want)
                place, until = self._places[at], self._end_of(at) + 1
                contents = self._contents(place)
                frame = contents.find(want) if contents else None
            if contents is None:
                try:
                    self._scanned = place, self._scan(place, until)
                except OSError as error:
                    raise JournalError(f"journal {self.stream}: cannot read: {error}") from error
            elif frame is None:
                want = until
            elif (batch := self._open(place, frame, packed=packed)) is not None:
                return batch
            elif self._holds(place):
                want = frame.last_sequence + 1

    def tail(self, boot_id: str, segments: int) -> Iterator[Batch]:
        """The readable batches of one boot from the newest segments, newest first; the samples in blocks are not read."""
        newest = len(self._places) - 1
        for at in range(newest, max(newest - segments, -1), -1):
            place = self._places[at]
            contents = self._contents(place) or self._scan(place, self._end_of(at) + 1)
            for frame in reversed(contents.frames):
                if frame.boot_id != boot_id:
                    return
                if batch := self._open(place, frame, codec=NoSamples()):
                    yield batch

    def commit(
        self, chunks: list[Chunk], reading: ClockReading, make_room: Callable[[], bool]
    ) -> None:
        """Makes chunks durable, and takes out of the list those that are.

        Raises:
            JournalError: the disk failed in two segments one after the other; what is left in the list is not
                durable.
        """
        failed = False
        while chunks:
            try:
                done = self._commit_some(chunks, reading, make_room)
            except OSError as error:
                # After a failed write or fsync the kernel may have dropped the pages: no second try in this file.
                self.seal()
                if failed:
                    raise JournalError(
                        f"journal {self.stream}: the disk failed in two segments: {error}; check it"
                    ) from error
                failed = True
            else:
                del chunks[:done]

    def _commit_some(
        self, chunks: list[Chunk], reading: ClockReading, make_room: Callable[[], bool]
    ) -> int:
        """Writes what fits into the open segment: one write, one sync. Returns how many chunks that is."""
        active = self._active
        if active is None or not active.fits(frame_size(chunks[0].length)):
            self.seal()
            active = self._active = self._new_segment(reading, make_room)
            self.recent = active.contents
        frames: list[FrameHeader] = []
        memory, filled = page_memory(), len(active.header)
        memory[:filled] = active.header
        begin = active.block * BLOCK_BYTES - filled
        tag, sequence = self._last_tag, self.high_water + 1
        for chunk in chunks:
            size = frame_size(chunk.length)
            if not active.fits(size) or filled + size > len(memory):
                break
            header = FrameHeader(
                stream=self.stream,
                algorithm=self._identity.algorithm,
                epoch=self._identity.epoch,
                segment=active.place.number,
                block=active.block,
                first_sequence=sequence,
                count=len(chunk.entries),
                length=chunk.length,
                previous_tag=tag,
                boot_id=self._identity.boot_id,
                clock=reading,
            )
            frame = memory[filled : filled + size]
            active.cipher.seal(header, chunk.records(), frame)
            active.block += size // BLOCK_BYTES
            filled += size
            tag, sequence = frame_tag(header, frame), sequence + header.count
            frames.append(header)
        active.file.pwrite(memory[:filled], begin)
        if (spare := active.spare) is not None:
            active.begin(self._storage, spare, self._directory, memory[:BLOCK_BYTES])
        else:
            active.file.datasync()
        with self._lock:
            if spare is not None:
                self._places.insert(len(self._places), active.place)
            active.contents.frames += frames
            active.contents.end = sequence
            self.high_water, self._last_tag, self.last_frame = sequence - 1, tag, frames[-1]
        return len(frames)

    def _new_segment(self, reading: ClockReading, make_room: Callable[[], bool]) -> Active:
        """A segment with a key of its own, of which nothing is written yet."""
        spare = self._pool.take(make_room)
        number = self._places[-1].number + 1 if self._places else 1
        place = Place(number, self.high_water + 1)
        identity = self._identity
        header = SegmentHeader(
            hub=identity.hub,
            stream=self.stream,
            epoch=identity.epoch,
            number=number,
            first_sequence=place.first_sequence,
            segment_bytes=identity.segment_bytes,
            algorithm=identity.algorithm,
            nonce_field=self._entropy(4),
            previous_tag=self._last_tag,
            boot_id=identity.boot_id,
            clock=reading,
        )
        cipher, block = self._access.new_segment(header, self._entropy)
        try:
            file = self._storage.open_writer(spare)
        except OSError:
            self._pool.drop(spare)
            raise
        return Active(place, file, cipher, Contents(place.first_sequence), spare, block)

    def seal(self) -> None:
        """Lets go of the open segment, which is never written again."""
        if self._active:
            self._active.file.close()
            if self._active.spare is not None:
                self._pool.drop(self._active.spare)
            self._active = None

    def recycle(self, acknowledged: int) -> None:
        """Gives segments wholly at or below a sequence number back. The newest stays: it holds the numbering."""
        while len(self._places) > 1 and self._end_of(0) <= acknowledged:
            self._give_back_oldest()

    def evict(self, acknowledged: int) -> Evicted | None:
        """Gives the oldest segment up, unless it is the only one. Returns what it held that was not acknowledged."""
        if len(self._places) < 2:
            return None
        place, last = self._places[0], self._end_of(0)
        path, epoch = self._directory / place.name, self._identity.epoch
        held = frames_in(self._storage, path, self.stream, epoch, place, last + 1)
        frames = [frame for frame in held if frame.last_sequence > acknowledged]
        self._give_back_oldest()
        first = max(place.first_sequence, acknowledged + 1)
        if not frames:
            return Evicted(self.stream, first, last)
        begins, ends = frames[0].clock, frames[-1].clock
        return Evicted(self.stream, first, last, frames[0].boot_id, begins, ends)

    def _give_back_oldest(self) -> None:
        with self._lock:
            place = self._places.pop(0)
        try:
            self._pool.put(self._directory / place.name)
        except OSError:
            with self._lock:
                self._places.insert(0, place)  # it is still there, and so is what it holds
            raise

    def _end_of(self, at: int) -> int:
        """The last sequence number of a segment: what follows begins behind it."""
        following = at + 1
        if following < len(self._places):
            return self._places[following].first_sequence - 1
        return self.high_water

    def _holds(self, place: Place) -> bool:
        with self._lock:
            return place in self._places

    def _contents(self, place: Place) -> Contents | None:
        if self._active and self._active.place == place:
            return self._active.contents
        if self._scanned and self._scanned[0] == place:
            return self._scanned[1]
        return None

    def _scan(self, place: Place, until: int | None) -> Contents:
        identity = self._identity
        segment = read_segment(self._storage, self._directory / place.name)
        contents = scan(
            segment, self.stream, identity.epoch, place.number, place.first_sequence, until
        )
        if self._holds(place):
            for damage in contents.damage:
                self.damage.note(damage)
        return contents

    def _open(
        self,
        place: Place,
        frame: FrameHeader,
        *,
        packed: bool = False,
        codec: SampleReader | None = None,
    ) -> Batch | None:
        """A frame's batch, or None after noting why not."""
        try:
            with self._storage.open(self._directory / place.name) as file:
                opened = self._opened_segment(place, file)
                data = file.pread(frame.size, frame.offset)
            hub, epoch = self._identity.hub, self._identity.epoch.hex()
            return batch_of(
                hub,
                self.stream,
                epoch,
                opened,
                frame,
                data,
                packed=packed,
                codec=codec or self._codec,
            )
        except JournalError as error:
            reason = str(error)
        except OSError as error:
            if error.errno not in {errno.EIO, errno.ENOENT}:
                raise JournalError(f"journal {self.stream}: cannot read: {error}") from error
            reason = "unreadable"
        if self._holds(place):
            self.damage.note(Damage(self.stream, frame.first_sequence, frame.last_sequence, reason))
        return None

    def _opened_segment(self, place: Place, file: File) -> Opened:
        active, opened = self._active, self._opened
        if active and active.place == place and not self._access.is_sealed:
            return Opened(active.cipher.header, active.cipher)
        if opened and opened[0] == place:
            return opened[1]
        try:
            found = self._access.open(file.pread(BLOCK_BYTES, 0))
        except (JournalError, OSError):
            copy = file.pread(BLOCK_BYTES, self._identity.segment_bytes - BLOCK_BYTES)
            found = self._access.open(copy)
        header, identity = found.header, self._identity
        mine = identity.hub, self.stream, identity.epoch, place.number, place.first_sequence
        if (
            header.hub,
            header.stream,
            header.epoch,
            header.number,
            header.first_sequence,
        ) != mine:
            raise JournalError("header")
        self._opened = place, found
        return found

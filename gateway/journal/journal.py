"""The journal: takes records, makes them durable, hands them out until they are acknowledged.

Here are the policies: buffers and their bound, which stream gives way on a full disk, what a start finds out. The
four logs know one stream each. `append` and `read` are for the event loop; `commit`, `acknowledge` and `close` wait
for the disk and are for a worker thread, one after the other.
"""

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from threading import Lock

from drivers.model import Record
from gateway.clock import Clock, ClockReading
from gateway.journal.access import Access
from gateway.journal.algorithms import ALGORITHMS, cpu_algorithm
from gateway.journal.blocks import SampleCodec
from gateway.journal.buffer import Buffer
from gateway.journal.cursor import Cursor
from gateway.journal.entry import Batch, Stream, at_ns, stream_of
from gateway.journal.errors import JournalError, JournalFull
from gateway.journal.eviction import Evictions
from gateway.journal.home import check_epoch, follow_cursor, lock
from gateway.journal.keys import HubKey
from gateway.journal.log import Identity, StreamLog
from gateway.journal.pool import Pool
from gateway.journal.published import Publisher
from gateway.journal.readers import Reader
from gateway.journal.records import OVERHEAD, encode_entry
from gateway.journal.scan import Damage
from gateway.journal.segment import BLOCK_BYTES, FRAME_BYTES, FRAME_OVERHEAD
from gateway.journal.slots import Slots
from gateway.journal.state import Evicted, JournalStatus, Recovery, State, StreamStatus
from gateway.journal.storage import DISK, File, Storage

__all__ = [
    "Damage",
    "Evicted",
    "Journal",
    "JournalError",
    "JournalFull",
    "JournalStatus",
    "Recovery",
    "StreamStatus",
]

SEGMENT_BYTES = 1_048_576
"""One size for all streams, so that any file can serve any of them: the smallest loss, the quickest recycling."""
MIN_SEGMENTS = 8
"""Each stream holds on to its newest segment, and each needs room for the next."""
RECOVER_SEGMENTS = 2
"""Segments of each stream in which a restart within one boot looks for the newest record of each device."""
NO_QUOTA: Mapping[Stream, int] = {}


class Journal:
    """One hub's encrypted store-and-forward log. One process at a time. Make it with `Journal.open`."""

    def __init__(
        self,
        directory: Path,
        lock_file: File,
        *,
        hub: str,
        clock: Clock,
        access: Access,
        max_bytes: int,
        quota_bytes: Mapping[Stream, int],
        storage: Storage,
        segment_bytes: int,
        entropy: Callable[[int], bytes],
        codec: SampleCodec | None,
    ) -> None:
        """Recovers what is there; `open` has taken the lock."""
        self._clock = clock
        self._hub = hub
        self._access = access
        self._max_bytes = max_bytes
        self._segment_bytes = segment_bytes
        self._lock_file = lock_file
        self._codec = codec
        self._open = True
        self._lock = Lock()  # what is in memory; held briefly, never during I/O
        self._writing = Lock()  # who may change the disk
        self._state_slots = Slots(directory / "state", storage)
        state = State.parse(self._state_slots.load())
        epoch = check_epoch(directory, storage, hub, state) or entropy(16)
        identity = Identity(hub, epoch, clock.boot_id, cpu_algorithm(), segment_bytes)
        self.epoch = epoch.hex()
        """Names the life of this journal."""
        self._identity = identity
        self._cursor = Cursor(directory, storage, epoch)
        self._publisher = Publisher(directory, storage, hub, epoch, segment_bytes)
        self._pool = Pool(directory / "spare", storage, segment_bytes, max_bytes // segment_bytes)
        self._logs = {
            stream: StreamLog(
                stream,
                directory / stream,
                identity,
                access=access,
                storage=storage,
                pool=self._pool,
                lock=self._lock,
                entropy=entropy,
                codec=codec,
            )
            for stream in Stream
        }
        quota_segments = {s: -(-size // segment_bytes) for s, size in quota_bytes.items()}
        named = state.evicted if state else None
        self._evictions = Evictions(self._logs, self._lock, quota_segments, named)
        self._last_ns: dict[str, int] = {}
        self._recover(state)
        room = min(FRAME_BYTES, segment_bytes - 2 * BLOCK_BYTES - FRAME_OVERHEAD) - OVERHEAD
        following = {stream: log.high_water + 1 for stream, log in self._logs.items()}
        self._buffer = Buffer(self._lock, room, following)
        self.following = self._buffer.following
        """The sequence number that the next record of a stream gets."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        hub: str,
        clock: Clock,
        hub_key: HubKey,
        max_bytes: int,
        quota_bytes: Mapping[Stream, int] = NO_QUOTA,
        readers: tuple[Reader, ...] = (),
        storage: Storage = DISK,
        segment_bytes: int = SEGMENT_BYTES,
        entropy: Callable[[int], bytes] = os.urandom,
        codec: SampleCodec | None = None,
    ) -> "Journal":
        """Creates or recovers a journal. Damage never stops it.

        Args:
            directory: its parent exists.
            max_bytes: what all segment files together may take on disk.
            quota_bytes: what is promised to a stream: above it, it gives way to others.
            readers: who can open new segments, the hub alone if none; without the hub the journal is sealed.
            segment_bytes: whole blocks of 4 KiB.
            entropy: makes keys, nonces and the epoch; gives as many random bytes as asked for.
            codec: puts the samples of waveforms into blocks, where that is smaller; None leaves them as they came.

        Raises:
            JournalError: another process has it open, it belongs to another hub, the budget is too small, or the
                disk cannot be used.
        """
        if max_bytes < MIN_SEGMENTS * segment_bytes:
            raise JournalError(
                f"journal: max_bytes is {max_bytes}, expected at least"
                f" {MIN_SEGMENTS * segment_bytes} ({MIN_SEGMENTS} segments); raise it"
            )
        try:
            lock_file = lock(directory, storage)
        except OSError as error:
            raise JournalError(f"journal {directory}: cannot be opened: {error}") from error
        try:
            return cls(
                directory,
                lock_file,
                hub=hub,
                clock=clock,
                access=Access(hub_key, readers),
                max_bytes=max_bytes,
                quota_bytes=quota_bytes,
                storage=storage,
                segment_bytes=segment_bytes,
                entropy=entropy,
                codec=codec,
            )
        except OSError as error:
            lock_file.close()
            raise JournalError(f"journal {directory}: cannot be recovered: {error}") from error
        except JournalError:
            lock_file.close()
            raise

    def _recover(self, state: State | None) -> None:
        known = self._cursor.load()
        acknowledged = self._cursor.acknowledged.copy()
        for stream, log in self._logs.items():
            log.recover(max(state.high_water[stream] if state else 0, self._cursor.reached(stream)))
            if not known:
                # What is on disk is sent again. What is not was acknowledged or evicted, nobody knows which.
                acknowledged[stream] = log.first_sequence - 1
            self._evictions.recover(stream, acknowledged[stream])
            for batch in log.tail(self._clock.boot_id, RECOVER_SEGMENTS):
                for entry in batch.entries:
                    _note_time(self._last_ns, entry.device, at_ns(entry.record))
        self._pool.recover({stream: log.numbers for stream, log in self._logs.items()})
        self._cursor.begin(acknowledged)
        frames = [log.last_frame for log in self._logs.values() if log.last_frame]
        boot_id = state.boot_id if state else next((frame.boot_id for frame in frames), None)
        readings = [frame.clock for frame in frames if frame.boot_id == boot_id]
        self.recovery = Recovery(
            clean=state.clean if state else not frames,
            previous_boot_id=boot_id,
            last_commit=max(readings, key=lambda reading: reading.boottime_ns, default=None),
            damage=tuple(self.take_damage()),
        )
        """What this start found."""
        self._write_state(clean=False)
        self._publisher.publish([log.high_water for log in self._logs.values()])

    def append(self, device: str, record: Record, subject: str | None = None) -> int:
        """Takes a record into memory and returns its sequence number. It is durable after the next `commit`.

        Raises:
            JournalFull: `PENDING_BYTES` wait for a commit already; nothing was taken.
            JournalError: the record cannot be encoded, or is larger than a frame; nothing was taken.
        """
        self._check_open()
        data = encode_entry(device, subject, record)
        return self._buffer.add(stream_of(record), device, at_ns(record), data)

    @property
    def pending_bytes(self) -> int:
        """Bytes that are not durable yet."""
        return self._buffer.size_bytes

    def commit(self) -> None:
        """Makes everything that was appended before the call durable.

        Raises:
            JournalFull: the budget is used up by what must not be evicted.
            JournalError: the disk failed twice. In both cases what is not durable stays pending.
        """
        with self._writing:
            self._check_open()
            told = self._evictions.take_told()
            self._commit()
            if told:
                self._evictions.named |= told
                with suppress(OSError):  # then the next start names them again
                    self._write_state(clean=False)

    def _commit(self) -> None:
        reading = self._clock.read()
        follow_cursor(self._cursor, self._logs)
        errors: list[JournalError] = []
        for stream in self._buffer.waiting():
            try:
                self._commit_stream(stream, reading)
            except JournalError as error:
                errors.append(
                    error
                )  # the other streams have their own files, and may still be saved
        self._publisher.publish([log.high_water for log in self._logs.values()])
        if errors:
            raise errors[0]

    def _commit_stream(self, stream: Stream, reading: ClockReading) -> None:
        chunks = self._buffer.chunks(stream)
        if self._codec is not None and stream is Stream.WAVEFORM:
            chunks = [chunk.in_blocks(self._codec) for chunk in chunks]
        count = len(chunks)
        make_room = partial(self._evictions.make_room, stream, self._cursor.acknowledged)
        try:
            self._logs[stream].commit(chunks, reading, make_room)
        finally:
            for group in self._buffer.remove(stream, count - len(chunks)):
                for device, newest_ns in group.newest_ns.items():
                    _note_time(self._last_ns, device, newest_ns)

    def read(self, stream: Stream, after: int) -> Batch | None:
        """The batch with sequence `after + 1`, or the next readable one behind it. None when there is none yet.

        What it passes over comes out of `take_damage` or `take_evictions`. Only durable records are handed out; what
        only the clinic can open comes as a SealedBatch.
        """
        return self._logs[stream].read(after)

    def acknowledge(self, stream: Stream, sequence: int) -> None:
        """Everything up to `sequence` has arrived and need not be kept. Durable before anything is recycled.

        Raises:
            JournalError: nothing with that number was ever handed out, or the disk failed; the cursor stands.
        """
        with self._writing:
            self._check_open()
            log = self._logs[stream]
            if sequence > log.high_water:
                raise JournalError(
                    f"journal {stream}: got an acknowledgement of {sequence}, expected at most"
                    f" {log.high_water}; the receiver may know another journal by this hub's name"
                )
            try:
                self._cursor.take()
                if sequence <= self._cursor.acknowledged[stream]:
                    return
                self._cursor.write(self._cursor.acknowledged | {stream: sequence})
                log.recycle(sequence)
            except OSError as error:
                raise JournalError(f"journal {stream}: cannot acknowledge: {error}") from error

    def acknowledged(self, stream: Stream) -> int:
        """The last acknowledged sequence number."""
        return self._cursor.acknowledged[stream]

    def high_water(self, stream: Stream) -> int:
        """The last durable sequence number."""
        return self._logs[stream].high_water

    def last_ns(self, device: str) -> int | None:
        """CLOCK_BOOTTIME of the newest durable record of a device in this boot."""
        return self._last_ns.get(device)

    def take_evictions(self) -> list[Evicted]:
        """What was given up since the last call. Named again by each start until `told` and a commit after it."""
        return self._evictions.take()

    def told(self, evicted: Evicted) -> None:
        """The record that names an eviction is appended: once that is durable, no start names it again."""
        self._evictions.told(evicted)

    def take_damage(self) -> list[Damage]:
        """What was found unreadable since the last call. Named again by each start until the cursor has passed it."""
        found = [damage for log in self._logs.values() for damage in log.damage.take()]
        return [
            replace(damage, first_sequence=max(damage.first_sequence, acknowledged + 1))
            for damage in found
            if damage.last_sequence > (acknowledged := self._cursor.passed[damage.stream])
        ]

    def status(self) -> JournalStatus:
        """The journal in figures, for people and the heartbeat."""
        streams = tuple(
            StreamStatus(
                stream,
                log.high_water,
                self._cursor.acknowledged[stream],
                len(log.numbers) * self._segment_bytes,
                len(log.numbers),
                log.recent.bytes_s() if log.recent else None,
            )
            for stream, log in self._logs.items()
        )
        return JournalStatus(
            epoch=self.epoch,
            algorithm=ALGORITHMS[self._identity.algorithm],
            key_kind=self._access.key.kind,
            readers=self._access.names,
            size_bytes=self._pool.files * self._segment_bytes,
            max_bytes=self._max_bytes,
            pending_bytes=self._buffer.size_bytes,
            streams=streams,
        )

    def close(self) -> None:
        """Commits, marks an orderly end, and lets another process in. Harmless when closed already."""
        with self._writing:
            if not self._open:
                return
            self._open = False  # from here on nothing is accepted that this commit could miss
            try:
                told = self._evictions.take_told()
                self._commit()
                self._evictions.named |= told
                self._write_state(clean=True)
            except OSError as error:
                raise JournalError(f"journal: cannot mark the end: {error}") from error
            finally:
                for log in self._logs.values():
                    log.seal()
                self._publisher.close()
                self._cursor.release()
                self._lock_file.close()

    def _check_open(self) -> None:
        if not self._open:
            raise JournalError("journal: it is closed; open it again")

    def _write_state(self, *, clean: bool) -> None:
        numbers = {stream: log.high_water for stream, log in self._logs.items()}
        identity = self._identity
        named = self._evictions.named
        state = State(self._hub, identity.epoch, identity.boot_id, clean, numbers, named)
        self._state_slots.write(state.pack())


def _note_time(newest_ns: dict[str, int], device: str, at_ns: int) -> None:
    newest_ns[device] = max(at_ns, newest_ns.get(device, at_ns))

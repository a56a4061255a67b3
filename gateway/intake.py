"""From the links to the journal: one bounded queue, the conditioner, and the commits.

The queue is the only place where records wait in memory, and it is short. What waits longer waits on disk.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Protocol

from drivers.model import Event, Mode, Observation, Raw, Record
from gateway.clock import Clock
from gateway.clock_watch import ClockLog
from gateway.journal.entry import Stream, stream_of

QUEUE_RECORDS = 1024
COMMIT_NS = 1_000_000_000
COMMIT_BYTES = 65_536
NS_PER_S = 1_000_000_000


class Store(Protocol):
    """What the intake needs of the journal."""

    @property
    def pending_bytes(self) -> int:
        """Bytes appended and not yet committed."""
        ...

    def append(self, device: str, record: Record, subject: str | None = None) -> int:
        """Takes a record into memory."""
        ...

    def following(self, stream: Stream) -> int:
        """The sequence number that the next record of a stream gets."""
        ...

    def commit(self) -> None:
        """Makes what was appended durable. Blocks."""
        ...


class Conditions(Protocol):
    """What the intake needs of the conditioner."""

    def process(self, device: str, record: Record) -> Iterable[Record]:
        """The record itself, and what follows from it."""
        ...


@dataclass(frozen=True, slots=True)
class _Item:
    device: str
    subject: str | None
    record: Record | None
    done: "asyncio.Future[int] | None" = None
    before: Callable[[int], None] | None = None


class Intake:
    """The one writer of the journal."""

    def __init__(
        self,
        store: Store,
        conditioner: Conditions,
        clock: Clock,
        *,
        mode: Mode,
        committed: Callable[[], Iterable[Event]],
        clock_log: ClockLog | None = None,
    ) -> None:
        """Takes its neighbours.

        Args:
            store: the journal.
            conditioner: derives records from records.
            clock: decides when to commit.
            mode: stands in every observation unless it is "real".
            committed: called after each commit; wakes the uplink, and returns what the commit brought about.
            clock_log: says what each commit's reading of the clock is worth; None for a boot's first start.
        """
        self._store = store
        self._conditioner = conditioner
        self._clock = clock
        self._mode = mode
        self._committed = committed
        self._queue: asyncio.Queue[_Item] = asyncio.Queue(QUEUE_RECORDS)
        self._waiting: list[tuple[asyncio.Future[int], int]] = []
        self._commit_due_ns: int | None = None
        self._clock_log = clock_log or ClockLog(None)
        self._closing = False

    @property
    def waiting_records(self) -> int:
        """Records in the queue now."""
        return self._queue.qsize()

    def sink(self, device: str, subject: str | None) -> "DeviceSink":
        """Where the link of one device puts its records."""
        return DeviceSink(self, device, subject)

    async def put(self, device: str, record: Record, subject: str | None = None) -> None:
        """Takes a record; waits while the queue is full."""
        await self._queue.put(_Item(device, subject, record))

    async def durable(self) -> None:
        """Returns when everything put before is committed."""
        done = asyncio.get_running_loop().create_future()
        await self._queue.put(_Item("", None, None, done))
        await done

    async def keep(self, device: str, record: Record, subject: str | None = None) -> int:
        """Takes a record, and returns its sequence number when it is committed."""
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Item(device, subject, record, done))
        return await done

    async def keep_noted(self, event: Event, before: Callable[[int], None]) -> int:
        """As `keep`, for an event of the hub's own that must not come twice whenever the power fails.

        Args:
            event: goes past the conditioner.
            before: is told the sequence number that the event is going to have, in a worker thread, before the journal
                takes it. If it raises OSError, so does this, and the journal has not taken it.
        """
        done: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        await self._queue.put(_Item("", None, event, done, before))
        return await done

    async def close(self) -> None:
        """Commits everything put before, and lets `run` return."""
        self._closing = True
        await self.durable()

    async def run(self) -> None:
        """Writes until `close`. A journal that cannot be written ends it with the journal's own error."""
        while True:
            item = await self._next()
            urgent = False
            while item is not None:
                if await self._noted(item):
                    urgent = self._accept(item) or urgent
                if urgent or self._store.pending_bytes >= COMMIT_BYTES or self._queue.empty():
                    break
                item = self._queue.get_nowait()
            if urgent or self._due():
                await self._commit()
            if self._closing and self._queue.empty() and not self._waiting:
                return

    async def _next(self) -> _Item | None:
        """The next item; None when a commit is due first."""
        if self._commit_due_ns is None:
            return await self._queue.get()
        wait_s = max(0, self._commit_due_ns - self._clock.boottime_ns()) / NS_PER_S
        try:
            async with asyncio.timeout(wait_s):
                return await self._queue.get()
        except TimeoutError:
            return None

    async def _noted(self, item: _Item) -> bool:
        """False when the number could not be noted. Nobody else appends meanwhile, so the number holds."""
        if item.before is None or item.record is None:
            return True
        number = self._store.following(stream_of(item.record))
        try:
            await asyncio.to_thread(item.before, number)
        except OSError as error:
            if item.done is not None and not item.done.done():
                item.done.set_exception(error)
            return False
        return True

    def _accept(self, item: _Item) -> bool:
        """Appends what follows from an item; True when it must not wait for the next commit."""
        if item.record is None:
            if item.done is not None:
                self._waiting.append((item.done, 0))
            return True
        urgent = item.done is not None
        records: Iterable[Record] = (item.record,)
        if item.before is None:
            records = self._conditioner.process(item.device, item.record)
        for record in records:
            sequence = self._store.append(item.device, self._stamped(record), item.subject)
            if item.done is not None and record is item.record:
                self._waiting.append((item.done, sequence))
            urgent = urgent or stream_of(record) is Stream.ALARM
        if self._commit_due_ns is None:
            self._commit_due_ns = self._clock.boottime_ns() + COMMIT_NS
        return urgent

    def _stamped(self, record: Record) -> Record:
        if self._mode is Mode.REAL or not isinstance(record, Observation):
            return record
        return replace(record, quality=replace(record.quality, mode=self._mode))

    def _due(self) -> bool:
        if self._store.pending_bytes >= COMMIT_BYTES:
            return True
        return self._commit_due_ns is not None and self._clock.boottime_ns() >= self._commit_due_ns

    async def _commit(self) -> None:
        if (event := self._clock_log.look(self._clock.read())) is not None:
            self._store.append("", event)
        self._commit_due_ns = None
        waiting, self._waiting = self._waiting, []
        await asyncio.to_thread(self._store.commit)
        for done, sequence in waiting:
            if not done.done():
                done.set_result(sequence)
        for event in self._committed():
            self._store.append("", event)
            self._commit_due_ns = self._clock.boottime_ns() + COMMIT_NS


@dataclass(frozen=True, slots=True)
class DeviceSink:
    """A link's view of the intake: its device's name is on every record."""

    intake: Intake
    device: str
    subject: str | None

    async def put(self, record: Record) -> None:
        """See `gateway.link.Sink`."""
        await self.intake.put(self.device, record, self.subject)

    async def durable(self) -> None:
        """See `gateway.link.Sink`."""
        await self.intake.durable()

    async def keep(self, raw: Raw) -> int:
        """See `gateway.link.Sink`."""
        return await self.intake.keep(self.device, raw, self.subject)

"""The one loop that joins any session to any transport. Here a byte from a device becomes a record."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from drivers.contract import (
    Close,
    Driver,
    Malformed,
    Output,
    Read,
    Resume,
    Session,
    Subscribe,
    Write,
)
from drivers.model import Decoded, Event, EventKind, Observation, Raw, Record
from gateway.clock import Clock
from gateway.transport.base import Arrival, Reason, Transport, TransportError

log = logging.getLogger(__name__)

NS_PER_S = 1_000_000_000


class Sink(Protocol):
    """Where a link's records go."""

    async def put(self, record: Record) -> None:
        """Takes a record; waits while the hub has no room, and the device waits with it."""
        ...

    async def durable(self) -> None:
        """Returns when every record put before is in the journal for good."""
        ...

    async def keep(self, raw: Raw) -> int:
        """Returns the sequence number of the bytes when they are in the journal for good."""
        ...


def numbered(outputs: Iterable[Output], raw_sequence: int) -> Iterator[Output]:
    """The same outputs, each observation with its place in the bytes that it was decoded from."""
    index = 0
    for output in outputs:
        if isinstance(output, Observation):
            yield replace(output, decoded=Decoded(raw_sequence, index))
            index += 1
        else:
            yield output


@dataclass(slots=True)
class LinkCounters:
    """What came over a link since the hub started."""

    arrivals: int = 0
    bytes: int = 0
    records: int = 0
    malformed: int = 0
    dropped: int = 0


class Link:
    """One connection, from the moment the transport is open."""

    def __init__(
        self,
        driver: Driver,
        session: Session,
        transport: Transport,
        sink: Sink,
        clock: Clock,
        counters: LinkCounters,
        arrived: Callable[[], None],
    ) -> None:
        """`arrived` is called whenever bytes come."""
        self._driver = driver
        self._session = session
        self._transport = transport
        self._sink = sink
        self._clock = clock
        self._counters = counters
        self._arrived = arrived
        self._closed: str | None = None
        self._began_ns = clock.boottime_ns()

    async def run(self, resume: Resume) -> str:
        """Feeds the session until it asks to close, and returns its reason.

        Raises:
            TransportError: the link is lost or silent.
            Exception: anything else is a fault of the driver; the supervisor ends this session only.
        """
        try:
            await self._carry_out(lambda: self._session.start(self._clock.boottime_ns(), resume))
            heard_ns = self._clock.boottime_ns()
            while self._closed is None:
                arrival = await self._next(heard_ns)
                if arrival is None:
                    await self._carry_out(lambda: self._session.timeout(self._clock.boottime_ns()))
                    continue
                await self._take(arrival)
                heard_ns = self._clock.boottime_ns()
        except TransportError as error:
            if error.reason is Reason.LOST:
                await self._take_rest()
            raise
        else:
            return self._closed
        finally:
            await self._flush()

    async def _take_rest(self) -> None:
        """What had arrived before the link was lost: a cuff sends its reading and is gone, whatever was asked of it."""
        while True:
            try:
                arrival = await self._transport.receive()
            except TransportError:
                return
            with suppress(TransportError):
                await self._take(arrival)

    async def _next(self, heard_ns: int) -> Arrival | None:
        """The next arrival; None when the session's deadline comes first."""
        silent_ns = heard_ns + self._driver.silence_ns
        deadline_ns = self._session.deadline()
        until_ns = silent_ns if deadline_ns is None else min(silent_ns, deadline_ns)
        wait_s = max(0, until_ns - self._clock.boottime_ns()) / NS_PER_S
        try:
            async with asyncio.timeout(wait_s):
                return await self._transport.receive()
        except TimeoutError:
            if self._clock.boottime_ns() >= silent_ns:
                seconds = self._driver.silence_ns / NS_PER_S
                raise TransportError(Reason.SILENT, f"nothing came for {seconds:g} s") from None
            return None

    async def _take(self, arrival: Arrival) -> None:
        counters = self._counters
        self._arrived()
        counters.arrivals += 1
        counters.bytes += len(arrival.data)
        if arrival.dropped:
            counters.dropped += arrival.dropped
            text = f"{arrival.dropped} packets came faster than the hub took them"
            await self._put(
                Event(EventKind.GAP, arrival.at_ns, "overflow", text, lost=arrival.dropped)
            )
        source, data, at_ns = arrival.source, arrival.data, arrival.at_ns
        if self._driver.continuous:
            await self._carry_out(lambda: self._session.receive(source, data, at_ns), data)
            return
        # A spot measurement comes once. Its bytes are safe before a driver that may be wrong touches them.
        raw = await self._sink.keep(Raw(source, data, at_ns, self._began_ns))
        await self._carry_out(
            lambda: numbered(self._session.receive(source, data, at_ns), raw), data
        )

    async def _carry_out(self, call: Callable[[], Iterable[Output]], data: bytes = b"") -> None:
        """Carries out what the session says; its one allowed failure becomes a record with the bytes."""
        try:
            for output in call():
                await self._obey(output)
        except Malformed as malformed:
            await self._malformed(malformed, malformed.data or data)

    async def _obey(self, output: Output) -> None:
        match output:
            case Malformed():
                await self._malformed(output, output.data)
            case Subscribe(characteristic, optional):
                await self._ask(self._transport.subscribe(characteristic), optional=optional)
            case Read(characteristic, optional):
                await self._ask(self._transport.read(characteristic), optional=optional)
            case Write(characteristic, data, after_commit):
                if after_commit:
                    await self._sink.durable()
                await self._transport.write(characteristic, data)
            case Close(reason):
                self._closed = reason
            case record:
                await self._put(record)

    async def _ask(self, asked: Awaitable[None], *, optional: bool) -> None:
        try:
            await asked
        except TransportError as error:
            if not optional or error.reason is not Reason.REFUSED:
                raise
            log.debug("optional characteristic: %s", error.text)

    async def _malformed(self, malformed: Malformed, data: bytes) -> None:
        self._counters.malformed += 1
        now_ns = self._clock.boottime_ns()
        await self._put(
            Event(EventKind.MALFORMED, now_ns, malformed.reason, malformed.text, data[:256])
        )

    async def _put(self, record: Record) -> None:
        self._counters.records += 1
        await self._sink.put(record)

    async def _flush(self) -> None:
        """The last records that a session still holds; commands have nobody left to obey them."""
        for output in self._session.timeout(self._clock.boottime_ns()):
            if not isinstance(output, Subscribe | Read | Write | Close | Malformed):
                await self._put(output)

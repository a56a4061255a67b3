"""The uplink: durable batches to the broker, acknowledgements to the durable cursor.

One task does everything in turn: fill the window, then wait for a wake, an answer or a deadline. Nothing is queued
that the journal does not hold, so whatever happens to a connection, the next one starts again at the cursor.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque

from gateway.clock import Clock
from gateway.config import Hub
from gateway.journal.entry import Stream
from gateway.uplink.lane import Lane, Source
from gateway.uplink.notice import Mark, Notices
from gateway.uplink.outbound import Flight
from gateway.uplink.patience import NS_PER_S, Backoff, Patience, Timing, to_ns
from gateway.uplink.payload import Slice
from gateway.uplink.receipts import Receipts
from gateway.uplink.status import State, UplinkStatus
from gateway.uplink.wire import Incoming, Outgoing, Reason, UplinkError, Wire, WireFactory

log = logging.getLogger(__name__)

ENVELOPE_BYTES = 512
"""Room for topic, packet head and signature beside the payload in the broker's Maximum Packet Size."""


INBOX = 16


class Uplink:
    """Delivers one journal to one broker. `run` is its life; all methods are for the event loop's thread."""

    def __init__(
        self,
        source: Source,
        connect: WireFactory,
        clock: Clock,
        hub: Hub,
        *,
        version: str,
        window_bytes: int,
        rng: random.Random,
        timing: Timing | None = None,
        receipts: Receipts | None = None,
    ) -> None:
        """With `receipts` the journal is given free on the receiver's word, otherwise on the broker's."""
        self._receipts = receipts
        self._connect = connect
        self._clock = clock
        self._window_bytes = window_bytes
        self._timing = timing or Timing()
        self._backoff = Backoff(self._timing, rng)
        self._patience = Patience(self._timing)
        self._lanes = {
            stream: Lane(source, stream, by_receipt=receipts is not None) for stream in Stream
        }
        self._notices = Notices(hub, version, source.epoch)
        self._pending: deque[Outgoing] = deque(maxlen=2)
        """Status and heartbeat: of more than two the oldest says nothing any more."""
        self._notice_flights: dict[int, int] = {}
        """Message id to when it left."""
        self._inbox: deque[Incoming] = deque(maxlen=INBOX)
        self._heartbeat_ns = 0
        self._event = asyncio.Event()
        self._draining = False
        self._finished = asyncio.Event()
        self._lost: UplinkError | None = None
        self._state = State.CONNECTING
        self._trouble: UplinkError | None = None
        self._retry_ns: int | None = None
        self._failures = 0
        self._reconnects = 0
        self._refusals = 0

    # --- For the app ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something became durable."""
        self._event.set()

    async def run(self) -> None:
        """Delivers until cancelled, or until a `drain` is complete."""
        try:
            while not self._draining or not self._is_drained():
                self._state = State.CONNECTING
                try:
                    await self._connection()
                except UplinkError as error:
                    self._trouble = error
                    self._reconnects += 1
                    log.warning("uplink: %s", error)
                    await self._back_off()
        finally:
            self._state = State.STOPPED
            self._finished.set()

    async def drain(self, limit_s: float) -> bool:
        """Sends what is durable, a last heartbeat and "offline", and ends `run`. False when time was too short."""
        self._draining = True
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._finished.wait()
        return self._finished.is_set() and self._is_drained()

    def status(self) -> UplinkStatus:
        """How delivery stands now."""
        now, last_ns = self._clock.boottime_ns(), self._patience.last_answer_ns
        return UplinkStatus(
            state=self._state,
            reason=None if self._trouble is None else self._trouble.reason,
            text=None if self._trouble is None else self._trouble.text,
            retry_in_s=None
            if self._retry_ns is None
            else max(0.0, (self._retry_ns - now) / NS_PER_S),
            in_flight_messages=self._in_flight_messages(),
            in_flight_bytes=self._in_flight_bytes(),
            last_answer_age_s=None if last_ns is None else (now - last_ns) / NS_PER_S,
            round_trip_s=None if last_ns is None else self._patience.round_trip_ns / NS_PER_S,
            reconnects=self._reconnects,
            refusals=self._refusals,
            streams={stream: lane.status() for stream, lane in self._lanes.items()},
        )

    # --- One connection --------------------------------------------------------------------------------

    async def _connection(self) -> None:
        self._lost = None
        for lane in self._lanes.values():
            lane.connected()
        self._pending.clear()
        self._notice_flights.clear()
        self._inbox.clear()
        wire = await self._connect(self, self._notices.status(online=False))
        self._state, self._trouble = State.CONNECTED, None
        since_ns = self._clock.boottime_ns()
        log.info("uplink: connected")
        try:
            await self._deliver(wire)
            await wire.close()
        finally:
            wire.abort()
            if self._clock.boottime_ns() - since_ns > to_ns(self._timing.backoff_most):
                self._failures = 0
            await self._write_cursors(at_once=True)

    async def _deliver(self, wire: Wire) -> None:
        """Until drained. Raises UplinkError when the connection is gone or dead."""
        self._pending.append(self._notices.status(online=True))
        self._heartbeat_ns = self._clock.boottime_ns()
        farewell = False
        while True:
            self._event.clear()
            if self._lost is not None:
                raise self._lost
            self._check_answers()
            await self._take_receipts(wire)
            if self._clock.boottime_ns() >= self._heartbeat_ns:
                self._pending.append(self._heartbeat())
                self._heartbeat_ns = self._clock.boottime_ns() + to_ns(self._timing.heartbeat)
            await self._fill(wire)
            await self._write_cursors(at_once=False)
            if self._draining and self._is_drained() and not farewell:
                farewell = True
                self._heartbeat_ns = self._clock.boottime_ns() + to_ns(self._timing.heartbeat)
                self._pending.clear()
                self._pending.extend((self._heartbeat(), self._notices.status(online=False)))
            elif farewell and not self._pending and not self._notice_flights:
                return
            else:
                await self._pause(self._next_deadline_ns())

    async def _fill(self, wire: Wire) -> None:
        """Sends while the window is open: notices first, then the streams in their order."""
        limits = wire.limits
        while self._in_flight_messages() < limits.receive_maximum and self._lost is None:
            if self._pending:
                message_id = wire.publish(self._pending.popleft())
                self._notice_flights[message_id] = self._clock.boottime_ns()
                continue
            limit_bytes = limits.maximum_packet_bytes - ENVELOPE_BYTES
            if await self._probe(wire, limit_bytes):
                continue
            found = await self._next(limit_bytes)
            if found is None:
                return
            lane, piece = found
            size, flying = len(piece.payload), self._in_flight_bytes()
            if flying and flying + size > self._window_bytes:
                return
            message_id = wire.publish(Outgoing(self._notices.topic(lane.stream), piece.payload))
            now = self._clock.boottime_ns()
            lane.outbound.launch(message_id, Flight(piece.first, piece.last, size, now))
            lane.prepared.popleft()
            lane.messages += 1

    async def _probe(self, wire: Wire, limit_bytes: int) -> bool:
        """Asks the receiver, by sending again the oldest entries that it gave no receipt for."""
        for lane in self._lanes.values():
            now = self._clock.boottime_ns()
            piece = await lane.probe(limit_bytes, now)
            if piece is not None:
                log.debug(
                    "uplink: no receipt for %s from %d on, sent again", lane.stream, piece.first
                )
                message_id = wire.publish(Outgoing(self._notices.topic(lane.stream), piece.payload))
                self._notice_flights[message_id] = now
                return True
        return False

    async def _take_receipts(self, wire: Wire) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            wire.acknowledge(message.message_id)
            receipt = self._receipts.read(message) if self._receipts is not None else None
            for stream, held in receipt.streams.items() if receipt is not None else ():
                await self._lanes[stream].receipt(held, self._clock.boottime_ns())

    async def _next(self, limit_bytes: int) -> tuple[Lane, Slice] | None:
        """The next slice by the order of the streams; it stays prepared until it is sent."""
        for lane in self._lanes.values():
            if lane.rests(self._clock.boottime_ns()):
                continue
            piece = await lane.peek(limit_bytes)
            if piece is not None and len(piece.payload) <= limit_bytes:
                return lane, piece
            if piece is not None:
                text = f"entry {piece.first}: {len(piece.payload)} bytes, the broker takes {limit_bytes}"
                self._refuse(lane, text)
        return None

    # --- What the wire tells ---------------------------------------------------------------------------

    def answered(self, message_id: int, refusal: str | None) -> None:
        """A PUBACK came."""
        now = self._clock.boottime_ns()
        self._event.set()
        sent_ns = self._notice_flights.pop(message_id, None)
        if sent_ns is not None:
            self._patience.answered(sent_ns, now)
            if refusal is not None:
                self._refusals += 1
                log.warning("uplink: status, heartbeat or probe refused: %s", refusal)
            return
        for lane in self._lanes.values():
            flight = lane.outbound.land(message_id, accepted=refusal is None)
            if flight is None:
                continue
            self._patience.answered(flight.sent_ns, now)
            if refusal is not None:
                self._refuse(lane, refusal)
            else:
                self._failures = 0
                lane.accept()

    def lost(self, error: UplinkError) -> None:
        """The connection is gone."""
        self._lost = error
        self._event.set()

    def arrived(self, message: Incoming) -> None:
        """A receipt came. Each carries the whole truth, so of more than can wait the oldest is not missed."""
        self._inbox.append(message)
        self._event.set()

    # --- Waiting -----------------------------------------------------------------------------------------

    def _refuse(self, lane: Lane, refusal: str) -> None:
        """The stream rests with back-off; the others go on. Refusals of one window count once."""
        self._refusals += 1
        if lane.held_until_ns is None:
            lane.refusals += 1
        lane.refuse(refusal, self._clock.boottime_ns() + self._backoff.delay_ns(lane.refusals))
        log.warning("uplink: %s refused: %s", lane.stream, refusal)

    def _answer_due_ns(self) -> int | None:
        sent = [lane.outbound.oldest_ns for lane in self._lanes.values()]
        sent.extend(self._notice_flights.values())
        oldest = min((at for at in sent if at is not None), default=None)
        return None if oldest is None else oldest + self._patience.limit_ns

    def _check_answers(self) -> None:
        """A message may not be sent again on the same connection (MQTT 5.0, 4.4): so a new one is needed."""
        due = self._answer_due_ns()
        if due is not None and self._clock.boottime_ns() >= due:
            waited = self._patience.limit_ns / NS_PER_S
            self._patience.ran_out()
            raise UplinkError(Reason.TIMEOUT, f"a message got no PUBACK within {waited:.1f} s")

    async def _back_off(self) -> None:
        """Rests with full jitter; a drain that begins meanwhile is tried at once."""
        self._failures += 1
        self._state = State.BACKING_OFF
        self._retry_ns = self._clock.boottime_ns() + self._backoff.delay_ns(self._failures)
        was_draining = self._draining
        while self._clock.boottime_ns() < self._retry_ns and was_draining == self._draining:
            self._event.clear()
            await self._pause(self._retry_ns)
        self._retry_ns = None

    async def _pause(self, until_ns: int) -> None:
        seconds = max(0.0, (until_ns - self._clock.boottime_ns()) / NS_PER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def _next_deadline_ns(self) -> int:
        deadlines = [self._heartbeat_ns, self._answer_due_ns()]
        for lane in self._lanes.values():
            if not lane.outbound.in_flight:
                deadlines.append(lane.held_until_ns)
            deadlines.append(lane.probe_due_ns(self._clock.boottime_ns()))
            if lane.released > lane.written:
                deadlines.append(lane.written_ns + to_ns(self._timing.cursor))
        return min(at for at in deadlines if at is not None)

    async def _write_cursors(self, *, at_once: bool) -> None:
        """Once in a while, or when the stream has nothing else to do."""
        for lane in self._lanes.values():
            now = self._clock.boottime_ns()
            idle = not lane.outbound.in_flight and not lane.prepared
            due = at_once or idle or now >= lane.written_ns + to_ns(self._timing.cursor)
            if due and lane.released > lane.written:
                await lane.write_cursor(now)

    # --- Small parts -------------------------------------------------------------------------------------

    def _in_flight_messages(self) -> int:
        flying = sum(lane.outbound.in_flight for lane in self._lanes.values())
        return flying + len(self._notice_flights)

    def _in_flight_bytes(self) -> int:
        return sum(lane.outbound.in_flight_bytes for lane in self._lanes.values())

    def _is_drained(self) -> bool:
        return all(lane.is_delivered for lane in self._lanes.values())

    def _heartbeat(self) -> Outgoing:
        lanes = self._lanes.items()
        marks = {stream: Mark(lane.high_water, lane.released) for stream, lane in lanes}
        return self._notices.heartbeat(self._clock, marks)

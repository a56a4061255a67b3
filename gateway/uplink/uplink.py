"""The uplink: durable batches to the broker, acknowledgements to the durable cursor.

One task does everything in turn: fill the window, then wait for a wake, an answer or a deadline. Nothing is queued
that the journal does not hold, so whatever happens to a connection, the next one starts again at the cursor.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable

from gateway.clock import Clock
from gateway.config.delivery import Delivery
from gateway.config.device import Named
from gateway.config.hub import Hub
from gateway.uplink.asks import Asks
from gateway.uplink.command import Command
from gateway.uplink.lanes import Lanes
from gateway.uplink.letters import Letters
from gateway.uplink.notice import MAX_PENDING, Notices
from gateway.uplink.order import Policy, Unmetered
from gateway.uplink.patience import NS_PER_S, Backoff, OnePath, Pace, Timing, to_ns
from gateway.uplink.rate import Rate
from gateway.uplink.receipts import Receipts
from gateway.uplink.slices import MAX_PAYLOAD_BYTES
from gateway.uplink.source import Source
from gateway.uplink.status import State, UplinkStatus
from gateway.uplink.wire import Incoming, Outgoing, Reason, UplinkError, Wire, WireFactory

log = logging.getLogger(__name__)

ENVELOPE_BYTES = 512
"""Room for topic, packet head and signature beside the payload in the broker's Maximum Packet Size."""
PENDING_FEWER = (64, 16, 4, 1)
"""Spans of a stream in a heartbeat where `MAX_PENDING` are more than the broker takes."""
INBOX = 64
"""The Receive Maximum of the hub's session: a receipt that fell out unacknowledged would narrow it for good."""


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
        pace: Pace | None = None,
        policy: Policy | None = None,
        delivery: Delivery | None = None,
        commands: Callable[[Incoming], None] | None = None,
        devices: tuple[Named, ...] | None = None,
        give_back: Callable[[], None] = lambda: None,
    ) -> None:
        """With `receipts` the journal is given free on the receiver's word, otherwise on the broker's.

        Args:
            policy: what the link may carry; without one, everything.
            delivery: what the messages look like; without it, JSON.
            commands: takes what came on the topic of commands, at once; without it nobody may give any.
            devices: what the retained status names; None for none of its business.
            give_back: gives memory back; called with each heartbeat, of which a connection's first is at once, or failure.
        """
        self._receipts, self._commands, self._give_back = receipts, commands, give_back
        self._connect, self._clock, self._window_bytes = connect, clock, window_bytes
        self._timing, self._policy = timing or Timing(), policy or Unmetered()
        backoff = Backoff(self._timing, rng)
        self._pace = pace or OnePath(self._timing, backoff)
        self.asks = Asks(clock, self.wake)
        """What somebody wants now, whatever the policy says; and in `letters` what is said beside the journal."""
        self.letters = Letters(self.wake)
        self._lanes = Lanes(
            source,
            backoff,
            to_ns(self._timing.cursor),
            self._policy,
            self.asks,
            clock.boot_id,
            by_receipt=receipts is not None,
            payload_of=(delivery or Delivery()).payload_of,
        )
        self._notices = Notices(hub, version, source.epoch, devices)
        self._pending: deque[Outgoing] = deque(maxlen=2)
        """Status and heartbeat: of more than two the oldest says nothing any more."""
        self._notice_flights: dict[int, int] = {}
        """Message id to when it left."""
        self._inbox: deque[Incoming] = deque(maxlen=INBOX)
        self._rate = Rate(None)
        self._event = asyncio.Event()
        self._draining, self._finished = False, asyncio.Event()
        self._lost: UplinkError | None = None
        self._state = State.CONNECTING
        self._trouble: UplinkError | None = None
        self._retry_ns: int | None = None
        self._reconnects = self._refusals = self._heartbeat_ns = 0

    # --- For the app ---------------------------------------------------------------------------------

    def wake(self) -> None:
        """Something became durable."""
        self.asks.look(self._clock.read().wall_ns)
        self._event.set()

    async def run(self) -> None:
        """Delivers until cancelled, or until a `drain` is complete."""
        try:
            while not self._draining or not self._lanes.is_settled:
                self._state = State.CONNECTING
                try:
                    await self._connection()
                except UplinkError as error:
                    self._trouble = error
                    self._reconnects += 1
                    log.warning("uplink: %s", error)
                    self._pace.ended(error, self._clock.boottime_ns())
                    self._give_back()
                    await self._back_off()
        finally:
            await self._write_cursors()
            self._state = State.STOPPED
            self._finished.set()

    async def drain(self, limit_s: float) -> bool:
        """Sends what is durable, a last heartbeat and "offline", and ends `run`.

        Returns:
            Whether everything is delivered: False when time was too short, or the policy keeps some back.
        """
        self._draining = True
        self._lanes.is_draining = True
        self.wake()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await self._finished.wait()
        return self._finished.is_set() and self._lanes.is_delivered

    def status(self) -> UplinkStatus:
        """How delivery stands now."""
        now, last_ns = self._clock.boottime_ns(), self._pace.last_answer_ns
        return UplinkStatus(
            state=self._state,
            reason=None if self._trouble is None else self._trouble.reason,
            text=None if self._trouble is None else self._trouble.text,
            retry_in_s=None
            if self._retry_ns is None
            else max(0.0, (self._retry_ns - now) / NS_PER_S),
            in_flight_messages=self._in_flight,
            in_flight_bytes=self._lanes.in_flight_bytes,
            last_answer_age_s=None if last_ns is None else (now - last_ns) / NS_PER_S,
            round_trip_s=None if last_ns is None else self._pace.round_trip_ns / NS_PER_S,
            reconnects=self._reconnects,
            refusals=self._refusals + self._lanes.refusals,
            streams=self._lanes.status(),
        )

    # --- One connection --------------------------------------------------------------------------------

    async def _connection(self) -> None:
        self._lost = None
        self._lanes.connected()
        self._pending.clear()
        self._notice_flights.clear()
        self._inbox.clear()
        self.letters.connected()
        wire = await self._connect(self, self._notices.status(online=False))
        self._state, self._trouble = State.CONNECTED, None
        self._rate = Rate(wire.limits.publishes_per_s)
        self._pace.connected(self._clock.boottime_ns())
        log.info("uplink: connected")
        try:
            await self._deliver(wire)
            await wire.close()
        finally:
            wire.abort()

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
            self._take_messages(wire)
            if self._clock.boottime_ns() >= self._heartbeat_ns:
                self._give_back()
                self._pending.append(self._heartbeat(wire))
            has_room = await self._fill(wire)
            await self._lanes.write_cursors(self._clock.boottime_ns(), at_once=False)
            if self._draining and self._lanes.is_settled and not farewell:
                farewell = True
                self._pending.clear()
                self._pending.extend((self._heartbeat(wire), self._notices.status(online=False)))
            elif farewell and not self._pending and not self._notice_flights:
                return
            else:
                await self._pause(self._next_deadline_ns(has_room=has_room))

    async def _fill(self, wire: Wire) -> bool:
        """Sends while the window is open: notices, probes, then the streams in their order. False when it is full.

        The window is what lies before an alarm: itself it needs no room there, and one message of the broker's Receive
        Maximum is kept for it.
        """
        limits = wire.limits
        limit_bytes = limits.maximum_packet_bytes - ENVELOPE_BYTES
        kept = min(limits.receive_maximum - 1, 1)
        while (room := limits.receive_maximum - self._in_flight) > 0 and self._lost is None:
            now = self._clock.boottime_ns()
            if not self._rate.has_room(self._in_flight, now):
                return False
            urgent_only = room <= kept or not self._rate.has_room(
                self._in_flight, now, urgent=False
            )
            if not urgent_only and self._pending:
                notice = self._pending.popleft()
                if len(notice.payload) <= limit_bytes:
                    self._notice_flights[wire.publish(notice)] = now
                continue
            if not urgent_only and (
                letter := self.letters.next(min(limit_bytes, MAX_PAYLOAD_BYTES))
            ):
                message_id = wire.publish(letter)
                self.letters.left(message_id, letter)
                self._notice_flights[message_id] = now
                continue
            if not urgent_only and (probe := await self._lanes.probe(limit_bytes, now)) is not None:
                stream, piece = probe
                message = Outgoing(self._notices.topic(stream), piece.payload)
                self._notice_flights[wire.publish(message)] = now
                continue
            ready = await self._lanes.next(limit_bytes, self._clock.read(), urgent_only=urgent_only)
            if ready is None:
                return not urgent_only
            if not self._lanes.fits(ready, self._window_bytes):
                return False
            message = Outgoing(self._notices.topic(ready.lane.stream), ready.piece.payload)
            self._lanes.launch(ready, wire.publish(message), self._clock.boottime_ns())
        return False

    def _take_messages(self, wire: Wire) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            wire.acknowledge(message.message_id)
            if self._commands is not None and Command.is_topic(message.topic):
                self._commands(message)
                continue
            receipt = self._receipts.read(message) if self._receipts is not None else None
            if receipt is not None:
                self._lanes.receipt(receipt, self._clock.boottime_ns())

    # --- What the wire tells ---------------------------------------------------------------------------

    def answered(self, message_id: int, refusal: str | None) -> None:
        """A PUBACK came."""
        now = self._clock.boottime_ns()
        self._event.set()
        self.letters.answered(message_id)
        self._rate.answered(now)
        sent_ns = self._notice_flights.pop(message_id, None)
        if sent_ns is not None:
            self._pace.answered(sent_ns, now, accepted=False)
            if refusal is not None:
                self._refusals += 1
                log.warning("uplink: status, heartbeat, probe or answer refused: %s", refusal)
            return
        flight = self._lanes.land(message_id, refusal, now)
        if flight is not None:
            self._pace.answered(flight.sent_ns, now, accepted=refusal is None)

    def lost(self, error: UplinkError) -> None:
        """The connection is gone."""
        self._lost = error
        self._event.set()

    def arrived(self, message: Incoming) -> None:
        """A receipt or a command came. They are given at QoS 1, so the session's Receive Maximum bounds those that wait."""
        if message.message_id:
            self._inbox.append(message)
            self._event.set()

    # --- Waiting -----------------------------------------------------------------------------------------

    def _oldest_ns(self) -> int | None:
        sent = [*self._lanes.oldest_ns(), *self._notice_flights.values()]
        return min((at for at in sent if at is not None), default=None)

    def _check_answers(self) -> None:
        """A message may not be sent again on the same connection (MQTT 5.0, 4.4): so a new one is needed."""
        oldest, now = self._oldest_ns(), self._clock.boottime_ns()
        if oldest is not None and self._pace.is_dead(oldest, now):
            waited = (now - oldest) / NS_PER_S
            raise UplinkError(Reason.TIMEOUT, f"a message got no PUBACK within {waited:.1f} s")

    async def _back_off(self) -> None:
        """Rests with full jitter; a drain that begins meanwhile is tried at once."""
        self._state = State.BACKING_OFF
        was_draining, is_written = self._draining, False
        while was_draining == self._draining:
            now = self._clock.boottime_ns()
            self._retry_ns = self._pace.retry_ns(now)
            if self._retry_ns is not None and now >= self._retry_ns:
                break
            self._event.clear()
            if not is_written:
                # Not where another link is to be taken at once: a slow card must not hold that up.
                is_written = True
                await self._write_cursors()
                continue
            await self._pause(self._retry_ns)
        self._retry_ns = None

    async def _write_cursors(self) -> None:
        await self._lanes.write_cursors(self._clock.boottime_ns(), at_once=True)

    async def _pause(self, until_ns: int | None) -> None:
        seconds = None
        if until_ns is not None:
            seconds = max(0.0, (until_ns - self._clock.boottime_ns()) / NS_PER_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._event.wait()

    def _next_deadline_ns(self, *, has_room: bool) -> int:
        deadlines = self._lanes.deadlines(self._clock.boottime_ns(), has_room=has_room)
        oldest = self._oldest_ns()
        due = None if oldest is None else self._pace.due_ns(oldest)
        rate_due = None if has_room else self._rate.due_ns(self._clock.boottime_ns())
        times = [self._heartbeat_ns, due, rate_due, *deadlines]
        return min(at for at in times if at is not None)

    @property
    def _in_flight(self) -> int:
        return self._lanes.in_flight + len(self._notice_flights)

    def _heartbeat(self, wire: Wire) -> Outgoing:
        """As exact as the broker takes it: fewer spans say that more is still to come, and never that less is.

        Sets the time of the next one.
        """
        interval_ns = self._policy.heartbeat_ns() or to_ns(self._timing.heartbeat)
        self._heartbeat_ns = self._clock.boottime_ns() + interval_ns
        limit_bytes = wire.limits.maximum_packet_bytes - ENVELOPE_BYTES
        heartbeat = self._notices.heartbeat(self._clock, self._lanes.marks(MAX_PENDING))
        for most in PENDING_FEWER:
            if len(heartbeat.payload) <= limit_bytes:
                break
            heartbeat = self._notices.heartbeat(self._clock, self._lanes.marks(most))
        return heartbeat

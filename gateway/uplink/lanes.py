"""All streams of one journal on their way out, in the order in which they are sent."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.clock import ClockReading
from gateway.config.delivery import Payload
from gateway.journal.entry import Stream
from gateway.uplink.asks import Asks
from gateway.uplink.lane import Lane, too_large
from gateway.uplink.notice import Mark
from gateway.uplink.order import COMMIT_NS, ORDER, RANK, Age, Policy
from gateway.uplink.outbound import Flight
from gateway.uplink.patience import Backoff
from gateway.uplink.receipt import Receipt
from gateway.uplink.slices import Slice
from gateway.uplink.source import Source
from gateway.uplink.status import StreamStatus

log = logging.getLogger(__name__)


URGENT = ((Stream.ALARM, Age.LIVE),)


@dataclass(frozen=True, slots=True)
class Ready:
    """A slice that may leave now, and why."""

    lane: Lane
    age: Age
    piece: Slice


class Lanes:
    """What to send next, what is under way, and what may be given free.

    Attributes:
        is_held_back: the policy kept something back when it was last asked.
        is_draining: nothing gathers any more.
    """

    def __init__(
        self,
        source: Source,
        backoff: Backoff,
        cursor_ns: int,
        policy: Policy,
        asks: Asks,
        boot_id: str,
        *,
        by_receipt: bool,
        payload_of: Callable[[Stream], Payload],
    ) -> None:
        """A durable cursor is written at most once in `cursor_ns`."""
        self._lanes = {
            stream: Lane(source, stream, asks, by_receipt=by_receipt, payload=payload_of(stream))
            for stream in Stream
        }
        self._in_order = sorted(self, key=lambda lane: RANK[lane.stream])
        self._backoff = backoff
        self._cursor_ns = cursor_ns
        self._policy = policy
        self._source = source
        self._boot_id = boot_id
        self.is_held_back = False
        self.is_draining = False
        self._asks = asks
        asks.follow(self._lanes)
        self.refusals = 0

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    @property
    def in_flight(self) -> int:
        """Messages without an answer."""
        return sum(lane.outbound.in_flight for lane in self)

    @property
    def in_flight_bytes(self) -> int:
        """Their payload bytes."""
        return sum(lane.outbound.in_flight_bytes for lane in self)

    @property
    def is_delivered(self) -> bool:
        """Everything durable is where it has to be."""
        return all(lane.is_delivered for lane in self)

    @property
    def is_settled(self) -> bool:
        """It is, but for what the policy keeps back; of that nothing is on its way."""
        if self.is_delivered:
            return True
        under_way = any(lane.outbound.in_flight or lane.outbound.unreceipted for lane in self)
        resting = any(lane.held_until_ns is not None for lane in self)
        return self.is_held_back and not under_way and not resting

    def connected(self) -> None:
        """A new connection."""
        for lane in self:
            lane.connected()

    async def next(
        self, limit_bytes: int, now: ClockReading, *, urgent_only: bool = False
    ) -> Ready | None:
        """What is next; it stays prepared until it is sent. With `urgent_only` nothing but an alarm is."""
        self._asks.look(now.wall_ns)
        self.is_held_back = False
        await self._search(now)
        for stream, age in URGENT if urgent_only else (*URGENT, *ORDER):
            lane = self._lanes[stream]
            live = age is Age.LIVE and stream is not Stream.ALARM
            if lane.rests(now.boottime_ns):
                continue
            if live and not self.is_draining and lane.gathering.holds(now.boottime_ns):
                continue
            piece = await lane.peek(age, limit_bytes, now.boottime_ns)
            if piece is None:
                if live:
                    lane.gathering.caught_up(now.boottime_ns + self._policy.gather_ns())
                continue
            if len(piece.payload) > limit_bytes:
                self._refuse(lane, too_large(piece, limit_bytes), now.boottime_ns)
            elif (
                stream is Stream.ALARM
                or age is Age.ASKED
                or self._policy.may_send(stream, age, len(piece.payload), now.boottime_ns)
            ):
                return Ready(lane, age, piece)
            self.is_held_back = True
        return None

    async def _search(self, now: ClockReading) -> None:
        """Looks for what was asked for: a bounded part of the journal each time."""
        ask = self._asks.unsearched()
        if ask is not None:
            until_ns = ask.until_wall_ns + COMMIT_NS
            spans, all_of_it = await asyncio.to_thread(
                self._source.during, ask.stream, ask.from_wall_ns, until_ns, self._boot_id, now
            )
            self._asks.found(ask, spans, all_of_it=all_of_it)

    def fits(self, ready: Ready, window_bytes: int) -> bool:
        """Whether a slice fits into the window. Alarms have one of their own."""
        alarm = self._lanes[Stream.ALARM].outbound.in_flight_bytes
        flying = alarm if ready.lane.stream is Stream.ALARM else self.in_flight_bytes - alarm
        return not flying or flying + len(ready.piece.payload) <= window_bytes

    def launch(self, ready: Ready, message_id: int, now_ns: int) -> None:
        """What `next` gave left."""
        lane, age, piece = ready.lane, ready.age, ready.piece
        lane.launch(age, message_id, piece, now_ns)
        self._policy.sent(lane.stream, age, len(piece.payload))
        if age is Age.ASKED:
            self._asks.sent(lane.stream, piece.first, piece.last)
        if lane.stream is Stream.ALARM:
            # Whoever looks at it wants to see what came with it, and the radio is awake.
            for other in self:
                other.gathering.hurry()

    async def probe(self, limit_bytes: int, now_ns: int) -> tuple[Stream, Slice] | None:
        """The last entry of a stream that the receiver gave no receipt for in good time; None when there is none."""
        for lane in self._in_order:
            piece = await lane.probe(now_ns)
            if piece is not None and len(piece.payload) > limit_bytes:
                self._refuse(lane, too_large(piece, limit_bytes), now_ns)
            elif piece is not None:
                log.debug("uplink: %s from %d on: no receipt, sent again", lane.stream, piece.first)
                return lane.stream, piece
        return None

    def land(self, message_id: int, refusal: str | None, now_ns: int) -> Flight | None:
        """An answer came. Returns its flight, or None when it answers no batch."""
        for lane in self:
            flight = lane.outbound.land(message_id, accepted=refusal is None)
            if flight is None:
                continue
            if refusal is not None:
                self._refuse(lane, refusal, now_ns)
            else:
                lane.accept()
            return flight
        return None

    def _refuse(self, lane: Lane, refusal: str, now_ns: int) -> None:
        """The stream rests with back-off; the others go on. Refusals of one window count once."""
        self.refusals += 1
        if lane.held_until_ns is None:
            lane.refusals += 1
        lane.refuse(refusal, now_ns + self._backoff.delay_ns(lane.refusals))
        log.warning("uplink: %s refused: %s", lane.stream, refusal)

    def receipt(self, receipt: Receipt, now_ns: int) -> None:
        """The receiver says what it holds. What that shows to be lost is sent again in the order of the streams.

        A busy stream shows its losses at once, a quiet one only when it is asked. So where one lost something, those
        before it are asked, and it waits until they are heard of.
        """
        may_resend, last = True, -1
        for lane in self._in_order:
            held = receipt.streams.get(lane.stream)
            if held is not None:
                lane.receipt(held, now_ns, may_resend=may_resend)
            may_resend = may_resend and not _is_in_doubt(lane, now_ns)
            if lane.outbound.is_suspected:
                last = RANK[lane.stream]
        for lane in self._in_order:
            if lane.release is not None and RANK[lane.stream] < last:
                lane.release.ask(now_ns, lane.outbound.sent)
            elif lane.release is not None:
                lane.release.reassure()

    async def write_cursors(self, now_ns: int, *, at_once: bool) -> None:
        """Once in a while."""
        for lane in self:
            due = at_once or now_ns >= lane.written_ns + self._cursor_ns
            if due and lane.needs_writing:
                await lane.write_cursor(now_ns)

    def oldest_ns(self) -> list[int | None]:
        """When the oldest unanswered message of each stream left."""
        return [lane.outbound.oldest_ns for lane in self]

    def deadlines(self, now_ns: int, *, has_room: bool) -> Iterator[int | None]:
        """When something is to be done if nothing happens. Without room in the window, an answer comes first."""
        if has_room and self.is_held_back:
            yield self._policy.next_change_ns(now_ns)
        if has_room and self._asks.unsearched() is not None:
            yield now_ns
        for lane in self:
            if has_room and not lane.outbound.in_flight:
                yield lane.held_until_ns
            if has_room:
                yield lane.probe_due_ns(now_ns)
            if has_room and lane.gathering.holds(now_ns):
                yield lane.gathering.until_ns
            if lane.needs_writing:
                yield lane.written_ns + self._cursor_ns

    def marks(self, most: int) -> dict[Stream, Mark]:
        """How far each stream reaches, for the heartbeat, in at most so many spans of each."""
        return {lane.stream: lane.mark(most) for lane in self}

    def status(self) -> dict[Stream, StreamStatus]:
        """How each stream stands."""
        return {lane.stream: lane.status() for lane in self}


def _is_in_doubt(lane: Lane, now_ns: int) -> bool:
    """Whether it may have lost something of which nobody heard yet."""
    mark = None if lane.release is None else lane.release.asked_for(now_ns)
    return mark is not None and not lane.outbound.is_clear(mark)

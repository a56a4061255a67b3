"""All streams of one journal on their way out, in the order in which they are sent."""

import logging
from collections.abc import Callable, Iterator

from gateway.clock import ClockReading
from gateway.config.delivery import Payload
from gateway.journal.entry import Stream
from gateway.uplink.asks import Asks
from gateway.uplink.lane import Lane, Source
from gateway.uplink.notice import Mark
from gateway.uplink.order import Age, Policy
from gateway.uplink.outbound import Flight
from gateway.uplink.patience import Backoff
from gateway.uplink.receipt import Receipt
from gateway.uplink.slices import Slice
from gateway.uplink.status import StreamStatus

log = logging.getLogger(__name__)


class Lanes:
    """What to send next, what is under way, and what may be given free. The first stream goes first."""

    def __init__(
        self,
        source: Source,
        backoff: Backoff,
        cursor_ns: int,
        policy: Policy,
        asks: Asks,
        *,
        by_receipt: bool,
        payload_of: Callable[[Stream], Payload],
    ) -> None:
        """A durable cursor is written at most once in `cursor_ns`."""
        self._lanes = {
            stream: Lane(source, stream, by_receipt=by_receipt, payload=payload_of(stream))
            for stream in Stream
        }
        self._backoff = backoff
        self._cursor_ns = cursor_ns
        self._policy = policy
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

    def connected(self) -> None:
        """A new connection."""
        for lane in self:
            lane.connected()

    async def next(self, limit_bytes: int, now: ClockReading) -> tuple[Lane, Slice] | None:
        """The next slice by the order of the streams; it stays prepared until it is sent."""
        self._asks.look(now.wall_ns)
        for lane in self:
            if lane.rests(now.boottime_ns):
                continue
            piece = await lane.peek(limit_bytes)
            if piece is None:
                continue
            if len(piece.payload) > limit_bytes:
                self._refuse(lane, _too_large(piece, limit_bytes), now.boottime_ns)
            elif self._may_send(lane, piece, now.boottime_ns):
                return lane, piece
        return None

    def launch(self, lane: Lane, message_id: int, piece: Slice, now_ns: int) -> None:
        """The slice that `next` gave left."""
        age = self._age(lane, piece)
        lane.launch(message_id, piece, now_ns)
        self._policy.sent(lane.stream, age, len(piece.payload))
        if age is Age.ASKED:
            self._asks.sent(lane.stream, piece.first, piece.last)

    def _age(self, lane: Lane, piece: Slice) -> Age:
        if self._asks.covers(lane.stream, piece.first):
            return Age.ASKED
        return Age.LIVE if piece.first > lane.live_from else Age.BACKLOG

    def _may_send(self, lane: Lane, piece: Slice, now_ns: int) -> bool:
        age = self._age(lane, piece)
        if lane.stream is Stream.ALARM or age is Age.ASKED:
            return True
        return self._policy.may_send(lane.stream, age, len(piece.payload), now_ns)

    async def probe(self, limit_bytes: int, now_ns: int) -> tuple[Stream, Slice] | None:
        """The oldest entry of a stream that the receiver gave no receipt for in good time; None when there is none."""
        for lane in self:
            piece = await lane.probe(now_ns)
            if piece is not None and len(piece.payload) > limit_bytes:
                self._refuse(lane, _too_large(piece, limit_bytes), now_ns)
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

    async def receipt(self, receipt: Receipt, now_ns: int) -> None:
        """The receiver says what it holds."""
        for stream, held in receipt.streams.items():
            await self._lanes[stream].receipt(held, now_ns)

    async def write_cursors(self, now_ns: int, *, at_once: bool) -> None:
        """Once in a while."""
        for lane in self:
            due = at_once or now_ns >= lane.written_ns + self._cursor_ns
            if due and lane.released > lane.written:
                await lane.write_cursor(now_ns)

    def oldest_ns(self) -> list[int | None]:
        """When the oldest unanswered message of each stream left."""
        return [lane.outbound.oldest_ns for lane in self]

    def deadlines(self, now_ns: int, *, has_room: bool) -> Iterator[int | None]:
        """When something is to be done if nothing happens. Without room in the window, an answer comes first."""
        if has_room:
            yield self._policy.next_change_ns(now_ns)
        for lane in self:
            if has_room and not lane.outbound.in_flight:
                yield lane.held_until_ns
            if has_room:
                yield lane.probe_due_ns(now_ns)
            if lane.released > lane.written:
                yield lane.written_ns + self._cursor_ns

    def marks(self) -> dict[Stream, Mark]:
        """How far each stream reaches, for the heartbeat."""
        return {lane.stream: lane.mark() for lane in self}

    def status(self) -> dict[Stream, StreamStatus]:
        """How each stream stands."""
        return {lane.stream: lane.status() for lane in self}


def _too_large(piece: Slice, limit_bytes: int) -> str:
    return f"entry {piece.first}: {len(piece.payload)} bytes, the broker takes {limit_bytes}"

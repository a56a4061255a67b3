"""One stream on its way out: which of its entries is next, what is prepared, and whether the broker refuses it."""

import asyncio
import logging
from collections import deque
from dataclasses import replace

from gateway.config.delivery import Payload
from gateway.journal.entry import Batch, PackedBatch, SealedBatch, Stream
from gateway.uplink.asks import Asks
from gateway.uplink.front import Front
from gateway.uplink.gathering import LONG_AGO_NS, Gathering
from gateway.uplink.notice import Mark
from gateway.uplink.order import Age
from gateway.uplink.outbound import Outbound
from gateway.uplink.packed import READ_BYTES, packed_slices
from gateway.uplink.receipt import Held
from gateway.uplink.release import Release
from gateway.uplink.sealed import sealed_slices
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, Slice, slices
from gateway.uplink.source import Source, Span
from gateway.uplink.spans import Spans
from gateway.uplink.status import StreamStatus

log = logging.getLogger(__name__)

UNRECEIPTED_MOST = 16_384
"""Entries of a stream that may be without a receipt, alarms apart: some megabytes, and more than a receiver takes in
the second between two receipts. What waits beyond waits in the journal, and not in a broker that may overflow."""
ASIDE_MOST = 64
"""Entries that a connection sets aside; then the stream rests, so that a backlog is not read in vain."""


class Lane:
    """One stream of the journal, slice by slice.

    Attributes:
        written: the durable cursor, and when it was written.
        held_until_ns: a refused stream rests until then; None when it does not rest.
        gathering: what is live and waits for more.
        release: the patience with its receiver; None where the broker's word gives free.
    """

    def __init__(
        self,
        source: Source,
        stream: Stream,
        asks: Asks,
        *,
        by_receipt: bool,
        payload: Payload = Payload.JSON,
    ) -> None:
        """With `by_receipt` entries are given free on the receiver's word, otherwise on the broker's."""
        self._source = source
        self._payload = payload
        self.stream = stream
        cursor = source.acknowledged(stream)
        known = Spans(source.remembered(stream)).within(1, source.high_water(stream))
        self.outbound = Outbound(cursor, known, by_receipt=by_receipt)
        self.release = Release() if by_receipt else None
        self._prepared: dict[Age, deque[Slice]] = {}
        """Of one reading for each age, the next first."""
        self._front = Front(source, stream, self.outbound, asks)
        self.written = self.outbound.cursor
        self._remembered = [*self.outbound.delivered]
        self.written_ns = LONG_AGO_NS
        self.messages = 0
        self.evicted = 0
        self.refusals = 0
        self.refusal: str | None = None
        self._aside_refusal: str | None = None
        self.held_until_ns: int | None = None
        self.gathering = Gathering()

    @property
    def high_water(self) -> int:
        """The last durable sequence number."""
        return self._source.high_water(self.stream)

    @property
    def is_delivered(self) -> bool:
        """Everything durable is where it has to be."""
        return self.released >= self.high_water

    @property
    def released(self) -> int:
        """Up to here the journal may forget."""
        return self.outbound.cursor

    @property
    def needs_writing(self) -> bool:
        """The durable cursor says less than is known."""
        outbound = self.outbound
        return outbound.cursor > self.written or [*outbound.delivered] != self._remembered

    def undelivered(self) -> Spans:
        """Everything that is still to come."""
        self.outbound.extend(self.high_water)
        return Spans(self.outbound.undelivered())

    def connected(self) -> None:
        """A new connection: what has no answer is to be sent again."""
        self.outbound.disconnected()
        self._aside_refusal = None
        self._prepared.clear()
        self.held_until_ns = None
        self.gathering.hurry()
        if self.release is not None:
            self.release.connected()

    # --- On the receiver's word ------------------------------------------------------------------------

    def probe_due_ns(self, now_ns: int) -> int | None:
        """When the receiver is to be asked with a probe; None while it need not be."""
        if self.release is None:
            return None
        return self.release.due_ns(now_ns, waits=self.outbound.last_unreceipted is not None)

    async def probe(self, now_ns: int) -> Slice | None:
        """The entry that was sent last, once more; None while it is not time."""
        due_ns = self.probe_due_ns(now_ns)
        while self.release is not None and due_ns is not None and now_ns >= due_ns:
            last = self.outbound.last_unreceipted
            if last is None:
                break
            # One entry asks as well as many, and costs a metered link the least.
            pieces = await self._prepare((last, last), limit_bytes=0)
            if pieces:
                self.release.probed(now_ns)
                return pieces[0]
        return None

    def receipt(self, held: Held, now_ns: int, *, may_resend: bool = True) -> None:
        """The receiver says what it holds."""
        if self.release is not None and self.outbound.receipt(held, now_ns, may_resend=may_resend):
            self.release.moved(now_ns)

    # --- Refusals --------------------------------------------------------------------------------------

    def refuse(self, refusal: str, until_ns: int) -> None:
        """Rests until then. It is tried again for ever and never skipped: what was accepted is not dropped."""
        self.refusal = refusal
        self.held_until_ns = until_ns

    def rests(self, now_ns: int) -> bool:
        """Whether it must wait: its time has not come, or a part of it is still under way."""
        if self.held_until_ns is None:
            return False
        if now_ns < self.held_until_ns or self.outbound.in_flight:
            return True
        self._prepared.clear()
        self.held_until_ns = None
        return False

    def accept(self) -> None:
        """An answer was good: the refusals, if any, are over."""
        if self.held_until_ns is None:
            self.refusals, self.refusal = 0, None

    # --- What is next ----------------------------------------------------------------------------------

    async def peek(self, age: Age, packet_limit_bytes: int, now_ns: int) -> Slice | None:
        """The next slice of an age, in at most `packet_limit_bytes` unless too many do not fit; None when there is none.

        An alarm is always live: they go in their order.
        """
        self.outbound.extend(self.high_water)
        if self.stream is not Stream.ALARM and self.outbound.unreceipted >= UNRECEIPTED_MOST:
            # The receiver is away or slow: what it has not said to have would only pile up in the broker.
            return None
        while (front := await self._front.next(age, now_ns)) is not None:
            prepared = self._prepared.get(age)
            if not prepared or prepared[0].first != front[0] or prepared[0].last > front[1]:
                pieces = await self._prepare(front, min(MAX_PAYLOAD_BYTES, packet_limit_bytes))
                if not pieces:
                    continue
                prepared = self._prepared[age] = deque(pieces)
            piece = prepared[0]
            if len(piece.payload) <= packet_limit_bytes or self.outbound.aside.count >= ASIDE_MOST:
                return piece
            # It is kept, and holds up no other.
            self._aside_refusal = too_large(piece, packet_limit_bytes)
            log.warning("uplink: %s set aside: %s", self.stream, self._aside_refusal)
            self.outbound.pending.remove(piece.first, piece.last)
            self.outbound.aside.add(piece.first, piece.last)
        self._prepared.pop(age, None)
        return None

    def launch(self, age: Age, message_id: int, piece: Slice, now_ns: int) -> None:
        """The prepared slice of an age left."""
        if age is Age.LIVE:
            self.gathering.left()
        self._prepared[age].popleft()
        self.outbound.launch(message_id, piece.first, piece.last, len(piece.payload), now_ns)
        self.messages += 1
        if self.release is not None:
            self.release.sent(now_ns)

    async def _prepare(self, front: Span, limit_bytes: int) -> list[Slice]:
        """What begins with the first entry of a span. Nothing when that is gone, which is then known of all that is."""
        high_water = self.high_water
        there, pieces = await asyncio.to_thread(self._pieces, front, high_water, limit_bytes)
        if not pieces:
            # Evicted for want of room, or unreadable, and named as such: nothing is left to deliver.
            last = high_water if there is None else there - 1
            self.evicted += self.outbound.gone(front[0], last)
        return pieces

    def _pieces(
        self, front: Span, high_water: int, limit_bytes: int
    ) -> tuple[int | None, list[Slice]]:
        """In a worker thread: where the journal goes on, and messages if that is where the span begins."""
        first, last = front
        if self._payload is Payload.CBOR:
            batches = self._source.read_packed(self.stream, first - 1, last, READ_BYTES)
        else:
            batch = self._source.read(self.stream, first - 1)
            batches = () if batch is None else (batch,)
            if isinstance(batch, SealedBatch):
                end = batch.last_sequence
                behind = self._source.read_packed(self.stream, end, last, READ_BYTES)
                if behind and behind[0].first_sequence == end + 1:
                    batches += behind
        if not batches or batches[0].first_sequence > first:
            return batches[0].first_sequence if batches else None, []
        return first, _messages(batches, front, high_water, limit_bytes)

    # --- What is known ---------------------------------------------------------------------------------

    async def write_cursor(self, now_ns: int) -> None:
        """Makes the cursor durable, and what was delivered behind it."""
        cursor, delivered = self.released, [*self.outbound.delivered]
        await asyncio.to_thread(self._source.acknowledge, self.stream, cursor, delivered)
        self.written, self.written_ns, self._remembered = cursor, now_ns, delivered

    def mark(self, most: int) -> Mark:
        """How far it reaches, for the heartbeat, with at most so many spans."""
        pending = self.undelivered().coarse(most)
        return Mark(self.outbound.high, self.outbound.cursor, tuple(pending))

    def status(self) -> StreamStatus:
        """How this stream stands."""
        return StreamStatus(
            sent=self.outbound.sent,
            acknowledged=self.released,
            high_water=self.high_water,
            waiting=self.undelivered().count,
            messages=self.messages,
            evicted=self.evicted,
            refusals=self.refusals,
            refusal=self.refusal or self._aside_refusal,
        )


def too_large(piece: Slice, limit_bytes: int) -> str:
    """Why a slice is refused before it is sent."""
    return f"entry {piece.first}: {len(piece.payload)} bytes, the broker takes {limit_bytes}"


def _messages(
    batches: tuple[Batch, ...], front: Span, high_water: int, limit_bytes: int
) -> list[Slice]:
    """What the hub can read goes out for everybody to read, or packed as the journal wrote it; what it cannot, as it is."""
    first, last = front
    sealed = [batch for batch in batches if isinstance(batch, SealedBatch)]
    if sealed:
        return [*sealed_slices(sealed, front, limit_bytes)]
    batch = batches[0]
    packed = [batch for batch in batches if isinstance(batch, PackedBatch)]
    if packed:
        return [*packed_slices(packed, front, high_water, limit_bytes)]
    entries = tuple(entry for entry in batch.entries if entry.sequence <= last)
    return [*slices(replace(batch, entries=entries), first - 1, high_water, limit_bytes)]

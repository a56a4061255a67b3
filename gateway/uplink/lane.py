"""One stream on its way out: what is prepared, what is under way, and whether the broker refuses it."""

import asyncio
from collections import deque
from collections.abc import Iterator
from typing import Protocol

from gateway.config.delivery import Payload
from gateway.journal.entry import Batch, SealedBatch, Stream
from gateway.uplink.notice import Mark
from gateway.uplink.outbound import Flight, Outbound
from gateway.uplink.receipt import Held
from gateway.uplink.release import Release
from gateway.uplink.sealed import sealed_slice
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, Slice, slices
from gateway.uplink.status import StreamStatus

UNRECEIPTED_MOST = 16_384
"""Entries of a stream that may be without a receipt, alarms apart: some megabytes, and more than a receiver takes in
the second between two receipts. What waits beyond waits in the journal, and not in a broker that may overflow."""


class Source(Protocol):
    """What the uplink needs of the journal.

    `read` and `acknowledge` are called in a worker thread, one at a time; the others on the event loop.
    """

    @property
    def epoch(self) -> str:
        """Names the life of the journal."""
        ...

    def read(self, stream: Stream, after: int) -> Batch | None:
        """The durable batch with entry `after + 1`, or the next one that still exists."""
        ...

    def acknowledge(self, stream: Stream, sequence: int) -> None:
        """Durable: everything up to `sequence` may be recycled."""
        ...

    def acknowledged(self, stream: Stream) -> int:
        """The durable cursor."""
        ...

    def high_water(self, stream: Stream) -> int:
        """The last durable sequence number; 0 when there is none."""
        ...


class Lane:
    """One stream of the journal, slice by slice, from its durable cursor on.

    Attributes:
        prepared: slices of one batch, the next first; its bound is one batch.
        written: the durable cursor, and when it was written.
        held_until_ns: a refused stream rests until then; None when it does not rest.
    """

    def __init__(
        self,
        source: Source,
        stream: Stream,
        *,
        by_receipt: bool,
        payload: Payload = Payload.JSON,
    ) -> None:
        """With `by_receipt` entries are given free on the receiver's word, otherwise on the broker's."""
        self._source = source
        self._payload = payload
        self.stream = stream
        self.outbound = Outbound(source.acknowledged(stream))
        self._release = Release(self.outbound.cursor) if by_receipt else None
        self._again: int | None = None
        """What is behind it is to be sent again at the next restart: the broker lost it."""
        self.prepared: deque[Slice] = deque()
        self.live_from = 0
        """What is behind it became durable since the connection was made."""
        self.written = self.outbound.cursor
        self.written_ns = 0
        self.messages = 0
        self.evicted = 0
        self.refusals = 0
        self.refusal: str | None = None
        self.held_until_ns: int | None = None

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
        return self.outbound.cursor if self._release is None else self._release.mark

    @property
    def is_far_ahead(self) -> bool:
        """The receiver is away or slow: what it has not said to have would only pile up in the broker."""
        ahead = self.outbound.sent - self.released
        return self.stream is not Stream.ALARM and ahead >= UNRECEIPTED_MOST

    def restart(self) -> None:
        """Everything behind the cursor, or behind what the broker lost, is to be sent again."""
        self.outbound.rewind(self._again)
        self._again = None
        self.prepared.clear()
        self.held_until_ns = None

    def connected(self) -> None:
        """A new connection knows nothing of what the last one sent."""
        self.restart()
        self.live_from = self.high_water
        if self._release is not None:
            self._release.connected()

    def probe_due_ns(self, now_ns: int) -> int | None:
        """When the receiver is to be asked with a probe; None while it need not be."""
        if self._release is None:
            return None
        return self._release.due_ns(self.outbound.cursor, now_ns)

    async def probe(self, now_ns: int) -> Slice | None:
        """The oldest entry without a receipt, once more; None while it is not time."""
        due_ns = self.probe_due_ns(now_ns)
        if self._release is None or due_ns is None or now_ns < due_ns:
            return None
        sent, high_water = self.outbound.cursor, self.high_water
        batch = await asyncio.to_thread(self._source.read, self.stream, self._release.mark)
        # Evicted or unreadable, and named as such: there is nothing left to wait for.
        self._release.gone(high_water if batch is None else batch.first_sequence - 1)
        if batch is None or self._release.mark >= sent:
            return None
        # One entry asks as well as many, and costs a metered link the least.
        piece = next(self._slices(batch, self._release.mark, limit_bytes=0))
        self._release.probed(piece.last, sent, now_ns)
        return piece

    async def receipt(self, held: Held, now_ns: int) -> None:
        """The receiver says what it holds. A hole counts only while the journal still has what belongs there."""
        if self._release is None:
            return
        mark = min(held.high, self.high_water)
        for first, last in held.holes:
            if first > mark:
                break
            # What was given free already is not sent again, though the journal may hold it for a while.
            after = max(first - 1, self._release.mark)
            if last <= after:
                continue
            batch = await asyncio.to_thread(self._source.read, self.stream, after)
            if batch is not None and batch.first_sequence <= last:
                mark = max(after, batch.first_sequence - 1)
                break
        again = self._release.receipt(mark, now_ns)
        if again is not None:
            # Once nothing is under way: what is counts against the broker's Receive Maximum until it is answered.
            self._again = again
            self.held_until_ns = max(now_ns, self.held_until_ns or 0)

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
        self.restart()
        return False

    def accept(self) -> None:
        """An answer was good: the refusals, if any, are over."""
        if self.held_until_ns is None:
            self.refusals, self.refusal = 0, None

    async def peek(self, packet_limit_bytes: int) -> Slice | None:
        """The next slice, in at most `packet_limit_bytes` unless it is one entry; None when there is none."""
        after = self.outbound.sent
        if not self.prepared and self.high_water > after and not self.is_far_ahead:
            high_water = self.high_water
            batch = await asyncio.to_thread(self._source.read, self.stream, after)
            if batch is None:
                # The last entries are unreadable, and named as such: nothing is left to deliver.
                self.evicted += max(0, high_water - max(after, self.released))
                self.outbound.skip(high_water)
            else:
                self._prepare(batch, after, min(MAX_PAYLOAD_BYTES, packet_limit_bytes))
        return self.prepared[0] if self.prepared else None

    def launch(self, message_id: int, piece: Slice, now_ns: int) -> None:
        """The prepared slice left."""
        self.prepared.popleft()
        self.outbound.launch(
            message_id, Flight(piece.first, piece.last, len(piece.payload), now_ns)
        )
        self.messages += 1

    def _prepare(self, batch: Batch, after: int, limit_bytes: int) -> None:
        if batch.first_sequence > after + 1:
            # Evicted for want of room, with a gap record in the alarm stream: nothing is left to deliver.
            self.evicted += max(0, batch.first_sequence - 1 - max(after, self.released))
            self.outbound.skip(batch.first_sequence - 1)
        self.prepared.extend(self._slices(batch, self.outbound.sent, limit_bytes))

    def _slices(self, batch: Batch, after: int, limit_bytes: int) -> Iterator[Slice]:
        """What the hub can read goes out for everybody to read, what it cannot as it is."""
        if isinstance(batch, SealedBatch):
            return iter((sealed_slice(batch, after),))
        return slices(batch, after, self.high_water, limit_bytes, self._payload)

    async def write_cursor(self, now_ns: int) -> None:
        """Makes the cursor durable."""
        cursor = self.released
        await asyncio.to_thread(self._source.acknowledge, self.stream, cursor)
        self.written, self.written_ns = cursor, now_ns

    def mark(self) -> Mark:
        """How far it reaches, for the heartbeat."""
        return Mark.in_order(self.high_water, self.released)

    def status(self) -> StreamStatus:
        """How this stream stands."""
        return StreamStatus(
            sent=self.outbound.sent,
            acknowledged=self.released,
            high_water=self.high_water,
            messages=self.messages,
            evicted=self.evicted,
            refusals=self.refusals,
            refusal=self.refusal,
        )

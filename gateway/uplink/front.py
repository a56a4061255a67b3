"""Where one stream goes on: with what is new, what was asked for, or what waits."""

import asyncio

from gateway.journal.entry import Stream
from gateway.uplink.asks import Asks
from gateway.uplink.order import LIVE_NS, MOST_SPANS, Age
from gateway.uplink.outbound import Outbound
from gateway.uplink.source import Source, Span


class Front:
    """Which pending span of a stream is next."""

    def __init__(self, source: Source, stream: Stream, outbound: Outbound, asks: Asks) -> None:
        self._source = source
        self._stream = stream
        self._outbound = outbound
        self._asks = asks
        self._live_from = source.high_water(stream)
        """Behind it lies what is live."""
        self._live_ns: int | None = None
        """When nothing live was left to send, the last time."""
        self._day: Span = (0, 0)
        """What of the backlog is going."""

    async def next(self, age: Age, now_ns: int) -> Span | None:
        """The pending span that an age goes on with, from its first entry on. An alarm is always live."""
        pending = self._outbound.pending
        if self._stream is Stream.ALARM:
            return pending.behind(0) if age is Age.LIVE else None
        if age is Age.LIVE:
            front = self._live(now_ns)
        elif age is Age.ASKED:
            front = self._asks.front(self._stream, pending)
        else:
            front = await self._backlog()
        if front is None or front[0] - 1 not in pending:
            return front
        # To begin in the middle of a span makes two of it.
        return front if len(pending) < MOST_SPANS else min(pending, key=lambda s: s[1] - s[0])

    def _live(self, now_ns: int) -> Span | None:
        front = self._outbound.pending.behind(self._live_from)
        if front is None or self._live_ns is None:
            self._live_ns = now_ns
        elif now_ns - self._live_ns > LIVE_NS:
            self._live_from, self._live_ns = self._outbound.high, now_ns
            return None
        return front

    async def _backlog(self) -> Span | None:
        """From the begin of the newest day on, in order."""
        pending, live_from = self._outbound.pending, self._live_from
        newest = next((min(b, live_from) for a, b in reversed(pending) if a <= live_from), 0)
        if newest and not self._day[0] <= newest <= self._day[1]:
            begin = await asyncio.to_thread(self._source.day_begin, self._stream, newest)
            self._day = begin, newest
        return next(pending.within(*self._day), None) if newest else None

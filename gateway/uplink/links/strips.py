"""The waveform around an alarm, where waveform does not go by itself. No I/O lives here.

An alarm is one that becomes durable while this process runs; whether there is a connection then does not matter. What
nobody asks for stays in the journal.
"""

import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock
from gateway.journal.entry import Stream
from gateway.uplink.asks import Asks
from gateway.uplink.order import Ask
from gateway.uplink.patience import to_ns

log = logging.getLogger(__name__)

BEFORE_NS, AFTER_NS = to_ns(60.0), to_ns(30.0)
OPEN_MOST = 4
"""Strips asked for at a time: operators have the rest of `MOST_ASKS`."""
WAITING_MOST = 256
"""Strips that wait for their turn; of more the oldest is not asked for."""


@dataclass(slots=True)
class _Strip:
    """In CLOCK_BOOTTIME: the wall clock may be set before it is asked for."""

    name: str
    begin_ns: int
    end_ns: int


class Strips:
    """Asks for them one after the other, and withdraws what was delivered."""

    def __init__(self, asks: Asks, clock: Clock, wanted: Callable[[], bool]) -> None:
        """`wanted`: whether the link in use takes waveform only on request."""
        self._asks = asks
        self._clock = clock
        self._wanted = wanted
        self._waiting: deque[_Strip] = deque()
        self._open: dict[str, _Strip] = {}
        self._alarms: int | None = None
        self.dropped = 0

    def follow(self, alarms: int) -> None:
        """The alarm stream reaches so far now; to be called after every commit. The first call only says where it is."""
        known, self._alarms = self._alarms, alarms
        if known is not None and alarms > known:
            self._alarm(alarms)
        self._look()

    def _alarm(self, number: int) -> None:
        now = self._clock.boottime_ns()
        newest = max((*self._open.values(), *self._waiting), key=lambda s: s.end_ns, default=None)
        if newest is not None and now - BEFORE_NS <= newest.end_ns:
            newest.end_ns = now + AFTER_NS
            if newest.name in self._open:
                self._ask(newest)
            return
        self._waiting.append(_Strip(f"strip-{number}", now - BEFORE_NS, now + AFTER_NS))
        if len(self._waiting) > WAITING_MOST:
            self.dropped += 1
            log.warning("links: %s is not asked for: too many wait", self._waiting.popleft().name)

    def _look(self) -> None:
        for progress in self._asks.progress() if self._open else ():
            if progress.ask.name in self._open and progress.is_done:
                del self._open[progress.ask.name]
                self._asks.withdraw(progress.ask.name)
        while self._waiting and len(self._open) < OPEN_MOST and self._wanted():
            if not self._ask(self._waiting[0]):
                return
            strip = self._waiting.popleft()
            self._open[strip.name] = strip

    def _ask(self, strip: _Strip) -> bool:
        reading = self._clock.read()
        begin, end = reading.wall_of(strip.begin_ns), reading.wall_of(strip.end_ns)
        try:
            self._asks.add(Ask(strip.name, Stream.WAVEFORM, begin, end))
        except ValueError:
            return False  # operators have asked for as much as there may be
        return True

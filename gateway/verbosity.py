"""More of the hub's own log for a limited time. It ends by itself and survives no restart.

Only our own loggers: what libraries log at "debug" can hold the bytes of a device.
"""

import asyncio
import logging

from gateway.clock import Clock

LOGGERS = ("gateway", "drivers")
LEVELS = {"debug": logging.DEBUG, "info": logging.INFO}
"""More than is configured, never less: nobody can make a hub silent from afar."""
log = logging.getLogger(__name__)


class Verbosity:
    """One process's. For the event loop."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_ns = 0
        self._end: asyncio.TimerHandle | None = None

    def raise_until(self, level: str, until_ns: int) -> None:
        """This level until that CLOCK_BOOTTIME; the last word counts. What is over, or no level, changes nothing."""
        if level not in LEVELS or until_ns <= self._clock.boottime_ns():
            return
        self._until_ns = until_ns
        self._set(LEVELS[level])
        log.info("log level %s for a limited time", level)
        self._wait()

    def end(self) -> None:
        """Back to what was configured."""
        if self._end is not None:
            self._end.cancel()
            self._end = None
            self._set(logging.NOTSET)

    def _wait(self) -> None:
        if self._end is not None:
            self._end.cancel()
        left_s = (self._until_ns - self._clock.boottime_ns()) / 1e9
        self._end = asyncio.get_running_loop().call_later(max(0.0, left_s), self._look)

    def _look(self) -> None:
        if self._clock.boottime_ns() < self._until_ns:
            self._wait()
        else:
            self.end()

    def _set(self, level: int) -> None:
        for name in LOGGERS:
            logging.getLogger(name).setLevel(level)

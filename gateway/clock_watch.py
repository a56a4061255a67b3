"""Notices that the wall clock was set or came to be trusted, and says so in the journal. It never polls.

A clock that jumps is told by the kernel at once. One that is only disciplined (the first synchronisation may need no
jump) is seen by the readings that each commit takes anyway.
"""

import asyncio
import ctypes
import errno
import logging
import os
import time
from collections.abc import Callable

from drivers.model import ClockChange, ClockReading, Event, EventKind

log = logging.getLogger(__name__)

STEP_NS = 50_000_000
"""A wall clock that moved this far against CLOCK_BOOTTIME has been set. Slewing moves both clocks alike."""

# timerfd_create(2), linux/timerfd.h. os.timerfd_create comes with Python 3.13.
_ABSOLUTE, _CANCEL_ON_SET = 1, 2
_NONBLOCK, _CLOEXEC = os.O_NONBLOCK, os.O_CLOEXEC


class ClockLog:
    """Turns readings of the clocks into the events that map them."""

    def __init__(self, last: ClockReading | None) -> None:
        """Begins with the last reading of this boot that the journal holds; None at the boot's first start."""
        self._last = last

    def look(self, reading: ClockReading) -> Event | None:
        """What there is to say about this reading, if there is anything: the boot's first, a step, a new state."""
        last, self._last = self._last, reading
        if last is None:
            return _event("start", f"clock {_stated(reading)}", None, reading)
        step_ns = reading.wall_ns - last.wall_of(reading.boottime_ns)
        if abs(step_ns) < STEP_NS and reading.state is last.state:
            return None
        reason = "step" if abs(step_ns) >= STEP_NS else "state"
        text = f"wall clock moved by {step_ns} ns, {last.state} to {_stated(reading)}"
        return _event(reason, text, last, reading)


def _stated(reading: ClockReading) -> str:
    return f"{reading.state}" + (
        "" if reading.error_ns is None else f" within {reading.error_ns} ns"
    )


def _event(reason: str, text: str, before: ClockReading | None, after: ClockReading) -> Event:
    return Event(
        EventKind.CLOCK,
        after.boottime_ns,
        reason,
        text,
        from_ns=None if before is None else before.boottime_ns,
        until_ns=None if before is None else after.boottime_ns,
        clock=ClockChange(before, after),
    )


class _TimerSpec(ctypes.Structure):
    """struct itimerspec."""

    _fields_ = tuple(
        (name, ctypes.c_long) for name in ("interval_s", "interval_ns", "value_s", "value_ns")
    )


NEVER = _TimerSpec(0, 0, 2 ** (8 * ctypes.sizeof(ctypes.c_long) - 1) - 1, 0)


def set_timer() -> int:
    """A timer that never expires, and becomes readable when CLOCK_REALTIME is set. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.timerfd_create(time.CLOCK_REALTIME, _NONBLOCK | _CLOEXEC)
    if fd < 0 or libc.timerfd_settime(fd, _ABSOLUTE | _CANCEL_ON_SET, ctypes.byref(NEVER), None):
        number = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        raise OSError(number, os.strerror(number))
    return fd


class ClockSets:
    """Tells each time somebody sets the wall clock."""

    def __init__(
        self,
        timer: Callable[[], int] = set_timer,
        read: Callable[[int, int], bytes] = os.read,
    ) -> None:
        """Takes what makes the timer and what reads it. Where the kernel has none, steps are seen at the next commit."""
        self._read = read
        self._set = asyncio.Event()
        self._fd: int | None = None
        try:
            self._fd = timer()
        except OSError as error:
            log.warning("clock: no timer that tells of steps (%s); the next commit will", error)

    async def wait(self) -> None:
        """Until the clock is set; at once where it was since the last call."""
        loop = asyncio.get_running_loop()
        if self._fd is not None:
            loop.add_reader(self._fd, self._readable, self._fd)
        try:
            await self._set.wait()
            self._set.clear()
        finally:
            if self._fd is not None:
                loop.remove_reader(self._fd)

    def _readable(self, fd: int) -> None:
        try:
            self._read(fd, 8)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ECANCELED:
                raise
            self._set.set()

    def close(self) -> None:
        """Safe to call twice."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

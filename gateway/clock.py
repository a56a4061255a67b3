"""The only reader of time.

Order and durations come from CLOCK_BOOTTIME, which no one sets and which goes on while the hub sleeps. Wall time is
only ever read together with it, and always with a statement of how far it can be trusted.
"""

import ctypes
import time
from pathlib import Path
from typing import Protocol

from drivers.model import ClockReading, ClockState

__all__ = ["BUILT_NS", "Clock", "ClockReading", "ClockState", "SystemClock"]

NS_PER_US = 1_000
TIME_ERROR = 5
"""adjtimex(2): the clock is not synchronised."""


class Clock(Protocol):
    """What every part of the hub gets handed instead of reading a clock."""

    @property
    def boot_id(self) -> str:
        """Names this boot: boottimes of two boots are not comparable."""
        ...

    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        ...

    def read(self) -> ClockReading:
        """Both clocks, and how far the wall clock can be trusted."""
        ...


BUILT_NS = 1_767_225_600 * 1_000_000_000
"""2026-01-01: no record of this software is older, so an earlier wall clock has not been set."""


class _Timex(ctypes.Structure):
    """The head of struct timex (linux/timex.h): only `maxerror` is read; the rest is room for the kernel."""

    _fields_ = (
        ("modes", ctypes.c_uint),
        ("offset", ctypes.c_long),
        ("freq", ctypes.c_long),
        ("maxerror", ctypes.c_long),
        ("room", ctypes.c_byte * 256),
    )


class SystemClock:
    """The kernel's clocks."""

    def __init__(self) -> None:
        self._boot_id = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        # Kept, as making both takes longer than the call, which holds the interpreter: so no two threads write here.
        self._timex = _Timex()
        self._adjtimex = ctypes.PyDLL(None).adjtimex
        self._adjtimex.argtypes = [ctypes.POINTER(_Timex)]

    @property
    def boot_id(self) -> str:
        """The kernel's own name of this boot."""
        return self._boot_id

    def boottime_ns(self) -> int:
        """CLOCK_BOOTTIME."""
        return time.clock_gettime_ns(time.CLOCK_BOOTTIME)

    def read(self) -> ClockReading:
        """Both clocks within the same microseconds, and the kernel's word on synchronisation."""
        boottime_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        wall_ns = time.time_ns()
        timex = self._timex
        if self._adjtimex(timex) not in {-1, TIME_ERROR}:
            error_ns = timex.maxerror * NS_PER_US
            return ClockReading(boottime_ns, wall_ns, ClockState.SYNCHRONISED, error_ns)
        state = ClockState.UNSET if wall_ns < BUILT_NS else ClockState.RESTORED
        return ClockReading(boottime_ns, wall_ns, state)

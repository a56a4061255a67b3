"""Steps and changes of state become events; the kernel's word on a step comes without polling."""

import asyncio
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drivers.model import ClockChange, EventKind
from gateway.clock import ClockReading, ClockState
from gateway.clock_watch import STEP_NS, ClockLog, ClockSets, set_timer
from gateway.journal.entry import Stream, stream_of

S = 1_000_000_000
UNSET, RESTORED, SYNCED = ClockState.UNSET, ClockState.RESTORED, ClockState.SYNCHRONISED


def at(boottime_s: float, offset_ns: int, state: ClockState = SYNCED) -> ClockReading:
    now = round(boottime_s * S)
    return ClockReading(now, now + offset_ns, state, 5_000_000 if state is SYNCED else None)


def test_a_boot_says_how_its_clocks_stand() -> None:
    first = at(3, 7, UNSET)
    event = ClockLog(None).look(first)
    assert event is not None
    assert (event.kind, event.reason, event.at_ns) == (EventKind.CLOCK, "start", 3 * S)
    assert event.clock == ClockChange(None, first)
    assert (event.from_ns, event.until_ns) == (None, None)


def test_a_restart_within_a_boot_says_only_what_changed() -> None:
    assert ClockLog(at(3, 0)).look(at(9, 0)) is None
    event = ClockLog(at(3, 0)).look(at(9, -S))
    assert event is not None
    assert (event.reason, event.from_ns, event.until_ns) == ("step", 3 * S, 9 * S)


@pytest.mark.parametrize("by_ns", [STEP_NS, -STEP_NS, 86_400 * S, -86_400 * S])
def test_a_step_either_way_is_told_once(by_ns: int) -> None:
    watch = ClockLog(at(1, 0))
    event = watch.look(at(2, by_ns))
    assert event is not None
    assert event.reason == "step"
    assert event.clock == ClockChange(at(1, 0), at(2, by_ns))
    assert watch.look(at(3, by_ns)) is None


@pytest.mark.parametrize("by_ns", [STEP_NS - 1, 1 - STEP_NS, 0])
def test_what_two_readings_differ_by_is_no_step(by_ns: int) -> None:
    assert ClockLog(at(1, 0)).look(at(2, by_ns)) is None


@pytest.mark.parametrize("states", [(UNSET, SYNCED), (RESTORED, SYNCED), (SYNCED, RESTORED)])
def test_a_new_state_is_told_without_a_step(states: tuple[ClockState, ClockState]) -> None:
    watch = ClockLog(at(1, 0, states[0]))
    event = watch.look(at(2, 0, states[1]))
    assert event is not None
    assert event.reason == "state"
    assert f"{states[0]} to {states[1]}" in event.text
    assert watch.look(at(3, 0, states[1])) is None


def test_it_goes_with_the_alarms() -> None:
    """Never evicted, and sent before what it explains."""
    event = ClockLog(None).look(at(1, 0))
    assert event is not None
    assert stream_of(event) is Stream.ALARM


class Timer:
    """A file descriptor that becomes readable on demand, and what the kernel then says."""

    def __init__(self) -> None:
        self.reads, self.writes = os.pipe()
        self.answers: list[int] = []

    def set(self, *answers: int) -> None:
        """Each answer is the error number of one read; 0 is none."""
        self.answers += answers
        os.write(self.writes, b"x" * len(answers))

    def read(self, fd: int, _size: int) -> bytes:
        os.read(fd, 1)
        number = self.answers.pop(0)
        if number:
            raise OSError(number, os.strerror(number))
        return bytes(8)


@contextmanager
def watched(timer: Timer) -> Iterator[ClockSets]:
    sets = ClockSets(lambda: timer.reads, timer.read)
    try:
        yield sets
    finally:
        sets.close()
        os.close(timer.writes)


def test_a_set_clock_wakes_at_once() -> None:
    async def main() -> None:
        timer = Timer()
        with watched(timer) as sets:
            for _ in range(2):
                waiting = asyncio.ensure_future(sets.wait())
                await asyncio.sleep(0)
                assert not waiting.done()
                timer.set(errno.ECANCELED)
                async with asyncio.timeout(40):
                    await waiting

    asyncio.run(main())


def test_a_set_between_two_waits_is_not_missed() -> None:
    async def main() -> None:
        timer = Timer()
        with watched(timer) as sets:
            timer.set(errno.ECANCELED)
            async with asyncio.timeout(40):
                await sets.wait()

    asyncio.run(main())


def test_other_wakes_of_the_timer_are_no_step() -> None:
    async def main() -> None:
        timer = Timer()
        with watched(timer) as sets:
            waiting = asyncio.ensure_future(sets.wait())
            await asyncio.sleep(0)
            timer.set(errno.EAGAIN, 0)
            for _ in range(20):
                await asyncio.sleep(0)
            assert timer.answers == []
            assert not waiting.done()
            timer.set(errno.ECANCELED)
            async with asyncio.timeout(40):
                await waiting

    asyncio.run(main())


def test_without_a_timer_it_waits_for_ever(caplog: pytest.LogCaptureFixture) -> None:
    def refused() -> int:
        raise OSError(errno.EPERM, "refused")

    async def main() -> None:
        sets = ClockSets(refused)
        assert "the next commit will" in caplog.text
        waiting = asyncio.ensure_future(sets.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        waiting.cancel()
        sets.close()

    asyncio.run(main())


def test_the_kernel_has_such_a_timer() -> None:
    fd = set_timer()
    try:
        with pytest.raises(BlockingIOError):
            os.read(fd, 8)
        # What it waits for is written where the kernel shows its descriptors: flag 3 is absolute and cancelled on set.
        shown = dict(
            line.split(":", 1)
            for line in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
        )
        assert int(shown["settime flags"], 8) == 3
        assert int(shown["clockid"]) == 0
    finally:
        os.close(fd)

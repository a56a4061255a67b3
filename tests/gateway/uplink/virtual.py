"""An event loop whose time is made: it jumps to the next deadline as soon as nothing is left to do.

Hours of silence cost milliseconds, and the same seed tells the same story. What runs in a worker thread elsewhere runs
at once here, since a thread of its own would have no place in such a time.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from gateway.clock import ClockReading, ClockState

NS_PER_S = 1_000_000_000
WALL_NS = 1_800_000_000 * NS_PER_S
STUCK_S = 10.0
"""Of real time. A loop that waits for nothing at all would wait for ever."""
T = TypeVar("T")


class _Jump(selectors.DefaultSelector):
    """Instead of waiting, time passes."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            events: list[Any] = super().select(STUCK_S)
            assert events, "every task waits for something that no task will do"
            return events
        self.now += max(0.0, timeout)
        found: list[Any] = super().select(0)
        return found


class Inline(ThreadPoolExecutor):
    """Has no threads."""

    def submit(self, call: Callable[..., T], /, *args: Any, **kwargs: Any) -> "Future[T]":
        future: Future[T] = Future()
        try:
            future.set_result(call(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it belongs to whoever waits
            future.set_exception(error)
        return future


class VirtualLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._jump = _Jump()
        super().__init__(self._jump)
        self.set_default_executor(Inline(1))

    def time(self) -> float:
        return self._jump.now


class VirtualClock:
    """The loop's time as a hub's or receiver's clock: always synchronised."""

    boot_id = "boot-1"

    def boottime_ns(self) -> int:
        return 1 + int(asyncio.get_running_loop().time() * NS_PER_S)

    def read(self) -> ClockReading:
        now = self.boottime_ns()
        return ClockReading(now, WALL_NS + now, ClockState.SYNCHRONISED, 5_000_000)


def play(story: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Runs a story in a time of its own."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(story())

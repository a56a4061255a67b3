"""Parts that a test can steer: a clock, a link and a sink. They follow the protocols and keep what they got.

And what a test may ask of its process: which descriptors it holds.
"""

import asyncio
import contextlib
from collections.abc import Iterable
from pathlib import Path

from drivers.model import Event, EventKind, Observation, Raw, Record
from gateway.clock import ClockReading, ClockState
from gateway.transport.base import Arrival, Reason, TransportError

NS_PER_S = 1_000_000_000


class LoopClock:
    """CLOCK_BOOTTIME as the event loop's own time, so that deadlines and waits agree; the wall clock can be set."""

    boot_id = "boot-1"

    def __init__(self) -> None:
        self.wall_offset_ns = 1_790_000_000 * NS_PER_S
        self.state = ClockState.SYNCHRONISED

    def boottime_ns(self) -> int:
        return round(asyncio.get_running_loop().time() * NS_PER_S)

    def read(self) -> ClockReading:
        now = self.boottime_ns()
        return ClockReading(now, now + self.wall_offset_ns, self.state, 1_000_000)


class ListSink:
    """Keeps records; counts how often durability was asked for, and after how many records."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.durable_after: list[int] = []

    async def put(self, record: Record) -> None:
        await asyncio.sleep(0)
        self.records.append(record)

    async def durable(self) -> None:
        await asyncio.sleep(0)
        self.durable_after.append(len(self.records))

    async def keep(self, raw: Raw) -> int:
        await asyncio.sleep(0)
        self.records.append(raw)
        self.durable_after.append(len(self.records))
        return len(self.records)

    def events(self, kind: EventKind) -> list[Event]:
        return [r for r in self.records if isinstance(r, Event) and r.kind is kind]

    def observations(self) -> list[Observation]:
        return [r for r in self.records if isinstance(r, Observation)]


class ScriptedTransport:
    """Gives what it is told to, then raises, or stays silent for ever."""

    def __init__(
        self,
        arrivals: Iterable[Arrival] = (),
        *,
        opens: TransportError | None = None,
        ends: TransportError | None = None,
        missing: frozenset[str] = frozenset(),
    ) -> None:
        self.arrivals = list(arrivals)
        self.opens = opens
        self.ends = ends
        self.missing = missing
        self.calls: list[tuple[str, object]] = []

    async def open(self) -> None:
        await asyncio.sleep(0)
        if self.opens is not None:
            raise self.opens

    async def receive(self) -> Arrival:
        await asyncio.sleep(0)
        if self.arrivals:
            return self.arrivals.pop(0)
        if self.ends is not None:
            raise self.ends
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    async def _ask(self, what: str, characteristic: str) -> None:
        await asyncio.sleep(0)
        self.calls.append((what, characteristic))
        if characteristic in self.missing:
            raise TransportError(Reason.REFUSED, f"no characteristic {characteristic}")

    async def subscribe(self, characteristic: str) -> None:
        await self._ask("subscribe", characteristic)

    async def read(self, characteristic: str) -> None:
        await self._ask("read", characteristic)

    async def write(self, characteristic: str, data: bytes) -> None:
        await asyncio.sleep(0)
        self.calls.append(("write", (characteristic, data)))

    async def close(self) -> None:
        await asyncio.sleep(0)
        self.calls.append(("close", None))


class FastLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer when nothing else is to do: hours pass in milliseconds."""

    def __init__(self) -> None:
        super().__init__()
        self._ahead = 0.0

    def time(self) -> float:
        return super().time() + self._ahead

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            wait = self._scheduled[0].when() - self.time()  # type: ignore[attr-defined]
            if wait > 0:
                self._ahead += wait
        super()._run_once()  # type: ignore[misc]


def open_files() -> set[str]:
    """What this process has open: paths, and pipes and sockets by their numbers.

    To be compared as sets: a count would go down when the collector finds what an earlier test left.
    """
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists them
            found.add(str(descriptor.readlink()))
    return found

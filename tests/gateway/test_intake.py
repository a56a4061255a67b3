import asyncio
import contextlib
from collections.abc import Iterable
from decimal import Decimal
from typing import Self

import pytest

from drivers.assigned import Code, Unit
from drivers.model import Event, EventKind, Mode, Observation, Quantity, Raw, Record
from gateway import intake
from gateway.clock import ClockState
from gateway.clock_watch import ClockLog
from gateway.intake import QUEUE_RECORDS, Intake
from gateway.journal.entry import Stream
from tests.gateway.fakes import NS_PER_S, LoopClock
from tests.gateway.uplink.bench import until


class ListStore:
    """Appends to a list; remembers what was durable after each commit."""

    def __init__(self) -> None:
        self.appended: list[tuple[str, Record, str | None]] = []
        self.commits: list[int] = []
        self.record_bytes = 100
        self.fails: OSError | None = None

    @property
    def pending_bytes(self) -> int:
        return self.record_bytes * (len(self.appended) - (self.commits[-1] if self.commits else 0))

    def append(self, device: str, record: Record, subject: str | None = None) -> int:
        self.appended.append((device, record, subject))
        return len(self.appended)

    def following(self, stream: Stream) -> int:
        del stream
        return len(self.appended) + 1

    def commit(self) -> None:
        if self.fails is not None:
            raise self.fails
        self.commits.append(len(self.appended))


class Doubling:
    """A conditioner that says everything twice."""

    def process(self, device: str, record: Record) -> Iterable[Record]:
        del device
        return (record, record)


class Passing:
    def process(self, device: str, record: Record) -> Iterable[Record]:
        del device
        return (record,)


def rate(n: int) -> Observation:
    return Observation(Code.ECG_HEART_RATE, Quantity(Decimal(n), Unit.BEAT_PER_MIN), n)


GAP = Event(EventKind.GAP, 1, "resync")
ASKED = Event(EventKind.COMMAND, 1, "accepted")


class World:
    def __init__(
        self, conditioner: Passing | Doubling | None = None, mode: Mode = Mode.REAL
    ) -> None:
        self.store = ListStore()
        self.clock = LoopClock()
        self.after: list[Event] = []
        self.intake = Intake(
            self.store,
            conditioner or Passing(),
            self.clock,
            mode=mode,
            committed=self._committed,
            clock_log=ClockLog(self.clock.read()),
        )

    def _committed(self) -> Iterable[Event]:
        events, self.after = self.after, []
        return events

    async def __aenter__(self) -> Self:
        self.task = asyncio.create_task(self.intake.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError, OSError):
            await self.task


def test_records_are_committed_within_a_second() -> None:
    async def main() -> None:
        async with World() as world:
            await world.intake.put("a", rate(1), "s1")
            await asyncio.sleep(0.7)
            assert world.store.commits == []
            await asyncio.sleep(0.8)
            assert world.store.commits == [1]
            assert world.store.appended == [("a", rate(1), "s1")]

    asyncio.run(main())


@pytest.mark.parametrize(
    "record", [GAP, Event(EventKind.FAULT, 1, "driver"), Event(EventKind.LOST, 1, "lost")]
)
def test_an_alarm_is_committed_at_once(record: Event) -> None:
    async def main() -> None:
        async with World() as world:
            await world.intake.put("a", record)
            await asyncio.sleep(0.05)
            assert world.store.commits == [1]

    asyncio.run(main())


def test_many_bytes_are_committed_before_the_second_is_over() -> None:
    async def main() -> None:
        async with World() as world:
            world.store.record_bytes = 40_000
            for n in range(4):
                await world.intake.put("a", rate(n))
            await asyncio.sleep(0.3)
            assert world.store.commits[-1] >= 3

    asyncio.run(main())


def test_durable_returns_only_when_all_before_it_is_committed() -> None:
    async def main() -> None:
        async with World() as world:
            for n in range(5):
                await world.intake.put("a", rate(n))
            await world.intake.durable()
            assert world.store.commits[-1] == 5

    asyncio.run(main())


def test_what_is_kept_is_committed_at_once_and_has_its_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(intake, "COMMIT_NS", 3600 * intake.NS_PER_S)

    async def main() -> None:
        async with World() as world:
            await world.intake.put("a", rate(1))
            async with asyncio.timeout(40):
                sequence = await world.intake.keep("cuff", Raw("x", b"y", 1, 1), "s1")
            assert world.store.appended[sequence - 1] == ("cuff", Raw("x", b"y", 1, 1), "s1")
            assert world.store.commits[-1] == 2

    asyncio.run(main())


def test_close_commits_and_ends() -> None:
    async def main() -> None:
        async with World() as world:
            for n in range(300):
                await world.intake.put("a", rate(n))
            await world.intake.close()
            async with asyncio.timeout(40):
                await world.task
            assert world.store.commits[-1] == 300

    asyncio.run(main())


def test_a_full_queue_makes_the_device_wait() -> None:
    async def main() -> None:
        world = World()  # nobody takes from the queue
        for n in range(QUEUE_RECORDS):
            await world.intake.put("a", rate(n))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await world.intake.put("a", rate(0))
        assert world.intake.waiting_records == QUEUE_RECORDS

    asyncio.run(main())


def test_what_the_conditioner_adds_belongs_to_the_same_device() -> None:
    async def main() -> None:
        async with World(Doubling()) as world:
            await world.intake.sink("a", "s1").put(rate(1))
            await world.intake.durable()
            assert world.store.appended == [("a", rate(1), "s1")] * 2

    asyncio.run(main())


def test_simulated_data_says_so_in_every_observation() -> None:
    async def main() -> None:
        async with World(mode=Mode.DEMO) as world:
            await world.intake.put("a", rate(1))
            await world.intake.put("a", GAP)
            await world.intake.durable()
            modes = [
                r.quality.mode for _, r, _ in world.store.appended if isinstance(r, Observation)
            ]
            assert modes == [Mode.DEMO]

    asyncio.run(main())


def test_a_set_clock_is_mapped() -> None:
    async def main() -> None:
        async with World() as world:
            await world.intake.put("a", rate(1))
            await world.intake.durable()
            world.clock.wall_offset_ns += 3600 * NS_PER_S
            world.clock.state = ClockState.RESTORED
            await world.intake.put("a", rate(2))
            await world.intake.durable()
            await world.intake.durable()
            events = [r for _, r, _ in world.store.appended if isinstance(r, Event)]
            assert [(e.kind, e.reason) for e in events] == [(EventKind.CLOCK, "step")]
            change = events[0].clock
            assert change is not None
            assert change.before is not None
            assert change.before.state is ClockState.SYNCHRONISED
            assert change.after.state is ClockState.RESTORED
            after_ns = change.after.boottime_ns
            assert change.after.wall_ns - change.before.wall_of(after_ns) == 3600 * NS_PER_S

    asyncio.run(main())


def test_what_a_commit_brought_about_is_journalled_too() -> None:
    async def main() -> None:
        async with World() as world:
            world.after = [Event(EventKind.EVICTED, 1, "budget", lost=7)]
            await world.intake.put("a", rate(1))
            await world.intake.durable()
            await until(lambda: world.store.commits[-1] == 2, "another commit by itself")
            assert world.store.appended[-1][1] == Event(EventKind.EVICTED, 1, "budget", lost=7)

    asyncio.run(main())


def test_a_journal_that_cannot_be_written_ends_the_intake() -> None:
    async def main() -> None:
        async with World() as world:
            world.store.fails = OSError(28, "No space left on device")
            await world.intake.put("a", GAP)
            with pytest.raises(OSError, match="No space"):
                await asyncio.wait_for(world.task, 40)

    asyncio.run(main())


def test_a_number_is_noted_before_the_journal_takes_its_record() -> None:
    async def main() -> None:
        async with World(Doubling()) as world:
            seen: list[tuple[int, int]] = []

            def before(number: int) -> None:
                seen.append((number, len(world.store.appended)))

            others = [world.intake.put("a", rate(n)) for n in range(50)]
            noted = [world.intake.keep_noted(ASKED, before) for _ in range(3)]
            numbers = await asyncio.gather(*noted, *others)
            # Its own number, before it was taken, past the conditioner, and durable on return.
            assert [number for number, _ in seen] == numbers[:3]
            assert all(number == there + 1 for number, there in seen)
            assert [world.store.appended[n - 1][1] for n, _ in seen] == [ASKED] * 3
            assert sum(record == ASKED for _, record, _ in world.store.appended) == 3
            assert world.store.commits[-1] >= seen[-1][0]

    asyncio.run(main())


def test_what_cannot_be_noted_is_not_taken() -> None:
    async def main() -> None:
        def refuse(number: int) -> None:
            raise OSError(number)

        async with World() as world:
            with pytest.raises(OSError, match="1"):
                await world.intake.keep_noted(ASKED, refuse)
            assert world.store.appended == []
            assert await world.intake.keep_noted(ASKED, lambda _number: None) == 1

    asyncio.run(main())

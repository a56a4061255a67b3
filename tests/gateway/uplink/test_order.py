"""What goes first, what may go, and what goes because somebody asked."""

import asyncio
import time

import pytest

from gateway.journal.entry import Stream
from gateway.uplink.gathering import Gathering
from gateway.uplink.order import MOST_ASKS, Age, Ask, Unmetered
from gateway.uplink.patience import Timing
from gateway.uplink.wire import Limits, Reason, UplinkError
from tests.gateway.uplink.bench import MemoryJournal, until
from tests.gateway.uplink.test_uplink import Bench, drive

S = 1_000_000_000
HOUR_NS = 3600 * S


class Metered(Unmetered):
    """Lets `allowed` through, and keeps the account."""

    def __init__(self, *allowed: tuple[Stream, Age]) -> None:
        self.allowed = set(allowed)
        self.asked: list[tuple[Stream, Age]] = []
        self.charged: list[tuple[Stream, Age]] = []
        self.opens_ns: int | None = None

    def may_send(self, stream: Stream, age: Age, size_bytes: int, now_ns: int) -> bool:
        assert size_bytes > 0
        self.asked.append((stream, age))
        if self.opens_ns is not None and now_ns >= self.opens_ns:
            return True
        return (stream, age) in self.allowed

    def sent(self, stream: Stream, age: Age, size_bytes: int) -> None:
        assert size_bytes > 0
        self.charged.append((stream, age))

    def next_change_ns(self, now_ns: int) -> int | None:
        return None if self.opens_ns is None or self.opens_ns <= now_ns else self.opens_ns


def around_now(name: str, stream: Stream) -> Ask:
    now = time.time_ns()
    return Ask(name, stream, now - HOUR_NS, now + HOUR_NS)


def test_what_the_policy_holds_back_waits_and_alarms_do_not() -> None:
    policy = Metered((Stream.VITALS, Age.LIVE))
    journal = MemoryJournal()
    for stream in Stream:
        journal.commit(stream, 2)
    bench = Bench(policy=policy, journal=journal)

    async def story() -> None:
        await bench.wait_published(3)
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.ALARM] == 2, "alarm")
        bench.journal.commit(Stream.ALARM, 1)
        bench.journal.commit(Stream.VITALS, 1)
        bench.uplink.wake()
        await until(lambda: bench.journal.cursors[Stream.ALARM] == 3, "alarm")
        await until(lambda: (Stream.VITALS, Age.LIVE) in policy.charged, "live vitals")
        assert "waveform" not in bench.wire.streams()
        assert {stream for stream, _ in policy.asked} == set(Stream) - {Stream.ALARM}
        assert policy.charged.count((Stream.VITALS, Age.LIVE)) == 1
        policy.allowed = {(stream, Age.BACKLOG) for stream in Stream}
        bench.uplink.wake()
        await until(lambda: bench.journal.cursors[Stream.WAVEFORM] == 2, "backlog")

    drive(bench, story)


def test_a_policy_that_changes_by_itself_needs_nobody_to_wake_the_uplink() -> None:
    policy = Metered()
    policy.opens_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME) + S // 2
    bench = Bench(policy=policy)
    bench.journal.commit(Stream.WAVEFORM, 2)

    async def story() -> None:
        await bench.wait_published(2)
        bench.wire.answer_all()
        assert "waveform" not in bench.wire.streams()
        await until(lambda: bench.journal.cursors[Stream.WAVEFORM] == 2, "sent by itself")

    drive(bench, story)


class Thrifty(Unmetered):
    """Lets what is live gather for so long."""

    def __init__(self, gather_ns: int = 3600 * S, heartbeat_ns: int | None = None) -> None:
        self._gather_ns, self._heartbeat_ns = gather_ns, heartbeat_ns

    def gather_ns(self) -> int:
        return self._gather_ns

    def heartbeat_ns(self) -> int | None:
        return self._heartbeat_ns


async def gathered(bench: Bench) -> None:
    """The first vitals left at once; three more wait."""
    await bench.wait_published(2)
    bench.journal.commit(Stream.VITALS, 1)
    bench.uplink.wake()
    await until(lambda: "vitals" in bench.wire.streams(), "the first")
    for _ in range(3):
        bench.journal.commit(Stream.VITALS, 1)
        bench.uplink.wake()
        await asyncio.sleep(0.02)
    assert bench.wire.streams() == ["vitals"]


def test_what_is_live_gathers_and_leaves_with_an_alarm() -> None:
    bench = Bench(policy=Thrifty())

    async def story() -> None:
        await gathered(bench)
        bench.journal.commit(Stream.ALARM, 1)
        bench.uplink.wake()
        await until(lambda: len(bench.wire.streams()) == 5, "all of it")
        assert bench.wire.streams() == ["vitals", "alarm", "vitals", "vitals", "vitals"]
        bench.journal.commit(Stream.ALARM, 1)
        bench.uplink.wake()
        await until(lambda: len(bench.wire.streams()) == 6, "another alarm")

    drive(bench, story)


def test_what_has_gathered_leaves_when_its_time_has_come_and_all_streams_of_it() -> None:
    bench = Bench(policy=Thrifty(S // 2))

    async def story() -> None:
        await gathered(bench)
        bench.journal.commit(Stream.AUDIT, 1)
        await until(lambda: len(bench.wire.streams()) == 5, "nobody woke it")
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.VITALS] == 4, "delivered")

    drive(bench, story)


@pytest.mark.parametrize("how", ["drain", "reconnect"])
def test_nothing_gathers_when_the_end_is_near_or_a_connection_is_new(how: str) -> None:
    bench = Bench(policy=Thrifty())

    async def story() -> None:
        await gathered(bench)
        if how == "drain":
            drained = asyncio.create_task(bench.uplink.drain(5))
            await until(lambda: len(bench.wire.streams()) == 4, "all of it")
            while not drained.done():
                bench.wire.answer_all()
                await asyncio.sleep(0.01)
            assert await drained
        else:
            bench.uplink.lost(UplinkError(Reason.LOST, "cut"))
            await until(lambda: len(bench.wires) == 2, "a new one")
            await until(lambda: len(bench.wire.streams()) == 4, "all of it")

    drive(bench, story)


def test_what_waits_and_what_was_asked_for_do_not_gather() -> None:
    journal = MemoryJournal()
    journal.wall_ns = time.time_ns()
    journal.commit(Stream.VITALS, 1)
    journal.commit(Stream.VITALS, 1)
    bench = Bench(policy=Thrifty(), journal=journal)

    async def story() -> None:
        await bench.wait_published(4)
        bench.journal.commit(Stream.WAVEFORM, 1)
        bench.uplink.wake()
        await until(lambda: "waveform" in bench.wire.streams(), "the first")
        bench.journal.commit(Stream.WAVEFORM, 1)
        bench.uplink.asks.add(around_now("nurse", Stream.WAVEFORM))
        await until(lambda: bench.wire.streams().count("waveform") == 2, "asked for")

    drive(bench, story)


def test_what_comes_after_a_rest_does_not_gather() -> None:
    gathering = Gathering()
    gathering.caught_up(5)
    assert not gathering.holds(4), "nothing left yet"
    gathering.left()
    gathering.caught_up(9)
    assert gathering.holds(8)
    assert not gathering.holds(9)
    gathering.caught_up(20)
    assert not gathering.holds(10), "nothing left since"


def test_the_policy_says_how_often_the_heart_beats() -> None:
    bench = Bench(policy=Thrifty(heartbeat_ns=S // 50), timing=Timing())

    async def story() -> None:
        await until(
            lambda: (
                bool(bench.wires)
                and sum(m.topic.endswith("heartbeat") for m in bench.wire.published) > 3
            ),
            "beats",
        )

    drive(bench, story)


def test_what_was_asked_for_goes_whatever_the_policy_says() -> None:
    policy = Metered()
    bench = Bench(Limits(receive_maximum=3), policy=policy)
    bench.journal.wall_ns = time.time_ns()
    bench.journal.commit(Stream.WAVEFORM, 3)
    bench.journal.commit(Stream.VITALS, 3)

    async def story() -> None:
        await bench.wait_published(2)
        bench.wire.answer_all()
        bench.uplink.asks.add(around_now("nurse", Stream.WAVEFORM))
        await until(lambda: bench.journal.cursors[Stream.WAVEFORM] == 3, "asked")
        bench.journal.commit(Stream.WAVEFORM, 2)
        bench.uplink.wake()
        await until(lambda: bench.journal.cursors[Stream.WAVEFORM] == 5, "what came later")
        (progress,) = bench.uplink.asks.progress()
        assert (progress.sent, progress.waiting, progress.is_done) == (5, 0, False)
        assert set(policy.charged) == {(Stream.WAVEFORM, Age.ASKED)}
        assert "vitals" not in bench.wire.streams()
        bench.uplink.asks.withdraw("nurse")
        assert bench.uplink.asks.progress() == ()
        bench.journal.commit(Stream.WAVEFORM, 2)
        bench.uplink.wake()
        await until(lambda: (Stream.WAVEFORM, Age.LIVE) in policy.asked, "the policy again")
        assert bench.journal.cursors[Stream.WAVEFORM] == 5

    drive(bench, story)


def test_asks_are_bounded_and_the_same_name_asks_anew() -> None:
    bench = Bench()
    for n in range(MOST_ASKS):
        bench.uplink.asks.add(around_now(f"ask-{n}", Stream.VITALS))
    bench.uplink.asks.add(around_now("ask-3", Stream.WAVEFORM))
    assert [p.ask.stream for p in bench.uplink.asks.progress()].count(Stream.WAVEFORM) == 1
    with pytest.raises(ValueError, match="expected fewer than 16"):
        bench.uplink.asks.add(around_now("one-more", Stream.VITALS))
    with pytest.raises(ValueError, match="an end that is not after its begin"):
        Ask("backwards", Stream.VITALS, 5, 5)

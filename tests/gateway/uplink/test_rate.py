"""A provider's limits are kept, whatever the network does, and cost neither an entry nor an alarm its place."""

import asyncio
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.broker import Broker
from gateway.config.profile import PROFILES, ProfileName, Protocol
from gateway.journal.entry import Stream
from gateway.uplink.patience import NS_PER_S, Timing
from gateway.uplink.rate import Rate
from gateway.uplink.wire import Limits
from tests.gateway.uplink.bench import (
    MemoryJournal,
    entries_of,
    make_receiver,
    make_uplink,
    read_lines,
    running,
    subscribed,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults
from tests.gateway.uplink.test_uplink import Bench, drive

AWS = ProfileName.AWS_IOT_CORE
DELAYS_NS = st.lists(st.integers(0, 3 * NS_PER_S), min_size=1, max_size=40)


@settings(max_examples=200, deadline=None)
@given(st.integers(1, 12), DELAYS_NS, DELAYS_NS, st.integers(0, NS_PER_S // 3))
def test_no_second_at_the_broker_holds_more_than_the_limit(
    per_s: int, there_ns: list[int], back_ns: list[int], late_ns: int
) -> None:
    """Each way delays as it likes and keeps the order, as TCP does; the hub wakes when it should, or late."""
    rate, now = Rate(per_s), 0
    reached: list[int] = []
    answers: deque[int] = deque()
    while len(reached) < 60:
        while answers and answers[0] <= now:
            answers.popleft()
            rate.answered(now)
        while rate.has_room(len(answers), now):
            number = len(reached)
            at = max(now + there_ns[number % len(there_ns)], reached[-1] if reached else 0)
            reached.append(at)
            last = answers[-1] if answers else 0
            answers.append(max(at + back_ns[number % len(back_ns)], last))
        due_ns = rate.due_ns(now)
        assert due_ns is None or now < due_ns <= now + NS_PER_S
        now = min([*list(answers)[:1], *([] if due_ns is None else [due_ns])]) + late_ns
    for first, behind in zip(reached, reached[per_s:], strict=False):
        assert behind - first >= NS_PER_S
    assert reached[-1] <= 60 * (7 * NS_PER_S + 2 * late_ns)  # it goes on


def test_what_is_urgent_has_a_fifth_for_itself() -> None:
    rate = Rate(100)
    assert rate.has_room(79, 0, urgent=False)
    assert not rate.has_room(80, 0, urgent=False)
    assert rate.has_room(99, 0)
    assert not rate.has_room(100, 0)
    assert Rate(None).has_room(10**6, 0, urgent=False)
    assert Rate(1).has_room(0, 0, urgent=False)


def test_an_alarm_leaves_at_once_while_a_backlog_uses_its_share() -> None:
    """Nothing is answered, so nothing makes room."""
    bench = Bench(Limits(publishes_per_s=20), Timing(heartbeat=60))
    for _ in range(60):
        bench.journal.commit(Stream.WAVEFORM, 1)

    async def story() -> None:
        await bench.wait_published(16)
        bench.journal.commit(Stream.ALARM, 1)
        bench.uplink.wake()
        await bench.wait_published(17)
        assert bench.wire.streams() == ["waveform"] * 14 + ["alarm"]
        bench.wire.answer_all()
        await bench.wait_published(30)

    drive(bench, story)


STORM = Faults(drop_before=0.005, drop_after=0.005, lose_ack=0.002, late=0.3, refuse=0.005)


@pytest.mark.parametrize("protocol", Protocol)
def test_under_the_limits_of_a_provider_nothing_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: Protocol
) -> None:
    # Fewer a second than the real ones, so that a slow machine would break them, too.
    narrow = replace(PROFILES[AWS], publishes_per_s=25)
    monkeypatch.setitem(PROFILES, AWS, narrow)
    journal = MemoryJournal()
    for _ in range(30):
        journal.commit(Stream.VITALS, 2)
        journal.commit(Stream.WAVEFORM, 2)
    journal.commit(Stream.AUDIT, 400)

    async def main() -> FaultBroker:
        async with FaultBroker(STORM, 4, narrow) as server:
            broker = Broker("127.0.0.1", server.port, protocol=protocol, profile=AWS)
            timing = Timing(heartbeat=0.2, cursor=0.05, answer=2.0, backoff_first=0.05)
            receiver = make_receiver(tmp_path, broker, grace_s=30)
            uplink = make_uplink(journal, broker, timing)
            async with running(receiver.run(), subscribed(receiver, uplink)):
                await until(lambda: receiver.report().entries == 520, "all entries")
                server.faults = Faults()
                assert await uplink.drain(40), uplink.status()
            return server

    server = asyncio.run(main())
    assert server.violations == []
    assert 0 < server.most_in_a_second <= 25
    got = entries_of(read_lines(tmp_path / "lines.jsonl"))
    assert {stream: sorted(found) for stream, found in got.items()} == journal.all_sequences()


@pytest.mark.parametrize(
    ("narrow", "violation"),
    [
        (replace(PROFILES[AWS], publishes_per_s=50), "more than 50 in a second"),
        (replace(PROFILES[AWS], unacknowledged=2), "more than 2 unacknowledged"),
        (replace(PROFILES[AWS], packet_bytes=20_000), "packet of"),
        (replace(PROFILES[AWS], topic_slashes=3), "too many slashes"),
        (replace(PROFILES[AWS], topic_bytes=20), "topic of"),
        (replace(PROFILES[AWS], client_id_bytes=3), "client id"),
        (PROFILES[ProfileName.NATS], "version 5"),
    ],
)
def test_a_hub_that_does_not_know_a_limit_breaks_it(narrow: object, violation: str) -> None:
    """So the test above can fail."""
    journal = MemoryJournal()
    for _ in range(80):
        journal.commit(Stream.VITALS, 2)
    journal.commit(Stream.AUDIT, 100)

    async def main() -> None:
        async with FaultBroker(Faults(late=1.0), 1, narrow) as server:  # type: ignore[arg-type]
            uplink = make_uplink(journal, Broker("127.0.0.1", server.port))
            async with running(uplink.run()):
                await until(
                    lambda: any(violation in text for text in server.violations),
                    f"{violation}: {server.violations}",
                )

    asyncio.run(main())

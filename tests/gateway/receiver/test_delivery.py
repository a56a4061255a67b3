"""Effectively once: hub, a broker that breaks things, receiver. Raise the cycles with WARDLINK_CYCLES."""

import asyncio
import logging
import os
import random
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.config.broker import Broker
from gateway.config.delivery import Delivery, Payload
from gateway.config.profile import Protocol
from gateway.journal.entry import Stream
from gateway.receiver import receive
from gateway.receiver.ledger import Cause, Hole, Key, Ledger, Span, Track
from gateway.receiver.lines import Lines
from gateway.receiver.receive import Receiver
from gateway.receiver.store import StoreError
from gateway.uplink.hub_wires import hub_wires
from gateway.uplink.patience import Timing
from gateway.uplink.receipts import Receipts
from gateway.uplink.signature import VerifyKeys
from gateway.uplink.uplink import Uplink
from tests.gateway.uplink.bench import (
    EPOCH,
    HUB,
    KEY,
    PUBLIC,
    QUICK,
    KeptStore,
    MemoryJournal,
    clock,
    entries_of,
    lines_store,
    make_receiver,
    make_uplink,
    read_lines,
    running,
    subscribed,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults, Message

CYCLES = int(os.environ.get("WARDLINK_CYCLES", "50"))
BRISK = Timing(heartbeat=0.2, cursor=0.05, answer=0.15, backoff_first=0.01, backoff_most=0.4)
ALL_FAULTS = Faults(
    drop_before=0.04,
    drop_after=0.04,
    lose_ack=0.01,
    refuse=0.03,
    late=0.3,
    truncate=0.03,
    repeat=0.05,
    drop_receiver=0.01,
)


MIXED = Delivery(payloads={Stream.VITALS: Payload.CBOR, Stream.AUDIT: Payload.CBOR})
BOTH_VERSIONS = pytest.mark.parametrize(
    ("protocol", "seed"),
    [(Protocol.V5, 1), (Protocol.V5, 2), (Protocol.V311, 1), (Protocol.V311, 3)],
)


@BOTH_VERSIONS
def test_nothing_is_missing_and_nothing_is_repeated(
    tmp_path: Path, protocol: Protocol, seed: int
) -> None:
    journal = MemoryJournal()
    rng = random.Random(seed)
    faults = replace(
        ALL_FAULTS, receive_maximum=rng.randint(1, 20), maximum_packet=rng.choice([None, 8192])
    )

    async def main() -> FaultBroker:
        async with FaultBroker(faults, seed) as server:
            broker = Broker("127.0.0.1", server.port, protocol=protocol, window_bytes=32_768)
            receiver = make_receiver(tmp_path, broker, grace_s=30)
            uplink = make_uplink(journal, broker, BRISK, MIXED)
            async with running(receiver.run(), subscribed(receiver, uplink)):
                while server.connections < CYCLES // 3 + 2:
                    journal.commit(rng.choice(list(Stream)), rng.randint(1, 60))
                    uplink.wake()
                    server.faults.receive_maximum = rng.randint(1, 20)
                    await asyncio.sleep(0.005)
                server.faults = Faults(receive_maximum=3)
                server.kick()
                assert await uplink.drain(40), uplink.status()
                total = sum(map(len, journal.all_sequences().values()))
                await until(
                    lambda: receiver.report().entries >= total,
                    f"{total} entries: {receiver.report()}",
                )
            assert receiver.report().missing == 0
            assert receiver.report().rejected == 0
            return server

    server = asyncio.run(main())
    assert server.violations == []
    lines = read_lines(tmp_path / "lines.jsonl")
    got = entries_of(lines)
    for stream, sequences in journal.all_sequences().items():
        assert sorted(got[stream]) == sequences, stream
    assert journal.cursors == {stream: journal.high_water(stream) for stream in Stream}
    assert [line for line in lines if line["type"] == "gap"] == []


def test_what_a_broker_forgot_after_its_acknowledgement_is_named(tmp_path: Path) -> None:
    journal = MemoryJournal()

    async def main() -> None:
        async with FaultBroker(Faults(), 1) as server:
            broker = Broker("127.0.0.1", server.port)
            receiver, uplink = (
                make_receiver(tmp_path, broker, grace_s=0.1),
                make_uplink(journal, broker, BRISK),
            )
            async with running(uplink.run()):
                async with running(receiver.run()):
                    await until(lambda: receiver.is_connected, "receiver connects")
                    journal.commit(Stream.VITALS, 5)
                    uplink.wake()
                    await until(lambda: receiver.report().entries == 5, "first entries")
                journal.commit(Stream.VITALS, 3)
                uplink.wake()
                await until(lambda: journal.cursors[Stream.VITALS] == 8, "acknowledged")
                server.sessions["receiver-1"].queue.clear()
                again = make_receiver(tmp_path, broker, grace_s=0.1)
                async with running(again.run()):
                    await until(lambda: again.report().open_gaps == 1, "gap")

    asyncio.run(main())
    gaps = [line for line in read_lines(tmp_path / "lines.jsonl") if line["type"] == "gap"]
    assert [(gap["stream"], gap["first"], gap["last"], gap["cause"]) for gap in gaps] == [
        ("vitals", 6, 8, "tail")
    ]


# --- On the receiver's word --------------------------------------------------------------------------------

FORGETFUL = replace(ALL_FAULTS, forget=0.03, crash=0.01)


def receipting_uplink(
    journal: MemoryJournal, broker: Broker, receivers: Sequence[str] = ("r-1",)
) -> Uplink:
    return Uplink(
        journal,
        hub_wires(broker, HUB.id, KEY.sign, Receipts.filter(HUB)),
        clock(),
        HUB,
        version="test",
        window_bytes=broker.window_bytes,
        rng=random.Random(1),
        timing=BRISK,
        receipts=Receipts(HUB, EPOCH, VerifyKeys(dict.fromkeys(receivers, PUBLIC))),
    )


def receipting_receiver(folder: Path, broker: Broker, grace_s: float = 30) -> Receiver:
    return Receiver(
        broker,
        HUB.tenant,
        {HUB.id: PUBLIC},
        clock(),
        store=lines_store(folder),
        client_id="receiver-1",
        rng=random.Random(2),
        name="r-1",
        sign=KEY.sign,
        grace_s=grace_s,
        timing=QUICK,
    )


def check_all_once(folder: Path, journal: MemoryJournal) -> list[dict[str, Any]]:
    lines = read_lines(folder / "lines.jsonl")
    got = entries_of(lines)
    for stream, sequences in journal.all_sequences().items():
        assert sorted(got[stream]) == sequences, stream
    assert journal.cursors == {stream: journal.high_water(stream) for stream in Stream}
    return lines


async def stormy_cycles(
    server: FaultBroker, journal: MemoryJournal, uplink: Uplink, rng: random.Random
) -> None:
    while server.connections < CYCLES // 3 + 2 or not {"crash", "forget"} <= server.counts.keys():
        journal.commit(rng.choice(list(Stream)), rng.randint(1, 60))
        uplink.wake()
        server.faults.receive_maximum = rng.randint(1, 20)
        await asyncio.sleep(0.005)
    server.faults = Faults(receive_maximum=3)
    server.kick()


@BOTH_VERSIONS
@pytest.mark.usefixtures("hurry")
def test_what_a_broker_forgets_is_sent_again(tmp_path: Path, protocol: Protocol, seed: int) -> None:
    journal, rng = MemoryJournal(), random.Random(seed)

    async def main() -> None:
        async with FaultBroker(replace(FORGETFUL, receive_maximum=5), seed) as server:
            broker = Broker("127.0.0.1", server.port, protocol=protocol, window_bytes=32_768)
            receiver, uplink = (
                receipting_receiver(tmp_path, broker),
                receipting_uplink(journal, broker),
            )
            async with running(receiver.run(), subscribed(receiver, uplink)):
                await stormy_cycles(server, journal, uplink, rng)
                assert await uplink.drain(40), uplink.status()
            assert receiver.report().missing == 0
            assert receiver.report().rejected == 0
            assert server.violations == []

    asyncio.run(main())
    lines = check_all_once(tmp_path, journal)
    assert [line for line in lines if line["type"] == "gap"] == []


def test_on_the_brokers_word_the_same_faults_lose_entries_and_each_is_named(
    tmp_path: Path,
) -> None:
    journal, rng = MemoryJournal(), random.Random(1)

    async def main() -> None:
        async with FaultBroker(replace(FORGETFUL, receive_maximum=5), 1) as server:
            broker = Broker("127.0.0.1", server.port, window_bytes=32_768)
            receiver, uplink = (
                make_receiver(tmp_path, broker, grace_s=1.0),
                make_uplink(journal, broker, BRISK),
            )
            async with running(receiver.run(), subscribed(receiver, uplink)):
                await stormy_cycles(server, journal, uplink, rng)
                await until(lambda: receiver.is_connected, "receiver connects")
                # What the storm made forgotten may have been sent again in time. This is not.
                server.faults = Faults(receive_maximum=3, forget=1.0)
                journal.commit(Stream.VITALS, 7)
                uplink.wake()
                await until(
                    lambda: (
                        uplink.status().streams[Stream.VITALS].acknowledged
                        == journal.high_water(Stream.VITALS)
                    ),
                    "the broker's word",
                )
                server.faults = Faults(receive_maximum=3)
                assert await uplink.drain(40), uplink.status()
                total = sum(map(len, journal.all_sequences().values()))

                def is_accounted_for() -> bool:
                    report = receiver.report()
                    return report.open_gaps > 0 and report.entries + report.missing == total

                await until(is_accounted_for, f"{total} entries: {receiver.report()}")
                await asyncio.sleep(1.1)

    asyncio.run(main())
    lines = read_lines(tmp_path / "lines.jsonl")
    got = entries_of(lines)
    lost = 0
    for stream, sequences in journal.all_sequences().items():
        missing = set(sequences) - set(got[stream])
        named: set[int] = set()
        for line in lines:
            if line["type"] in {"gap", "gap_closed"} and line["stream"] == stream:
                span = set(range(line["first"], line["last"] + 1))
                named = named | span if line["type"] == "gap" else named - span
        assert named == missing, stream
        lost += len(missing)
    assert lost > 0
    assert journal.cursors == {stream: journal.high_water(stream) for stream in Stream}


KILLABLE = """
import asyncio, sys
from pathlib import Path
from gateway.config.broker import Broker
from gateway.receiver import receive
from gateway.receiver.ledger import Cause, Hole, Key, Ledger, Span, Track
from gateway.receiver.lines import Lines
from tests.gateway.receiver.test_delivery import receipting_receiver
receive.SYNC_S = 60.0
asyncio.run(receipting_receiver(Path(sys.argv[1]), Broker("127.0.0.1", int(sys.argv[2]))).run())
"""


@pytest.mark.usefixtures("hurry")
def test_a_receiver_that_is_killed_before_its_receipt_loses_and_repeats_nothing(
    tmp_path: Path,
) -> None:
    journal, lines = MemoryJournal(), tmp_path / "lines.jsonl"

    def written() -> int:
        return lines.read_bytes().count(b'"type":"entry"') if lines.exists() else 0

    async def main() -> None:
        async with FaultBroker(Faults(repeat=0.2), 1) as server:
            broker = Broker("127.0.0.1", server.port)
            uplink = receipting_uplink(journal, broker)
            async with running(uplink.run()):
                child = await asyncio.to_thread(
                    subprocess.Popen,
                    [sys.executable, "-c", KILLABLE, str(tmp_path), str(server.port)],
                    cwd=Path(__file__).parents[3],
                )
                try:
                    await until(lambda: "receiver-1" in server.sessions, "the child connects")
                    for _ in range(40):
                        journal.commit(Stream.VITALS, 25)
                    uplink.wake()
                    await until(lambda: written() > 100, "first lines")
                finally:
                    child.kill()
                    await asyncio.to_thread(child.wait)
                assert not (tmp_path / "state.json").exists()
                assert uplink.status().streams[Stream.VITALS].acknowledged == 0
                journal.commit(Stream.ALARM, 3)
                uplink.wake()
                async with running(receipting_receiver(tmp_path, broker).run()):
                    assert await uplink.drain(15), uplink.status()

    asyncio.run(main())
    check_all_once(tmp_path, journal)


@pytest.mark.usefixtures("hurry")
def test_a_hub_whose_cursor_lags_sends_again_and_is_given_free(tmp_path: Path) -> None:
    journal = MemoryJournal()

    async def main() -> None:
        async with FaultBroker(Faults(), 1) as server:
            broker = Broker("127.0.0.1", server.port)
            receiver = receipting_receiver(tmp_path, broker)
            async with running(receiver.run()):
                async with running(subscribed(receiver, make_uplink(journal, broker, BRISK))):
                    journal.commit(Stream.VITALS, 5)
                    await until(lambda: receiver.report().entries == 5, "entries")
                journal.cursors[Stream.VITALS] = 2  # as a hub that lost its power before the cursor
                uplink = receipting_uplink(journal, broker)
                async with running(uplink.run()):
                    await until(lambda: journal.cursors[Stream.VITALS] == 5, "released")
                    assert uplink.status().streams[Stream.VITALS].evicted == 0
                    assert await uplink.drain(5)

    asyncio.run(main())
    check_all_once(tmp_path, journal)


@pytest.mark.usefixtures("hurry")
def test_a_new_receiver_takes_over_in_the_middle_of_a_journal(tmp_path: Path) -> None:
    journal = MemoryJournal()
    for _ in range(4):
        journal.commit(Stream.VITALS, 5)
    journal.cursors[Stream.VITALS] = 10

    async def main() -> None:
        async with FaultBroker(Faults(), 1) as server:
            broker = Broker("127.0.0.1", server.port)
            uplink = receipting_uplink(journal, broker)
            receiver = receipting_receiver(tmp_path, broker, 0.1)
            async with running(receiver.run(), subscribed(receiver, uplink)):
                await until(lambda: journal.cursors[Stream.VITALS] == 20, "released")
                await until(lambda: receiver.report().open_gaps == 1, "gap")

    asyncio.run(main())
    gaps = [line for line in read_lines(tmp_path / "lines.jsonl") if line["type"] == "gap"]
    assert [(gap["first"], gap["last"]) for gap in gaps] == [(1, 10)]


@pytest.mark.usefixtures("hurry")
def test_without_a_receiver_a_drain_gives_up_in_time_and_nothing_is_given_free(
    tmp_path: Path,
) -> None:
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 5)

    async def main() -> None:
        async with FaultBroker(Faults(refuse=0.5), 1) as server:
            broker = Broker("127.0.0.1", server.port)
            uplink = receipting_uplink(journal, broker)
            async with running(uplink.run()):
                began = asyncio.get_running_loop().time()
                assert not await uplink.drain(1.0)
                assert asyncio.get_running_loop().time() - began < 1.3
                assert journal.cursors[Stream.VITALS] == 0
                await until(lambda: uplink.status().refusals > 2, "probes are refused")
                server.faults = Faults()
                async with running(receipting_receiver(tmp_path, broker).run()):
                    assert await uplink.drain(10), uplink.status()

    asyncio.run(main())
    check_all_once(tmp_path, journal)


class Watching(FaultBroker):
    """Counts the receipts, swallows them on demand, and remembers the last batch."""

    def __init__(self) -> None:
        super().__init__(Faults(), 1)
        self.receipts = 0
        self.swallows = False
        self.batch: Message | None = None

    def route(self, message: Message) -> None:
        if message.topic.endswith("/vitals"):
            self.batch = message
        if "/receipt/" in message.topic:
            self.receipts += 1
            if self.swallows:
                return
        super().route(message)


def test_repeats_do_not_bring_a_receipt_each(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "SYNC_S", 0.3)
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 1)

    async def main() -> None:
        async with Watching() as server:
            broker = Broker("127.0.0.1", server.port)
            receiver = receipting_receiver(tmp_path, broker)
            async with running(receiver.run()):
                uplink = receipting_uplink(journal, broker)
                async with running(uplink.run()):
                    assert await uplink.drain(10)
                await asyncio.sleep(0.4)  # the last line is on the disk
                server.receipts = 0
                for _ in range(100):
                    assert server.batch is not None
                    server.route(server.batch)
                    await asyncio.sleep(0.002)
                await until(lambda: receiver.report().repeats >= 100, "repeats")
                assert 1 <= server.receipts <= 3

    asyncio.run(main())


def test_a_receipt_that_was_lost_comes_again_with_a_heartbeat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "SYNC_S", 0.05)
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 5)

    async def main() -> None:
        async with Watching() as server:
            broker = Broker("127.0.0.1", server.port)
            uplink = receipting_uplink(journal, broker)
            server.swallows = True
            receiver = receipting_receiver(tmp_path, broker)
            async with running(receiver.run(), subscribed(receiver, uplink)):
                await until(lambda: server.receipts > 1, "receipts")
                assert journal.cursors[Stream.VITALS] == 0
                server.swallows = False
                await until(lambda: journal.cursors[Stream.VITALS] == 5, "released")
                assert uplink.status().streams[Stream.VITALS].messages == 1
                waiting = server.sessions[HUB.id].inflight
                await until(lambda: not waiting, "the hub acknowledges each receipt")

    asyncio.run(main())


def test_what_is_not_on_the_disk_has_no_receipt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receive, "SYNC_S", 0.05)
    monkeypatch.setattr(Lines, "sync", lambda _self: None)  # a disk that never answers
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 5)

    async def main() -> None:
        async with Watching() as server:
            broker = Broker("127.0.0.1", server.port)
            receiver = receipting_receiver(tmp_path, broker)
            async with running(
                receiver.run(), subscribed(receiver, receipting_uplink(journal, broker))
            ):
                await until(lambda: receiver.report().entries == 5, "entries")
                await asyncio.sleep(0.3)
                assert server.receipts == 0
                assert journal.cursors[Stream.VITALS] == 0

    asyncio.run(main())


class Away(KeptStore):
    """A database that cannot be reached."""

    away = True

    def begin(self, keys: Collection[Key], hubs: Collection[str]) -> tuple[Ledger, int]:
        if self.away:
            raise StoreError("away")
        return super().begin(keys, hubs)


def test_a_store_that_is_away_holds_the_broker_back_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(receive, "STORE_TIMING", Timing(backoff_first=0.02, backoff_most=0.05))
    journal, store = MemoryJournal(), Away()

    async def main() -> None:
        async with FaultBroker(Faults(), 1) as server:
            broker = Broker("127.0.0.1", server.port)
            receiver = Receiver(
                broker,
                HUB.tenant,
                {HUB.id: PUBLIC},
                clock(),
                store=store,
                client_id="receiver-1",
                rng=random.Random(2),
                timing=QUICK,
            )
            uplink = make_uplink(journal, broker)
            async with running(receiver.run(), subscribed(receiver, uplink)):
                await until(lambda: receiver.is_connected, "receiver connects")
                for _ in range(100):
                    journal.commit(Stream.VITALS, 3)
                    uplink.wake()
                    await asyncio.sleep(0.001)
                assert await uplink.drain(40)
                session = server.sessions["receiver-1"]
                await until(lambda: len(session.inflight) == receive.RECEIVE_MAXIMUM, "full window")
                assert receiver.trouble == "away"
                assert store.lines == []
                store.away = False
                await until(lambda: receiver.report().entries == 300, "all entries")
                await until(lambda: receiver.trouble is None, "no trouble")
                await until(lambda: not session.inflight, "all acknowledged")
            assert receiver.report().repeats == 0

    with caplog.at_level(logging.INFO):
        asyncio.run(main())
    entries = [line["sequence"] for line in store.lines if line["type"] == "entry"]
    assert entries == list(range(1, 301))
    said = [record.message for record in caplog.records if "receiver: " in record.message]
    assert sum("nothing is acknowledged until this is over: away" in text for text in said) == 1
    assert "receiver: the store is back" in said


def test_what_may_have_waited_at_the_broker_is_no_gap_yet() -> None:
    """A hole from before, long older than its grace: it counts from the connection."""
    store = KeptStore()
    key = Key(HUB.id, Stream.VITALS, EPOCH)
    hole = Hole(Span(2, 2), 0, Cause.SEQUENCE)
    store.ledger.put(key, Track(high=3, claimed=3, holes=[hole]))

    async def main() -> float:
        async with FaultBroker(Faults(), 1) as server:
            receiver = Receiver(
                Broker("127.0.0.1", server.port),
                HUB.tenant,
                {HUB.id: PUBLIC},
                clock(),
                store=store,
                client_id="receiver-1",
                rng=random.Random(2),
                grace_s=1.0,
            )
            began = time.monotonic()

            def is_named() -> bool:
                # What comes meanwhile wakes the receiver, which could look too early.
                server.route(Message("wardlink/1/ward/stranger/vitals", b""))
                return any(line["type"] == "gap" for line in store.lines)

            async with running(receiver.run()):
                await until(is_named, "gap")
                return time.monotonic() - began

    assert asyncio.run(main()) >= 1.0

"""Effectively once: hub, a broker that breaks things, receiver. Raise the cycles with WARDLINK_CYCLES."""

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config import Broker
from gateway.journal.entry import Stream
from gateway.uplink.patience import Timing
from tests.gateway.uplink.bench import (
    MemoryJournal,
    entries_of,
    make_receiver,
    make_uplink,
    read_lines,
    running,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults

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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_nothing_is_missing_and_nothing_is_repeated(tmp_path: Path, seed: int) -> None:
    journal = MemoryJournal()
    rng = random.Random(seed)
    faults = replace(
        ALL_FAULTS, receive_maximum=rng.randint(1, 20), maximum_packet=rng.choice([None, 8192])
    )

    async def main() -> FaultBroker:
        async with FaultBroker(faults, seed) as server:
            broker = Broker("127.0.0.1", server.port, window_bytes=32_768)
            receiver = make_receiver(tmp_path, broker, grace_s=30)
            uplink = make_uplink(journal, broker, BRISK)
            async with running(receiver.run(), uplink.run()):
                while server.connections < CYCLES // 3 + 2:
                    journal.commit(rng.choice(list(Stream)), rng.randint(1, 60))
                    uplink.wake()
                    server.faults.receive_maximum = rng.randint(1, 20)
                    await asyncio.sleep(0.005)
                server.faults = Faults(receive_maximum=3)
                server.kick()
                assert await uplink.drain(20), uplink.status()
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

"""Effectively once, in made time: hub, broker and receiver through hours of bad weather, cycle by cycle from a seed.

A cycle is one connection of a hub, in a weather of its own; it comes back from days without a network, its policy changes
its mind, and somebody asks for this and that. WARDLINK_STORMS says how many cycles in all; a story that
failed is told again by its seed alone.
"""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from drivers.model import Event, EventKind
from gateway.config.broker import Broker
from gateway.config.delivery import Ack
from gateway.journal.entry import Entry, Stream
from gateway.receiver import receive
from gateway.receiver.receive import Receiver
from gateway.uplink.order import Age, Ask, Policy, Unmetered
from gateway.uplink.receipts import Receipts
from gateway.uplink.signature import VerifyKeys
from gateway.uplink.uplink import Uplink
from gateway.uplink.wire import Listener, Session
from tests.gateway.uplink.bench import (
    DAY_NS,
    EPOCH,
    HUB,
    KEY,
    PUBLIC,
    MemoryJournal,
    entries_of,
    lines_store,
    read_lines,
    running,
    until,
)
from tests.gateway.uplink.simbroker import SimBroker, SimWire, Weather
from tests.gateway.uplink.virtual import WALL_NS, Inline, VirtualClock, play

STORIES = 20
CYCLES = max(1, int(os.environ.get("WARDLINK_STORMS", "1000")) // STORIES)


def weather(rng: random.Random, *, forgets: bool) -> Weather:
    """Most connections know two or three troubles, and some know none."""
    chance = {
        "drop_before": 0.05, "drop_after": 0.05, "lose_ack": 0.05, "refuse": 0.1, "repeat": 0.2,
        "drop_receiver": 0.02, "silence": 0.02, "no_connection": 0.5,
    }  # fmt: skip
    if forgets:
        chance |= {"forget": 0.05, "crash": 0.02}
    troubles = rng.sample(sorted(chance), rng.randint(0, 4))
    return Weather(
        **{name: rng.uniform(0, chance[name]) for name in troubles},
        one_way_s=rng.choice([0.001, 0.04, 0.3, 2.0]),
        jitter_s=rng.choice([0.0, 0.05, 1.0]),
        receive_maximum=rng.randint(1, 20),
        maximum_packet_bytes=rng.choice([4_096, 8_192, 131_072]),
    )


class World:
    """A hub's journal, a broker, and the two ends, each of which may be started anew."""

    def __init__(self, folder: Path, seed: int, *, by_receipt: bool) -> None:
        self.folder = folder
        self.rng = random.Random(seed)
        self.by_receipt = by_receipt
        self.journal = MemoryJournal()
        self.broker = SimBroker(seed, Weather())
        self.clock = VirtualClock()

    def backlog(self, days: int) -> None:
        """A hub that comes back from a week without a network."""
        for day in range(days, 0, -1):
            self.journal.wall_ns = WALL_NS - day * DAY_NS
            for stream in Stream:
                for _ in range(self.rng.randint(0, 4)):
                    self.journal.commit(stream, self.rng.randint(1, 20))

    def commit(self) -> None:
        self.journal.wall_ns = self.clock.read().wall_ns
        stream = self.rng.choice(list(Stream))
        self.journal.commit(stream, self.rng.randint(1, 20))
        if self.rng.random() < 0.1:
            # More than some of these brokers take.
            event = Event(EventKind.FAULT, 1, "big", data=bytes(self.rng.choice([2_500, 5_000])))
            self.journal.put(stream, (Entry(self.journal.high_water(stream) + 1, "", event),))

    def uplink(self, policy: Policy | None = None) -> Uplink:
        receipts = Receipts(HUB, EPOCH, VerifyKeys({"r-1": PUBLIC})) if self.by_receipt else None
        session = Session(HUB.id, KEY.sign, subscribe=(Receipts.filter(HUB),) if receipts else ())
        return Uplink(
            self.journal,
            self.broker.wires(session),
            self.clock,
            HUB,
            version="test",
            window_bytes=self.rng.choice([16_384, 131_072]),
            rng=random.Random(self.rng.random()),
            receipts=receipts,
            policy=policy,
        )

    def receiver(self) -> Receiver:
        return Receiver(
            Broker("127.0.0.1", 1),
            HUB.tenant,
            {HUB.id: PUBLIC},
            self.clock,
            store=lines_store(self.folder),
            client_id="receiver-1",
            rng=random.Random(self.rng.random()),
            name="r-1",
            sign=KEY.sign if self.by_receipt else None,
            grace_s=1e6,
        )

    def reach(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The receiver connects by itself: to this broker."""
        world = self

        class Way:
            @staticmethod
            async def connect(_broker: Broker, session: Session, listener: Listener) -> SimWire:
                return await world.broker.connect(session, listener)

        monkeypatch.setattr(receive, "PahoWire", Way)
        monkeypatch.setattr(receive, "ThreadPoolExecutor", Inline)


class Fickle(Unmetered):
    """Changes its mind every few seconds, and charges for what goes."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.changes_ns = 0
        self.open: set[tuple[Stream, Age]] = set()
        self.charged = 0

    def may_send(self, stream: Stream, age: Age, size_bytes: int, now_ns: int) -> bool:
        assert stream is not Stream.ALARM
        assert size_bytes > 0
        if now_ns >= self.changes_ns:
            self.changes_ns = now_ns + int(self.rng.expovariate(1 / 30) * 1e9) + 1
            everything = [(stream, age) for stream in Stream for age in Age]
            self.open = set(self.rng.sample(everything, self.rng.randint(0, len(everything))))
        return (stream, age) in self.open

    def sent(self, stream: Stream, age: Age, size_bytes: int) -> None:
        assert stream is Stream.ALARM or age is Age.ASKED or (stream, age) in self.open
        self.charged += size_bytes

    def next_change_ns(self, now_ns: int) -> int | None:
        return max(self.changes_ns, now_ns + 1)


def asks(world: World, uplink: Uplink) -> None:
    """Somebody wants something, or does not want it any more."""
    rng, now = world.rng, world.clock.read().wall_ns
    name = f"ask-{rng.randint(1, 3)}"
    if rng.random() < 0.3:
        uplink.asks.withdraw(name)
    else:
        begin = now + int(rng.uniform(-5, 0.1) * DAY_NS)
        end = begin + int(rng.uniform(0.001, 1) * DAY_NS)
        uplink.asks.add(Ask(name, rng.choice(list(Stream)), begin, end))
    for progress in uplink.asks.progress():
        assert not progress.is_done or not progress.waiting


@contextlib.asynccontextmanager
async def one_life(
    world: World, policy: Policy | None = None
) -> AsyncIterator[tuple[Uplink, Receiver]]:
    """Both ends, until one of them is ended from outside."""
    uplink, receiver = world.uplink(policy), world.receiver()
    async with running(receiver.run()):
        # What a broker takes before anybody subscribed it gives to nobody.
        await until(lambda: "receiver-1" in world.broker.sessions, "receiver subscribes")
        async with running(uplink.run()):
            yield uplink, receiver


async def storm(world: World, cycles: int) -> None:
    """Records come, weather changes with each connection; now and then both ends are started anew."""
    rng, broker = world.rng, world.broker
    while broker.connections < cycles:
        policy = Fickle(rng) if rng.random() < 0.5 else None
        async with one_life(world, policy) as (uplink, _receiver):
            until = broker.connections + rng.randint(3, 15)
            seen = -1
            while broker.connections < min(until, cycles):
                if broker.connections != seen:
                    seen = broker.connections
                    broker.weather = weather(rng, forgets=world.by_receipt)
                    for _ in range(rng.randint(0, 6)):
                        world.commit()
                    if rng.random() < 0.3:
                        asks(world, uplink)
                    uplink.wake()
                await asyncio.sleep(rng.choice([0.1, 1.0, 10.0]))
                if rng.random() < 0.05:
                    broker.kick()


async def story(world: World) -> None:
    await storm(world, CYCLES)
    broker = world.broker
    broker.weather = Weather(receive_maximum=3)
    broker.kick()
    async with one_life(world) as (uplink, receiver):
        assert await uplink.drain(24 * 3600), uplink.status()
        total = sum(map(len, world.journal.all_sequences().values()))
        for _ in range(1000):
            if all_there(world.folder, total):
                break
            await asyncio.sleep(10)
        assert receiver.report().missing == 0, receiver.report()
        assert receiver.report().rejected == 0


def all_there(folder: Path, total: int) -> bool:
    return (folder / "lines.jsonl").read_bytes().count(b'"type":"entry"') >= total


@pytest.mark.parametrize("ack", Ack)
@pytest.mark.parametrize("number", range(STORIES // 2))
def test_nothing_is_missing_and_nothing_is_repeated_in_any_weather(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, ack: Ack
) -> None:
    world = World(tmp_path, number, by_receipt=ack is Ack.RECEIVER)
    world.reach(monkeypatch)
    world.backlog(days=number)
    play(lambda: story(world))
    assert world.broker.violations == []
    lines: list[dict[str, Any]] = read_lines(tmp_path / "lines.jsonl")
    got = entries_of(lines)
    for stream, sequences in world.journal.all_sequences().items():
        assert sorted(got[stream]) == sequences, stream
        assert world.journal.cursors[stream] == world.journal.high_water(stream)
    assert [line for line in lines if line["type"] == "gap"] == []

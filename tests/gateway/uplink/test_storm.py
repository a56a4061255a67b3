"""A thousand uplinks whose broker goes away and comes back: when do they knock? In a time of its own."""

import asyncio
import random
from collections import Counter

import pytest

from gateway.config.hub import Hub
from gateway.uplink.patience import Timing
from gateway.uplink.uplink import Uplink
from gateway.uplink.wire import Limits, Listener, Outgoing, Reason, UplinkError
from tests.gateway.uplink.bench import HUB, MemoryJournal, running
from tests.gateway.uplink.virtual import VirtualClock, play

HUBS = 1000
FEW = 250
CALM = Timing(heartbeat=3600.0)
"""Heartbeats have no part in this, and would only cost time."""


class AnsweringWire:
    """Acknowledges everything, until it is cut."""

    def __init__(self, broker: "Broker", listener: Listener) -> None:
        self.limits = Limits()
        self._broker = broker
        self._listener = listener
        self._next = 0

    def publish(self, _message: Outgoing) -> int:
        self._next += 1
        asyncio.get_running_loop().call_soon(self._listener.answered, self._next, None)
        return self._next

    def acknowledge(self, message_id: int) -> None:
        """Nothing arrives here."""

    async def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        self._broker.wires.discard(self)

    def cut(self) -> None:
        self._listener.lost(UplinkError(Reason.LOST, "the connection ended"))


class Broker:
    """Notes each knock by the second, and says who is in."""

    def __init__(self) -> None:
        self.is_up = True
        self.wires: set[AnsweringWire] = set()
        self.knocks: list[float] = []

    async def connect(self, listener: Listener, _will: Outgoing) -> AnsweringWire:
        self.knocks.append(asyncio.get_running_loop().time())
        if not self.is_up:
            raise UplinkError(Reason.REFUSED, "nobody listens there")
        wire = AnsweringWire(self, listener)
        self.wires.add(wire)
        return wire

    def per_second(self, since: float) -> Counter[int]:
        return Counter(int(at - since) for at in self.knocks if at >= since)


def uplinks(broker: Broker, timing: Timing, hubs: int = HUBS) -> list[Uplink]:
    return [
        Uplink(
            MemoryJournal(),
            broker.connect,
            VirtualClock(),
            Hub(f"hub-{number}", HUB.tenant, HUB.state_dir, HUB.runtime_dir),
            version="test",
            window_bytes=65_536,
            rng=random.Random(number),
            timing=timing,
        )
        for number in range(hubs)
    ]


def outage(away_s: float, timing: Timing = CALM) -> tuple[Broker, float]:
    """The broker after an outage and 300 s more, and when it was back."""

    async def story() -> tuple[Broker, float]:
        broker = Broker()
        async with running(*(uplink.run() for uplink in uplinks(broker, timing))):
            await asyncio.sleep(10.0)
            assert len(broker.wires) == HUBS
            broker.knocks.clear()
            broker.is_up = False
            for wire in list(broker.wires):
                wire.cut()
            await asyncio.sleep(away_s)
            broker.is_up = True
            back_s = asyncio.get_running_loop().time()
            await asyncio.sleep(300.0)
            assert len(broker.wires) == HUBS
            return broker, back_s

    return play(story)


def test_after_a_long_outage_the_cap_spreads_the_connections() -> None:
    broker, back_s = outage(600.0)
    rate = broker.per_second(back_s)
    # Each waits for anything between 0 and 120 s: none comes later, and 1000 / 120 a second is the mean.
    assert sum(rate.values()) == HUBS
    assert max(rate) < CALM.backoff_most
    assert rate[0] < 45
    assert max(rate.values()) < 45
    # Nor did they press a dead broker: with full jitter the mean wait is half of the cap.
    pressed = [at for at in broker.knocks if back_s - 300 <= at < back_s]
    assert 300 / 60 * HUBS * 0.9 < len(pressed) < 300 / 60 * HUBS * 1.1


def test_the_first_retry_after_a_connection_is_jittered_too() -> None:
    broker, back_s = outage(0.0)
    tenths = Counter(int(10 * (at - back_s)) for at in broker.knocks)
    assert sum(tenths.values()) == HUBS
    assert max(tenths) <= 10 * CALM.backoff_first
    assert all(60 < tenths[n] < 140 for n in range(10))


@pytest.mark.parametrize("first_s", [20.0, 120.0])
def test_a_large_fleet_takes_a_longer_first_wait(first_s: float) -> None:
    timing = Timing(heartbeat=3600.0, backoff_first=first_s)
    broker, back_s = outage(0.0, timing)
    rate = broker.per_second(back_s)
    assert max(rate) < first_s
    assert max(rate.values()) < 2.5 * max(HUBS / first_s, 10)


def test_a_broker_that_takes_connections_and_drops_them_is_not_pressed() -> None:
    """CONNACK alone proves nothing: only a batch taken over makes the next wait short again."""

    async def story() -> Counter[int]:
        broker = Broker()
        async with running(*(uplink.run() for uplink in uplinks(broker, CALM, FEW))):
            since = asyncio.get_running_loop().time()
            for _ in range(900):
                await asyncio.sleep(1.0)
                for wire in list(broker.wires):
                    wire.cut()
            return broker.per_second(since)

    rate = play(story)
    last = [rate[second] for second in range(600, 900)]
    assert sum(last) < 1.2 * 300 / 60 * FEW
    assert max(last) < 20

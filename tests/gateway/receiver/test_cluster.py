"""A cluster of three NATS servers as the broker, speaking MQTT 3.1.1: the node that the hub talks to is killed."""

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from drivers.model import Event, EventKind
from gateway.clock import SystemClock
from gateway.config.broker import Broker
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.receiver.receive import Receiver
from gateway.uplink.hub_wires import hub_wires
from gateway.uplink.paho_wire import PahoWire
from gateway.uplink.receipts import Receipts
from gateway.uplink.signature import VerifyKeys
from gateway.uplink.uplink import Uplink
from gateway.uplink.wire import Listener, Session
from tests.gateway.receiver.natscluster import HOSTS, NatsCluster, nats_cluster
from tests.gateway.uplink.bench import (
    HUB,
    KEY,
    PUBLIC,
    QUICK,
    OneProcess,
    entries_of,
    lines_store,
    observation,
    read_lines,
    running,
    until,
)

pytestmark = pytest.mark.system

BATCHES = 240
"""Of 20 entries, one after 10 ms: half of them before the kill, half after it."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[NatsCluster]:
    with nats_cluster(tmp_path / "nats") as nodes:
        yield nodes


@pytest.fixture
def at_node(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Client to the host it connected to last."""
    hosts: dict[str, str] = {}
    connect = PahoWire.connect

    async def noting(
        broker: Broker, session: Session, listener: Listener, **limits: Any
    ) -> PahoWire:
        wire = await connect(broker, session, listener, **limits)
        hosts[session.client_id] = broker.host
        return wire

    monkeypatch.setattr(PahoWire, "connect", noting)
    return hosts


def open_journal(folder: Path) -> Journal:
    key = HubKey.load_or_create(folder / "hub.key")
    return Journal.open(
        folder / "journal", hub=HUB.id, clock=SystemClock(), hub_key=key, max_bytes=1 << 28
    )


def hub_of(journal: Journal, broker: Broker, *, by_receipt: bool) -> Uplink:
    receipts = Receipts(HUB, journal.epoch, VerifyKeys({"r-1": PUBLIC}))
    return Uplink(
        OneProcess(journal),
        hub_wires(broker, HUB.id, KEY.sign, Receipts.filter(HUB) if by_receipt else None),
        SystemClock(),
        HUB,
        version="test",
        window_bytes=broker.window_bytes,
        rng=random.Random(1),
        timing=QUICK,
        receipts=receipts if by_receipt else None,
    )


def receiver_of(folder: Path, broker: Broker) -> Receiver:
    return Receiver(
        broker,
        HUB.tenant,
        {HUB.id: PUBLIC},
        SystemClock(),
        store=lines_store(folder),
        client_id="receiver-1",
        rng=random.Random(2),
        name="r-1",
        sign=KEY.sign,
        grace_s=30,
        timing=QUICK,
    )


async def load(journal: Journal, uplink: Uplink) -> None:
    for number in range(BATCHES // 2):
        for _ in range(20):
            journal.append("belt", observation(number), "p-1")
        if number % 20 == 0:
            journal.append("belt", Event(EventKind.GAP, number, "test", "test"))
        await asyncio.to_thread(journal.commit)
        uplink.wake()
        await asyncio.sleep(0.01)


@pytest.mark.parametrize("by_receipt", [True, False], ids=["receiver", "broker"])
def test_a_cluster_loses_the_node_of_the_hub_under_load(
    tmp_path: Path, cluster: NatsCluster, at_node: dict[str, str], *, by_receipt: bool
) -> None:
    journal = open_journal(tmp_path)

    async def main() -> None:
        receiver = receiver_of(tmp_path, cluster.broker)
        uplink = hub_of(journal, cluster.broker, by_receipt=by_receipt)
        async with running(receiver.run()):
            await until(lambda: receiver.is_connected, "receiver connects")
            async with running(uplink.run()):
                await load(journal, uplink)
                await until(lambda: receiver.report().entries > 300, "entries before the kill")
                first = at_node[HUB.id]
                await asyncio.to_thread(cluster.kill, HOSTS.index(first))
                await load(journal, uplink)
                assert await uplink.drain(30), uplink.status()
                assert at_node[HUB.id] != first
            total = sum(journal.high_water(stream) for stream in Stream)
            await until(lambda: receiver.report().entries >= total, f"{total} entries")
            report = receiver.report()
            assert (report.entries, report.rejected, report.missing) == (total, 0, 0)
            assert (uplink.status().reconnects >= 1, report.open_gaps) == (True, 0)

    try:
        asyncio.run(main())
        lines = read_lines(tmp_path / "lines.jsonl")
        for stream, sequences in entries_of(lines).items():
            assert sorted(sequences) == list(range(1, journal.high_water(stream) + 1)), stream
        assert journal.high_water(Stream.VITALS) == BATCHES * 20
        assert {line["type"] for line in lines} <= {"entry", "status", "heartbeat", "clock"}
    finally:
        journal.close()

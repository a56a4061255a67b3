"""The whole fleet on a cluster of three NATS servers that loses a node under load. `make soak` runs it."""

import asyncio
import os
from pathlib import Path

import pytest

from firmware_sim.fleet import packets
from firmware_sim.fleet.hub import Behaviour
from firmware_sim.fleet.run import Options, Result, run
from tests.gateway.receiver.natscluster import HOSTS, nats_cluster
from tests.gateway.uplink.bench import until

HUBS = int(os.environ.get("WARDLINK_FLEET", "0"))


@pytest.mark.system
@pytest.mark.skipif(not HUBS, reason="takes minutes; make soak runs it with WARDLINK_FLEET")
@pytest.mark.parametrize("by_receipt", [False, True])
def test_a_thousand_hubs_outlive_a_node_of_the_cluster(tmp_path: Path, *, by_receipt: bool) -> None:
    # Each hub that waits for receipts is a JetStream consumer on three replicas: docs/scale.md.
    hubs = HUBS // 5 if by_receipt else HUBS
    with nats_cluster(tmp_path / "nats") as cluster:
        behaviour = Behaviour(
            brokers=tuple((host, cluster.port) for host in HOSTS),
            level=packets.MQTT_3_1_1,
            batch=10.0,
            by_receipt=by_receipt,
            ramp=20.0,
            backoff_most=20.0,
        )
        options = Options(
            hubs,
            60.0,
            behaviour,
            drain=900.0,
            receiver=tmp_path / "receiver",
            receiver_protocol='protocol = "3.1.1"',
            shows=False,
        )

        async def main() -> Result:
            running = asyncio.create_task(run(options))
            lines = tmp_path / "receiver" / "received.jsonl"
            await asyncio.sleep(behaviour.ramp)
            await until(lambda: lines.exists() and lines.stat().st_size > 100_000, "entries")
            await asyncio.to_thread(cluster.kill, 1)
            return await running

        result = asyncio.run(main())
    assert result.ok, result.figures()
    assert result.proof is not None
    assert result.proof.received == sum(result.expected.values()) > hubs * 50
    assert result.measures.lost.total() >= hubs // 4
    assert result.measures.connects.total() > hubs

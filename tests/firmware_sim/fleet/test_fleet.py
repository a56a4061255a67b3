"""The fleet against a real mosquitto and a real `wardlink receive`: small, and through a broker that dies."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest

from firmware_sim.__main__ import command_line
from firmware_sim.fleet import options, packets
from firmware_sim.fleet.hub import Behaviour, Flight, Link, SimulatedHub
from firmware_sim.fleet.measure import Measures
from firmware_sim.fleet.messages import Identity, Mark, Moment
from firmware_sim.fleet.run import Fleet, Options, Result, run
from gateway.uplink.notice import Heartbeat, HubStatus
from gateway.uplink.payload import decode
from gateway.uplink.signature import VerifyKeys
from gateway.uplink.wire import Incoming
from tests.gateway.uplink.bench import Mosquitto, mosquitto, until

HUBS = 60
ONE_AT_A_TIME = "allow_anonymous true\nmax_inflight_messages 1\n"
"""So a receiver that gave only a window full of receipts a second would need longer than the drain may take."""


def fleet_of(server: Mosquitto, **behaviour: object) -> Options:
    base = Behaviour((("127.0.0.1", server.port),), ramp=1.0, heartbeat=2.0, backoff_most=1.0)
    return Options(HUBS, 4.0, replace(base, **behaviour), drain=40.0, shows=False)  # type: ignore[arg-type]


@pytest.mark.system
def test_every_entry_of_every_hub_is_received_once_and_has_its_receipt(tmp_path: Path) -> None:
    with mosquitto(tmp_path, ONE_AT_A_TIME) as server:
        streams = ("vitals", "waveform")
        load = fleet_of(server, by_receipt=True, streams=streams)
        result = asyncio.run(run(replace(load, receiver=tmp_path / "receiver")))
    assert result.ok, result.figures()
    assert result.proof is not None
    assert result.proof.received == sum(result.expected.values()) > HUBS * 5
    assert min(result.expected.values()) > 0
    assert result.measures.connects.total() == HUBS
    assert result.measures.receipts >= HUBS


@pytest.mark.system
def test_hubs_outlive_a_broker_that_dies_and_forgets(tmp_path: Path) -> None:
    with mosquitto(tmp_path) as server:

        async def main() -> Result:
            load = fleet_of(server, by_receipt=True, level=packets.MQTT_3_1_1)
            running = asyncio.create_task(run(replace(load, seconds=6.0, receiver=tmp_path / "r")))
            lines = tmp_path / "r" / "received.jsonl"
            await until(lambda: lines.exists() and lines.stat().st_size > 50_000, "first entries")
            await asyncio.to_thread(server.stop)
            (tmp_path / "mosquitto.db").unlink(missing_ok=True)
            await asyncio.to_thread(server.start)
            return await running

        result = asyncio.run(main())
    assert result.ok, result.figures()
    assert result.measures.lost.total() >= HUBS
    assert result.measures.connects.total() >= 2 * HUBS
    assert result.measures.tries.total() >= result.measures.connects.total()


@pytest.mark.system
def test_what_a_broker_refuses_is_no_delivery(tmp_path: Path) -> None:
    acl = tmp_path / "acl"
    acl.write_text("topic write wardlink/1/+/+/status\ntopic write wardlink/1/+/+/heartbeat\n")
    listener = f"allow_anonymous true\nacl_file {acl}\n"
    with mosquitto(tmp_path, listener) as server:

        async def main() -> Result:
            return await Fleet(replace(fleet_of(server), hubs=3, seconds=3.0, drain=1.0)).run()

        result = asyncio.run(main())
    assert not result.ok
    assert result.undelivered == sum(result.expected.values()) > 0
    assert result.measures.refused > 0


def test_what_is_behind_a_refused_batch_does_not_count_it_as_delivered() -> None:
    async def main() -> None:
        hub = SimulatedHub(Identity(1, "ward", 1), Behaviour(()), Measures(), 0.0)
        link, lane = Link(hub, packets.MQTT_5), hub.lanes["vitals"]
        lane.mark.high_water = lane.sent = 8
        hub._flights = {1: Flight("vitals", 1, 0.0), 2: Flight("vitals", 5, 0.0)}
        hub.came(link, packets.Packet(packets.Kind.PUBACK, 1, packets.FAILED))
        assert (lane.sent, lane.mark.released) == (0, 0)
        hub.came(link, packets.Packet(packets.Kind.PUBACK, 2))
        assert lane.mark.released == 0
        assert not hub.is_done

    asyncio.run(main())


# --- Against what the receiver's own code reads ------------------------------------------------------------

NOW = Moment(9_000_000_000, 1_800_000_000_000_000_000)


@pytest.mark.parametrize("stream", ["vitals", "waveform"])
def test_a_batch_is_what_the_receiver_reads(stream: str) -> None:
    hub = Identity(12, "ward", 1)
    payload = hub.batch("boot", NOW, 5_000_000_000, stream, range(5, 9), 20)
    said = VerifyKeys({hub.id: hub.verify_key}).opened(
        hub.id, Incoming(1, hub.topic(stream), payload, retain=False)
    )
    assert isinstance(said, bytes)
    message = decode(said)
    assert (message.batch.hub, message.batch.stream) == ("hub-000012", stream)
    assert (message.batch.first_sequence, message.batch.last_sequence) == (5, 8)
    assert message.high_water == 20


def test_notices_are_what_the_receiver_reads() -> None:
    hub = Identity(12, "ward", 1)
    keys = VerifyKeys({hub.id: hub.verify_key})
    status = keys.opened(
        hub.id, Incoming(1, hub.topic("status"), hub.status(online=True), retain=True)
    )
    assert isinstance(status, bytes)
    assert HubStatus.decode(status).online
    beat = hub.heartbeat("boot", NOW, {"vitals": Mark(8, 4)})
    said = keys.opened(hub.id, Incoming(1, hub.topic("heartbeat"), beat, retain=False))
    assert isinstance(said, bytes)
    (mark,) = Heartbeat.decode(said).marks.values()
    assert (mark.high_water, mark.acknowledged) == (8, 4)


def test_the_command_line_makes_a_load(tmp_path: Path) -> None:
    words = f"fleet --broker a:1 --broker b:2 --hubs 7 --mqtt 3.1.1 --receiver {tmp_path} --json"
    made = options.options(command_line().parse_args(words.split()))
    assert made.behaviour.brokers == (("a", 1), ("b", 2))
    assert (made.hubs, made.behaviour.level, made.behaviour.by_receipt) == (7, 4, True)
    assert made.as_json


def test_figures_are_json() -> None:
    async def main() -> Result:
        behaviour = Behaviour((("127.0.0.1", 1),), ramp=0.0, backoff_first=0.01, backoff_most=0.05)
        return await Fleet(Options(2, 0.5, behaviour, drain=0.1, shows=False)).run()

    figures = json.loads(json.dumps(asyncio.run(main()).figures()))
    assert figures["connects"] == 0
    assert figures["tries"] > 4
    lost = figures["lost"]["ConnectionRefusedError"]
    assert lost <= figures["tries"] <= lost + 2, "each hub may have been in the middle of one"

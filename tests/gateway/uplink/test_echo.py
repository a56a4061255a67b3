"""A broker that acknowledges what it forbids: the hub notices, says so, and keeps the data."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.broker import Broker
from gateway.config.hub import spoken_on
from gateway.config.profile import Protocol
from gateway.journal.entry import Stream
from gateway.uplink import echo
from gateway.uplink.echo import EchoWire
from gateway.uplink.patience import Timing
from gateway.uplink.uplink import Uplink
from gateway.uplink.wire import Incoming, Limits, Outgoing, Reason, UplinkError
from tests.gateway.uplink.bench import (
    HUB,
    QUICK,
    MemoryJournal,
    Mosquitto,
    entries_of,
    make_receiver,
    make_uplink,
    mosquitto,
    read_lines,
    running,
    said,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults
from tests.gateway.uplink.test_uplink import HandWire

VITALS, ALARM = HUB.topic("vitals"), HUB.topic("alarm")
OWN = spoken_on(HUB)
MESSAGE = Outgoing(VITALS, b'{"a":1}')


class Ears:
    def __init__(self) -> None:
        self.answers: list[tuple[int, str | None]] = []
        self.messages: list[Incoming] = []
        self.losses: list[UplinkError] = []

    def answered(self, message_id: int, refusal: str | None) -> None:
        self.answers.append((message_id, refusal))

    def lost(self, error: UplinkError) -> None:
        self.losses.append(error)

    def arrived(self, message: Incoming) -> None:
        self.messages.append(message)


class Stage:
    """An echo wire between ears and a wire that is worked by hand."""

    def __init__(self) -> None:
        self.ears = Ears()
        self.wire = EchoWire(self.ears, OWN)
        self.below = HandWire(self.wire, Limits())
        self.ended: list[str] = []
        self.wire.over(self.below, self.ended.append)

    def came(self, message: Outgoing = MESSAGE, *, retain: bool = False) -> None:
        self.wire.arrived(replace(said(message.topic, message.payload), retain=retain))


@pytest.fixture
def brisk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(echo, "ECHO_LIMIT_S", 0.05)


def test_an_acknowledgement_counts_once_the_message_came_back() -> None:
    async def main() -> None:
        stage = Stage()
        first, second = stage.wire.publish(MESSAGE), stage.wire.publish(MESSAGE)
        stage.below.answer(first)
        assert stage.ears.answers == []
        stage.came()
        assert stage.ears.answers == [(first, None)]
        stage.below.answer(second)
        third = stage.wire.publish(MESSAGE)
        stage.below.answer(third)
        assert stage.ears.answers == [(first, None), (second, None), (third, None)]
        assert stage.ended == [VITALS]
        assert stage.ears.messages == []

    asyncio.run(main())


def test_the_message_may_be_back_before_its_acknowledgement() -> None:
    async def main() -> None:
        stage = Stage()
        sent = stage.wire.publish(MESSAGE)
        stage.came()
        assert stage.ears.answers == []
        stage.below.answer(sent)
        assert stage.ears.answers == [(sent, None)]

    asyncio.run(main())


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("proof", ["nothing", "another", "retained", "another topic", "junk"])
def test_what_is_no_proof_makes_a_refusal_of_that_topic_alone(proof: str) -> None:
    async def main() -> None:
        stage = Stage()
        vital, alarm = (
            stage.wire.publish(MESSAGE),
            stage.wire.publish(replace(MESSAGE, topic=ALARM)),
        )
        stage.below.answer_all()
        match proof:
            case "another":
                stage.came(replace(MESSAGE, payload=b'{"a":2}'))
            case "retained":
                stage.came(retain=True)
            case "junk":
                stage.wire.arrived(Incoming(0, VITALS, MESSAGE.payload, retain=False))
        stage.came(replace(MESSAGE, topic=ALARM))
        await until(lambda: len(stage.ears.answers) == 2, "both answers")
        (good, bad) = stage.ears.answers
        assert good == (alarm, None)
        assert bad[0] == vital
        assert bad[1] is not None
        assert bad[1].startswith(f"{Reason.NOT_AUTHORISED}: {VITALS}: acknowledged, but")
        # Late is not never.
        again = stage.wire.publish(MESSAGE)
        stage.below.answer(again)
        stage.came()
        assert stage.ears.answers[2:] == [(again, None)]

    asyncio.run(main())


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("end", ["abort", "close", "lost"])
def test_after_the_end_nothing_is_said_of_messages_whose_numbers_mean_others_now(end: str) -> None:
    async def main() -> None:
        stage = Stage()
        stage.below.answer(stage.wire.publish(MESSAGE))
        match end:
            case "abort":
                stage.wire.abort()
            case "close":
                await stage.wire.close()
            case "lost":
                stage.wire.lost(UplinkError(Reason.LOST, "gone"))
        await asyncio.sleep(0.15)
        assert stage.ears.answers == []
        assert len(stage.ears.losses) == (end == "lost")

    asyncio.run(main())


def test_a_refusal_and_what_comes_on_other_topics_pass() -> None:
    async def main() -> None:
        stage = Stage()
        stage.below.answer(stage.wire.publish(MESSAGE), "0x97 Quota exceeded")
        assert stage.ears.answers == [(1, "0x97 Quota exceeded")]
        receipt = Incoming(7, HUB.topic("receipt/r-1"), b"{}", retain=False)
        stage.wire.arrived(receipt)
        assert stage.ears.messages == [receipt]

    asyncio.run(main())


@pytest.mark.usefixtures("brisk")
@pytest.mark.parametrize("seed", [1, 2])
def test_lost_echoes_and_lost_connections_cost_nothing(tmp_path: Path, seed: int) -> None:
    journal = MemoryJournal()
    faults = Faults(drop_before=0.03, drop_after=0.03, late=0.3, lose_echo=0.5, repeat=0.05)
    timing = Timing(heartbeat=0.2, cursor=0.05, answer=0.5, backoff_first=0.01, backoff_most=0.4)

    async def main() -> FaultBroker:
        async with FaultBroker(faults, seed) as server:
            broker = Broker("127.0.0.1", server.port, protocol=Protocol.V311)
            receiver = make_receiver(tmp_path, broker, grace_s=30)
            uplink = make_uplink(journal, broker, timing, echo=OWN)
            async with running(receiver.run()):
                await until(lambda: receiver.is_connected, "receiver connects")
                async with running(uplink.run()):
                    while server.connections < 12:
                        journal.commit(Stream.VITALS, 20)
                        journal.commit(Stream.ALARM, 1)
                        uplink.wake()
                        await asyncio.sleep(0.01)
                    server.faults = Faults()
                    assert await uplink.drain(40), uplink.status()
                    total = sum(map(len, journal.all_sequences().values()))
                    await until(lambda: receiver.report().entries == total, f"{total} entries")
            return server

    server = asyncio.run(main())
    assert server.counts["lose_echo"] > 0
    assert server.violations == []
    got = entries_of(read_lines(tmp_path / "lines.jsonl"))
    assert {stream: sorted(found) for stream, found in got.items()} == journal.all_sequences()


# --- A real broker with rules ------------------------------------------------------------------------------

WRITES = "topic write wardlink/1/ward/hub-1/"
READS = "topic read wardlink/1/ward/hub-1/"


@contextmanager
def ruled(folder: Path, rules: list[str]) -> Iterator[Mosquitto]:
    """Mosquitto's ACL files know nobody here: their first lines are for anonymous clients."""
    (folder / "acl").write_text("\n".join(rules) + "\n")
    with mosquitto(folder, f"allow_anonymous true\nacl_file {folder / 'acl'}\n") as server:
        yield server


ALL_BUT_VITALS = [
    line + name
    for line in (WRITES, READS)
    for name in ("status", "heartbeat", "alarm", "waveform", "audit")
] + [READS + "vitals"]


def forbidden(folder: Path, protocol: Protocol, own: tuple[str, ...]) -> tuple[MemoryJournal, str]:
    """A hub that may say everything but vitals; until alarms are through and vitals are not. The refusal's text."""
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 5)
    journal.commit(Stream.ALARM, 2)

    def refusal(uplink: Uplink) -> str | None:
        return uplink.status().streams[Stream.VITALS].refusal

    async def main(broker: Broker) -> str:
        uplink = make_uplink(journal, broker, QUICK, echo=own)
        async with running(uplink.run()):
            await until(lambda: journal.cursors[Stream.ALARM] == 2, "alarms")
            await until(lambda: refusal(uplink) is not None, "a refusal")
            assert uplink.status().reconnects == 0
            return refusal(uplink) or ""

    with ruled(folder, ALL_BUT_VITALS) as server:
        return journal, asyncio.run(main(replace(server.broker, protocol=protocol)))


@pytest.mark.system
@pytest.mark.usefixtures("brisk")
def test_under_3_1_1_a_stream_that_the_broker_forbids_is_kept_and_named(tmp_path: Path) -> None:
    journal, refusal = forbidden(tmp_path, Protocol.V311, OWN)
    assert refusal.startswith("not_authorised: wardlink/1/ward/hub-1/vitals: acknowledged, but")
    assert journal.cursors[Stream.VITALS] == 0


@pytest.mark.system
def test_under_5_the_broker_says_it_itself(tmp_path: Path) -> None:
    journal, refusal = forbidden(tmp_path, Protocol.V5, ())
    assert refusal == "0x87 Not authorized"
    assert journal.cursors[Stream.VITALS] == 0


@pytest.mark.system
def test_without_the_echo_it_would_be_lost(tmp_path: Path) -> None:
    """What mosquitto does under 3.1.1, and why all this."""
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 5)

    async def main(broker: Broker) -> None:
        async with running(make_uplink(journal, broker).run()):
            await until(lambda: journal.cursors[Stream.VITALS] == 5, "a false word")

    with ruled(tmp_path, ALL_BUT_VITALS) as server:
        asyncio.run(main(replace(server.broker, protocol=Protocol.V311)))


@pytest.mark.system
@pytest.mark.usefixtures("brisk")
def test_a_hub_that_may_not_read_what_it_says_is_told_what_to_do(tmp_path: Path) -> None:
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 5)

    async def main(broker: Broker) -> None:
        uplink = make_uplink(journal, broker, echo=OWN)
        async with running(uplink.run()):
            vitals = uplink.status().streams[Stream.VITALS]
            await until(lambda: uplink.status().streams[Stream.VITALS].refusals > 0, str(vitals))
            refusal = uplink.status().streams[Stream.VITALS].refusal or ""
            assert "allow this hub to publish and to read it" in refusal

    with ruled(tmp_path, [WRITES + "#"]) as server:
        asyncio.run(main(replace(server.broker, protocol=Protocol.V311)))
    assert journal.cursors[Stream.VITALS] == 0


def test_a_subscription_that_is_denied_is_no_connection() -> None:
    """With the reason and the way out; 0x80 is all that MQTT 3.1.1 can say."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(2000)
        writer.write(b"\x20\x02\x00\x00")
        packet = await reader.read(2000)
        writer.write(b"\x90\x08" + packet[2:4] + b"\x00" * 5 + b"\x80")
        await writer.drain()
        await reader.read(2000)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        broker = Broker("127.0.0.1", server.sockets[0].getsockname()[1], protocol=Protocol.V311)
        uplink = make_uplink(MemoryJournal(), broker, echo=OWN)
        async with server, running(uplink.run()):
            await until(lambda: uplink.status().reason is not None, "a reason")
            status = uplink.status()
            assert status.reason is Reason.NOT_AUTHORISED
            assert OWN[-1] in (status.text or "")
            assert "allow it to read its own topics" in (status.text or "")

    asyncio.run(main())

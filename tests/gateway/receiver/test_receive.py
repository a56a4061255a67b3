"""Hub to receiver over real brokers: mosquitto, and the rumqttd of the demo. Receivers that are killed."""

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.broker import Broker
from gateway.journal.entry import Stream
from gateway.receiver import receive
from gateway.uplink.wire import Incoming, UplinkError
from tests.gateway.uplink.bench import (
    MemoryJournal,
    clock,
    entries_of,
    free_port,
    make_receiver,
    make_uplink,
    mosquitto,
    read_lines,
    running,
    subscribed,
    until,
)

pytestmark = pytest.mark.system

RUMQTTD = """
id = 0

[router]
id = 0
max_connections = 64
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10

[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 100
dynamic_filters = true
"""


@contextlib.contextmanager
def some_broker(kind: str, folder: Path) -> Iterator[Broker]:
    if kind == "mosquitto":
        with mosquitto(folder) as server:
            yield server.broker
    else:
        iotcore = pytest.importorskip("iotcore", reason="iotcore is not installed")
        config = folder / "rumqttd.toml"
        port = free_port()
        config.write_text(RUMQTTD.format(port=port))
        with iotcore.Broker(config_path=str(config)) as server:
            assert server.listeners == [f"127.0.0.1:{port}"]
            yield Broker("127.0.0.1", port)


@pytest.mark.parametrize("kind", ["mosquitto", "rumqttd"])
def test_everything_arrives_once_and_the_farewell_follows(tmp_path: Path, kind: str) -> None:
    journal = MemoryJournal()
    for stream in Stream:
        journal.commit(stream, 50)
    lines_file = tmp_path / "lines.jsonl"

    async def main() -> None:
        with some_broker(kind, tmp_path) as broker:
            receiver = make_receiver(tmp_path, broker)
            uplink = make_uplink(journal, broker)
            async with running(receiver.run()):
                await until(lambda: receiver.is_connected, "receiver connects")
                async with running(uplink.run()):
                    await until(lambda: receiver.report().entries == 200, "all entries")
                    assert await uplink.drain(5)
                    await until(lambda: '"offline"' in lines_file.read_text(), "farewell")
            report = receiver.report()
            assert (report.entries, report.repeats, report.rejected) == (200, 0, 0)
            assert (report.open_gaps, report.missing) == (0, 0)

    asyncio.run(main())
    lines = read_lines(lines_file)
    assert entries_of(lines) == journal.all_sequences()
    assert [line["state"] for line in lines if line["type"] == "status"] == ["online", "offline"]
    assert journal.cursors == dict.fromkeys(Stream, 50)


@pytest.mark.parametrize("kind", ["mosquitto", "rumqttd"])
def test_the_will_says_offline_when_a_hub_vanishes(tmp_path: Path, kind: str) -> None:
    lines_file = tmp_path / "lines.jsonl"

    async def main() -> None:
        with some_broker(kind, tmp_path) as broker:
            receiver, uplink = make_receiver(tmp_path, broker), make_uplink(MemoryJournal(), broker)
            async with running(receiver.run()):
                async with running(uplink.run()):
                    await until(lambda: '"online"' in lines_file.read_text(), "birth")
                await until(lambda: '"offline"' in lines_file.read_text(), "will")
            assert receiver.report().rejected == 0

    asyncio.run(main())


def test_a_broker_that_restarts_loses_nothing(tmp_path: Path) -> None:
    journal = MemoryJournal()

    async def main() -> None:
        with mosquitto(tmp_path) as server:
            receiver, uplink = (
                make_receiver(tmp_path, server.broker),
                make_uplink(journal, server.broker),
            )
            async with running(receiver.run(), subscribed(receiver, uplink)):
                await until(lambda: receiver.is_connected, "receiver connects")
                for n in range(60):
                    journal.commit(Stream.VITALS, 20)
                    uplink.wake()
                    if n in {20, 40}:
                        server.stop()
                    elif n in {30, 50}:
                        server.start()
                    await asyncio.sleep(0.005)
                assert await uplink.drain(15), uplink.status()
                await until(lambda: receiver.report().entries == 1200, "all entries")
            assert uplink.status().reconnects >= 2

    asyncio.run(main())
    lines = read_lines(tmp_path / "lines.jsonl")
    assert sorted(entries_of(lines)[Stream.VITALS]) == list(range(1, 1201))


RECEIVER_PROGRAM = """
import asyncio, sys
from pathlib import Path
from gateway.config.broker import Broker
from tests.gateway.uplink.bench import make_receiver
asyncio.run(make_receiver(Path(sys.argv[1]), Broker("127.0.0.1", int(sys.argv[2]))).run())
"""


def test_a_receiver_that_is_killed_writes_each_entry_once(tmp_path: Path) -> None:
    journal = MemoryJournal()
    lines_file = tmp_path / "lines.jsonl"

    def start(port: int) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", RECEIVER_PROGRAM, str(tmp_path), str(port)]
        return subprocess.Popen(command, cwd=Path(__file__).parents[3])

    def count() -> int:
        return lines_file.read_bytes().count(b'"type":"entry"') if lines_file.exists() else 0

    async def until_count(wanted: int) -> None:
        await until(lambda: count() >= wanted, f"{wanted} entries")

    async def main() -> None:
        with mosquitto(tmp_path) as server:
            process = start(server.broker.port)
            uplink = make_uplink(journal, server.broker)
            await until(lambda: "SUBACK" in server.log(), "subscription")
            async with running(uplink.run()):
                for kill in range(2):
                    journal.commit(Stream.ALARM, 5)
                    for _ in range(40):
                        journal.commit(Stream.VITALS, 25)
                    uplink.wake()
                    await until_count(300 + kill * 1005)
                    os.kill(process.pid, signal.SIGKILL)
                    process.wait(5)
                    process = start(server.broker.port)
                assert await uplink.drain(10)
                await until_count(2 * 1005)
            process.terminate()
            process.wait(5)

    asyncio.run(main())
    lines = read_lines(lines_file)
    got = entries_of(lines)
    assert sorted(got[Stream.VITALS]) == list(range(1, 2001))
    assert sorted(got[Stream.ALARM]) == list(range(1, 11))
    assert [line for line in lines if line["type"] == "gap"] == []


def test_a_broker_that_sends_more_than_it_may_is_borne_up_to_a_bound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Mosquitto 2.0.11 does; a connection that ended for it would only get all of it again."""

    async def main() -> None:
        inbox = receive._Inbox(clock())
        for number in range(5000):
            inbox.arrived(Incoming(number + 1, "t", bytes(1000), retain=False))
        taken = [message for _ in range(2) for message in await inbox.take(0)]
        assert [message.message_id for message in taken] == list(range(1, 5001))
        monkeypatch.setattr(receive, "INBOX_BYTES", 10_000)
        for _ in range(11):
            inbox.arrived(Incoming(1, "t", bytes(1000), retain=False))
        with pytest.raises(UplinkError, match="11 messages of 11000 bytes"):
            await inbox.take(0)

    asyncio.run(main())

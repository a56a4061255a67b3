"""The wire against a real mosquitto with mutual TLS, and against servers that are none."""

import asyncio
import contextlib
import gc
import socket
import ssl
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.config.broker import Broker, Tls
from gateway.config.profile import Protocol
from gateway.journal.entry import Stream
from gateway.uplink import paho_wire
from gateway.uplink.dial import Dialler
from gateway.uplink.links.probe import gets_through
from gateway.uplink.paho_wire import PahoWire
from gateway.uplink.tls import is_loopback
from gateway.uplink.wire import Incoming, Reason, Session, UplinkError
from tests.gateway.fakes import open_files
from tests.gateway.uplink.authority import DAY, Authority, tls_mosquitto
from tests.gateway.uplink.bench import (
    MemoryJournal,
    Mosquitto,
    free_port,
    make_receiver,
    make_uplink,
    mosquitto,
    running,
    until,
)


class Ears:
    """A listener that keeps what it hears."""

    def __init__(self) -> None:
        self.losses: list[UplinkError] = []

    def answered(self, message_id: int, refusal: str | None) -> None:
        pass

    def lost(self, error: UplinkError) -> None:
        self.losses.append(error)

    def arrived(self, message: Incoming) -> None:
        pass


def refusal(broker: Broker, limit_s: float = 5.0) -> UplinkError:
    async def main() -> None:
        wire = await PahoWire.connect(broker, Session("hub-1"), Ears(), limit_s=limit_s)
        wire.abort()

    with pytest.raises(UplinkError) as caught:
        asyncio.run(main())
    return caught.value


@pytest.mark.system
def test_mutual_tls_delivers(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    client = ca.issue("hub-1")
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 20)
    with tls_mosquitto(tmp_path, ca, ca.issue("server")) as server:
        broker = Broker("127.0.0.1", server.port, Tls(ca.file, *client))

        async def main() -> None:
            receiver, uplink = make_receiver(tmp_path, broker), make_uplink(journal, broker)
            async with running(receiver.run()):
                # On the broker's word alone, what nobody has subscribed to yet is nobody's.
                await until(lambda: receiver.is_connected, "receiver")
                async with running(uplink.run()):
                    await until(lambda: receiver.report().entries == 20, "entries")
                    assert await uplink.drain(40)

        asyncio.run(main())


FAULTS = {
    "wrong CA": "unable to get local issuer",
    "wrong host": "IP address mismatch",
    "expired": "certificate has expired",
    "not yet valid": "certificate is not yet valid",
    "self-signed": "self-signed certificate",
}


@contextlib.contextmanager
def faulty(folder: Path, fault: str) -> Iterator[tuple[Mosquitto, Broker]]:
    """A broker that cannot prove itself, and a hub's idea of it."""
    ca, stranger = Authority(folder, "ca"), Authority(folder, "stranger")
    certificates = {
        "wrong CA": lambda: stranger.issue("server"),
        "wrong host": lambda: ca.issue("server", host="other.example"),
        "expired": lambda: ca.issue("server", begins=-3 * DAY, ends=-DAY),
        "not yet valid": lambda: ca.issue("server", begins=DAY, ends=3 * DAY),
        "self-signed": lambda: ca.issue("server", by_itself=True),
    }
    with tls_mosquitto(folder, ca, certificates[fault]()) as server:
        yield server, Broker("127.0.0.1", server.port, Tls(ca.file, *ca.issue("hub-1")))


@pytest.mark.system
@pytest.mark.parametrize("fault", FAULTS)
def test_a_broker_that_cannot_prove_itself_gets_no_data(tmp_path: Path, fault: str) -> None:
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 20)
    with faulty(tmp_path, fault) as (server, broker):
        error = refusal(broker)
        assert error.reason is Reason.TLS
        assert FAULTS[fault] in error.text

        async def main() -> None:
            uplink = make_uplink(journal, broker)
            async with running(uplink.run()):
                await until(lambda: uplink.status().reconnects > 1, "attempts")
                assert uplink.status().reason is Reason.TLS
                assert uplink.status().streams[Stream.VITALS].messages == 0

        asyncio.run(main())
        assert "New client connected" not in server.log()
        assert "CONNECT" not in server.log()
    assert journal.cursors[Stream.VITALS] == 0


@pytest.mark.system
@pytest.mark.parametrize("fault", FAULTS)
def test_a_link_to_such_a_broker_does_not_get_through(tmp_path: Path, fault: str) -> None:
    """As behind a captive portal: something answers, and it is not the broker."""
    with faulty(tmp_path, fault) as (_, broker):
        trouble = asyncio.run(gets_through(broker, Dialler().dial))
    assert trouble is not None
    assert FAULTS[fault] in trouble


@pytest.mark.system
def test_a_link_to_the_broker_gets_through_and_leaves_nothing_behind(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    with tls_mosquitto(tmp_path, ca, ca.issue("server")) as server:
        broker = Broker("127.0.0.1", server.port, Tls(ca.file, *ca.issue("hub-1")))
        before = open_files()
        assert asyncio.run(gets_through(broker, Dialler().dial)) is None
        assert open_files() - before == set()
        assert "CONNECT" not in server.log()


def test_a_link_that_nobody_answers_on_does_not_get_through() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        broker = Broker("127.0.0.1", server.getsockname()[1], Tls(*[Path("/nowhere")] * 3))
        assert asyncio.run(gets_through(broker, Dialler().dial)) is not None

    async def never(_host: str, _port: int) -> socket.socket:
        await asyncio.Future[None]()
        raise AssertionError

    trouble = asyncio.run(gets_through(Broker("127.0.0.1", 1), never, limit_s=0.05))
    assert trouble == "no answer within 0.05 s"


def test_a_broker_with_an_older_tls_gets_no_connection(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*ca.issue("server"))
    context.set_ciphers("ALL:@SECLEVEL=0")
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    heard: list[bytes] = []

    async def greet(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        heard.append(await reader.read(1))

    async def main() -> UplinkError:
        server = await asyncio.start_server(greet, "127.0.0.1", 0, ssl=context)
        port = server.sockets[0].getsockname()[1]
        broker = Broker("127.0.0.1", port, Tls(ca.file, *ca.issue("hub-1")))
        async with server:
            with pytest.raises(UplinkError) as caught:
                await PahoWire.connect(broker, Session("hub-1"), Ears(), limit_s=5)
        return caught.value

    error = asyncio.run(main())
    assert error.reason is Reason.TLS
    assert heard == []


@pytest.mark.system
def test_a_client_certificate_of_a_stranger_gets_no_connection(tmp_path: Path) -> None:
    ca, stranger = Authority(tmp_path, "ca"), Authority(tmp_path, "stranger")
    with tls_mosquitto(tmp_path, ca, ca.issue("server")) as server:
        error = refusal(Broker("127.0.0.1", server.port, Tls(ca.file, *stranger.issue("hub-1"))))
    assert error.reason in {Reason.PROTOCOL, Reason.TLS, Reason.REFUSED}


EACH_VERSION = pytest.mark.parametrize("protocol", Protocol)


@pytest.mark.system
@EACH_VERSION
def test_a_broker_may_not_authorise(tmp_path: Path, protocol: Protocol) -> None:
    with mosquitto(tmp_path, "allow_anonymous false\n") as server:
        error = refusal(replace(server.broker, protocol=protocol))
    assert error.reason is Reason.NOT_AUTHORISED
    assert "0x87" in error.text


def test_plain_mqtt_leaves_this_machine_never() -> None:
    error = refusal(Broker("192.0.2.1", 1883))
    assert error.reason is Reason.CONFIGURATION
    assert "192.0.2.1" in error.text


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("localhost", True),
        ("localhost.example", False),
        ("0.0.0.0", False),  # noqa: S104 - not bound, refused
        ("192.0.2.1", False),
        ("", False),
    ],
)
def test_what_loopback_is(host: str, expected: bool) -> None:  # noqa: FBT001 - a table
    assert is_loopback(host) is expected


def test_tls_files_that_are_missing_are_said(tmp_path: Path) -> None:
    missing = Tls(tmp_path / "ca", tmp_path / "crt", tmp_path / "key")
    error = refusal(Broker("127.0.0.1", 1, missing))
    assert error.reason is Reason.CONFIGURATION


def test_nobody_listens() -> None:
    assert refusal(Broker("127.0.0.1", free_port())).reason is Reason.REFUSED


def test_a_name_that_does_not_exist(tmp_path: Path) -> None:
    ca = Authority(tmp_path, "ca")
    error = refusal(Broker("hub.invalid", 8883, Tls(ca.file, *ca.issue("hub-1"))))
    assert error.reason in {Reason.DNS, Reason.TIMEOUT}


def test_a_server_that_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        error = refusal(Broker("127.0.0.1", server.getsockname()[1]), limit_s=0.3)
    assert error.reason is Reason.TIMEOUT


def test_a_connection_leaves_no_descriptor_to_the_collector() -> None:
    """A hub that finds no broker for a week must not run out of them."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        broker = Broker("127.0.0.1", server.sockets[0].getsockname()[1])
        async with server:
            before = open_files()
            for _ in range(5):
                with pytest.raises(UplinkError):
                    await PahoWire.connect(broker, Session("hub-1"), Ears())
            await until(lambda: open_files() - before == set(), "all of them are closed")

    gc.disable()
    try:
        asyncio.run(main())
    finally:
        gc.enable()


def test_a_connection_that_outlives_its_event_loop_leaves_none_either(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(paho_wire, "_cut", lambda _sock: None)  # what would end it sooner

    async def main(server: socket.socket) -> socket.socket:
        broker = Broker("127.0.0.1", server.getsockname()[1])
        attempt = asyncio.ensure_future(PahoWire.connect(broker, Session("hub-1"), Ears()))
        connection, _ = await asyncio.to_thread(server.accept)
        await asyncio.to_thread(connection.recv, 100)
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt
        return connection

    with socket.create_server(("127.0.0.1", 0)) as server:
        before = open_files()
        gc.disable()
        try:
            asyncio.run(main(server)).close()
            end = time.monotonic() + 40
            while left := open_files() - before:
                assert time.monotonic() < end, left
                time.sleep(0.01)
        finally:
            gc.enable()


@pytest.mark.system
def test_the_socket_sends_at_once_and_tells_when_nobody_is_there(tmp_path: Path) -> None:
    """Nagle's algorithm waits for an acknowledgement of what went before; the kernel for a quarter of an hour."""

    async def main(broker: Broker) -> list[int]:
        wire = await PahoWire.connect(broker, Session("hub-1"), Ears())
        sock = wire._client.socket()
        assert isinstance(sock, socket.socket)
        wanted = (socket.TCP_NODELAY, socket.TCP_USER_TIMEOUT)
        found = [sock.getsockopt(socket.IPPROTO_TCP, option) for option in wanted]
        wire.abort()
        return found

    with mosquitto(tmp_path) as server:
        no_delay, unanswered_ms = asyncio.run(main(replace(server.broker, keepalive_s=7)))
        assert "k7" in server.log(), "the keep-alive that CONNECT announced"
    assert no_delay
    assert unanswered_ms == 14_000


def answer_of_a_server(answer: bytes, protocol: Protocol) -> UplinkError:
    """What is made of a server that answers a CONNECT with these bytes."""

    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(answer)
        writer.close()

    async def main() -> UplinkError:
        server = await asyncio.start_server(greet, "127.0.0.1", 0)
        broker = Broker("127.0.0.1", server.sockets[0].getsockname()[1], protocol=protocol)
        async with server:
            with pytest.raises(UplinkError) as caught:
                await PahoWire.connect(broker, Session("hub-1"), Ears(), limit_s=3)
        return caught.value

    return asyncio.run(main())


@EACH_VERSION
@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\x20\x03\x00", b"", b"\x20\x00", b"\xff" * 9]
)
def test_a_server_that_is_no_broker_is_told_apart(answer: bytes, protocol: Protocol) -> None:
    assert answer_of_a_server(answer, protocol).reason is Reason.PROTOCOL


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (1, Reason.PROTOCOL),
        (2, Reason.REFUSED),
        (3, Reason.REFUSED),
        (4, Reason.NOT_AUTHORISED),
        (5, Reason.NOT_AUTHORISED),
    ],
)
def test_a_return_code_of_3_1_1_has_its_reason(code: int, reason: Reason) -> None:
    assert answer_of_a_server(bytes([0x20, 2, 0, code]), Protocol.V311).reason is reason


def test_a_broker_without_mqtt_5_says_so_in_its_own_version() -> None:
    """Its CONNACK is of 3.1.1, "unacceptable protocol version" (MQTT 5.0, 3.1.2.2)."""
    error = answer_of_a_server(b"\x20\x02\x00\x01", Protocol.V5)
    assert error.reason is Reason.PROTOCOL
    assert "broker.protocol" in error.text


@pytest.mark.system
@EACH_VERSION
def test_a_receiver_that_was_away_gets_what_came_meanwhile(
    tmp_path: Path, protocol: Protocol
) -> None:
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 20)

    async def main(broker: Broker) -> None:
        receiver = make_receiver(tmp_path, broker)
        async with running(receiver.run()):
            await until(lambda: receiver.is_connected, "receiver connects")
        async with running(make_uplink(journal, broker).run()):
            await until(lambda: journal.cursors[Stream.VITALS] == 20, "acknowledged")
        receiver = make_receiver(tmp_path, broker)
        async with running(receiver.run()):
            await until(lambda: receiver.report().entries == 20, "entries")

    with mosquitto(tmp_path) as server:
        asyncio.run(main(replace(server.broker, protocol=protocol)))

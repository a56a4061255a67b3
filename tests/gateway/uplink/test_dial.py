"""Connections of our own to sockets of our own: names, both families, the bond to an interface."""

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.config.broker import Broker
from gateway.uplink import dial
from gateway.uplink.dial import Address, Dialler, in_turn
from gateway.uplink.paho_wire import PahoWire
from gateway.uplink.wire import Incoming, Reason, Session, UplinkError
from tests.gateway.uplink.bench import free_port


@contextlib.contextmanager
def listening(host: str = "127.0.0.1", backlog: int = 5) -> Iterator[int]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen(backlog)
        yield server.getsockname()[1]


def names(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    def getaddrinfo(host: str, port: int, **_: Any) -> Any:
        return [(family, None, 0, "", address) for family, address in answer(host, port)]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)


def v4(host: str, port: int) -> Address:
    return socket.AF_INET, (host, port)


def test_a_connection_is_bound_to_its_interface() -> None:
    async def main(port: int, interface: str | None) -> bytes:
        with await Dialler().dial("127.0.0.1", port, interface) as sock:
            assert sock.getpeername() == ("127.0.0.1", port)
            return sock.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16)

    with listening() as port:
        assert asyncio.run(main(port, "lo")) == b"lo\0"
        assert asyncio.run(main(port, None)) == b""


def test_an_interface_that_is_not_there_is_said_to_be_no_way() -> None:
    async def main() -> None:
        dialler = Dialler()
        with listening() as port:
            with pytest.raises(OSError, match="No such device"):
                await dialler.dial("127.0.0.1", port, "wwan77")
            with pytest.raises(UplinkError) as caught:
                await PahoWire.connect(
                    Broker("127.0.0.1", port),
                    Session("c"),
                    Nobody(),
                    dial=lambda host, port: dialler.dial(host, port, "wwan77"),
                )
            assert caught.value.reason is Reason.UNREACHABLE

    asyncio.run(main())


class Nobody:
    def answered(self, message_id: int, refusal: str | None) -> None: ...
    def lost(self, error: UplinkError) -> None: ...
    def arrived(self, message: Incoming) -> None: ...


def test_families_take_turns_beginning_with_the_resolvers_choice() -> None:
    four = [(socket.AF_INET, (f"192.0.2.{n}", 1)) for n in range(3)]
    six = [(socket.AF_INET6, ("2001:db8::1", 1, 0, 0))]
    assert in_turn([*six, *four]) == [six[0], *four]
    assert in_turn([*four, *six]) == [four[0], six[0], *four[1:]]
    assert in_turn(four) == four


def test_a_dead_address_costs_a_quarter_of_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """A listener whose queue is full answers no SYN: a blackhole on loopback."""

    async def main(dead: int, live: int) -> None:
        dialler = Dialler()
        names(monkeypatch, lambda _h, _p: [v4("127.0.0.1", dead), v4("127.0.0.1", live)])
        with await dialler.dial("broker.example", 8883) as sock:
            assert sock.getpeername()[1] == live

    with listening(backlog=0) as dead, listening() as live, contextlib.ExitStack() as fillers:
        for _ in range(4):
            filler = fillers.enter_context(socket.socket())
            filler.settimeout(0.01)
            with contextlib.suppress(OSError):
                filler.connect(("127.0.0.1", dead))
        asyncio.run(main(dead, live))


def test_a_refusal_goes_on_with_the_next_address_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dial, "STAGGER_S", 3600)

    async def main(live: int) -> None:
        addresses = [v4("127.0.0.1", free_port()), v4("127.0.0.1", live)]
        names(monkeypatch, lambda _h, _p: addresses)
        with await Dialler().dial("broker.example", 8883) as sock:
            assert sock.getpeername()[1] == live

    with listening() as live:
        asyncio.run(main(live))


def test_the_first_failure_is_told_when_all_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        names(monkeypatch, lambda _h, _p: [v4("127.0.0.1", free_port()), v4("127.0.0.1", 0)])
        with pytest.raises(ConnectionRefusedError):
            await Dialler().dial("broker.example", 8883)
        names(monkeypatch, lambda _h, _p: [])
        with pytest.raises(OSError, match="no address") as caught:
            await Dialler().dial("broker.example", 8883)
        assert caught.value.errno == errno.EADDRNOTAVAIL

    asyncio.run(main())


def test_a_dead_resolver_does_not_hold_up_a_name_that_is_known(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    dead, asked = threading.Event(), []

    async def main(port: int) -> None:
        dialler = Dialler()
        names(monkeypatch, lambda _h, _p: [v4("127.0.0.1", port)])
        (await dialler.dial("broker.example", 8883)).close()

        def stuck(_host: str, _port: int) -> list[Address]:
            asked.append(threading.current_thread())
            dead.wait(40)
            return [v4("127.0.0.1", port)]

        names(monkeypatch, stuck)
        for _ in range(3):
            (await dialler.dial("broker.example", 8883)).close()
        assert len(asked) == 1, "one question at a time, however often it is tried"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await dialler.dial("other.example", 8883)

        def unknown(_host: str, _port: int) -> list[Address]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        dead.set()
        names(monkeypatch, unknown)
        (await dialler.dial("broker.example", 8883)).close()
        with pytest.raises(socket.gaierror):
            await dialler.dial("third.example", 8883)

    try:
        with listening() as port:
            asyncio.run(main(port))
    finally:
        dead.set()

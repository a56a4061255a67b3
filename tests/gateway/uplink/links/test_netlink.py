"""The kernel's words: put together here by hand, then the kernel's own."""

import asyncio
import socket
import struct
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.uplink.links.netlink import Facts, Interfaces
from gateway.uplink.links.watch import Watch

RUNNING, UP, LOWER_UP = 0x40, 0x1, 0x10000
FIT = RUNNING | UP | LOWER_UP
ALL = Facts(present=True, carrier=True, address=True)


def message(kind: int, body: bytes) -> bytes:
    whole = struct.pack("=IHHII", 16 + len(body), kind, 0, 1, 0) + body
    return whole.ljust((len(whole) + 3) & ~3, b"\0")


def attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value.ljust((len(value) + 3) & ~3, b"\0")


def link(index: int, name: str, flags: int = FIT, kind: int = 16) -> bytes:
    head = struct.pack("=BxHiII", 0, 1, index, flags, 0)
    return message(kind, head + attribute(29, b"\0" * 7) + attribute(3, name.encode() + b"\0"))


def address(
    index: int, value: bytes = b"\x0a\x00\x00\x01", scope: int = 0, flags: int = 0, kind: int = 20
) -> bytes:
    family = socket.AF_INET if len(value) == 4 else socket.AF_INET6
    head = struct.pack("=BBBBI", family, 24, flags & 0xFF, scope, index)
    return message(kind, head + attribute(1, value) + attribute(8, struct.pack("=I", flags)))


def route(index: int, prefix: int = 0, kind: int = 24) -> bytes:
    head = struct.pack("=8BI", socket.AF_INET, prefix, 0, 0, 254, 3, 0, 1, 0)
    return message(kind, head + attribute(4, struct.pack("=I", index)))


DONE = message(3, b"\0" * 4)


def table(*messages: bytes) -> Interfaces:
    made = Interfaces()
    made.begin()
    made.feed(link(1, "lo") + link(2, "wlan0") + DONE)
    made.feed(address(2) + DONE)
    made.feed(b"".join(messages))
    return made


def test_both_dumps_are_asked_for_one_after_the_other() -> None:
    made = Interfaces()
    asked = made.begin()
    assert struct.unpack_from("=IHH", asked) == (len(asked), 18, 0x301)
    early = made.whole
    assert made.feed(link(2, "wlan0")) == b""
    assert struct.unpack_from("=IHH", made.feed(DONE))[1] == 22
    assert made.facts("wlan0") == Facts(), "half a table says nothing"
    assert made.feed(address(2) + DONE) == b""
    assert (early, made.whole) == (False, True)
    assert made.facts("wlan0") == ALL
    assert made.facts("wwan0") == Facts()


def test_carrier_address_and_the_interface_itself_come_and_go() -> None:
    no_carrier = Facts(present=True, carrier=False, address=True)
    no_address = Facts(present=True, carrier=True, address=False)
    assert table(link(2, "wlan0", UP)).facts("wlan0") == no_carrier
    assert table(link(2, "wlan0", UP | RUNNING)).facts("wlan0") == no_carrier, "it has just gone"
    assert table(link(2, "wlan0", UP | LOWER_UP)).facts("wlan0") == no_carrier, "dormant"
    assert table(link(2, "wlan0", UP), link(2, "wlan0")).facts("wlan0") == ALL
    assert table(address(2, kind=21)).facts("wlan0") == no_address
    assert table(address(2, b"\x0a\0\0\x02"), address(2, kind=21)).facts("wlan0") == ALL
    assert table(link(2, "wlan0", kind=17)).facts("wlan0") == Facts()
    again = table(link(2, "wlan0", kind=17), link(7, "wlan0"))
    reborn = table(link(2, "wlan0", kind=17), link(2, "wlan0"))
    assert reborn.facts("wlan0") == again.facts("wlan0") == no_address, (
        "the old one's addresses are not the new one's"
    )
    assert table(link(2, "wlan0", kind=17), link(7, "wlan0"), address(7)).facts("wlan0") == ALL


def test_an_address_that_reaches_nobody_is_none() -> None:
    six = bytes.fromhex("20010db8000000000000000000000001")
    none = Facts(present=True, carrier=True, address=False)
    gone = address(2, kind=21)
    assert table(gone, address(2, six, scope=253)).facts("wlan0") == none, "fe80:: and 169.254"
    assert table(gone, address(2, six, flags=0x40)).facts("wlan0") == none, "tentative"
    assert table(gone, address(2, six, flags=0x08)).facts("wlan0") == none, "a duplicate"
    assert table(gone, address(2, six, flags=0x40), address(2, six)).facts("wlan0") == ALL


def test_a_default_route_is_news_of_its_interface() -> None:
    assert table(route(2)).routed == {"wlan0"}
    assert table(route(2, prefix=24), route(99), route(2, kind=25)).routed == set()


def test_while_everything_is_read_anew_the_last_word_counts() -> None:
    made = table()
    made.begin()
    assert made.facts("wlan0") == ALL
    made.feed(link(2, "wlan0", UP))
    assert made.facts("wlan0") == ALL
    made.feed(DONE)
    made.feed(DONE)
    assert made.facts("wlan0") == Facts(present=True, carrier=False, address=False)
    assert made.facts("lo") == Facts()


def test_the_kernel_can_be_asked_at_any_time() -> None:
    async def main() -> list[str]:
        told: list[str] = []
        news = asyncio.Event()

        def changed() -> None:
            told.append("all" if watch.interfaces.facts("lo") == ALL else "half")
            news.set()

        async with Watch(changed) as watch:
            for _ in range(2):
                watch.ask()
                watch.ask()  # while the answer to the first is not there
                await asyncio.wait_for(news.wait(), 5)
                news.clear()
        watch.ask()  # nothing is to be told any more
        return told

    assert asyncio.run(main()) == ["all", "all"]


@given(st.binary(max_size=300), st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=60))))
def test_no_bytes_break_it(junk: bytes, messages: list[tuple[int, bytes]]) -> None:
    table(junk, *(message(kind, body) for kind, body in messages)).facts("wlan0")


def test_the_kernel_agrees_with_what_it_shows_elsewhere() -> None:
    async def main() -> dict[str, Facts]:
        async with Watch(lambda: None) as watch:
            return dict(watch.interfaces._shown)

    found = asyncio.run(main())
    assert set(found) == {path.name for path in Path("/sys/class/net").iterdir()}
    assert found["lo"] == ALL
    for name, facts in found.items():
        operstate = (Path("/sys/class/net") / name / "operstate").read_text().strip()
        assert facts.carrier or operstate != "up", name
        assert not facts.carrier or operstate in {"up", "unknown"}, name

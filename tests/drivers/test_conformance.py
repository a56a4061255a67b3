import random
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers import assigned, registry
from drivers.serial import openview
from tests import conformance
from tests.conformance import Case

DRIVERS = registry.all_drivers()
SOURCES = (
    "",
    assigned.HEART_RATE_MEASUREMENT,
    assigned.BATTERY_LEVEL,
    assigned.BODY_SENSOR_LOCATION,
    assigned.BLOOD_PRESSURE_MEASUREMENT,
    assigned.BLOOD_PRESSURE_FEATURE,
)


def openview_packets(name: str) -> tuple[bytes, ...]:
    """Packets with a value of their own in every field, written by hand from the firmwares' layouts.

    No value looks like the trailer 00 0B: without a checksum a lost run could make it the end of a packet, unnoticed.
    """

    def payload(n: int) -> bytes:
        match name:
            case "healthypi-v3" | "healthypi-v4":
                head = struct.pack("<hhiih", 100 + n, 200 - n, 70_000 + n, 90_000 - n, 3650 + n)
                return head + bytes((16, 96, 70 + n % 60, 80, 0, 0))
            case "ads1292r":
                return struct.pack("<hhhhB", 100 + n, 200 - n, 16, 70, 0)
            case "afe4490":
                return struct.pack("<iiBB", 100_000 + n, 300_000 - n, 97, 71)
            case _:
                return struct.pack("<hHH", 100 + n, 50_000 + n, 40_000 - n)

    packets = []
    for n in range(80):
        body = payload(n)
        packets.append(b"\x0a\xfa" + struct.pack("<HB", len(body), 2) + body + b"\x00\x0b")
    return tuple(packets)


def cases() -> dict[str, Case]:
    strap = tuple(bytes((0x16, 60 + n)) + struct.pack("<HH", 800 + n, 900 + n) for n in range(30))
    table = {"heart-rate": Case(DRIVERS["heart-rate"], strap, assigned.HEART_RATE_MEASUREMENT)}
    cuff = tuple(bytes((0x14, 120 + n, 0, 80, 0, 90, 0, 60, 0, n % 3, 0)) for n in range(30))
    case = Case(DRIVERS["blood-pressure"], cuff, assigned.BLOOD_PRESSURE_MEASUREMENT)
    table["blood-pressure"] = case
    for board in openview.BOARDS:
        options = {} if board.rate_hz else {"rate_hz": DRIVERS[board.name].options[0].parse(100)}
        table[board.name] = Case(DRIVERS[board.name], openview_packets(board.name), "", options)
    return table


CASES = cases()
STREAMS = [name for name, case in CASES.items() if case.is_stream]


def test_every_driver_has_a_case() -> None:
    assert set(CASES) == set(DRIVERS), "a driver without a conformance case"


@pytest.mark.parametrize("name", CASES)
def test_emits_only_what_its_row_announces(name: str) -> None:
    conformance.check_codes(CASES[name])


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("seed", range(3))
def test_cutting_changes_nothing(name: str, seed: int) -> None:
    conformance.check_cutting(CASES[name], seed)


@pytest.mark.parametrize("name", CASES)
@given(data=st.binary(max_size=200))
@settings(max_examples=60, deadline=None)
def test_any_bytes_give_records_or_malformed(name: str, data: bytes) -> None:
    conformance.check_any_bytes(CASES[name], SOURCES, data)


@pytest.mark.parametrize("name", STREAMS)
@given(junk=st.binary(max_size=90))
@settings(max_examples=30, deadline=None)
def test_finds_the_stream_again_after_junk(name: str, junk: bytes) -> None:
    conformance.check_resync(CASES[name], junk)


@pytest.mark.parametrize("name", STREAMS)
@given(start=st.integers(0, 10_000), length=st.integers(1, 400))
@settings(max_examples=60, deadline=None)
def test_a_lost_run_never_mixes_two_packets(name: str, start: int, length: int) -> None:
    conformance.check_lost_run(CASES[name], start, length)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("junk", [bytes(300), b"\x0a\xfa" * 150, random.Random(7).randbytes(300)])
def test_memory_is_bounded(name: str, junk: bytes) -> None:
    conformance.check_bounded(CASES[name], {CASES[name].source, *SOURCES[:1]}, junk)

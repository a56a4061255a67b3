"""Blood Pressure Measurement against public vectors and ones worked from the layout."""

import pytest

from drivers import assigned
from drivers.assigned import Code, Unit
from drivers.ble.blood_pressure import DRIVER
from drivers.contract import Malformed, Output, Read, Resume, Session, Subscribe
from drivers.model import Bits, Coded, Compound, Observation, Quality, Quantity, Special, Validity
from firmware_sim.blood_pressure_cuff import Reading

NOW_NS = 7_000_000_000
MARCH = "2026-03-14T07:05:09"


def measure(data: str, session: Session | None = None) -> list[Output]:
    session = session or DRIVER.session({})
    return list(session.receive(assigned.BLOOD_PRESSURE_MEASUREMENT, bytes.fromhex(data), NOW_NS))


def told(outputs: list[Output]) -> dict[Code, object]:
    found: dict[Code, object] = {}
    for output in outputs:
        assert isinstance(output, Observation)
        assert output.determined_at_ns == NOW_NS
        value = output.value
        match value:
            case Compound():
                found[output.code] = "/".join(str(part.value) for _, part in value.parts)
                assert [int(code) for code, _ in value.parts] == [150021, 150022, 150023]
            case Quantity():
                found[output.code] = str(value.value)
            case Bits():
                found[output.code] = value.set_bits
            case Coded():
                found[output.code] = value.code
            case _:
                raise AssertionError(value)
    return found


PRESSURE, PULSE = Code.PRESS_BLD_NONINV, Code.PULS_RATE_NON_INV
STATUS, USER = Code.BLOOD_PRESSURE_MEASUREMENT_STATUS, Code.WARDLINK_USER_ID


@pytest.mark.parametrize(
    ("data", "time", "expected"),
    [
        (
            "1E 8A 00 58 00 78 00 00 00 04 11 14 29 3B 3C 00 01 27 00",  # nordic
            "0000-04-17T20:41:59",
            {PRESSURE: "138/88/120", PULSE: "60", USER: 1, STATUS: 0x27},
        ),
        (
            "15 BD F0 0B 00 9F F0 3C 00 12 00",  # nordic
            None,
            {PRESSURE: "18.9/11/15.9", PULSE: "60", STATUS: 0x12},
        ),
        (
            "1E 80 00 52 00 61 00 EA 07 03 0E 07 05 09 40 00 01 04 00",
            MARCH,
            {PRESSURE: "128/82/97", PULSE: "64", USER: 1, STATUS: 4},
        ),
        ("01 AB F0 6D F0 81 F0", None, {PRESSURE: "17.1/10.9/12.9"}),
        (
            "14 8D 00 5D 00 FF 07 FF 07 03 00",
            None,
            {PRESSURE: "141/93/nan", PULSE: Special.NOT_A_NUMBER, STATUS: 3},
        ),
        (
            "16 76 00 4C 00 5A 00 EA 07 03 0E 07 05 09 40 00 00 00",
            MARCH,
            {PRESSURE: "118/76/90", PULSE: "64", STATUS: 0},
        ),
        ("00 D7 F0 00 00 00 00", None, {PRESSURE: "21.5/0/0"}),
        ("08 80 00 52 00 61 00 FF", None, {PRESSURE: "128/82/97"}),  # user unknown
    ],
)
def test_vectors(data: str, time: str | None, expected: dict[Code, object]) -> None:
    outputs = measure(data)
    assert told(outputs) == expected
    assert {o.device_time for o in outputs if isinstance(o, Observation)} == {time}


def test_the_unit_is_the_flags() -> None:
    units = []
    for flags in ("00", "01"):
        (output,) = measure(flags + "80 00 52 00 61 00")
        assert isinstance(output, Observation)
        assert isinstance(output.value, Compound)
        units.append({part.unit for _, part in output.value.parts})
    assert units == [{Unit.MMHG}, {Unit.KILO_PASCAL}]


@pytest.mark.parametrize(
    "data",
    [
        # A device that does not keep to the standard: its reading begins at offset 4 (flutter_blue #687).
        "FE 20 27 00 75 00 55 00 5F 00 E4 07 09 18 10 09 3A 69 00 01",
        "20 80 00 52 00 61 00",
        "00 80 00 52 00 61 00 00",
        "00 80 00 52 00 61",
        "04 80 00 52 00 61 00",
        "",
    ],
)
def test_what_the_flags_do_not_explain_is_malformed_as_a_whole(data: str) -> None:
    with pytest.raises(Malformed):
        measure(data)


@pytest.mark.parametrize(
    ("status", "quality"),
    [
        ("00 00", Quality()),
        ("01 00", Quality(Validity.QUESTIONABLE, reason="body_movement")),
        ("04 00", Quality()),  # an irregular pulse is a finding
        (
            "23 00",
            Quality(Validity.QUESTIONABLE, reason="body_movement,cuff_loose,improper_position"),
        ),
    ],
)
def test_what_the_device_doubts_is_questionable(status: str, quality: Quality) -> None:
    pressure, bits = measure("10 80 00 52 00 61 00" + status)
    assert isinstance(pressure, Observation)
    assert isinstance(bits, Observation)
    assert pressure.quality == quality
    assert bits.quality == Quality()


def test_features_say_which_silence_means_no() -> None:
    session = DRIVER.session({})
    assert list(session.receive(assigned.BLOOD_PRESSURE_FEATURE, b"\x1b\x00", 1)) == []
    *_, bits = measure("10 80 00 52 00 61 00 04 00", session)
    assert isinstance(bits, Observation)
    assert bits.value == Bits(0x04, 0b111111)
    *_, bits = measure("10 80 00 52 00 61 00 04 00")
    assert isinstance(bits, Observation)
    assert bits.value == Bits(0x04, 0x04)


def test_subscribes_last_for_what_comes_at_once() -> None:
    *before, last = DRIVER.session({}).start(1, Resume())
    assert last == Subscribe(assigned.BLOOD_PRESSURE_MEASUREMENT)
    assert all(isinstance(command, Read) and command.optional for command in before)


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (
            Reading(128, 82, 97, (2026, 3, 14, 7, 5, 9), 64, 1, 4),
            "1E800052006100EA07030E07050940000104 00",
        ),
        (
            Reading(118, 76, 90, (2026, 3, 14, 7, 5, 9), 64, status=0),
            "1676004C005A00EA07030E07050940000000",
        ),
        (Reading(141, 93), "008D005D00FF07"),
    ],
)
def test_the_simulated_cuff_encodes_the_vectors(reading: Reading, expected: str) -> None:
    assert reading.encode() == bytes.fromhex(expected)

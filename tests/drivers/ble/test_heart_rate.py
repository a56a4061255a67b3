"""Vectors: parser tests of Nordic's Android BLE common library (marked nordic), others worked from the layout."""

from decimal import Decimal

import pytest

from drivers import assigned
from drivers.assigned import BodySite, Code, Unit
from drivers.ble.heart_rate import DRIVER
from drivers.contract import Malformed, Output, Read, Resume, Session, Subscribe
from drivers.model import Observation, Quantity, Special, Validity

NOW_NS = 100_000_000_000


def start() -> Session:
    return DRIVER.session({})


def measure(data: str, session: Session | None = None) -> list[Output]:
    return list(
        (session or start()).receive(assigned.HEART_RATE_MEASUREMENT, bytes.fromhex(data), NOW_NS)
    )


def numbers(outputs: list[Output], code: Code) -> list[Decimal | Special]:
    return [
        output.value.value
        for output in outputs
        if isinstance(output, Observation)
        and output.code is code
        and isinstance(output.value, Quantity)
    ]


@pytest.mark.parametrize(
    ("data", "rate", "energy", "intervals", "validity"),
    [
        ("00 55", "85", [], [], Validity.VALID),  # nordic
        ("1E 55 32 00 21 00", "85", ["50"], ["32.2265625"], Validity.VALID),  # nordic
        (
            "1F 01 01 32 01 01 00 02 01 FF FF",
            "257",
            ["306"],
            ["0.9765625", "251.953125", "63999.0234375"],
            Validity.VALID,
        ),  # nordic
        ("04 FF", "255", [], [], Validity.INVALID),  # nordic: contact supported, not detected
        ("16 48 40 03 48 03", "72", [], ["812.5", "820.3125"], Validity.VALID),
        ("11 2C 01 CD 00", "300", [], ["200.1953125"], Validity.VALID),
        ("10 48", "72", [], [], Validity.VALID),  # RR announced, no new beat
    ],
)
def test_vectors(
    data: str, rate: str, energy: list[str], intervals: list[str], validity: Validity
) -> None:
    outputs = measure(data)
    assert numbers(outputs, Code.ECG_HEART_RATE) == [Decimal(rate)]
    assert numbers(outputs, Code.WARDLINK_ENERGY_EXPENDED) == [Decimal(e) for e in energy]
    assert numbers(outputs, Code.ECG_TIME_PD_RR_GL) == [Decimal(i) for i in intervals]
    assert isinstance(outputs[0], Observation)
    assert outputs[0].quality.validity is validity


def test_units_stand_beside_every_number() -> None:
    units = {
        o.code: o.value.unit
        for o in measure("1E 55 32 00 21 00")
        if isinstance(o, Observation) and isinstance(o.value, Quantity)
    }
    assert units == {
        Code.ECG_HEART_RATE: Unit.BEAT_PER_MIN,
        Code.WARDLINK_ENERGY_EXPENDED: Unit.JOULE_KILO,
        Code.ECG_TIME_PD_RR_GL: Unit.MILLI_SEC,
    }


def test_intervals_are_oldest_first_and_end_now() -> None:
    first, second = (
        o
        for o in measure("16 48 40 03 48 03")
        if isinstance(o, Observation) and o.code is Code.ECG_TIME_PD_RR_GL
    )
    assert second.determined_at_ns == NOW_NS
    assert first.determined_at_ns == NOW_NS - 820_312_500


def test_no_rate_is_unknown_not_zero() -> None:
    (output,) = measure("00 00")
    assert isinstance(output, Observation)
    assert output.value == Quantity(Special.UNKNOWN, Unit.BEAT_PER_MIN)
    assert output.quality.reason == "no_signal"


def test_saturated_energy_is_questionable() -> None:
    energy = measure("08 55 FF FF")[1]
    assert isinstance(energy, Observation)
    assert energy.quality.validity is Validity.QUESTIONABLE


@pytest.mark.parametrize("data", ["", "00", "01 55", "08 55 32"])
def test_a_packet_shorter_than_its_flags_imply_is_malformed(data: str) -> None:
    with pytest.raises(Malformed, match="short"):
        measure(data)


def test_half_an_interval_is_malformed() -> None:
    (output,) = measure("10 55 21")
    assert isinstance(output, Malformed)
    assert output.reason == "odd_rr"


def test_body_site_is_on_every_later_record() -> None:
    session = start()
    list(session.receive(assigned.BODY_SENSOR_LOCATION, b"\x01", NOW_NS))
    assert {o.body_site for o in measure("16 48 40 03", session) if isinstance(o, Observation)} == {
        BodySite.CHEST
    }


def test_an_unassigned_body_site_stays_unknown() -> None:
    session = start()
    assert list(session.receive(assigned.BODY_SENSOR_LOCATION, b"\x63", NOW_NS)) == []
    (record,) = measure("00 55", session)
    assert isinstance(record, Observation)
    assert record.body_site is None


def test_battery() -> None:
    (record,) = start().receive(assigned.BATTERY_LEVEL, b"\x57", NOW_NS)
    assert isinstance(record, Observation)
    assert record.value == Quantity(Decimal(87), Unit.PERCENT)
    (wrong,) = start().receive(assigned.BATTERY_LEVEL, b"\x65", NOW_NS)
    assert isinstance(wrong, Malformed)


def test_subscribes_before_it_reads() -> None:
    commands = list(start().start(NOW_NS, Resume()))
    assert commands[0] == Subscribe(assigned.HEART_RATE_MEASUREMENT)
    assert all(c.optional for c in commands[1:] if isinstance(c, Subscribe | Read))

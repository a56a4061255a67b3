"""Vectors: constructed from the field order of the boards' published firmwares; none is captured."""

from collections.abc import Iterable
from decimal import Decimal

import pytest

from drivers import registry
from drivers.assigned import Code, Unit
from drivers.contract import Malformed, Output, Session
from drivers.model import Event, EventKind, Observation, Quantity, SampleArray, Special, Validity

DRIVERS = registry.all_drivers()
PERIOD_NS = 8_000_000
V3 = "0afa14000288ff23000000400000002000420e106248500000000b"
ADS1292R = "0afa09000288ff23001000480000000b"
AFE4490 = "0afa0a000270820300503403006248000b"
MAX86150 = "0afa06000206ff22c880bb000b"


def session(name: str, **options: object) -> Session:
    driver = DRIVERS[name]
    parsed = {o.name: o.parse(options[o.name]) for o in driver.options if o.name in options}
    return driver.session(parsed)


def decode(name: str, packet: str, **options: object) -> list[Output]:
    parser = session(name, **options)
    return [*parser.receive("", bytes.fromhex(packet), 0), *parser.timeout(0)]


def samples(outputs: Iterable[Output]) -> dict[Code, list[int]]:
    found: dict[Code, list[int]] = {}
    for output in outputs:
        if isinstance(output, Observation) and isinstance(output.value, SampleArray):
            found.setdefault(output.code, []).extend(output.value.samples())
    return found


def vitals(outputs: Iterable[Output]) -> dict[Code, str]:
    return {
        o.code: f"{o.value.value}"
        for o in outputs
        if isinstance(o, Observation) and isinstance(o.value, Quantity)
    }


@pytest.mark.parametrize(
    ("name", "packet", "waves", "numbers"),
    [
        (
            "healthypi-v3",
            V3,
            {
                Code.ECG_ELEC_POTL: [-120],
                Code.IMPED_TTHOR: [35],
                Code.WARDLINK_PPG_INFRARED: [4194304],
                Code.WARDLINK_PPG_RED: [2097152],
            },
            {
                Code.TEMP_BODY: "36.50",
                Code.RESP_RATE: "16",
                Code.PULS_OXIM_SAT_O2: "98",
                Code.ECG_HEART_RATE: "72",
            },
        ),
        (
            "ads1292r",
            ADS1292R,
            {Code.ECG_ELEC_POTL: [-120], Code.IMPED_TTHOR: [35]},
            {Code.RESP_RATE: "16", Code.ECG_HEART_RATE: "72"},
        ),
        (
            "afe4490",
            AFE4490,
            {Code.WARDLINK_PPG_INFRARED: [230000], Code.WARDLINK_PPG_RED: [210000]},
            {Code.PULS_OXIM_SAT_O2: "98", Code.PULS_OXIM_PULS_RATE: "72"},
        ),
        (
            "max86150",
            MAX86150,
            {
                Code.ECG_ELEC_POTL: [-250],
                Code.WARDLINK_PPG_INFRARED: [51234],
                Code.WARDLINK_PPG_RED: [48000],
            },
            {},
        ),
    ],
)
def test_vectors(
    name: str, packet: str, waves: dict[Code, list[int]], numbers: dict[Code, str]
) -> None:
    outputs = decode(name, packet, rate_hz=100)
    assert samples(outputs) == waves
    assert vitals(outputs) == numbers


def v3(status: int = 0, spo2: int = 98, rate: int = 72, ecg: int = -120) -> bytes:
    packet = bytearray.fromhex(V3)
    packet[5:7] = ecg.to_bytes(2, "little", signed=True)
    packet[20], packet[21], packet[24] = spo2, rate, status
    return bytes(packet)


def test_blood_pressure_placeholders_are_never_published() -> None:
    assert not {o.code for o in decode("healthypi-v3", V3) if isinstance(o, Observation)} - {
        Code.ECG_ELEC_POTL,
        Code.IMPED_TTHOR,
        Code.WARDLINK_PPG_INFRARED,
        Code.WARDLINK_PPG_RED,
        Code.TEMP_BODY,
        Code.RESP_RATE,
        Code.PULS_OXIM_SAT_O2,
        Code.ECG_HEART_RATE,
    }


@pytest.mark.parametrize("spo2", [0, 25, 101, 127, 255])
def test_no_oxygen_value_is_unknown_and_said_once(spo2: int) -> None:
    parser = session("healthypi-v3")
    outputs = list(parser.receive("", v3(spo2=spo2) * 300, 0))
    said = [o for o in outputs if isinstance(o, Observation) and o.code is Code.PULS_OXIM_SAT_O2]
    assert [o.value for o in said] == [Quantity(Special.UNKNOWN, Unit.PERCENT)]
    assert said[0].quality.validity is Validity.INVALID


def test_25_percent_is_a_value_on_a_board_that_does_not_cast() -> None:
    assert vitals(decode("healthypi-v4", v3(spo2=25).hex()))[Code.PULS_OXIM_SAT_O2] == "25"


def test_vitals_once_a_second_samples_in_fifths() -> None:
    parser = session("healthypi-v3")
    outputs = list(parser.receive("", v3() * 250, 0))
    blocks = [
        o.value for o in outputs if isinstance(o, Observation) and o.code is Code.ECG_ELEC_POTL
    ]
    assert [len(b) for b in blocks if isinstance(b, SampleArray)] == [25] * 10
    rates = [o for o in outputs if isinstance(o, Observation) and o.code is Code.ECG_HEART_RATE]
    assert len(rates) == 2


def test_lead_off_ends_the_block_and_marks_only_its_signals() -> None:
    parser = session("healthypi-v3")
    stream = v3() * 10 + v3(status=1) * 10
    outputs = [*parser.receive("", stream, 0), *parser.timeout(0)]
    marks = {
        (o.code, o.quality.validity): len(o.value)
        for o in outputs
        if isinstance(o, Observation) and isinstance(o.value, SampleArray)
    }
    assert marks[Code.ECG_ELEC_POTL, Validity.VALID] == 10
    assert marks[Code.ECG_ELEC_POTL, Validity.INVALID] == 10
    assert (Code.WARDLINK_PPG_RED, Validity.INVALID) not in marks


def test_unit_is_unknown_until_the_scale_is_configured() -> None:
    (wave,) = (
        o
        for o in decode("ads1292r", ADS1292R)
        if isinstance(o, Observation) and o.code is Code.ECG_ELEC_POTL
    )
    assert isinstance(wave.value, SampleArray)
    assert wave.value.unit is Unit.NOS
    outputs = decode("ads1292r", ADS1292R, uv_per_count=0.76, lead="II")
    (wave,) = (o for o in outputs if isinstance(o, Observation) and o.code is Code.ECG_ELEC_POTL_II)
    assert isinstance(wave.value, SampleArray)
    assert (wave.value.unit, wave.value.scale) == (Unit.MICRO_VOLT, Decimal("0.76"))


def test_boot_text_is_reported_and_is_no_gap() -> None:
    outputs = list(
        session("healthypi-v3").receive("", b"Initialization is complete\r\n" + v3() * 30, 0)
    )
    assert isinstance(outputs[0], Malformed)
    assert outputs[0].reason == "before_stream"
    assert outputs[0].data.startswith(b"Initialization")
    assert not [o for o in outputs if isinstance(o, Event)]


def test_broken_packet_becomes_a_gap_between_what_is_known() -> None:
    parser = session("healthypi-v3")
    outputs: list[Output] = []
    for n in range(40):
        packet = v3(ecg=n)
        outputs += parser.receive("", packet[:11] if n == 20 else packet, n * PERIOD_NS)
    outputs += parser.timeout(0)
    (gap,) = (o for o in outputs if isinstance(o, Event))
    assert (gap.kind, gap.reason) == (EventKind.GAP, "resync")
    assert gap.from_ns == 20 * PERIOD_NS
    assert gap.until_ns == 21 * PERIOD_NS
    assert samples(outputs)[Code.ECG_ELEC_POTL] == [n for n in range(40) if n != 20]


def test_whole_packets_that_vanish_are_named_by_the_time_line() -> None:
    parser = session("healthypi-v3")
    outputs: list[Output] = []
    for n in [*range(300), *range(400, 800)]:
        outputs += parser.receive("", v3(ecg=n), n * PERIOD_NS)
    gaps = [o for o in outputs if isinstance(o, Event) and o.kind is EventKind.GAP]
    assert [gap.reason for gap in gaps] == ["slip"]
    assert gaps[0].lost is not None
    assert 70 <= gaps[0].lost <= 100


def test_a_late_burst_is_no_gap() -> None:
    parser = session("healthypi-v3")
    outputs: list[Output] = []
    for n in range(800):
        late = 500 * PERIOD_NS if 200 <= n < 500 else n * PERIOD_NS
        outputs += parser.receive("", v3(ecg=n), late)
    assert not [o for o in outputs if isinstance(o, Event)]


def test_unfinished_block_is_due_a_second_after_its_first_sample() -> None:
    parser = session("healthypi-v3")
    assert parser.deadline() is None
    list(parser.receive("", v3() * 3, 7))
    assert parser.deadline() == 1_000_000_007
    assert samples(parser.timeout(2_000_000_000))[Code.ECG_ELEC_POTL] == [-120] * 3
    assert parser.deadline() is None


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("rate_hz", "fast"),
        ("rate_hz", 0),
        ("rate_hz", True),
        ("uv_per_count", -1),
        ("uv_per_count", float("nan")),
        ("lead", "V9"),
        ("lead", 2),
    ],
)
def test_wrong_options_are_refused(name: str, value: object) -> None:
    option = {o.name: o for o in DRIVERS["ads1292r"].options}[name]
    with pytest.raises(ValueError, match=r"^$"):
        option.parse(value)


def test_rate_is_required_where_the_firmware_fixes_none() -> None:
    required = {name: [o.name for o in DRIVERS[name].options if o.required] for name in DRIVERS}
    assert required["afe4490"] == required["max86150"] == ["rate_hz"]
    assert required["healthypi-v3"] == required["ads1292r"] == []

"""The ratio R of red to infrared light, and a saturation only where the sensor's own curve is configured."""

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from drivers.assigned import Code, Unit
from drivers.model import Observation, Origin, Quality, Quantity, Record, SampleArray, Validity
from drivers.registry import all_drivers
from firmware_sim.patient import Desaturation, Patient, Plan, ratio_of_ratios
from gateway.conditioner import Conditioner
from gateway.config.device import Device
from gateway.config.signals import Spo2Curve
from tests.gateway.conditioner_signals import RATE_HZ, blocks, number, of, run, second

INFRARED, RED, RATIO = Code.WARDLINK_PPG_INFRARED, Code.WARDLINK_PPG_RED, Code.WARDLINK_PPG_RATIO
SPO2 = Code.PULS_OXIM_SAT_O2
SECONDS = 120
FALL = Plan(desaturations=(Desaturation(30, 80, 12),))
CURVE = Spo2Curve("the simulator's", (110.0, -25.0), (0.3, 2.0))
"""That of firmware_sim.patient.ratio_of_ratios."""


def device(curve: Spo2Curve | None, limits: tuple[int, int] | None = None) -> Device:
    driver = all_drivers()["healthypi-v3"]
    port = Path("/dev/ttyUSB0")
    return Device("board", driver, port=port, ppg_limits=limits, spo2_curve=curve)


def lights(plan: Plan, size: int = 25) -> list[Observation]:
    """Blocks of infrared and red by turns, as boards send them, in counts of 20 bits."""
    samples = Patient(plan, RATE_HZ).samples(0, SECONDS * RATE_HZ)
    infrared = blocks(samples["infrared"] * 2**20, size, code=INFRARED)
    red = blocks(samples["red"] * 2**20, size, code=RED)
    return [record for pair in zip(infrared, red, strict=True) for record in pair]


def judged(records: list[Observation], curve: Spo2Curve | None = None) -> list[Record]:
    return run(records, Conditioner([device(curve)]))


def truth(record: Observation) -> float:
    """The patient's saturation in the middle of the eight seconds that the value speaks of."""
    return float(Patient(FALL, RATE_HZ).spo2(np.array([second(record) - 4]))[0])


def test_the_ratio_follows_the_patient() -> None:
    found = of(RATIO, judged(lights(FALL)))
    assert len(found) > SECONDS - 16
    for record in found:
        assert number(record) == pytest.approx(float(ratio_of_ratios(truth(record))), abs=0.06)
        assert isinstance(record.value, Quantity)
        assert record.value.unit is Unit.DIMLESS
        assert record.origin is Origin.HUB


def test_without_a_curve_light_gives_no_saturation() -> None:
    assert not of(SPO2, judged(lights(FALL)))
    assert not of(SPO2, run(lights(FALL)))


def test_a_configured_curve_gives_one_that_says_so() -> None:
    found = of(SPO2, judged(lights(FALL), CURVE))
    assert len(found) > SECONDS - 16
    for record in found:
        assert number(record) == pytest.approx(truth(record), abs=1.5)
        assert record.origin is Origin.HUB
        assert record.quality.reason == "spo2_curve the simulator's"
        assert record.quality.validity is Validity.VALID
    assert min(number(record) or 0 for record in found) < 88


def test_what_the_device_says_passes_beside_it() -> None:
    own = Observation(SPO2, Quantity(Decimal(97), Unit.PERCENT), 5)
    assert list(Conditioner([device(CURVE)]).process("board", own)) == [own]


def test_outside_of_the_curve_it_is_unknown_and_that_is_said_once() -> None:
    narrow = replace(CURVE, ratio=(0.4, 0.7))  # 92.5 to 100 %
    found = of(SPO2, judged(lights(FALL), narrow))
    assert min(value for r in found if (value := number(r)) is not None) >= 92.5
    unknown = [record for record in found if number(record) is None]
    assert [record.quality.validity for record in unknown] == [Validity.INVALID]
    assert max(second(record) for record in found) > 110


def test_a_bad_pulse_gives_neither() -> None:
    records = lights(Plan())
    rng = np.random.default_rng(1)
    shaken = []
    for clean in records:
        record, at = clean, second(clean)
        if 40 <= at < 60:
            assert isinstance(record.value, SampleArray)
            counts = np.array(record.value.samples())
            moved = counts * (1 + 0.05 * rng.normal(0, 1, counts.size))
            (record,) = blocks(moved, counts.size, round(at * RATE_HZ), record.code)
        shaken.append(record)
    out = judged(shaken, CURVE)
    assert not [r for r in of(RATIO, out) if 43 < second(r) < 60]
    assert not [r for r in of(SPO2, out) if 43 < second(r) < 60 and number(r) is not None]
    assert [number(r) is None for r in of(SPO2, out)].count(True) == 1


@pytest.mark.parametrize("lost", ["red", "infrared", "finger"])
def test_a_block_without_its_partner_begins_anew(lost: str) -> None:
    records = lights(Plan())
    at = 60 * RATE_HZ // 25 * 2
    if lost == "finger":
        off = Quality(Validity.INVALID, reason="lead_off")
        records[at : at + 2] = [replace(r, quality=off) for r in records[at : at + 2]]
    else:
        del records[at + (lost == "red")]
    found = [second(r) for r in of(RATIO, judged(records))]
    gap = max(np.diff(found))
    assert 10 < gap < 16
    assert found[-1] > SECONDS - 2


def test_cutting_changes_nothing() -> None:
    whole, pieces = judged(lights(FALL), CURVE), judged(lights(FALL, 7), CURVE)
    for code in (RATIO, SPO2):
        assert [number(r) for r in of(code, whole)] == [number(r) for r in of(code, pieces)]

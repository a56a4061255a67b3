"""Pulse rate and perfusion index of a photoplethysmogram obey the quality of its seconds."""

import numpy as np
import pytest

from drivers.assigned import Code, Unit
from drivers.model import Event, EventKind, Observation, Origin, Quantity, Record, Validity
from firmware_sim.patient import Patient, Plan
from tests.gateway.conditioner_signals import RATE_HZ, STOP, Floats, blocks, number, of, run, second

INFRARED, PLETH = Code.WARDLINK_PPG_INFRARED, Code.PULS_OXIM_PLETH
RATE, PERFUSION = Code.PULS_OXIM_PULS_RATE, Code.BLD_PERF_INDEX
SECONDS = 60


def light(plan: Plan, channel: str = "infrared") -> Floats:
    """Received light in counts of 20 bits."""
    return Patient(plan, RATE_HZ).samples(0, SECONDS * RATE_HZ)[channel] * 2**20


def told(x: Floats, code: Code = INFRARED, size: int = 25) -> list[Record]:
    return run([*blocks(x, size, code=code), STOP])


@pytest.mark.parametrize("heart_rate", [50, 72, 120])
def test_pulse_rate_and_perfusion_are_those_of_the_patient(heart_rate: float) -> None:
    plan = Plan(heart_rate=heart_rate)
    patient, out = Patient(plan, RATE_HZ), told(light(plan))
    rates = of(RATE, out)
    assert len(rates) > SECONDS - 10
    for record in rates:
        truth = patient.vitals(second(record) - 1).heart_rate
        assert number(record) == pytest.approx(truth, abs=4)
        assert (record.origin, record.quality.validity) == (Origin.HUB, Validity.VALID)
        assert isinstance(record.value, Quantity)
        assert record.value.unit is Unit.BEAT_PER_MIN
    shares = [number(record) for record in of(PERFUSION, out)]
    assert len(shares) > SECONDS * min(1, heart_rate / 60) - 10
    # In a fast pulse the waves overlap, and each is less high.
    least = 1.7 if heart_rate < 100 else 1.3
    assert least < np.median([share for share in shares if share]) < 2.3


def test_a_wave_that_a_device_has_drawn_has_no_perfusion_index() -> None:
    drawn = -light(Plan())
    out = told(drawn - drawn.min() + 1, PLETH)
    assert len(of(RATE, out)) > SECONDS - 8
    assert not of(PERFUSION, out)


def test_red_light_gives_no_second_pulse_rate() -> None:
    out = told(light(Plan(), "red"), Code.WARDLINK_PPG_RED)
    assert not of(RATE, out)
    assert not of(PERFUSION, out)


def test_without_a_finger_there_is_no_rate_and_that_is_said_once() -> None:
    out = told(light(Plan(finger_off=((30.0, 60.0),))))
    rates = of(RATE, out)
    (unknown,) = [record for record in rates if number(record) is None]
    assert 30 <= second(unknown) <= 34
    assert unknown.quality.validity is Validity.INVALID
    assert unknown.quality.reason in {"signal_quality", "no_beats"}
    assert second(rates[-1]) == second(unknown)
    assert max(second(record) for record in of(PERFUSION, out)) <= 31


@pytest.mark.parametrize("seed", range(6))
def test_motion_gives_no_confident_rate_that_is_wrong(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = light(Plan())
    begin, end = 20, 35
    t = np.arange((end - begin) * RATE_HZ) / RATE_HZ
    for hz in rng.uniform(0.7, 6, 5):
        wave = np.sin(2 * np.pi * hz * t + rng.uniform(0, 6))
        x[begin * RATE_HZ : end * RATE_HZ] *= 1 + 0.05 * wave
    patient, rates = Patient(Plan(), RATE_HZ), of(RATE, told(x))
    for record in rates:
        if record.quality.validity is Validity.VALID:
            truth = patient.vitals(second(record) - 1).heart_rate
            assert number(record) == pytest.approx(truth, abs=10)
    assert not [r for r in rates if begin + 3 < second(r) < end and number(r)]
    assert any(number(record) for record in rates if second(record) > 50)


def test_an_odd_beat_makes_a_rate_questionable_and_leaves_it_known() -> None:
    plan = Plan()
    x, patient = light(plan), Patient(plan, RATE_HZ)
    begin = 30 * RATE_HZ
    x[begin : begin + 40] *= 1 - 0.02 * np.sin(np.linspace(0, 9, 40))
    rates = of(RATE, told(x))
    doubtful = [r for r in rates if r.quality.validity is Validity.QUESTIONABLE]
    assert min(r.quality.sqi or 0 for r in doubtful) < 0.3
    assert all(30 <= second(r) <= 36 for r in doubtful)
    assert all(r.quality.reason == "signal_quality" for r in doubtful)
    assert [second(r) for r in rates] == [second(rates[0]) + k for k in range(len(rates))]
    for record in rates:
        truth = patient.vitals(second(record) - 1).heart_rate
        assert number(record) == pytest.approx(truth, abs=4)


def test_waves_carry_the_index_and_events_say_what_is_wrong() -> None:
    x = light(Plan())
    x[30 * RATE_HZ :] = 2.0**19
    out = told(x)
    waves = of(INFRARED, out)
    assert all(w.quality.sqi is None for w in waves if second(w) < 1.8)
    assert all((w.quality.sqi or 0) > 0.6 for w in waves if 5.2 <= second(w) < 30)
    assert all(w.quality.sqi == 0 for w in waves if second(w) >= 33)
    events = [r for r in out if isinstance(r, Event) and r.kind is EventKind.SIGNAL]
    assert [(e.reason, e.code) for e in events] == [("good", INFRARED), ("flat", INFRARED)]


def test_cutting_changes_nothing_that_is_derived() -> None:
    x = light(Plan(motion_per_min=3))

    def derived(records: list[Record]) -> list[Record]:
        return [r for r in records if not (isinstance(r, Observation) and r.code is INFRARED)]

    assert derived(told(x)) == derived(told(x, size=7))

"""Respiration rate from the beats of an ECG and of a pulse wave."""

from itertools import pairwise

import numpy as np
import pytest

from drivers.assigned import Code, Unit
from drivers.model import Origin, Quantity, Validity
from firmware_sim.patient import Patient, Plan
from tests.gateway.conditioner_signals import RATE_HZ, Floats, blocks, number, of, run, second
from tests.gateway.signal.synthetic import ecg

INFRARED = Code.WARDLINK_PPG_INFRARED
SECONDS = 120


def breathing(bpm: float, seed: int = 1) -> Floats:
    """An ECG whose R waves and intervals move with the breath."""
    rng = np.random.default_rng(seed)
    turn = 2 * np.pi * bpm / 60
    beats = [0.5]
    while beats[-1] < SECONDS - 1:
        beats.append(beats[-1] + 0.8 * (1 + 0.04 * np.sin(turn * beats[-1])))
    t = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    x = ecg(np.array(beats), SECONDS, RATE_HZ) * (1 + 0.1 * np.sin(turn * t))
    return x + rng.normal(0, 3, x.size)


@pytest.mark.parametrize("bpm", [9, 15, 24])
def test_an_ecg_gives_the_rate_of_breath(bpm: float) -> None:
    found = of(Code.RESP_RATE, run(blocks(breathing(bpm))))
    assert len(found) > 15
    assert second(found[0]) >= 32
    for record in found:
        assert number(record) == pytest.approx(bpm, abs=1)
        assert record.origin is Origin.HUB
        assert isinstance(record.value, Quantity)
        assert record.value.unit is Unit.RESP_PER_MIN
        assert record.quality.sqi is not None


@pytest.mark.parametrize("bpm", [10.0, 15.0])
def test_a_pulse_wave_gives_it_under_a_code_of_its_own(bpm: float) -> None:
    patient = Patient(Plan(resp_rate=bpm), RATE_HZ)
    light = patient.samples(0, SECONDS * RATE_HZ)["infrared"] * 2**20
    out = run(blocks(light, code=INFRARED))
    found = of(Code.PULS_OXIM_PLETH_RESP_RATE, out)
    assert len(found) > 15
    assert not of(Code.RESP_RATE, out)
    for record in found:
        assert number(record) == pytest.approx(bpm, abs=1)


def test_after_noise_it_is_unknown_until_the_window_has_filled_again() -> None:
    x = breathing(15)
    noisy = slice(60 * RATE_HZ, 70 * RATE_HZ)
    x[noisy] += np.random.default_rng(2).normal(0, 600, 10 * RATE_HZ)
    found = of(Code.RESP_RATE, run(blocks(x)))
    known = [second(record) for record in found if number(record) is not None]
    assert not [at for at in known if 64 < at < 100]
    assert any(at > 105 for at in known)


def test_beats_without_breath_are_unknown_breath() -> None:
    rng = np.random.default_rng(3)
    beats = 0.5 + np.cumsum(rng.uniform(0.6, 1.0, 140))
    x = ecg(beats[beats < SECONDS - 1], SECONDS, RATE_HZ) + rng.normal(0, 20, SECONDS * RATE_HZ)
    found = of(Code.RESP_RATE, run(blocks(x)))
    assert len([r for r in found if r.quality.validity is Validity.VALID]) <= 2


def test_that_it_is_not_known_any_more_is_said_once() -> None:
    x = breathing(15)
    rng = np.random.default_rng(4)
    half = SECONDS * RATE_HZ // 2
    beats = 0.5 + np.cumsum(rng.uniform(0.6, 1.0, 140))
    x[half:] = ecg(beats[beats < SECONDS - 1], SECONDS, RATE_HZ)[half:]
    found = of(Code.RESP_RATE, run(blocks(x)))
    values = [number(record) for record in found]
    assert values.count(None) >= 1
    assert all(not (a is None and b is None) for a, b in pairwise(values))
    unknown = next(record for record in found if number(record) is None)
    assert (unknown.quality.validity, unknown.quality.reason) == (Validity.INVALID, "no_breaths")

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.patient import (
    BLOCK,
    Desaturation,
    Patient,
    Plan,
    Source,
    ratio_of_ratios,
)

BUSY = Plan(seed=5, ectopic=0.1, pause=0.05, motion_per_min=4.0, leads_off=((20.0, 22.0),))


def test_patient_is_a_source() -> None:
    source: Source = Patient(Plan(), 125)
    assert source.annotated
    assert set(source.samples(0, 1)) == source.channels


@settings(max_examples=25, deadline=None)
@given(
    start=st.integers(0, 20_000),
    cuts=st.lists(st.integers(0, 700), min_size=1, max_size=12),
    rate=st.sampled_from([60.0, 100.0, 125.0, 128.0, 250.0, 1000.0]),
)
def test_any_cutting_gives_the_same_bits(start: int, cuts: list[int], rate: float) -> None:
    whole = Patient(BUSY, rate).samples(start, sum(cuts))
    patient = Patient(BUSY, rate)
    at = start
    pieces = []
    for cut in cuts:
        pieces.append(patient.samples(at, cut))
        at += cut
    for name, values in whole.items():
        assert np.array_equal(values, np.concatenate([piece[name] for piece in pieces]))


def test_going_back_gives_the_same_bits() -> None:
    patient = Patient(BUSY, 125)
    first = patient.samples(100, 50)
    patient.samples(100_000, 3 * BLOCK)
    again = patient.samples(100, 50)
    assert all(np.array_equal(first[name], again[name]) for name in first)


def test_seeds_differ() -> None:
    one, other = (Patient(Plan(seed=seed), 125).samples(0, 1000)["ecg"] for seed in (1, 2))
    assert not np.array_equal(one, other)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("heart_rate", [45.0, 72.0, 150.0])
def test_r_peak_is_the_local_maximum_at_each_true_beat(seed: int, heart_rate: float) -> None:
    plan = Plan(seed=seed, heart_rate=heart_rate, ectopic=0.1, pause=0.05).quiet()
    patient = Patient(plan, 1000)
    ecg = patient.samples(0, 60_000)["ecg"]
    beats = patient.beats(59.0)
    assert len(beats) > 35
    for beat, ectopic in zip(beats[1:], patient.ectopic(59.0)[1:], strict=True):
        at = round(beat * 1000)
        peak = at - 100 + int(np.argmax(ecg[at - 100 : at + 101]))
        # A ventricular beat is wide: the T wave that it falls on moves its top.
        assert abs(peak / 1000 - beat) < (0.006 if ectopic else 0.0015)
        assert ecg[peak] > 0.9


def test_beats_are_where_noise_free_and_noisy_patient_agree() -> None:
    assert np.array_equal(Patient(BUSY, 125).beats(100.0), Patient(BUSY.quiet(), 1000).beats(100.0))


@pytest.mark.parametrize("heart_rate", [40.0, 75.0, 180.0])
def test_mean_rate_is_as_planned(heart_rate: float) -> None:
    beats = Patient(Plan(heart_rate=heart_rate), 125).beats(600.0)
    assert 60 / np.diff(beats).mean() == pytest.approx(heart_rate, rel=0.02)
    assert 0.01 < np.diff(beats).std() / np.diff(beats).mean() < 0.08


def test_ectopic_beats_come_early_and_a_pause_follows() -> None:
    plan = Plan(ectopic=0.1, rsa=0.0, drift=0.0, jitter=0.0)
    patient = Patient(plan, 125)
    rr = np.diff(patient.beats(300.0))
    ectopic = patient.ectopic(300.0)[1:]
    assert 10 < ectopic.sum() < 60
    usual = 60 / plan.heart_rate
    assert rr[ectopic] == pytest.approx(0.65 * usual)
    assert rr[1:][ectopic[:-1]] == pytest.approx(1.35 * usual)
    rest = ~ectopic[1:] & ~ectopic[:-1]
    assert rr[1:][rest] == pytest.approx(usual)


def measured_ratio(patient: Patient, start_s: float, length_s: float) -> float:
    """Ratio of ratios of one stretch, by peak to trough of the logarithm."""
    rate = patient.rate_hz
    part = patient.samples(round(start_s * rate), round(length_s * rate))
    swing = {name: np.ptp(np.log(part[name])) for name in ("red", "infrared")}
    return float(swing["red"] / swing["infrared"])


@pytest.mark.parametrize("spo2", [100.0, 97.0, 90.0, 80.0, 70.0])
def test_ratio_of_ratios_follows_spo2(spo2: float) -> None:
    patient = Patient(Plan(spo2=spo2, perfusion=0.01, resp_rate=6.0).quiet(), 250)
    # One beat: short against breathing, which moves both colours alike.
    ratios = [measured_ratio(patient, beat, 0.5) for beat in patient.beats(30.0)]
    assert np.median(ratios) == pytest.approx(float(ratio_of_ratios(spo2)), rel=0.05)


def test_desaturation_shows_in_truth_in_signal_and_in_vitals() -> None:
    plan = Plan(desaturations=(Desaturation(20.0, 40.0, 15.0),)).quiet()
    patient = Patient(plan, 125)
    assert patient.spo2(np.array([0.0, 20.0, 40.0, 60.0, 90.0])) == pytest.approx(
        [97, 97, 82, 97, 97]
    )
    assert patient.vitals(40.0).spo2 == pytest.approx(82.0)
    before, during = measured_ratio(patient, 10.0, 1.0), measured_ratio(patient, 39.5, 1.0)
    assert during / before == pytest.approx((110 - 82) / (110 - 97), rel=0.15)


def test_motion_disturbs_exactly_the_named_spans() -> None:
    plan = dataclasses.replace(Plan(seed=9).quiet(), motion_per_min=3.0)
    moved, still = Patient(plan, 125), Patient(plan.quiet(), 125)
    seconds = 300
    differs = moved.samples(0, seconds * 125)["ecg"] != still.samples(0, seconds * 125)["ecg"]
    t = np.arange(seconds * 125) / 125
    named = np.zeros(len(t), bool)
    spans = moved.artefacts(float(seconds))
    assert len(spans) > 5
    assert list(spans) == sorted(spans)
    for start, end in spans:
        named |= (t >= start) & (t < end)
    assert not differs[~named].any()
    assert differs[named].mean() > 0.95


def test_sensors_off_are_flat_and_told() -> None:
    plan = Plan(leads_off=((2.0, 3.0),), finger_off=((4.0, 5.0),)).quiet()
    patient = Patient(plan, 100)
    part = patient.samples(0, 600)
    assert not part["ecg"][200:300].any()
    assert part["ecg"][100:200].any()
    assert np.ptp(part["infrared"][400:500]) == 0
    assert part["infrared"][450] < 0.01 < part["infrared"][550]
    off = patient.vitals(2.5)
    assert (off.leads_on, off.heart_rate, off.resp_rate) == (False, None, None)
    assert off.spo2 == 97.0
    assert (patient.vitals(4.5).finger_on, patient.vitals(4.5).spo2) == (False, None)


def test_vital_heart_rate_is_that_of_the_last_beats() -> None:
    patient = Patient(Plan(heart_rate=90.0), 125)
    beats = patient.beats(100.0)
    assert patient.vitals(100.0).heart_rate == pytest.approx(60 / np.diff(beats[-9:]).mean())
    assert patient.vitals(0.0).heart_rate is None


@pytest.mark.parametrize("rate", [0.0, 59.9, 1000.1])
def test_rate_outside_the_range_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="expected 60 to 1000"):
        Patient(Plan(), rate)

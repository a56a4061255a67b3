"""The conditioner obeys the quality index: a bad second never yields a confident heart rate."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.assigned import Code
from drivers.model import Event, EventKind, Observation, Quality, Record, Validity
from drivers.registry import all_drivers
from firmware_sim.patient import Patient, Plan
from gateway.conditioner import Conditioner
from gateway.config.device import Device
from tests.gateway.conditioner_signals import (
    RATE_HZ,
    STOP,
    Floats,
    blocks,
    number,
    of,
    run,
    second,
)
from tests.gateway.signal.synthetic import ecg

SECONDS = 120
NOISY = (40, 70)
LOST_S, BACK_S = 2.5, 25
"""So soon after noise begins no rate is said any more, and so late after it a confident one is again."""


def heart(seconds: int = SECONDS, seed: int = 1) -> Floats:
    """A patient's ECG, 1000 counts for 1 mV."""
    return 1000 * Patient(Plan(seed=seed), RATE_HZ).samples(0, seconds * RATE_HZ)["ecg"]


def muscle(x: Floats, rms: float, seed: int = 1) -> Floats:
    """With noise of this root mean square in the 30 seconds that are noisy."""
    noisy = x.copy()
    a, b = (at * RATE_HZ for at in NOISY)
    noisy[a:b] += np.random.default_rng(seed).normal(0, rms, b - a)
    return noisy


def rates(records: list[Record]) -> list[Observation]:
    return of(Code.ECG_HEART_RATE, records)


def confident(records: list[Observation]) -> list[float]:
    """When a rate was said and called valid."""
    return [second(r) for r in records if r.quality.validity is Validity.VALID]


def signals(records: list[Record]) -> list[tuple[str, float]]:
    return [
        (r.reason, second(r))
        for r in records
        if isinstance(r, Event) and r.kind is EventKind.SIGNAL
    ]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_good_seconds_give_a_rate_and_bad_ones_none(seed: int) -> None:
    found = rates(run(blocks(muscle(heart(seed=seed), 600, seed))))
    begin, end = NOISY
    known = confident(found)
    assert not [at for at in known if begin + 1 < at < end + 1]
    assert len([at for at in known if 5 < at < begin]) >= begin - 8
    assert len([at for at in known if at > end + BACK_S]) >= SECONDS - end - BACK_S - 3
    unknown = [r for r in found if number(r) is None]
    assert [r.quality.reason for r in unknown] == ["signal_quality"]
    assert begin < second(unknown[0]) <= begin + LOST_S
    assert unknown[0].quality.validity is Validity.INVALID
    assert not [r for r in found if begin + LOST_S < second(r) < end]


def test_what_is_said_is_right() -> None:
    patient = Patient(Plan(), RATE_HZ)
    for record in rates(run(blocks(muscle(heart(), 600)))):
        if (value := number(record)) is not None:
            assert value == pytest.approx(patient.vitals(second(record) + 0.1).heart_rate, abs=3)


def test_no_interval_comes_from_bad_seconds_or_spans_them() -> None:
    found = of(Code.ECG_TIME_PD_RR_GL, run([*blocks(muscle(heart(), 600)), STOP]))
    begin, end = NOISY
    assert not [r for r in found if begin + 1 < second(r) < end + 1]
    assert max(number(r) or 0 for r in found) < 1500


def test_intervals_from_before_noise_make_no_rate_after_it() -> None:
    patient = Patient(Plan(heart_rate=55), RATE_HZ)
    x = 1000 * patient.samples(0, 60 * RATE_HZ)["ecg"]
    x[3 * RATE_HZ : 20 * RATE_HZ] += np.random.default_rng(1).normal(0, 800, 17 * RATE_HZ)
    derived = [
        r for r in run(blocks(x)) if isinstance(r, Observation) and r.code is not Code.ECG_ELEC_POTL
    ]
    codes = [r.code for r in derived]
    first = codes.index(Code.ECG_HEART_RATE)
    before = [second(r) for r in derived[:first] if r.code is Code.ECG_TIME_PD_RR_GL]
    assert 0 < len([at for at in before if at < 3]) < 4
    assert len([at for at in before if at > 20]) >= 4


def test_noise_in_between_is_questionable_and_says_how_much() -> None:
    found = rates(run(blocks(muscle(heart(), 95))))
    inside = [r for r in found if NOISY[0] + 12 < second(r) < NOISY[1]]
    assert len(inside) > 10
    for record in inside:
        assert record.quality.validity is Validity.QUESTIONABLE
        assert record.quality.reason == "signal_quality"
        assert record.quality.sqi is not None
        assert 0.3 <= record.quality.sqi < 0.5


def test_good_records_say_their_index_and_no_reason() -> None:
    derived = [
        r
        for r in run(blocks(heart(30)))
        if isinstance(r, Observation) and r.code.name != "ECG_ELEC_POTL"
    ]
    assert len(derived) > 40
    for record in derived:
        assert record.quality.validity is Validity.VALID
        assert record.quality.reason is None
        assert record.quality.sqi is not None
        assert 0.7 < record.quality.sqi <= 1


def test_waveforms_carry_the_index_of_the_seconds_before_them() -> None:
    waves = of(Code.ECG_ELEC_POTL, run(blocks(muscle(heart(), 600))))
    by_second = {second(w): w.quality.sqi for w in waves}
    assert all(sqi is None for at, sqi in by_second.items() if at < 2.8)
    assert all(sqi is not None and sqi > 0.7 for at, sqi in by_second.items() if 3 <= at < 40)
    assert all(sqi is not None and sqi < 0.3 for at, sqi in by_second.items() if 45 <= at < 70)
    assert {w.quality.validity for w in waves} == {Validity.VALID}


def test_an_index_of_the_device_stays() -> None:
    own = Quality(sqi=0.123)
    records = [Observation(r.code, r.value, r.determined_at_ns, own) for r in blocks(heart(10))]
    assert {w.quality.sqi for w in of(Code.ECG_ELEC_POTL, run(records))} == {0.123}


def jumping(x: Floats, kind: str, size: float, rng: np.random.Generator) -> Floats:
    """With two jumps of an electrode a second, of random size, from second 40 to 70."""
    t, jumps = np.arange(x.size) / RATE_HZ, np.zeros(x.size)
    for at in rng.uniform(40, 70, 60):
        since, height = t - at, rng.choice([-1, 1]) * size * rng.uniform(0.3, 2)
        if kind == "step":
            jumps += np.where(since > 0, height * np.exp(-np.maximum(since, 0) / 0.5), 0.0)
        else:
            jumps += height * np.exp(-0.5 * (since / rng.uniform(0.01, 0.06)) ** 2)
    return x + jumps


def test_jumps_between_quiet_stretches_hardly_make_a_confident_rate() -> None:
    """Between jumps it is quiet, so the index is good: the beats give them away, for they resemble none before."""
    wrong, doubted = 0, 0
    for kind in ("step", "spike"):
        for size in (1500, 5000, 20_000):
            for seed in (1, 2):
                patient, rng = Patient(Plan(seed=seed), RATE_HZ), np.random.default_rng(seed)
                out = run(blocks(jumping(heart(80, seed), kind, size, rng)))
                for record in rates(out):
                    value = number(record)
                    truth = patient.vitals(second(record) + 0.1).heart_rate
                    if value is None or truth is None or not 42 < second(record) < 70:
                        continue
                    if abs(value - truth) > 5:
                        confident = record.quality.validity is Validity.VALID
                        wrong, doubted = wrong + confident, doubted + (not confident)
    assert doubted > 100
    assert wrong < 0.2 * (wrong + doubted), f"{wrong} beside {doubted}"


def test_two_shapes_by_turns_are_beats() -> None:
    """Bigeminy: every other beat is ectopic."""
    beats = np.arange(0.5, 59, 0.8)
    wide = frozenset(range(1, beats.size, 2))
    rng = np.random.default_rng(6)
    x = ecg(beats, 60, RATE_HZ, wide) + rng.normal(0, 5, 60 * RATE_HZ)
    found = [r for r in rates(run(blocks(x))) if second(r) > 12]
    assert len(found) > 40
    assert {r.quality.validity for r in found} == {Validity.VALID}


def test_a_flat_line_ends_the_rate_and_is_an_event() -> None:
    x = heart()
    x[40 * RATE_HZ : 60 * RATE_HZ] = x[40 * RATE_HZ]
    out = run(blocks(x))
    assert [reason for reason, _ in signals(out)] == ["good", "flat", "unknown", "good"]
    at = dict(signals(out)[1:])
    assert at == {"flat": 42, "unknown": 62, "good": 64}
    (unknown,) = [r for r in rates(out) if number(r) is None]
    assert second(unknown) <= 42
    assert not [at for at in confident(rates(out)) if 41 < at < 61]
    flat = next(r for r in out if isinstance(r, Event) and r.reason == "flat")
    assert (flat.code, flat.from_ns) == (Code.ECG_ELEC_POTL, 40_000_000_000)


def device(limits: tuple[int, int] | None) -> Device:
    return Device("board", all_drivers()["ads1292r"], port=Path("/dev/ttyUSB0"), ecg_limits=limits)


@pytest.mark.parametrize(("limits", "reason"), [((-32768, 32767), "lead_off"), (None, "flat")])
def test_an_electrode_that_comes_off_is_named_only_where_the_limits_are_known(
    limits: tuple[int, int] | None, reason: str
) -> None:
    x = heart(60)
    x[30 * RATE_HZ : 40 * RATE_HZ] = 32767
    out = run(blocks(x), Conditioner([device(limits)]))
    assert [reason for reason, _ in signals(out)] == ["good", reason, "unknown", "good"]


def test_a_status_of_one_second_is_not_told() -> None:
    x = heart(60)
    x[30 * RATE_HZ : 31 * RATE_HZ] = 0
    assert [reason for reason, _ in signals(run(blocks(x)))] == ["good"]


def test_a_pause_is_said_to_be_one() -> None:
    beats = np.arange(0.5, 60, 0.8)
    beats = beats[(beats < 30) | (beats > 37)]
    rng = np.random.default_rng(5)
    x = ecg(beats, 60, RATE_HZ) + rng.normal(0, 5, 60 * RATE_HZ)
    found = rates(run(blocks(x)))
    (unknown,) = [r for r in found if number(r) is None]
    assert unknown.quality == Quality(Validity.INVALID, reason="no_beats")
    assert 34 <= second(unknown) <= 36
    assert max(second(r) for r in found) > 55


@pytest.mark.parametrize("gain", [0.02, 0.0])
def test_a_lead_that_falls_silent_yields_no_confident_interval_over_the_silence(
    gain: float,
) -> None:
    """Noise is as before, beats are not seen: a pause or a lost contact, and nothing tells which."""
    rng = np.random.default_rng(5)
    x = ecg(np.arange(0.5, 60, 0.8), 60, RATE_HZ)
    x[round(29.8 * RATE_HZ) : round(33.3 * RATE_HZ)] *= gain
    out = run(blocks(x + rng.normal(0, 5, x.size)))
    intervals = of(Code.ECG_TIME_PD_RR_GL, out)
    (long,) = [r for r in intervals if (number(r) or 0) > 1500]
    assert long.quality == Quality(Validity.QUESTIONABLE, sqi=0.4, reason="signal_quality")
    assert signals(out) == [("good", 2), ("silent", 33), ("good", 35)]
    waves = {second(w): w.quality.sqi for w in of(Code.ECG_ELEC_POTL, out)}
    assert {waves[32.0], waves[33.0]} == {0.4}
    rate = {second(r): r.quality.validity for r in rates(out)}
    assert {how for at, how in rate.items() if 33.5 < at < 39} == {Validity.QUESTIONABLE}
    assert {how for at, how in rate.items() if at < 30 or at > 41} == {Validity.VALID}


def test_a_rate_that_a_missed_beat_would_move_needs_beats_that_are_alike() -> None:
    """Every tenth beat is half as high again, so never like two of the eight before it."""
    rng = np.random.default_rng(8)
    found = {}
    for name, pattern in (("irregular", [0.6, 0.95, 0.7, 1.1, 0.8]), ("regular", [0.83])):
        beats = np.cumsum(np.resize(pattern, 70))
        for high in (0.0, 0.7):
            x = ecg(beats, 60, RATE_HZ) + high * ecg(beats[4::6], 60, RATE_HZ)
            out = rates(run(blocks(x + rng.normal(0, 5, x.size))))
            late = [r.quality for r in out if 20 < second(r) < 55]
            found[name, high] = {(how.validity, how.reason) for how in late}
    good, doubted = (Validity.VALID, None), (Validity.QUESTIONABLE, "beats_uncertain")
    assert found == {
        ("irregular", 0.0): {good},
        ("irregular", 0.7): {doubted},
        ("regular", 0.0): {good},
        ("regular", 0.7): {good},
    }


def test_a_beat_of_search_back_makes_a_rate_uncertain_that_it_would_move() -> None:
    rng = np.random.default_rng(8)
    beats = np.cumsum(np.resize([0.6, 0.95, 0.7, 1.1, 0.8], 70))
    x = ecg(beats, 60, RATE_HZ) - 0.8 * ecg(beats[42:43], 60, RATE_HZ)
    found = rates(run(blocks(x + rng.normal(0, 5, x.size))))
    settled = [r for r in found if second(r) > 20]
    doubted = [second(r) for r in settled if r.quality.reason == "beats_uncertain"]
    assert len(doubted) > 5
    assert beats[41] < min(doubted) < max(doubted) < beats[42] + 9
    assert {r.quality.reason for r in settled} == {None, "beats_uncertain"}


def test_beats_of_a_run_too_short_to_be_judged_are_questionable() -> None:
    x = heart(30)
    found = of(Code.ECG_TIME_PD_RR_GL, run([*blocks(x[: 2 * RATE_HZ + 100]), STOP]))
    assert found
    assert {r.quality for r in found} == {
        Quality(Validity.QUESTIONABLE, reason="signal_quality_unknown")
    }


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000), rms=st.floats(0, 2000), size=st.integers(1, 400))
def test_no_confident_rate_has_a_low_index_whatever_the_noise(
    seed: int, rms: float, size: int
) -> None:
    x = muscle(heart(80, seed % 5), rms, seed)
    for record in rates(run(blocks(x, size))):
        if record.quality.validity is Validity.VALID:
            assert record.quality.sqi is not None
            assert record.quality.sqi >= 0.5
            assert isinstance(number(record), float)
        assert (number(record) is None) == (record.quality.validity is Validity.INVALID)


def test_cutting_changes_neither_rates_nor_events() -> None:
    x = muscle(heart(), 300)
    whole, pieces = run([*blocks(x), STOP]), run([*blocks(x, 7), STOP])
    kept = [r for r in whole if not (isinstance(r, Observation) and r.code is Code.ECG_ELEC_POTL)]
    cut = [r for r in pieces if not (isinstance(r, Observation) and r.code is Code.ECG_ELEC_POTL)]
    assert kept == cut
    assert len(kept) > 100

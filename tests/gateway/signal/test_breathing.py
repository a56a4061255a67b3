import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.signal.breathing import BLOCK, RespirationStream
from gateway.signal.pleth import PlethStream
from gateway.signal.respiration import AMPLITUDE, BASELINE, INTERVAL
from tests.gateway.signal.synthetic_ppg import pleth
from tests.naive import respiration as naive

Floats = NDArray[np.float64]


def beats(
    bpm: float, seconds: float, noise: float = 0.3, seed: int = 1, pulse_s: float = 0.8
) -> Floats:
    """(time, baseline, amplitude, interval): each moved by the breath, and by as much noise as wanted."""
    rng = np.random.default_rng(seed)
    intervals = pulse_s * (1 + 0.02 * rng.normal(size=round(seconds / pulse_s)))
    time = np.cumsum(intervals)
    breath = np.sin(2 * np.pi * bpm / 60 * time)[:, None]
    moved = breath * [30.0, 50.0, 0.02] + noise * rng.normal(size=(time.size, 3)) * [30, 50, 0.02]
    return np.column_stack([time, moved + np.array([1000.0, 800.0, pulse_s])])


def follow(series: Floats, leads: int, cuts: list[int]) -> Floats:
    stream = RespirationStream(leads)
    parts = [stream.process(*part.T) for part in np.split(series, cuts)]
    return np.concatenate([np.stack([p.time_s, p.rate_bpm, p.quality], 1) for p in parts])


@pytest.mark.parametrize("leads", [BASELINE, AMPLITUDE, INTERVAL])
def test_equals_its_twin(leads: int) -> None:
    given = unknown = 0
    for seed in range(6):
        series = beats(6 + 6.3 * seed, 150, 0.2 + 0.5 * (seed % 3), seed, 0.4 + 0.15 * seed)
        series[40] = np.nan
        series[60:66, 3] = np.inf
        series[30, 0] = series[29, 0]
        got, expected = follow(series, leads, []), np.array(naive.rates(series, leads))
        np.testing.assert_allclose(got, expected, rtol=1e-6, err_msg=f"seed {seed}")
        given += int(np.isfinite(got[:, 1]).sum())
        unknown += int(np.isnan(got[:, 1]).sum())
    assert given > 10
    assert unknown > 10


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), shares=st.lists(st.floats(0, 1), max_size=20))
def test_any_cutting_gives_the_same_bits(seed: int, shares: list[float]) -> None:
    series = beats(15, 120, 1.0, seed)
    cuts = sorted(round(share * len(series)) for share in shares)
    assert follow(series, BASELINE, []).tobytes() == follow(series, BASELINE, cuts).tobytes()


@pytest.mark.parametrize("bpm", [6.0, 12.5, 20.0, 30.0])
@pytest.mark.parametrize("leads", [BASELINE, AMPLITUDE])
def test_the_rate_is_that_of_the_breath(bpm: float, leads: int) -> None:
    rows = follow(beats(bpm, 200), leads, [])
    assert len(rows) > 35
    assert np.isfinite(rows[:, 1]).mean() > 0.9
    assert np.nanmax(np.abs(rows[:, 1] - bpm)) < 1.2


def test_without_breath_the_rate_is_unknown() -> None:
    series = beats(15, 400)
    rng = np.random.default_rng(2)
    series[:, 1:] = np.array([1000.0, 800.0, 0.8]) + rng.normal(size=(len(series), 3)) * [
        30,
        50,
        0.02,
    ]
    assert np.isnan(follow(series, BASELINE, [])[:, 1]).mean() > 0.7
    series[:, 1:] = [1000.0, 800.0, 0.8]
    flat = follow(series, BASELINE, [])
    assert np.isnan(flat[:, 1]).mean() > 0.9


def test_nothing_above_half_of_the_pulse_rate() -> None:
    rows = follow(beats(30, 200, 0.05, pulse_s=1.5), BASELINE, [])
    assert not (rows[:, 1] >= 20.5).any()


def test_a_hole_is_not_filled() -> None:
    series = beats(15, 200)
    hole = (series[:, 0] > 100) & (series[:, 0] < 104)
    times = follow(series[~hole], BASELINE, [])[:, 0]
    assert not ((times > 100) & (times < 135)).any()
    assert times.max() > 190


def test_from_a_pulse_wave() -> None:
    rng = np.random.default_rng(3)
    time = np.cumsum(rng.normal(0.8, 0.02, 140))
    time = time[time < 99]
    x = pleth(time, 100, 125) + 150 * np.sin(2 * np.pi * 0.25 * np.arange(12_500) / 125)
    pulses = PlethStream(125).process(np.rint(x))
    interval = np.diff(pulses.index, prepend=np.nan) / 125
    breaths = RespirationStream(BASELINE).process(
        pulses.index / 125, pulses.level, pulses.height, interval
    )
    assert np.isfinite(breaths.rate_bpm).sum() > 10
    assert np.nanmedian(breaths.rate_bpm) == pytest.approx(15, abs=0.7)


def test_memory_is_bounded_and_reset_forgets() -> None:
    series = beats(15, 3 * BLOCK)
    stream = RespirationStream(AMPLITUDE)
    first = stream.process(*series.T)
    assert stream.state_bytes <= 2048
    stream.reset()
    assert stream.process(*series.T).rate_bpm.tobytes() == first.rate_bpm.tobytes()
    assert len(stream.process([], [], [], [])) == 0


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="expected 0, 1 or 2"):
        RespirationStream(3)
    with pytest.raises(ValueError, match="as many in each"):
        RespirationStream(0).process([1.0], [1.0], [1.0], [1.0, 2.0])

"""Seconds and pulse rate: the kernel against its slow twin, under every cutting, and on signals whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.signal.pleth import BLOCK, PlethMonitor, Pulses, Seconds, joined
from gateway.signal.ppg_seconds import FLAT, MISSING, MOTION, SATURATED
from tests.gateway.signal.synthetic_ppg import noisy, pleth, rhythm
from tests.gateway.signal.test_ppg import RATES_HZ, trouble
from tests.naive import ppg_seconds as naive

Floats = NDArray[np.float64]
RAILS = (-2000.0, 2000.0)


def table(seconds: Seconds) -> Floats:
    return np.stack([getattr(seconds, name) for name in Seconds.__dataclass_fields__], 1)


def watch(
    x: Floats, rate_hz: float, cuts: list[int], *, flush: bool = True
) -> tuple[Pulses, Floats]:
    monitor = PlethMonitor(rate_hz, rails=RAILS)
    parts = [monitor.process(part) for part in np.split(x, cuts)]
    if flush:
        parts.append(monitor.flush())
    return joined([pulses for pulses, _ in parts]), np.concatenate([table(s) for _, s in parts])


@pytest.mark.parametrize("rate_hz", [25.0, 62.3, 125.0])
def test_equals_its_twin(rate_hz: float) -> None:
    flagged = 0
    for seed in range(6):
        x = trouble(seed, rate_hz, 24)
        x[x > 1e5] = np.nan
        pulses, got = watch(x, rate_hz, [], flush=False)
        beats = list(zip(pulses.index, pulses.height, pulses.quality, pulses.known, strict=True))
        expected = np.array(naive.seconds(x, beats, rate_hz, RAILS))
        np.testing.assert_allclose(got, expected, rtol=1e-9, err_msg=f"seed {seed}")
        flagged += int((got[:, 2] > 0).sum())
    assert flagged > 5


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate_hz=st.sampled_from(RATES_HZ),
    shares=st.lists(st.floats(0, 1), max_size=30),
)
def test_any_cutting_gives_the_same_bits(seed: int, rate_hz: float, shares: list[float]) -> None:
    x = trouble(seed, rate_hz, 20)
    cuts = sorted(round(share * x.size) for share in shares)
    _, whole = watch(x, rate_hz, [])
    assert len(whole) == 20
    assert whole.tobytes() == watch(x, rate_hz, cuts)[1].tobytes()


def clean(seconds: float, rate_hz: float = 125, mean_s: float = 0.8) -> Floats:
    rng = np.random.default_rng(1)
    return noisy(pleth(rhythm(seconds, mean_s, rng), seconds, rate_hz), 3, rate_hz, rng)


def test_a_clean_signal_is_good_and_its_rate_is_right() -> None:
    _, rows = watch(clean(60), 125, [])
    assert rows[:, 0].tolist() == list(range(60))
    assert (rows[:, 2] == 0).all()
    assert rows[3:59, 1].min() > 0.7
    assert np.isnan(rows[0, 3])
    assert rows[10:58, 3] == pytest.approx(75, abs=2.5)


@pytest.mark.parametrize(
    ("fault", "flag"),
    [("clipped", SATURATED), ("flat", FLAT), ("leap", MOTION), ("nan", MISSING)],
)
def test_a_faulty_second_says_why_and_has_no_rate(fault: str, flag: int) -> None:
    x = clean(40)
    part = slice(20 * 125 + 30, 20 * 125 + 90)
    if fault == "clipped":
        x[part] = 2000 - np.arange(60) % 2
    elif fault == "flat":
        x[part] = x[part.start]
    elif fault == "leap":
        x[part] -= 1.9 * 3000
        x[x < -1999] = -1999
        x[part.start + 10] = 1999
    else:
        x[part.start] = np.nan
    _, rows = watch(x, 125, [])
    assert int(rows[20, 2]) & flag
    assert rows[20, 1] == 0
    assert np.isnan(rows[20, 3])
    assert (rows[[*range(3, 19), *range(30, 39)], 2] == 0).all()


@pytest.mark.parametrize("place", [0.1, 0.35])
def test_a_second_is_worth_nothing_if_a_beat_was_due_in_it_and_came_later(place: float) -> None:
    """A beat each 0.5 s, that of 20.6 or 20.85 s left out: the next one was due 0.8 s after the last, in 20 or in 21."""
    beats = place + 0.5 * np.arange(1, 78)
    x = noisy(pleth(np.delete(beats, 40), 40, 125), 3, 125, np.random.default_rng(4))
    pulses, rows = watch(x, 125, [])
    assert np.diff(pulses.index).max() == pytest.approx(125, abs=2)
    worth = rows[3:38, 1] > 0.5
    assert np.flatnonzero(~worth).tolist() == ([20 - 3] if place == 0.1 else [])


def test_a_lost_signal_is_worth_nothing_after_the_beat_that_was_due() -> None:
    x = clean(20)
    x = np.concatenate([x, np.random.default_rng(2).integers(0, 2, 20 * 125) + 0.0])
    _, rows = watch(x, 125, [])
    assert (rows[23:, 1] == 0).all()
    assert np.isnan(rows[23:, 3]).all()


def test_noise_has_no_rate() -> None:
    x = np.random.default_rng(3).normal(0, 300, 60 * 125)
    _, rows = watch(x, 125, [])
    assert np.isnan(rows[:, 3]).mean() > 0.7
    assert np.median(rows[:, 1]) < 0.1


def test_flush_ends_the_run_and_memory_is_bounded() -> None:
    for rate_hz in RATES_HZ:
        monitor = PlethMonitor(rate_hz)
        before = monitor.state_bytes
        monitor.process(np.random.default_rng(1).normal(0, 1000, 3 * BLOCK))
        assert monitor.state_bytes == before <= 8192
    monitor = PlethMonitor(125)
    qualities = []
    for _ in range(2):
        pulses, seconds = monitor.process(clean(10))
        assert seconds.second.tolist() == list(range(9))
        more, last = monitor.flush()
        assert last.second.tolist() == [9]
        assert len(pulses) + len(more) >= 10
        qualities.append(seconds.quality.tolist())
    monitor.process(clean(5))
    monitor.reset()
    assert [monitor.process(clean(10))[1].quality.tolist()] * 2 == qualities
    assert len(PlethMonitor(125).flush()[1]) == 0


def test_refuses_rails_in_the_wrong_order() -> None:
    with pytest.raises(ValueError, match="lower one first"):
        PlethMonitor(125, rails=(1, math.nan))


@pytest.mark.parametrize("rail", RAILS)
def test_the_very_first_sample_may_be_at_a_rail(rail: float) -> None:
    x = clean(5)
    x[0] = rail
    _, rows = watch(x, 125, [])
    assert [int(flags) & SATURATED for flags in rows[:, 2]] == [SATURATED, 0, 0, 0, 0]

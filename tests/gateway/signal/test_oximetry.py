import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.signal.oximetry import (
    BLOCK,
    Calibration,
    Desaturation,
    Desaturations,
    Ratios,
    RedInfrared,
    spo2_percent,
)
from tests.gateway.signal.synthetic_ppg import pleth, rhythm
from tests.naive import red_infrared as naive

Floats = NDArray[np.float64]
RATES_HZ = (25.0, 62.3, 100.0, 400.0, 1000.0)
NONE = (-math.inf, math.inf)


def light(
    ratio: float, seconds: float, rate_hz: float, noise: float = 0.0, seed: int = 1
) -> tuple[Floats, Floats]:
    """Red and infrared light with 1 % pulsation in infrared and `ratio` % in red."""
    rng = np.random.default_rng(seed)
    wave = pleth(rhythm(seconds, 0.8, rng), seconds, rate_hz) / 1000
    drift = 1 + 0.01 * np.sin(2 * np.pi * 0.1 * np.arange(wave.size) / rate_hz)
    red = 80_000 * drift * (1 - 0.01 * ratio * wave) + noise * rng.normal(0, 1, wave.size)
    infrared = 120_000 * drift * (1 - 0.01 * wave) + noise * rng.normal(0, 1, wave.size)
    return np.rint(red), np.rint(infrared)


def table(parts: list[Ratios]) -> Floats:
    names = Ratios.__dataclass_fields__
    return np.concatenate([np.stack([getattr(p, name) for name in names], 1) for p in parts])


def follow(
    red: Floats,
    infrared: Floats,
    rate_hz: float,
    cuts: list[int],
    rails: tuple[float, float] = NONE,
) -> Floats:
    stream = RedInfrared(rate_hz, rails)
    pairs = zip(np.split(red, cuts), np.split(infrared, cuts), strict=True)
    return table([stream.process(*pair) for pair in pairs])


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_equals_its_twin(rate_hz: float) -> None:
    red, infrared = light(0.7, 36, rate_hz, noise=30)
    red[round(16.5 * rate_hz)] = np.nan
    infrared[0] = 1e300
    red[round(35.2 * rate_hz)] = 2**22
    rails = (0.0, 2.0**21)
    got = follow(red, infrared, rate_hz, [], rails)
    expected = np.array(naive.ratios(red, infrared, rate_hz, rails))
    np.testing.assert_allclose(got, expected, rtol=1e-7)
    assert np.isfinite(got[:, 1]).sum() >= 6


@settings(max_examples=20, deadline=None)
@given(rate_hz=st.sampled_from(RATES_HZ[:4]), shares=st.lists(st.floats(0, 1), max_size=20))
def test_any_cutting_gives_the_same_bits(rate_hz: float, shares: list[float]) -> None:
    red, infrared = light(0.9, 16, rate_hz, noise=30)
    cuts = sorted(round(share * red.size) for share in shares)
    whole = follow(red, infrared, rate_hz, [])
    assert whole.tobytes() == follow(red, infrared, rate_hz, cuts).tobytes()


@pytest.mark.parametrize("ratio", [0.4, 0.7, 1.0, 1.6])
@pytest.mark.parametrize("rate_hz", [25.0, 100.0, 400.0])
def test_the_ratio_is_that_of_the_light(ratio: float, rate_hz: float) -> None:
    rows = follow(*light(ratio, 40, rate_hz, noise=20), rate_hz, [])
    assert np.isnan(rows[:11, 1]).all()
    assert rows[13:, 1] == pytest.approx(ratio, rel=0.05)
    assert rows[13:, 2].min() > 0.98
    assert np.median(rows[13:, 4]) == pytest.approx(0.3, abs=0.1)


def test_lights_that_do_not_see_the_same_pulse_correlate_little() -> None:
    red, _ = light(0.8, 40, 100, seed=1)
    _, infrared = light(0.8, 40, 100, seed=2)
    rows = follow(red, infrared, 100, [])
    assert np.abs(rows[13:, 2]).max() < 0.9


def test_memory_is_bounded_and_reset_forgets() -> None:
    red, infrared = light(0.8, 15, 1000)
    stream = RedInfrared(1000)
    before = stream.state_bytes
    first = table([stream.process(red, infrared)])
    assert red.size > 3 * BLOCK
    assert stream.state_bytes == before <= 1024
    stream.reset()
    assert table([stream.process(red, infrared)]).tobytes() == first.tobytes()


@pytest.mark.parametrize("level", [0.0, 5000.0])
def test_without_a_pulse_nothing_is_known(level: float) -> None:
    rows = follow(np.full(3000, level), np.full(3000, level), 100, [])
    assert np.isnan(rows[:, 1:]).all()


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="expected 25 to 1000"):
        RedInfrared(24)
    with pytest.raises(ValueError, match="lower one first"):
        RedInfrared(100, (5, 1))
    with pytest.raises(ValueError, match="as many samples of both"):
        RedInfrared(100).process([1, 2], [1])
    for coefficients, least, most in (
        ((), 0.4, 2),
        ((math.nan,), 0.4, 2),
        ((1.0,), 2, 1),
        ((1.0,), 0, 1),
    ):
        with pytest.raises(ValueError, match="expected"):
            Calibration("x", coefficients, least, most)
    with pytest.raises(ValueError, match="expected 1 to 20"):
        Desaturations(0)
    events = Desaturations()
    events.process(1, 97)
    with pytest.raises(ValueError, match="ascending"):
        events.process(1, 97)


CURVE = Calibration("bench sensor", (110.0, -25.0, -1.0), 0.4, 2.0)


def test_a_saturation_comes_from_the_sensors_own_curve() -> None:
    assert spo2_percent(CURVE, 0.5, 0.99, 1.0) == pytest.approx(110 - 12.5 - 0.25)
    assert spo2_percent(CURVE, 2.0, 0.95, 0.05) == pytest.approx(110 - 50 - 4)


@pytest.mark.parametrize(
    ("ratio", "correlation", "infrared"),
    [
        (0.39, 0.99, 1.0),
        (2.01, 0.99, 1.0),
        (0.5, 0.94, 1.0),
        (0.5, 0.99, 0.04),
        (math.nan, 0.99, 1.0),
        (0.5, math.nan, 1.0),
        (0.5, 0.99, math.nan),
    ],
)
def test_outside_of_the_curve_or_of_good_signal_it_is_unknown(
    ratio: float, correlation: float, infrared: float
) -> None:
    assert spo2_percent(CURVE, ratio, correlation, infrared) is None


def test_a_curve_that_leaves_the_scale_is_not_clipped() -> None:
    assert spo2_percent(CURVE, 0.4, 0.99, 1.0) == pytest.approx(99.84)
    steep = Calibration("bench sensor", (120.0, -25.0), 0.4, 2.0)
    assert spo2_percent(steep, 0.5, 0.99, 1.0) is None


def told(values: Sequence[float | None], drop: float = 3.0) -> list[Desaturation]:
    events = Desaturations(drop)
    found = [events.process(float(k), value) for k, value in enumerate(values)]
    return [event for event in [*found, events.flush()] if event]


def falls(values: Sequence[float | None], drop: float = 3.0) -> list[Desaturation]:
    """Those that are over."""
    return [event for event in told(values, drop) if event.end_s is not None]


def test_a_fall_of_three_percent_for_ten_seconds() -> None:
    values = [97.0] * 60 + [93.0] * 5 + [91.0] * 5 + [97.0] * 60
    assert falls(values) == [Desaturation(60, 70, 97.0, 91.0, recovered=True)]
    assert falls(values, drop=4.0) == [Desaturation(60, 70, 97.0, 91.0, recovered=True)]
    assert falls(values, drop=5.0) == []
    assert falls([97.0] * 60 + [93.0] * 9 + [97.0] * 60) == []
    assert falls([97.0] * 60 + [94.1] * 30 + [97.0] * 60) == []


def test_a_fall_that_lasts_is_told_once_before_it_is_over() -> None:
    begun = Desaturation(60, None, 97.0, 91.0, recovered=False)
    values = [97.0] * 60 + [93.0] * 5 + [91.0] * 55 + [90.0] * 5
    over = Desaturation(60, 125, 97.0, 90.0, recovered=True)
    assert told([*values, 97.0]) == [begun, over]
    assert told([97.0] * 60 + [91.0] * 10) == []
    assert told([97.0] * 60 + [91.0] * 10 + [97.0]) == [
        Desaturation(60, 70, 97.0, 91.0, recovered=True)
    ]
    again = told([*values, *[97.0] * 60, *[91.0] * 20, 97.0])
    assert [event.end_s for event in again] == [None, 125, None, 205]


def test_what_is_unknown_may_come_with_the_time_of_a_value() -> None:
    events = Desaturations()
    for k, value in enumerate([97.0] * 60 + [90.0] * 12):
        events.process(float(k), value)
    over = Desaturation(60, 71, 97.0, 90.0, recovered=False)
    assert events.process(71.0, None) == over
    with pytest.raises(ValueError, match="ascending"):
        events.process(70.0, None)


def test_without_a_baseline_there_is_no_fall() -> None:
    assert falls([97.0] * 15 + [90.0] * 14 + [97.0] * 5) == []
    assert len(falls([97.0] * 30 + [90.0] * 20 + [97.0] * 5)) == 1


def test_a_hole_ends_a_fall_and_says_so() -> None:
    values = [97.0] * 60 + [90.0] * 12
    assert falls([*values, None, 97.0]) == [Desaturation(60, 72, 97.0, 90.0, recovered=False)]
    assert falls([*values, math.nan]) == [Desaturation(60, 72, 97.0, 90.0, recovered=False)]
    assert falls(values) == [Desaturation(60, 71, 97.0, 90.0, recovered=False)]
    events = Desaturations()
    for k, value in enumerate(values):
        events.process(float(k), value)
    assert events.process(100.0, 97.0) == Desaturation(60, 71, 97.0, 90.0, recovered=False)


def test_the_baseline_is_that_of_the_last_two_minutes() -> None:
    slow = [99.0 - 0.02 * k for k in range(300)]
    assert falls(slow) == []
    found = falls([*slow, *[89.0] * 15, 93.0])
    assert len(found) == 1
    assert found[0].baseline_percent == pytest.approx(np.mean(slow[-121:]), abs=0.05)

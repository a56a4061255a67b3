"""Seconds and pulse rate: the kernel against its slow twin, under every cutting, and on signals whose truth is known."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.signal.pleth import PlethMonitor, Pulses, Seconds, joined
from gateway.signal.ppg_seconds import (
    COLUMNS,
    FLAT,
    IN_AT,
    IN_HEIGHT,
    IN_KNOWN,
    IN_QUALITY,
    MISSING,
    MOTION,
    SATURATED,
    ppgs_process,
)
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


def test_one_odd_beat_makes_a_second_bad_but_the_rate_of_the_others_stays_known() -> None:
    x = clean(60)
    x[30 * 125 : 30 * 125 + 50] += 800 * np.sin(np.linspace(0, 9, 50))
    _, rows = watch(x, 125, [])
    bad = np.flatnonzero(rows[3:55, 1] == 0) + 3
    assert bad.size
    assert set(bad) <= {29, 30, 31}
    assert not rows[28:33, 2].any()
    assert rows[28:33, 3] == pytest.approx(75, abs=2.5)


def test_in_noise_the_rate_of_what_was_before_it_stays_known_for_some_seconds_only() -> None:
    x = clean(60)
    x[30 * 125 : 50 * 125] = np.random.default_rng(5).normal(0, 200, 20 * 125)
    _, rows = watch(x, 125, [])
    assert (rows[31:49, 1] < 0.3).all()
    known = np.isfinite(rows[:, 3])
    assert known[5:30].all()
    assert rows[5:36, 3][known[5:36]] == pytest.approx(75, abs=2.5)
    assert not known[36:50].any()
    assert known[56:59].all()


def test_a_rate_follows_a_new_rhythm_without_a_jump_and_is_there_after_18_s() -> None:
    beats = np.concatenate([np.arange(0.5, 40, 1.0), np.arange(40.25, 79, 0.75)])
    x = noisy(pleth(beats, 80, 125), 1, 125, np.random.default_rng(6), 50)
    _, rows = watch(x, 125, [])
    rates = rows[8:77, 3]
    assert rows[8:38, 3] == pytest.approx(60, abs=0.2)
    assert rows[39 + 19 : 77, 3] == pytest.approx(80, abs=0.3)
    assert 0.5 < np.abs(np.diff(rates)).max() < 2.2


@pytest.mark.parametrize("wander", [0.0, 100.0, 600.0])
@pytest.mark.parametrize(("before", "bpm"), [(120, 120), (150, 150), (182, 182), (80, 160)])
def test_of_a_fast_pulse_no_half_is_counted(before: int, bpm: int, wander: float) -> None:
    """Narrow waves, each of which rises before it is known that the one before it was the strongest; breathing."""
    beats = np.concatenate([np.arange(0.5, 30, 60 / before), np.arange(30.3, 69, 60 / bpm)])
    wave = pleth(beats, 70, 125, dicrotic=0.0, width=0.3)
    x = noisy(wave, 3, 125, np.random.default_rng(3), wander)
    rates = watch(x, 125, [])[1][52:66, 3]
    assert np.isfinite(rates).any()
    assert rates[np.isfinite(rates)] == pytest.approx(bpm, abs=3)


@pytest.mark.parametrize("bpm", [30, 47, 240, 400])
def test_the_rate_of_beats_given_by_hand_equals_its_twin(bpm: int) -> None:
    """Also where more of them come than there is room for, and of every quality and evenness."""
    rng = np.random.default_rng(bpm)
    x, rate_hz = rng.integers(0, 1000, 60 * 125).astype(np.float64), 125.0
    spread = np.where(np.arange(60 * bpm // 60) < bpm // 3, 0.05, 0.4)
    at = np.cumsum(60 * rate_hz / bpm * (1 + spread * rng.uniform(-1, 1, spread.size)))
    at = np.append(at[at < x.size - 100], x.size - 60.0)
    quality = np.where(rng.uniform(size=at.size) < 0.2, rng.uniform(0, 1, at.size), 0.9)
    beats = np.zeros((at.size, 7))
    beats[:, IN_AT], beats[:, IN_QUALITY] = at, quality
    beats[:, IN_HEIGHT], beats[:, IN_KNOWN] = 800.0, np.ceil(at + 50)
    monitor, rows = PlethMonitor(rate_hz), np.empty((70, COLUMNS))
    count = ppgs_process(x, beats, len(beats), monitor._state, rows)
    known = beats[:, [IN_AT, IN_HEIGHT, IN_QUALITY, IN_KNOWN]].tolist()
    expected = np.array(naive.seconds(x, [tuple(beat) for beat in known], rate_hz))
    np.testing.assert_allclose(rows[:count], expected, rtol=1e-9)
    assert np.isfinite(expected[:, 3]).sum() > 10


@pytest.mark.parametrize("rate_hz", [25.0, 125.0])
@pytest.mark.parametrize("packet", [1, 5, 1000])
def test_flat_is_what_does_not_change_for_a_quarter_of_a_second(
    rate_hz: float, packet: int
) -> None:
    """Runs one sample shorter than it and just as long, also across the end of a second, whatever the packets."""
    long = math.ceil(0.25 * rate_hz)
    second = round(rate_hz)
    x = np.tile([100.0, 101.0], 6 * second)
    for begin, size in (
        (2 * second + 3, long - 1),
        (4 * second + 3, long),
        (7 * second - 2, long - 1),
        (9 * second - 2, long),
        (11 * second - long, long),
    ):
        x[begin : begin + size] = 50.0
    _, rows = watch(x, rate_hz, list(range(packet, x.size, packet)))
    assert np.flatnonzero(rows[:, 2].astype(int) & FLAT).tolist() == [4, 9, 10]


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
        monitor.process(np.random.default_rng(1).normal(0, 1000, 3 * monitor.stream.block))
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


@pytest.mark.parametrize("packet", [1, 2, 5, 1000])
@pytest.mark.parametrize(
    ("value", "flag"),
    [(2000, SATURATED), (-2000, SATURATED), (math.nan, MISSING), (math.inf, MISSING)],
)
def test_a_single_bad_sample_is_seen_wherever_a_packet_ends(
    value: float, flag: int, packet: int
) -> None:
    for place in range(500, 505):
        x = clean(8)
        x[place] = value
        _, rows = watch(x, 125, list(range(packet, x.size, packet)))
        assert [k for k, flags in enumerate(rows[:, 2]) if int(flags) & flag] == [4]


def test_a_second_without_a_number_leaves_the_next_ones_as_they_are() -> None:
    x = clean(8)
    x[: 2 * 125] = np.nan
    x[4 * 125 + 9] = 2000
    _, rows = watch(x, 125, [])
    assert rows[:5, 2].astype(int).tolist() == [MISSING | FLAT] * 2 + [0, 0, SATURATED]


@pytest.mark.parametrize("rail", RAILS)
def test_the_very_first_sample_may_be_at_a_rail(rail: float) -> None:
    x = clean(5)
    x[0] = rail
    _, rows = watch(x, 125, [])
    assert [int(flags) & SATURATED for flags in rows[:, 2]] == [SATURATED, 0, 0, 0, 0]

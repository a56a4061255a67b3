"""What a caller of the stream may rely on, shown on signals whose truth is known."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.signal import biquad
from gateway.signal.pleth import PlethStream, Pulses, joined
from tests.gateway.signal.synthetic_ppg import noisy, pleth, rhythm
from tests.naive.qrs import section
from tools.ec57 import Score, score

Floats = NDArray[np.float64]

RATES_HZ = (25.0, 60.0, 93.0, 125.0, 250.0, 500.0, 1000.0)


def pulses_of(x: Floats, rate_hz: float, *, inverted: bool = False) -> Pulses:
    stream = PlethStream(rate_hz, inverted=inverted)
    return joined([stream.process(x), stream.flush()])


def compare(truth: Floats, found: Floats) -> Score:
    return score(truth, found, start_s=0)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("mean_s", [0.4, 0.8, 1.5])
def test_finds_every_beat_from_the_first_on(rate_hz: float, mean_s: float) -> None:
    rng = np.random.default_rng(3)
    truth = rhythm(40, mean_s, rng)
    wave = pleth(truth, 40, rate_hz, notch_s=0.3 * min(1.0, mean_s**0.5))
    pulses = pulses_of(noisy(wave, 10, rate_hz, rng), rate_hz)
    found = pulses.index / rate_hz
    false = np.abs(found[:, None] - truth).min(axis=1) > 0.15
    assert false.sum() <= (mean_s > 1)  # breathing alone makes a rise between slow beats
    assert (pulses.quality[false] < 0.3).all()
    found = found[~false]
    assert compare(truth, found) == Score(truth.size, 0, 0)
    assert abs(np.median(found - truth)) < max(0.01, 0.6 / rate_hz)
    assert np.abs(found - truth - np.median(found - truth)).max() < 0.03


def test_places_are_finer_than_a_sample() -> None:
    truth = np.arange(0.5, 59, 0.803)
    found = pulses_of(np.rint(pleth(truth, 60, 60)), 60).index / 60
    assert np.abs(np.diff(found) - 0.803).max() < 0.003


@pytest.mark.parametrize("scale", [0.02, 1.0, 300.0])
def test_scale_and_offset_are_free(scale: float) -> None:
    rng = np.random.default_rng(4)
    truth = rhythm(30, 0.8, rng)
    x = noisy(scale * pleth(truth, 30, 125), 0.5, 125, rng, 300 * scale) + 2**23
    assert compare(truth, pulses_of(x, 125).index / 125) == Score(truth.size, 0, 0)


def test_light_falls_with_each_beat() -> None:
    rng = np.random.default_rng(5)
    truth = rhythm(30, 0.8, rng)
    x = 100_000 - noisy(pleth(truth, 30, 125), 5, 125, rng)
    pulses = pulses_of(x, 125, inverted=True)
    assert compare(truth, pulses.index / 125) == Score(truth.size, 0, 0)
    perfusion_percent = 100 * pulses.height / pulses.level
    assert np.median(perfusion_percent) == pytest.approx(0.95, abs=0.1)


def test_an_irregular_rhythm_with_weak_beats_is_neither_missed_nor_called_bad() -> None:
    rng = np.random.default_rng(6)
    truth = rhythm(120, 0.7, rng, spread=0.25)
    x = noisy(pleth(truth, 120, 125, rng.uniform(0.4, 1, truth.size)), 5, 125, rng)
    pulses = pulses_of(x, 125)
    result = compare(truth, pulses.index / 125)
    assert result.f1 > 99, result
    assert np.median(pulses.quality[5:]) > 0.7


@pytest.mark.parametrize("dicrotic", [0.0, 0.4, 0.6])
def test_the_dicrotic_wave_is_no_beat(dicrotic: float) -> None:
    rng = np.random.default_rng(7)
    truth = rhythm(60, 0.9, rng)
    x = noisy(pleth(truth, 60, 125, dicrotic=dicrotic), 3, 125, rng)
    assert compare(truth, pulses_of(x, 125).index / 125) == Score(truth.size, 0, 0)


@pytest.mark.parametrize(
    ("mean_s", "dicrotic", "notch_s", "cut_hz"),
    [
        (0.6, 0.1, 0.3, 2.0),
        (0.8, 0.1, 0.4, 1.5),
        (0.8, 0.3, 0.3, 1.5),
        (1.0, 0.1, 0.4, 1.0),
        (1.2, 0.5, 0.3, 2.0),
    ],
)
def test_the_rebound_of_a_sensor_that_passes_no_slow_change_is_no_beat(
    mean_s: float, dicrotic: float, notch_s: float, cut_hz: float
) -> None:
    rng = np.random.default_rng(1)
    truth = rhythm(40, mean_s, rng)
    x = noisy(pleth(truth, 40, 125, dicrotic=dicrotic, notch_s=notch_s), 5, 125, rng)
    passed = section(biquad.high_pass(cut_hz, 125), x)
    assert compare(truth, pulses_of(passed, 125).index / 125) == Score(truth.size, 0, 0)


def test_in_a_pause_at_most_one_wave_is_found_and_it_is_called_bad() -> None:
    rng = np.random.default_rng(8)
    truth = rhythm(60, 0.8, rng)
    truth = truth[(truth < 25) | (truth > 29)]
    pulses = pulses_of(noisy(pleth(truth, 60, 125, dicrotic=0.15), 3, 125, rng), 125)
    result = compare(truth, pulses.index / 125)
    assert (result.tp, result.fn) == (truth.size, 0)
    inside = (pulses.index > 25.4 * 125) & (pulses.index < 28.8 * 125)
    assert inside.sum() == result.fp <= 1
    assert (pulses.quality[inside] < 0.5).all()


def test_every_other_beat_weak_is_still_a_beat() -> None:
    truth = np.arange(0.5, 59, 0.6)
    heights = np.where(np.arange(truth.size) % 2, 0.45, 1.0)
    x = np.rint(pleth(truth, 60, 125, heights))
    assert compare(truth, pulses_of(x, 125).index / 125) == Score(truth.size, 0, 0)


def test_a_fall_to_a_tenth_is_followed() -> None:
    rng = np.random.default_rng(9)
    truth = rhythm(60, 0.8, rng)
    x = noisy(pleth(truth, 60, 125, np.where(truth < 20, 1.0, 0.1)), 0.5, 125, rng, 20)
    found = pulses_of(x, 125).index / 125
    assert compare(truth[truth > 35], found[found > 35]).fn == 0


@pytest.mark.parametrize("level", [0.0, 1e6])
def test_a_flat_line_has_no_beats(level: float) -> None:
    assert not len(pulses_of(np.full(125 * 60, level), 125))
    dither = np.random.default_rng(1).integers(0, 2, 125 * 60).astype(np.float64)
    assert not len(pulses_of(level + dither, 125))


def test_quality_tells_waves_from_noise() -> None:
    rng = np.random.default_rng(10)
    truth = rhythm(60, 0.8, rng)
    clean = pulses_of(noisy(pleth(truth, 60, 125), 10, 125, rng), 125)
    noise = pulses_of(rng.normal(0, 300, 125 * 60), 125)
    assert np.median(clean.quality) > 0.9
    assert clean.quality[1:].min() > 0.6
    assert np.median(noise.quality) < 0.3


def test_an_artefact_costs_quality_where_it_is_and_nowhere_else() -> None:
    rng = np.random.default_rng(11)
    truth = rhythm(60, 0.8, rng)
    x = noisy(pleth(truth, 60, 125), 5, 125, rng)
    x[30 * 125 : 33 * 125] += 4000 * np.sin(np.linspace(0, 21, 3 * 125))
    pulses = pulses_of(x, 125)
    near = (pulses.index > 30 * 125) & (pulses.index < 33 * 125)
    far = (pulses.index > 5 * 125) & (np.abs(pulses.index - 31.5 * 125) > 6 * 125)
    assert pulses.quality[near].min() < 0.3
    assert pulses.quality[far].min() > 0.6


def test_decisions_come_within_half_a_second() -> None:
    rng = np.random.default_rng(12)
    truth = rhythm(60, 0.7, rng)
    x = noisy(pleth(truth, 60, 250), 5, 250, rng)
    stream = PlethStream(250)
    for at in range(0, x.size, 5):
        pulses = stream.process(x[at : at + 5])
        assert (pulses.known <= at + 5).all()
        assert (pulses.known - pulses.index < (0.5 if at > 5 * 250 else 5) * 250).all()


def test_flush_gives_what_waits_and_starts_a_new_run() -> None:
    truth = np.array([0.5, 1.3, 2.1])
    x = np.rint(pleth(truth, 3, 125))
    stream = PlethStream(125)
    for _ in range(2):
        assert not len(stream.process(x))
        np.testing.assert_allclose(stream.flush().index / 125, truth, atol=0.01)
        assert stream.count == 0
    assert not len(stream.flush())


def test_reset_forgets() -> None:
    rng = np.random.default_rng(13)
    x = noisy(pleth(rhythm(20, 0.8, rng), 20, 125), 10, 125, rng)
    stream = PlethStream(125)
    first = stream.process(x).index.tobytes()
    stream.process(rng.normal(0, 1e6, 1000))
    stream.reset()
    assert stream.process(x).index.tobytes() == first


def test_waves_of_one_call_are_not_changed_by_the_next() -> None:
    x = pleth(np.arange(0.5, 20, 0.8), 20, 125)
    stream = PlethStream(125)
    pulses = stream.process(x)
    kept = pulses.index.copy()
    stream.process(x)
    assert np.array_equal(pulses.index, kept)


def test_memory_is_bounded() -> None:
    for rate_hz in RATES_HZ:
        stream = PlethStream(rate_hz)
        before = stream.state_bytes
        stream.process(np.random.default_rng(1).normal(0, 1000, 3 * stream.block))
        assert stream.state_bytes == before <= 8192


def test_the_output_buffer_holds_the_worst_case() -> None:
    """Upstrokes as dense as candidates can be, after a silence that filled the queue."""
    for rate_hz in RATES_HZ:
        spacing = int(0.26 * rate_hz)
        stream = PlethStream(rate_hz)
        x = np.zeros(stream.block * 2)
        for k in range(max(1, spacing // 2)):
            x[k::spacing] = 1000
        assert len(stream.process(x)) <= x.size // spacing + 1


@pytest.mark.parametrize("rate_hz", [0, 24.9, 1000.1, float("nan"), float("inf"), -125])
def test_refuses_rates_out_of_range(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="expected 25 to 1000"):
        PlethStream(rate_hz)


@pytest.mark.parametrize("floor", [0, -1, float("nan"), float("inf")])
def test_refuses_a_senseless_floor(floor: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        PlethStream(125, floor=floor)


def test_real_waves_that_are_always_there() -> None:
    """Data of heartpy: the first example: 25 s of a finger's PPG at 100 Hz. Compared with a count by eye's rule: tops above the mean."""
    package = importlib.util.find_spec("heartpy")  # its data alone: importing it takes seconds
    assert package is not None
    assert package.origin is not None
    x = np.loadtxt(Path(package.origin).parent / "data" / "data.csv", delimiter=",")
    found = pulses_of(x, 100).peak
    reach = 40
    tops = [
        n
        for n in range(reach, x.size - reach)
        if x[n] == x[n - reach : n + reach].max() and x[n] > x.mean() + 100
    ]
    merged = [n for k, n in enumerate(tops) if not k or n - tops[k - 1] > reach]
    result = compare(np.array(merged) / 100, found / 100)
    assert result.f1 > 97, result

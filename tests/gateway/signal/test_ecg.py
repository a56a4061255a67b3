"""What a caller of the stream may rely on, shown on signals whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.signal import qrs
from gateway.signal.ecg import BLOCK, Beats, EcgLeads, EcgStream
from tests.gateway.signal.synthetic import ecg, noisy, rhythm
from tools.ec57 import Score, score

Floats = NDArray[np.float64]

RATES_HZ = (60.0, 125.0, 200.0, 250.0, 360.0, 500.0, 1000.0)


def beats_s(x: Floats, rate_hz: float, floor: float = 1.0) -> Floats:
    stream = EcgStream(rate_hz, floor)
    return np.concatenate([stream.process(x).index, stream.flush().index]) / rate_hz


def compare(truth: Floats, found: Floats) -> Score:
    return score(truth, found, start_s=0)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("mean_rr_s", [0.35, 0.8, 1.6])
def test_finds_every_beat_from_the_first_on(rate_hz: float, mean_rr_s: float) -> None:
    rng = np.random.default_rng(3)
    truth = rhythm(40, mean_rr_s, rng)
    found = beats_s(noisy(ecg(truth, 40, rate_hz), 20, rate_hz, rng), rate_hz)
    assert compare(truth, found) == Score(truth.size, 0, 0)
    assert abs(np.median(found - truth)) < 0.005
    assert np.abs(found - truth).max() < max(0.025, 2.5 / rate_hz)


@pytest.mark.parametrize("scale", [-1.0, 0.01, 100.0])
def test_scale_offset_and_polarity_are_free(scale: float) -> None:
    rng = np.random.default_rng(4)
    truth = rhythm(30, 0.8, rng)
    x = np.rint(noisy(ecg(truth, 30, 250), 10, 250, rng) * scale) + 2**23
    assert compare(truth, beats_s(x, 250)) == Score(truth.size, 0, 0)


def test_beats_of_an_irregular_rhythm_with_ectopics() -> None:
    rng = np.random.default_rng(5)
    truth = rhythm(120, 0.7, rng, spread=0.25)
    wide = frozenset(range(7, truth.size, 9))
    x = noisy(ecg(truth, 120, 125, wide), 20, 125, rng)
    result = compare(truth, beats_s(x, 125))
    assert result.f1 > 98, result


def test_a_pause_is_kept_a_pause() -> None:
    rng = np.random.default_rng(6)
    truth = rhythm(60, 0.8, rng)
    truth = truth[(truth < 25) | (truth > 28.5)]
    found = beats_s(noisy(ecg(truth, 60, 125), 10, 125, rng), 125)
    assert compare(truth, found) == Score(truth.size, 0, 0)


def test_a_weak_beat_is_found_by_search_back_and_says_so() -> None:
    rng = np.random.default_rng(7)
    truth = np.arange(0.5, 29.5, 0.8)
    weak = 20
    x = ecg(truth, 30, 250)
    x -= 0.8 * ecg(truth[weak : weak + 1], 30, 250)
    stream = EcgStream(250)
    beats = stream.process(noisy(x, 2, 250, rng))
    assert compare(truth[:-1], beats.index / 250).fn == 0
    assert np.flatnonzero(beats.late).tolist() == [weak]


def test_a_jump_of_the_electrode_costs_seconds_not_the_recording() -> None:
    rng = np.random.default_rng(8)
    truth = rhythm(60, 0.8, rng)
    x = noisy(ecg(truth, 60, 125), 10, 125, rng)
    x[30 * 125 :] += 300_000
    result = compare(truth, beats_s(x, 125))
    assert result.fp <= 2
    assert result.fn <= 6


def test_gain_that_falls_to_a_tenth_is_followed() -> None:
    rng = np.random.default_rng(9)
    truth = rhythm(60, 0.8, rng)
    x = ecg(truth, 60, 125)
    x[20 * 125 :] /= 10
    found = beats_s(np.rint(x + rng.normal(0, 2, x.size)), 125)
    assert compare(truth[truth > 30], found[found > 30]) == Score(int((truth > 30).sum()), 0, 0)


@pytest.mark.parametrize("rate_hz", [125.0, 360.0])
@pytest.mark.parametrize("times", [10, 50])
def test_gain_that_rises_is_followed(rate_hz: float, times: int) -> None:
    """Though at first the T waves are larger than the beats were."""
    rng = np.random.default_rng(9)
    truth = rhythm(80, 0.8, rng)
    x = ecg(truth, 80, rate_hz)
    x[: round(20 * rate_hz)] /= times
    found = beats_s(np.rint(x + rng.normal(0, 2, x.size)), rate_hz)
    assert compare(truth[truth > 50], found[found > 50]) == Score(int((truth > 50).sum()), 0, 0)


@pytest.mark.parametrize("level", [0.0, 1e6])
def test_a_flat_line_has_no_beats(level: float) -> None:
    assert not beats_s(np.full(125 * 60, level), 125).size
    dither = np.random.default_rng(1).integers(0, 2, 125 * 60).astype(np.float64)
    assert not beats_s(level + dither, 125).size


def test_a_flat_line_after_beats_has_no_beats() -> None:
    truth = rhythm(20, 0.8, np.random.default_rng(2))
    x = np.concatenate([ecg(truth, 20, 125), np.zeros(125 * 60)])
    assert compare(truth, beats_s(np.rint(x), 125)) == Score(truth.size, 0, 0)


def test_noise_alone_is_not_a_rhythm_and_shows_in_the_ratio() -> None:
    rng = np.random.default_rng(10)
    truth = rhythm(60, 0.8, rng)
    quiet, loud = EcgStream(125), EcgStream(125)
    clean = quiet.process(noisy(ecg(truth, 60, 125), 5, 125, rng))
    noise = loud.process(rng.normal(0, 300, 125 * 60))
    assert np.median(clean.noise_ratio) < 0.15
    assert np.median(noise.noise_ratio) > 0.35
    assert len(noise) < 60 * 2


@pytest.mark.parametrize("rate_hz", [125.0, 250.0, 360.0, 1000.0])
def test_decisions_come_within_400_ms_and_say_so(rate_hz: float) -> None:
    rng = np.random.default_rng(11)
    truth = rhythm(60, 0.7, rng)
    wide = frozenset(range(5, truth.size, 6))
    x = noisy(ecg(truth, 60, rate_hz, wide), 20, rate_hz, rng)
    stream = EcgStream(rate_hz)
    found = 0
    for at in range(x.size):
        beats = stream.process(x[at : at + 1])
        found += len(beats)
        waited_s = (stream.count - beats.index) / rate_hz
        np.testing.assert_allclose(beats.delay_s, waited_s, rtol=1e-9)
        assert (waited_s[~beats.late] < (0.4 if at > 4 * rate_hz else 3.4)).all()
    assert found >= truth.size - 1


@pytest.mark.parametrize(("times", "rr_s"), [(2, 0.52), (3, 0.45), (3, 0.52), (3, 0.7)])
def test_small_beats_between_large_ones_are_found_from_the_start(times: int, rr_s: float) -> None:
    """While the levels are learnt: ventricular ectopics so many times as large as the beats between them."""
    rng = np.random.default_rng(13)
    truth = np.arange(0.4, 59.0, rr_s)
    x = ecg(truth, 60, 360) + (times - 1) * ecg(truth[::3], 60, 360)
    result = compare(truth, beats_s(noisy(x, 10, 360, rng), 360))
    assert result == Score(truth.size, 0, 0)


def test_large_beats_do_not_hide_the_small_ones_between_them() -> None:
    rng = np.random.default_rng(19)
    truth = np.arange(0.5, 59, 0.7)
    large = truth[20::2]
    x = ecg(truth, 60, 250) + 5 * ecg(large, 60, 250)
    stream = EcgStream(250)
    beats = stream.process(noisy(x, 10, 250, rng))
    result = compare(truth, np.concatenate([beats.index, stream.flush().index]) / 250)
    assert result == Score(truth.size, 0, 0)
    assert not beats.late.any()


def test_a_small_early_beat_is_no_t_wave() -> None:
    rng = np.random.default_rng(14)
    truth = np.arange(0.5, 59.5, 1.1)
    early = truth[10::7] + 0.42
    x = ecg(truth, 60, 250) + 0.3 * ecg(early, 60, 250)
    every = np.sort(np.concatenate([truth, early]))
    stream = EcgStream(250)
    beats = stream.process(noisy(x, 2, 250, rng))
    assert compare(every[:-1], beats.index / 250).fn == 0
    assert not beats.late.any()


@pytest.mark.parametrize(
    ("rate_hz", "width_s", "least_f1"), [(125.0, 0.025, 90), (360.0, 0.03, 94)]
)
def test_electrode_motion_as_strong_as_the_beats(
    rate_hz: float, width_s: float, least_f1: float
) -> None:
    """Bumps of all sizes: most of the low band, less of the high one, which counts more then."""
    rng = np.random.default_rng(15)
    truth = rhythm(120, 0.8, rng)
    x = ecg(truth, 120, rate_hz)
    t = np.arange(x.size) / rate_hz
    for at, size in zip(rng.uniform(30, 119, 300), rng.normal(0, 1000, 300), strict=True):
        x += size * np.exp(-0.5 * ((t - at) / width_s) ** 2)
    found = beats_s(noisy(x, 5, rate_hz, rng), rate_hz)
    result = compare(truth[truth > 30], found[found > 30])
    assert result.f1 > least_f1, result


def test_a_disturbance_does_not_outlast_itself() -> None:
    rng = np.random.default_rng(16)
    truth = rhythm(90, 0.8, rng)
    x = noisy(ecg(truth, 90, 250), 10, 250, rng)
    x[30 * 250 : 50 * 250] += rng.normal(0, 600, 20 * 250)
    found = beats_s(x, 250)
    after = (compare(truth[truth > 53], found[found > 53]), compare(truth[:30], found[:30]))
    assert after == (Score(int((truth > 53).sum()), 0, 0), Score(30, 0, 0))


def test_a_rhythm_that_becomes_fast_is_followed() -> None:
    """Beats that come early are beats when they have their shape: noise must not be learnt from them."""
    rng = np.random.default_rng(17)
    truth = np.concatenate([np.arange(0.5, 30, 0.9), np.arange(30, 59, 0.37)])
    x = noisy(ecg(truth, 60, 250), 10, 250, rng)
    assert compare(truth[:-1], beats_s(x, 250)).fn <= 2


@pytest.mark.parametrize("rate_hz", [60.0, 125.0, 360.0, 1000.0])
def test_leads_together_give_the_bits_of_each_alone(rate_hz: float) -> None:
    rng = np.random.default_rng(18)
    truth = rhythm(70, 0.7, rng)
    leads = [noisy(scale * ecg(truth, 70, rate_hz), 20, rate_hz, rng) for scale in (1, -0.3, 5)]
    leads[1][: round(20 * rate_hz)] = np.nan
    together = EcgLeads(rate_hz, 3)
    samples = np.stack(leads, 1)
    parts = [together.process(part) for part in np.split(samples, [1, 7, 500, 501, 30_000])]
    parts.append(together.flush())
    for lead, alone in enumerate(leads):
        stream = EcgStream(rate_hz)
        rows = [part.rows for part in (stream.process(alone), stream.flush())]
        assert (
            np.concatenate([part[lead].rows for part in parts]).tobytes()
            == np.concatenate(rows).tobytes()
        )
        assert sum(map(len, rows)) > 30
    assert together.count == 0
    assert together.state_bytes <= 8192


def test_a_sum_that_rounding_left_below_zero_does_no_harm() -> None:
    rng = np.random.default_rng(20)
    truth = rhythm(40, 0.8, rng)
    x = noisy(ecg(truth, 40, 250), 10, 250, rng)
    stream, parts = EcgStream(250), []
    for part in np.split(x, range(25, x.size, 25)):
        parts.append(stream.process(part).rows)
        state = stream._states[0]
        if state[qrs.COUNT] > 20 * 250 and state[qrs.TOP_AT] >= 0:
            state[qrs.TOP_HIGH] = -1e-9
    rows = np.concatenate([*parts, stream.flush().rows])
    assert np.isfinite(rows).all()
    assert compare(truth, rows[:, qrs.AT] / 250).fn <= 1


def test_samples_that_are_no_numbers_do_no_lasting_harm() -> None:
    rng = np.random.default_rng(12)
    truth = rhythm(40, 0.8, rng)
    x = noisy(ecg(truth, 40, 125), 10, 125, rng)
    x[[0, 700, 1500]] = np.nan, np.inf, -1e300
    assert compare(truth, beats_s(x, 125)).fn == 0


def test_flush_gives_what_waits_and_starts_a_new_run() -> None:
    truth = np.array([0.5, 1.3, 2.1])
    x = np.rint(ecg(truth, 2.5, 125))
    stream = EcgStream(125)
    for _ in range(2):
        assert not len(stream.process(x))
        np.testing.assert_allclose(stream.flush().index / 125, truth, atol=0.01)
        assert stream.count == 0
    assert not len(stream.flush())


def test_reset_forgets() -> None:
    rng = np.random.default_rng(13)
    x = noisy(ecg(rhythm(20, 0.8, rng), 20, 125), 10, 125, rng)
    stream = EcgStream(125)
    first = stream.process(x).index.tobytes()
    stream.process(rng.normal(0, 1e6, 1000))
    stream.reset()
    assert stream.process(x).index.tobytes() == first


def test_beats_of_one_call_are_not_changed_by_the_next() -> None:
    x = ecg(np.arange(0.5, 20, 0.8), 20, 125)
    stream = EcgStream(125)
    beats = stream.process(x)
    kept = beats.index.copy()
    stream.process(x)
    assert np.array_equal(beats.index, kept)


def test_memory_is_bounded() -> None:
    for rate_hz in RATES_HZ:
        stream = EcgStream(rate_hz)
        before = stream.state_bytes
        stream.process(np.random.default_rng(1).normal(0, 1000, 3 * BLOCK))
        assert stream.state_bytes == before <= 8192


def test_the_output_buffer_holds_the_worst_case() -> None:
    """Impulses as dense as candidates can be, after a silence that filled the queue."""
    for rate_hz in RATES_HZ:
        spacing = int(0.26 * rate_hz)
        x = np.zeros(BLOCK * 2)
        x[::spacing] = 1000
        stream = EcgStream(rate_hz)
        beats: Beats = stream.process(x)
        assert len(beats) <= x.size // spacing + 1


@pytest.mark.parametrize("rate_hz", [0, 59.9, 1000.1, float("nan"), float("inf"), -125])
def test_refuses_rates_out_of_range(rate_hz: float) -> None:
    with pytest.raises(ValueError, match="expected 60 to 1000"):
        EcgStream(rate_hz)


@pytest.mark.parametrize("floor", [0, -1, float("nan"), float("inf")])
def test_refuses_a_senseless_floor(floor: float) -> None:
    with pytest.raises(ValueError, match="expected a positive number"):
        EcgStream(125, floor)


@pytest.mark.parametrize("shape", [(10, 1), (1, 10), (2, 5, 2)])
def test_refuses_samples_of_another_shape(shape: tuple[int, ...]) -> None:
    for stream, expected in (
        (EcgStream(125), r"\(samples,\)"),
        (EcgLeads(125, 2), r"\(samples, 2\)"),
    ):
        with pytest.raises(ValueError, match=f"expected {expected}"):
            stream.process(np.zeros(shape))

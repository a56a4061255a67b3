"""What a caller of the streams may rely on: cleaned signals, the index and the status, on signals whose truth is known."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.signal import clean, quality
from gateway.signal.leads import BLOCK, CleanStream, LeadStatus, QualityStream, Seconds
from tests.gateway.signal.synthetic import ecg, rhythm

Floats = NDArray[np.float64]

RATES_HZ = (60.0, 125.0, 200.0, 250.0, 360.0, 500.0, 1000.0)
SECONDS = 30


def times(rate_hz: float, seconds: float = SECONDS) -> Floats:
    return np.arange(round(seconds * rate_hz)) / rate_hz


def hissing(x: Floats, seed: int, rms_uv: float = 5) -> Floats:
    """With noise in each sample, as counts of 1 uV."""
    return np.rint(x + np.random.default_rng(seed).normal(0, rms_uv, x.shape))


def hum(rate_hz: float, at_hz: float, rms: float, seconds: float = SECONDS) -> Floats:
    return rms * math.sqrt(2) * np.sin(2 * np.pi * at_hz * times(rate_hz, seconds) + 1)


def person(rate_hz: float, seed: int = 1, mean_rr_s: float = 0.8) -> Floats:
    rng = np.random.default_rng(seed)
    return ecg(rhythm(SECONDS, mean_rr_s, rng), SECONDS, rate_hz)


def seconds(x: Floats, rate_hz: float, limits: tuple[float, float] | None = None) -> Seconds:
    leads = 1 if x.ndim == 1 else x.shape[1]
    return QualityStream(rate_hz, leads, limits).process(x)


def gain(rate_hz: float, at_hz: float, *, after_s: float = 20) -> float:
    """Of a sine, by its root mean square."""
    stream = CleanStream(rate_hz)
    y = stream.process(1000 * np.sin(2 * np.pi * at_hz * times(rate_hz, 40)))
    y = y[round(after_s * rate_hz) :]
    return float(np.sqrt(2 * np.mean(y**2))) / 1000


# --- cleaning


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_baseline_goes_and_the_ecg_stays(rate_hz: float) -> None:
    assert gain(rate_hz, 0.1) < 0.05
    assert gain(rate_hz, clean.BASELINE_HZ) == pytest.approx(math.sqrt(0.5), abs=0.02)
    assert gain(rate_hz, 2.0) == pytest.approx(1, abs=0.02)
    assert gain(rate_hz, 10.0) == pytest.approx(1, abs=0.05)
    cut = min(clean.TOP_HZ, clean.TOP_SHARE * rate_hz)
    assert gain(rate_hz, cut) == pytest.approx(math.sqrt(0.5), abs=0.05)


@pytest.mark.parametrize("rate_hz", [r for r in RATES_HZ if r >= clean.NOTCH_LEAST_HZ])
@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_the_notch_finds_its_frequency(rate_hz: float, mains_hz: float) -> None:
    stream = CleanStream(rate_hz)
    signal = person(rate_hz)
    pure = CleanStream(rate_hz).process(signal)
    y = stream.process(signal + hum(rate_hz, mains_hz + 0.1, 200))
    assert stream.mains_hz == (mains_hz,)
    late = times(rate_hz) > 11
    assert np.sqrt(np.mean((y - pure)[late] ** 2)) < 200 * 0.12
    assert np.abs(y[late]).max() == pytest.approx(np.abs(pure[late]).max(), rel=0.15)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_without_hum_there_is_no_notch(rate_hz: float) -> None:
    rng = np.random.default_rng(2)
    stream = CleanStream(rate_hz)
    stream.process(person(rate_hz) + rng.normal(0, 30, round(SECONDS * rate_hz)))
    assert stream.mains_hz == (None,)
    stream = CleanStream(rate_hz)
    stream.process(np.rint(person(rate_hz)))
    assert stream.mains_hz == (None,)


@pytest.mark.parametrize("rate_hz", [60.0, 100.0, 120.0])
def test_rates_that_cannot_show_mains_get_no_notch(rate_hz: float) -> None:
    stream = CleanStream(rate_hz)
    stream.process(hum(rate_hz, 50, 500))
    assert stream.mains_hz == (None,)


def test_the_notch_follows_with_hysteresis() -> None:
    """On after three listening seconds, off when hum is gone; a line between the two bounds keeps it, and starts none."""
    rate_hz = 250.0
    around = hum(rate_hz, 45, 10, 1) + hum(rate_hz, 55, 10, 1)
    powers = (8.0, 100.0, 8.0, 0.0)
    assert clean.FADES < powers[0] < clean.STANDS_OUT < powers[1]
    stream = CleanStream(rate_hz)
    seen: list[float | None] = []
    for power in powers:
        for _ in range(20):
            stream.process(around + hum(rate_hz, 60, 10 * math.sqrt(power), 1))
            seen.append(stream.mains_hz[0])
    # Heard in the seconds 20, 24 and 28; after 60 in 60, 64, 68 and 72.
    assert seen == [None] * 28 + [60.0] * 44 + [None] * 8


def test_a_jump_of_an_electrode_switches_no_notch() -> None:
    rate_hz = 250.0
    x = person(rate_hz) + hum(rate_hz, 50, 100)
    x[17 * 250 :] += 1e6
    stream = CleanStream(rate_hz)
    seen = set()
    for at in range(10 * 250, x.size, 250):
        stream.process(x[: at if at == 10 * 250 else 0])
        stream.process(x[at : at + 250])
        seen.add(stream.mains_hz)
    assert seen == {(50.0,)}


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_the_delay_is_as_stated(rate_hz: float) -> None:
    stream = CleanStream(rate_hz)
    t = times(rate_hz)
    bell = np.exp(-0.5 * ((t - 15) / 0.02) ** 2)
    y = stream.process(1000 * bell)
    y[np.abs(t - 15) > 0.1] = 0
    centre = (t * y**2).sum() / (y**2).sum()
    assert centre - 15 == pytest.approx(stream.delay_s, abs=max(0.003, 0.25 / rate_hz))


def test_what_it_does_to_an_st_segment() -> None:
    """A QRS as the standards' impulse, 3 mV for 100 ms: what is left of it afterwards, so that nobody measures ST on it."""
    rate_hz = 500.0
    x = np.zeros(round(SECONDS * rate_hz))
    x[5000:5050] = 3000
    y = CleanStream(rate_hz).process(x)
    undershoot = -y[5070:].min()
    assert 1000 < undershoot < 1500, "more than the 100 uV of a diagnostic ECG"


def test_leads_do_not_mix_and_one_call_takes_them_all() -> None:
    rate_hz = 250.0
    leads = np.stack([person(rate_hz, seed) + hum(rate_hz, 50, 80 * seed) for seed in range(3)], 1)
    together, stream = CleanStream(rate_hz, 3).process(leads), QualityStream(rate_hz, 3)
    judged = stream.process(leads)
    for lead in range(3):
        alone = CleanStream(rate_hz).process(leads[:, lead])
        assert alone.tobytes() == np.ascontiguousarray(together[:, lead]).tobytes()
        single = seconds(leads[:, lead], rate_hz)
        assert single.index.tobytes() == np.ascontiguousarray(judged.index[:, lead]).tobytes()
        assert np.array_equal(single.status[:, 0], judged.status[:, lead])


# --- index


@pytest.mark.parametrize("rate_hz", RATES_HZ)
@pytest.mark.parametrize("mean_rr_s", [0.35, 0.8, 1.6])
def test_a_clean_ecg_is_good_at_every_rate(rate_hz: float, mean_rr_s: float) -> None:
    x = hissing(person(rate_hz, 4, mean_rr_s), 4)
    got = seconds(x, rate_hz)
    assert np.isnan(got.index[:2]).all()
    assert got.index[2:].min() > 0.7
    assert (got.status[2:] == LeadStatus.GOOD).all()
    assert got.at.tolist() == [round(rate_hz * (k + 1)) for k in range(SECONDS)]


def test_ectopic_beats_and_an_irregular_rhythm_are_no_noise() -> None:
    rng = np.random.default_rng(5)
    beats = rhythm(SECONDS, 0.7, rng, spread=0.25)
    for wide in (frozenset(range(0, 60, 2)), frozenset(range(60))):
        x = hissing(ecg(beats, SECONDS, 250, wide), 5)
        assert seconds(x, 250).index[2:].min() > 0.6


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_it_falls_as_noise_rises(rate_hz: float) -> None:
    """White noise from 0.02 to 0.4 of the R wave's height within 10 to 25 Hz."""
    rng = np.random.default_rng(6)
    white = rng.normal(0, 1, round(SECONDS * rate_hz)) * math.sqrt(rate_hz / 30)
    means = [
        float(np.nanmean(seconds(person(rate_hz) + level * white, rate_hz).index[5:]))
        for level in (0, 20, 40, 80, 160, 400)
    ]
    assert means == sorted(means, reverse=True)
    assert means[0] > 0.8
    assert means[-1] < 0.15


@pytest.mark.parametrize("scale", [-1.0, 0.05, 300.0])
def test_scale_polarity_and_offset_are_free(scale: float) -> None:
    rng = np.random.default_rng(7)
    x = person(250) + rng.normal(0, 60, SECONDS * 250)
    one = seconds(x, 250)
    other = QualityStream(250, floor=abs(scale)).process(x * scale + 1e6)
    np.testing.assert_allclose(other.index, one.index, rtol=1e-6)
    assert np.array_equal(one.status, other.status)


def test_hum_that_the_notch_takes_out_is_no_noise() -> None:
    x = person(250) + hum(250, 50, 100)
    got = seconds(x, 250)
    assert got.index[25:].min() > 0.8


def test_trouble_shows_in_recent_before_it_shows_in_the_index() -> None:
    rng = np.random.default_rng(8)
    x = person(250)
    x[15 * 250 : 20 * 250] += rng.normal(0, 500, 5 * 250)
    got = seconds(x, 250)
    assert got.recent[14, 0] > 0.8
    assert got.recent[15, 0] < got.index[15, 0]
    assert got.recent[16, 0] < 0.3
    assert got.recent[24, 0] > 0.5 > got.index[24, 0]


def test_noise_without_beats_is_bad() -> None:
    x = np.random.default_rng(9).normal(0, 300, SECONDS * 250)
    assert seconds(x, 250).index[2:].max() < 0.1


# --- status


def kinds(got: Seconds) -> list[str]:
    """The statuses in order, each run once."""
    names = [LeadStatus(value).name for value in got.status[:, 0]]
    return [name for k, name in enumerate(names) if k == 0 or names[k - 1] != name]


@pytest.mark.parametrize("rail", [-8_388_608.0, 8_388_607.0])
def test_an_electrode_that_comes_off_is_off_where_the_limits_are_known(rail: float) -> None:
    x = hissing(person(125), 10)
    x[10 * 125 : 15 * 125] = rail
    got = seconds(x, 125, (-8_388_608, 8_388_607))
    assert got.status[10:15, 0].tolist() == [LeadStatus.OFF] * 5
    assert got.status[18:, 0].tolist() == [LeadStatus.GOOD] * 12
    assert got.recent[10:15].max() < 0.1
    assert got.index[12:15].max() < 0.2


def test_without_limits_it_is_flat_and_nothing_is_guessed() -> None:
    x = hissing(person(125), 10)
    x[10 * 125 : 15 * 125] = 0
    got = seconds(x, 125)
    assert got.status[10:15, 0].tolist() == [LeadStatus.FLAT] * 5
    assert got.recent[10:15].max() < 0.1


@pytest.mark.parametrize("known", [True, False])
def test_clipping_is_saturation(known: bool) -> None:  # noqa: FBT001 - a test's parameter
    x = person(250)
    x += 1500 * np.sin(2 * np.pi * 0.25 * times(250))
    x = np.clip(np.rint(x), -1000, 1000)
    got = seconds(x, 250, (-1000, 1000) if known else None)
    clipped = [(x[k * 250 : k * 250 + 250] == 1000).sum() > 50 for k in range(SECONDS)]
    assert sum(clipped) > 5
    assert all(got.status[k, 0] == LeadStatus.SATURATED for k in range(4, SECONDS) if clipped[k])
    assert got.index[10:].max() < 0.5


@pytest.mark.parametrize("mains_hz", [50.0, 60.0])
def test_mains_that_drown_the_ecg_are_named(mains_hz: float) -> None:
    x = person(250) + hum(250, mains_hz, 600)
    assert kinds(seconds(x, 250))[-1] == "MAINS"
    x = person(250) + hum(250, mains_hz, 60)
    assert kinds(seconds(x, 250))[-1] == "GOOD"


def test_a_swing_of_the_baseline_is_motion() -> None:
    x = person(250)
    x[12 * 250 :] += 20_000 * (1 - np.exp(-times(250)[: 18 * 250] * 2))
    got = seconds(x, 250)
    assert LeadStatus.MOTION in set(got.status[12:15, 0].tolist())
    assert (got.status[20:, 0] == LeadStatus.GOOD).all()
    assert (got.status[2:12, 0] == LeadStatus.GOOD).all()


@pytest.mark.parametrize("value", [math.nan, math.inf, -1e300])
def test_what_is_no_number_is_unknown(value: float) -> None:
    x = hissing(person(125), 11)
    x[10 * 125 : 10 * 125 + 60] = value
    x[20 * 125] = value
    got = seconds(x, 125)
    assert got.status[10, 0] == LeadStatus.UNKNOWN
    assert (got.status[11:, 0] == LeadStatus.GOOD).all()
    assert np.isfinite(got.index[2:]).all()
    assert got.recent[10, 0] < 0.5
    assert got.index[-1, 0] > 0.9


def test_a_lead_that_falls_silent_cannot_be_told_from_a_pause_and_is_good_no_more() -> None:
    rng = np.random.default_rng(12)
    beats = rhythm(SECONDS, 0.8, rng)
    pausing = beats[(beats < 9.5) | (beats > 14.5)]
    dropped = ecg(beats, SECONDS, 250)
    dropped[10 * 250 : 14 * 250] *= 0.02
    for x in (dropped, ecg(pausing, SECONDS, 250)):
        got = seconds(hissing(x, 12), 250)
        status = got.status[2:, 0].tolist()
        assert status[9:12] == [LeadStatus.SILENT] * 3
        assert {*status[:9], *status[12:]} == {LeadStatus.GOOD}
        assert got.recent[11:14].max() == quality.UNSURE
        assert got.index[2:].min() > 0.7
        assert got.recent[14:].min() > 0.7


def test_a_gain_that_falls_for_good_is_silent_until_it_is_learnt() -> None:
    x = person(250)
    x[10 * 250 :] *= 0.05
    status = seconds(hissing(x, 13, 1), 250).status[:, 0].tolist()
    assert LeadStatus.SILENT in status[11:14]
    assert set(status[20:]) == {LeadStatus.GOOD}


# --- the rest


def test_memory_is_bounded() -> None:
    for rate_hz in RATES_HZ:
        stream = QualityStream(rate_hz, 12)
        before = stream.state_bytes
        stream.process(np.random.default_rng(1).normal(0, 1000, (3 * BLOCK, 12)))
        assert stream.state_bytes == before <= 12 * 8192


def test_reset_forgets() -> None:
    x = person(125) + hum(125, 50, 100)
    for stream in (CleanStream(125), QualityStream(125)):
        first = stream.process(x)
        stream.process(np.random.default_rng(13).normal(0, 1e6, 1000))
        stream.reset()
        second = stream.process(x)
        if isinstance(first, Seconds) and isinstance(second, Seconds):
            assert first.index.tobytes() == second.index.tobytes()
        else:
            assert np.array_equal(np.asarray(first), np.asarray(second))


def test_results_of_one_call_are_not_changed_by_the_next() -> None:
    stream = QualityStream(125)
    first = stream.process(person(125))
    kept = first.index.copy()
    stream.process(np.random.default_rng(14).normal(0, 1000, 125 * 30))
    assert np.array_equal(first.index, kept, equal_nan=True)


@pytest.mark.parametrize("rate_hz", [0, 59.9, 1000.1, math.nan, math.inf, -125])
def test_refuses_rates_out_of_range(rate_hz: float) -> None:
    for kind in (CleanStream, QualityStream):
        with pytest.raises(ValueError, match="expected 60 to 1000"):
            kind(rate_hz)


def test_refuses_what_makes_no_sense() -> None:
    with pytest.raises(ValueError, match="expected 1 to 16"):
        CleanStream(125, 0)
    with pytest.raises(ValueError, match="expected the lower one first"):
        QualityStream(125, limits=(5, 5))
    with pytest.raises(ValueError, match="expected a positive number"):
        QualityStream(125, floor=0)
    with pytest.raises(ValueError, match=r"expected \(samples, 2\)"):
        CleanStream(125, 2).process(np.zeros(10))


@pytest.mark.parametrize("rate_hz", [60.0, 99.7, 360.0])
def test_it_says_when_the_open_second_ends(rate_hz: float) -> None:
    stream = QualityStream(rate_hz)
    seen = 0
    for _ in range(10):
        ends = stream.second_ends
        assert not len(stream.process(np.zeros(ends - seen - 1)))
        assert stream.process(np.zeros(1)).at.tolist() == [ends]
        seen = ends


def test_nothing_gives_nothing() -> None:
    assert CleanStream(125).process([]).size == 0
    assert len(QualityStream(125).process(np.empty(0))) == 0

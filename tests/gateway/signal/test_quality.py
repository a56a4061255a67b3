"""The kernels of cleaning and quality beside their twins, and any cutting beside the whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.signal.leads import CleanStream, LeadStatus, QualityStream, Seconds
from tests.gateway.signal.synthetic import ecg, noisy, rhythm
from tests.naive import leads as naive

Floats = NDArray[np.float64]

RATES_HZ = (60.0, 99.7, 125.0, 250.0, 360.0, 500.0, 1000.0)


def trouble(seed: int, rate_hz: float, seconds: float = 24) -> Floats:
    """A lead with everything in it: hum that comes and goes, a jump, a rail, a flat line, motion, noise, no numbers."""
    rng = np.random.default_rng(seed)
    x = ecg(rhythm(seconds, rng.uniform(0.4, 1.2), rng, 0.2), seconds, rate_hz)
    x = noisy(x * rng.choice([0.02, 1.0, -30.0]), rng.choice([1.0, 30.0]), rate_hz, rng)
    t = np.arange(x.size) / rate_hz
    hum = rng.choice([0, 100, 2000]) * np.sin(2 * np.pi * rng.choice([50, 60.1]) * t)
    x += hum * (t < rng.uniform(0, 2 * seconds))
    at = rng.integers(0, x.size, 4)
    length = (rng.uniform(0, 4, 4) * rate_hz).astype(int)
    x[at[0] :] += rng.choice([0, 1e4, -3e5])
    x[at[1] : at[1] + length[1]] = rng.choice([400_000.0, x[at[1]]])
    x[at[2] : at[2] + length[2]] += rng.normal(0, 500, x[at[2] : at[2] + length[2]].size)
    x[at[3] : at[3] + length[3] // 3] = rng.choice([np.nan, np.inf, -1e300])
    quiet = x.size // 2 + np.arange(round(3.2 * rate_hz) * (seed % 2))
    x[quiet] = x[x.size // 2] + rng.integers(-3, 4, quiet.size)
    if seed % 3 == 0:
        x[0] = np.nan
    return np.clip(x, -400_000, 400_000)


LIMITS = (None, (-400_000.0, 400_000.0), (-1e9, 3000.0))


def bits(got: Seconds) -> bytes:
    return b"".join(part.tobytes() for part in (got.at, got.index, got.recent, got.status))


def judge(x: Floats, rate_hz: float, cuts: list[int], limits: object = None) -> bytes:
    assert limits is None or isinstance(limits, tuple)
    stream = QualityStream(rate_hz, x.shape[1], limits)
    parts = [stream.process(part) for part in np.split(x, cuts)]
    whole = Seconds(
        *(
            np.concatenate([getattr(p, name) for p in parts])
            for name in ("at", "index", "recent", "status")
        )
    )
    return bits(whole)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_cleaning_equals_its_twin(rate_hz: float) -> None:
    notched = 0
    for seed in range(3):
        x = trouble(seed, rate_hz, 18)
        mains_hz = 50.0 if seed % 2 else 60.0
        x += 3000 * np.sin(2 * np.pi * mains_hz / rate_hz * np.arange(x.size))
        got = CleanStream(rate_hz).process(x)
        scale = np.nanmax(np.abs(x[np.isfinite(x)]))
        np.testing.assert_allclose(
            got, naive.cleaned(x, rate_hz), rtol=0, atol=1e-9 * scale, err_msg=f"seed {seed}"
        )
        base = naive.zeroed(x, 2.0**40)
        runs = naive.notches(base, rate_hz)
        notched += sum(run is not None for run in runs)
    assert (notched > 0) == (rate_hz >= 125)


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_quality_equals_its_twin(rate_hz: float) -> None:
    seen = set()
    for seed in range(6):
        x = trouble(seed, rate_hz, 8 if rate_hz > 400 else 16)
        limits = LIMITS[seed % 3]
        got = QualityStream(rate_hz, 1, limits).process(x)
        expected = np.array(naive.judge(x, rate_hz, limits))
        assert len(got) == len(expected)
        np.testing.assert_allclose(got.index[:, 0], expected[:, 0], rtol=1e-6, atol=1e-9)
        np.testing.assert_allclose(got.recent[:, 0], expected[:, 1], rtol=1e-6, atol=1e-9)
        assert got.status[:, 0].tolist() == expected[:, 2].astype(int).tolist(), f"seed {seed}"
        seen |= set(got.status[:, 0].tolist())
    assert {LeadStatus.GOOD, LeadStatus.SATURATED, LeadStatus.SILENT} <= seen


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate_hz=st.sampled_from(RATES_HZ),
    limits=st.sampled_from(LIMITS),
    shares=st.lists(st.floats(0, 1), max_size=30),
)
def test_any_cutting_gives_the_same_bits(
    seed: int, rate_hz: float, limits: tuple[float, float] | None, shares: list[float]
) -> None:
    x = np.stack([trouble(seed, rate_hz, 16), trouble(seed + 1, rate_hz, 16)], 1)
    cuts = sorted(round(share * len(x)) for share in shares)
    assert judge(x, rate_hz, [], limits) == judge(x, rate_hz, cuts, limits)
    stream = CleanStream(rate_hz, 2)
    pieces = np.concatenate([stream.process(part) for part in np.split(x, cuts)])
    assert pieces.tobytes() == CleanStream(rate_hz, 2).process(x).tobytes()


@pytest.mark.parametrize("packet", [1, 7, 36])
def test_packets_give_the_same_bits(packet: int) -> None:
    x = trouble(5, 125.0).reshape(-1, 1)
    cuts = list(range(packet, len(x), packet))
    assert judge(x, 125.0, []) == judge(x, 125.0, cuts)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rate_hz=st.sampled_from(RATES_HZ))
def test_the_index_is_between_0_and_1_whatever_comes(seed: int, rate_hz: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate(
        [trouble(seed, rate_hz, 8), np.cumsum(rng.normal(0, 50, 3000)), np.full(3000, 5.0)]
    )
    x[rng.integers(0, x.size, 50)] = rng.choice([np.nan, np.inf, 1e308, -1e12], 50)
    got = QualityStream(rate_hz).process(x)
    for values in (got.index, got.recent):
        known = values[2:]
        assert ((known >= 0) & (known <= 1)).all()
        assert np.isnan(values[:2]).all()
    assert set(got.status.ravel().tolist()) <= {int(status) for status in LeadStatus}
    assert np.isfinite(CleanStream(rate_hz).process(x)).all()
    assert (np.diff(got.at) > 0).all()


def test_integers_and_floats_give_the_same_bits() -> None:
    x = np.rint(np.nan_to_num(trouble(6, 250.0), posinf=0)).reshape(-1, 1)
    whole = judge(x, 250.0, [])
    for kind in (np.int32, np.int64, np.float64):
        assert whole == bits(QualityStream(250.0).process(x.astype(kind)))

"""The kernel against its slow twin, and against itself under every cutting of the samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from gateway.signal import qrs
from gateway.signal.ecg import Beats, EcgStream
from tests.gateway.signal.synthetic import ecg, noisy, rhythm
from tests.naive import qrs as naive

Floats = NDArray[np.float64]

RATES_HZ = (60.0, 125.0, 200.0, 250.0, 360.0, 500.0, 1000.0)


def trouble(seed: int, rate_hz: float, seconds: float = 30) -> Floats:
    """A recording with everything in it: ectopics, a pause, a jump, saturation, a flat line, noise that comes and goes."""
    rng = np.random.default_rng(seed)
    beats = rhythm(seconds, rng.uniform(0.4, 1.2), rng, spread=rng.choice([0.02, 0.25]))
    pause = rng.uniform(2, seconds - 4)
    beats = beats[(beats < pause) | (beats > pause + rng.uniform(1, 6))]
    wide = frozenset(np.flatnonzero(rng.random(beats.size) < 0.1).tolist())
    x = ecg(beats, seconds, rate_hz, wide) * rng.choice([0.02, 1.0, -30.0])
    x = noisy(x, rng.choice([1.0, 30.0, 150.0]), rate_hz, rng)
    at, length = rng.integers(0, x.size // 2, 2)
    x[at : at + length // 4] += rng.choice([1e4, -3e5])
    at = rng.integers(0, x.size)
    x[at : at + round(rng.uniform(0, 5) * rate_hz)] = x[at]
    x[rng.integers(0, x.size, 3)] = np.nan
    return np.clip(x, -400_000, 400_000)


def together(parts: list[Beats]) -> Floats:
    return np.concatenate([part.rows for part in parts])


def detect(x: Floats, rate_hz: float, cuts: list[int]) -> Floats:
    stream = EcgStream(rate_hz)
    parts = [stream.process(part) for part in np.split(x, cuts)]
    return together([*parts, stream.flush()])


@pytest.mark.parametrize("rate_hz", RATES_HZ)
def test_equals_its_twin(rate_hz: float) -> None:
    beats = 0
    for seed in range(4):
        x = trouble(seed, rate_hz, 12 if rate_hz > 400 else 24)
        expected = np.array(naive.detect(x, rate_hz)).reshape(-1, 4)
        got = detect(x, rate_hz, [])
        assert got.shape == expected.shape, f"seed {seed}"
        np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-6, err_msg=f"seed {seed}")
        beats += len(got)
    assert beats > 20


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    rate_hz=st.sampled_from(RATES_HZ),
    shares=st.lists(st.floats(0, 1), max_size=30),
)
def test_any_cutting_gives_the_same_bits(seed: int, rate_hz: float, shares: list[float]) -> None:
    x = trouble(seed, rate_hz, 20)
    cuts = sorted(round(share * x.size) for share in shares)
    whole = detect(x, rate_hz, [])
    assert whole.tobytes() == detect(x, rate_hz, cuts).tobytes()


@pytest.mark.parametrize("packet", [1, 7, 36])
def test_packets_give_the_same_bits(packet: int) -> None:
    x = trouble(5, 125.0)
    whole = detect(x, 125.0, [])
    assert len(whole) > 10
    assert whole.tobytes() == detect(x, 125.0, list(range(packet, x.size, packet))).tobytes()


def test_integers_and_floats_give_the_same_bits() -> None:
    x = np.nan_to_num(trouble(6, 250.0))
    whole = detect(x, 250.0, [])
    for kind in (np.int32, np.int64, np.float64):
        stream = EcgStream(250.0)
        assert (
            whole.tobytes() == together([stream.process(x.astype(kind)), stream.flush()]).tobytes()
        )


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), rate_hz=st.sampled_from(RATES_HZ))
def test_beats_are_in_order_and_apart_whatever_comes(seed: int, rate_hz: float) -> None:
    rng = np.random.default_rng(seed)
    x = np.concatenate(
        [trouble(seed, rate_hz, 10), rng.normal(0, 500, 2000), np.cumsum(rng.normal(0, 50, 2000))]
    )
    got = detect(x, rate_hz, [])
    assert np.isfinite(got).all()
    assert (np.diff(got[:, 0]) > 0.1 * rate_hz).all()
    assert ((got[:, 0] >= 0) & (got[:, 0] < x.size)).all()
    assert (got[:, 1] >= 0).all()
    assert len(got) <= x.size / rate_hz / 0.2 + 1


@pytest.mark.parametrize(("share", "is_beat"), [(0.4, False), (0.6, True)])
def test_no_beat_is_nearer_to_the_last_than_half_a_separation(share: float, is_beat: bool) -> None:  # noqa: FBT001 - a test's parameter
    """However high it is."""
    stream = EcgStream(250)
    stream.process(np.rint(ecg(np.arange(0.5, 20, 0.8), 20, 250)))
    state = stream._states[0]
    i = int(state[qrs.HELD])
    state[qrs.AT_0 + i] = state[qrs.LAST] + share * state[qrs.SEPARATION]
    for first, level in ((qrs.LOW_0, qrs.SIGNAL_LOW), (qrs.HIGH_0, qrs.SIGNAL_HIGH)):
        state[first + i] = 100 * state[level]
    state[qrs.LIKE_0 + i] = 1.0
    assert qrs.qrs_judge(state, i) == is_beat


@pytest.mark.parametrize(("weaker", "beats"), [(0.2, 3), (0.1, 5)])
def test_small_candidates_are_beats_at_first_only_when_they_stand_apart(
    weaker: float, beats: int
) -> None:
    """0.39 times as high as the greatest, with others below: those are waves or noise."""
    state = EcgStream(250)._states[0]
    heights = [1.0, 0.39, weaker, 1.0, 0.39, weaker, 1.0]
    for i, (at, height) in enumerate(zip([50, 180, 240, 300, 430, 490, 550], heights, strict=True)):
        state[qrs.AT_0 + i], state[qrs.LIKE_0 + i] = at, qrs.LIKE
        state[qrs.LOW_0 + i] = state[qrs.HIGH_0 + i] = 1e6 * height
    state[qrs.HELD] = len(heights)
    qrs.qrs_learn(state, 750.0)
    assert state[qrs.FOUND] == beats

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.signal.rate import heart_rate_bpm, rr_intervals_ns

S = 1_000_000_000


def ns(*seconds: float) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.array([round(s * S) for s in seconds], dtype=np.int64)


def test_intervals_in_ns() -> None:
    index = np.array([10.0, 135.0, 260.5])
    assert rr_intervals_ns(index, 125.0).tolist() == [S, 1_004_000_000]
    assert rr_intervals_ns(index, 125.0, last_index=-115.0).tolist() == [S, S, 1_004_000_000]


def test_intervals_are_rounded_not_cut() -> None:
    assert rr_intervals_ns(np.array([0.0, 1.0]), 360.0).tolist() == [2_777_778]


def test_without_beats_there_are_no_intervals() -> None:
    assert rr_intervals_ns(np.empty(0), 125.0).dtype == np.int64
    assert rr_intervals_ns(np.empty(0), 125.0, last_index=5.0).size == 0
    assert rr_intervals_ns(np.array([5.0]), 125.0).size == 0


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_too_few_intervals_are_unknown(count: int) -> None:
    assert heart_rate_bpm(ns(*[0.8] * count)) is None


def test_one_miss_and_one_extra_do_not_move_it() -> None:
    assert heart_rate_bpm(ns(0.8, 0.8, 1.6, 0.8, 0.8, 0.3, 0.5, 0.8)) == pytest.approx(75)


def test_only_the_last_eight_count() -> None:
    assert heart_rate_bpm(ns(*[2.0] * 50, *[0.5] * 8)) == pytest.approx(120)


def test_silence_is_unknown() -> None:
    rr = ns(*[1.0] * 8)
    assert heart_rate_bpm(rr, silence_ns=4 * S) == pytest.approx(60)
    assert heart_rate_bpm(rr, silence_ns=4 * S + 1) is None


@given(st.lists(st.integers(200_000_000, 3 * S), min_size=4, max_size=30))
def test_equals_its_twin(rr: list[int]) -> None:
    expected = 60 * S / np.median(rr[-8:])
    assert heart_rate_bpm(np.array(rr)) == pytest.approx(expected, rel=1e-12)

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.ec57 import Score, average, compare, match, score
from tools.signal_bench.records import wfdb

COMPARE = wfdb("wfdb.processing").compare_annotations


def times(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array(values)


def test_equal_beats_all_match() -> None:
    assert score([301, 302, 303], [301, 302, 303]) == Score(3, 0, 0)


def test_the_window_is_150_ms_on_both_sides() -> None:
    assert score([301], [301.149]) == Score(1, 0, 0)
    assert score([301], [300.851]) == Score(1, 0, 0)
    assert score([301], [301.151]) == Score(0, 1, 1)
    assert score([301], [300.849]) == Score(0, 1, 1)


def test_each_beat_is_in_one_pair_only() -> None:
    assert score([301], [300.95, 301.05]) == Score(1, 1, 0)
    assert score([300.95, 301.05], [301]) == Score(1, 0, 1)


def test_the_nearer_of_two_rivals_wins() -> None:
    assert match(times(10.0), times(9.9, 10.01), 0.15) == [(0, 1)]
    assert match(times(9.9, 10.01), times(10.0), 0.15) == [(1, 0)]
    assert match(times(10.0, 10.2), times(10.12), 0.15) == [(1, 0)]


def test_a_tie_goes_to_the_later_as_in_bxb() -> None:
    assert match(times(10.0), times(9.875, 10.125), 0.15) == [(0, 1)]
    assert match(times(9.875, 10.125), times(10.0), 0.15) == [(1, 0)]


def test_a_beat_may_stay_alone_although_another_pairing_has_more_pairs() -> None:
    """By hand: 10.12 is nearer to 10.2 than to 10.0, so 10.0 is missed, and then nothing is left for 10.3."""
    assert score([10.0, 10.2], [10.12, 10.3], start_s=0) == Score(1, 1, 1)


def test_the_window_is_whole_in_sample_numbers() -> None:
    """54 samples at 360 Hz are 150 ms, wherever in the record: no last bit of a quotient decides."""
    reference = np.arange(300 * 360, 1800 * 360, 397) / 360
    size = len(reference)
    assert score(reference, reference + 54 / 360) == Score(size, 0, 0)
    assert score(reference, reference - 54 / 360, start_s=0) == Score(size, 0, 0)
    assert score(reference, reference + 55 / 360) == Score(0, size, size)


def test_a_miss_and_an_extra_do_not_shift_the_rest() -> None:
    reference = [301, 302, 303, 304, 305]
    assert score(reference, [301, 303, 303.5, 304, 305]) == Score(4, 1, 1)


def test_the_first_five_minutes_do_not_count() -> None:
    assert score([10, 20, 299.99, 300], [5, 15, 300]) == Score(1, 0, 0)


def test_a_pair_across_the_border_counts_where_its_reference_lies() -> None:
    assert score([299.95], [300.05]) == Score(0, 0, 0)
    assert score([300.05], [299.95]) == Score(1, 0, 0)


def test_excluded_spans_count_neither_misses_nor_extras() -> None:
    spans = [(310.0, 320.0)]
    assert score([305, 312, 325], [305, 315, 316, 325], excluded_s=spans) == Score(2, 0, 0)


def test_a_flutter_wave_takes_no_beat_away() -> None:
    assert score([309.95, 310.05], [310.02], excluded_s=[(310, 320)]) == Score(1, 0, 0)


def test_a_comparison_says_which() -> None:
    result = compare([301, 302, 303], [301.01, 302.5, 303], start_s=0)
    assert result.hits.tolist() == [301, 303]
    assert result.extras.tolist() == [302.5]
    assert result.misses.tolist() == [302]


def test_nothing_found_and_nothing_to_find() -> None:
    assert score([301, 302], []) == Score(0, 0, 2)
    assert score([], [301]) == Score(0, 1, 0)
    assert math.isnan(score([], []).f1)


def test_averages_leave_out_what_has_no_figure() -> None:
    assert average([90.0, math.nan, 100.0]) == 95.0
    assert math.isnan(average([]))


def test_figures() -> None:
    gross = Score(8, 0, 2) + Score(1, 1, 0)
    assert gross == Score(9, 1, 2)
    assert gross.sensitivity == pytest.approx(900 / 11)
    assert gross.positive_predictivity == pytest.approx(90.0)
    assert gross.f1 == pytest.approx(200 * 9 / 21)


# --- Beside other sources of truth -------------------------------------------------------------------

DENSE = st.lists(st.integers(0, 2000), max_size=25, unique=True).map(sorted)


def apart(samples: list[int], least: int) -> list[int]:
    kept: list[int] = []
    for at in samples:
        if not kept or at - kept[-1] >= least:
            kept.append(at)
    return kept


def most_pairs(reference: list[int], found: list[int], window: int) -> int:
    """By augmenting paths: no pairing has more."""
    partner: dict[int, int] = {}

    def place(i: int, tried: set[int]) -> bool:
        for j, at in enumerate(found):
            if abs(at - reference[i]) <= window and j not in tried:
                tried.add(j)
                if j not in partner or place(partner[j], tried):
                    partner[j] = i
                    return True
        return False

    return sum(place(i, set()) for i in range(len(reference)))


def samples_score(reference: list[int], found: list[int]) -> Score:
    return score(np.array(reference) / 360, np.array(found) / 360, start_s=0)


@given(DENSE, DENSE)
def test_no_pairing_has_more_pairs_where_one_side_is_sparse(
    one: list[int], other: list[int]
) -> None:
    one = apart(one, 109)
    assert samples_score(one, other).tp == most_pairs(one, other, 54)
    assert samples_score(other, one).tp == most_pairs(other, one, 54)


@given(DENSE, DENSE)
def test_each_beat_counts_once_and_is_near(reference: list[int], found: list[int]) -> None:
    pairs = match(np.array(reference, float), np.array(found, float), 54)
    for side in zip(*pairs, strict=True):
        assert list(side) == sorted(set(side))
    assert all(abs(reference[i] - found[j]) <= 54 for i, j in pairs)
    assert len(pairs) <= most_pairs(reference, found, 54)
    result = samples_score(reference, found)
    assert (result.tp + result.fn, result.tp + result.fp) == (len(reference), len(found))


@given(DENSE, DENSE)
def test_agrees_with_the_comparator_of_wfdb(reference: list[int], found: list[int]) -> None:
    reference, found = apart(reference, 109), apart(found, 109)
    if not reference or not found:
        return  # it cannot
    other = COMPARE(np.array(reference), np.array(found), 55)
    assert samples_score(reference, found) == Score(other.tp, other.fp, other.fn)

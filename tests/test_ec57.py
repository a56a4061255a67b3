import math

import numpy as np
import pytest

from tests.ec57 import Score, match, score


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


def test_a_tie_goes_to_the_earlier() -> None:
    assert match(times(10.0), times(9.9, 10.1), 0.15) == [(0, 0)]


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


def test_nothing_found_and_nothing_to_find() -> None:
    assert score([301, 302], []) == Score(0, 0, 2)
    assert score([], [301]) == Score(0, 1, 0)
    assert math.isnan(score([], []).f1)


def test_figures() -> None:
    gross = Score(8, 0, 2) + Score(1, 1, 0)
    assert gross == Score(9, 1, 2)
    assert gross.sensitivity == pytest.approx(900 / 11)
    assert gross.positive_predictivity == pytest.approx(90.0)
    assert gross.f1 == pytest.approx(200 * 9 / 21)

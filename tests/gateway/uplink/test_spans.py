"""Spans of numbers against a set of them."""

from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.uplink.spans import Spans

ENDS = st.tuples(st.integers(1, 60), st.integers(-2, 12)).map(lambda s: (s[0], s[0] + s[1]))
STEPS = st.lists(st.tuples(st.booleans(), ENDS), max_size=25)


def numbers(spans: object) -> set[int]:
    return {n for first, last in spans for n in range(first, last + 1)}  # type: ignore[attr-defined]


@settings(max_examples=200, deadline=None)
@given(STEPS, ENDS, st.integers(0, 75), st.integers(1, 6))
def test_spans_are_a_set(
    steps: list[tuple[bool, tuple[int, int]]], probe: tuple[int, int], at: int, most: int
) -> None:
    spans, twin = Spans(), set[int]()
    for adds, (first, last) in steps:
        (spans.add if adds else spans.remove)(first, last)
        change = set(range(first, last + 1))
        twin = twin | change if adds else twin - change
        assert numbers(spans) == twin
        assert all(a[1] + 1 < b[0] for a, b in pairwise(spans))
    assert spans.count == len(twin)
    window = set(range(probe[0], probe[1] + 1))
    assert numbers(spans.within(*probe)) == twin & window
    assert numbers(spans.outside(*probe)) == window - twin
    assert (at in spans) == (at in twin)
    following = spans.behind(at)
    assert (following[0] if following else None) == min((n for n in twin if n > at), default=None)
    assert following is None or (following[1] in twin and following[1] + 1 not in twin)
    coarse = spans.coarse(most)
    assert len(coarse) == min(most, len(spans))
    assert twin <= numbers(coarse)
    if len(spans) == most + 1:
        assert len(numbers(coarse) - twin) == min(b[0] - a[1] - 1 for a, b in pairwise(spans))
    assert list(reversed(spans)) == list(spans)[::-1]
    assert spans == Spans(spans)


def test_the_narrowest_gaps_are_filled_first() -> None:
    spans = Spans([(1, 1), (9, 9), (11, 11), (20, 20), (24, 24)])
    assert [*spans.coarse(4)] == [(1, 1), (9, 11), (20, 20), (24, 24)]
    assert [*spans.coarse(2)] == [(1, 11), (20, 24)]
    assert [*spans.coarse(1)] == [(1, 24)]

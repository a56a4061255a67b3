"""Sets of sequence numbers as spans, in order and apart from each other. Pure; memory grows with the spans alone."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from itertools import pairwise


class Spans:
    """Whole numbers, kept as (first, last) with both ends included."""

    def __init__(self, spans: Iterable[tuple[int, int]] = ()) -> None:
        self._spans: list[tuple[int, int]] = []
        for first, last in spans:
            self.add(first, last)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return iter(self._spans)

    def __reversed__(self) -> Iterator[tuple[int, int]]:
        return reversed(self._spans)

    def __len__(self) -> int:
        """How many spans."""
        return len(self._spans)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Spans) and self._spans == other._spans

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Spans({self._spans})"

    def __contains__(self, number: int) -> bool:
        return any(self.within(number, number))

    @property
    def count(self) -> int:
        """How many numbers."""
        return sum(last - first + 1 for first, last in self._spans)

    def add(self, first: int, last: int) -> None:
        """Puts all of `first` to `last` in; nothing when `last` is less."""
        if last < first:
            return
        begin, end = self._touching(first - 1, last + 1)
        if begin < end:
            first = min(first, self._spans[begin][0])
            last = max(last, self._spans[end - 1][1])
        self._spans[begin:end] = [(first, last)]

    def remove(self, first: int, last: int) -> None:
        """Takes all of `first` to `last` out."""
        begin, end = self._touching(first, last)
        if last < first or begin == end:
            return
        before, behind = self._spans[begin][0], self._spans[end - 1][1]
        self._spans[begin:end] = [
            span for span in ((before, first - 1), (last + 1, behind)) if span[0] <= span[1]
        ]

    def within(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """What of `first` to `last` is in it, in order. Do not change it meanwhile."""
        if first <= last:
            begin, end = self._touching(first, last)
            for a, b in self._spans[begin:end]:
                yield max(a, first), min(b, last)

    def outside(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """What of `first` to `last` is not in it, in order."""
        for a, b in self.within(first, last):
            if first < a:
                yield first, a - 1
            first = b + 1
        if first <= last:
            yield first, last

    def behind(self, number: int) -> tuple[int, int] | None:
        """What is in it behind a number, up to the end of that span; None at the end."""
        at = bisect_right(self._spans, number, key=lambda span: span[1])
        if at == len(self._spans):
            return None
        first, last = self._spans[at]
        return max(first, number + 1), last

    def coarse(self, most: int) -> "Spans":
        """All of it in at most `most` spans, and as little else as that needs: the narrowest gaps are filled."""
        spans = self._spans
        if len(spans) <= most:
            return Spans(spans)
        gaps = sorted(range(1, len(spans)), key=lambda n: spans[n][0] - spans[n - 1][1])
        cuts = [0, *sorted(gaps[len(spans) - most :]), len(spans)]
        return Spans((spans[a][0], spans[b - 1][1]) for a, b in pairwise(cuts))

    def _touching(self, first: int, last: int) -> tuple[int, int]:
        """Which spans have something of `first` to `last`, as a slice."""
        begin = bisect_left(self._spans, first, key=lambda span: span[1])
        return begin, max(begin, bisect_right(self._spans, last, key=lambda span: span[0]))

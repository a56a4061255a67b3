from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.entry import Stream
from gateway.receiver.ledger import MAX_EPOCHS, MAX_HOLES, Cause, Gap, Key, Ledger, Span

KEY = Key("hub", Stream.VITALS, "e1")
SPANS = st.builds(
    lambda first, count: Span(first, first + count), st.integers(1, 60), st.integers(0, 12)
)


@settings(max_examples=120, deadline=None)
@given(st.lists(SPANS, max_size=30))
def test_each_number_is_new_once_and_the_holes_are_what_is_missing(spans: list[Span]) -> None:
    """Against a slow, obvious twin: a set of every number seen."""
    ledger, seen, repeats, twin_repeats = Ledger(), set[int](), 0, 0
    for span in spans:
        taken = ledger.receive(KEY, span, 0)
        numbers = [n for part in taken.new for n in range(part.first, part.last + 1)]
        fresh = [n for n in range(span.first, span.last + 1) if n not in seen]
        assert sorted(numbers) == fresh
        assert taken.stale == 0
        repeats += taken.repeats
        twin_repeats += len(span) - len(fresh)
        seen.update(fresh)
    assert repeats == twin_repeats
    missing = set(range(1, max(seen, default=0) + 1)) - seen
    holes = ledger.track(KEY).holes
    assert {n for hole in holes for n in range(hole.span.first, hole.span.last + 1)} == missing
    assert ledger.missing() == len(missing)
    assert all(a.span.last + 1 < b.span.first for a, b in pairwise(holes))


@settings(max_examples=60, deadline=None)
@given(st.lists(SPANS, min_size=1, max_size=20), st.lists(st.integers(0, 80), max_size=5))
def test_a_gap_that_was_named_and_came_after_all_is_closed_once(
    spans: list[Span], beats: list[int]
) -> None:
    ledger, named, closed = Ledger(), set[int](), list[int]()
    for n, span in enumerate(spans):
        for gap in ledger.receive(KEY, span, n).gaps:
            assert gap.closed
            closed.extend(range(gap.span.first, gap.span.last + 1))
        if n < len(beats):
            ledger.heartbeat(KEY, 100, beats[n], n)
        for gap in ledger.due(n, 0):
            numbers = set(range(gap.span.first, gap.span.last + 1))
            assert not named & numbers, "named twice"
            named |= numbers
    assert len(closed) == len(set(closed))
    assert set(closed) <= named
    open_now = {n for gap in ledger.open_gaps() for n in range(gap.span.first, gap.span.last + 1)}
    assert open_now == named - set(closed)


def test_a_gap_is_named_after_its_grace_and_not_before() -> None:
    ledger = Ledger()
    ledger.receive(KEY, Span(1, 2), 0)
    ledger.receive(KEY, Span(5, 6), 100)
    assert ledger.due(149, 50) == []
    assert ledger.due(150, 50) == [Gap(KEY, Span(3, 4), Cause.SEQUENCE)]
    assert ledger.due(1000, 50) == []


def test_a_backlog_at_the_hub_is_no_gap_but_a_tail_that_the_broker_had_is() -> None:
    ledger = Ledger()
    ledger.receive(KEY, Span(1, 10), 0)
    assert ledger.heartbeat(KEY, 500, 10, 1) == []
    assert ledger.missing() == 0
    assert ledger.heartbeat(KEY, 500, 12, 2) == []
    assert ledger.due(10, 5) == [Gap(KEY, Span(11, 12), Cause.TAIL)]
    taken = ledger.receive(KEY, Span(11, 12), 11)
    assert taken.new == (Span(11, 12),)
    assert taken.gaps == (Gap(KEY, Span(11, 12), Cause.TAIL, closed=True),)


def test_a_journal_that_reaches_less_far_than_it_did_is_a_rollback() -> None:
    ledger = Ledger()
    ledger.heartbeat(KEY, 100, 0, 0)
    assert ledger.heartbeat(KEY, 90, 0, 1) == [Gap(KEY, Span(91, 100), Cause.ROLLBACK)]
    assert ledger.heartbeat(KEY, 95, 0, 2) == []


def test_an_old_heartbeat_proves_nothing() -> None:
    ledger = Ledger()
    assert ledger.is_new_beat("hub", "boot-1", 100)
    assert not ledger.is_new_beat("hub", "boot-1", 100)
    assert not ledger.is_new_beat("hub", "boot-1", 99)
    assert ledger.is_new_beat("hub", "boot-2", 5)


def test_memory_is_bounded_and_what_is_given_up_is_said() -> None:
    ledger = Ledger()
    gaps: list[Gap] = []
    for n in range(MAX_HOLES + 3):
        gaps.extend(ledger.receive(KEY, Span(2 * n + 2, 2 * n + 2), 0).gaps)
    assert len(ledger.track(KEY).holes) == MAX_HOLES
    assert [(gap.span, gap.cause) for gap in gaps] == [
        (Span(n, n), Cause.TOO_MANY) for n in (1, 3, 5)
    ]
    taken = ledger.receive(KEY, Span(3, 3), 0)
    assert (taken.new, taken.repeats, taken.stale) == ((), 0, 1)


def test_epochs_are_kept_apart_and_bounded() -> None:
    ledger = Ledger()
    for n in range(MAX_EPOCHS + 5):
        taken = ledger.receive(Key("hub", Stream.VITALS, f"e{n}"), Span(1, 1), 0)
        assert taken.new == (Span(1, 1),)
    assert len(ledger.tracks) == MAX_EPOCHS

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.entry import Stream
from gateway.receiver.ledger import (
    MAX_EPOCHS,
    MAX_HOLES,
    Cause,
    Gap,
    Key,
    Ledger,
    Span,
)
from gateway.uplink.receipt import MAX_HOLES as RECEIPT_HOLES
from gateway.uplink.receipt import Held
from gateway.uplink.spans import Spans

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
        taken = ledger.receive(KEY, span)
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
    assert ledger.missing() == 0, "nobody said that it should be here"
    ledger.heartbeat(KEY, 100, Spans([(max(seen, default=0) + 1, 100)]), 0)
    assert ledger.missing() == len(missing)
    assert all(a.span.last + 1 < b.span.first for a, b in pairwise(holes))


class World:
    """A hub that sends in any order, a broker that loses, the ledger; a twin that knows each entry by itself."""

    def __init__(self, grace: int) -> None:
        self.ledger, self.grace, self.now = Ledger(), grace, 0
        self.high_water = 0
        self.pending: set[int] = set()
        self.came: set[int] = set()
        self.named: set[int] = set()
        self.missing_since: dict[int, int] = {}
        self.beat_under_way: tuple[int, set[int]] | None = None

    def write(self, count: int) -> None:
        self.pending.update(range(self.high_water + 1, self.high_water + count + 1))
        self.high_water += count

    def send(self, span: Span, *, again: bool, lost: bool) -> None:
        sent = {n for n in numbers(span) if n <= self.high_water and (again or n in self.pending)}
        self.pending -= sent
        for first, last in Spans((n, n) for n in sent):
            if not lost:
                self.take(Span(first, last))

    def forget(self) -> None:
        """The hub starts again, and knows only the prefix."""
        self.pending = set(range(min(self.pending, default=1), self.high_water + 1))

    def take(self, span: Span) -> None:
        fresh = {n for n in numbers(span) if n not in self.came}
        taken = self.ledger.receive(KEY, span)
        assert {n for part in taken.new for n in numbers(part)} == fresh
        self.came.update(fresh)
        closed = {n for gap in taken.gaps for n in numbers(gap.span)}
        assert closed == fresh & self.named
        assert taken.stale == 0
        self.named -= fresh
        for n in fresh:
            self.missing_since.pop(n, None)

    def beat(self, *, arrives: bool = True) -> None:
        """A heartbeat; one that is late speaks of the moment at which it left."""
        high_water, waiting = self.beat_under_way or (self.high_water, set(self.pending))
        self.beat_under_way = None if arrives else (high_water, waiting)
        if not arrives:
            return
        pending = Spans((n, n) for n in waiting)
        assert self.ledger.heartbeat(KEY, high_water, pending, self.now) == []
        for n in range(1, high_water + 1):
            if n in waiting:
                self.missing_since.pop(n, None)
            elif n not in self.came:
                self.missing_since.setdefault(n, self.now)

    def name(self) -> None:
        gaps = self.ledger.due(self.now, self.grace)
        found = {n for gap in gaps for n in numbers(gap.span)}
        assert not found & self.named, "named twice"
        due = {n for n, since in self.missing_since.items() if self.now - since >= self.grace}
        assert found == due - self.named
        self.named |= found


STEPS = st.lists(
    st.tuples(
        st.sampled_from(
            ["write", "send", "send", "lose", "send again", "beat", "late beat", "name", "forget"]
        ),
        st.integers(0, 40),
        st.integers(1, 8),
    ),
    max_size=60,
)


@settings(max_examples=150, deadline=None)
@given(STEPS, st.integers(0, 3))
def test_what_is_still_to_come_is_no_gap_and_what_is_not_is_one(
    steps: list[tuple[str, int, int]], grace: int
) -> None:
    world = World(grace)
    for step, at, count in steps:
        world.now += 1
        match step:
            case "write":
                world.write(count)
            case "forget":
                world.forget()
            case "beat" | "late beat":
                world.beat(arrives=step == "beat")
            case "name":
                world.name()
            case _:
                first = max(1, world.high_water - at)
                again, lost = step == "send again", step == "lose"
                world.send(Span(first, first + count - 1), again=again, lost=lost)
    world.beat()
    world.pending.clear()
    world.beat()
    world.now += grace
    world.name()
    assert world.named == set(range(1, world.high_water + 1)) - world.came
    gaps = world.ledger.open_gaps()
    assert {n for gap in gaps for n in numbers(gap.span)} == world.named
    assert world.ledger.missing() == len(world.named)


def numbers(span: Span) -> range:
    return range(span.first, span.last + 1)


def in_order(acknowledged: int, high_water: int) -> Spans:
    return Spans([(acknowledged + 1, high_water)])


def test_a_gap_is_named_when_it_is_no_more_to_come_and_after_its_grace() -> None:
    ledger = Ledger()
    ledger.receive(KEY, Span(1, 2))
    ledger.receive(KEY, Span(5, 6))
    assert ledger.due(10**9, 0) == [], "no heartbeat said so"
    ledger.heartbeat(KEY, 6, Spans([(3, 4)]), 50)
    assert ledger.due(10**9, 0) == []
    ledger.heartbeat(KEY, 6, Spans([(3, 3)]), 100)
    assert ledger.due(149, 50) == []
    assert ledger.due(150, 50) == [Gap(KEY, Span(4, 4), Cause.SEQUENCE)]
    ledger.heartbeat(KEY, 6, Spans(), 200)
    assert ledger.due(250, 50) == [Gap(KEY, Span(3, 3), Cause.SEQUENCE)]
    assert ledger.due(1000, 50) == []


def test_a_heartbeat_says_nothing_of_what_became_durable_after_it() -> None:
    ledger = Ledger()
    ledger.receive(KEY, Span(1, 2))
    ledger.receive(KEY, Span(5, 6))
    ledger.heartbeat(KEY, 2, Spans(), 0)
    assert ledger.due(10**9, 0) == []
    ledger.heartbeat(KEY, 3, Spans(), 1)
    assert ledger.due(10**9, 0) == [Gap(KEY, Span(3, 3), Cause.SEQUENCE)]


def test_what_came_before_its_grace_was_over_is_no_gap_and_gets_a_new_grace_when_it_waits_again() -> (
    None
):
    ledger = Ledger()
    ledger.receive(KEY, Span(9, 9))
    ledger.heartbeat(KEY, 9, Spans(), 100)
    ledger.heartbeat(KEY, 9, Spans([(1, 4)]), 120)
    assert ledger.due(150, 50) == [Gap(KEY, Span(5, 8), Cause.SEQUENCE)]
    ledger.heartbeat(KEY, 9, Spans(), 160)
    ledger.receive(KEY, Span(1, 2))
    assert ledger.due(209, 50) == []
    assert ledger.due(210, 50) == [Gap(KEY, Span(3, 4), Cause.SEQUENCE)]


def test_a_backlog_at_the_hub_is_no_gap_but_a_tail_that_the_broker_had_is() -> None:
    ledger = Ledger()
    ledger.receive(KEY, Span(1, 10))
    assert ledger.heartbeat(KEY, 500, in_order(10, 500), 1) == []
    assert ledger.missing() == 0
    assert ledger.heartbeat(KEY, 500, in_order(12, 500), 2) == []
    assert ledger.due(10, 5) == [Gap(KEY, Span(11, 12), Cause.TAIL)]
    taken = ledger.receive(KEY, Span(11, 12))
    assert taken.new == (Span(11, 12),)
    assert taken.gaps == (Gap(KEY, Span(11, 12), Cause.TAIL, closed=True),)


def test_what_came_last_of_all_and_was_lost_before_a_backlog_is_a_tail() -> None:
    ledger = Ledger()
    ledger.heartbeat(KEY, 500, Spans([(1, 480)]), 0)
    assert ledger.due(10, 5) == [Gap(KEY, Span(481, 500), Cause.TAIL)]
    assert ledger.track(KEY).high == 500
    assert ledger.held("hub", "e1")[Stream.VITALS] == Held(500, ((1, 500),))


def test_a_journal_that_reaches_less_far_than_it_did_is_a_rollback() -> None:
    ledger = Ledger()
    ledger.heartbeat(KEY, 100, in_order(0, 100), 0)
    rolled_back = ledger.heartbeat(KEY, 90, in_order(0, 90), 1)
    assert rolled_back == [Gap(KEY, Span(91, 100), Cause.ROLLBACK)]
    assert ledger.heartbeat(KEY, 95, in_order(0, 95), 2) == []


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
        gaps.extend(ledger.receive(KEY, Span(2 * n + 2, 2 * n + 2)).gaps)
    assert len(ledger.track(KEY).holes) == MAX_HOLES
    assert [(gap.span, gap.cause) for gap in gaps] == [
        (Span(n, n), Cause.TOO_MANY) for n in (1, 3, 5)
    ]
    taken = ledger.receive(KEY, Span(3, 3))
    assert (taken.new, taken.repeats, taken.stale) == ((), 0, 1)


def test_what_is_still_to_come_is_never_final() -> None:
    ledger, gaps = Ledger(), list[Gap]()
    ledger.heartbeat(KEY, 10_000, Spans([(1, 10_000)]), 0)
    for n in range(MAX_HOLES + 200):
        gaps.extend(ledger.receive(KEY, Span(20 * n + 20, 20 * n + 20)).gaps)
    assert gaps == []
    assert len(ledger.held("hub", "e1")[Stream.VITALS].holes) == RECEIPT_HOLES
    assert ledger.receive(KEY, Span(1, 19)).new == (Span(1, 19),)
    # Of what nobody means to send, the oldest beyond the most is final; below it, what waits can still come.
    ledger.receive(KEY, Span(10_000, 10_000))
    (gap, *_rest) = ledger.heartbeat(KEY, 10_000, Spans([(21, 39)]), 0)
    assert gap == Gap(KEY, Span(41, 59), Cause.TOO_MANY)
    assert ledger.track(KEY).holes[0].span == Span(21, 39)
    late = ledger.receive(KEY, Span(15, 60))
    assert (late.new, late.repeats + late.stale) == ((Span(21, 39),), 27)
    assert late.stale == 27


def test_what_is_still_to_come_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.receiver.ledger.MAX_PENDING_HOLES", 300)
    ledger, gaps = Ledger(), list[Gap]()
    ledger.heartbeat(KEY, 20_000, Spans([(1, 20_000)]), 0)
    for n in range(302):
        gaps.extend(ledger.receive(KEY, Span(2 * n + 2, 2 * n + 2)).gaps)
    assert len(ledger.track(KEY).holes) == 300
    assert [(gap.span.first, gap.cause) for gap in gaps] == [(n, Cause.TOO_MANY) for n in (1, 3)]


def test_epochs_are_kept_apart_and_bounded() -> None:
    ledger = Ledger()
    for n in range(MAX_EPOCHS + 5):
        taken = ledger.receive(Key("hub", Stream.VITALS, f"e{n}"), Span(1, 1))
        assert taken.new == (Span(1, 1),)
    assert len(ledger.tracks) == MAX_EPOCHS

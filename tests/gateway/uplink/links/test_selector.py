"""The choice of a link: the table in the module's header row by row, then whatever happens in any order."""

import random
from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.uplink.links.netlink import Facts
from gateway.uplink.links.selector import (
    HOLD_MOST_S,
    HOLD_S,
    LINK_REASONS,
    PROVEN_S,
    SWITCH_S,
    LinkState,
    Selector,
)
from gateway.uplink.patience import NS_PER_S, Backoff, Timing, to_ns
from gateway.uplink.wire import Reason

FIT = Facts(present=True, carrier=True, address=True)
WIFI, MOBILE = 0, 1


def selector(count: int = 2, seed: int = 1) -> Selector:
    rng = random.Random(seed)
    made = Selector(count, Backoff(Timing(), rng), rng)
    for link in range(count):
        made.learn(link, FIT, 0)
    return made


def connect(made: Selector, now_ns: int) -> int | None:
    """The next connection, when its time comes; it delivers at once."""
    at_ns = made.retry_ns(now_ns)
    assert at_ns is not None
    link = made.begin(at_ns)
    made.answered(at_ns, accepted=True)
    return link


def test_the_best_comes_first() -> None:
    assert connect(selector(3), 0) == 0


@pytest.mark.parametrize("facts", [Facts(), Facts(True, False, True), Facts(True, True, False)])  # noqa: FBT003
def test_without_carrier_or_address_the_next_is_taken_at_once(facts: Facts) -> None:
    made = selector()
    connect(made, 0)
    assert made.learn(WIFI, facts, 7)
    made.failed(Reason.UNREACHABLE, 7)
    assert made.retry_ns(7) == 7
    assert made.begin(7) == MOBILE


def test_news_of_another_link_do_not_end_the_connection() -> None:
    made = selector()
    connect(made, 0)
    assert not made.learn(MOBILE, Facts(), 1)
    assert not made.learn(WIFI, FIT, 1)


@pytest.mark.parametrize("reason", sorted(LINK_REASONS))
def test_silence_moves_to_the_other_link_within_a_moment(reason: Reason) -> None:
    made = selector()
    connect(made, 0)
    made.failed(reason, 100)
    assert made.state(WIFI, 100 + to_ns(130)) is LinkState.SUSPECT
    at_ns = made.retry_ns(100)
    assert at_ns is not None
    assert at_ns <= 100 + to_ns(SWITCH_S)
    made._rows[WIFI].rest_ns = 0
    assert made.begin(at_ns) == MOBILE, "a suspect is the second choice, rested or not"
    assert made.probe(at_ns) is None, "nothing delivers yet: there is nothing to come back from"
    made.answered(at_ns, accepted=False)
    assert made.probe(at_ns) == (WIFI, 100 + to_ns(HOLD_S))


@pytest.mark.parametrize("reason", sorted(set(Reason) - LINK_REASONS))
def test_a_word_of_the_other_end_is_no_reason_to_move(reason: Reason) -> None:
    made = selector()
    for tries in range(2):
        assert connect(made, 0) == WIFI, tries
        made._rows[WIFI].failures = tries  # no batch was taken over
        made.failed(reason, 0)
        assert made.begin(0) is None, "and never at once"
    connect(made, 0)
    made._rows[WIFI].failures = 2
    made.failed(reason, 0)
    assert connect(made, 0) == MOBILE


def test_one_link_alone_keeps_the_back_off() -> None:
    made = selector(1)
    for _ in range(20):
        at_ns = made.retry_ns(0)
        assert at_ns is not None
        assert made.begin(at_ns) == 0
        made.failed(Reason.TIMEOUT, at_ns)
    assert made._rows[0].failures == 20
    assert not made.has_other(0)


def test_nothing_fit_is_nothing_to_wait_for() -> None:
    made = selector()
    for link in (WIFI, MOBILE):
        made.learn(link, Facts(), 0)
    assert made.retry_ns(5) is None
    assert made.begin(5) is None
    made.learn(MOBILE, FIT, 9)
    assert made.retry_ns(9) == 9
    assert made.begin(9) == MOBILE


def test_a_link_that_came_back_is_looked_at_after_a_while_and_not_taken_at_once() -> None:
    made = selector()
    made.learn(WIFI, Facts(), 0)
    assert made.begin(0) == MOBILE
    assert made.probe(1) is None
    made.answered(1, accepted=False)
    assert made.probe(1) is None
    made.learn(WIFI, FIT, 50)
    assert made.probe(50) == (WIFI, 50 + to_ns(HOLD_S))
    made.learn(WIFI, Facts(), 60)
    assert made.probe(60) is None


def test_silence_is_only_borne_for_long_where_no_other_link_would_do() -> None:
    made = selector()
    connect(made, 0)
    assert made.has_other(0)
    made.learn(MOBILE, Facts(), 0)
    assert not made.has_other(0)


@pytest.mark.parametrize("through", [True, False])
def test_a_better_link_that_always_fails_is_tried_ever_less_often(through: bool) -> None:  # noqa: FBT001
    """Probes that get through to a link that then carries nothing, or that get nowhere: an hour of it."""
    made = selector()
    now = 0
    connect(made, now)
    made.failed(Reason.TIMEOUT, now)
    looks = []
    while now < 3600 * NS_PER_S:
        now = made.retry_ns(now) or 0
        assert made.begin(now) == MOBILE
        made.answered(now, accepted=True)
        found = made.probe(now)
        assert found is not None
        now = found[1]
        looks.append(now)
        made.probed(WIFI, now, through=through)
        made.move()
        if through:
            assert made.begin(now) == WIFI
            now += to_ns(2)
            made.failed(Reason.TIMEOUT, now)
    gaps = [b - a for a, b in pairwise(looks)]
    assert len(looks) < 14
    assert gaps == sorted(gaps) or through
    assert max(gaps) <= to_ns(HOLD_MOST_S + 5)


def test_a_link_that_delivered_for_a_minute_has_no_past() -> None:
    made = selector()
    for proven in (False, True):
        now = 0
        made._rows[WIFI].flaps = 6
        made.move()
        assert connect(made, now) == WIFI
        now += to_ns(PROVEN_S) if proven else to_ns(PROVEN_S) - 1
        made.failed(Reason.TIMEOUT, now)
        assert made._rows[WIFI].flaps == (1 if proven else 7)
        made._rows[WIFI].suspect, made._rows[WIFI].rest_ns = False, 0


@dataclass(frozen=True)
class Step:
    kind: str
    link: int
    reason: Reason
    facts: Facts
    wait_ns: int


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["learn", "fail", "begin", "answer", "probe", "stir", "wait"]),
        st.integers(0, 2),
        st.sampled_from(list(Reason)),
        st.one_of(st.just(FIT), st.builds(Facts, st.booleans(), st.booleans(), st.booleans())),
        st.integers(0, 200 * NS_PER_S),
    ),
    max_size=60,
)


@settings(max_examples=100, deadline=None)
@given(STEPS, st.integers(0, 1000))
def test_whatever_happens_a_fit_link_is_used_and_an_unfit_one_never(
    steps: list[Step], seed: int
) -> None:
    made, now = selector(3, seed), 0
    for step in steps:
        now += step.wait_ns
        match step.kind:
            case "learn":
                if made.learn(step.link, step.facts, now):
                    assert made.current == step.link
                    made.failed(Reason.UNREACHABLE, now)
            case "fail":
                made.failed(step.reason, now)
            case "answer":
                made.answered(now, accepted=step.reason in LINK_REASONS)
            case "stir":
                made.stirred(step.link, now)
            case "probe":
                found = made.probe(now)
                if found is not None:
                    assert made.current is not None
                    assert found[0] < made.current
                    assert found[1] >= now
                    made.probed(found[0], found[1], through=step.reason in LINK_REASONS)
            case "begin" if made.current is None:
                made.begin(now)
        fit = [n for n in range(3) if made._rows[n].facts.fit]
        if made.current is not None:
            assert made.current in fit
        elif fit:
            at_ns = made.retry_ns(now)
            assert at_ns is not None
            assert now <= at_ns <= now + to_ns(Timing().backoff_most + SWITCH_S), (
                "it never gives up"
            )
            assert made.begin(at_ns) in fit
            made.current = None
        else:
            assert made.retry_ns(now) is None
        for link in range(3):
            state = made.state(link, now)
            assert (state in {LinkState.USABLE, LinkState.SUSPECT, LinkState.RESTING}) == (
                link in fit
            )

"""When entries are given free: a hub, a broker that keeps order and forgets, a receiver that is away, in simulated time."""

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.uplink.patience import NS_PER_S
from gateway.uplink.release import PROBE_AGAIN_NS, PROBE_FIRST_NS, PROBE_MOST_NS, Release

S = NS_PER_S
HOUR = 3600


class World:
    """One message is one entry. A second: the hub sends, the receiver reads, a receipt comes back."""

    def __init__(self) -> None:
        self.release = Release(0)
        self.now = 0
        self.journalled = self.sent = self.sends = self.probes = self.resends = 0
        self.queue: deque[int] = deque()
        self.held: set[int] = set()
        self.prefix = 0

    def tick(self, *, away: bool = False, reads: int = 1000, receipt: bool = True) -> None:
        self.now += 1
        now_ns = self.now * S
        due_ns = self.release.due_ns(self.sent, now_ns)
        if due_ns is not None and now_ns >= due_ns:
            self.queue.append(self.release.mark + 1)
            self.probes += 1
            self.release.probed(self.release.mark + 1, self.sent, now_ns)
        self.queue.extend(range(self.sent + 1, self.journalled + 1))
        self.sends += self.journalled - self.sent
        self.sent = self.journalled
        if away:
            return
        for _ in range(min(reads, len(self.queue))):
            self.held.add(self.queue.popleft())
        while self.prefix + 1 in self.held:
            self.prefix += 1
        if receipt:
            again = self.release.receipt(self.prefix, now_ns)
            if again is not None:
                self.resends += self.sent - again
                self.sent = again
        assert self.release.mark <= self.prefix, "given free what the receiver does not hold"

    def forget(self) -> None:
        self.queue.clear()

    def reconnect(self) -> None:
        self.release.connected()

    def settle(self, most: int) -> None:
        for _ in range(most):
            if self.release.mark == self.journalled:
                return
            self.tick()
        raise AssertionError(f"after {most} s: {self.release.mark} of {self.journalled}")


STEPS = st.lists(
    st.sampled_from(["tick", "tick", "away", "deaf", "slow", "write", "forget", "reconnect"]),
    max_size=80,
)


@settings(max_examples=300)
@given(STEPS, st.integers(1, 30))
def test_only_what_is_held_is_given_free_and_everything_is_in_the_end(
    steps: list[str], burst: int
) -> None:
    world = World()
    for step in steps:
        match step:
            case "write":
                world.journalled += burst
            case "forget":
                world.forget()
            case "reconnect":
                world.reconnect()
            case _:
                world.tick(
                    away=step == "away", reads=3 if step == "slow" else 1000, receipt=step != "deaf"
                )
    before = world.resends
    world.settle(3 * PROBE_MOST_NS // S)
    assert len(world.held) == world.journalled
    # What was lost before and lies in several holes costs one more time for each hole at most.
    losses = steps.count("forget")
    assert world.resends - before <= (losses + 1) * world.journalled


def test_while_the_receiver_is_away_it_is_asked_seldom_and_the_backlog_is_not_sent_again() -> None:
    world = World()
    for _ in range(6 * HOUR):
        world.journalled += 1
        world.tick(away=True)
    assert 5 <= world.probes <= 45
    assert world.sends == 6 * HOUR
    probes = world.probes
    while world.queue:
        world.journalled += 1
        world.tick(reads=200)
    world.settle(10)
    assert world.probes == probes
    assert world.resends == 0


def test_a_broker_that_forgets_while_the_receiver_is_away_costs_one_repeat() -> None:
    world = World()
    for _ in range(HOUR):
        world.journalled += 1
        world.tick(away=True)
    world.forget()
    world.reconnect()
    world.settle(30)
    assert world.resends <= HOUR
    assert world.probes <= 20


@pytest.mark.parametrize("seed", range(3))
def test_many_small_losses_are_all_mended(seed: int) -> None:
    world, rng = World(), random.Random(seed)
    for _ in range(600):
        world.journalled += 10
        world.tick()
        if rng.random() < 0.05:
            world.journalled += 5
            world.tick(away=True)
            world.queue.remove(rng.choice(world.queue))
    world.settle(200)


def test_a_new_connection_asks_soon_and_then_ever_more_seldom() -> None:
    release, now, waits = Release(0), 0, []
    release.connected()
    for _ in range(12):
        due = release.due_ns(5, now)
        assert due is not None
        waits.append(due - now)
        now = due
        release.probed(1, 5, now)
    assert waits[:3] == [PROBE_AGAIN_NS, 2 * PROBE_AGAIN_NS, 4 * PROBE_AGAIN_NS]
    assert waits[-2:] == [PROBE_MOST_NS] * 2


def test_nothing_is_due_when_everything_has_a_receipt_and_each_new_one_gives_time() -> None:
    release = Release(4)
    assert release.due_ns(4, 0) is None
    assert release.due_ns(5, 7 * S) == 7 * S + PROBE_FIRST_NS
    release.receipt(5, 9 * S)
    assert release.due_ns(9, 20 * S) == 9 * S + PROBE_FIRST_NS


def test_an_old_receipt_and_one_of_another_receiver_change_nothing() -> None:
    release = Release(0)
    assert release.receipt(10, 0) is None
    release.probed(11, 20, S)
    assert release.receipt(3, 2 * S) is None
    assert release.receipt(15, 3 * S) is None
    assert release.receipt(3, 4 * S) is None
    assert release.mark == 15
    assert release.receipt(15, 5 * S) == 15

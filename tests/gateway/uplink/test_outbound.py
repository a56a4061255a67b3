"""Where each entry is, against a twin that looks at each by itself: a hub, a broker that keeps order, a receiver."""

import random
from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.config.delivery import Ack
from gateway.uplink.outbound import Outbound
from gateway.uplink.patience import NS_PER_S
from gateway.uplink.receipt import Held
from gateway.uplink.release import PROBE_AGAIN_NS, PROBE_FIRST_NS, PROBE_MOST_NS, Release
from gateway.uplink.spans import Spans

S = NS_PER_S
HOUR = 3600


def members(spans: object) -> set[int]:
    return {n for first, last in spans for n in range(first, last + 1)}  # type: ignore[attr-defined]


class World:
    """A second: the hub sends, answers come, the receiver reads, a receipt comes back."""

    def __init__(self, *, by_receipt: bool, rng: random.Random, in_order: bool = False) -> None:
        self.outbound = Outbound(0, by_receipt=by_receipt)
        self.release = Release()
        self.by_receipt, self.rng, self.in_order = by_receipt, rng, in_order
        self.now = self.next_id = self.journalled = 0
        self.sends = self.probes = 0
        self.queue: deque[tuple[int, int]] = deque()
        self.unanswered: list[tuple[int, tuple[int, int]]] = []
        self.accepted: set[int] = set()
        self.held: set[int] = set()
        self.gone: set[int] = set()

    @property
    def now_ns(self) -> int:
        return self.now * S

    def write(self, count: int) -> None:
        self.journalled += count
        self.outbound.extend(self.journalled)

    def send(self, most: int) -> None:
        """Whatever waits, a message at a time, from a place that is drawn."""
        while most and (pending := [*self.outbound.pending]):
            first, last = pending[0] if self.in_order else self.rng.choice(pending)
            if not self.in_order and self.rng.random() < 0.3:
                first = self.rng.randint(first, last)
            last = min(last, first + self.rng.randint(0, 4))
            self.next_id += 1
            self.outbound.launch(self.next_id, first, last, 100, self.now_ns)
            self.release.sent(self.now_ns)
            self.unanswered.append((self.next_id, (first, last)))
            self.sends += last - first + 1
            self.queue.append((first, last))
            most -= 1

    def answer(self, *, refuse: float = 0.0, late: float = 0.0) -> None:
        for item in self.unanswered[:]:
            if self.rng.random() < late:
                continue
            self.unanswered.remove(item)
            message_id, span = item
            refused = self.rng.random() < refuse
            if refused and span in self.queue:
                self.queue.remove(span)
            flight = self.outbound.land(message_id, accepted=not refused)
            assert flight is not None
            assert (flight.first, flight.last) == span
            if not refused:
                self.accepted |= members([span])

    def reconnect(self) -> None:
        """What has no answer may or may not have reached the broker."""
        for _, span in self.unanswered:
            if self.rng.random() < 0.5 and span in self.queue:
                self.queue.remove(span)
        self.unanswered.clear()
        self.outbound.disconnected()
        self.release.connected()

    def probe(self) -> None:
        last = self.outbound.last_unreceipted
        due_ns = self.release.due_ns(self.now_ns, waits=last is not None)
        if last is not None and due_ns is not None and self.now_ns >= due_ns:
            self.queue.append((last, last))
            self.probes += 1
            self.release.probed(self.now_ns)

    def tick(self, *, reads: int = 1000, receipt: bool = True, **how: float) -> None:
        self.now += 1
        if self.by_receipt:
            self.probe()
        self.send(1000)
        self.answer(**how)
        for _ in range(min(reads, len(self.queue))):
            self.held |= members([self.queue.popleft()])
        if receipt and self.by_receipt and reads:
            self.give_receipt()
        self.check()

    def give_receipt(self) -> None:
        high = max(self.held, default=0)
        holes = Spans([(1, high)])
        for n in self.held:
            holes.remove(n, n)
        if self.outbound.receipt(Held(high, tuple(holes.coarse(256))), self.now_ns):
            self.release.moved(self.now_ns)

    def evict(self, first: int, last: int) -> None:
        spans = [*self.outbound.pending.within(first, last)]
        for a, b in spans:
            assert self.outbound.gone(a, b) == b - a + 1
            self.gone |= members([(a, b)])

    def check(self) -> None:
        outbound = self.outbound
        delivered = members(outbound.delivered) | set(range(1, outbound.cursor + 1))
        proved = self.held if self.by_receipt else self.accepted
        assert delivered <= proved | self.gone, "delivered, and nobody said so"
        assert outbound.cursor + 1 not in delivered, "the cursor stands before the first hole"
        flying = members(span for _, span in self.unanswered)
        waiting = members(outbound.pending)
        assert not waiting & (delivered | flying), "sent twice at a time"
        everything = set(range(1, self.journalled + 1))
        elsewhere = everything - delivered - flying - waiting
        assert elsewhere <= self.accepted
        assert not elsewhere or self.by_receipt
        assert outbound.unreceipted == len(elsewhere - flying)
        assert members(outbound.undelivered()) == everything - delivered

    def settle(self, most: int) -> None:
        for _ in range(most):
            if self.outbound.cursor == self.journalled:
                return
            self.tick()
        raise AssertionError(f"after {most} s: {self.outbound}")


STEPS = st.lists(
    st.sampled_from(
        ["tick", "tick", "away", "deaf", "slow", "write", "forget", "reconnect", "late", "refuse", "evict"]
    ),
    max_size=60,
)  # fmt: skip


@settings(max_examples=250, deadline=None)
@given(STEPS, st.integers(1, 30), st.integers(0, 2**32), st.sampled_from(Ack))
def test_only_what_arrived_is_given_free_and_everything_is_in_the_end(
    steps: list[str], burst: int, seed: int, ack: Ack
) -> None:
    rng, by_receipt = random.Random(seed), ack is Ack.RECEIVER
    world = World(by_receipt=by_receipt, rng=rng)
    for step in steps:
        match step:
            case "write":
                world.write(burst)
            case "forget":
                kept = [span for span in world.queue if rng.random() < 0.5]
                world.queue = deque(kept)
            case "reconnect":
                world.reconnect()
            case "evict":
                first = rng.randint(1, world.journalled + 1)
                world.evict(first, first + 5)
            case _:
                world.tick(
                    reads={"away": 0, "slow": 3}.get(step, 1000),
                    receipt=step != "deaf",
                    late=0.7 if step == "late" else 0.0,
                    refuse=0.3 if step == "refuse" else 0.0,
                )
        world.check()
    before = world.sends
    waiting = world.outbound.pending.count + world.outbound.unreceipted + len(world.unanswered) * 5
    world.settle(3 * PROBE_MOST_NS // S)
    missing = set(range(1, world.journalled + 1)) - world.held - world.gone
    assert not missing or not by_receipt
    # What was lost before costs one more time: nothing else is sent twice.
    assert world.sends - before <= waiting


def twice(outbound: Outbound, held: Held, now: int = 0) -> bool:
    """The same receipt, and again when that is no more a matter of order."""
    news = outbound.receipt(held, now * S)
    outbound.receipt(held, (now + 2) * S)
    return news


def test_a_receipt_shows_what_was_lost_before_what_it_holds_and_nothing_else() -> None:
    outbound = Outbound(0, by_receipt=True)
    outbound.extend(100)
    for n, (first, last) in enumerate([(91, 95), (1, 10), (11, 20), (96, 100), (21, 30)]):
        outbound.launch(n, first, last, 10, 0)
        outbound.land(n, accepted=True)
    assert outbound.unreceipted == 40
    # 91 to 95 were lost, and half of the run 1 to 20; 96 and 21 may be still on their way.
    assert twice(outbound, Held(20, ((1, 10),)))
    assert [*outbound.pending] == [(1, 10), (31, 95)]
    assert outbound.unreceipted == 15
    assert outbound.last_unreceipted == 30
    assert not twice(outbound, Held(20, ((1, 10),)), 3)
    assert twice(outbound, Held(100, ((1, 10), (21, 95))), 6)
    assert [*outbound.pending] == [(1, 10), (31, 95)]
    assert [*outbound.undelivered()] == [(1, 10), (21, 95)]


def test_what_is_under_way_proves_and_is_not_sent_again_while_it_is() -> None:
    outbound = Outbound(0, by_receipt=True)
    outbound.extend(9)
    for n, span in enumerate([(1, 3), (4, 6), (7, 9)]):
        outbound.launch(n, *span, 10, 0)
    outbound.land(0, accepted=True)
    twice(outbound, Held(9, ((1, 6),)))
    assert [*outbound.pending] == [(1, 3)]
    assert (outbound.in_flight, outbound.unreceipted) == (2, 0)
    outbound.land(1, accepted=True)
    outbound.land(2, accepted=True)
    assert (outbound.unreceipted, outbound.in_flight) == (3, 0)
    assert [*outbound.undelivered()] == [(1, 6)]


def test_what_has_no_answer_is_sent_again_by_the_next_connection() -> None:
    for by_receipt in (False, True):
        outbound = Outbound(0, by_receipt=by_receipt)
        outbound.extend(9)
        for n, span in enumerate([(1, 3), (4, 6), (7, 9)]):
            outbound.launch(n, *span, 10, 0)
        outbound.land(1, accepted=True)
        outbound.disconnected()
        assert [*outbound.pending] == [(1, 3), (7, 9)]
        assert (outbound.in_flight, outbound.unreceipted) == (0, 3 if by_receipt else 0)


def test_answers_in_another_order_do_not_change_the_order_of_sending() -> None:
    outbound = Outbound(0, by_receipt=True)
    outbound.extend(9)
    for n, span in enumerate([(1, 3), (4, 6), (7, 9)]):
        outbound.launch(n, *span, 10, 0)
    for n in (2, 0, 1):
        outbound.land(n, accepted=True)
    twice(outbound, Held(6, ((1, 3),)))
    assert [*outbound.pending] == [(1, 3)]
    assert outbound.last_unreceipted == 9


def test_what_comes_a_little_later_than_what_was_sent_behind_it_is_not_sent_again() -> None:
    """Two receivers on one database: one has committed already what was sent later."""
    outbound = Outbound(0, by_receipt=True)
    for n in range(1, 31):
        outbound.extend(n)
        outbound.launch(n, n, n, 10, 0)
        outbound.land(n, accepted=True)
        held = Held(n - 1) if n % 2 else Held(n, ((n - 1, n - 1),))
        for part in range(3):
            outbound.receipt(held, n * S + part * S // 4)
        assert [*outbound.pending] == []
    for now in (32, 34):
        outbound.receipt(Held(30, ((29, 29),)), now * S)
    assert [*outbound.pending] == [(29, 29)]


def test_what_came_after_all_is_not_suspected_any_more() -> None:
    outbound = Outbound(0, by_receipt=True)
    outbound.extend(20)
    for n in (0, 1):
        outbound.launch(n, 10 * n + 1, 10 * n + 10, 10, 0)
        outbound.land(n, accepted=True)
    outbound.receipt(Held(20, ((1, 10),)), 0)
    assert outbound.is_suspected
    outbound.receipt(Held(20, ((1, 5),)), 1)
    assert outbound.is_suspected
    outbound.receipt(Held(20), 1)
    assert not outbound.is_suspected


def test_what_is_remembered_of_an_earlier_life_is_not_sent_again() -> None:
    outbound = Outbound(10, [(5, 12), (20, 30)])
    assert outbound.cursor == 12
    outbound.extend(40)
    assert [*outbound.pending] == [(13, 19), (31, 40)]
    outbound.launch(1, 13, 19, 10, 0)
    outbound.land(1, accepted=True)
    assert outbound.cursor == 30
    assert [*outbound.delivered] == []


def test_an_answer_to_nothing_changes_nothing() -> None:
    outbound = Outbound(0)
    assert outbound.land(7, accepted=True) is None
    assert outbound.cursor == 0
    assert outbound.oldest_ns is None


# --- Asking the receiver -------------------------------------------------------------------------------


def in_order() -> World:
    return World(by_receipt=True, rng=random.Random(1), in_order=True)


def test_while_the_receiver_is_away_it_is_asked_seldom_and_nothing_is_sent_again() -> None:
    world = in_order()
    for _ in range(HOUR // 6):
        world.write(1)
        world.tick(reads=0)
    assert world.probes == 0, "what is new asks as well"
    for _ in range(2 * HOUR):
        world.tick(reads=0)
    assert 5 <= world.probes <= 25
    sends, probes = world.sends, world.probes
    assert sends == world.journalled
    while world.queue:
        world.tick(reads=20)
    world.settle(10)
    assert (world.probes, world.sends) == (probes, sends)


def test_a_broker_that_forgets_while_the_receiver_is_away_costs_one_repeat() -> None:
    world = in_order()
    for _ in range(HOUR // 6):
        world.write(1)
        world.tick(reads=0)
    world.queue.clear()
    world.reconnect()
    world.settle(30)
    assert world.sends <= 2 * world.journalled
    assert world.probes <= 3


@pytest.mark.parametrize("seed", range(3))
def test_many_small_losses_are_all_mended(seed: int) -> None:
    world, rng = World(by_receipt=True, rng=random.Random(seed)), random.Random(seed)
    for _ in range(200):
        world.write(10)
        world.tick()
        if rng.random() < 0.1:
            world.write(5)
            world.tick(reads=0)
            world.queue.remove(rng.choice(world.queue))
    world.settle(60)


def test_a_new_connection_asks_soon_and_then_ever_more_seldom() -> None:
    release, now, waits = Release(), 0, []
    release.connected()
    for _ in range(12):
        due = release.due_ns(now, waits=True)
        assert due is not None
        waits.append(due - now)
        now = due
        release.probed(now)
    assert waits[:3] == [PROBE_AGAIN_NS, 2 * PROBE_AGAIN_NS, 4 * PROBE_AGAIN_NS]
    assert waits[-2:] == [PROBE_MOST_NS] * 2


def test_nothing_is_due_when_everything_has_a_receipt_and_each_new_one_gives_time() -> None:
    release = Release()
    assert release.due_ns(0, waits=False) is None
    assert release.due_ns(7 * S, waits=True) == 7 * S + PROBE_FIRST_NS
    release.moved(9 * S)
    assert release.due_ns(20 * S, waits=True) == 9 * S + PROBE_FIRST_NS
    release.sent(12 * S)
    assert release.due_ns(20 * S, waits=True) == 12 * S + PROBE_FIRST_NS

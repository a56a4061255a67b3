"""One stream and the receipts for it: what holds it back, what does not, and what is sent again."""

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from gateway.config.delivery import Delivery
from gateway.journal.entry import Batch, Stream
from gateway.uplink.asks import Asks
from gateway.uplink.lane import Lane
from gateway.uplink.lanes import Lanes
from gateway.uplink.order import Unmetered
from gateway.uplink.outbound import Flight
from gateway.uplink.patience import NS_PER_S, Backoff, Timing
from gateway.uplink.receipt import Held, Receipt
from gateway.uplink.release import PROBE_AGAIN_NS, PROBE_FIRST_NS
from tests.gateway.uplink.bench import READING, MemoryJournal, clock

VITALS = Stream.VITALS
LATER = PROBE_FIRST_NS + NS_PER_S


class Journal(MemoryJournal):
    """One whose last entries may be gone."""

    least_high_water = 0

    def high_water(self, stream: Stream) -> int:
        return max(self.least_high_water, super().high_water(stream))


class Bench:
    """Batches of five entries, each a message of its own; the broker has all of them."""

    def __init__(self, batches: int, released: int = 0) -> None:
        self.journal = Journal()
        for _ in range(batches):
            self.journal.commit(VITALS, 5)
        self.journal.cursors[VITALS] = released
        self.lane = Lane(self.journal, VITALS, by_receipt=True)
        self.next_id = 0

    async def send(self) -> list[int]:
        ids = []
        while (piece := await self.lane.peek(100_000)) is not None:
            self.next_id += 1
            flight = Flight(piece.first, piece.last, len(piece.payload), 0)
            self.lane.outbound.launch(self.next_id, flight)
            self.lane.prepared.popleft()
            ids.append(self.next_id)
        return ids

    async def deliver(self) -> None:
        for mid in await self.send():
            self.lane.outbound.land(mid, accepted=True)


def drive(story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await story()

    asyncio.run(main())


@pytest.mark.parametrize(
    ("holes", "released"),
    [
        ((), 20),
        (((6, 10),), 5),
        (((8, 8),), 7),
        (((1, 20),), 5),
        (((1, 5),), 20),
        (((2, 3),), 20),
        (((1, 5), (12, 13), (15, 15)), 11),
        (((3, 7),), 5),
        (((20, 20),), 19),
        (((21, 30),), 20),
    ],
)
def test_a_hole_holds_back_while_its_entries_exist(
    holes: tuple[tuple[int, int], ...], released: int
) -> None:
    async def story() -> None:
        bench = Bench(4)
        await bench.deliver()
        bench.journal.evict(VITALS)  # 1 to 5
        await bench.lane.receipt(Held(20, holes), 0)
        assert bench.lane.released == released

    drive(story)


def test_a_hole_in_the_middle_that_is_gone_does_not_hold_back() -> None:
    async def story() -> None:
        bench = Bench(4)
        await bench.deliver()
        del bench.journal.batches[VITALS][1:3]  # 6 to 15
        await bench.lane.receipt(Held(20, ((6, 9), (11, 15))), 0)
        assert bench.lane.released == 20

    drive(story)


def test_a_receipt_that_claims_more_than_there_is_gives_free_what_there_is() -> None:
    async def story() -> None:
        bench = Bench(2)
        await bench.deliver()
        await bench.lane.receipt(Held(2**64), 0)
        assert bench.lane.released == 10
        await bench.lane.write_cursor(0)
        assert bench.journal.cursors[VITALS] == 10

    drive(story)


def test_holes_in_what_was_given_free_before_this_receiver_came_do_not_hold_back() -> None:
    async def story() -> None:
        bench = Bench(4, released=10)
        await bench.deliver()
        await bench.lane.receipt(Held(20, ((1, 10),)), 0)
        assert bench.lane.released == 20
        bench = Bench(4, released=8)
        await bench.deliver()
        await bench.lane.receipt(Held(20, ((3, 12),)), 0)
        assert bench.lane.released == 8
        await bench.lane.receipt(Held(20, ((3, 8), (11, 12))), 0)
        assert bench.lane.released == 10

    drive(story)


def test_a_receipt_that_goes_back_takes_nothing_back() -> None:
    async def story() -> None:
        bench = Bench(4)
        await bench.deliver()
        await bench.lane.receipt(Held(15), 0)
        await bench.lane.receipt(Held(3), 0)
        await bench.lane.receipt(Held(15, ((2, 9),)), 0)
        assert bench.lane.released == 15

    drive(story)


def test_the_probe_is_one_entry_and_what_the_broker_lost_is_sent_again() -> None:
    async def story() -> None:
        bench = Bench(4)
        await bench.deliver()
        lane = bench.lane
        await lane.receipt(Held(5), 0)
        assert await lane.probe(NS_PER_S) is None
        piece = await lane.probe(LATER)
        assert piece is not None
        assert (piece.first, piece.last) == (6, 6)
        await lane.receipt(Held(6), LATER)
        assert not lane.rests(LATER)
        assert lane.outbound.sent == 6
        await bench.deliver()
        assert lane.outbound.cursor == 20

    drive(story)


def test_sending_again_waits_until_nothing_is_under_way() -> None:
    async def story() -> None:
        bench = Bench(3)
        await bench.deliver()
        lane = bench.lane
        assert lane.probe_due_ns(0) is not None
        assert await lane.probe(LATER) is not None
        bench.journal.commit(VITALS, 5)
        (flying,) = await bench.send()
        await lane.receipt(Held(1), LATER)
        assert lane.outbound.in_flight == 1
        assert lane.rests(LATER)
        lane.outbound.land(flying, accepted=True)
        assert not lane.rests(LATER)
        assert lane.outbound.sent == 1
        await bench.deliver()
        assert lane.outbound.cursor == 20

    drive(story)


def test_a_new_connection_sends_again_what_the_broker_lost() -> None:
    async def story() -> None:
        bench = Bench(2)
        await bench.deliver()
        lane = bench.lane
        lane.probe_due_ns(0)
        assert await lane.probe(LATER) is not None
        await lane.receipt(Held(1), LATER)
        lane.connected()
        assert lane.outbound.sent == 1
        await bench.deliver()
        assert lane.probe_due_ns(LATER) == LATER + PROBE_AGAIN_NS

    drive(story)


@pytest.mark.parametrize("batches", [slice(0, 1), slice(0, 2), slice(0, 3)])
def test_what_was_sent_and_is_gone_is_not_waited_for(batches: slice) -> None:
    async def story() -> None:
        bench = Bench(3)
        bench.journal.least_high_water = bench.journal.high_water(VITALS)
        await bench.deliver()
        del bench.journal.batches[VITALS][batches]
        lane = bench.lane
        lane.probe_due_ns(0)
        piece = await lane.probe(LATER)
        if batches.stop < 3:
            assert piece is not None
            assert piece.first == lane.released + 1 == 5 * batches.stop + 1
        else:
            assert piece is None
            assert lane.is_delivered
            assert lane.probe_due_ns(LATER) is None

    drive(story)


def test_what_becomes_durable_while_the_journal_is_read_is_not_given_free() -> None:
    class Late(Journal):
        least_high_water = 5

        def read(self, stream: Stream, after: int) -> Batch | None:
            found = super().read(stream, after)
            if found is None and after < 10:
                self.commit(stream, 10)
            return found

    async def story() -> None:
        bench = Bench(1)
        await bench.deliver()
        lane, journal = bench.lane, Late()
        lane._source = journal
        lane.probe_due_ns(0)
        assert await lane.probe(LATER) is None
        assert journal.high_water(VITALS) > 5
        assert lane.released == 5

    drive(story)


def test_an_unreadable_end_is_passed_over() -> None:
    async def story() -> None:
        bench = Bench(1)
        await bench.deliver()
        bench.journal.least_high_water = 9
        assert await bench.lane.peek(100_000) is None
        assert bench.lane.evicted == 4
        assert bench.lane.outbound.cursor == 9
        await bench.lane.receipt(Held(5), 0)
        assert await bench.lane.probe(LATER) is None
        assert bench.lane.is_delivered

    drive(story)


@pytest.mark.parametrize(("stream", "most"), [(VITALS, 20), (Stream.ALARM, 40)])
def test_what_the_receiver_does_not_take_stays_in_the_journal(
    stream: Stream, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uplink.lane.UNRECEIPTED_MOST", 20)

    async def story() -> None:
        bench = Bench(0)
        for _ in range(8):
            bench.journal.commit(stream, 5)
        bench.lane = Lane(bench.journal, stream, by_receipt=True)
        await bench.deliver()
        assert bench.lane.outbound.sent == most
        await bench.lane.receipt(Held(10), LATER)
        await bench.deliver()
        assert bench.lane.outbound.sent == min(most + 10, 40)

    drive(story)


def test_the_brokers_word_alone_needs_no_receipt_and_takes_none() -> None:
    async def story() -> None:
        bench = Bench(2)
        bench.lane = Lane(bench.journal, VITALS, by_receipt=False)
        await bench.lane.receipt(Held(10), 0)
        assert bench.lane.released == 0
        await bench.deliver()
        assert bench.lane.released == 10
        assert bench.lane.probe_due_ns(LATER) is None

    drive(story)


def all_lanes(journal: MemoryJournal) -> Lanes:
    return Lanes(
        journal,
        Backoff(Timing(), random.Random(1)),
        NS_PER_S,
        Unmetered(),
        Asks(clock(), lambda: None),
        by_receipt=True,
        payload_of=Delivery().payload_of,
    )


async def send_all(lanes: Lanes) -> None:
    mid = 0
    while (found := await lanes.next(100_000, READING)) is not None:
        lane, piece = found
        mid += 1
        lane.launch(mid, piece, 0)
        lanes.land(mid, None, 0)


def test_a_probe_that_the_broker_would_not_take_is_not_sent_and_said() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        journal.commit(VITALS, 1)
        lanes = all_lanes(journal)
        await send_all(lanes)
        list(lanes.deadlines(0, has_room=True))
        assert await lanes.probe(100, LATER) is None
        refusal = lanes.status()[VITALS].refusal
        assert refusal is not None
        assert "entry 1" in refusal
        found = await lanes.probe(100_000, LATER + 2 * LATER)
        assert found is not None
        assert found[1].last == 1

    drive(story)


def test_a_full_window_waits_for_an_answer_and_for_nothing_that_needs_room() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        journal.commit(VITALS, 1)
        lanes = all_lanes(journal)
        await send_all(lanes)
        assert list(filter(None, lanes.deadlines(1, has_room=True))) == [1 + PROBE_FIRST_NS]
        for lane in lanes:
            lane.refuse("0x97", 7)
        assert 7 in list(lanes.deadlines(LATER, has_room=True))
        assert list(lanes.deadlines(LATER, has_room=False)) == []

    drive(story)


def test_a_receipt_speaks_of_each_stream_by_itself() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        journal.commit(VITALS, 3)
        journal.commit(Stream.ALARM, 2)
        lanes = all_lanes(journal)
        await send_all(lanes)
        held = {VITALS: Held(3), Stream.AUDIT: Held(9)}
        await lanes.receipt(Receipt("h", "r", "e", held), 0)
        assert not lanes.is_delivered
        await lanes.write_cursors(0, at_once=True)
        assert journal.cursors == {**dict.fromkeys(Stream, 0), VITALS: 3}
        await lanes.receipt(Receipt("h", "r", "e", {Stream.ALARM: Held(2)}), 0)
        assert lanes.is_delivered

    drive(story)

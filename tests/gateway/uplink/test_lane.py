"""One stream, and all: what is next, what the receipts give free, and what is gone."""

import random
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.config.delivery import Delivery, Payload
from gateway.journal.entry import Batch, Stream
from gateway.uplink.asks import Asks
from gateway.uplink.lane import Lane
from gateway.uplink.lanes import Lanes
from gateway.uplink.notice import MAX_PENDING
from gateway.uplink.order import LIVE_NS, MOST_SPANS, Age, Unmetered
from gateway.uplink.packed import READ_BYTES, unpacked
from gateway.uplink.patience import NS_PER_S, Backoff, Timing
from gateway.uplink.receipt import Held, Receipt
from gateway.uplink.release import DOUBT_NS, PROBE_AGAIN_NS, PROBE_FIRST_NS
from gateway.uplink.slices import Slice
from tests.gateway.uplink.bench import DAY_NS, READING, MemoryJournal
from tests.gateway.uplink.virtual import VirtualClock, play

VITALS = Stream.VITALS
LATER = PROBE_FIRST_NS + NS_PER_S


class Journal(MemoryJournal):
    """One whose last entries may be gone."""

    least_high_water = 0

    def high_water(self, stream: Stream) -> int:
        return max(self.least_high_water, super().high_water(stream))


class Bench:
    """Batches of five entries, each a message of its own; a day has two of them."""

    def __init__(
        self,
        batches: int,
        *,
        stream: Stream = VITALS,
        released: int = 0,
        by_receipt: bool = True,
        payload: Payload = Payload.JSON,
    ) -> None:
        self.stream = stream
        self.payload = payload
        self.journal = Journal()
        for n in range(batches):
            self.journal.wall_ns = n // 2 * DAY_NS
            self.journal.commit(stream, 5)
        self.journal.cursors[stream] = released
        self.asks = Asks(VirtualClock(), lambda: None)
        self.by_receipt = by_receipt
        self.next_id = 0
        self.start()

    def start(self) -> None:
        self.lane = Lane(
            self.journal, self.stream, self.asks, by_receipt=self.by_receipt, payload=self.payload
        )
        self.asks.follow(dict.fromkeys(Stream, self.lane))

    async def next(self, *ages: Age, now_ns: int = 0) -> Slice | None:
        for age in ages or Age:
            piece = await self.lane.peek(age, 100_000, now_ns)
            if piece is not None:
                self.next_id += 1
                self.lane.launch(age, self.next_id, piece, now_ns)
                return piece
        return None

    async def firsts(self, *ages: Age, most: int = 1000, now_ns: int = 0) -> list[int]:
        """Sends, and the broker takes it. Where each message began."""
        found: list[int] = []
        while len(found) < most and (piece := await self.next(*ages, now_ns=now_ns)) is not None:
            self.lane.outbound.land(self.next_id, accepted=True)
            found.append(piece.first)
        return found


def drive(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    play(story)


# --- What is next ----------------------------------------------------------------------------------------


def test_what_is_new_goes_before_the_newest_day_and_that_before_the_others() -> None:
    async def story() -> None:
        bench = Bench(5)
        for _ in range(2):
            bench.journal.commit(VITALS, 5)
        assert await bench.firsts() == [26, 31, 21, 11, 16, 1, 6]

    drive(story)


def test_what_becomes_durable_meanwhile_goes_first_and_alarms_go_in_their_order() -> None:
    async def story() -> None:
        for stream, rest in ((VITALS, [16, 1, 6]), (Stream.ALARM, [6, 11, 16, 21])):
            bench = Bench(4, stream=stream)
            assert await bench.firsts(most=1) == [11 if stream is VITALS else 1]
            bench.journal.commit(stream, 5)
            assert await bench.firsts() == ([21, *rest] if stream is VITALS else rest)

    drive(story)


def test_a_stream_that_cannot_be_caught_up_with_goes_on_with_what_is_new() -> None:
    async def story() -> None:
        bench = Bench(0)
        assert await bench.firsts(Age.LIVE) == []
        for _ in range(4):
            bench.journal.commit(VITALS, 5)
        assert await bench.firsts(Age.LIVE, most=1, now_ns=1) == [1]
        assert await bench.firsts(Age.LIVE, most=1, now_ns=LIVE_NS) == [6]
        assert await bench.firsts(Age.LIVE, now_ns=LIVE_NS + 1) == []
        bench.journal.commit(VITALS, 5)
        assert await bench.firsts(now_ns=LIVE_NS + 2) == [21, 11, 16]

    drive(story)


def test_a_short_interruption_leaves_no_hole() -> None:
    async def story() -> None:
        bench = Bench(0)
        await bench.firsts(Age.LIVE)
        bench.journal.commit(VITALS, 5)
        bench.lane.connected()
        bench.journal.commit(VITALS, 5)
        assert await bench.firsts(Age.LIVE, now_ns=LIVE_NS) == [1, 6]

    drive(story)


def test_what_was_asked_for_goes_by_itself_the_newest_ask_last() -> None:
    async def story() -> None:
        bench = Bench(8)
        for name, span in (("a", (6, 15)), ("b", (31, 35))):
            ask = _ask(name)
            bench.asks.add(ask)
            bench.asks.found(ask, [span], all_of_it=True)
        bench.journal.commit(VITALS, 5)
        assert await bench.firsts(Age.ASKED) == [6, 11, 31]
        assert [(p.sent, p.waiting) for p in bench.asks.progress()] == [(0, 10), (0, 5)]
        assert await bench.firsts() == [41, 36, 21, 26, 16, 1]

    drive(story)


def _ask(name: str) -> Any:
    from gateway.uplink.order import Ask  # noqa: PLC0415 - for this alone

    return Ask(name, VITALS, 1, 2)


def test_spans_are_bounded_and_the_smallest_goes_before_there_are_more() -> None:
    async def story() -> None:
        bench = Bench(0, by_receipt=False)
        now = 0
        await bench.firsts(Age.LIVE)
        for n in range(3 * MOST_SPANS):
            now += 2 * LIVE_NS
            bench.journal.commit(VITALS, 5)
            bench.journal.commit(VITALS, 5 + n % 7)
            assert await bench.firsts(Age.LIVE, now_ns=now) == []
            bench.journal.commit(VITALS, 5)
            sent = await bench.firsts(Age.LIVE, now_ns=now)
            assert sent
            assert len(bench.lane.outbound.pending) <= MOST_SPANS
            if n >= MOST_SPANS:
                assert len(sent) > 1
            assert len(bench.lane.mark(MAX_PENDING).pending) <= MOST_SPANS

    drive(story)


def test_a_slice_that_no_longer_fits_what_waits_is_cut_anew() -> None:
    async def story() -> None:
        bench = Bench(1)
        piece = await bench.lane.peek(Age.BACKLOG, 100_000, 0)
        assert piece is not None
        assert (piece.first, piece.last) == (1, 5)
        bench.lane.receipt(Held(4, ((1, 2),)), 0)
        assert await bench.firsts() == [1, 5]
        assert [*bench.lane.outbound.undelivered()] == [(1, 2), (5, 5)]

    drive(story)


# --- Many batches in a message ---------------------------------------------------------------------------


def test_packed_batches_share_a_message_of_their_day_and_what_is_new_does_not_wait_for_more() -> (
    None
):
    async def story() -> None:
        bench = Bench(6, payload=Payload.CBOR)
        bench.journal.commit(VITALS, 5)
        spans = []
        while piece := await bench.next():
            spans.append((piece.first, piece.last))
            held = [entry.sequence for p in unpacked(piece.payload) for entry in p.batch.entries]
            assert held == [*range(piece.first, piece.last + 1)]
        assert spans == [(31, 35), (21, 30), (11, 20), (1, 10)]
        assert len(bench.journal.reads) == 7

    drive(story)


def test_a_message_is_bounded_by_what_is_read_for_it() -> None:
    async def story() -> None:
        bench = Bench(0, payload=Payload.CBOR)
        for _ in range(20):
            bench.journal.commit(VITALS, READ_BYTES // 30 // 10)
        pieces = [await bench.next(Age.LIVE) for _ in range(3)]
        whole = READ_BYTES // 30 // 10 * 10
        assert [piece and piece.count for piece in pieces] == [whole, whole, None]

    drive(story)


def test_of_a_batch_that_went_in_part_the_rest_counts_and_all_of_it_goes() -> None:
    async def story() -> None:
        bench = Bench(2, released=3, payload=Payload.CBOR)
        piece = await bench.next()
        assert piece is not None
        assert (piece.first, piece.last) == (4, 10)
        assert [p.batch.first_sequence for p in unpacked(piece.payload)] == [1, 6]

    drive(story)


def test_packed_batches_end_before_a_hole_and_what_is_gone_is_passed_over() -> None:
    async def story() -> None:
        bench = Bench(4, payload=Payload.CBOR, by_receipt=False)
        bench.journal.wall_ns = 0
        del bench.journal.batches[VITALS][2]
        assert await bench.firsts(Age.BACKLOG) == [16, 1]
        assert bench.lane.evicted == 5
        assert bench.lane.is_delivered

    drive(story)


def test_a_probe_of_packed_batches_is_one_entry() -> None:
    async def story() -> None:
        bench = Bench(2, payload=Payload.CBOR)
        await bench.firsts()
        bench.lane.probe_due_ns(0)
        probe = await bench.lane.probe(LATER)
        assert probe is not None
        (part,) = unpacked(probe.payload)
        assert [entry.sequence for entry in part.batch.entries] == [probe.first] == [10]

    drive(story)


def test_what_was_delivered_behind_the_cursor_is_remembered() -> None:
    async def story() -> None:
        bench = Bench(6, by_receipt=False)
        assert await bench.firsts(most=3) == [21, 26, 11]
        assert (bench.lane.needs_writing, bench.journal.beyond[VITALS]) == (True, ())
        await bench.lane.write_cursor(7)
        assert (bench.lane.needs_writing, bench.journal.beyond[VITALS]) == (
            False,
            ((11, 15), (21, 30)),
        )
        bench.start()
        assert bench.lane.undelivered().count == 15
        assert await bench.firsts() == [16, 1, 6]
        assert bench.lane.is_delivered
        bench.journal.beyond[VITALS] = ((11, 400),)
        bench.start()
        bench.journal.commit(VITALS, 5)
        assert await bench.firsts() == [31, 1, 6], "it knows of nothing that is not durable"

    drive(story)


# --- On the receiver's word ------------------------------------------------------------------------------


def test_a_receipt_gives_free_the_prefix_and_spares_the_rest() -> None:
    async def story() -> None:
        bench = Bench(4)
        bench.lane.outbound.extend(20)
        bench.lane.receipt(Held(18, ((6, 10), (12, 12))), 0)
        assert bench.lane.released == 5
        assert [*bench.lane.undelivered()] == [(6, 10), (12, 12), (19, 20)]
        assert await bench.firsts() == [12, 19, 6]

    drive(story)


def test_a_receipt_that_claims_more_than_there_is_gives_free_what_there_is() -> None:
    async def story() -> None:
        bench = Bench(2)
        await bench.firsts()
        bench.lane.receipt(Held(2**64), 0)
        assert bench.lane.released == 10
        await bench.lane.write_cursor(0)
        assert bench.journal.cursors[VITALS] == 10

    drive(story)


def test_holes_in_what_was_given_free_before_this_receiver_came_do_not_hold_back() -> None:
    async def story() -> None:
        bench = Bench(4, released=10)
        await bench.firsts()
        bench.lane.receipt(Held(20, ((1, 10),)), 0)
        assert bench.lane.released == 20

    drive(story)


def test_a_receipt_that_goes_back_takes_nothing_back() -> None:
    async def story() -> None:
        bench = Bench(4)
        await bench.firsts()
        bench.lane.receipt(Held(20, ((16, 20),)), 0)
        bench.lane.receipt(Held(3), 0)
        bench.lane.receipt(Held(15, ((2, 9),)), 0)
        assert bench.lane.released == 15

    drive(story)


def test_the_probe_is_the_last_entry_alone_and_what_the_broker_lost_is_sent_again() -> None:
    async def story() -> None:
        bench = Bench(4)
        assert await bench.firsts() == [11, 16, 1, 6]
        lane = bench.lane
        assert lane.probe_due_ns(0) == PROBE_FIRST_NS
        assert await lane.probe(PROBE_FIRST_NS - 1) is None
        piece = await lane.probe(LATER)
        assert piece is not None
        assert (piece.first, piece.last) == (10, 10)
        assert await lane.probe(LATER) is None
        for now_ns in (LATER, 2 * LATER):
            lane.receipt(Held(15, ((1, 9),)), now_ns)
        assert await bench.firsts() == [16, 1, 6]
        assert [*lane.undelivered()] == [(1, 9), (16, 20)]

    drive(story)


def test_a_new_connection_sends_again_what_has_no_answer_and_asks_for_the_rest() -> None:
    async def story() -> None:
        bench = Bench(3)
        assert await bench.firsts(most=1) == [11]
        assert await bench.next() is not None
        bench.lane.connected()
        assert await bench.firsts() == [1, 6]
        assert bench.lane.probe_due_ns(LATER) == LATER + PROBE_AGAIN_NS

    drive(story)


@pytest.mark.parametrize("kept", [slice(1, 3), slice(2, 3), slice(0, 0)])
def test_what_was_sent_and_is_gone_is_not_waited_for(kept: slice) -> None:
    async def story() -> None:
        bench = Bench(3)
        lane = bench.lane
        assert await bench.firsts() == [11, 1, 6]
        bench.journal.least_high_water = 15
        bench.journal.batches[VITALS] = bench.journal.batches[VITALS][kept]
        lane.probe_due_ns(0)
        piece = await lane.probe(LATER)
        if kept.stop:
            assert piece is not None
            assert (piece.last in {10, 15}) == (piece.last == piece.first)
        else:
            assert piece is None
            assert lane.is_delivered
            assert lane.probe_due_ns(LATER) is None

    drive(story)


def test_what_becomes_durable_while_the_journal_is_read_is_not_given_up() -> None:
    class Late(Journal):
        least_high_water = 5

        def read(self, stream: Stream, after: int) -> Batch | None:
            found = super().read(stream, after)
            if found is None:
                self.commit(stream, 10)
            return found

    async def story() -> None:
        bench = Bench(0)
        journal = bench.journal = Late()
        bench.start()
        lane = bench.lane
        assert await lane.peek(Age.BACKLOG, 100_000, 0) is None
        assert (lane.released, lane.evicted) == (5, 5)
        assert journal.high_water(VITALS) == 15
        assert await bench.firsts() == [6]

    drive(story)


def test_an_unreadable_end_is_passed_over_and_so_is_a_middle() -> None:
    async def story() -> None:
        bench = Bench(6)
        bench.journal.least_high_water = 34
        del bench.journal.batches[VITALS][1:3]  # 6 to 15
        bench.start()
        assert await bench.firsts() == [21, 26, 16, 1]
        assert bench.lane.evicted == 4 + 10
        assert len(bench.journal.reads) == 4 + 2, "what is gone is found at once"
        assert [*bench.lane.undelivered()] == [(1, 5), (16, 30)]

    drive(story)


@pytest.mark.parametrize(("stream", "most"), [(VITALS, 20), (Stream.ALARM, 40)])
def test_what_the_receiver_does_not_take_stays_in_the_journal(
    stream: Stream, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.uplink.lane.UNRECEIPTED_MOST", 20)

    async def story() -> None:
        bench = Bench(8, stream=stream)
        assert 5 * len(await bench.firsts()) == most
        bench.lane.receipt(Held(40, ((1, 30),)), LATER)
        bench.lane.receipt(Held(40, ((1, 30),)), 2 * LATER)
        # Alarms went in order, so what is held behind them shows that they were lost; of the others it took ten.
        assert 5 * len(await bench.firsts()) == (10 if stream is VITALS else 30)

    drive(story)


def test_the_brokers_word_alone_needs_no_receipt_and_takes_none() -> None:
    async def story() -> None:
        bench = Bench(2, by_receipt=False)
        bench.lane.outbound.extend(10)
        bench.lane.receipt(Held(10), 0)
        assert bench.lane.released == 0
        await bench.firsts()
        assert bench.lane.released == 10
        assert bench.lane.probe_due_ns(LATER) is None

    drive(story)


# --- All streams -----------------------------------------------------------------------------------------


def all_lanes(journal: MemoryJournal) -> Lanes:
    return Lanes(
        journal,
        Backoff(Timing(), random.Random(1)),
        NS_PER_S,
        Unmetered(),
        Asks(VirtualClock(), lambda: None),
        "boot-1",
        by_receipt=True,
        payload_of=Delivery().payload_of,
    )


async def send_all(lanes: Lanes) -> list[tuple[Stream, Age]]:
    sent: list[tuple[Stream, Age]] = []
    while (ready := await lanes.next(100_000, READING)) is not None:
        sent.append((ready.lane.stream, ready.age))
        lanes.launch(ready, len(sent), 0)
        lanes.land(len(sent), None, 0)
    return sent


def test_every_class_has_its_place() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        for stream in Stream:
            journal.commit(stream, 1)
        lanes = all_lanes(journal)
        for stream in Stream:
            journal.commit(stream, 1)
        assert await send_all(lanes) == [
            (Stream.ALARM, Age.LIVE),
            (Stream.ALARM, Age.LIVE),
            (Stream.VITALS, Age.LIVE),
            (Stream.AUDIT, Age.LIVE),
            (Stream.WAVEFORM, Age.LIVE),
            (Stream.VITALS, Age.BACKLOG),
            (Stream.AUDIT, Age.BACKLOG),
            (Stream.WAVEFORM, Age.BACKLOG),
        ]

    drive(story)


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


RANKED = [Stream.ALARM, VITALS, Stream.AUDIT, Stream.WAVEFORM]
HOLDS_LAST = Held(3, ((1, 2),))
"""Of three entries the probe alone."""


def receipt(lanes: Lanes, now_s: int, streams: dict[Stream, Held]) -> None:
    lanes.receipt(Receipt("h", "r", "e", streams), now_s * NS_PER_S)


async def probes(lanes: Lanes, now_s: int) -> list[Stream]:
    found = []
    while (probe := await lanes.probe(100_000, now_s * NS_PER_S)) is not None:
        found.append(probe[0])
    return found


async def forgetful(*busy: Stream) -> tuple[MemoryJournal, Lanes, dict[Stream, Held]]:
    """A broker forgot three entries of each stream, and of the busy ones the receiver has a fourth."""
    journal = MemoryJournal()
    lanes = all_lanes(journal)
    for stream in Stream:
        journal.commit(stream, 3)
    await send_all(lanes)
    list(lanes.deadlines(0, has_room=True))
    for stream in busy:
        journal.commit(stream, 1)
    await send_all(lanes)
    return journal, lanes, dict.fromkeys(busy, Held(4, ((1, 3),)))


def test_what_a_broker_forgot_goes_again_in_the_order_of_the_streams() -> None:
    """Busy streams show their losses at once. Those before them are asked, and go first."""

    async def story() -> None:
        _, lanes, held = await forgetful(VITALS, Stream.WAVEFORM)
        receipt(lanes, 5, held)
        assert await probes(lanes, 5) == [Stream.ALARM, Stream.AUDIT]
        everything = {s: Held(4 if s in held else 3) for s in Stream}
        sent: dict[int, list[Stream]] = {}
        held[Stream.ALARM] = HOLDS_LAST
        for now_s in range(6, 11):
            receipt(lanes, now_s, held)
            sent[now_s] = [stream for stream, _ in await send_all(lanes)]
            assert sent[now_s] or now_s == 10 or await probes(lanes, now_s) == []
            # The receiver is quick, but of the audit it hears late.
            held.setdefault(Stream.AUDIT, HOLDS_LAST)
            held |= {stream: everything[stream] for stream in sent[now_s]}
        assert sent == {6: [], 7: [], 8: RANKED[:2], 9: RANKED[2:], 10: []}
        assert lanes.is_delivered

    drive(story)


@pytest.mark.parametrize("how", ["over", "connected"])
def test_each_loss_asks_anew(how: str) -> None:
    async def story() -> None:
        journal, lanes, held = await forgetful(VITALS)
        receipt(lanes, 5, held)
        assert await probes(lanes, 5) == [Stream.ALARM]
        receipt(lanes, 6, {Stream.ALARM: Held(3)} | ({VITALS: Held(4)} if how == "over" else {}))
        if how == "connected":
            lanes.connected()
        journal.commit(Stream.ALARM, 1)
        journal.commit(VITALS, 2)
        await send_all(lanes)
        journal.commit(VITALS, 1)
        await send_all(lanes)
        receipt(lanes, 8, {VITALS: Held(7, ((6, 6),)), Stream.ALARM: Held(3)})
        assert await probes(lanes, 8) == [Stream.ALARM]

    drive(story)


def test_nothing_waits_for_a_stream_that_lost_nothing() -> None:
    async def story() -> None:
        _, lanes, held = await forgetful(VITALS, Stream.WAVEFORM)
        receipt(lanes, 5, held)
        held |= {Stream.ALARM: Held(3), Stream.AUDIT: Held(3)}
        receipt(lanes, 6, held)
        assert await send_all(lanes) == []
        receipt(lanes, 7, held)
        assert [stream for stream, _ in await send_all(lanes)] == [VITALS, Stream.WAVEFORM]

    drive(story)


def test_a_stream_that_is_not_heard_of_holds_up_no_other_for_long() -> None:
    async def story() -> None:
        _, lanes, held = await forgetful(VITALS)
        until_s = 5 + DOUBT_NS // NS_PER_S
        for now_s in range(5, until_s):
            receipt(lanes, now_s, held)
            assert await send_all(lanes) == [], now_s
        receipt(lanes, until_s, held)
        assert [stream for stream, _ in await send_all(lanes)] == [VITALS]

    drive(story)


def test_what_left_after_it_was_asked_holds_up_nothing() -> None:
    """Alarms go on while the receiver is heard of: the newest has never a receipt yet."""

    async def story() -> None:
        journal, lanes, held = await forgetful(VITALS)
        receipt(lanes, 5, held)
        for now_s in (6, 7):
            journal.commit(Stream.ALARM, 1)
            await send_all(lanes)
            receipt(lanes, now_s, held | {Stream.ALARM: Held(now_s - 3)})
        assert [stream for stream, _ in await send_all(lanes)] == [VITALS]

    drive(story)


def test_a_receipt_speaks_of_each_stream_by_itself() -> None:
    async def story() -> None:
        journal = MemoryJournal()
        journal.commit(VITALS, 3)
        journal.commit(Stream.ALARM, 2)
        lanes = all_lanes(journal)
        await send_all(lanes)
        held = {VITALS: Held(3), Stream.AUDIT: Held(9)}
        lanes.receipt(Receipt("h", "r", "e", held), 0)
        assert not lanes.is_delivered
        await lanes.write_cursors(0, at_once=True)
        assert journal.cursors == {**dict.fromkeys(Stream, 0), VITALS: 3}
        lanes.receipt(Receipt("h", "r", "e", {Stream.ALARM: Held(2)}), 0)
        assert lanes.is_delivered

    drive(story)

"""The uplink over a wire whose answers the test gives by hand."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial

import pytest

from drivers.model import Event, EventKind
from gateway.config.device import Named
from gateway.journal.entry import Entry, Stream
from gateway.uplink.order import Policy
from gateway.uplink.patience import Backoff, OnePath, Timing
from gateway.uplink.status import State
from gateway.uplink.uplink import Uplink
from gateway.uplink.wire import Limits, Listener, Outgoing, Reason, UplinkError
from tests.gateway.uplink.bench import HUB, MemoryJournal, clock, running, until

DEVICES = [{"device": "belt", "driver": "heart-rate"}]
BRISK = Timing(heartbeat=60, cursor=0.05, answer=60, backoff_first=0.02, backoff_most=60)


class HandWire:
    """Keeps what was published; answers only when told."""

    def __init__(self, listener: Listener, limits: Limits) -> None:
        self.limits = limits
        self.listener = listener
        self.published: list[Outgoing] = []
        self.open: dict[int, Outgoing] = {}
        self.answers_all = False
        self.ended: str | None = None

    def publish(self, message: Outgoing) -> int:
        self.published.append(message)
        mid = len(self.published)
        self.open[mid] = message
        assert len(self.open) <= self.limits.receive_maximum
        if self.answers_all:
            asyncio.get_running_loop().call_soon(self.answer, mid)
        return mid

    def acknowledge(self, message_id: int) -> None:
        """Nothing arrives here."""

    def answer(self, mid: int, refusal: str | None = None) -> None:
        del self.open[mid]
        self.listener.answered(mid, refusal)

    def answer_all(self) -> None:
        self.answers_all = True
        for mid in list(self.open):
            self.answer(mid)

    def ids(self, stream: Stream) -> list[int]:
        return [mid for mid, message in self.open.items() if message.topic.endswith("/" + stream)]

    def streams(self) -> list[str]:
        names = (message.topic.rsplit("/", 1)[1] for message in self.published)
        return [name for name in names if name in set(Stream)]

    async def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = self.ended or "aborted"


class Bench:
    def __init__(
        self,
        limits: Limits | None = None,
        timing: Timing = BRISK,
        policy: Policy | None = None,
        journal: MemoryJournal | None = None,
    ) -> None:
        """What stands in `journal` is backlog; what comes into its own one is live."""
        self.journal = journal or MemoryJournal()
        self.wires: list[HandWire] = []
        self.limits = limits or Limits()
        self.refuse_connection: UplinkError | None = None
        self.given_back = 0
        self.uplink = Uplink(
            self.journal,
            self._connect,
            clock(),
            HUB,
            version="test",
            window_bytes=60_000,
            rng=random.Random(3),
            timing=timing,
            policy=policy,
            devices=(Named("belt", "heart-rate"),),
            give_back=self._give_back,
        )

    def _give_back(self) -> None:
        self.given_back += 1

    async def _connect(self, listener: Listener, will: Outgoing) -> HandWire:
        assert will.retain
        said = json.loads(will.payload)
        assert (said["state"], said["devices"]) == ("offline", DEVICES)
        if self.refuse_connection is not None:
            raise self.refuse_connection
        self.wires.append(HandWire(listener, self.limits))
        return self.wires[-1]

    @property
    def wire(self) -> HandWire:
        return self.wires[-1]

    async def wait_published(self, count: int) -> None:
        await until(
            lambda: bool(self.wires) and len(self.wire.published) >= count, f"{count} messages"
        )


def drive(bench: Bench, story: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        async with running(bench.uplink.run()):
            await story()

    asyncio.run(main())


def test_birth_comes_first_and_streams_go_in_their_order() -> None:
    bench = Bench()
    for stream in reversed(Stream):
        bench.journal.commit(stream, 2)

    async def story() -> None:
        await bench.wait_published(6)
        topics = [message.topic for message in bench.wire.published]
        names = ["status", "heartbeat", "alarm", "vitals", "audit", "waveform"]
        assert topics == [f"wardlink/1/ward/hub-1/{name}" for name in names]
        birth = json.loads(bench.wire.published[0].payload)
        assert (birth["state"], birth["version"]) == ("online", "test")
        assert birth["devices"] == DEVICES

    drive(bench, story)


def test_an_alarm_that_becomes_durable_goes_before_the_backlog() -> None:
    bench = Bench(Limits(receive_maximum=3))
    for _ in range(30):
        bench.journal.commit(Stream.WAVEFORM, 3)

    async def story() -> None:
        await bench.wait_published(2)
        bench.wire.answer(1)
        await until(lambda: bench.wire.streams() == ["waveform"], "the window is full")
        bench.journal.commit(Stream.ALARM, 1)
        bench.uplink.wake()
        await until(lambda: bench.wire.streams() == ["waveform", "alarm"], "alarm, unanswered")

    drive(bench, story)


@pytest.mark.parametrize("receive_maximum", [2, 20, 65_535])
def test_what_is_ahead_of_an_alarm_is_bounded_in_bytes(receive_maximum: int) -> None:
    """Unanswered is unanswered, whether it lies in a buffer of the kernel, a modem's, or the broker's."""
    journal = MemoryJournal()
    for _ in range(400):
        journal.commit(Stream.WAVEFORM, 40)
    bench = Bench(Limits(receive_maximum=receive_maximum), journal=journal)
    ahead: list[int] = []

    def unanswered(wire: HandWire) -> int:
        return sum(len(message.payload) for message in wire.open.values())

    def publish(wire: HandWire, message: Outgoing) -> int:
        if message.topic.endswith("/alarm"):
            ahead.append(unanswered(wire))
        return HandWire.publish(wire, message)

    async def story() -> None:
        await bench.wait_published(1)
        wire = bench.wire
        wire.publish = partial(publish, wire)  # type: ignore[method-assign]
        for n in range(1, 40):
            for mid in list(wire.open)[: 1 + n % 3]:
                wire.answer(mid)
            least = 1 if receive_maximum == 2 else 40_000
            await until(lambda: unanswered(wire) >= least, "the window is full again")  # noqa: B023
            bench.journal.commit(Stream.ALARM, 1)
            bench.uplink.wake()
            await until(lambda: len(ahead) >= n, "the alarm leaves")  # noqa: B023
        assert 0 < max(ahead) <= 60_000 + 40 * 1_000

    drive(bench, story)


def test_an_alarm_needs_no_room_in_the_window_and_has_one_of_its_own() -> None:
    journal = MemoryJournal()
    for _ in range(40):
        journal.commit(Stream.WAVEFORM, 40)
    bench = Bench(journal=journal)

    async def story() -> None:
        await until(lambda: bench.uplink.status().in_flight_bytes > 40_000, "the window is full")
        waveforms = bench.wire.streams().count("waveform")
        for n in range(1, 5):
            event = Event(EventKind.FAULT, n, "big", data=bytes(12_000))
            bench.journal.put(Stream.ALARM, (Entry(n, "", event),))
        bench.uplink.wake()
        await until(lambda: bench.wire.streams().count("alarm") == 2, "two of 25 kB")
        bench.wire.answer(bench.wire.ids(Stream.ALARM)[0])
        await until(lambda: bench.wire.streams().count("alarm") == 3, "an answer makes room")
        assert bench.wire.streams().count("waveform") == waveforms

    drive(bench, story)


def test_the_window_is_counted_in_bytes() -> None:
    bench = Bench()
    for _ in range(30):
        bench.journal.commit(Stream.VITALS, 30)

    async def story() -> None:
        await until(lambda: bench.uplink.status().in_flight_bytes > 40_000, "a full window")
        await asyncio.sleep(0.05)
        status = bench.uplink.status()
        assert 40_000 < status.in_flight_bytes <= 60_000
        assert status.streams[Stream.VITALS].acknowledged == 0

    drive(bench, story)


def test_the_durable_cursor_waits_for_the_hole() -> None:
    bench = Bench()
    for _ in range(3):
        bench.journal.commit(Stream.VITALS, 5)

    async def story() -> None:
        await bench.wait_published(5)
        first, second, third = bench.wire.ids(Stream.VITALS)
        bench.wire.answer(third)
        bench.wire.answer(second)
        await asyncio.sleep(0.1)
        assert bench.journal.cursors[Stream.VITALS] == 0
        bench.wire.answer(first)
        await until(lambda: bench.journal.cursors[Stream.VITALS] == 15, "cursor")

    drive(bench, story)


def test_a_stream_under_load_writes_its_cursor_seldom() -> None:
    bench = Bench(Limits(receive_maximum=4), Timing(heartbeat=60, cursor=0.2))
    for _ in range(200):
        bench.journal.commit(Stream.VITALS, 1)

    async def story() -> None:
        await bench.wait_published(1)
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.VITALS] == 200, "cursor")
        assert bench.journal.cursor_writes < 20

    drive(bench, story)


def test_a_refused_stream_is_kept_and_tried_again_while_the_others_go_on() -> None:
    bench = Bench()
    bench.journal.commit(Stream.ALARM, 1)
    bench.journal.commit(Stream.ALARM, 1)

    async def story() -> None:
        for attempt in range(1, 4):
            await until(
                lambda: len(bench.wires) == 1 and len(bench.wire.ids(Stream.ALARM)) == 2, "sent"
            )
            first, second = bench.wire.ids(Stream.ALARM)
            bench.wire.answer(first, "0x97 Quota exceeded")
            bench.wire.answer(second, "0x97 Quota exceeded")
            alarm = bench.uplink.status().streams[Stream.ALARM]
            assert (alarm.refusals, alarm.refusal) == (attempt, "0x97 Quota exceeded")
            bench.journal.commit(Stream.VITALS, 1)
            bench.uplink.wake()
            await until(lambda: bool(bench.wire.ids(Stream.VITALS)), "vitals go on")
            bench.wire.answer(bench.wire.ids(Stream.VITALS)[0])
            assert bench.journal.cursors[Stream.ALARM] == 0
        await until(lambda: len(bench.wire.ids(Stream.ALARM)) == 2, "sent again")
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.ALARM] == 2, "delivered at last")
        alarm = bench.uplink.status().streams[Stream.ALARM]
        assert (alarm.refusals, alarm.refusal) == (0, None)
        assert bench.uplink.status().reconnects == 0

    drive(bench, story)


def test_a_lost_answer_makes_a_new_connection_that_sends_what_has_none() -> None:
    bench = Bench(timing=replace(BRISK, answer=0.3))
    for _ in range(3):
        bench.journal.commit(Stream.VITALS, 2)

    async def story() -> None:
        await bench.wait_published(5)
        first, _second, third = bench.wire.ids(Stream.VITALS)
        for mid in [mid for mid in bench.wire.open if mid not in {first, third}]:
            if mid != _second:
                bench.wire.answer(mid)
        bench.wire.answer(first)
        bench.wire.answer(third)
        await until(lambda: len(bench.wires) == 2, "new connection")
        assert bench.wires[0].ended == "aborted"
        await until(lambda: bool(bench.wire.streams()), "sent again")
        firsts = [
            json.loads(m.payload).get("first") for m in bench.wire.published if "vitals" in m.topic
        ]
        assert firsts == [3]
        assert bench.journal.cursors[Stream.VITALS] == 2

    drive(bench, story)


def test_an_entry_too_large_for_the_broker_is_kept_and_holds_up_no_other() -> None:
    bench = Bench(Limits(maximum_packet_bytes=2048))
    event = Event(EventKind.FAULT, 1, "big", data=bytes(2000))
    bench.journal.put(Stream.ALARM, (Entry(1, "", event),))
    bench.journal.commit(Stream.ALARM, 2)
    bench.journal.commit(Stream.VITALS, 20)

    async def story() -> None:
        await bench.wait_published(1)
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.VITALS] == 20, "vitals go on")
        status = bench.uplink.status().streams[Stream.ALARM]
        assert status.refusal is not None
        assert "entry 1" in status.refusal
        assert (status.waiting, bench.journal.cursors[Stream.ALARM]) == (1, 0)
        alarms = [m for m in bench.wire.published if m.topic == HUB.topic("alarm")]
        assert [json.loads(m.payload)["first"] for m in alarms] == [2]
        assert max(len(message.payload) for message in bench.wire.published) <= 2048 - 512
        bench.limits = Limits()
        bench.wire.listener.lost(UplinkError(Reason.LOST, "cut"))
        await until(lambda: len(bench.wires) == 2, "a broker that takes more")
        bench.wire.answer_all()
        await until(lambda: bench.uplink.status().streams[Stream.ALARM].waiting == 0, "it goes too")
        assert bench.uplink.status().streams[Stream.ALARM].refusal is None

    drive(bench, story)


def test_a_stream_of_which_nothing_fits_rests_before_all_of_it_was_read() -> None:
    bench = Bench(Limits(maximum_packet_bytes=2048))
    for n in range(1, 200):
        event = Event(EventKind.FAULT, 1, "big", data=bytes(2000))
        bench.journal.put(Stream.ALARM, (Entry(n, "", event),))
    bench.journal.commit(Stream.VITALS, 20)

    async def story() -> None:
        await bench.wait_published(1)
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.VITALS] == 20, "vitals go on")
        assert "alarm" not in bench.wire.streams()
        assert max(after for stream, after in bench.journal.reads if stream is Stream.ALARM) < 70
        assert bench.uplink.status().streams[Stream.ALARM].waiting == 199

    drive(bench, story)


def test_nothing_is_sent_that_the_broker_would_not_take_and_the_connection_stands() -> None:
    """A broker ends the connection of who sends more than its Maximum Packet Size: at each attempt anew."""
    journal = MemoryJournal()
    for stream in (Stream.VITALS, Stream.WAVEFORM):
        journal.commit(stream, 400)
        journal.beyond[stream] = tuple((n, n) for n in range(2, 401, 2))
    bench = Bench(Limits(maximum_packet_bytes=4096), journal=journal)
    topic = HUB.topic("response/ward-1")

    async def story() -> None:
        bench.uplink.letters.post(Outgoing(topic, bytes(5000)), Outgoing(topic, b"too large"))
        bench.uplink.letters.post(Outgoing(topic, bytes(5000)))
        await bench.wait_published(6)
        sent = bench.wire.published
        assert max(len(message.payload) for message in sent) <= 4096 - 512
        assert [message.payload for message in sent if message.topic == topic] == [b"too large"]
        (beat,) = (m.payload for m in sent if m.topic == HUB.topic("heartbeat"))
        for stream in (Stream.VITALS, Stream.WAVEFORM):
            spans = json.loads(beat)["streams"][stream]["pending"]
            told = {n for span in spans for n in range(span["first"], span["last"] + 1)}
            assert told >= set(range(1, 400, 2)), "all that is still to come is in it"
            assert len(spans) > 4, "and as little else as there is room for"

    drive(bench, story)


def test_what_the_journal_evicted_is_passed_over_and_counted() -> None:
    bench = Bench()
    for _ in range(3):
        bench.journal.commit(Stream.WAVEFORM, 4)
    bench.journal.evict(Stream.WAVEFORM)

    async def story() -> None:
        await bench.wait_published(1)
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.WAVEFORM] == 12, "delivered")
        assert bench.uplink.status().streams[Stream.WAVEFORM].evicted == 4

    drive(bench, story)


def test_the_status_says_why_there_is_no_connection() -> None:
    bench = Bench(timing=Timing(backoff_first=30))
    bench.refuse_connection = UplinkError(Reason.DNS, "no such name")

    async def story() -> None:
        await until(lambda: bench.uplink.status().state is State.BACKING_OFF, "back-off")
        status = bench.uplink.status()
        assert (status.reason, status.text) == (Reason.DNS, "no such name")
        assert status.retry_in_s is not None
        assert 0 < status.retry_in_s <= 30

    drive(bench, story)


def test_memory_is_given_back_with_a_connection_each_heartbeat_and_each_failure() -> None:
    bench = Bench(timing=replace(BRISK, heartbeat=0.05))

    async def story() -> None:
        await bench.wait_published(2)
        assert bench.given_back == 1
        bench.wire.answer_all()
        await bench.wait_published(4)
        heartbeats = [m for m in bench.wire.published if m.topic.endswith("/heartbeat")]
        assert bench.given_back == len(heartbeats) > 1
        before = bench.given_back
        bench.refuse_connection = UplinkError(Reason.REFUSED, "no")
        bench.uplink.lost(UplinkError(Reason.LOST, "gone"))
        await until(lambda: bench.uplink.status().reconnects > 2, "failures")
        assert bench.given_back >= before + bench.uplink.status().reconnects - 1

    drive(bench, story)


def test_a_drain_delivers_says_goodbye_and_ends() -> None:
    bench = Bench()
    bench.journal.commit(Stream.VITALS, 3)

    async def main() -> None:
        run = asyncio.ensure_future(bench.uplink.run())
        await bench.wait_published(3)
        assert not await bench.uplink.drain(0.05)
        bench.wire.answer_all()
        assert await bench.uplink.drain(40)
        await run
        assert bench.wire.ended == "closed"
        beat, farewell = bench.wire.published[-2:]
        mark = json.loads(beat.payload)["streams"]["vitals"]
        assert mark == {"high_water": 3, "acknowledged": 3, "pending": []}
        assert json.loads(farewell.payload)["state"] == "offline"
        assert farewell.retain
        assert bench.uplink.status().state is State.STOPPED

    asyncio.run(main())


@pytest.mark.parametrize("attempts", [1, 4, 30])
def test_back_off_is_spread_from_nothing_to_a_ceiling(attempts: int) -> None:
    from gateway.uplink.patience import Backoff, to_ns  # noqa: PLC0415 - only here

    backoff = Backoff(Timing(), random.Random(attempts))
    delays = [backoff.delay_ns(attempts) for _ in range(400)]
    ceiling = min(2.0 ** (attempts - 1), 120.0)
    assert max(delays) <= to_ns(ceiling)
    assert max(delays) > to_ns(ceiling * 0.9)
    assert min(delays) < to_ns(ceiling * 0.1)


class Hurry(OnePath):
    """The next connection is always due at once, as where another link takes over."""

    def retry_ns(self, now_ns: int) -> int:
        return now_ns


@pytest.mark.parametrize("hurries", [True, False])
def test_a_cursor_is_written_while_it_waits_and_never_before_the_next_link(
    *, hurries: bool
) -> None:
    slow = replace(BRISK, cursor=1e6)  # longer than any machine has been up
    bench = Bench(timing=slow)
    if hurries:
        bench.uplink._pace = Hurry(slow, Backoff(slow, random.Random(1)))
    bench.journal.commit(Stream.VITALS, 3)

    async def story() -> None:
        await bench.wait_published(3)
        bench.wire.answer_all()
        await until(lambda: bench.journal.cursors[Stream.VITALS] == 3, "the first is written")
        bench.journal.cursor_writes = 0
        bench.journal.commit(Stream.VITALS, 2)
        bench.uplink.wake()
        await until(lambda: bench.uplink.status().streams[Stream.VITALS].acknowledged == 5, "acks")
        bench.wire.listener.lost(UplinkError(Reason.LOST, "cut"))
        await until(lambda: len(bench.wires) == 2, "the next connection")
        assert bench.journal.cursor_writes == (0 if hurries else 1)

    drive(bench, story)
    assert bench.journal.cursors[Stream.VITALS] == 5, "at the end it is written in any case"

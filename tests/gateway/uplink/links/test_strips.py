"""The waveform around alarms: which is asked for, and when no more."""

from dataclasses import dataclass, field

from gateway.clock import ClockReading, ClockState
from gateway.journal.entry import Stream
from gateway.uplink.links.strips import AFTER_NS, BEFORE_NS, OPEN_MOST, WAITING_MOST, Strips
from gateway.uplink.order import Ask, AskProgress

S = 1_000_000_000
WALL = 1_790_000_000 * S


@dataclass
class SetClock:
    boot_id = "boot-1"
    now_ns: int = 1_000 * S
    offset_ns: int = WALL

    def boottime_ns(self) -> int:
        return self.now_ns

    def read(self) -> ClockReading:
        return ClockReading(self.now_ns, self.now_ns + self.offset_ns, ClockState.RESTORED)


@dataclass
class Asked:
    """The asks as the uplink has them, with an answer that the test gives."""

    open: dict[str, Ask] = field(default_factory=dict)
    done: set[str] = field(default_factory=set)
    full: bool = False

    def add(self, ask: Ask) -> None:
        if self.full:
            raise ValueError
        self.open[ask.name] = ask

    def withdraw(self, name: str) -> None:
        del self.open[name]

    def progress(self) -> tuple[AskProgress, ...]:
        return tuple(AskProgress(a, 0, 0, a.name in self.done) for a in self.open.values())


class Bench:
    def __init__(self) -> None:
        self.clock, self.asks, self.wanted = SetClock(), Asked(), True
        self.strips = Strips(self.asks, self.clock, lambda: self.wanted)  # type: ignore[arg-type]
        self.strips.follow(7)
        self.number = 7

    def alarm(self) -> None:
        self.number += 1
        self.strips.follow(self.number)

    def pass_s(self, span_s: float) -> None:
        self.clock.now_ns += round(span_s * S)
        self.strips.follow(self.number)


def test_what_was_there_at_the_start_is_no_alarm_of_now() -> None:
    bench = Bench()
    bench.pass_s(1)
    assert bench.asks.open == {}


def test_an_alarm_asks_for_a_minute_before_and_half_a_minute_after() -> None:
    bench = Bench()
    bench.alarm()
    now = bench.clock.now_ns + WALL
    ask = bench.asks.open["strip-8"]
    assert ask == Ask("strip-8", Stream.WAVEFORM, now - BEFORE_NS, now + AFTER_NS)
    bench.pass_s(40)
    assert list(bench.asks.open) == ["strip-8"]
    bench.asks.done = {"strip-8"}
    bench.pass_s(1)
    assert bench.asks.open == {}


def test_an_alarm_within_a_strip_makes_it_longer() -> None:
    bench = Bench()
    bench.alarm()
    begin = bench.asks.open["strip-8"].from_wall_ns
    bench.clock.now_ns += 80 * S
    bench.alarm()
    ask = bench.asks.open["strip-8"]
    assert list(bench.asks.open) == ["strip-8"]
    assert (ask.from_wall_ns, ask.until_wall_ns) == (begin, bench.clock.now_ns + WALL + AFTER_NS)
    bench.clock.now_ns += 91 * S
    bench.alarm()
    assert list(bench.asks.open) == ["strip-8", "strip-10"]


def test_strips_leave_room_for_others_and_wait_their_turn() -> None:
    bench = Bench()
    for _ in range(OPEN_MOST + 2):
        bench.alarm()
        bench.clock.now_ns += 200 * S
    assert len(bench.asks.open) == OPEN_MOST
    bench.asks.done = {"strip-8", "strip-9"}
    bench.asks.full = True
    bench.pass_s(1)
    assert len(bench.asks.open) == OPEN_MOST - 2
    bench.asks.full = False
    bench.pass_s(1)
    assert sorted(bench.asks.open) == ["strip-10", "strip-11", "strip-12", "strip-13"]


def test_a_strip_that_waited_for_a_metered_link_is_asked_for_by_the_clock_of_then() -> None:
    bench = Bench()
    bench.wanted = False
    bench.alarm()
    at_ns = bench.clock.now_ns
    bench.pass_s(500)
    assert bench.asks.open == {}
    bench.clock.offset_ns += 3600 * S
    bench.wanted = True
    bench.pass_s(1)
    assert bench.asks.open["strip-8"].from_wall_ns == at_ns - BEFORE_NS + WALL + 3600 * S


def test_too_many_are_counted() -> None:
    bench = Bench()
    bench.wanted = False
    for _ in range(WAITING_MOST + 3):
        bench.alarm()
        bench.clock.now_ns += 200 * S
    assert bench.strips.dropped == 3

import asyncio
from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal

import pytest

from drivers import registry
from drivers.assigned import BATTERY_LEVEL, HEART_RATE_MEASUREMENT, Code, Unit
from drivers.contract import Close, Driver, Malformed, Output, Read, Resume, Subscribe, Write
from drivers.model import EventKind, Observation, Quantity
from gateway.link import Link, LinkCounters
from gateway.transport.base import Arrival, Reason, TransportError
from tests.gateway.fakes import FastLoop, ListSink, LoopClock, ScriptedTransport

STRAP = registry.all_drivers()["heart-rate"]
GONE = TransportError(Reason.LOST, "gone")


def beat(rate: int) -> Observation:
    return Observation(Code.ECG_HEART_RATE, Quantity(Decimal(rate), Unit.BEAT_PER_MIN), rate)


class ScriptedSession:
    """Says what it is told to: at the start, and at each arrival."""

    def __init__(
        self, at_start: Iterable[Output] = (), *answers: Iterable[Output] | Exception
    ) -> None:
        self.at_start = at_start
        self.answers = list(answers)
        self.due: int | None = None
        self.timeouts = 0

    def start(self, now_ns: int, resume: Resume) -> Iterable[Output]:
        del now_ns, resume
        return self.at_start

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterable[Output]:
        del source, data, now_ns
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def timeout(self, now_ns: int) -> Iterable[Output]:
        self.due = None
        self.timeouts += 1
        return (beat(200 + self.timeouts),) if now_ns else ()

    def deadline(self) -> int | None:
        return self.due


def run(
    session: ScriptedSession, transport: ScriptedTransport, driver: Driver = STRAP
) -> tuple[ListSink, LinkCounters, str | Exception]:
    sink, counters = ListSink(), LinkCounters()

    async def main() -> str | Exception:
        link = Link(driver, session, transport, sink, LoopClock(), counters, lambda: None)
        try:
            return await link.run(Resume())
        except (TransportError, ZeroDivisionError) as error:
            return error

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return sink, counters, runner.run(main())


def arrivals(count: int) -> list[Arrival]:
    return [Arrival("", bytes([n]), n + 1) for n in range(count)]


def test_records_go_through_in_order_and_the_last_are_flushed() -> None:
    session = ScriptedSession((), [beat(1), beat(2)], [beat(3)])
    sink, counters, end = run(session, ScriptedTransport(arrivals(2), ends=GONE))
    assert sink.records == [beat(1), beat(2), beat(3), beat(201)]
    assert end is GONE
    assert (counters.arrivals, counters.bytes, counters.records) == (2, 2, 4)


def test_malformed_becomes_an_event_with_its_bytes_and_the_link_goes_on() -> None:
    session = ScriptedSession(
        (), Malformed("short", b"\xab", "why"), [Malformed("odd", b"\xcd"), beat(1)]
    )
    sink, counters, _ = run(session, ScriptedTransport(arrivals(2), ends=GONE))
    assert [(e.reason, e.data, e.text) for e in sink.events(EventKind.MALFORMED)] == [
        ("short", b"\xab", "why"),
        ("odd", b"\xcd", ""),
    ]
    assert beat(1) in sink.records
    assert counters.malformed == 2


def test_a_drivers_fault_goes_up_after_what_it_said_before() -> None:
    session = ScriptedSession((), [beat(1)], ZeroDivisionError())
    sink, _, end = run(session, ScriptedTransport(arrivals(2)))
    assert isinstance(end, ZeroDivisionError)
    assert sink.records[0] == beat(1)


def test_write_after_commit_waits_for_everything_said_before_it() -> None:
    erase = Write("c", b"erase", after_commit=True)
    transport = ScriptedTransport(arrivals(1), ends=GONE)
    sink, _, _ = run(ScriptedSession((), [beat(1), beat(2), erase, Write("c", b"next")]), transport)
    assert sink.durable_after == [2]
    assert transport.calls == [("write", ("c", b"erase")), ("write", ("c", b"next"))]


def test_optional_characteristics_may_be_missing_and_others_not() -> None:
    optional = ScriptedSession((Subscribe("a"), Read("b", optional=True)))
    _, _, end = run(optional, ScriptedTransport(missing=frozenset({"b"}), ends=GONE))
    assert end is GONE
    needed = ScriptedSession((Subscribe("a"),))
    _, _, end = run(needed, ScriptedTransport(missing=frozenset({"a"})))
    assert isinstance(end, TransportError)
    assert end.reason is Reason.REFUSED


def test_close_ends_the_link_with_its_reason() -> None:
    _, _, end = run(ScriptedSession((), [beat(1), Close("done")]), ScriptedTransport(arrivals(1)))
    assert end == "done"


def test_silence_ends_the_link() -> None:
    _, _, end = run(ScriptedSession(), ScriptedTransport())
    assert isinstance(end, TransportError)
    assert end.reason is Reason.SILENT
    assert "10 s" in end.text


def test_deadline_comes_before_silence() -> None:
    session = ScriptedSession()
    session.due = 1
    sink, _, _ = run(session, ScriptedTransport(), replace(STRAP, silence_ns=5_000_000_000))
    assert session.timeouts == 2
    assert sink.records == [beat(201), beat(202)]


def test_dropped_arrivals_are_a_gap_with_its_count() -> None:
    sink, counters, _ = run(
        ScriptedSession((), [beat(1)]),
        ScriptedTransport([Arrival("", b"", 1, dropped=7)], ends=GONE),
    )
    (gap,) = sink.events(EventKind.GAP)
    assert (gap.reason, gap.lost) == ("overflow", 7)
    assert counters.dropped == 7


@pytest.mark.parametrize("data", [b"\x00\x48", b"\x01", b""])
def test_with_a_real_driver(data: bytes) -> None:
    transport = ScriptedTransport(
        [Arrival(HEART_RATE_MEASUREMENT, data, 5)], ends=GONE, missing=frozenset({BATTERY_LEVEL})
    )
    sink, counters = ListSink(), LinkCounters()

    async def main() -> None:
        link = Link(STRAP, STRAP.session({}), transport, sink, LoopClock(), counters, lambda: None)
        with pytest.raises(TransportError):
            await link.run(Resume())

    asyncio.run(main())
    assert len(sink.records) == 1
    assert isinstance(sink.records[0], Observation) == (len(data) == 2)

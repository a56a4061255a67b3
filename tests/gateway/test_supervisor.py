import asyncio
import random
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import pytest

from drivers import registry
from drivers.assigned import HEART_RATE_MEASUREMENT
from drivers.contract import Driver
from drivers.model import Event, EventKind
from gateway.config.device import Device
from gateway.supervisor import TRANSITIONS, State, Supervisor, Trigger
from gateway.transport.base import Arrival, Reason, TransportError
from tests.gateway.fakes import FastLoop, ListSink, LoopClock, ScriptedTransport

STRAP = registry.all_drivers()["heart-rate"]
NS_PER_S = 1_000_000_000


def supervise(
    transports: Iterable[ScriptedTransport],
    seconds: float,
    *,
    driver: Driver = STRAP,
    last_ns: int | None = None,
    before: str = "",
    silent_since_ns: int | None = None,
    look: Callable[[Supervisor], None] = lambda _supervisor: None,
) -> ListSink:
    sink = ListSink()
    queue = iter(transports)

    async def main() -> None:
        device = Device("strap", driver, address="C0:00:00:00:00:01")
        supervisor = Supervisor(
            device,
            lambda: next(
                queue, ScriptedTransport(opens=TransportError(Reason.NOT_FOUND, "no more"))
            ),
            sink,
            LoopClock(),
            random.Random(1),
            last_ns=last_ns,
            before=before,
            silent_since_ns=silent_since_ns,
        )
        task = asyncio.create_task(supervisor.run())
        await asyncio.sleep(seconds)
        look(supervisor)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        runner.run(main())
    return sink


def beats(*at_s: int) -> list[Arrival]:
    return [
        Arrival(HEART_RATE_MEASUREMENT, bytes((0, 60 + n)), s * NS_PER_S)
        for n, s in enumerate(at_s)
    ]


GONE = TransportError(Reason.LOST, "the strap went away")


def test_every_state_can_be_left() -> None:
    for state in State:
        assert any(source is state for source, _ in TRANSITIONS), state
    reachable = {State.ABSENT}
    for _ in State:
        reachable |= {target for (source, _), target in TRANSITIONS.items() if source in reachable}
    assert reachable == set(State)
    assert {trigger for _, trigger in TRANSITIONS} == set(Trigger)


def test_a_lost_link_is_an_event_and_its_time_a_gap() -> None:
    sink = supervise(
        [ScriptedTransport(beats(1, 2), ends=GONE), ScriptedTransport(beats(9), ends=GONE)], 2.0
    )
    kinds = [r.kind if isinstance(r, Event) else "rate" for r in sink.records]
    assert kinds[:7] == [
        EventKind.CONNECTED,
        "rate",
        "rate",
        EventKind.LOST,
        EventKind.CONNECTED,
        EventKind.GAP,
        "rate",
    ]
    (gap,) = sink.events(EventKind.GAP)
    assert (gap.reason, gap.from_ns, gap.until_ns) == ("link_lost", 2 * NS_PER_S, 9 * NS_PER_S)
    assert sink.events(EventKind.LOST)[0].text == "the strap went away"


def test_time_before_this_process_is_a_gap_with_its_reason() -> None:
    sink = supervise(
        [ScriptedTransport(beats(30))], 1.0, last_ns=12 * NS_PER_S, before="hub_killed"
    )
    (gap,) = sink.events(EventKind.GAP)
    assert (gap.reason, gap.from_ns, gap.until_ns) == ("hub_killed", 12 * NS_PER_S, 30 * NS_PER_S)


def test_a_gap_that_a_sealed_journal_cannot_place_is_bounded_by_the_last_commit() -> None:
    sink = supervise(
        [ScriptedTransport(beats(30))], 1.0, silent_since_ns=20 * NS_PER_S, before="hub_killed"
    )
    (gap,) = sink.events(EventKind.GAP)
    assert (gap.from_ns, gap.until_ns) == (20 * NS_PER_S, 30 * NS_PER_S)
    assert "somewhat later" in gap.text


def test_a_first_start_has_no_gap() -> None:
    assert not supervise([ScriptedTransport(beats(30))], 1.0).events(EventKind.GAP)


def test_a_drivers_fault_ends_its_session_and_nothing_else() -> None:
    class Broken:
        def start(self, *_: object) -> tuple[()]:
            raise ZeroDivisionError

        def timeout(self, *_: object) -> tuple[()]:
            return ()

    states: list[State] = []
    sink = supervise(
        [ScriptedTransport(), ScriptedTransport()],
        0.2,
        driver=replace(STRAP, session=lambda _options: Broken()),  # type: ignore[arg-type, return-value]
        look=lambda s: states.append(s.status().state),
    )
    (fault,) = sink.events(EventKind.FAULT)
    assert fault.text == "ZeroDivisionError in heart-rate"
    assert states == [State.BACKING_OFF]


def test_status_says_why_there_is_no_link() -> None:
    seen: list[tuple[State, str]] = []

    def look(supervisor: Supervisor) -> None:
        status = supervisor.status()
        seen.append((status.state, status.reason))

    refused = ScriptedTransport(opens=TransportError(Reason.REFUSED, "refused: out of slots"))
    supervise([refused], 0.1, look=look)
    absent = ScriptedTransport(opens=TransportError(Reason.NOT_FOUND, "/dev/ttyUSB7 is not there"))
    supervise([absent], 0.1, look=look)
    supervise([ScriptedTransport(beats(1))], 0.1, look=look)
    assert seen == [
        (State.BACKING_OFF, "refused: out of slots"),
        (State.ABSENT, "/dev/ttyUSB7 is not there"),
        (State.STREAMING, ""),
    ]


def test_back_off_grows_and_starts_again_after_streaming() -> None:
    opened: list[float] = []

    class Counting(ScriptedTransport):
        async def open(self) -> None:
            opened.append(asyncio.get_running_loop().time())
            await super().open()

    refused = TransportError(Reason.REFUSED, "no")
    supervise([Counting(opens=refused) for _ in range(12)], 200.0)
    waits = [b - a for a, b in pairwise(opened)]
    assert waits[0] <= 0.5
    assert 15.0 <= waits[-1] <= 30.1
    opened.clear()
    supervise([Counting(beats(1), ends=GONE) for _ in range(6)], 4.0)
    assert all(b - a <= 0.6 for a, b in pairwise(opened))


def test_every_transport_is_closed() -> None:
    used = [
        ScriptedTransport(beats(1), ends=GONE),
        ScriptedTransport(opens=GONE),
        ScriptedTransport(),
    ]
    supervise(used, 3.0)
    assert all(transport.calls[-1] == ("close", None) for transport in used)

"""The links at work: a kernel, a wire and managers that the test steers, and a ladder whose waits are short."""

import asyncio
import contextlib
import random
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest

from firmware_sim.bluez.bus import PrivateBus, installed
from firmware_sim.network import VirtualNetwork
from gateway import view
from gateway.clock import SystemClock
from gateway.config.broker import Broker
from gateway.config.links import Link, Metered
from gateway.journal.entry import Stream
from gateway.journal.storage import FileStorage
from gateway.uplink.links import links as at_work
from gateway.uplink.links.ladder import LADDER, Ladder, Rung, Step
from gateway.uplink.links.links import Links
from gateway.uplink.links.netlink import Facts
from gateway.uplink.links.pace import LinkPace
from gateway.uplink.links.selector import LinkState, Selector
from gateway.uplink.links.usage import Usage
from gateway.uplink.order import Age
from gateway.uplink.patience import NS_PER_S, Backoff, Timing
from gateway.uplink.wire import Dial, Incoming, Limits, Outgoing, Reason, UplinkError
from tests.gateway.uplink.bench import running, until

FIT, DARK = Facts(True, True, True), Facts(True, False, True)  # noqa: FBT003
WIFI = Link("wifi", "wlan0", metered=Metered.NO)
MOBILE = Link("4g", "wwan0", metered=Metered.YES)
WILL = Outgoing("t", b"")
QUICK = Timing(backoff_first=0.01)


class Kernel:
    """In the place of the watch."""

    def __init__(self) -> None:
        self.rows: dict[str, Facts] = {}
        self.routed: set[str] = set()
        self.forbidden = False
        self.asked = 0
        self.later: dict[str, Facts] = {}
        """What it knows, and tells only when it is asked."""

    def __call__(self, changed: Any) -> Self:
        self._changed = changed
        return self

    @property
    def interfaces(self) -> Self:
        return self

    def facts(self, name: str) -> Facts:
        return self.rows.get(name, Facts())

    async def __aenter__(self) -> Self:
        if self.forbidden:
            raise PermissionError(1, "Operation not permitted")
        return self

    async def __aexit__(self, *_: object) -> None: ...

    def ask(self) -> None:
        self.asked += 1
        self.rows.update(self.later)
        self._changed()

    def say(self, name: str, facts: Facts) -> None:
        self.rows[name] = facts
        self._changed()


class Wire:
    limits = Limits()

    def __init__(self) -> None:
        self.ended = ""

    def publish(self, _message: Outgoing) -> int:
        return 1

    def acknowledge(self, message_id: int) -> None: ...

    async def close(self) -> None:
        self.ended = "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Ear:
    def __init__(self) -> None:
        self.errors: list[UplinkError] = []

    def answered(self, message_id: int, refusal: str | None) -> None: ...
    def arrived(self, message: Incoming) -> None: ...

    def lost(self, error: UplinkError) -> None:
        self.errors.append(error)


class Bench:
    def __init__(
        self,
        folder: Path,
        monkeypatch: pytest.MonkeyPatch,
        rows: tuple[Link, ...] = (WIFI, MOBILE),
        rungs: tuple[Rung, ...] = LADDER,
    ) -> None:
        self.kernel = Kernel()
        self.kernel.rows = {"wlan0": FIT, "wwan0": FIT}
        monkeypatch.setattr(at_work, "Watch", self.kernel)
        self.limits: list[float | None] = []
        self.hangs = False
        self.ear = Ear()
        rng = random.Random(1)
        self.links = Links(
            rows,
            Broker("127.0.0.1", 1),
            self._connect,
            SystemClock(),
            Selector(len(rows), Backoff(QUICK, rng), rng),
            Usage(folder / "links", FileStorage(), tuple(row.name for row in rows)),
            rng,
            timing=QUICK,
            ladder=Ladder(rungs),
        )

    async def _connect(
        self, _listener: Any, _will: Outgoing, /, *, dial: Dial | None = None, limit_s: float | None = None
    ) -> Wire:  # fmt: skip
        assert dial is not None
        self.limits.append(limit_s)
        if self.hangs:
            await asyncio.Event().wait()
        return Wire()

    async def connect(self) -> Wire:
        wire = await self.links.connect(self.ear, WILL)
        assert isinstance(wire, Wire)
        now = SystemClock().boottime_ns()
        self.links.pace.connected(now)
        self.links.pace.answered(now, now, accepted=True)
        return wire

    def in_use(self) -> list[str]:
        return [row.name for row in self.links.status().links if row.in_use]


@contextlib.asynccontextmanager
async def working(bench: Bench) -> AsyncIterator[Bench]:
    async with running(bench.links.run()):
        yield bench


def run(bench: Bench, story: Any) -> None:
    async def main() -> None:
        async with working(bench):
            await story()

    asyncio.run(main())


def test_a_lost_carrier_ends_the_connection_and_the_next_takes_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    woken: list[int] = []
    bench.links.wake = lambda: woken.append(1)

    async def story() -> None:
        wire = await bench.connect()
        assert bench.in_use() == ["wifi"]
        assert bench.links.current() == (WIFI, False)
        bench.kernel.say("wwan0", DARK)
        bench.kernel.say("wwan0", FIT)
        assert bench.ear.errors == []
        count = len(woken)
        bench.kernel.say("wlan0", DARK)
        assert wire.ended == "aborted"
        (error,) = bench.ear.errors
        assert (error.reason, error.text) == (Reason.UNREACHABLE, "wifi has no carrier")
        assert len(woken) > count
        now = SystemClock().boottime_ns()
        bench.links.pace.ended(error, now)
        assert bench.links.pace.retry_ns(now) == now
        await bench.connect()
        assert bench.in_use() == ["4g"]
        assert bench.links.current() == (MOBILE, True)
        assert bench.limits == [at_work.QUICK_CONNECT_S, None], (
            "patient where nothing else would do"
        )
        steps = bench.links.status().ladder
        assert (steps[Step.OTHER_LINK], steps[Step.NEW_SOCKET], steps[Step.RESOLVE]) == (1, 0, 1)

    run(bench, story)


def test_an_attempt_ends_with_its_link_and_with_its_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.hangs = True

    async def story() -> None:
        attempt = asyncio.ensure_future(bench.links.connect(bench.ear, WILL))
        await until(lambda: bool(bench.limits), "it is tried")
        bench.kernel.say("wlan0", Facts())
        with pytest.raises(UplinkError, match="wifi is not there"):
            await attempt
        bench.kernel.say("wlan0", FIT)
        attempt = asyncio.ensure_future(bench.links.connect(bench.ear, WILL))
        await until(lambda: len(bench.limits) == 2, "it is tried")
        attempt.cancel()
        with pytest.raises(asyncio.CancelledError):
            await attempt

    run(bench, story)


def test_with_no_link_fit_it_says_why_and_waits_for_news(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.kernel.rows = {"wlan0": DARK}

    async def story() -> None:
        with pytest.raises(UplinkError) as caught:
            await bench.links.connect(bench.ear, WILL)
        assert caught.value.text == "no link: wifi has no carrier, 4g is not there"
        now = SystemClock().boottime_ns()
        bench.links.pace.ended(caught.value, now)
        assert bench.links.pace.retry_ns(now) is None
        bench.kernel.say("wwan0", FIT)
        await bench.connect()
        assert bench.in_use() == ["4g"]

    run(bench, story)


def test_without_a_word_of_the_kernel_every_link_counts_as_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.kernel.forbidden = True

    async def story() -> None:
        await bench.connect()
        assert {row.state for row in bench.links.status().links} == {LinkState.USABLE}

    run(bench, story)


def test_patience_is_short_while_another_link_would_do_and_answers_make_it_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)

    async def story() -> None:
        await bench.connect()
        pace, now = bench.links.pace, SystemClock().boottime_ns()
        assert dead_after_s(pace, now, now) == pytest.approx(2.0, abs=0.5)
        assert dead_after_s(pace, now - 5 * NS_PER_S, now) == pytest.approx(2.0, abs=0.5), (
            "answers came since"
        )
        bench.kernel.say("wwan0", DARK)
        assert dead_after_s(pace, now, now) == pytest.approx(10.0, abs=0.5)
        bench.kernel.say("wwan0", FIT)
        assert pace.is_dead(now, now + 3 * NS_PER_S)
        assert dead_after_s(pace, now, now) == pytest.approx(4.0, abs=0.5)

    run(bench, story)


def dead_after_s(pace: LinkPace, oldest_ns: int, now_ns: int) -> float:
    """The end of patience; before it, the kernel is asked."""
    assert not pace.is_dead(oldest_ns, now_ns + NS_PER_S)
    return (pace.due_ns(oldest_ns) - now_ns) / NS_PER_S


def test_a_late_answer_makes_the_kernel_be_asked_once_and_what_it_knows_counts_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)

    async def story() -> None:
        wire = await bench.connect()
        pace, now = bench.links.pace, SystemClock().boottime_ns()
        at = pace.due_ns(now)
        assert 0.1 < (at - now) / NS_PER_S < 0.4
        assert not pace.is_dead(now, at - 1)
        assert bench.kernel.asked == 0
        assert not pace.is_dead(now, at)
        assert not pace.is_dead(now, at + 1)
        assert bench.kernel.asked == 1, "once in a silence"
        assert pace.due_ns(now) > at + NS_PER_S, "the next is the end of patience"
        assert bench.ear.errors == []
        bench.kernel.later = {"wlan0": DARK}
        pace.answered(now, at + 1, accepted=True)
        assert not pace.is_dead(at + 1, pace.due_ns(at + 1))
        assert bench.kernel.asked == 2
        assert [error.text for error in bench.ear.errors] == ["wifi has no carrier"]
        assert wire.ended == "aborted"

    run(bench, story)


def test_with_nowhere_to_go_the_kernel_is_not_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.kernel.rows["wwan0"] = DARK

    async def story() -> None:
        await bench.connect()
        pace, now = bench.links.pace, SystemClock().boottime_ns()
        assert not pace.is_dead(now, now + 5 * NS_PER_S)
        assert bench.kernel.asked == 0

    run(bench, story)


def test_a_better_link_that_gets_through_takes_over_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    bench.kernel.rows["wlan0"] = DARK
    monkeypatch.setattr("gateway.uplink.links.selector.HOLD_S", 0.01)
    answers = ["no answer", None]

    async def probe(*_: object) -> str | None:
        return answers.pop(0)

    monkeypatch.setattr(at_work, "gets_through", probe)

    async def story() -> None:
        wire = await bench.connect()
        assert bench.in_use() == ["4g"]
        bench.kernel.say("wlan0", FIT)
        await until(lambda: bool(bench.ear.errors), "it moves")
        assert answers == []
        assert wire.ended == "closed"
        now = SystemClock().boottime_ns()
        bench.links.pace.ended(bench.ear.errors[0], now)
        assert bench.links.pace.retry_ns(now) == now
        await bench.connect()
        assert bench.in_use() == ["wifi"]
        steps = bench.links.status().ladder
        assert sum(steps.values()) == 0, "no step: nothing was wrong"

    run(bench, story)


RUNGS = (*LADDER[:3], Rung(Step.REACTIVATE, 0.05, 0.2), Rung(Step.MODEM_RESET, 0.15, 3600))


@pytest.mark.skipif(not installed(), reason="dbus-daemon is not installed")
def test_the_last_steps_are_taken_in_turn_and_each_has_its_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with PrivateBus(tmp_path) as bus, VirtualNetwork(bus.address) as network:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
            device = await network.add_device("wwan0", 1)
            modem = await network.add_modem("wwan0", 50)
            rows = (WIFI, replace(MOBILE, reactivate=True, modem_reset=True))
            bench = Bench(tmp_path, monkeypatch, rows, RUNGS)
            async with working(bench):
                await until(lambda: len(network.activations) >= 2 and bool(network.resets), "both")
                assert network.activations[0] == ("/", device)
                assert network.resets == [modem]
                steps = bench.links.status().ladder
                assert steps[Step.MODEM_RESET] == 1
                assert steps[Step.REACTIVATE] >= 2

    asyncio.run(main())


def test_steps_that_are_not_configured_are_not_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, rungs=RUNGS)

    async def story() -> None:
        assert list(bench.links._steps()) == []

    run(bench, story)


def test_a_step_is_due_after_its_wait_and_again_after_its_pause() -> None:
    ladder = Ladder()
    steps = [(Step.REACTIVATE, 1), (Step.MODEM_RESET, 1)]
    s = NS_PER_S
    assert list(ladder.due(iter(steps), 7)) == [
        (7 + 180 * s, Step.REACTIVATE, 1),
        (7 + 900 * s, Step.MODEM_RESET, 1),
    ]
    ladder.took(Step.MODEM_RESET, 1, 900 * s)
    again = {step: at for at, step, _ in ladder.due(iter(steps), 0)}
    assert again[Step.MODEM_RESET] == (900 + 6 * 3600) * s
    assert next(ladder.due(iter([(Step.MODEM_RESET, 0)]), 0))[0] == 900 * s, "of another link"
    assert [rung.wait_s for rung in LADDER] == sorted(rung.wait_s for rung in LADDER)


def test_a_count_that_is_being_written_at_the_end_does_not_come_after_the_exact_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch)
    write, writing = Usage.write, threading.Event()

    def slow(usage: Usage, payload: bytes) -> None:
        if threading.current_thread() is not threading.main_thread():
            writing.set()
            time.sleep(0.2)
        write(usage, payload)

    monkeypatch.setattr(Usage, "write", slow)

    async def story() -> None:
        await bench.connect()
        bench.links.policy.sent(Stream.VITALS, Age.LIVE, 1000)
        bench.links._event.set()
        await until(writing.is_set, "it writes")

    run(bench, story)
    kept = Usage(tmp_path / "links", FileStorage(), ("wifi",)).of("wifi").used
    assert kept.total_bytes == 1250


def test_what_is_used_and_left_stands_in_the_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, monkeypatch, (WIFI, replace(MOBILE, waveform_bytes_month=5_000_000)))
    bench.kernel.rows["wlan0"] = DARK

    async def story() -> None:
        await bench.connect()
        bench.links.policy.sent(Stream.WAVEFORM, Age.LIVE, 1_000_000)
        status = bench.links.status()
        shown = view.links(
            {"links": [vars_of(row) for row in status.links], "ladder": status.ladder}
        )
        wifi, mobile = shown.splitlines()[2:4]
        assert wifi.split()[:4] == ["wifi", "wlan0", "no_carrier", "free"]
        assert "wwan0" in mobile
        assert "in use" in mobile
        assert "1.1 MB of 5.0 MB" in mobile
        assert shown.endswith("steps when nothing was acknowledged: none")

    run(bench, story)
    kept = Usage(tmp_path / "links", FileStorage(), ("4g",)).of("4g").used
    assert kept.waveform_bytes == 1_050_200, "exact after an end in order"


def vars_of(row: Any) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__slots__}

"""From a message to an answer: written down before it is done, once, within bounds."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import ClockState
from gateway.journal.storage import DISK
from gateway.spool import ACCEPTED, RING, Decision, Spool, SpoolFull, read_ring
from gateway.uplink.command import (
    Asked,
    Command,
    LiveWaveform,
    Logging,
    LogLevel,
    StatusReport,
    described,
)
from gateway.uplink.commands import OPEN_MOST, REFUSALS_AT_ONCE, Commands, Inbox
from gateway.uplink.letters import MOST, Letters
from gateway.uplink.order import Ask, AskProgress
from gateway.uplink.slices import MAX_PAYLOAD_BYTES
from gateway.uplink.wire import Incoming, Outgoing
from gateway.verbosity import Verbosity
from tests.gateway.fakes import LoopClock
from tests.gateway.uplink.bench import EPOCH, HUB, KEY, until
from tests.gateway.uplink.test_judge import GUEST, JUDGE, RANGE, S, message

STEP_S = 0.01


class SetClock(LoopClock):
    """The loop's clock, which a test may move on."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead_ns = 0

    def boottime_ns(self) -> int:
        return super().boottime_ns() + self.ahead_ns


class Wishes:
    """Keeps the asks; says of them what the test says."""

    def __init__(self) -> None:
        self.open: dict[str, Ask] = {}
        self.sent = 0
        self.done = False
        self.full = False

    def add(self, ask: Ask) -> None:
        if self.full:
            raise ValueError("16 are open")
        self.open[ask.name] = ask

    def withdraw(self, name: str) -> None:
        del self.open[name]

    def progress(self) -> tuple[AskProgress, ...]:
        return tuple(AskProgress(a, self.sent, 3, self.done) for a in self.open.values())


class Loud(Verbosity):
    def __init__(self, clock: SetClock) -> None:
        super().__init__(clock)
        self.told: list[str] = []

    def raise_until(self, level: str, until_ns: int) -> None:
        del until_ns
        self.told.append(level)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.clock = SetClock()
        self.spool = Spool(folder, DISK)
        self.inbox, self.letters, self.wishes = Inbox(), Letters(lambda: None), Wishes()
        self.loud = Loud(self.clock)
        self.report: Callable[[], Mapping[str, object]] = lambda: {
            "hub": "hub-1",
            "path": Path("x"),
        }
        self.number = 0
        self.said: list[dict[str, Any]] = []

    def commands(self) -> Commands:
        return Commands(
            HUB, EPOCH, JUDGE, self.spool, self.clock, inbox=self.inbox,
            asks=self.wishes, letters=self.letters, verbosity=self.loud,  # type: ignore[arg-type]
            report=self._report,
        )  # fmt: skip

    def _report(self) -> Mapping[str, object]:
        return self.report()

    def command(self, asked: Asked = StatusReport(), operator: str = "ward-1") -> Command:  # noqa: B008
        self.number += 1
        now_ns = self.clock.read().wall_ns
        return Command(
            f"{self.number:032x}", HUB.id, EPOCH, operator, now_ns, now_ns + 60 * S,
            described(asked)[0], asked,
        )  # fmt: skip

    def put(self, command: Command) -> Incoming:
        key = GUEST if command.operator == "guest" else KEY
        came = message(command.encode(), key, command.operator)
        self.inbox.put(came)
        return came

    async def answers(self, count: int) -> list[tuple[str, str | None]]:
        """The next answers, in order."""

        def take() -> bool:
            while (letter := self.letters.next(MAX_PAYLOAD_BYTES)) is not None:
                self.said.append(json.loads(letter.payload))
            return len(self.said) >= count

        await until(take, f"{count} answers: {self.said}")
        taken, self.said = self.said[:count], self.said[count:]
        self.last = taken[-1]
        return [(row["answer"], row["reason"]) for row in taken]

    def written(self) -> list[Decision]:
        blocks = read_ring(DISK, self.folder / RING).blocks
        return [blocks[number].decision for number in sorted(blocks)]

    def outcomes(self) -> list[str]:
        return [decision.outcome for decision in self.written()]


def live(tmp_path: Path, main: Callable[[World], Awaitable[None]]) -> None:
    async def life() -> None:
        world = World(tmp_path)
        task = asyncio.create_task(world.commands().run())
        await asyncio.sleep(STEP_S)
        await main(world)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(life())


def test_a_status_is_told(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        w.put(w.command())
        assert await w.answers(2) == [("accepted", None), ("completed", None)]
        assert w.last["details"] == {"status": {"hub": "hub-1", "path": "x"}}
        assert (w.last["id"], w.last["operator"], w.last["clock"]) == (f"{1:032x}", "ward-1", "synchronised")  # fmt: skip

        def fails() -> Mapping[str, object]:
            raise OSError("nobody answers")

        w.report = fails
        w.put(w.command())
        assert await w.answers(2) == [("accepted", None), ("failed", "silent")]
        w.report = lambda: {"much": "x" * 100_000}
        w.put(w.command())
        assert await w.answers(2) == [("accepted", None), ("failed", "too_large")]

    live(tmp_path, main)


def test_it_is_written_down_before_it_is_done(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        seen: list[list[str]] = []

        def looks() -> Mapping[str, object]:
            seen.append(w.outcomes())
            return {}

        w.report = looks
        command = w.command()
        w.put(command)
        await w.answers(2)
        assert seen == [[ACCEPTED]]
        decision = w.written()[0]
        assert decision.command_id == bytes.fromhex(command.id)
        assert (decision.operator, decision.kind, decision.boot_id) == (
            "ward-1",
            "status",
            "boot-1",
        )
        assert decision.valid_until_ns == command.valid_until_ns
        assert "issued 2026-" in decision.text
        assert decision.text.endswith("(synchronised)")

    live(tmp_path, main)


@pytest.mark.parametrize(
    ("error", "reason"), [(SpoolFull("full"), "busy"), (OSError(5, "broken"), "not_recorded")]
)
def test_what_cannot_be_written_down_is_not_done(
    error: Exception, reason: str, tmp_path: Path
) -> None:
    async def main(w: World) -> None:
        def refuse(*_arguments: object) -> None:
            raise error

        write = w.spool.write
        w.spool.write = refuse  # type: ignore[method-assign,assignment]
        w.put(w.command(LiveWaveform("belt", 5)))
        assert await w.answers(1) == [("refused", reason)]
        assert w.wishes.open == {}
        w.spool.write = write  # type: ignore[method-assign]
        w.put(w.command())
        await w.answers(2)
        assert w.written()[0].unrecorded == 1

    live(tmp_path, main)


def test_the_same_command_is_done_once_even_after_a_restart(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        came = w.put(w.command())
        await w.answers(2)
        w.inbox.put(came)
        assert await w.answers(1) == [("refused", "replayed")]
        w.spool = Spool(tmp_path, DISK)
        again = asyncio.create_task(w.commands().run())
        w.inbox.put(came)
        assert await w.answers(1) == [("refused", "replayed")]
        again.cancel()
        assert w.outcomes() == [ACCEPTED, "replayed", "replayed"]

    live(tmp_path, main)


def test_what_was_sent_before_the_memory_begins_is_refused(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        old = w.command()
        w.put(replace(old, issued_ns=old.issued_ns - 10 * S))
        assert await w.answers(1) == [("refused", "replayed")]

    live(tmp_path, main)


def test_a_memory_begins_when_it_was_read_not_when_the_clock_was_set(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        w.clock.state = ClockState.UNSET
        w.put(w.command())
        assert await w.answers(1) == [("refused", "clock")]
        late = w.command()
        w.clock.state = ClockState.SYNCHRONISED
        w.put(late)
        assert await w.answers(2) == [("accepted", None), ("completed", None)]

    live(tmp_path, main)


def test_live_waveform_is_asked_for_and_ends(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        w.put(w.command(LiveWaveform("belt", 5)))
        assert await w.answers(1) == [("accepted", None)]
        await until(lambda: len(w.wishes.open) == 1, "asked for")
        (ask,) = w.wishes.open.values()
        assert ask.stream == "waveform"
        assert ask.until_wall_ns - ask.from_wall_ns == 300 * S
        w.wishes.sent = 7
        w.clock.ahead_ns += 11 * S
        assert await w.answers(1) == [("progress", None)]
        assert w.last["details"] == {"sent": 7, "waiting": 3}
        w.wishes.done = True
        assert await w.answers(1) == [("completed", None)]
        assert w.wishes.open == {}

    live(tmp_path, main)


def test_no_more_ranges_than_a_few_are_open(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        # By this clock the range lies behind.
        until_ns = w.clock.read().wall_ns - S
        span = replace(RANGE, from_ns=until_ns - S, until_ns=until_ns)
        for _ in range(OPEN_MOST):
            w.put(w.command(span))
            assert await w.answers(1) == [("accepted", None)]
        w.put(w.command(span))
        assert await w.answers(1) == [("refused", "busy")]
        w.put(w.command())
        assert await w.answers(2) == [("accepted", None), ("completed", None)]
        w.wishes.done = True
        assert await w.answers(OPEN_MOST) == [("completed", None)] * OPEN_MOST
        w.wishes.full = True
        w.put(w.command(span))
        assert await w.answers(2) == [("accepted", None), ("failed", "busy")]

    live(tmp_path, main)


def test_more_log_ends_with_an_answer(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        w.put(w.command(Logging(LogLevel.DEBUG, 60)))
        assert await w.answers(1) == [("accepted", None)]
        w.put(w.command(Logging(LogLevel.INFO, 1)))
        assert await w.answers(2) == [("accepted", None), ("completed", None)]
        assert w.loud.told == ["debug", "info"]
        first, second = w.written()
        assert (first.log_level, second.log_level) == ("debug", "info")
        assert second.log_until_ns - second.clock.boottime_ns == 60 * S
        w.clock.ahead_ns += 61 * S
        w.put(w.command())
        assert ("completed", None) in await w.answers(3)

    live(tmp_path, main)


def test_rubbish_fills_neither_the_disk_nor_the_link(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        junk = replace(message(w.command().encode()), payload=b"{rubbish}")
        for _ in range(REFUSALS_AT_ONCE + 30):
            w.inbox.put(junk)
            await until(w.inbox._messages.empty, "taken")
        assert (
            await w.answers(REFUSALS_AT_ONCE) == [("refused", "bad_signature")] * REFUSALS_AT_ONCE
        )
        w.put(w.command())  # who may ask is heard all the same
        assert await w.answers(2) == [("accepted", None), ("completed", None)]
        assert w.outcomes() == ["bad_signature"] * REFUSALS_AT_ONCE + [ACCEPTED]
        assert w.written()[-1].unrecorded == 30
        w.clock.ahead_ns += 241 * S
        for _ in range(3):
            w.inbox.put(junk)
        w.put(w.command())
        assert await w.answers(3) == [("refused", "bad_signature"), ("accepted", None), ("completed", None)]  # fmt: skip
        assert w.written()[-1].unrecorded == 2

    live(tmp_path, main)


def test_a_flood_is_counted_and_forgotten() -> None:
    async def main() -> None:
        inbox = Inbox()
        for _ in range(100):
            inbox.put(Incoming(1, "t", b"", retain=False))
        assert inbox.dropped == 84
        assert await inbox.next(1) is not None

    asyncio.run(main())


@pytest.mark.parametrize("name", ["a b", "", "ü", "x" * 65, "#"])
def test_nobody_is_answered_whose_name_is_no_level_of_a_topic(name: str, tmp_path: Path) -> None:
    async def main(w: World) -> None:
        topic = Command.topic(HUB.tenant, HUB.id, name)
        w.inbox.put(Incoming(1, topic, b"{}", retain=False))
        w.put(w.command(operator="guest"))
        assert await w.answers(2) == [("accepted", None), ("completed", None)]
        assert w.outcomes() == ["malformed", ACCEPTED]
        assert w.written()[0].operator == ""

    live(tmp_path, main)


def test_damage_is_named_first(tmp_path: Path) -> None:
    async def main(w: World) -> None:
        w.put(w.command())
        await w.answers(2)
        ring = tmp_path / RING
        data = bytearray(ring.read_bytes())
        data[4096 + 30] ^= 1
        ring.write_bytes(data)
        w.spool = Spool(tmp_path, DISK)
        again = asyncio.create_task(w.commands().run())
        await until(lambda: w.outcomes() == ["damaged"], "named")
        again.cancel()

    live(tmp_path, main)


def test_a_memory_makes_room_only_for_sure(tmp_path: Path) -> None:
    """What is written is told the earliest time that it can be: an error of the clock must not forget too soon."""

    async def main(w: World) -> None:
        told: list[int | None] = []
        write = w.spool.write

        def watched(decision: Decision, now_ns: int | None) -> None:
            told.append(None if now_ns is None else decision.clock.wall_ns - now_ns)
            write(decision, now_ns)

        w.spool.write = watched  # type: ignore[method-assign]
        w.put(w.command())
        await w.answers(2)
        w.clock.state = ClockState.RESTORED
        w.put(w.command())
        await w.answers(1)
        assert told == [1_000_000, None]

    live(tmp_path, main)


# --- Letters -------------------------------------------------------------------------------------------


def letter(number: int) -> Outgoing:
    return Outgoing("t", str(number).encode())


def test_letters_survive_a_connection_in_their_order() -> None:
    woken: list[int] = []
    letters = Letters(lambda: woken.append(1))
    for number in range(4):
        letters.post(letter(number))
    assert len(woken) == 4
    for mid in (7, 8, 9):
        found = letters.next(9)
        assert found is not None
        letters.left(mid, found)
    letters.answered(8)
    letters.answered(99)
    letters.connected()
    assert [letters.next(9) for _ in range(4)] == [letter(0), letter(2), letter(3), None]


def test_letters_are_bounded() -> None:
    letters = Letters(lambda: None)
    for number in range(MOST):
        letters.post(letter(number))
    for number in range(MOST):
        found = letters.next(9)
        assert found is not None
        letters.left(number, found)
        letters.post(letter(100 + number))
    letters.connected()
    assert [letters.next(9) for _ in range(MOST)] == [letter(100 + n) for n in range(MOST)]
    assert letters.next(9) is None


def test_a_letter_that_the_broker_would_not_take_is_replaced_or_left(
    caplog: pytest.LogCaptureFixture,
) -> None:
    letters = Letters(lambda: None)
    long, short, other = (Outgoing("t", bytes(size)) for size in (100, 50, 10))
    letters.post(long, short)
    letters.post(long, short)
    letters.post(long)
    letters.post(other)
    assert letters.next(100) == long
    assert letters.next(99) == short
    assert letters.next(99) == other
    assert "answer not sent: got 100 bytes, the broker takes 99" in caplog.text
    assert letters.next(99) is None

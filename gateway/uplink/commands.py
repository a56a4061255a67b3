"""Takes commands: judges each, writes down what was decided, then does it and answers.

One task does everything in turn, so it is one command at a time. Nothing is done that was not written down before,
and nothing that was asked for outlives this process: who wants it still asks again.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from gateway.clock import Clock, ClockReading, ClockState
from gateway.config.hub import Hub
from gateway.config.kinds import NAME
from gateway.journal.entry import Stream
from gateway.spool import ACCEPTED, DAMAGED, Decision, Spool, SpoolFull
from gateway.uplink.asks import Asks
from gateway.uplink.command import (
    Answer,
    Asked,
    Command,
    LiveWaveform,
    Logging,
    Refusal,
    Response,
    StatusReport,
    StoredRange,
)
from gateway.uplink.fields import Json
from gateway.uplink.judge import Judge, Memory, Verdict
from gateway.uplink.letters import Letters
from gateway.uplink.order import Ask
from gateway.uplink.patience import NS_PER_S, to_ns
from gateway.uplink.times import iso_time
from gateway.uplink.wire import Incoming, Outgoing
from gateway.verbosity import Verbosity

log = logging.getLogger(__name__)

INBOX = 16
"""Commands that may wait for the disk. What comes beyond is counted, and not answered."""
OPEN_MOST = 4
"""Ranges and live waveforms at a time: each goes past what the link's policy would save."""
REFUSALS_AT_ONCE, REFUSAL_S = 16, 240.0
"""Refusals that are written down and answered: so many at once, and then one in so many seconds. Whoever can reach the
broker can send rubbish: it must fill neither the journal nor the link, nor wear the disk."""
LOOK_S, TELL_S = 2.0, 10.0
"""While something is open, how often it is looked at, and how often it is told how far it is."""


class Inbox:
    """What came and was not looked at yet. Bounded: whoever can reach the broker can send more than a disk takes."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Incoming] = asyncio.Queue(INBOX)
        self.dropped = 0
        """What found no room since this was last set back."""

    def put(self, message: Incoming) -> None:
        """A command came, or what somebody takes for one."""
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            self.dropped += 1

    async def next(self, limit_s: float | None) -> Incoming | None:
        """The next one; None when none came within the limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                return await self._messages.get()
        return None


@dataclass(slots=True)
class _Open:
    """An accepted ask that is not complete."""

    command: Command
    told_ns: int
    sent: int = 0


class Commands:
    """One hub's. `run` is its life."""

    def __init__(
        self,
        hub: Hub,
        epoch: str,
        judge: Judge,
        spool: Spool,
        clock: Clock,
        *,
        inbox: Inbox,
        asks: Asks,
        letters: Letters,
        verbosity: Verbosity,
        report: Callable[[], Mapping[str, object]],
    ) -> None:
        """Takes what it decides with. `report` makes the status report, in a worker thread; it may raise OSError."""
        self._hub = hub
        self._epoch = epoch
        self._judge = judge
        self._spool = spool
        self._clock = clock
        self._inbox = inbox
        self._asks = asks
        self._letters = letters
        self._verbosity = verbosity
        self._report = report
        self._began_ns = clock.boottime_ns()
        self._budget = _Budget(clock.boottime_ns())
        self._unrecorded = 0
        self._number = 0
        self._open: dict[str, _Open] = {}
        self._logging: tuple[Command, int] | None = None

    @staticmethod
    def filter(hub: Hub) -> str:
        """The topic filter of this hub's commands."""
        return Command.topic(hub.tenant, hub.id, "+")

    async def run(self) -> None:
        """Until cancelled."""
        if self._spool.damaged:
            await self._mend()
        try:
            while True:
                message = await self._inbox.next(self._patience_s)
                if message is not None:
                    await self._take(message)
                self._look()
        finally:
            self._verbosity.end()

    @property
    def _patience_s(self) -> float | None:
        """Until something is to be looked at, if no command comes."""
        waits = [LOOK_S] if self._open else []
        if self._logging is not None:
            waits.append(max(0.0, (self._logging[1] - self._clock.boottime_ns()) / NS_PER_S))
        return min(waits, default=None)

    # --- Deciding ------------------------------------------------------------------------------------

    async def _take(self, message: Incoming) -> None:
        reading = self._clock.read()
        verdict = self._verdict(message, reading)
        if verdict.refusal is not None and not self._budget.spend(reading.boottime_ns):
            self._unrecorded += 1
            return
        refusal = await self._record(verdict, reading)
        if refusal is not None:
            if verdict.refusal is None and not self._budget.spend(reading.boottime_ns):
                return
            verdict = replace(verdict, asked=None, refusal=refusal)
        if verdict.refusal is not None:
            log.warning("uplink: command of %s refused: %s", verdict.operator, verdict.refusal)
            self._answer(verdict.operator, verdict.command, Answer.REFUSED, verdict.text,
                         reason=verdict.refusal)  # fmt: skip
        elif verdict.command is not None and verdict.asked is not None:
            log.info("uplink: %s asked for %s", verdict.operator, verdict.command.kind)
            self._answer(verdict.operator, verdict.command, Answer.ACCEPTED, verdict.text)
            await self._do(verdict.command, verdict.asked, reading)

    def _verdict(self, message: Incoming, reading: ClockReading) -> Verdict:
        operator = message.topic.rpartition("/")[2]
        try:
            NAME.parse(operator)
        except ValueError:
            return Verdict("", None, None, Refusal.MALFORMED, f"topic: expected {NAME.expected}")
        command = self._judge.read(operator, message)
        if isinstance(command, Verdict):
            return command
        is_known = reading.state is ClockState.SYNCHRONISED
        since = self._spool.remembers_from(reading.wall_of(self._began_ns) if is_known else None)
        memory = Memory(self._spool.was_accepted(bytes.fromhex(command.id)), *since)
        verdict = self._judge.decide(operator, command, reading, memory)
        waves = isinstance(verdict.asked, LiveWaveform | StoredRange)
        if waves and len(self._open) >= OPEN_MOST:
            text = f"{OPEN_MOST} ranges are open; ask again when one is complete"
            return replace(verdict, asked=None, refusal=Refusal.BUSY, text=text)
        return verdict

    async def _record(self, verdict: Verdict, reading: ClockReading) -> Refusal | None:
        """Writes the verdict down. Returns why it could not be: then it must not be done."""
        dropped, self._inbox.dropped = self._inbox.dropped, 0
        self._unrecorded += dropped
        decision = self._decision(verdict, reading)
        surely_ns = None
        if reading.state is ClockState.SYNCHRONISED and reading.error_ns is not None:
            surely_ns = reading.wall_ns - reading.error_ns
        try:
            await asyncio.to_thread(self._spool.write, decision, surely_ns)
        except SpoolFull as error:
            log.warning("uplink: a command cannot be written down: %s", error)
            refusal = Refusal.BUSY
        except OSError as error:
            log.warning("uplink: a command cannot be written down: %s", error)
            refusal = Refusal.NOT_RECORDED
        else:
            self._unrecorded -= decision.unrecorded
            return None
        self._unrecorded += 1
        return refusal

    def _decision(self, verdict: Verdict, reading: ClockReading) -> Decision:
        command, level, until_ns = verdict.command, "", 0
        parts = [verdict.text]
        if command is not None:
            issued, valid = iso_time(command.issued_ns), iso_time(command.valid_until_ns)
            parts.append(f"issued {issued}, valid until {valid}")
        parts.append(f"decided {iso_time(reading.wall_ns)} ({reading.state})")
        if isinstance(verdict.asked, Logging):
            level = verdict.asked.level.value
            until_ns = reading.boottime_ns + to_ns(60 * verdict.asked.minutes)
        return Decision(
            self._clock.boot_id,
            reading,
            verdict.operator,
            bytes.fromhex(command.id) if command else b"",
            command.kind if command else "",
            "; ".join(part for part in parts if part),
            ACCEPTED if verdict.refusal is None else verdict.refusal.value,
            command.valid_until_ns if command and verdict.refusal is None else None,
            self._unrecorded,
            level,
            until_ns,
        )

    async def _mend(self) -> None:
        text = f"{len(self._spool.damaged)} blocks of the ring of commands cannot be read; what was sent before is refused"
        boot_id, reading = self._clock.boot_id, self._clock.read()
        decision = Decision(boot_id, reading, "", b"", "", text, DAMAGED)
        try:
            await asyncio.to_thread(self._spool.mend, decision)
        except (SpoolFull, OSError) as error:
            log.warning("uplink: the ring of commands cannot be mended: %s", error)

    # --- Doing ---------------------------------------------------------------------------------------

    async def _do(self, command: Command, asked: Asked, reading: ClockReading) -> None:
        match asked:
            case LiveWaveform(_, minutes):
                until_ns = reading.wall_ns + to_ns(60 * minutes)
                self._ask(Ask(_name(command), Stream.WAVEFORM, reading.wall_ns, until_ns), command)
            case StoredRange(stream, from_ns, until_ns):
                self._ask(Ask(_name(command), stream, from_ns, until_ns), command)
            case StatusReport():
                await self._status(command)
            case Logging(level, minutes):
                self._end_logging("another took its place")
                until_ns = reading.boottime_ns + to_ns(60 * minutes)
                self._verbosity.raise_until(level.value, until_ns)
                self._logging = command, until_ns

    def _ask(self, ask: Ask, command: Command) -> None:
        try:
            self._asks.add(ask)
        except ValueError as error:
            self._answer(command.operator, command, Answer.FAILED, str(error),
                         reason=Refusal.BUSY)  # fmt: skip
        else:
            self._open[ask.name] = _Open(command, self._clock.boottime_ns())

    async def _status(self, command: Command) -> None:
        try:
            found = await asyncio.to_thread(self._report)
        except OSError as error:
            self._answer(command.operator, command, Answer.FAILED, str(error),
                         reason="silent")  # fmt: skip
            return
        details = {"status": _plain(found)}
        self._answer(command.operator, command, Answer.COMPLETED, "", details=details)

    def _look(self) -> None:
        """Tells how far what is open is, and ends what is over."""
        now_ns = self._clock.boottime_ns()
        if self._logging is not None and now_ns >= self._logging[1]:
            self._end_logging("")
        for progress in self._asks.progress() if self._open else ():
            name = progress.ask.name
            row = self._open.get(name)
            if row is None:
                continue
            details: dict[str, Json] = {"sent": progress.sent, "waiting": progress.waiting}
            operator = row.command.operator
            if progress.is_done:
                self._asks.withdraw(name)
                del self._open[name]
                text = "entries sent because of this; what had left before is not sent again"
                self._answer(operator, row.command, Answer.COMPLETED, text, details=details)
            elif progress.sent != row.sent and now_ns - row.told_ns >= to_ns(TELL_S):
                row.sent, row.told_ns = progress.sent, now_ns
                self._answer(operator, row.command, Answer.PROGRESS, "", details=details)

    def _end_logging(self, text: str) -> None:
        if self._logging is None:
            return
        command = self._logging[0]
        self._logging = None
        self._answer(command.operator, command, Answer.COMPLETED, text)

    def _answer(
        self,
        operator: str,
        command: Command | None,
        answer: Answer,
        text: str,
        *,
        reason: str | None = None,
        details: Mapping[str, Json] | None = None,
    ) -> None:
        """Nobody is answered whose name cannot be a level of a topic."""
        if not operator:
            return
        self._number += 1
        reading = self._clock.read()
        response = Response(
            self._hub.id,
            self._epoch,
            operator,
            command.id if command else None,
            command.kind if command else "",
            answer,
            reason,
            text,
            iso_time(reading.wall_ns),
            reading.state,
            self._number,
            details or {},
        )
        payload = response.encode()
        text = (
            f"the answer is {len(payload)} bytes, which is more than a message or this broker takes"
        )
        short = replace(response, answer=Answer.FAILED, reason="too_large", text=text, details={})
        topic = Response.topic(self._hub.tenant, self._hub.id, operator)
        forms = [response, short] if response.details else [response]
        self._letters.post(*(Outgoing(topic, form.encode()) for form in forms))


class _Budget:
    """How many refusals may be written down: a bucket that fills again."""

    def __init__(self, now_ns: int) -> None:
        self._left = float(REFUSALS_AT_ONCE)
        self._filled_ns = now_ns

    def spend(self, now_ns: int) -> bool:
        """Whether there is one left, which is then gone."""
        gained = (now_ns - self._filled_ns) / NS_PER_S / REFUSAL_S
        self._left = min(float(REFUSALS_AT_ONCE), self._left + gained)
        self._filled_ns = now_ns
        if self._left < 1:
            return False
        self._left -= 1
        return True


def _name(command: Command) -> str:
    """Of its ask: no other command has it."""
    return f"{command.operator}/{command.id}"


def _plain(value: object) -> Json:
    """As JSON: what is no JSON value stands as its text."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | bool | int | float | None) else str(value)

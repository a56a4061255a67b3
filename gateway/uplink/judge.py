"""Whether a command is to be done: one check after the other, and why not. No I/O, and time is handed in."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.clock import BUILT_NS, ClockReading, ClockState
from gateway.config.commands import Operator
from gateway.config.hub import Hub
from gateway.uplink.command import (
    MAX_VALIDITY_NS,
    Asked,
    Command,
    LiveWaveform,
    Refusal,
    StoredRange,
)
from gateway.uplink.fields import PayloadError
from gateway.uplink.signature import Doubt, VerifyKeys
from gateway.uplink.wire import Incoming

AHEAD_NS = 5_000_000_000
"""So far ahead of the hub's clock may a sender's be."""


@dataclass(frozen=True, slots=True)
class Memory:
    """What was executed, as far as it is remembered: see `Spool.remembers_from`."""

    was_accepted: bool
    expired_before_ns: int
    issued_after_ns: int | None


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a command. `command` is None where it could not be read.

    Attributes:
        asked: what is to be done, when nothing speaks against it.
        refusal: what does.
        text: what, got, expected, for people.
    """

    operator: str
    command: Command | None
    asked: Asked | None
    refusal: Refusal | None
    text: str = ""


class _Refused(Exception):  # noqa: N818 - the sender is at fault; it never leaves this module
    def __init__(self, refusal: Refusal, text: str) -> None:
        super().__init__(text)
        self.refusal = refusal
        self.text = text


class Judge:
    """Knows who may ask this hub for what."""

    def __init__(
        self, hub: Hub, epoch: str, operators: Mapping[str, Operator], devices: tuple[str, ...]
    ) -> None:
        """Takes the names of the devices that there are."""
        self._hub = hub
        self._epoch = epoch
        self._operators = operators
        self._devices = devices
        self._keys = VerifyKeys({name: row.verify_key for name, row in operators.items()})

    def read(self, operator: str, message: Incoming) -> Command | Verdict:
        """The command of a configured operator, or why it is none. Nothing is parsed before its signature holds."""
        opened = self._keys.opened(operator, message)
        if opened is Doubt.UNKNOWN:
            text = f"operator {operator}: got nobody who is configured here"
            return Verdict(operator, None, None, Refusal.UNKNOWN_SENDER, text)
        if isinstance(opened, Doubt):
            text = f"signature: got {opened}, expected that of {operator} over this topic"
            return Verdict(operator, None, None, Refusal.BAD_SIGNATURE, text)
        try:
            return Command.decode(opened)
        except PayloadError as error:
            return Verdict(operator, None, None, Refusal.MALFORMED, str(error))

    def decide(
        self, operator: str, command: Command, reading: ClockReading, memory: Memory
    ) -> Verdict:
        """Whether it is to be done now."""
        try:
            self._check_address(operator, command)
            _check_time(command, reading, memory)
            asked = self._check_wish(operator, command, reading)
        except _Refused as refused:
            return Verdict(operator, command, None, refused.refusal, refused.text)
        return Verdict(operator, command, asked, None, command.text)

    def _check_address(self, operator: str, command: Command) -> None:
        got = command.hub, command.operator
        if got != (self._hub.id, operator):
            text = (
                f"got hub {got[0][:48]!r} and operator {got[1][:48]!r}, expected those of the topic"
            )
            raise _Refused(Refusal.WRONG_HUB, text)
        if command.epoch != self._epoch:
            text = (
                f"epoch: got {command.epoch[:48]!r}, expected {self._epoch}; see the hub's status"
            )
            raise _Refused(Refusal.WRONG_EPOCH, text)

    def _check_wish(self, operator: str, command: Command, reading: ClockReading) -> Asked:
        if command.asked is Refusal.UNKNOWN_COMMAND:
            raise _Refused(command.asked, f"command: got {command.kind[:48]!r}, {command.text}")
        allowed = self._operators[operator].allow
        if command.kind not in allowed:
            text = f"{operator} may ask for {', '.join(sorted(allowed))}; got {command.kind}"
            raise _Refused(Refusal.NOT_ALLOWED, text)
        match command.asked:
            case Refusal() as refusal:
                raise _Refused(refusal, command.text)
            case LiveWaveform(device, _) if device not in self._devices:
                known = ", ".join(self._devices) or "no device"
                text = f"device: got {device[:48]!r}, expected one of {known}"
                raise _Refused(Refusal.UNKNOWN_DEVICE, text)
            case StoredRange(until_ns=until_ns) if until_ns > reading.wall_ns + AHEAD_NS:
                raise _Refused(Refusal.OUT_OF_RANGE, "range: got an end that lies ahead")
            case asked:
                return asked


def _check_time(command: Command, reading: ClockReading, memory: Memory) -> None:
    """Only what surely holds is done. A clock that may lag can still tell that something is over, never that it is not."""
    issued_ns, until_ns = command.issued_ns, command.valid_until_ns
    if not issued_ns <= until_ns <= issued_ns + MAX_VALIDITY_NS:
        got = (until_ns - issued_ns) // 1_000_000_000
        text = f"valid_until: got {got} s after issued, expected 0 to {MAX_VALIDITY_NS // 1_000_000_000}"
        raise _Refused(Refusal.OUT_OF_RANGE, text)
    if memory.was_accepted:
        raise _Refused(Refusal.REPLAYED, f"{command.id}: was executed already")
    if until_ns <= memory.expired_before_ns:
        raise _Refused(Refusal.EXPIRED, "it was over when an earlier command was forgotten")
    if reading.state is not ClockState.SYNCHRONISED or reading.error_ns is None:
        earliest_ns = reading.wall_ns if reading.state is ClockState.RESTORED else BUILT_NS
        if until_ns < earliest_ns:
            raise _Refused(Refusal.EXPIRED, f"the hub's clock is {reading.state} and past that")
        text = f"the hub's clock is {reading.state}: it cannot tell whether this still holds"
        raise _Refused(Refusal.CLOCK, text)
    if reading.wall_ns + reading.error_ns > until_ns:
        late_s = (reading.wall_ns + reading.error_ns - until_ns) / 1e9
        text = f"it is {late_s:.1f} s over, give or take {reading.error_ns / 1e9:.3f} s"
        raise _Refused(Refusal.EXPIRED, text)
    if issued_ns > reading.wall_ns + reading.error_ns + AHEAD_NS:
        text = f"it begins in {(issued_ns - reading.wall_ns) / 1e9:.1f} s; look at both clocks"
        raise _Refused(Refusal.NOT_YET_VALID, text)
    if memory.issued_after_ns is None or issued_ns <= memory.issued_after_ns:
        text = "it was sent before this hub's memory of executed commands begins; ask again"
        raise _Refused(Refusal.REPLAYED, text)

"""What an operator may ask of a hub, and what the hub answers: the two messages. No I/O, no clock.

A command is one JSON object, signed like every message. It names its hub, that hub's epoch and its operator, and for
how long it is meant. Reading is total: any bytes give a Command or PayloadError, or, where the envelope is whole and
what is asked for is not, a Command whose `asked` is the Refusal.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.clock import ClockState
from gateway.config.commands import CommandKind
from gateway.journal.entry import Stream
from gateway.uplink.fields import Fields, Json, PayloadError, dumps, loads
from gateway.uplink.times import iso_time

COMMAND_SCHEMA = "wardlink.command/1"
RESPONSE_SCHEMA = "wardlink.response/1"
MAX_COMMAND_BYTES = 4096
"""Nothing that can be asked for needs a tenth of it."""
MAX_MINUTES = 60
MAX_RANGE_NS = 24 * 3600 * 1_000_000_000
MAX_VALIDITY_NS = 3600 * 1_000_000_000
"""A command that is meant for longer is refused: so long at most has an executed one to be remembered."""
ID_BYTES = 16
_ID = re.compile(r"[0-9a-f]{32}")


class Refusal(StrEnum):
    """Why a hub does not do what it is asked. Stable tokens, in the order in which they are looked for."""

    UNKNOWN_SENDER = "unknown_sender"
    """Nobody configured this operator here."""
    BAD_SIGNATURE = "bad_signature"
    """None, or not that of the operator over this topic."""
    MALFORMED = "malformed"
    WRONG_HUB = "wrong_hub"
    """Another hub, or another operator, than the topic's."""
    WRONG_EPOCH = "wrong_epoch"
    """The journal that the sender knows is no more: ask again, with the epoch of the hub's status."""
    REPLAYED = "replayed"
    """It was executed already, or was sent before the hub's memory of such commands begins."""
    CLOCK = "clock"
    """The hub does not know what time it is, so it cannot tell whether the command still holds."""
    NOT_YET_VALID = "not_yet_valid"
    EXPIRED = "expired"
    UNKNOWN_COMMAND = "unknown_command"
    NOT_ALLOWED = "not_allowed"
    """This operator may not ask for this."""
    UNKNOWN_DEVICE = "unknown_device"
    OUT_OF_RANGE = "out_of_range"
    BUSY = "busy"
    """Too much is asked for already: ask again later."""
    NOT_RECORDED = "not_recorded"
    """The hub cannot write down that it was asked, and so does nothing."""


class LogLevel(StrEnum):
    """How much can be asked for. Never less than configured: an operator cannot silence a hub."""

    DEBUG = "debug"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class LiveWaveform:
    """The waveform as it is recorded, because of one device, for some minutes."""

    device: str
    minutes: int


@dataclass(frozen=True, slots=True)
class StoredRange:
    """What one stream holds of a span of wall time, ends included."""

    stream: Stream
    from_ns: int
    until_ns: int


@dataclass(frozen=True, slots=True)
class StatusReport:
    """How the hub is."""


@dataclass(frozen=True, slots=True)
class Logging:
    """More log for some minutes."""

    level: LogLevel
    minutes: int


Asked = LiveWaveform | StoredRange | StatusReport | Logging


@dataclass(frozen=True, slots=True)
class Command:
    """One command.

    Attributes:
        id: 32 hexadecimal digits, never used twice.
        issued_ns, valid_until_ns: wall time; outside of it the hub does nothing.
        kind: as it was written; not every one is known here.
        asked: what is asked for, or why that cannot be done.
        text: the same for people.
    """

    id: str
    hub: str
    epoch: str
    operator: str
    issued_ns: int
    valid_until_ns: int
    kind: str
    asked: Asked | Refusal
    text: str = ""

    @staticmethod
    def topic(tenant: str, hub: str, operator: str) -> str:
        """Where it is published; with "+" as the operator, what a hub subscribes to."""
        return f"wardlink/1/{tenant}/{hub}/command/{operator}"

    @staticmethod
    def is_topic(topic: str) -> bool:
        """Whether a command is what a message there ought to be."""
        return topic.split("/")[-2:-1] == ["command"]

    def encode(self) -> bytes:
        """The payload. The times in words are for people."""
        if isinstance(self.asked, Refusal):
            raise PayloadError("command", self.asked, "something that can be asked for")
        _, arguments = described(self.asked)
        head: dict[str, Json] = {
            "schema": COMMAND_SCHEMA,
            "id": self.id,
            "hub": self.hub,
            "epoch": self.epoch,
            "operator": self.operator,
            "issued": iso_time(self.issued_ns),
            "issued_ns": self.issued_ns,
            "valid_until": iso_time(self.valid_until_ns),
            "valid_until_ns": self.valid_until_ns,
            "command": self.kind,
        }
        return dumps(head | arguments).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> "Command":
        """Raises PayloadError, and nothing else, where not even the envelope is whole."""
        if len(data) > MAX_COMMAND_BYTES:
            raise PayloadError("message", f"{len(data)} bytes", f"at most {MAX_COMMAND_BYTES}")
        fields = loads(data)
        schema = fields.text("schema")
        if schema != COMMAND_SCHEMA:
            raise PayloadError("message.schema", repr(schema[:48]), COMMAND_SCHEMA)
        command_id = fields.text("id")
        if _ID.fullmatch(command_id) is None:
            raise PayloadError("message.id", repr(command_id[:48]), "32 hexadecimal digits")
        kind = fields.text("command")
        asked, text = _asked(kind, fields)
        return cls(
            command_id,
            fields.text("hub"),
            fields.text("epoch"),
            fields.text("operator"),
            fields.integer("issued_ns", least=0),
            fields.integer("valid_until_ns", least=0),
            kind,
            asked,
            text,
        )


class _OutOfRange(Exception):  # noqa: N818 - the sender is at fault; it never leaves this module
    pass


def described(asked: Asked) -> tuple[CommandKind, dict[str, Json]]:
    """The word for it, and its fields in a command."""
    match asked:
        case LiveWaveform(device, minutes):
            return CommandKind.LIVE_WAVEFORM, {"device": device, "minutes": minutes}
        case StoredRange(stream, from_ns, until_ns):
            times: dict[str, Json] = {"from": iso_time(from_ns), "until": iso_time(until_ns)}
            numbers: dict[str, Json] = {"from_ns": from_ns, "until_ns": until_ns}
            return CommandKind.RANGE, {"stream": stream} | times | numbers
        case StatusReport():
            return CommandKind.STATUS, {}
        case Logging(level, minutes):
            return CommandKind.LOG_LEVEL, {"level": level, "minutes": minutes}


def _asked(kind: str, fields: Fields) -> tuple[Asked | Refusal, str]:
    read = READERS.get(kind)
    if read is None:
        return Refusal.UNKNOWN_COMMAND, f"expected one of {', '.join(CommandKind)}"
    try:
        asked = read(fields)
    except _OutOfRange as error:
        return Refusal.OUT_OF_RANGE, str(error)
    _, arguments = described(asked)
    shown = {key: value for key, value in arguments.items() if not key.endswith("_ns")}
    return asked, " ".join(f"{key} {value!s}" for key, value in shown.items())


def _minutes(fields: Fields) -> int:
    minutes = fields.integer("minutes")
    if not 1 <= minutes <= MAX_MINUTES:
        raise _OutOfRange(f"minutes: got {minutes}, expected 1 to {MAX_MINUTES}")
    return minutes


def _range(fields: Fields) -> StoredRange:
    stream = fields.choice("stream", Stream)
    from_ns, until_ns = fields.integer("from_ns", least=0), fields.integer("until_ns", least=0)
    if not from_ns < until_ns <= from_ns + MAX_RANGE_NS:
        hours = MAX_RANGE_NS // 3_600_000_000_000
        raise _OutOfRange(
            f"range: got {iso_time(from_ns)} to {iso_time(until_ns)},"
            f" expected at most {hours} hours, the earlier time first"
        )
    return StoredRange(stream, from_ns, until_ns)


READERS: Mapping[str, Callable[[Fields], Asked]] = {
    CommandKind.LIVE_WAVEFORM: lambda fields: LiveWaveform(fields.text("device"), _minutes(fields)),
    CommandKind.RANGE: _range,
    CommandKind.STATUS: lambda _fields: StatusReport(),
    CommandKind.LOG_LEVEL: lambda fields: Logging(
        fields.choice("level", LogLevel), _minutes(fields)
    ),
}


class Answer(StrEnum):
    """Where an answered command is."""

    ACCEPTED = "accepted"
    """It is written down, and is being done."""
    REFUSED = "refused"
    """Nothing is done; `reason` is a Refusal."""
    PROGRESS = "progress"
    COMPLETED = "completed"
    FAILED = "failed"
    """It was accepted and could not be done."""

    @property
    def is_last(self) -> bool:
        """Whether nothing more is said to this command."""
        return self in {Answer.REFUSED, Answer.COMPLETED, Answer.FAILED}


@dataclass(frozen=True, slots=True)
class Response:
    """One answer to one command.

    Attributes:
        id: the command's; None where it could not be read.
        reason: why it was refused or failed; None otherwise.
        text: what, got, expected, for people.
        time, clock: the hub's wall time in words when it answered, and how far that can be trusted.
        number: counts the answers of one hub, so that their order is plain.
        details: what the kind of command brings: a status, how far it is.
    """

    hub: str
    epoch: str
    operator: str
    id: str | None
    kind: str
    answer: Answer
    reason: str | None
    text: str
    time: str | None
    clock: ClockState
    number: int
    details: Mapping[str, Json]

    @staticmethod
    def topic(tenant: str, hub: str, operator: str) -> str:
        """Where it is published."""
        return f"wardlink/1/{tenant}/{hub}/response/{operator}"

    def encode(self) -> bytes:
        """The payload."""
        return dumps(
            {
                "schema": RESPONSE_SCHEMA,
                "hub": self.hub,
                "epoch": self.epoch,
                "operator": self.operator,
                "id": self.id,
                "command": self.kind,
                "answer": self.answer,
                "reason": self.reason,
                "text": self.text,
                "time": self.time,
                "clock": self.clock,
                "number": self.number,
                "details": self.details,
            }
        ).encode("ascii")

    @classmethod
    def decode(cls, data: bytes) -> "Response":
        """Raises PayloadError, and nothing else."""
        fields = loads(data)
        schema = fields.text("schema")
        if schema != RESPONSE_SCHEMA:
            raise PayloadError("message.schema", repr(schema[:48]), RESPONSE_SCHEMA)
        return cls(
            fields.text("hub"),
            fields.text("epoch"),
            fields.text("operator"),
            fields.text_or_none("id"),
            fields.text("command"),
            fields.choice("answer", Answer),
            fields.text_or_none("reason"),
            fields.text("text"),
            fields.text_or_none("time"),
            fields.choice("clock", ClockState),
            fields.integer("number", least=0),
            fields.mapping("details"),
        )

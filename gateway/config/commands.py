"""[commands]: who may ask this hub for what."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.config.kinds import NAME, VERIFY_KEY
from gateway.tables import Key, Reader, some_of


class CommandKind(StrEnum):
    """What can be asked for. There is nothing else: no shell, no file, no change of the configuration."""

    LIVE_WAVEFORM = "live-waveform"
    """The waveform stream as it is recorded, for some minutes."""
    RANGE = "range"
    """A span of a stream that is stored here, at full rate."""
    STATUS = "status"
    """What `wardlink status --json` says."""
    LOG_LEVEL = "log-level"
    """More of the program's own log, for some minutes."""


@dataclass(frozen=True, slots=True)
class Operator:
    """Somebody who may ask: the verify key in base64, and for what."""

    verify_key: str
    allow: frozenset[CommandKind]


@dataclass(frozen=True, slots=True)
class Commands:
    """Without operators nothing is subscribed to, and nobody can ask for anything."""

    operators: Mapping[str, Operator] = field(default_factory=dict)


OPERATOR_KEYS = (
    Key(
        "verify_key",
        VERIFY_KEY,
        "the operator's verify key, as `wardlink key --operator` prints it there",
        required=True,
    ),
    Key("allow", some_of(CommandKind), "what the operator may ask for", tuple(CommandKind)),
)


def read_commands(reader: Reader, root: Mapping[str, object]) -> Commands:
    """Who may ask for what."""
    table = reader.table(root.get("commands", {}), "commands") or {}
    reader.values(table, "commands", (), nested=("operators",))
    rows = reader.table(table.get("operators"), "commands.operators", required=False) or {}
    operators = {}
    for name, row in rows.items():
        at = f"commands.operators.{name}"
        try:
            NAME.parse(name)
        except ValueError:
            reader.fault(at, "a name that cannot be a level of a topic", NAME.expected)
        fields = reader.table(row, at)
        if fields is None:
            continue
        values = reader.values(fields, at, OPERATOR_KEYS)
        if values["verify_key"] is not None and isinstance(values["allow"], tuple):
            operators[name] = Operator(str(values["verify_key"]), frozenset(values["allow"]))
    return Commands(operators)

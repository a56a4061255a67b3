"""The receiver's configuration: TOML to a frozen dataclass, every fault listed at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from gateway.config.broker import Broker, read_broker
from gateway.config.hubs import read_hubs
from gateway.config.kinds import NAME, build, read_toml
from gateway.tables import ConfigError, Key, Reader, integer, one_of, path, text

CONNINFO = text(
    'a connection string of libpq, say "host=db.example dbname=wardlink" or "postgresql://..."',
    r"[^\0\n]{1,1000}",
)


class Output(StrEnum):
    """What a receiver writes."""

    JSON_LINES = "json_lines"
    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """Everything that `wardlink receive` needs to know. `hubs`: each hub's Ed25519 verify key in base64.

    Attributes:
        output_file: of JSON lines or SQLite.
        database: for PostgreSQL, as libpq takes it; it may hold a password.
    """

    id: str
    tenant: str
    state_dir: Path
    output: Output
    output_file: Path | None
    database: str | None = field(repr=False)
    share: str | None
    grace_s: int
    session_expiry_s: int
    broker: Broker
    hubs: Mapping[str, str]
    clinic_key_file: Path | None = None


def receiver_keys(folder: Path) -> tuple[Key, ...]:
    """The keys of [receiver]."""
    return (
        Key("id", NAME, "this receiver's name: its MQTT client identifier", required=True),
        Key("tenant", NAME, "whose hubs to receive", "home"),
        Key(
            "state_dir",
            path(folder),
            "what has been received already; survives a restart",
            required=True,
        ),
        Key("output", one_of(Output), "what to write: docs/database.md", Output.JSON_LINES),
        Key("output_file", path(folder), "of JSON lines, appended, or of SQLite"),
        Key(
            "database",
            CONNINFO,
            "of PostgreSQL; what it leaves out comes from libpq's environment and password file",
        ),
        Key(
            "share",
            NAME,
            "the group of receivers that shares the messages, each to one of them; they need one database",
        ),
        Key("grace_s", integer(1, 3600, "seconds"), "how long a hole stays before it is a gap", 5),
        Key(
            "session_expiry_s",
            integer(0, 30 * 86_400, "seconds"),
            "how long the broker keeps what comes while this receiver is away",
            7 * 86_400,
        ),
        Key(
            "clinic_key_file",
            path(folder),
            "the clinic's private key, which opens what hubs seal; `wardlink key --clinic` makes it",
        ),
    )


def load_receiver(source: Path) -> ReceiverConfig:
    """The receiver's configuration.

    Raises:
        ConfigError: with every fault in the file.
    """
    root = read_toml(source)
    folder = source.resolve().parent
    reader = Reader()
    reader.values(root, "", (), nested=("receiver", "broker", "hubs"))
    table = reader.table(root.get("receiver"), "receiver")
    values = reader.values(table, "receiver", receiver_keys(folder)) if table is not None else {}
    if values:
        _check_output(reader, values)
    broker = read_broker(reader, root, folder)
    hubs = read_hubs(reader, root)
    config = build(ReceiverConfig, reader, {**values, "broker": broker, "hubs": hubs})
    if config is None:
        raise ConfigError(tuple(reader.faults))
    return config


def _check_output(reader: Reader, values: Mapping[str, object]) -> None:
    """What one key asks of another."""
    output = values["output"]
    needed, other = (
        ("database", "output_file") if output is Output.POSTGRESQL else ("output_file", "database")
    )
    if values[needed] is None:
        kind = "a connection string" if needed == "database" else "a path"
        reader.fault(f"receiver.{needed}", "nothing", f'{kind}, since output is "{output}"')
    if values[other] is not None:
        reader.fault(f"receiver.{other}", "a value", f'nothing, since output is "{output}"')
    if values["share"] is not None and output is Output.JSON_LINES:
        reader.fault(
            "receiver.share",
            f'"{values["share"]}" with output = "{output}"',
            'output = "sqlite" (receivers on one machine) or "postgresql": what came already must be known'
            " to all receivers of a group",
        )

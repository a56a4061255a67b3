"""[hub]: who this hub is."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from drivers.model import Mode
from gateway.config.kinds import NAME, build
from gateway.journal.entry import Stream
from gateway.tables import Key, Reader, one_of, path


@dataclass(frozen=True, slots=True)
class Hub:
    """Who this hub is, and where it keeps what must survive."""

    id: str
    tenant: str
    state_dir: Path
    runtime_dir: Path
    mode: Mode = Mode.REAL

    @property
    def client_id(self) -> str:
        """Its MQTT client identifier."""
        return f"wardlink-{self.tenant}-{self.id}"

    def topic(self, name: str) -> str:
        """The topic of a stream, a notice, or a talk with somebody."""
        return f"wardlink/1/{self.tenant}/{self.id}/{name}"


def spoken_on(hub: Hub) -> tuple[str, ...]:
    """The topics on which a hub speaks to everybody."""
    return tuple(hub.topic(name) for name in (*Stream, "status", "heartbeat"))


def topics_of(hub: Hub, receivers: Iterable[str], operators: Iterable[str]) -> Iterator[str]:
    """Every topic that this hub publishes on or subscribes to."""
    yield from spoken_on(hub)
    for receiver in receivers:
        yield hub.topic(f"receipt/{receiver}")
    for operator in operators:
        yield hub.topic(f"command/{operator}")
        yield hub.topic(f"response/{operator}")


def hub_keys(folder: Path) -> tuple[Key, ...]:
    """The keys of [hub]."""
    return (
        Key("id", NAME, "this hub's name: in every topic and every record", required=True),
        Key("tenant", NAME, "whose hub it is: the first level of its topics", "home"),
        Key(
            "state_dir",
            path(folder),
            "journal and keys; survives a restart",
            folder / "/var/lib/wardlink",
        ),
        Key("runtime_dir", path(folder), "the status socket; may vanish", folder / "/run/wardlink"),
        Key(
            "mode",
            one_of(Mode),
            'what the data is; "demo" and "test" stand in every record',
            Mode.REAL,
        ),
    )


def read_hub(reader: Reader, root: Mapping[str, object], folder: Path) -> Hub | None:
    """The hub, or None with the faults noted."""
    table = reader.table(root.get("hub"), "hub")
    if table is None:
        return None
    return build(Hub, reader, reader.values(table, "hub", hub_keys(folder)))

"""The receiver's configuration: TOML to a frozen dataclass, every fault listed at once."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config.broker import Broker, read_broker
from gateway.config.kinds import NAME, VERIFY_KEY, build, read_toml
from gateway.tables import ConfigError, Key, Reader, path


@dataclass(frozen=True, slots=True)
class ReceiverConfig:
    """Everything that `wardlink receive` needs to know. `hubs`: each hub's Ed25519 verify key in base64."""

    id: str
    tenant: str
    state_dir: Path
    output_file: Path
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
        Key("output_file", path(folder), "JSON lines, appended", required=True),
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
    broker = read_broker(reader, root, folder)
    hubs_table = reader.table(root.get("hubs"), "hubs") or {}
    keys = tuple(Key(name, VERIFY_KEY, "the hub's verify key") for name in hubs_table)
    hubs = reader.values(hubs_table, "hubs", keys)
    if root.get("hubs") is not None and not hubs_table:
        reader.fault("hubs", "no hub", 'one line a hub: "hub-id" = "its verify key"')
    config = build(ReceiverConfig, reader, {**values, "broker": broker, "hubs": hubs})
    if config is None:
        raise ConfigError(tuple(reader.faults))
    return config

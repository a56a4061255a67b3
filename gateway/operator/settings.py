"""The operator's configuration. A receiver's does as well: then it asks in its own name and with its own key."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config.broker import Broker, read_broker
from gateway.config.hubs import read_hubs
from gateway.config.kinds import NAME, build, read_toml
from gateway.receiver.settings import load_receiver
from gateway.tables import ConfigError, Key, Reader, path


@dataclass(frozen=True, slots=True)
class OperatorConfig:
    """Everything that `wardlink request` needs to know. `hubs`: each hub's Ed25519 verify key in base64."""

    id: str
    tenant: str
    state_dir: Path
    broker: Broker
    hubs: Mapping[str, str]


def operator_keys(folder: Path) -> tuple[Key, ...]:
    """The keys of [operator]."""
    return (
        Key("id", NAME, "this operator's name, by which hubs know the key", required=True),
        Key("tenant", NAME, "whose hubs to ask", "home"),
        Key("state_dir", path(folder), "where the operator's key is", required=True),
    )


def load_operator(source: Path) -> OperatorConfig:
    """The configuration of an operator, or of a receiver.

    Raises:
        ConfigError: with every fault in the file.
    """
    root = read_toml(source)
    if "receiver" in root and "operator" not in root:
        found = load_receiver(source)
        return OperatorConfig(found.id, found.tenant, found.state_dir, found.broker, found.hubs)
    folder = source.resolve().parent
    reader = Reader()
    reader.values(root, "", (), nested=("operator", "broker", "hubs"))
    table = reader.table(root.get("operator"), "operator")
    values = {} if table is None else reader.values(table, "operator", operator_keys(folder))
    broker, hubs = read_broker(reader, root, folder), read_hubs(reader, root)
    config = build(OperatorConfig, reader, {**values, "broker": broker, "hubs": hubs})
    if config is None:
        raise ConfigError(tuple(reader.faults))
    return config

"""The whole file."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drivers.contract import Driver
from gateway.config.broker import Broker, read_broker
from gateway.config.commands import Commands, read_commands
from gateway.config.delivery import Delivery, Payload, read_delivery
from gateway.config.device import Device, Named, read_devices, read_named
from gateway.config.hub import Hub, read_hub, topics_of
from gateway.config.journal import Journal, Readers, read_journal
from gateway.config.kinds import read_toml
from gateway.config.links import Link, read_links
from gateway.config.profile import misfits
from gateway.journal.entry import Stream
from gateway.tables import ConfigError, Reader

TABLES = ("hub", "broker", "delivery", "journal", "commands", "link", "device")


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that `wardlink run` needs to know. `named`: all devices, also where no drivers are loaded."""

    hub: Hub
    broker: Broker
    delivery: Delivery
    journal: Journal
    devices: tuple[Device, ...]
    commands: Commands = field(default_factory=Commands)
    named: tuple[Named, ...] = ()
    links: tuple[Link, ...] = ()

    @property
    def in_blocks(self) -> bool:
        """Whether the samples of waveforms go into blocks of the codec.

        What everybody is to read stays as it came: the half with the network has nothing to open a block with.
        """
        payload = self.delivery.payload_of(Stream.WAVEFORM)
        return payload is Payload.CBOR or self.journal.readers is Readers.CLINIC


def load(source: Path, drivers: Mapping[str, Driver] | None) -> Config:
    """The hub's configuration. With None for the drivers its devices are not looked at, and there are none.

    Raises:
        ConfigError: with every fault in the file.
    """
    root = read_toml(source)
    folder = source.resolve().parent
    reader = Reader()
    reader.values(root, "", (), nested=TABLES)
    hub = read_hub(reader, root, folder)
    broker = read_broker(reader, root, folder)
    delivery = read_delivery(reader, root)
    journal = read_journal(reader, root, folder)
    commands = read_commands(reader, root)
    links = read_links(reader, root, broker)
    devices = () if drivers is None else read_devices(reader, root, drivers, folder)
    if reader.faults or hub is None or broker is None or delivery is None or journal is None:
        raise ConfigError(tuple(reader.faults))
    topics = topics_of(hub, delivery.receivers, commands.operators)
    for got, expected in misfits(broker.limits, broker.protocol, hub.client_id, topics):
        reader.fault("broker.profile", got, f"{expected} ({broker.profile})")
    if reader.faults:
        raise ConfigError(tuple(reader.faults))
    named = read_named(root)
    return Config(hub, broker, delivery, journal, devices, commands, named, links)

"""The hub's configuration: TOML to frozen dataclasses, every fault listed at once."""

import base64
import binascii
import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TypeVar

import tomli

from drivers.contract import BleLink, Driver, Option
from drivers.model import Mode
from gateway.tables import (
    ConfigError,
    Fault,
    Key,
    Kind,
    Reader,
    file,
    integer,
    one_of,
    path,
    show,
    text,
)


@dataclass(frozen=True, slots=True)
class Hub:
    """Who this hub is, and where it keeps what must survive."""

    id: str
    tenant: str
    state_dir: Path
    runtime_dir: Path
    mode: Mode = Mode.REAL


@dataclass(frozen=True, slots=True)
class Tls:
    """Mutual TLS: whom to trust, and who we are."""

    ca_file: Path
    certificate_file: Path
    key_file: Path


class Ack(StrEnum):
    """On whose word the journal is given free."""

    BROKER = "broker"
    RECEIVER = "receiver"


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to deliver. Without `tls` the host must be loopback."""

    host: str
    port: int
    tls: Tls | None = None
    keepalive_s: int = 30
    window_bytes: int = 131_072


class Readers(StrEnum):
    """Who can open the journal."""

    HUB = "hub"
    HUB_AND_CLINIC = "hub+clinic"
    CLINIC = "clinic"


@dataclass(frozen=True, slots=True)
class Journal:
    """How much disk the buffer may take, what must survive in it without a network, and who can open it."""

    max_bytes: int = 1_073_741_824
    vitals_days: int = 1
    waveform_hours: int = 1
    readers: Readers = Readers.HUB
    clinic_key_file: Path | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One device: which driver, and where it is found (`address` for Bluetooth, `port` for serial)."""

    id: str
    driver: Driver
    address: str | None = None
    port: Path | None = None
    subject: str | None = None
    options: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that `wardlink run` needs to know.

    Attributes:
        receivers: the verify key in base64 of each receiver whose receipts count.
    """

    hub: Hub
    broker: Broker
    journal: Journal
    devices: tuple[Device, ...]
    ack: Ack
    receivers: Mapping[str, str]


NAME = text("1 to 64 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
ADDRESS = text(
    'a Bluetooth address such as "A4:C1:38:00:00:01"', r"[0-9A-Fa-f]{2}(?::[0-9A-Fa-f]{2}){5}"
)
HOST = text("a host name or an IP address", r"[A-Za-z0-9.:_-]{1,253}")


def _verify_key(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - one kind of error for every wrong value
    try:
        key = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if len(key) != 32:
        raise ValueError
    return value


VERIFY_KEY = Kind(
    "a verify key in base64, as `wardlink key` prints it",
    _verify_key,
    {"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"},
)


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


def tls_keys(folder: Path) -> tuple[Key, ...]:
    """The keys of [broker.tls]."""
    return (
        Key(
            "ca_file",
            file(folder),
            "PEM: the authority that signed the broker's certificate",
            required=True,
        ),
        Key("certificate_file", file(folder), "PEM: this hub's certificate", required=True),
        Key("key_file", file(folder), "PEM: its private key", required=True),
    )


BROKER_KEYS = (
    Key("host", HOST, "the MQTT broker", required=True),
    Key("port", integer(1, 65535), "its port; 8883 with TLS", 8883),
    Key("keepalive_s", integer(5, 3600, "seconds"), "MQTT keep-alive", 30),
    Key(
        "window_bytes",
        integer(16_384, 4_194_304, "bytes"),
        "most bytes sent and not yet acknowledged: about bandwidth times round trip",
        131_072,
    ),
)


def journal_keys(folder: Path) -> tuple[Key, ...]:
    """The keys of [journal]."""
    return (
        Key(
            "max_bytes",
            integer(33_554_432, 1 << 44, "bytes"),
            "disk space of the store-and-forward buffer",
            1_073_741_824,
        ),
        Key(
            "vitals_days",
            integer(0, 3650, "days"),
            "vitals that must survive without a network; refused where max_bytes cannot hold them",
            1,
        ),
        Key(
            "waveform_hours",
            integer(0, 87_600, "hours"),
            "waveform that must survive without a network, beside the vitals",
            1,
        ),
        Key(
            "readers",
            one_of(Readers),
            'who can open what is written from now on; "clinic" alone seals it: a stolen hub tells nothing',
            Readers.HUB,
        ),
        Key("clinic_key_file", file(folder), "the clinic's public key: `wardlink key --clinic`"),
    )


def device_keys(folder: Path, driver: Driver | None) -> tuple[Key, ...]:
    """The keys of a [[device]]; of every kind of device while its driver is not known."""
    keys = [
        Key("id", NAME, "the device's name in every record", required=True),
        Key("driver", NAME, "its driver: see `wardlink drivers`", required=True),
        Key("subject", NAME, "pseudonym of the person it is bound to; without it: unknown"),
    ]
    if driver is None or isinstance(driver.link, BleLink):
        keys.append(Key("address", ADDRESS, "its Bluetooth address", required=driver is not None))
    if driver is None or not isinstance(driver.link, BleLink):
        keys.append(
            Key(
                "port",
                path(folder),
                "its serial port, best from /dev/serial/by-id",
                required=driver is not None,
            )
        )
    keys.extend(_option_key(option) for option in (driver.options if driver else ()))
    return tuple(keys)


def _option_key(option: Option) -> Key:
    kind = Kind(option.expected, option.parse, {})
    return Key(option.name, kind, option.doc, option.default, option.required)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_toml(source: Path) -> Mapping[str, object]:
    """A file's tables. Raises ConfigError when there are none to be read."""
    try:
        return tomli.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            (Fault(str(source), error.strerror or "an error", "a readable file"),)
        ) from error
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError((Fault(str(source), str(error), "TOML in UTF-8"),)) from error


def read_broker(reader: Reader, root: Mapping[str, object], folder: Path) -> Broker | None:
    """[broker], of a hub or of a receiver."""
    table = reader.table(root.get("broker"), "broker")
    if table is None:
        return None
    values = reader.values(table, "broker", BROKER_KEYS, nested=("tls",))
    tls_table = reader.table(table.get("tls"), "broker.tls", required=False)
    tls = None
    if tls_table is not None:
        tls = build(Tls, reader, reader.values(tls_table, "broker.tls", tls_keys(folder)))
    elif isinstance(values["host"], str) and not _is_loopback(values["host"]):
        reader.fault(
            "broker.tls",
            "nothing",
            f"a table: {values['host']} is not this machine, so only TLS will do",
        )
    return build(Broker, reader, {**values, "tls": tls})


T = TypeVar("T")


def build(shape: type[T], reader: Reader, values: Mapping[str, object]) -> T | None:
    """The dataclass, unless a fault was noted: then its fields may hold what their types forbid."""
    return None if reader.faults else shape(**values)


DELIVERY_KEYS = (
    Key(
        "ack",
        one_of(Ack),
        'on whose word the journal is given free: "broker" (it has the message), or "receiver" (it is on its disk)',
        Ack.BROKER,
    ),
)


def _receivers(reader: Reader, table: Mapping[str, object]) -> Mapping[str, str]:
    """[delivery.receivers]: a line for each receiver whose receipts count."""
    found = reader.table(table.get("receivers"), "delivery.receivers", required=False) or {}
    keys = tuple(Key(name, VERIFY_KEY, "the receiver's verify key") for name in found)
    if table.get("ack") == Ack.RECEIVER and not found:
        expected = 'one line a receiver: "receiver-id" = "its verify key"'
        reader.fault("delivery.receivers", "no receiver", expected)
    return {
        name: str(key) for name, key in reader.values(found, "delivery.receivers", keys).items()
    }


def _journal(reader: Reader, root: Mapping[str, object], folder: Path) -> Journal | None:
    table = reader.table(root.get("journal", {}), "journal") or {}
    values = reader.values(table, "journal", journal_keys(folder))
    if values["readers"] is not Readers.HUB and "clinic_key_file" not in table:
        reader.fault(
            "journal.clinic_key_file", "nothing", "the clinic's public key, as it is a reader"
        )
    return build(Journal, reader, values)


def _device(
    reader: Reader, value: object, at: str, drivers: Mapping[str, Driver], folder: Path
) -> Device | None:
    table = reader.table(value, at)
    if table is None:
        return None
    name = table.get("driver")
    driver = drivers.get(name) if isinstance(name, str) else None
    if driver is None and name is not None:
        reader.fault(f"{at}.driver", show(name), "one of " + ", ".join(sorted(drivers)))
    known = device_keys(folder, driver)
    # Without its driver nobody can say which of a device's keys are right.
    readable = (
        table if driver else {key: table[key] for key in table if key in {k.name for k in known}}
    )
    values = reader.values(readable, at, known)
    if driver is None:
        return None
    names = [option.name for option in driver.options]
    options = {name: values.pop(name) for name in names}
    return build(Device, reader, {**values, "driver": driver, "options": options})


def _devices(
    reader: Reader, root: Mapping[str, object], drivers: Mapping[str, Driver], folder: Path
) -> tuple[Device, ...]:
    tables = root.get("device", [])
    if not isinstance(tables, list):
        reader.fault("device", show(tables), "an array of tables: [[device]]")
        return ()
    devices = [
        _device(reader, table, f"device[{n}]", drivers, folder) for n, table in enumerate(tables)
    ]
    for key in ("id", "address", "port"):
        seen: dict[object, int] = {}
        for n, table in enumerate(tables):
            value = table.get(key) if isinstance(table, Mapping) else None
            if not isinstance(value, str):
                continue
            first = seen.setdefault(value.upper() if key == "address" else value, n)
            if first != n:
                reader.fault(
                    f"device[{n}].{key}", show(value), f"another than that of device[{first}]"
                )
    return tuple(device for device in devices if device is not None)


def load(source: Path, drivers: Mapping[str, Driver] | None) -> Config:
    """The hub's configuration. With None for the drivers its devices are not looked at, and there are none.

    Raises:
        ConfigError: with every fault in the file.
    """
    root = read_toml(source)
    folder = source.resolve().parent
    reader = Reader()
    reader.values(root, "", (), nested=("hub", "broker", "delivery", "journal", "device"))
    hub_table = reader.table(root.get("hub"), "hub")
    hub = (
        build(Hub, reader, reader.values(hub_table, "hub", hub_keys(folder)))
        if hub_table is not None
        else None
    )
    broker = read_broker(reader, root, folder)
    journal = _journal(reader, root, folder)
    delivery = reader.table(root.get("delivery", {}), "delivery") or {}
    ack = reader.values(delivery, "delivery", DELIVERY_KEYS, nested=("receivers",))["ack"]
    receivers = _receivers(reader, delivery)
    devices = () if drivers is None else _devices(reader, root, drivers, folder)
    if reader.faults or hub is None or broker is None or journal is None:
        raise ConfigError(tuple(reader.faults))
    return Config(hub, broker, journal, devices, Ack(str(ack)), receivers)

"""The configuration: TOML to frozen dataclasses, every fault listed at once."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from drivers.contract import Driver
from drivers.model import Mode


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


@dataclass(frozen=True, slots=True)
class Broker:
    """Where to deliver. Without `tls` the host must be loopback."""

    host: str
    port: int
    tls: Tls | None = None
    keepalive_s: int = 30
    window_bytes: int = 131_072


@dataclass(frozen=True, slots=True)
class Journal:
    """How much disk the store-and-forward buffer may take."""

    max_bytes: int = 1_073_741_824


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
    """Everything that `wardlink run` needs to know."""

    hub: Hub
    broker: Broker
    journal: Journal
    devices: tuple[Device, ...]

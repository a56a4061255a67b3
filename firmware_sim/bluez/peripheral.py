"""What a simulated Bluetooth LE device must offer, and what can become of a notification on the way."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Fate(StrEnum):
    """What became of one notification between device and hub."""

    DELIVERED = "delivered"
    DUPLICATED = "duplicated"
    """Arrives twice."""
    CORRUPTED = "corrupted"
    """Arrives without its last byte."""
    LOST = "lost"
    """Sent, never arrives."""
    UNHEARD = "unheard"
    """Never sent: nobody is connected, or nobody has subscribed."""


Notify = Callable[[str, bytes], Awaitable[Fate]]
"""Sends one value of one characteristic, and says what became of it."""


@dataclass(frozen=True, slots=True)
class Characteristic:
    """One characteristic: its UUID in lower case, and its properties by their BlueZ names."""

    uuid: str
    flags: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Service:
    """One primary service with its characteristics, in the order of their handles."""

    uuid: str
    characteristics: tuple[Characteristic, ...]


class Peripheral(Protocol):
    """A simulated device behind the radio. It knows GATT and nothing of D-Bus."""

    @property
    def services(self) -> tuple[Service, ...]:
        """The GATT database; it does not change while the device exists."""
        ...

    def attach(self, notify: Notify) -> None:
        """Hands over the way to the hub; called once, before anything else."""
        ...

    def read(self, characteristic: str) -> bytes:
        """The present value."""
        ...

    def write(self, characteristic: str, data: bytes) -> None:
        """A value from the hub."""
        ...

"""What a transport is: an open link that delivers bytes with their arrival time, or says why it cannot."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol


class Reason(StrEnum):
    """Why there is no link. Stable tokens; `wardlink status` shows them with the text."""

    NOT_FOUND = "not_found"
    """The device does not advertise, the port is not there."""
    BUSY = "busy"
    DENIED = "denied"
    NO_ADAPTER = "no_adapter"
    """No Bluetooth adapter, or it is switched off, or bluetoothd does not run."""
    REFUSED = "refused"
    """The device or the stack refused the connection, or lacks what the driver needs."""
    TIMEOUT = "timeout"
    LOST = "lost"
    """It was connected and is no more."""
    SILENT = "silent"
    """Connected, says the stack, but nothing came for as long as the driver allows."""


class TransportError(Exception):
    """The link cannot be opened, or is gone. The device or its surroundings are at fault, never the hub."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Arrival:
    """Bytes as they came.

    Attributes:
        source: the characteristic's UUID in lower case; "" on a serial line.
        at_ns: CLOCK_BOOTTIME when they could be read.
        dropped: how many earlier arrivals had to be thrown away because nobody took them in time.
    """

    source: str
    data: bytes
    at_ns: int
    dropped: int = 0


class Transport(Protocol):
    """One device's link. Every method may raise TransportError, and no other expected exception."""

    async def open(self) -> None:
        """Connects, within a limit of time of its own."""
        ...

    async def receive(self) -> Arrival:
        """The next bytes; waits for them. After the link is lost, first gives what had arrived before."""
        ...

    async def subscribe(self, characteristic: str) -> None:
        """Turns notifications on. Serial: raises TransportError REFUSED."""
        ...

    async def read(self, characteristic: str) -> None:
        """Reads; the value comes out of `receive`. Serial: raises TransportError REFUSED."""
        ...

    async def write(self, characteristic: str, data: bytes) -> None:
        """Writes bytes to the device."""
        ...

    async def close(self) -> None:
        """Ends the link. Never raises; harmless when it is closed already."""
        ...

"""What a driver is: a frozen row, a session, the commands it may give, and the one failure it may have.

A session is a pure parser. The hub's one loop (`gateway.link`) does all I/O: it hands in bytes with their arrival
time and carries out commands. Nothing but `Output` crosses the boundary.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from drivers.assigned import Code
from drivers.model import Record


class Malformed(Exception):  # noqa: N818 - the guilty side is the device: this is no error of ours
    """Bytes that no rule of the protocol allows. Raised or emitted; the loop journals it with the bytes."""

    def __init__(self, reason: str, data: bytes, text: str = "") -> None:
        super().__init__(f"{reason}: {text}: {data.hex()}" if text else f"{reason}: {data.hex()}")
        self.reason = reason
        self.data = data
        self.text = text


@dataclass(frozen=True, slots=True)
class Subscribe:
    """Ask for notifications or indications of a characteristic."""

    characteristic: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Read:
    """Read a characteristic; its value arrives at `Session.receive` with the characteristic as source."""

    characteristic: str
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Write:
    """Write bytes. With `after_commit`, only once every record emitted before it is durable in the journal."""

    characteristic: str
    data: bytes
    after_commit: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """End the link, for a stated reason; the supervisor decides when to connect again."""

    reason: str


Command = Subscribe | Read | Write | Close
Output = Record | Command | Malformed


@dataclass(frozen=True, slots=True)
class Resume:
    """What the journal holds of this device already, so that only what is missing is asked for.

    Attributes:
        last_ns: CLOCK_BOOTTIME of the newest journalled record of this boot; None when there is none.
    """

    last_ns: int | None = None


class Session(Protocol):
    """One connection's worth of parsing. Every method returns outputs; none does I/O or reads a clock."""

    def start(self, now_ns: int, resume: Resume) -> Iterable[Output]:
        """The link is up."""
        ...

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterable[Output]:
        """Bytes arrived from `source`: a characteristic's UUID, or "" on a serial line."""
        ...

    def timeout(self, now_ns: int) -> Iterable[Output]:
        """The deadline has passed."""
        ...

    def deadline(self) -> int | None:
        """When `timeout` wants to be called, or None."""
        ...


@dataclass(frozen=True, slots=True)
class BleLink:
    """How a Bluetooth LE device is recognised: any of these advertised services."""

    services: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class SerialLink:
    """Line parameters. There is no software flow control: it eats data bytes 0x11 and 0x13."""

    baud: int
    bytesize: int = 8
    parity: str = "N"
    stopbits: int = 1


class Verified(StrEnum):
    """What a driver has been proved against, strongest last."""

    SIMULATOR = "simulator"
    VECTORS = "vectors"
    CAPTURE = "capture"


class Integrity(StrEnum):
    """What protects a packet on its way. With framing alone, a flipped bit inside a packet cannot be seen."""

    FRAMING = "framing"
    CHECKSUM = "checksum"
    LINK = "link"
    """The radio link's own CRC: what arrives is what was sent."""


@dataclass(frozen=True, slots=True)
class Option:
    """A setting that a driver takes from the device's table in the configuration.

    Attributes:
        expected: what a right value is, in words that finish the sentence "got x, expected ...".
        parse: turns the configured value into what the session takes; raises ValueError when it cannot.
    """

    name: str
    doc: str
    expected: str
    parse: Callable[[object], object]
    default: object = None
    required: bool = False


@dataclass(frozen=True, slots=True)
class Volume:
    """What a device brings while all is well: from it the hub works out how many days its disk lasts.

    Attributes:
        values_hz: observations of anything but samples, in a second; at their most for a device that varies.
        arrays_hz: sample arrays in a second.
        samples_bytes_s: bytes of samples in them, in a second.
    """

    values_hz: float
    arrays_hz: float = 0.0
    samples_bytes_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Driver:
    """One device family as a row.

    Attributes:
        name: what stands in the configuration.
        session: makes a session from the parsed options.
        codes: every code the session may emit.
        buffer_bytes: the most bytes a session keeps between two calls.
        silence_ns: a link that brings nothing for this long is dead, whatever the transport says.
        volume: what a device with these parsed options brings.
        continuous: the device measures all the time, so that every time without data is a gap.
    """

    name: str
    title: str
    link: BleLink | SerialLink
    session: Callable[[Mapping[str, object]], Session]
    codes: frozenset[Code]
    verified: Verified
    integrity: Integrity
    source: str
    buffer_bytes: int
    silence_ns: int
    volume: Callable[[Mapping[str, object]], Volume]
    options: tuple[Option, ...] = field(default=())
    continuous: bool = True

"""The records that every driver emits and every later stage passes on.

After ISO/IEEE 11073-10206 (one header, few value shapes) and BICEPS (validity, generation mode). Records are
frozen. Times are integer nanoseconds of the hub's CLOCK_BOOTTIME, handed in by the caller: nothing here reads a
clock. No number travels without its code and its unit; what is missing is said, never filled in.
"""

import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from drivers.assigned import BodySite, Code, Unit


class Special(StrEnum):
    """What stands in a number's place when there is no number (11073-20601 special values, and unknown)."""

    NOT_A_NUMBER = "nan"
    NOT_AT_THIS_RESOLUTION = "nres"
    POSITIVE_INFINITY = "+inf"
    NEGATIVE_INFINITY = "-inf"
    UNKNOWN = "unknown"


class Validity(StrEnum):
    """How far a value may be trusted (BICEPS MeasurementValidity)."""

    VALID = "valid"
    QUESTIONABLE = "questionable"
    ONGOING = "ongoing"
    CALIBRATING = "calibrating"
    INVALID = "invalid"


class Mode(StrEnum):
    """Where a value comes from (BICEPS GenerationMode). Simulated data says so in every record."""

    REAL = "real"
    TEST = "test"
    DEMO = "demo"


class Origin(StrEnum):
    """Who determined a value: the device, or the hub from the device's samples."""

    DEVICE = "device"
    HUB = "hub"


@dataclass(frozen=True, slots=True)
class Quality:
    """Validity, generation mode, a signal-quality index from 0 to 1, and a reason where validity needs one."""

    validity: Validity = Validity.VALID
    mode: Mode = Mode.REAL
    sqi: float | None = None
    reason: str | None = None


GOOD = Quality()


@dataclass(frozen=True, slots=True)
class Quantity:
    """A number exactly as it was determined (Decimal keeps 2 apart from 2.0), or what stands in its place."""

    value: Decimal | Special
    unit: Unit


@dataclass(frozen=True, slots=True)
class Compound:
    """Quantities determined together, which never part (systolic, diastolic, mean)."""

    parts: tuple[tuple[Code, Quantity], ...]


@dataclass(frozen=True, slots=True)
class SampleArray:
    """Equidistant samples of one signal, without a hole: a missing sample ends the array.

    The real value of sample n is `scale * samples()[n] + offset` in `unit`. The first sample's time is the
    observation's `determined_at_ns`.

    Attributes:
        data: samples as little-endian two's complement integers of `width` bytes each.
        width: 2 or 4.
        period_ns: time between two samples.
    """

    data: bytes
    width: int
    period_ns: int
    unit: Unit
    scale: Decimal = Decimal(1)
    offset: Decimal = Decimal(0)

    @classmethod
    def of(
        cls,
        samples: Iterable[int],
        *,
        period_ns: int,
        unit: Unit,
        scale: Decimal = Decimal(1),
        width: int = 4,
    ) -> "SampleArray":
        """Packs integers. Raises OverflowError when one does not fit the width."""
        packed = array("h" if width == 2 else "i", samples)
        if sys.byteorder == "big":
            packed.byteswap()
        return cls(packed.tobytes(), width, period_ns, unit, scale)

    def samples(self) -> "array[int]":
        """The samples as integers, in order."""
        unpacked = array("h" if self.width == 2 else "i", self.data)
        if sys.byteorder == "big":
            unpacked.byteswap()
        return unpacked

    def __len__(self) -> int:
        return len(self.data) // self.width


@dataclass(frozen=True, slots=True)
class Coded:
    """One code out of a nomenclature, as a value."""

    code: int


@dataclass(frozen=True, slots=True)
class Bits:
    """A set of flags, and which of them the device supports: an unsupported bit says nothing."""

    set_bits: int
    supported: int


Value = Quantity | Compound | SampleArray | Coded | Bits


@dataclass(frozen=True, slots=True)
class Decoded:
    """Where an observation was read from, where its bytes are in the journal. It is the observation's identity.

    Attributes:
        raw_sequence: the number of the Raw record in the vitals stream.
        index: which of the observations in those bytes it is, from 0.
        revision: 0 as first decoded; each correction counts one up, and the highest holds.
        boot_id: the boot that the observation's time belongs to, where that is not the boot of its batch: a
            correction is written later than the reading.
    """

    raw_sequence: int
    index: int
    revision: int = 0
    boot_id: str | None = None


@dataclass(frozen=True, slots=True)
class Observation:
    """One determined value: what, how much, when, how well, by whom.

    Attributes:
        determined_at_ns: CLOCK_BOOTTIME of the hub; for a SampleArray, of its first sample.
        device_time: the device's own time exactly as it sent it, if it sent one.
        decoded: for a spot measurement, which bytes say so.
    """

    code: Code
    value: Value
    determined_at_ns: int
    quality: Quality = GOOD
    origin: Origin = Origin.DEVICE
    device_time: str | None = None
    body_site: BodySite | None = None
    decoded: Decoded | None = None

    @property
    def ends_ns(self) -> int:
        """Up to when the observation speaks: the end of its last sample, or the moment of its value."""
        if isinstance(self.value, SampleArray):
            return self.determined_at_ns + len(self.value) * self.value.period_ns
        return self.determined_at_ns


class ClockState(StrEnum):
    """How the wall clock came to its value."""

    UNSET = "unset"
    """Before this software was built: nobody has set it."""
    RESTORED = "restored"
    """Plausible, but only carried over a power cut: it may lag by hours."""
    SYNCHRONISED = "synchronised"
    """Disciplined by a time server within `error_ns`."""


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Both clocks at one moment. `error_ns` is None unless the clock is synchronised."""

    boottime_ns: int
    wall_ns: int
    state: ClockState
    error_ns: int | None = None

    def wall_of(self, boottime_ns: int) -> int:
        """Wall time of a moment of the same boot, by this reading."""
        return self.wall_ns + boottime_ns - self.boottime_ns


@dataclass(frozen=True, slots=True)
class ClockChange:
    """The clock map: how wall time and CLOCK_BOOTTIME of one boot stood to each other, and stand from now on.

    Attributes:
        before: the last reading before the change; None where this boot had none.
    """

    before: ClockReading | None
    after: ClockReading


class EventKind(StrEnum):
    """What can happen to a device, a stream or the hub itself."""

    STARTED = "started"
    STOPPED = "stopped"
    CONNECTED = "connected"
    LOST = "lost"
    MALFORMED = "malformed"
    GAP = "gap"
    CLOCK = "clock"
    CONFIGURATION = "configuration"
    COMMAND = "command"
    EVICTED = "evicted"
    FAULT = "fault"
    SIGNAL = "signal"
    """What the hub sees of a signal has changed: `code` says of which."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. A gap names what is missing; nothing accepted is lost without one.

    Attributes:
        at_ns: CLOCK_BOOTTIME when it was noticed.
        reason: a stable token for machines ("resync", "hub_restart").
        text: what, got, expected, for people. Never patient data, but where the configuration asks to interpret
            it (falls of SpO2); it goes into the journal and into no log.
        data: the bytes in hand, for a malformed frame.
        code: the signal concerned, if it is one signal.
        from_ns, until_ns: the span concerned; None where it is not known.
        lost: how many samples or records are missing; None where it is not known.
        clock: for a change of the wall clock, what it was.
    """

    kind: EventKind
    at_ns: int
    reason: str
    text: str = ""
    data: bytes = b""
    code: Code | None = None
    from_ns: int | None = None
    until_ns: int | None = None
    lost: int | None = None
    clock: ClockChange | None = None


@dataclass(frozen=True, slots=True)
class Raw:
    """The bytes of a spot measurement as they came, kept before anybody decodes them.

    Attributes:
        source: as `Session.receive` gets it.
        at_ns: CLOCK_BOOTTIME of their arrival.
        link_ns: CLOCK_BOOTTIME when the link came up that brought them: what one session gets.
    """

    source: str
    data: bytes
    at_ns: int
    link_ns: int


Record = Observation | Event | Raw

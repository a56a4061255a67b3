"""A blood pressure cuff with an encoder of its own: it keeps readings, sends each once, and drops the link.

Layouts: Bluetooth GATT Specification Supplement, Blood Pressure Measurement 0x2A35, Blood Pressure Feature 0x2A49.
Like most real cuffs it counts an indication as delivered when the other radio has confirmed it, and forgets it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from drivers import assigned
from firmware_sim.bluez.peripheral import Characteristic, Fate, Notify, Service

NAN = 0x07FF
FEATURES = 0b10111
"""Body movement, cuff fit, irregular pulse and position are detected; the pulse range is not."""


def sfloat(mantissa: int, exponent: int = 0) -> bytes:
    """IEEE 11073 SFLOAT: exponent in the upper 4 bits, mantissa in the lower 12, both two's complement."""
    if not (-2048 <= mantissa < 2048 and -8 <= exponent < 8):
        raise OverflowError(f"SFLOAT: got {mantissa}e{exponent}, expected 12 and 4 bits with sign")
    return ((exponent & 0xF) << 12 | mantissa & 0xFFF).to_bytes(2, "little")


@dataclass(frozen=True, slots=True)
class Reading:
    """What the cuff measured; None where it leaves the field out. Pressures in mmHg.

    Attributes:
        taken: the cuff's own clock: year, month, day, hour, minute, second.
    """

    systolic: int
    diastolic: int
    mean: int | None = None
    taken: tuple[int, int, int, int, int, int] | None = None
    pulse: int | None = None
    user: int | None = None
    status: int | None = None

    def encode(self) -> bytes:
        """Blood Pressure Measurement."""
        present = (None, self.taken, self.pulse, self.user, self.status)
        flags = sum(1 << bit for bit, field in enumerate(present) if field is not None)
        data = bytes([flags]) + sfloat(self.systolic) + sfloat(self.diastolic)
        data += NAN.to_bytes(2, "little") if self.mean is None else sfloat(self.mean)
        if self.taken is not None:
            year, *rest = self.taken
            data += year.to_bytes(2, "little") + bytes(rest)
        if self.pulse is not None:
            data += sfloat(self.pulse)
        if self.user is not None:
            data += bytes([self.user])
        if self.status is not None:
            data += self.status.to_bytes(2, "little")
        return data


class BloodPressureCuff:
    """Satisfies `firmware_sim.bluez.peripheral.Peripheral`.

    Attributes:
        memory: readings that nobody has taken yet, oldest first.
        ledger: readings that were indicated, and what became of each.
    """

    services = (
        Service(
            assigned.BLOOD_PRESSURE_SERVICE,
            (
                Characteristic(assigned.BLOOD_PRESSURE_FEATURE, ("read",)),
                Characteristic(assigned.BLOOD_PRESSURE_MEASUREMENT, ("indicate",)),
            ),
        ),
    )

    def __init__(self) -> None:
        self.memory: list[Reading] = []
        self.ledger: list[tuple[Reading, Fate]] = []
        self._notify: Notify | None = None

    def attach(self, notify: Notify) -> None:
        """The way to the hub."""
        self._notify = notify

    def read(self, characteristic: str) -> bytes:
        """The features."""
        if characteristic != assigned.BLOOD_PRESSURE_FEATURE:
            raise ValueError(f"{characteristic}: got a read, expected indications only")
        return FEATURES.to_bytes(2, "little")

    def write(self, characteristic: str, data: bytes) -> None:
        """Nothing can be written."""
        raise ValueError(f"{characteristic}: got a write of {data.hex()}, expected none")

    async def deliver(self, drop: Callable[[], Awaitable[None] | None]) -> None:
        """Indicates what is in the memory, and drops the link at once, as soon as anything was taken."""
        if self._notify is None:
            return
        while self.memory:
            reading = self.memory[0]
            fate = await self._notify(assigned.BLOOD_PRESSURE_MEASUREMENT, reading.encode())
            if fate is Fate.UNHEARD:
                return
            self.ledger.append((self.memory.pop(0), fate))
        dropped = drop()
        if dropped is not None:
            await dropped

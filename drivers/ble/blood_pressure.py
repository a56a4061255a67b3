"""Blood Pressure service 0x1810: a cuff that sends each reading once, as an indication, and then drops the link.

Layouts: Bluetooth GATT Specification Supplement, Blood Pressure Measurement 0x2A35, Blood Pressure Feature 0x2A49.
Vectors: the parser tests of Nordic's Android BLE common library, and others worked from the layout (none captured).
"""

from collections.abc import Iterable, Iterator, Mapping

from drivers import assigned
from drivers.assigned import Code, Unit
from drivers.contract import (
    BleLink,
    Driver,
    Integrity,
    Malformed,
    Output,
    Read,
    Resume,
    Subscribe,
    Verified,
    Volume,
)
from drivers.model import GOOD, Bits, Coded, Compound, Observation, Quality, Quantity, Validity
from drivers.numbers import Fields

FLAG_KPA = 1 << 0
FLAG_TIME = 1 << 1
FLAG_PULSE = 1 << 2
FLAG_USER = 1 << 3
FLAG_STATUS = 1 << 4
FLAGS_KNOWN = 0x1F
USER_UNKNOWN = 0xFF
NS_PER_S = 1_000_000_000

PARTS = (Code.PRESS_BLD_NONINV_SYS, Code.PRESS_BLD_NONINV_DIA, Code.PRESS_BLD_NONINV_MEAN)
QUESTIONABLE = {1 << 0: "body_movement", 1 << 1: "cuff_loose", 1 << 5: "improper_position"}
"""Status bits with which the device itself doubts its pressures. The irregular pulse is a finding, and no doubt."""
SUPPORTED = {1 << 0: 1 << 0, 1 << 1: 1 << 1, 1 << 2: 1 << 2, 1 << 3: 3 << 3, 1 << 4: 1 << 5}
"""Feature bit to the status bits that it announces; the pulse range has two."""


class BloodPressureSession:
    """Every indication is a whole reading; between two, only the features are kept."""

    def __init__(self, _options: Mapping[str, object]) -> None:
        self._supported = 0

    def start(self, now_ns: int, resume: Resume) -> Iterable[Output]:
        """Subscribes last: the cuff sends as soon as it may, and is gone."""
        del now_ns, resume
        return (
            Read(assigned.BLOOD_PRESSURE_FEATURE, optional=True),
            Subscribe(assigned.BLOOD_PRESSURE_MEASUREMENT),
        )

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterable[Output]:
        """One value of one characteristic."""
        match source:
            case assigned.BLOOD_PRESSURE_MEASUREMENT:
                return tuple(self._reading(data, now_ns))  # all of it or none
            case assigned.BLOOD_PRESSURE_FEATURE:
                features = Fields(data).u16()
                self._supported = sum(bits for bit, bits in SUPPORTED.items() if features & bit)
                return ()
            case _:
                return (Malformed("unknown_source", data, f"got a value of {source}"),)

    def timeout(self, now_ns: int) -> Iterable[Output]:
        """Never due."""
        del now_ns
        return ()

    def deadline(self) -> int | None:
        """None: every indication is whole."""
        return None

    def _reading(self, data: bytes, now_ns: int) -> Iterator[Output]:
        fields = Fields(data)
        flags = fields.u8()
        if flags & ~FLAGS_KNOWN:
            raise Malformed("flags", data, f"got {flags:#04x}, expected at most {FLAGS_KNOWN:#04x}")
        unit = Unit.KILO_PASCAL if flags & FLAG_KPA else Unit.MMHG
        parts = tuple((code, Quantity(fields.sfloat(), unit)) for code in PARTS)
        time = _time(fields) if flags & FLAG_TIME else None
        pulse = fields.sfloat() if flags & FLAG_PULSE else None
        user = fields.u8() if flags & FLAG_USER else USER_UNKNOWN
        status = fields.u16() if flags & FLAG_STATUS else None
        if fields.left:
            text = f"got {fields.left} bytes more than its flags say"
            raise Malformed("long", data, text)
        doubts = [reason for bit, reason in QUESTIONABLE.items() if (status or 0) & bit]
        quality = Quality(Validity.QUESTIONABLE, reason=",".join(doubts)) if doubts else GOOD
        yield Observation(Code.PRESS_BLD_NONINV, Compound(parts), now_ns, quality, device_time=time)
        if pulse is not None:
            rate = Quantity(pulse, Unit.BEAT_PER_MIN)
            yield Observation(Code.PULS_RATE_NON_INV, rate, now_ns, quality, device_time=time)
        if status is not None:
            # A device that sets a bit supports it, whatever its features say.
            bits = Bits(status, self._supported | status)
            code = Code.BLOOD_PRESSURE_MEASUREMENT_STATUS
            yield Observation(code, bits, now_ns, device_time=time)
        if user != USER_UNKNOWN:
            yield Observation(Code.WARDLINK_USER_ID, Coded(user), now_ns, device_time=time)


def _time(fields: Fields) -> str:
    """Date Time (0x2A08) as sent, in the order of ISO 8601. No zone; year, month or day 0 is unknown."""
    year, *rest = fields.u16(), *(fields.u8() for _ in range(5))
    month, day, hour, minute, second = rest
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"


DRIVER = Driver(
    name="blood-pressure",
    title="Blood Pressure service (upper-arm and wrist cuffs)",
    link=BleLink(services=(assigned.BLOOD_PRESSURE_SERVICE,)),
    session=BloodPressureSession,
    codes=frozenset(
        {
            Code.PRESS_BLD_NONINV,
            Code.PULS_RATE_NON_INV,
            Code.BLOOD_PRESSURE_MEASUREMENT_STATUS,
            Code.WARDLINK_USER_ID,
        }
    ),
    verified=Verified.VECTORS,
    integrity=Integrity.LINK,
    source="Bluetooth GATT Specification Supplement 0x2A35, 0x2A49",
    buffer_bytes=0,
    silence_ns=60 * NS_PER_S,
    # Six records at most for a reading, and no more than one reading in ten minutes.
    volume=lambda _options: Volume(values_hz=0.01),
    continuous=False,
)

"""Heart Rate service 0x180D with RR intervals, body sensor location and battery level.

Layouts: Bluetooth GATT Specification Supplement, Heart Rate Measurement 0x2A37, Body Sensor Location 0x2A38,
Battery Level 0x2A19. Vectors: the parser tests of Nordic's Android BLE common library (synthetic, not captured).
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from drivers import assigned
from drivers.assigned import BodySite, Code, Unit
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
from drivers.model import GOOD, Observation, Quality, Quantity, Special, Validity
from drivers.numbers import Fields

FLAG_RATE_U16 = 1 << 0
FLAG_CONTACT = 1 << 1
FLAG_CONTACT_SUPPORTED = 1 << 2
FLAG_ENERGY = 1 << 3
FLAG_RR = 1 << 4
ENERGY_SATURATED_KJ = 0xFFFF
RR_TICKS_PER_SECOND = 1024
NS_PER_S = 1_000_000_000

SITES = {int(site): site for site in BodySite}

NO_CONTACT = Quality(Validity.INVALID, reason="no_contact")
NO_SIGNAL = Quality(Validity.INVALID, reason="no_signal")


class HeartRateSession:
    """Every notification is whole by itself, so nothing is kept between two but the body site."""

    def __init__(self, _options: Mapping[str, object]) -> None:
        self._site: BodySite | None = None

    def start(self, now_ns: int, resume: Resume) -> Iterable[Output]:
        """Subscribes first: what a strap sends before that is lost. The rest is optional."""
        del now_ns, resume
        return (
            Subscribe(assigned.HEART_RATE_MEASUREMENT),
            Subscribe(assigned.BATTERY_LEVEL, optional=True),
            Read(assigned.BODY_SENSOR_LOCATION, optional=True),
            Read(assigned.BATTERY_LEVEL, optional=True),
        )

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterable[Output]:
        """One value of one characteristic."""
        match source:
            case assigned.HEART_RATE_MEASUREMENT:
                return self._measurement(data, now_ns)
            case assigned.BATTERY_LEVEL:
                return self._battery(data, now_ns)
            case assigned.BODY_SENSOR_LOCATION:
                self._site = SITES.get(Fields(data).u8())
                return ()
            case _:
                return (Malformed("unknown_source", data, f"got a value of {source}"),)

    def timeout(self, now_ns: int) -> Iterable[Output]:
        """Never due."""
        del now_ns
        return ()

    def deadline(self) -> int | None:
        """None: every notification is whole."""
        return None

    def _measurement(self, data: bytes, now_ns: int) -> Iterable[Output]:
        fields = Fields(data)
        flags = fields.u8()
        rate = fields.u16() if flags & FLAG_RATE_U16 else fields.u8()
        energy_kj = fields.u16() if flags & FLAG_ENERGY else None
        ticks: list[int] = []
        if flags & FLAG_RR:
            if fields.left % 2:
                return (
                    Malformed(
                        "odd_rr",
                        data,
                        f"got {fields.left} bytes of RR intervals, expected an even number",
                    ),
                )
            ticks = [fields.u16() for _ in range(fields.left // 2)]

        quality = GOOD
        if flags & FLAG_CONTACT_SUPPORTED and not flags & FLAG_CONTACT:
            quality = NO_CONTACT
        elif rate == 0:
            quality = NO_SIGNAL
        value = Decimal(rate) if rate else Special.UNKNOWN
        records = [
            Observation(
                Code.ECG_HEART_RATE,
                Quantity(value, Unit.BEAT_PER_MIN),
                now_ns,
                quality,
                body_site=self._site,
            )
        ]
        if energy_kj is not None:
            records.append(self._energy(energy_kj, now_ns))
        # Oldest first; the newest interval ends about now, each older one where its successor begins.
        ends_ns = now_ns
        intervals: list[Observation] = []
        for tick in reversed(ticks):
            # 1/1024 s has a finite decimal form, so the interval is exact.
            interval_ms = Decimal(tick) * 1000 / RR_TICKS_PER_SECOND
            intervals.append(
                Observation(
                    Code.ECG_TIME_PD_RR_GL,
                    Quantity(interval_ms, Unit.MILLI_SEC),
                    ends_ns,
                    quality,
                    body_site=self._site,
                )
            )
            ends_ns -= tick * NS_PER_S // RR_TICKS_PER_SECOND
        return (*records, *reversed(intervals))

    def _energy(self, energy_kj: int, now_ns: int) -> Observation:
        saturated = energy_kj == ENERGY_SATURATED_KJ
        quality = Quality(Validity.QUESTIONABLE, reason="saturated") if saturated else GOOD
        return Observation(
            Code.WARDLINK_ENERGY_EXPENDED,
            Quantity(Decimal(energy_kj), Unit.JOULE_KILO),
            now_ns,
            quality,
        )

    def _battery(self, data: bytes, now_ns: int) -> Iterable[Output]:
        level = Fields(data).u8()
        if level > 100:
            return (Malformed("battery_range", data, f"got {level} %, expected 0 to 100"),)
        quantity = Quantity(Decimal(level), Unit.PERCENT)
        return (Observation(Code.ATTR_VAL_BATT_CHARGE, quantity, now_ns),)


DRIVER = Driver(
    name="heart-rate",
    title="Heart Rate service (chest straps, armbands)",
    link=BleLink(services=(assigned.HEART_RATE_SERVICE,)),
    session=HeartRateSession,
    codes=frozenset(
        {
            Code.ECG_HEART_RATE,
            Code.ECG_TIME_PD_RR_GL,
            Code.WARDLINK_ENERGY_EXPENDED,
            Code.ATTR_VAL_BATT_CHARGE,
        }
    ),
    verified=Verified.VECTORS,
    integrity=Integrity.LINK,
    source="Bluetooth GATT Specification Supplement 0x2A37, 0x2A38, 0x2A19",
    buffer_bytes=0,
    silence_ns=10 * NS_PER_S,
    # A measurement each second with its rate, and an interval for each of 90 beats a minute.
    volume=lambda _options: Volume(values_hz=2.5),
)

"""A chest strap: Heart Rate, Body Sensor Location and Battery services, with an encoder of its own.

Layouts: Bluetooth GATT Specification Supplement, Heart Rate Measurement 0x2A37, Body Sensor Location 0x2A38,
Battery Level 0x2A19. Like a real strap it has no memory: what nobody hears is gone, and the ledger says so.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from drivers import assigned
from drivers.assigned import BodySite
from firmware_sim.bluez.peripheral import Characteristic, Fate, Notify, Service

TICKS_PER_S = 1024
NS_PER_S = 1_000_000_000
U8_MAX = 0xFF
U16_MAX = 0xFFFF

FLAG_RATE_U16 = 0x01
FLAG_CONTACT_DETECTED = 0x02
FLAG_CONTACT_SUPPORTED = 0x04
FLAG_ENERGY = 0x08
FLAG_RR = 0x10

VALUE_BYTES = 20
"""What fits one notification at the smallest ATT MTU (23), which every client must take."""
MEAN_OF = 8
"""The rate is the mean over this many intervals."""
SILENT_AFTER_NS = 5 * NS_PER_S
"""Without a beat for so long, the rate is 0: no signal."""
ENERGY_EVERY = 10
"""Energy goes along with every tenth measurement (Heart Rate Service 1.0, 3.1.1.3)."""
PENDING_MAX = 512
"""Intervals waiting for a notification; the oldest go first."""


def encode_measurement(
    rate: int,
    intervals: Sequence[int] = (),
    *,
    contact: bool | None = None,
    energy_kj: int | None = None,
) -> bytes:
    """Heart Rate Measurement.

    Args:
        rate: beats per minute, 0 to 65535.
        intervals: RR intervals in 1/1024 s, oldest first.
        contact: None when the strap cannot tell.
        energy_kj: None to leave it out; stays at 65535 when it is more.

    Raises:
        OverflowError: a rate or an interval does not fit 16 bits.
    """
    flags = FLAG_RATE_U16 if rate > U8_MAX else 0
    if contact is not None:
        flags |= FLAG_CONTACT_SUPPORTED | (FLAG_CONTACT_DETECTED if contact else 0)
    if energy_kj is not None:
        flags |= FLAG_ENERGY
    if intervals:
        flags |= FLAG_RR
    value = bytes([flags]) + rate.to_bytes(2 if rate > U8_MAX else 1, "little")
    if energy_kj is not None:
        value += min(energy_kj, U16_MAX).to_bytes(2, "little")
    return value + b"".join(interval.to_bytes(2, "little") for interval in intervals)


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the ledger: a notification that the strap made.

    Attributes:
        at_ns: CLOCK_BOOTTIME when it was made.
        intervals: RR intervals in 1/1024 s, oldest first.
    """

    at_ns: int
    rate: int
    intervals: tuple[int, ...]
    fate: Fate


class HeartRateStrap:
    """Turns beats into notifications. Satisfies `firmware_sim.bluez.peripheral.Peripheral`.

    Attributes:
        ledger: every measurement made, oldest first: what a receiver must have, and what it cannot have.
        contact: whether the electrodes touch skin; None when the strap cannot tell.
        energy_kj: energy expended; None when the strap does not count it.
    """

    services = (
        Service(
            assigned.HEART_RATE_SERVICE,
            (
                Characteristic(assigned.HEART_RATE_MEASUREMENT, ("notify",)),
                Characteristic(assigned.BODY_SENSOR_LOCATION, ("read",)),
            ),
        ),
        Service(
            assigned.BATTERY_SERVICE,
            (Characteristic(assigned.BATTERY_LEVEL, ("read", "notify")),),
        ),
    )

    def __init__(self, site: BodySite = BodySite.CHEST, battery_percent: int = 100) -> None:
        self.ledger: list[Measured] = []
        self.contact: bool | None = True
        self.energy_kj: int | None = None
        self._site = site
        self._battery_percent = battery_percent
        self._notify: Notify | None = None
        self._last_beat_ns: int | None = None
        self._recent: deque[int] = deque(maxlen=MEAN_OF)
        self._pending: deque[int] = deque(maxlen=PENDING_MAX)

    def attach(self, notify: Notify) -> None:
        """The way to the hub."""
        self._notify = notify

    def read(self, characteristic: str) -> bytes:
        """Body sensor location or battery level."""
        values = {
            assigned.BODY_SENSOR_LOCATION: int(self._site),
            assigned.BATTERY_LEVEL: self._battery_percent,
        }
        return bytes([values[characteristic]])

    def write(self, characteristic: str, data: bytes) -> None:
        """Nothing can be written."""
        raise ValueError(f"{characteristic}: got a write of {data.hex()}, expected none")

    def feed(self, beat_ns: int) -> None:
        """The heart beat at this CLOCK_BOOTTIME. Beats come in order; one that is not later is left out."""
        last_ns, self._last_beat_ns = self._last_beat_ns, beat_ns
        if last_ns is None:
            return
        # The difference of two rounded moments, so that the sum of the intervals never drifts.
        ticks = _ticks(beat_ns) - _ticks(last_ns)
        if ticks <= 0:
            self._last_beat_ns = last_ns
        elif ticks <= U16_MAX:
            self._recent.append(ticks)
            self._pending.append(ticks)

    async def measure(self, now_ns: int) -> Fate:
        """Sends one measurement with the intervals completed since the last, as many as fit."""
        if self._last_beat_ns is None or now_ns - self._last_beat_ns > SILENT_AFTER_NS:
            self._recent.clear()
        energy_kj = None if len(self.ledger) % ENERGY_EVERY else self.energy_kj
        rate = self._rate()
        room = VALUE_BYTES - len(encode_measurement(rate, energy_kj=energy_kj))
        intervals = tuple(
            self._pending.popleft() for _ in range(min(len(self._pending), room // 2))
        )
        data = encode_measurement(rate, intervals, contact=self.contact, energy_kj=energy_kj)
        fate = await self._send(assigned.HEART_RATE_MEASUREMENT, data)
        self.ledger.append(Measured(now_ns, rate, intervals, fate))
        return fate

    async def set_battery(self, percent: int) -> Fate:
        """The battery has another level now."""
        self._battery_percent = percent
        return await self._send(assigned.BATTERY_LEVEL, bytes([percent]))

    async def run(self, period_s: float = 1.0) -> None:
        """Measures once a period until it is cancelled."""
        while True:
            await asyncio.sleep(period_s)
            await self.measure(time.clock_gettime_ns(time.CLOCK_BOOTTIME))

    def _rate(self) -> int:
        ticks = sum(self._recent)
        return round(60 * TICKS_PER_S * len(self._recent) / ticks) if ticks else 0

    async def _send(self, characteristic: str, data: bytes) -> Fate:
        return Fate.UNHEARD if self._notify is None else await self._notify(characteristic, data)


def _ticks(moment_ns: int) -> int:
    return round(moment_ns * TICKS_PER_S / NS_PER_S)

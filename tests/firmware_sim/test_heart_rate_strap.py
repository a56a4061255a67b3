"""The strap's bytes against vectors that others published, and its ledger against the beats it was fed."""

import asyncio
import random

import pytest

from drivers import assigned
from drivers.assigned import BodySite
from firmware_sim.bluez.peripheral import Fate
from firmware_sim.heart_rate_strap import (
    NS_PER_S,
    TICKS_PER_S,
    VALUE_BYTES,
    HeartRateStrap,
    encode_measurement,
)


@pytest.mark.parametrize(
    ("expected", "rate", "intervals", "contact", "energy_kj"),
    [
        # Parser tests of Nordic's Android BLE common library.
        ("00 55", 85, (), None, None),
        ("1E 55 32 00 21 00", 85, (33,), True, 50),
        ("1F 01 01 32 01 01 00 02 01 FF FF", 257, (1, 258, 65535), True, 306),
        ("04 FF", 255, (), False, None),
        # Worked from the GATT Specification Supplement.
        ("16 48 40 03 48 03", 72, (832, 840), True, None),
        ("11 2C 01 CD 00", 300, (205,), None, None),
        ("0E 48 FF FF", 72, (), True, 70_000),
    ],
)
def test_the_encoder_makes_the_published_bytes(
    expected: str,
    rate: int,
    intervals: tuple[int, ...],
    contact: bool | None,  # noqa: FBT001 - a column of the table
    energy_kj: int | None,
) -> None:
    made = encode_measurement(rate, intervals, contact=contact, energy_kj=energy_kj)
    assert made == bytes.fromhex(expected)


class Air:
    """Where the strap's notifications go."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.fate = Fate.DELIVERED

    async def notify(self, characteristic: str, data: bytes) -> Fate:
        self.sent.append((characteristic, data))
        return self.fate


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_no_interval_is_left_out_and_the_sum_does_not_drift(seed: int) -> None:
    generator = random.Random(seed)
    strap, air = HeartRateStrap(), Air()
    strap.attach(air.notify)

    async def scenario() -> tuple[int, int]:
        first_ns = beat_ns = 17 * NS_PER_S
        strap.feed(beat_ns)
        for second in range(18, 18 + 600):
            while (
                next_ns := beat_ns + generator.randint(300, 1500) * 1_000_003
            ) < second * NS_PER_S:
                beat_ns = next_ns
                strap.feed(beat_ns)
            await strap.measure(second * NS_PER_S)
        return first_ns, beat_ns

    first_ns, last_ns = asyncio.run(scenario())
    ticks = sum(sum(line.intervals) for line in strap.ledger)
    assert abs(ticks - (last_ns - first_ns) * TICKS_PER_S / NS_PER_S) <= 1
    assert len(air.sent) == len(strap.ledger) == 600
    assert max(len(data) for _, data in air.sent) <= VALUE_BYTES


def test_what_does_not_fit_one_notification_comes_with_the_next() -> None:
    strap, air = HeartRateStrap(), Air()
    strap.attach(air.notify)
    for beat in range(15):
        strap.feed(beat * NS_PER_S // 4)

    async def scenario() -> None:
        for _ in range(3):
            await strap.measure(4 * NS_PER_S)

    asyncio.run(scenario())
    assert [len(line.intervals) for line in strap.ledger] == [9, 5, 0]
    assert {line.rate for line in strap.ledger} == {240}


def test_a_heart_that_stops_has_no_rate_and_one_that_starts_again_has() -> None:
    strap = HeartRateStrap()

    async def rate_at(second: int) -> int:
        await strap.measure(second * NS_PER_S)
        return strap.ledger[-1].rate

    async def scenario() -> list[int]:
        rates = [await rate_at(0)]
        for beat in range(5):
            strap.feed(beat * NS_PER_S)
        rates.extend([await rate_at(9), await rate_at(10)])
        strap.feed(100 * NS_PER_S)
        strap.feed(101 * NS_PER_S)
        return [*rates, await rate_at(101)]

    assert asyncio.run(scenario()) == [0, 60, 0, 60]
    assert strap.ledger[-1].intervals == (TICKS_PER_S,), (
        "96 s do not fit 16 bits, so are no interval"
    )


def test_a_beat_that_is_not_later_is_left_out() -> None:
    strap = HeartRateStrap()
    for beat_ns in (NS_PER_S, 2 * NS_PER_S, 2 * NS_PER_S, NS_PER_S, 3 * NS_PER_S):
        strap.feed(beat_ns)
    asyncio.run(strap.measure(3 * NS_PER_S))
    assert strap.ledger[0].intervals == (TICKS_PER_S, TICKS_PER_S)


def test_the_ledger_says_what_became_of_each_measurement() -> None:
    strap, air = HeartRateStrap(), Air()

    async def scenario() -> None:
        await strap.measure(1)
        strap.attach(air.notify)
        await strap.measure(2)
        air.fate = Fate.LOST
        await strap.measure(3)

    asyncio.run(scenario())
    lines = [(line.at_ns, line.fate) for line in strap.ledger]
    assert lines == [(1, Fate.UNHEARD), (2, Fate.DELIVERED), (3, Fate.LOST)]


def test_energy_goes_along_every_tenth_time() -> None:
    strap, air = HeartRateStrap(), Air()
    strap.attach(air.notify)
    strap.energy_kj = 50

    async def scenario() -> None:
        for second in range(20):
            await strap.measure(second)

    asyncio.run(scenario())
    assert [number for number, (_, data) in enumerate(air.sent) if data[0] & 0x08] == [0, 10]


def test_battery_and_body_site_can_be_read_and_the_battery_notifies() -> None:
    strap, air = HeartRateStrap(BodySite.WRIST, battery_percent=87), Air()
    strap.attach(air.notify)
    assert strap.read(assigned.BODY_SENSOR_LOCATION) == b"\x02"
    assert strap.read(assigned.BATTERY_LEVEL) == b"\x57"
    assert asyncio.run(strap.set_battery(86)) is Fate.DELIVERED
    assert strap.read(assigned.BATTERY_LEVEL) == b"\x56"
    assert air.sent == [(assigned.BATTERY_LEVEL, b"\x56")]


def test_nothing_can_be_written() -> None:
    with pytest.raises(ValueError, match="expected none"):
        HeartRateStrap().write(assigned.BATTERY_LEVEL, b"\x00")


def test_it_measures_by_itself_once_a_period() -> None:
    strap = HeartRateStrap()

    async def scenario() -> None:
        task = asyncio.create_task(strap.run(period_s=0.01))
        async with asyncio.timeout(5):
            while len(strap.ledger) < 3:  # noqa: ASYNC110 - the strap tells nobody
                await asyncio.sleep(0.005)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
    times = [line.at_ns for line in strap.ledger]
    assert times == sorted(set(times))

"""The Bluetooth LE transport over unmodified bleak, a real dbus-daemon and a virtual org.bluez."""

import asyncio
import gc
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from drivers import assigned
from drivers.assigned import Code
from drivers.ble.heart_rate import HeartRateSession
from drivers.model import Observation, Quantity, Special
from firmware_sim.bluez.bus import PrivateBus, installed
from firmware_sim.bluez.device import FAILED, IN_PROGRESS, VirtualDevice
from firmware_sim.bluez.peripheral import Characteristic, Fate, Notify, Service
from firmware_sim.bluez.server import VirtualBluez
from firmware_sim.heart_rate_strap import HeartRateStrap
from gateway.clock import SystemClock
from gateway.transport.base import Arrival, Reason, TransportError
from gateway.transport.ble import ARRIVALS_MAX, BleRadio, BleTransport, Limits
from gateway.transport.bluez_errors import explain

pytestmark = pytest.mark.skipif(not installed(), reason="dbus-daemon is not installed")

ADDRESS = "02:00:00:00:AA:01"
OTHER_ADDRESS = "02:00:00:00:AA:02"
MEASUREMENT = assigned.HEART_RATE_MEASUREMENT
CONTROL_POINT = assigned.uuid16(0x2A39)
LIMITS = Limits(connect_s=0.6, call_s=0.3, close_s=0.3, scan_s=1.0, renew_s=0.3, pause_s=0.05)
NS_PER_S = 1_000_000_000
PROMPT_S = 1.0


class Plain:
    """A peripheral that notifies what it is told to and remembers what is written."""

    services = (
        Service(
            assigned.HEART_RATE_SERVICE,
            (
                Characteristic(MEASUREMENT, ("notify",)),
                Characteristic(CONTROL_POINT, ("write",)),
            ),
        ),
        Service(
            assigned.BATTERY_SERVICE, (Characteristic(assigned.BATTERY_LEVEL, ("read", "notify")),)
        ),
    )

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []
        self.notify: Notify

    def attach(self, notify: Notify) -> None:
        self.notify = notify

    def read(self, characteristic: str) -> bytes:
        assert characteristic == assigned.BATTERY_LEVEL
        return b"\x57"

    def write(self, characteristic: str, data: bytes) -> None:
        self.written.append((characteristic, data))


@dataclass
class World:
    bus: PrivateBus
    bluez: VirtualBluez
    radio: BleRadio
    plain: Plain
    device: VirtualDevice
    link: BleTransport

    async def stream(self) -> None:
        """The link up and subscribed."""
        await self.link.open()
        await self.link.subscribe(MEASUREMENT)

    async def stream_at_last(self) -> None:
        """The same, tried again as a supervisor does: the news of an adapter takes a moment to get round."""
        async with asyncio.timeout(PROMPT_S):
            while not self.device.connected:
                with suppress(TransportError):
                    await self.stream()
                await asyncio.sleep(0.01)

    async def send(self, count: int, first: int = 0) -> None:
        for number in range(first, first + count):
            assert await self.plain.notify(MEASUREMENT, number.to_bytes(2, "big")) is Fate.DELIVERED


def numbers(arrivals: list[Arrival]) -> list[int]:
    return [int.from_bytes(arrival.data, "big") for arrival in arrivals]


async def take(link: BleTransport, count: int) -> list[Arrival]:
    async with asyncio.timeout(5):
        return [await link.receive() for _ in range(count)]


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(PROMPT_S):
        while not condition():  # noqa: ASYNC110 - looks at the simulator, which tells nobody
            await asyncio.sleep(0.01)


async def ending(awaitable: Awaitable[object], within_s: float = PROMPT_S) -> TransportError:
    """The TransportError it must raise within the time."""
    async with asyncio.timeout(within_s):
        with pytest.raises(TransportError) as caught:
            await awaitable
    return caught.value


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a scenario in a world of its own. What it leaves open is a warning at collection, so a failure."""

    @asynccontextmanager
    async def world(limits: Limits) -> AsyncIterator[World]:
        async with PrivateBus(tmp_path) as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
            async with VirtualBluez(bus.address) as bluez, BleRadio(limits=limits) as radio:
                plain = Plain()
                device = bluez.add_device(ADDRESS, "Strap", plain)
                services = (assigned.HEART_RATE_SERVICE,)
                link = BleTransport(ADDRESS.lower(), services, SystemClock(), radio)
                try:
                    yield World(bus, bluez, radio, plain, device, link)
                finally:
                    await link.close()

    def go(scenario: Callable[[World], Awaitable[None]], limits: Limits = LIMITS) -> None:
        async def main() -> None:
            async with world(limits) as made:
                await scenario(made)

        asyncio.run(main())
        gc.collect()

    return go


def test_values_arrive_in_order_with_their_source_and_time(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        before_ns = SystemClock().boottime_ns()
        await world.send(5)
        arrivals = await take(world.link, 5)
        assert numbers(arrivals) == [0, 1, 2, 3, 4]
        assert {arrival.source for arrival in arrivals} == {MEASUREMENT}
        times = [arrival.at_ns for arrival in arrivals]
        assert times == sorted(times)
        assert before_ns <= times[0] <= times[-1] <= SystemClock().boottime_ns()

    run(scenario)


def test_500_notifications_and_none_is_lost(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(world.send(500))
            arrivals = await take(world.link, 500)
        assert numbers(arrivals) == list(range(500))
        assert not any(arrival.dropped for arrival in arrivals)

    run(scenario)


def test_what_nobody_takes_is_dropped_oldest_first_and_counted(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        await world.send(ARRIVALS_MAX + 7)
        await world.link.read(assigned.BATTERY_LEVEL)  # its answer comes after all that was sent
        first, second = await take(world.link, 2)
        assert (numbers([first]), first.dropped) == ([8], 8)
        assert (numbers([second]), second.dropped) == ([9], 0)

    run(scenario)


def test_a_drop_gives_what_had_arrived_then_lost(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        world.device.drop_after = 3
        await world.send(3)
        assert numbers(await take(world.link, 3)) == [0, 1, 2]
        assert (await ending(world.link.receive())).reason is Reason.LOST
        assert (await ending(world.link.subscribe(MEASUREMENT))).reason is Reason.LOST

    run(scenario)


def test_a_receiver_that_waits_is_woken_by_the_loss(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        waiting = asyncio.create_task(ending(world.link.receive()))
        await asyncio.sleep(0)
        await world.device.drop()
        assert (await waiting).reason is Reason.LOST

    run(scenario)


def test_after_a_loss_the_same_link_opens_again(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        for round_ in range(3):
            await world.stream()
            await world.send(2, first=round_ * 2)
            assert numbers(await take(world.link, 2)) == [round_ * 2, round_ * 2 + 1]
            await world.device.drop()
            await ending(world.link.receive())

    run(scenario)


def test_a_second_device_waiting_does_not_hide_the_first_ones_return(
    run: Callable[..., None],
) -> None:
    async def scenario(world: World) -> None:
        absent = BleTransport(
            OTHER_ADDRESS, (assigned.HEART_RATE_SERVICE,), SystemClock(), world.radio
        )
        waiting = asyncio.create_task(absent.open())
        await world.stream()
        await (
            world.device.drop()
        )  # BlueZ shows a steady device once in a scan, and this scan goes on
        async with asyncio.timeout(PROMPT_S):
            await world.stream()
        assert not waiting.done()
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)

    run(scenario, Limits(renew_s=30.0, pause_s=0.05))


def test_an_abort_that_bluez_signals_is_tried_again_within_open(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        world.device.refuse("Connect", 2)
        await world.stream()
        await world.send(1)
        assert numbers(await take(world.link, 1)) == [0]

    run(scenario)


def test_an_abort_without_a_signal_ends_in_time_and_the_next_open_works(
    run: Callable[..., None],
) -> None:
    async def scenario(world: World) -> None:
        world.device.refuse("Connect", 1)
        world.device.abort_signals = False
        error = await ending(
            world.link.open(), within_s=LIMITS.connect_s + LIMITS.close_s + PROMPT_S
        )
        assert error.reason is Reason.TIMEOUT
        await world.stream()

    run(scenario)


def test_a_refused_connect_says_why_and_the_next_open_works(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        world.device.refuse("Connect", 1, FAILED, "Software caused connection abort")
        error = await ending(world.link.open())
        assert error.reason is Reason.REFUSED
        assert "Software caused connection abort" in error.text
        world.device.refuse("Connect", 1, IN_PROGRESS, "Operation already in progress")
        assert (await ending(world.link.open())).reason is Reason.BUSY
        await world.stream()

    run(scenario)


def test_services_that_never_resolve_time_out(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        world.device.services_resolve = False
        error = await ending(
            world.link.open(), within_s=LIMITS.connect_s + LIMITS.close_s + PROMPT_S
        )
        assert error.reason is Reason.TIMEOUT
        assert not world.device.connected
        world.device.services_resolve = True
        await world.stream()

    run(scenario)


def test_a_device_without_the_service_is_refused_and_let_go(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        oximeter = assigned.uuid16(0x1822)
        link = BleTransport(ADDRESS, (oximeter,), SystemClock(), world.radio)
        error = await ending(link.open())
        assert error.reason is Reason.REFUSED
        assert oximeter in error.text
        assert not world.device.connected

    run(scenario)


def test_without_power_there_is_no_adapter_and_with_power_again_it_works(
    run: Callable[..., None],
) -> None:
    async def scenario(world: World) -> None:
        await world.bluez.power(on=False)
        assert (await ending(world.link.open())).reason is Reason.NO_ADAPTER
        await world.bluez.power(on=True)
        await world.stream_at_last()
        await world.bluez.power(on=False)
        assert (await ending(world.link.receive())).reason is Reason.LOST

    run(scenario)


def test_power_that_goes_while_waiting_for_a_device_is_told(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.device.vanish()
        waiting = asyncio.create_task(ending(world.link.open()))
        await until(lambda: world.bluez.discovering)
        await world.bluez.power(on=False)
        assert (await waiting).reason is Reason.NO_ADAPTER

    run(scenario, Limits(renew_s=30.0, pause_s=0.05))


def test_bluetoothd_killed_while_subscribed_is_a_loss(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        await world.send(2)
        await world.bluez.die()
        assert numbers(await take(world.link, 2)) == [0, 1]
        error = await ending(world.link.receive())
        assert error.reason is Reason.LOST
        assert error.text == "bluetoothd has gone"
        async with asyncio.timeout(PROMPT_S):
            await world.link.close()
        assert (await ending(world.link.open())).reason is Reason.NO_ADAPTER
        await world.bluez.revive()
        await world.stream_at_last()
        await world.send(1, first=9)
        assert numbers(await take(world.link, 1)) == [9]

    run(scenario)


def test_bluetoothd_killed_while_connecting_ends_it_at_once(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        world.device.services_resolve = False
        opening = asyncio.create_task(ending(world.link.open()))
        await until(lambda: world.device.connected)
        await world.bluez.die()
        assert (await opening).reason in {Reason.LOST, Reason.NO_ADAPTER}

    run(scenario, Limits(connect_s=30.0, pause_s=0.05))


def test_the_bus_killed_while_subscribed_is_a_loss(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        await world.bus.__aexit__()
        assert (await ending(world.link.receive())).reason is Reason.LOST
        assert (await ending(world.link.read(assigned.BATTERY_LEVEL))).reason is Reason.LOST

    run(scenario)


def test_a_missing_characteristic_is_refused_and_the_link_goes_on(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        missing = assigned.uuid16(0x2A5F)
        for attempt in (
            world.link.subscribe(missing),
            world.link.read(missing),
            world.link.write(missing, b"\x01"),
        ):
            assert (await ending(attempt)).reason is Reason.REFUSED
        await world.send(1)
        assert numbers(await take(world.link, 1)) == [0]

    run(scenario)


def test_in_progress_for_ever_ends_at_the_limit(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.link.open()
        world.device.refuse("ReadValue", 10**6, IN_PROGRESS, "In Progress")
        assert (await ending(world.link.read(assigned.BATTERY_LEVEL))).reason is Reason.TIMEOUT
        world.device.refuse("ReadValue", 3, IN_PROGRESS, "In Progress")
        await world.link.read(assigned.BATTERY_LEVEL)
        assert [arrival.data for arrival in await take(world.link, 1)] == [b"\x57"]

    run(scenario)


def test_a_read_value_arrives_once_also_when_it_is_subscribed_to(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        await world.link.subscribe(assigned.BATTERY_LEVEL)
        await world.link.read(assigned.BATTERY_LEVEL)
        await world.send(1)
        assert [arrival.data for arrival in await take(world.link, 2)] == [b"\x57", b"\x00\x00"]

    run(scenario)


def test_a_write_reaches_the_device(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.link.open()
        await world.link.write(CONTROL_POINT, b"\x01")
        assert world.plain.written == [(CONTROL_POINT, b"\x01")]

    run(scenario)


def test_closing_ends_the_connection_and_may_be_repeated(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        await world.link.close()
        assert not world.device.connected
        assert world.device.calls["StopNotify"] == 1
        await world.link.close()
        assert world.device.calls["Disconnect"] == 1
        assert (await ending(world.link.receive())).reason is Reason.LOST

    run(scenario)


def test_a_link_left_open_by_an_earlier_process_is_taken_over(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.device.adopt()  # connected, so it does not advertise
        async with asyncio.timeout(PROMPT_S):
            await world.stream()
        await world.send(1)
        assert numbers(await take(world.link, 1)) == [0]

    run(scenario)


def test_open_waits_for_the_device_and_can_be_given_up(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.device.vanish()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await world.link.open()
        opening = asyncio.create_task(world.link.open())
        await asyncio.sleep(0.1)
        await world.device.appear()
        async with asyncio.timeout(PROMPT_S):
            await opening

    run(scenario)


def test_the_scan_ends_when_nobody_waits(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        await until(lambda: not world.bluez.discovering)

    run(scenario)


def test_a_scan_that_another_program_blocks_is_busy_then_works(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        world.bluez.refuse_discovery(1)
        assert (await ending(world.link.open())).reason is Reason.BUSY
        await world.stream()

    run(scenario)


def test_two_devices_stream_side_by_side(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        other = Plain()
        world.bluez.add_device(OTHER_ADDRESS, "Other", other)
        services = (assigned.HEART_RATE_SERVICE,)
        second = BleTransport(OTHER_ADDRESS, services, SystemClock(), world.radio)
        await asyncio.gather(world.link.open(), second.open())
        await asyncio.gather(world.link.subscribe(MEASUREMENT), second.subscribe(MEASUREMENT))
        await other.notify(MEASUREMENT, b"\x00\x63")
        await world.send(1)
        assert numbers(await take(second, 1)) == [99]
        assert numbers(await take(world.link, 1)) == [0]
        await second.close()

    run(scenario)


def test_lost_duplicated_and_corrupted_notifications_arrive_as_scripted(
    run: Callable[..., None],
) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        world.device.script.extend([Fate.LOST, Fate.DUPLICATED, Fate.CORRUPTED])
        fates = [await world.plain.notify(MEASUREMENT, bytes([n, n])) for n in range(4)]
        assert fates == [Fate.LOST, Fate.DUPLICATED, Fate.CORRUPTED, Fate.DELIVERED]
        arrivals = await take(world.link, 4)
        assert [arrival.data for arrival in arrivals] == [
            b"\x01\x01",
            b"\x01\x01",
            b"\x02",
            b"\x03\x03",
        ]

    run(scenario)


def test_a_silent_device_stays_connected(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        await world.stream()
        world.device.silent = True
        assert await world.plain.notify(MEASUREMENT, b"\x00\x01") is Fate.LOST
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await world.link.receive()
        assert world.device.connected

    run(scenario)


def test_the_driver_gets_exactly_what_the_strap_has_in_its_ledger(run: Callable[..., None]) -> None:
    async def scenario(world: World) -> None:
        strap = HeartRateStrap()
        device = world.bluez.add_device(OTHER_ADDRESS, "Strap", strap)
        services = (assigned.HEART_RATE_SERVICE,)
        link = BleTransport(OTHER_ADDRESS, services, SystemClock(), world.radio)
        session = HeartRateSession({})
        await link.open()
        await link.subscribe(MEASUREMENT)
        device.script.extend([Fate.DELIVERED] * 10 + [Fate.LOST])
        beat_ns = 0
        for second in range(1, 31):
            while beat_ns < second * NS_PER_S:
                strap.feed(beat_ns)
                beat_ns += 640_000_000 + second * 7_000_001
            await strap.measure(second * NS_PER_S)
        heard = [line for line in strap.ledger if line.fate is Fate.DELIVERED]
        assert len(heard) == len(strap.ledger) - 1
        rates: list[Decimal | Special] = []
        intervals: list[Decimal | Special] = []
        for arrival in await take(link, len(heard)):
            for record in session.receive(arrival.source, arrival.data, arrival.at_ns):
                assert isinstance(record, Observation)
                assert isinstance(record.value, Quantity)
                values = rates if record.code is Code.ECG_HEART_RATE else intervals
                values.append(record.value.value)
        assert rates == [Decimal(line.rate) if line.rate else Special.UNKNOWN for line in heard]
        assert intervals == [Decimal(t) * 1000 / 1024 for line in heard for t in line.intervals]
        assert len(intervals) > 30
        await link.close()

    run(scenario)


@pytest.mark.parametrize("address", ["", "02:00:00:00:AA", "Strap", "02-00-00-00-AA-01"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="expected six hex pairs"):
        BleTransport(address, (), SystemClock(), BleRadio())


def test_an_error_that_no_row_knows_is_refused_with_its_words() -> None:
    error = explain(RuntimeError("the stack said something new"), "connect")
    assert error.reason is Reason.REFUSED
    assert error.text == "connect: got the stack said something new"

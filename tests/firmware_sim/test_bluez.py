"""The virtual org.bluez as D-Bus sees it: a real dbus-daemon, and a client that is not bleak."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from dbus_fast import Message, MessageType, Variant
from dbus_fast.aio import MessageBus

from drivers import assigned
from firmware_sim.bluez.bus import PrivateBus, installed
from firmware_sim.bluez.device import CHARACTERISTIC, DEVICE, SERVICE
from firmware_sim.bluez.peripheral import Fate
from firmware_sim.bluez.server import ADAPTER, ADAPTER_PATH, NAME, VirtualBluez
from firmware_sim.bluez.tree import DAEMON, OBJECT_MANAGER, PROPERTIES
from firmware_sim.heart_rate_strap import HeartRateStrap

pytestmark = pytest.mark.skipif(not installed(), reason="dbus-daemon is not installed")

ADDRESS = "02:00:00:00:AA:01"


class Client:
    """A connection that keeps every signal."""

    def __init__(self, bus: MessageBus) -> None:
        self.bus = bus
        self.signals: list[tuple[str, str, list[object]]] = []
        bus.add_message_handler(self._keep)

    def _keep(self, message: Message) -> None:
        if message.message_type is MessageType.SIGNAL and message.member != "NameAcquired":
            self.signals.append((message.path or "", message.member or "", message.body))

    async def call(
        self, path: str, interface: str, member: str, signature: str = "", *body: object
    ) -> Message:
        async with asyncio.timeout(5):
            return await self.bus.call(
                Message(
                    destination=DAEMON if interface == DAEMON else NAME,
                    path=path,
                    interface=interface,
                    member=member,
                    signature=signature,
                    body=list(body),
                )
            )

    async def drain(self) -> list[tuple[str, str, list[object]]]:
        """The signals up to now, once each: whatever org.bluez sent before its answer is in."""
        await self.call("/", OBJECT_MANAGER, "GetManagedObjects")
        signals, self.signals = self.signals, []
        return signals


@asynccontextmanager
async def connected(address: str) -> AsyncIterator[Client]:
    bus = MessageBus(bus_address=address)
    await bus.connect()
    client = Client(bus)
    rule = "type='signal'"
    await client.call("/org/freedesktop/DBus", DAEMON, "AddMatch", "s", rule)
    try:
        yield client
    finally:
        bus.disconnect()
        await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]


Scenario = Callable[[VirtualBluez, Client], Awaitable[None]]


@pytest.fixture
def run(tmp_path: Path) -> Callable[[Scenario], None]:
    async def main(scenario: Scenario) -> None:
        async with (
            PrivateBus(tmp_path) as bus,
            connected(bus.address) as client,
            VirtualBluez(bus.address) as bluez,
        ):
            await scenario(bluez, client)

    return lambda scenario: asyncio.run(main(scenario))


def changed(
    signals: list[tuple[str, str, list[object]]], interface: str, name: str
) -> list[object]:
    """Each value that a property was changed to."""
    values: list[object] = []
    for _, member, body in signals:
        if member == "PropertiesChanged" and body[0] == interface:
            properties = body[1]
            assert isinstance(properties, dict)
            if name in properties:
                values.append(properties[name].value)
    return values


def test_a_device_shows_what_a_client_relies_on(run: Callable[[Scenario], None]) -> None:
    async def scenario(bluez: VirtualBluez, client: Client) -> None:
        device = bluez.add_device(ADDRESS.lower(), "Strap", HeartRateStrap())
        reply = await client.call("/", OBJECT_MANAGER, "GetManagedObjects")
        assert list(reply.body[0]) == [ADAPTER_PATH], "not known before discovery"
        await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        await client.call(device.path, DEVICE, "Connect")
        reply = await client.call("/", OBJECT_MANAGER, "GetManagedObjects")
        objects = reply.body[0]
        assert objects[ADAPTER_PATH][ADAPTER]["Roles"] == Variant("as", ["central"])
        assert device.path == "/org/bluez/hci0/dev_02_00_00_00_AA_01"
        shown = objects[device.path][DEVICE]
        assert shown["Address"].value == ADDRESS
        for name in ("Adapter", "Alias", "Paired", "Connected", "ServicesResolved", "UUIDs"):
            assert name in shown
        paths = [path for path in objects if CHARACTERISTIC in objects[path]]
        assert len(paths) == 3
        for path in paths:
            owner = path[: -len("/service0010/char0011")]
            service = objects[path][CHARACTERISTIC]["Service"].value
            assert (owner, path.rpartition("/")[0]) == (device.path, service)
            assert objects[service][SERVICE]["Device"].value == device.path
        assert len({path[-4:] for path in paths}) == 3, "handles differ"

    run(scenario)


def test_connected_is_told_before_connect_answers_and_services_after(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(bluez: VirtualBluez, client: Client) -> None:
        device = bluez.add_device(ADDRESS, "Strap", HeartRateStrap())
        await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        device.services_resolve = False
        await client.drain()
        await client.call(device.path, DEVICE, "Connect")
        assert changed(client.signals, DEVICE, "Connected") == [True]
        await device.drop()
        assert changed(await client.drain(), DEVICE, "Connected") == [True, False]
        device.services_resolve = True
        await client.call(device.path, DEVICE, "Connect")
        assert changed(await client.drain(), DEVICE, "ServicesResolved") == [True]

    run(scenario)


def test_a_steady_device_is_told_of_once_in_a_discovery(run: Callable[[Scenario], None]) -> None:
    async def scenario(bluez: VirtualBluez, client: Client) -> None:
        device = bluez.add_device(ADDRESS, "Strap", HeartRateStrap())
        await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        members = [member for _, member, _ in await client.drain()]
        assert members.count("InterfacesAdded") == 2, "the adapter and the device"
        await device.appear()
        await device.appear(-66)
        assert changed(await client.drain(), DEVICE, "RSSI") == []
        await device.appear(-68)
        assert changed(await client.drain(), DEVICE, "RSSI") == [-68]
        await client.call(ADAPTER_PATH, ADAPTER, "StopDiscovery")
        await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        assert changed(await client.drain(), DEVICE, "RSSI") == [-68]

    run(scenario)


def test_a_device_out_of_reach_is_unknown(run: Callable[[Scenario], None]) -> None:
    async def scenario(bluez: VirtualBluez, client: Client) -> None:
        device = bluez.add_device(ADDRESS, "Strap", HeartRateStrap())
        await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        await client.call(device.path, DEVICE, "Connect")
        await device.vanish()
        removed = [
            body[0] for _, member, body in await client.drain() if member.endswith("Removed")
        ]
        assert len(removed) == 6
        assert removed[-1] == device.path, "what is inside goes first"
        reply = await client.call(device.path, DEVICE, "Connect")
        assert reply.error_name == "org.freedesktop.DBus.Error.UnknownObject"

    run(scenario)


@pytest.mark.parametrize(
    ("interface", "member", "error"),
    [
        (DEVICE, "Pair", "org.freedesktop.DBus.Error.UnknownMethod"),
        (ADAPTER, "StartDiscovery", "org.freedesktop.DBus.Error.UnknownMethod"),
    ],
)
def test_what_an_object_does_not_have_is_an_unknown_method(
    run: Callable[[Scenario], None], interface: str, member: str, error: str
) -> None:
    async def scenario(bluez: VirtualBluez, client: Client) -> None:
        device = bluez.add_device(ADDRESS, "Strap", HeartRateStrap())
        await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        assert (await client.call(device.path, interface, member)).error_name == error

    run(scenario)


def test_a_burst_into_a_stalled_bus_waits_and_loses_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        async with (
            PrivateBus(tmp_path) as bus,
            connected(bus.address) as client,
            VirtualBluez(bus.address) as bluez,
        ):
            device = bluez.add_device(ADDRESS, "Strap", HeartRateStrap())
            await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
            await client.call(device.path, DEVICE, "Connect")
            path = f"{device.path}/service0010/char0011"
            await client.call(path, CHARACTERISTIC, "StartNotify")
            await client.drain()
            values = [number.to_bytes(2, "big") * 120 for number in range(2000)]
            os.kill(bus.pid, signal.SIGSTOP)
            asyncio.get_running_loop().call_later(0.2, os.kill, bus.pid, signal.SIGCONT)
            fates = await asyncio.gather(
                *(device.notify(assigned.HEART_RATE_MEASUREMENT, value) for value in values)
            )
            assert set(fates) == {Fate.DELIVERED}
            assert changed(await client.drain(), CHARACTERISTIC, "Value") == values

    asyncio.run(main())


def test_a_killed_daemon_loses_its_name_and_comes_back_without_devices(
    run: Callable[[Scenario], None],
) -> None:
    async def scenario(bluez: VirtualBluez, client: Client) -> None:
        device = bluez.add_device(ADDRESS, "Strap", HeartRateStrap())
        await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        await client.call(device.path, DEVICE, "Connect")
        await client.drain()
        await bluez.die()
        reply = await client.call(device.path, DEVICE, "Connect")
        assert reply.error_name == "org.freedesktop.DBus.Error.ServiceUnknown"
        owners = [body for _, member, body in client.signals if member == "NameOwnerChanged"]
        assert [body[2] for body in owners if body[0] == NAME] == [""]
        assert changed(client.signals, DEVICE, "Connected") == []
        await bluez.revive()
        reply = await client.call("/", OBJECT_MANAGER, "GetManagedObjects")
        assert list(reply.body[0]) == [ADAPTER_PATH]

    run(scenario)


def test_one_bus_has_one_bluez(tmp_path: Path) -> None:
    async def main() -> None:
        async with PrivateBus(tmp_path) as bus, VirtualBluez(bus.address):
            second = VirtualBluez(bus.address)
            with pytest.raises(RuntimeError, match="expected PRIMARY_OWNER"):
                await second.revive()
            await second.die()

    asyncio.run(main())


def test_properties_can_be_asked_for(run: Callable[[Scenario], None]) -> None:
    async def scenario(bluez: VirtualBluez, client: Client) -> None:
        await bluez.power(on=False)
        reply = await client.call(ADAPTER_PATH, PROPERTIES, "Get", "ss", ADAPTER, "Powered")
        assert reply.body == [Variant("b", value=False)]
        reply = await client.call(ADAPTER_PATH, PROPERTIES, "Get", "ss", ADAPTER, "Colour")
        assert reply.error_name == "org.freedesktop.DBus.Error.UnknownProperty"
        reply = await client.call(ADAPTER_PATH, ADAPTER, "StartDiscovery")
        assert reply.error_name == "org.bluez.Error.NotReady"

    run(scenario)


def test_the_bus_sets_nothing_globally_and_ends_with_its_block(tmp_path: Path) -> None:
    async def main() -> None:
        before = dict(os.environ)
        async with PrivateBus(tmp_path) as bus:
            assert str(tmp_path) in bus.address
            address = bus.address
            async with connected(address):
                pass
        assert dict(os.environ) == before
        assert bus.address == ""
        with pytest.raises(OSError, match=r"refused|No such file"):
            await MessageBus(bus_address=address).connect()

    asyncio.run(main())


def test_a_directory_that_is_too_long_for_a_socket_is_refused() -> None:
    with pytest.raises(ValueError, match="expected at most 107"):
        PrivateBus(Path("/tmp") / ("x" * 120))  # noqa: S108 - nothing is written there


def test_a_missing_dbus_daemon_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))

    async def main() -> None:
        with pytest.raises(RuntimeError, match="install the dbus package"):
            await PrivateBus(tmp_path).__aenter__()

    asyncio.run(main())

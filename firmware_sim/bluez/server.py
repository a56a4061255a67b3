"""org.bluez with one adapter and any number of simulated devices."""

from typing import Self

from dbus_fast import DBusError, Variant

from firmware_sim.bluez.device import CHARACTERISTIC, DEVICE, NOT_CONNECTED, VirtualDevice
from firmware_sim.bluez.peripheral import Peripheral
from firmware_sim.bluez.tree import NO, UNKNOWN_OBJECT, ObjectTree, Reply

NAME = "org.bluez"
ADAPTER = "org.bluez.Adapter1"
ADAPTER_PATH = "/org/bluez/hci0"
ADAPTER_ADDRESS = "02:00:00:00:00:01"
"""Locally administered, so nobody's."""
NOT_READY = DBusError("org.bluez.Error.NotReady", "Resource Not Ready")


class VirtualBluez:
    """Answers as bluetoothd does while the block lasts.

    Example:
        async with VirtualBluez(bus.address) as bluez:
            strap = bluez.add_device("02:00:00:00:AA:01", "Strap", HeartRateStrap())
    """

    def __init__(self, bus_address: str) -> None:
        self._devices: dict[str, VirtualDevice] = {}
        self._powered = True
        self._discovering = False
        self._refusals = 0
        self._tree = ObjectTree(
            bus_address,
            NAME,
            {
                (ADAPTER, "SetDiscoveryFilter"): self._set_discovery_filter,
                (ADAPTER, "StartDiscovery"): self._start_discovery,
                (ADAPTER, "StopDiscovery"): self._stop_discovery,
                (DEVICE, "Connect"): self._connect,
                (DEVICE, "Disconnect"): lambda path, _: self._device(path).disconnect(),
                (CHARACTERISTIC, "StartNotify"): (
                    lambda path, _: self._owner(path).set_notifying(path, on=True)
                ),
                (CHARACTERISTIC, "StopNotify"): (
                    lambda path, _: self._owner(path).set_notifying(path, on=False)
                ),
                (CHARACTERISTIC, "ReadValue"): lambda path, _: self._owner(path).read_value(path),
                (CHARACTERISTIC, "WriteValue"): self._write_value,
            },
        )

    async def __aenter__(self) -> Self:
        """Returns once the name is taken and the adapter is there, switched on."""
        await self.revive()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Goes as a killed process does."""
        await self.die()

    def add_device(self, address: str, name: str, peripheral: Peripheral) -> VirtualDevice:
        """A device in reach that advertises; BlueZ knows of it from the next discovery on."""
        device = VirtualDevice(self._tree, ADAPTER_PATH, address, name, peripheral)
        self._devices[device.path] = device
        return device

    async def power(self, *, on: bool) -> None:
        """Switches the adapter; off breaks every link and ends discovery."""
        self._powered = on
        if not on:
            for device in self._devices.values():
                await device.drop()
            await self._discover(on=False)
        await self._tree.change(ADAPTER_PATH, ADAPTER, {"Powered": Variant("b", on)})

    async def die(self) -> None:
        """The daemon is killed: its name is lost, and no property says that a link has ended."""
        self._discovering = False
        await self._tree.stop()
        for device in self._devices.values():
            device.forget()

    async def revive(self) -> None:
        """The daemon starts: it has the adapter and no device yet."""
        self._tree.objects.clear()
        await self._tree.start()
        await self._tree.add(ADAPTER_PATH, {ADAPTER: self._adapter()})

    def refuse_discovery(self, times: int) -> None:
        """Answers the next calls of StartDiscovery with InProgress."""
        self._refusals = times

    @property
    def discovering(self) -> bool:
        """Whether the hub has discovery on."""
        return self._discovering

    async def _set_discovery_filter(self, _path: str, _body: list[object]) -> Reply:
        if not self._powered:
            raise NOT_READY
        return "", []

    async def _start_discovery(self, _path: str, _body: list[object]) -> Reply:
        if not self._powered:
            raise NOT_READY
        if self._refusals > 0:
            self._refusals -= 1
            raise DBusError("org.bluez.Error.InProgress", "Operation already in progress")
        await self._discover(on=True)
        return "", []

    async def _stop_discovery(self, _path: str, _body: list[object]) -> Reply:
        if not self._discovering:
            raise DBusError("org.bluez.Error.Failed", "No discovery started")
        await self._discover(on=False)
        return "", []

    async def _discover(self, *, on: bool) -> None:
        self._discovering = on
        await self._tree.change(ADAPTER_PATH, ADAPTER, {"Discovering": Variant("b", on)})
        for device in self._devices.values():
            await device.discovery(on=on)

    async def _connect(self, path: str, _body: list[object]) -> Reply:
        if not self._powered:
            raise NOT_READY
        return await self._device(path).connect()

    async def _write_value(self, path: str, body: list[object]) -> Reply:
        data = body[0]
        if not isinstance(data, bytes):
            raise DBusError("org.bluez.Error.InvalidArguments", "Invalid arguments in method call")
        return await self._owner(path).write_value(path, data)

    def _device(self, path: str) -> VirtualDevice:
        device = self._devices.get(path)
        if device is None:
            raise DBusError(UNKNOWN_OBJECT, f"Unknown object '{path}'")
        return device

    def _owner(self, path: str) -> VirtualDevice:
        """The device of a characteristic, whose path is device/service/characteristic."""
        device = self._device(path.rsplit("/", maxsplit=2)[0])
        if not self._powered:
            raise DBusError(NOT_CONNECTED, "Not Connected")
        return device

    def _adapter(self) -> dict[str, Variant]:
        return {
            "Address": Variant("s", ADAPTER_ADDRESS),
            "AddressType": Variant("s", "public"),
            "Name": Variant("s", "hub"),
            "Alias": Variant("s", "hub"),
            "Class": Variant("u", 0),
            "Powered": Variant("b", self._powered),
            "Discoverable": NO,
            "Pairable": NO,
            "Discovering": NO,
            "UUIDs": Variant("as", []),
            "Roles": Variant("as", ["central"]),
        }

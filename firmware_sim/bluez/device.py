"""One device as BlueZ shows it: Device1 and its GATT objects, with the faults that can be scripted."""

from collections import Counter, deque
from dataclasses import dataclass

from dbus_fast import DBusError, Variant

from firmware_sim.bluez.peripheral import Characteristic, Fate, Peripheral, Service
from firmware_sim.bluez.tree import NO, YES, ObjectTree, Reply

DEVICE = "org.bluez.Device1"
SERVICE = "org.bluez.GattService1"
CHARACTERISTIC = "org.bluez.GattCharacteristic1"
FAILED = "org.bluez.Error.Failed"
IN_PROGRESS = "org.bluez.Error.InProgress"
NOT_SUPPORTED = "org.bluez.Error.NotSupported"
ABORT = "le-connection-abort-by-local"
NOT_CONNECTED = "org.bluez.Error.NotConnected"

ATT_MTU_BYTES = 247
FIRST_HANDLE = 0x0010
HANDLES_EACH = 3
"""A characteristic takes its declaration, its value and, for notifications, its configuration descriptor."""
USUAL_RSSI_DBM = -60
RSSI_STEP_DBM = 8
"""BlueZ tells of a change from here on, unless a client asked for duplicates; a steady device is told of once."""


@dataclass(slots=True)
class Refusal:
    """The next `times` calls of one method are answered with this error."""

    times: int
    error: str
    text: str


class VirtualDevice:
    """A peripheral seen through BlueZ. Made by `VirtualBluez.add_device`.

    Attributes:
        connected: whether the hub is connected to it.
        subscribed: UUIDs whose notifications the hub has turned on.
        advertising: whether it can be seen and connected to; change it through `appear` and `vanish`.
        script: what becomes of the next notifications, first one first; delivered when it is empty.
        silent: stays connected and nothing arrives any more.
        drop_after: breaks the link after so many more notifications.
        services_resolve: False: discovery of the services never ends.
        calls: how often the hub has called each method.
        abort_signals: False: a connection aborted by BlueZ never says Connected=False.
    """

    def __init__(
        self,
        tree: ObjectTree,
        adapter_path: str,
        address: str,
        name: str,
        peripheral: Peripheral,
    ) -> None:
        self.address = address.upper()
        self.name = name
        self.path = f"{adapter_path}/dev_{self.address.replace(':', '_')}"
        self.connected = False
        self.subscribed: set[str] = set()
        self.advertising = True
        self.script: deque[Fate] = deque()
        self.silent = False
        self.drop_after: int | None = None
        self.services_resolve = True
        self.abort_signals = True
        self.calls: Counter[str] = Counter()
        self._properties = _shown(self.address, name, adapter_path, peripheral)
        self._tree = tree
        self._peripheral = peripheral
        self._refusals: dict[str, Refusal] = {}
        self._rssi_dbm = USUAL_RSSI_DBM
        self._discovering = False
        self._paths: dict[str, str] = {}
        self._characteristics: dict[str, Characteristic] = {}
        handle = FIRST_HANDLE
        for service in peripheral.services:
            service_path = f"{self.path}/service{handle:04x}"
            handle += 1
            for characteristic in service.characteristics:
                path = f"{service_path}/char{handle:04x}"
                self._paths[characteristic.uuid] = path
                self._characteristics[path] = characteristic
                handle += HANDLES_EACH
        peripheral.attach(self.notify)

    def refuse(self, member: str, times: int, error: str = FAILED, text: str = ABORT) -> None:
        """Answers the next calls of a method (Connect, StartNotify, ReadValue ...) with an error."""
        self._refusals[member] = Refusal(times, error, text)

    async def appear(self, rssi_dbm: int = USUAL_RSSI_DBM) -> None:
        """Starts to advertise, or goes on, and is received with this strength."""
        self.advertising = True
        self._rssi_dbm = rssi_dbm
        await self._advertise()

    async def vanish(self) -> None:
        """Goes out of range: the link breaks, and BlueZ forgets the device."""
        self.advertising = False
        await self.drop()
        await self._tree.remove(self.path)

    async def drop(self) -> None:
        """Breaks the link as the device does; harmless when there is none."""
        if self.connected:
            self.subscribed.clear()
            self.connected = False
            await self._change(ServicesResolved=NO)
            await self._change(Connected=NO)

    async def adopt(self) -> None:
        """Is connected already, by a process that has gone: BlueZ keeps such a link, and nobody can see it."""
        await self._tree.add(self.path, {DEVICE: dict(self._properties)})
        await self._link_up()
        await self._resolve()

    async def notify(self, characteristic: str, data: bytes) -> Fate:
        """Sends one value towards the hub, as far as the script lets it."""
        if not self.connected or characteristic not in self.subscribed:
            return Fate.UNHEARD
        fate = self.script.popleft() if self.script else Fate.DELIVERED
        if self.silent:
            fate = Fate.LOST
        arrivals = {
            Fate.DELIVERED: (data,),
            Fate.DUPLICATED: (data, data),
            Fate.CORRUPTED: (data[:-1],),
        }
        for value in arrivals.get(fate, ()):
            await self._tree.change(
                self._paths[characteristic], CHARACTERISTIC, {"Value": Variant("ay", value)}
            )
        if self.drop_after is not None:
            self.drop_after -= 1
            if self.drop_after <= 0:
                self.drop_after = None
                await self.drop()
        return fate

    # --- what the adapter says --------------------------------------------------------------------

    async def discovery(self, *, on: bool) -> None:
        """The adapter starts or stops to look for devices."""
        self._discovering = on
        if on:
            await self._advertise()
        elif self.path in self._tree.objects:
            await self._tree.change(self.path, DEVICE, {}, invalidated=("RSSI",))

    def forget(self) -> None:
        """The daemon has gone: no link, no subscription, and nobody is told."""
        self.connected = self._discovering = False
        self.subscribed.clear()

    # --- what the hub calls -----------------------------------------------------------------------

    async def connect(self) -> Reply:
        """Device1.Connect."""
        refusal = self._take_refusal("Connect")
        if refusal is not None:
            if refusal.text == ABORT:
                await self._link_up()
                if self.abort_signals:
                    await self.drop()
                await self._tree.barrier()
            raise DBusError(refusal.error, refusal.text)
        if not self.connected:
            await self._link_up()
            # Who reads the signal and who reads the reply have a socket each: the signal has to be first.
            await self._tree.barrier()
        if self.services_resolve:
            await self._resolve()
        return "", []

    async def disconnect(self) -> Reply:
        """Device1.Disconnect."""
        refusal = self._take_refusal("Disconnect")
        if refusal is not None:
            raise DBusError(refusal.error, refusal.text)
        await self.drop()
        return "", []

    async def set_notifying(self, path: str, *, on: bool) -> Reply:
        """GattCharacteristic1.StartNotify and StopNotify."""
        self._check("StartNotify" if on else "StopNotify")
        characteristic = self._characteristics[path]
        if not {"notify", "indicate"} & set(characteristic.flags):
            raise DBusError(NOT_SUPPORTED, "Operation is not supported")
        if on:
            self.subscribed.add(characteristic.uuid)
        else:
            self.subscribed.discard(characteristic.uuid)
        await self._tree.change(path, CHARACTERISTIC, {"Notifying": Variant("b", on)})
        return "", []

    async def read_value(self, path: str) -> Reply:
        """GattCharacteristic1.ReadValue; like BlueZ it shows the value as a change of the property too."""
        self._check("ReadValue")
        characteristic = self._characteristics[path]
        if "read" not in characteristic.flags:
            raise DBusError("org.bluez.Error.NotPermitted", "Read not permitted")
        value = self._peripheral.read(characteristic.uuid)
        await self._tree.change(path, CHARACTERISTIC, {"Value": Variant("ay", value)})
        return "ay", [value]

    async def write_value(self, path: str, data: bytes) -> Reply:
        """GattCharacteristic1.WriteValue."""
        self._check("WriteValue")
        characteristic = self._characteristics[path]
        if not {"write", "write-without-response"} & set(characteristic.flags):
            raise DBusError("org.bluez.Error.NotPermitted", "Write not permitted")
        self._peripheral.write(characteristic.uuid, data)
        return "", []

    # --- inside -----------------------------------------------------------------------------------

    def _take_refusal(self, member: str) -> Refusal | None:
        """Every call passes here first."""
        self.calls[member] += 1
        refusal = self._refusals.get(member)
        if refusal is None or refusal.times <= 0:
            return None
        refusal.times -= 1
        return refusal

    def _check(self, member: str) -> None:
        refusal = self._take_refusal(member)
        if refusal is not None:
            raise DBusError(refusal.error, refusal.text)
        if not self.connected:
            raise DBusError(NOT_CONNECTED, "Not Connected")

    async def _advertise(self) -> None:
        if not self.advertising or not self._discovering or self.connected:
            return
        if self.path not in self._tree.objects:
            await self._tree.add(
                self.path, {DEVICE: dict(self._properties) | {"RSSI": Variant("n", self._rssi_dbm)}}
            )
            return
        told = self._tree.objects[self.path][DEVICE].get("RSSI")
        if told is None or abs(told.value - self._rssi_dbm) >= RSSI_STEP_DBM:
            await self._change(RSSI=Variant("n", self._rssi_dbm))

    async def _link_up(self) -> None:
        self.connected = True
        await self._change(Connected=YES)

    async def _resolve(self) -> None:
        for path, interface, properties in _gatt(self.path, self._peripheral.services, self._paths):
            if path not in self._tree.objects:
                await self._tree.add(path, {interface: properties})
        await self._change(ServicesResolved=YES)

    async def _change(self, **properties: Variant) -> None:
        await self._tree.change(self.path, DEVICE, properties)


def _shown(
    address: str, name: str, adapter_path: str, peripheral: Peripheral
) -> dict[str, Variant]:
    """What Device1 shows before anything has happened."""
    return {
        "Address": Variant("s", address),
        "AddressType": Variant("s", "random"),
        "Name": Variant("s", name),
        "Alias": Variant("s", name),
        "Adapter": Variant("o", adapter_path),
        "UUIDs": Variant("as", [service.uuid for service in peripheral.services]),
        "Paired": NO,
        "Bonded": NO,
        "Trusted": NO,
        "Blocked": NO,
        "LegacyPairing": NO,
        "Connected": NO,
        "ServicesResolved": NO,
    }


def _gatt(
    device_path: str, services: tuple[Service, ...], paths_by_uuid: dict[str, str]
) -> list[tuple[str, str, dict[str, Variant]]]:
    """Every GATT object with its interface and properties, services before their characteristics."""
    objects = []
    for service in services:
        paths = [paths_by_uuid[characteristic.uuid] for characteristic in service.characteristics]
        service_path = paths[0].rpartition("/")[0]
        properties = {
            "UUID": Variant("s", service.uuid),
            "Device": Variant("o", device_path),
            "Primary": YES,
        }
        objects.append((service_path, SERVICE, properties))
        for path, characteristic in zip(paths, service.characteristics, strict=True):
            properties = {
                "UUID": Variant("s", characteristic.uuid),
                "Service": Variant("o", service_path),
                "Flags": Variant("as", list(characteristic.flags)),
                "Value": Variant("ay", b""),
                "Notifying": NO,
                "MTU": Variant("q", ATT_MTU_BYTES),
            }
            objects.append((path, CHARACTERISTIC, properties))
    return objects

"""org.freedesktop.NetworkManager and org.freedesktop.ModemManager1, as far as a client that reads them sees.

Numbers are those of their D-Bus documentation: NMDeviceState, NMMetered, NMConnectivityState, MMModemState, and the kind
of a modem's port.
"""

from typing import Self

from dbus_fast import DBusError, Variant

from firmware_sim.bluez.tree import OBJECT_MANAGER, ObjectTree, Reply

NM = "org.freedesktop.NetworkManager"
NM_PATH = "/org/freedesktop/NetworkManager"
NM_DEVICE = f"{NM}.Device"
NM_ACTIVE = f"{NM}.Connection.Active"
MM = "org.freedesktop.ModemManager1"
MM_PATH = "/org/freedesktop/ModemManager1"
MODEM = f"{MM}.Modem"
ACTIVATED, FULL, CONNECTED, NET_PORT, AT_PORT = 100, 4, 11, 2, 3


class VirtualNetwork:
    """Both managers while the block lasts.

    Attributes:
        activations: what was asked to be activated anew: connection, device.
        resets: the paths of modems that were reset.
        refuses: whether polkit says no.
    """

    def __init__(self, bus_address: str) -> None:
        self.activations: list[tuple[str, str]] = []
        self.resets: list[str] = []
        self.refuses = False
        self._interfaces: dict[str, str] = {}
        self.manager = ObjectTree(
            bus_address,
            NM,
            {
                (NM, "GetDeviceByIpIface"): self._device_by_interface,
                (NM, "ActivateConnection"): self._activate,
            },
        )
        self.modems = ObjectTree(bus_address, MM, {(MODEM, "Reset"): self._reset})

    async def __aenter__(self) -> Self:
        """Returns once both names are taken."""
        self.manager.objects[NM_PATH] = {NM: {}}
        self.modems.objects[MM_PATH] = {OBJECT_MANAGER: {}}
        await self.manager.start()
        await self.modems.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Goes as killed processes do."""
        await self.manager.stop()
        await self.modems.stop()

    async def add_device(self, interface: str, metered: int, active: str = "/") -> str:
        """An activated device; `active` is its active connection. Returns its path."""
        path = f"{NM_PATH}/Devices/{len(self._interfaces) + 1}"
        self._interfaces[interface] = path
        properties = {
            "Metered": Variant("u", metered),
            "State": Variant("u", ACTIVATED),
            "Ip4Connectivity": Variant("u", FULL),
            "ActiveConnection": Variant("o", active),
        }
        if active != "/":
            connection = Variant("o", f"{NM_PATH}/Settings/1")
            await self.manager.add(active, {NM_ACTIVE: {"Connection": connection}})
        await self.manager.add(path, {NM_DEVICE: properties})
        return path

    async def change_device(self, interface: str, **changed: int) -> None:
        """Changes numbers of a device, and says so."""
        numbers = {name: Variant("u", value) for name, value in changed.items()}
        await self.manager.change(self._interfaces[interface], NM_DEVICE, numbers)

    async def lose_address(self, interface: str) -> str:
        """As a modem that is not connected: it is there, and no interface is its own. Returns its path."""
        return self._interfaces.pop(interface)

    async def add_modem(self, interface: str, signal_percent: int) -> str:
        """A connected modem with this network port. Returns its path."""
        path = f"{MM_PATH}/Modem/0"
        ports = [["ttyUSB2", AT_PORT], [interface, NET_PORT]]
        properties = {
            "State": Variant("i", CONNECTED),
            "SignalQuality": Variant("(ub)", [signal_percent, True]),
            "Ports": Variant("a(su)", ports),
        }
        await self.modems.add(path, {MODEM: properties})
        return path

    async def _device_by_interface(self, _path: str, body: list[object]) -> Reply:
        path = self._interfaces.get(str(body[0]))
        if path is None:
            raise DBusError(f"{NM}.UnknownDevice", "No device found for the requested iface.")
        return "o", [path]

    async def _activate(self, _path: str, body: list[object]) -> Reply:
        self._ask_polkit()
        connection, device, _specific = body
        self.activations.append((str(connection), str(device)))
        return "o", [f"{NM_PATH}/ActiveConnection/9"]

    async def _reset(self, path: str, _body: list[object]) -> Reply:
        self._ask_polkit()
        self.resets.append(path)
        return "", []

    def _ask_polkit(self) -> None:
        if self.refuses:
            raise DBusError(f"{NM}.PermissionDenied", "Not authorized to control networking.")

"""What NetworkManager and ModemManager say of the links, over D-Bus: read only, but for two steps of the ladder.

Whatever they say is a hint; the hub works without them, without D-Bus, and with another network manager. dbus-fast is
loaded only where a link needs it.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from gateway.config.links import Link, Metered

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

log = logging.getLogger(__name__)

DAEMON = "org.freedesktop.DBus"
NM = "org.freedesktop.NetworkManager"
NM_PATH = "/org/freedesktop/NetworkManager"
NM_DEVICE = f"{NM}.Device"
MM = "org.freedesktop.ModemManager1"
MM_PATH = "/org/freedesktop/ModemManager1"
MODEM = f"{MM}.Modem"
WATCHED = (
    *(
        f"type='signal',sender='{DAEMON}',member='NameOwnerChanged',arg0='{name}'"
        for name in (NM, MM)
    ),
    f"type='signal',sender='{NM}',interface='{NM}',member='DeviceAdded'",
    f"type='signal',sender='{NM}',interface='{NM}',member='DeviceRemoved'",
    f"type='signal',sender='{NM}',member='PropertiesChanged',arg0='{NM_DEVICE}'",
    f"type='signal',sender='{MM}',member='InterfacesAdded'",
    f"type='signal',sender='{MM}',member='InterfacesRemoved'",
    f"type='signal',sender='{MM}',member='PropertiesChanged',arg0='{MODEM}'",
)
CALL_S = 25.0
"""libdbus's own limit."""
RETRY_S = 60.0
"""Until the bus is tried again."""
NET_PORT = 2
"""MMModemPortType: a network interface."""
METERED = {1: Metered.YES, 2: Metered.NO, 3: Metered.YES, 4: Metered.NO}
"""NMMetered: yes, no, and the two guesses, which are to be taken at their word; 0 is unknown."""
DEVICE_STATES = {
    10: "unmanaged", 20: "unavailable", 30: "disconnected", 40: "preparing", 50: "configuring",
    60: "needs authentication", 70: "getting an address", 80: "checking", 90: "waiting for secondaries",
    100: "activated", 110: "deactivating", 120: "failed",
}  # fmt: skip
"""NMDeviceState."""
CONNECTIVITY = {1: "none", 2: "portal", 3: "limited", 4: "full"}
"""NMConnectivityState; 0 is unknown."""
MODEM_STATES = {
    -1: "failed", 0: "unknown", 1: "initialising", 2: "locked", 3: "disabled", 4: "disabling", 5: "enabling",
    6: "enabled", 7: "searching", 8: "registered", 9: "disconnecting", 10: "connecting", 11: "connected",
}  # fmt: skip
"""MMModemState."""


class ManagerError(Exception):
    """It could not be asked, or would not do it."""


class Managers:
    """Both managers. Keeps what they say of each interface; `words` and `metered` answer at once."""

    def __init__(self, links: Sequence[Link], changed: Callable[[], None]) -> None:
        """They are asked only where a link leaves something to them."""
        asks = (li.metered is Metered.AUTO or li.reactivate or li.modem_reset for li in links)
        self._needed = any(asks)
        self._names = tuple(link.interface for link in links if link.interface is not None)
        self._changed = changed
        self._event = asyncio.Event()
        self._bus: MessageBus | None = None
        self._metered: dict[str, Metered] = {}
        self._words: dict[str, dict[str, str]] = {}
        self._devices: dict[str, str] = {}
        """Interface to NetworkManager's path, also of one that has no address just now."""
        self._modems: dict[str, str] = {}

    def metered(self, link: Link) -> Metered:
        """AUTO where NetworkManager does not say."""
        return self._metered.get(link.interface or "", Metered.AUTO)

    def words(self, link: Link) -> Mapping[str, str]:
        """What they say of it, for a person to read."""
        return self._words.get(link.interface or "", {})

    async def run(self) -> None:
        """Listens until cancelled. A bus or a manager that is away says nothing, and is no fault."""
        said = False
        while self._needed:
            try:
                await self._listen()
            except (OSError, EOFError, ManagerError, TimeoutError) as error:
                if not said:
                    log.info("links: no word from the system bus: %s", error)
                said = True
            self._metered, self._words = {}, {}
            self._changed()
            await asyncio.sleep(RETRY_S)

    async def reactivate(self, interface: str) -> None:
        """Asks NetworkManager to activate the interface's connection anew.

        Raises:
            ManagerError: it is not there, does not know the interface, or may not (polkit: network-control).
        """
        device = self._devices.get(interface)
        if device is None:
            raise ManagerError(f"NetworkManager knows no {interface}")
        active = (await self._properties(NM, device, NM_DEVICE)).get("ActiveConnection", "/")
        connection = "/"
        if active != "/":
            found = await self._properties(NM, active, f"{NM}.Connection.Active")
            connection = found.get("Connection", "/")
        body = [connection, device, "/"]
        await self._call(NM, NM_PATH, NM, "ActivateConnection", "ooo", body)

    async def reset_modem(self, interface: str) -> None:
        """Asks ModemManager to reset the interface's modem.

        Raises:
            ManagerError: it is not there, has no such modem, or may not (polkit: Device.Control).
        """
        modem = self._modems.get(interface)
        if modem is None:
            raise ManagerError(f"ModemManager knows no modem of {interface}")
        await self._call(MM, modem, MODEM, "Reset")

    # --- Listening ---------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        from dbus_fast import AuthError, BusType, InvalidAddressError  # noqa: PLC0415 - costs 5 MB
        from dbus_fast.aio import MessageBus  # noqa: PLC0415

        try:
            bus = MessageBus(bus_type=BusType.SYSTEM)
            await bus.connect()
        except (AuthError, InvalidAddressError) as error:
            raise ManagerError(str(error)) from error
        ended = asyncio.ensure_future(bus.wait_for_disconnect())  # type: ignore[no-untyped-call]
        ended.add_done_callback(lambda _: self._event.set())
        try:
            bus.add_message_handler(self._on_signal)
            self._bus = bus
            for rule in WATCHED:
                await self._call(DAEMON, "/org/freedesktop/DBus", DAEMON, "AddMatch", "s", [rule])
            while not ended.done():
                self._event.clear()
                await self._read()
                await self._event.wait()
            raise ManagerError("the bus has gone")
        finally:
            self._bus = None
            ended.cancel()
            bus.disconnect()

    def _on_signal(self, message: "Message") -> None:
        if message.member in {
            "NameOwnerChanged", "DeviceAdded", "DeviceRemoved", "InterfacesAdded", "InterfacesRemoved",
            "PropertiesChanged",
        }:  # fmt: skip
            self._event.set()

    async def _read(self) -> None:
        """All that is wanted, anew: a handful of calls, some times an hour."""
        metered: dict[str, Metered] = {}
        words: dict[str, dict[str, str]] = {name: {} for name in self._names}
        for name in self._names:
            if device := await self._device(name):
                self._devices[name] = device
                found = await self._quietly(NM, device, NM_DEVICE)
                if found.get("Metered") in METERED:
                    metered[name] = METERED[found["Metered"]]
                if found.get("State") in DEVICE_STATES:
                    words[name]["network"] = DEVICE_STATES[found["State"]]
                best = max(found.get("Ip4Connectivity", 0), found.get("Ip6Connectivity", 0))
                if best in CONNECTIVITY:
                    words[name]["connectivity"] = CONNECTIVITY[best]
        for path, modem in (await self._all_modems()).items():
            for name, kind in modem.get("Ports", []):
                if kind == NET_PORT and name in words:
                    self._modems[name] = path
                    words[name]["modem"] = MODEM_STATES.get(modem.get("State", 0), "unknown")
                    words[name]["signal_percent"] = str(modem.get("SignalQuality", (0, False))[0])
        if (metered, words) != (self._metered, self._words):
            self._metered, self._words = metered, words
            self._changed()

    async def _device(self, name: str) -> str | None:
        try:
            reply = await self._call(NM, NM_PATH, NM, "GetDeviceByIpIface", "s", [name])
        except ManagerError:
            return self._devices.get(name)
        return str(reply[0])

    async def _all_modems(self) -> dict[str, dict[str, Any]]:
        try:
            reply = await self._call(MM, MM_PATH, f"{DAEMON}.ObjectManager", "GetManagedObjects")
        except ManagerError:
            return {}
        return {
            path: {name: value.value for name, value in interfaces[MODEM].items()}
            for path, interfaces in reply[0].items()
            if MODEM in interfaces
        }

    async def _quietly(self, name: str, path: str, interface: str) -> dict[str, Any]:
        try:
            return await self._properties(name, path, interface)
        except ManagerError:
            return {}

    async def _properties(self, name: str, path: str, interface: str) -> dict[str, Any]:
        reply = await self._call(name, path, f"{DAEMON}.Properties", "GetAll", "s", [interface])
        return {key: value.value for key, value in reply[0].items()}

    async def _call(
        self, name: str, path: str, interface: str, member: str, signature: str = "", body: Sequence[Any] = ()
    ) -> list[Any]:  # fmt: skip
        from dbus_fast import Message, MessageFlag, MessageType  # noqa: PLC0415

        if self._bus is None:
            raise ManagerError("there is no system bus")
        message = Message(
            destination=name, path=path, interface=interface, member=member, signature=signature,
            body=list(body), flags=MessageFlag.NO_AUTOSTART,
        )  # fmt: skip
        try:
            async with asyncio.timeout(CALL_S):
                reply = await self._bus.call(message)
        except (OSError, EOFError, TimeoutError) as error:
            raise ManagerError(f"{name} {member}: {error!r}") from error
        if reply is None:
            raise ManagerError(f"{name} {member}: no answer")
        if reply.message_type is not MessageType.METHOD_RETURN:
            raise ManagerError(f"{name} {member}: {reply.error_name}: {reply.body}")
        return list(reply.body)

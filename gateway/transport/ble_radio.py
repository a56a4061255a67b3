"""The Bluetooth adapter, shared by all devices: one scan, one connect at a time, and the watch on bluetoothd.

bleak watches the bus and not who owns org.bluez: after bluetoothd was killed it calls a link connected for ever.
So this module asks D-Bus itself, on a connection of its own.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from bleak import BleakAdapter, BleakScanner
from bleak.args.bluez import BlueZAdapterArgs, BlueZScannerArgs
from bleak.backends.device import BLEDevice
from bleak.backends.scanner import AdvertisementData
from dbus_fast import BusType, Message, MessageType
from dbus_fast.aio import MessageBus

from gateway.transport.bluez_errors import STACK_ERRORS, explain

logger = logging.getLogger(__name__)


BLUEZ = "org.bluez"
DEVICE = "org.bluez.Device1"
PROPERTIES = "org.freedesktop.DBus.Properties"
DAEMON = "org.freedesktop.DBus"
WATCHED = (
    f"type='signal',sender='{DAEMON}',member='NameOwnerChanged',arg0='{BLUEZ}'",
    f"type='signal',sender='{BLUEZ}',member='PropertiesChanged',arg0='org.bluez.Adapter1'",
)


@dataclass(frozen=True, slots=True)
class Limits:
    """How long each step may take, in seconds.

    Attributes:
        connect_s: connecting and discovering services; 29 to 35 s have been seen on a small hub.
        call_s: one subscription, read or write; an ATT transaction that takes 30 s has failed (Core 3.F.3.3.3).
        close_s: ending the link, and giving up a connection that is under way.
        scan_s: starting or stopping a scan.
        renew_s: how old a scan may grow that has not found what is wanted.
        pause_s: between two scans; a scan right after another sometimes finds nothing.
    """

    connect_s: float = 30.0
    call_s: float = 30.0
    close_s: float = 5.0
    scan_s: float = 10.0
    renew_s: float = 30.0
    pause_s: float = 1.0


class BleRadio:
    """The adapter, shared by all devices. Scans while somebody waits for a device, and watches bluetoothd.

    BlueZ tells of a device that is received evenly only once in a scan, so a sighting is good for one
    connection only: who asks again for a device that this scan has shown already gets a new scan.
    """

    def __init__(self, adapter: str | None = None, limits: Limits | None = None) -> None:
        """`adapter` is a name such as hci0; None takes the first that is switched on."""
        self.limits = limits or Limits()
        self.connecting = asyncio.Lock()
        self._adapter_args: BlueZAdapterArgs = {} if adapter is None else {"adapter": adapter}
        self._scanner_args: BlueZScannerArgs = {} if adapter is None else {"adapter": adapter}
        self._tasks = asyncio.TaskGroup()
        self._running: list[asyncio.Task[None]] = []
        self._links: set[Callable[[str], None]] = set()
        self._waiters: dict[asyncio.Future[BLEDevice], str] = {}
        self._shown: set[str] | None = None
        self._stirred = asyncio.Event()
        self._bus: MessageBus | None = None
        self._up = asyncio.Event()

    async def __aenter__(self) -> Self:
        """Starts the watch; scans only once somebody waits for a device."""
        await self._tasks.__aenter__()
        self._running = [
            self._tasks.create_task(self._keep_scanning()),
            self._tasks.create_task(self._keep_watching()),
        ]
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stops scan and watch. Transports are closed before."""
        for task in self._running:
            task.cancel()
        await self._tasks.__aexit__(kind, error, trace)

    def attach(self, lost: Callable[[str], None]) -> None:
        """Calls `lost` with the cause should bluetoothd go, until `detach`."""
        self._links.add(lost)

    def detach(self, lost: Callable[[str], None]) -> None:
        """Ends `attach`; harmless without it."""
        self._links.discard(lost)

    @asynccontextmanager
    async def found(self, address: str, services: tuple[str, ...]) -> AsyncIterator[BLEDevice]:
        """Waits, without limit, until the device can be connected to; the scan goes on during the block.

        Raises:
            TransportError: there is nothing to scan with.
        """
        device = await self._left_over(address, services)
        if device is not None:
            yield device
            return
        waiter: asyncio.Future[BLEDevice] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = address
        if self._shown is None or address in self._shown:
            self._stirred.set()
        try:
            yield await waiter
        finally:
            # BlueZ forgets a device it has just found when the scan ends, so the scan outlives the connecting.
            del self._waiters[waiter]
            waiter.cancel()
            if not self._waiters:
                self._stirred.set()

    # --- scan -------------------------------------------------------------------------------------

    async def _keep_scanning(self) -> None:
        while True:
            self._stirred.clear()
            if not self._waiters:
                await self._stirred.wait()
                continue
            try:
                await self._scan()
            except STACK_ERRORS as error:
                logger.warning("scan: %s: %s", type(error).__name__, error)
                for waiter in self._waiters:
                    if not waiter.done():
                        waiter.set_exception(explain(error, "scan"))
            await asyncio.sleep(self.limits.pause_s)

    async def _scan(self) -> None:
        """One scan, until something has changed or it is too old."""
        scanner = BleakScanner(self._on_advertisement, bluez=self._scanner_args)
        self._shown = set()
        try:
            async with asyncio.timeout(self.limits.scan_s):
                await scanner.start()
            with suppress(TimeoutError):
                async with asyncio.timeout(self.limits.renew_s):
                    await self._stirred.wait()
        finally:
            self._shown = None
            with suppress(*STACK_ERRORS):
                async with asyncio.timeout(self.limits.scan_s):
                    await scanner.stop()

    def _on_advertisement(self, device: BLEDevice, advertisement: AdvertisementData) -> None:
        # bleak calls this for every change of the device's properties, also for the end of its connection.
        properties = advertisement.platform_data[1]
        if self._shown is None or properties.get("Connected") or "RSSI" not in properties:
            return
        address = device.address.upper()
        self._shown.add(address)
        for waiter, wanted in self._waiters.items():
            if wanted == address and not waiter.done():
                waiter.set_result(device)

    async def _left_over(self, address: str, services: tuple[str, ...]) -> BLEDevice | None:
        """A link that an earlier process of the hub left open: BlueZ keeps it, and it does not advertise."""
        try:
            async with asyncio.timeout(self.limits.call_s):
                adapter = await BleakAdapter.get(bluez=self._adapter_args)
                for device in await adapter.get_connected_devices(list(services)):
                    if device.address.upper() == address and await self._is_connected(device):
                        return device
        except STACK_ERRORS as error:
            raise explain(error, f"look for {address}") from error
        return None

    async def _is_connected(self, device: BLEDevice) -> bool:
        """Asks BlueZ itself: what bleak remembers may be from before bluetoothd was started again."""
        await self._up.wait()
        if self._bus is None:
            return False
        reply = await self._bus.call(
            Message(
                destination=BLUEZ,
                path=device.details["path"],
                interface=PROPERTIES,
                member="Get",
                signature="ss",
                body=[DEVICE, "Connected"],
            )
        )
        return reply.message_type is MessageType.METHOD_RETURN and bool(reply.body[0].value)

    # --- watch ------------------------------------------------------------------------------------

    async def _keep_watching(self) -> None:
        while True:
            try:
                await self._watch()
            except STACK_ERRORS as error:
                logger.warning("watch on %s: %s: %s", BLUEZ, type(error).__name__, error)
            self._on_gone("the system bus has gone")
            await asyncio.sleep(self.limits.pause_s)

    async def _watch(self) -> None:
        bus = MessageBus(bus_type=BusType.SYSTEM)
        try:
            await bus.connect()
            bus.add_message_handler(self._on_signal)
            for rule in WATCHED:
                await bus.call(
                    Message(
                        destination=DAEMON,
                        path="/org/freedesktop/DBus",
                        interface=DAEMON,
                        member="AddMatch",
                        signature="s",
                        body=[rule],
                    )
                )
            self._bus = bus
            self._up.set()
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]
        finally:
            self._up.clear()
            self._bus = None
            bus.disconnect()

    def _on_signal(self, message: Message) -> None:
        match message.member, message.body:
            case "NameOwnerChanged", [str(name), str(), str(owner)] if name == BLUEZ:
                if not owner:
                    self._on_gone("bluetoothd has gone")
                self._stirred.set()
            case "PropertiesChanged", [str(), dict(changed), list()] if "Powered" in changed:
                self._stirred.set()

    def _on_gone(self, text: str) -> None:
        for lost in tuple(self._links):
            lost(text)
        self._stirred.set()

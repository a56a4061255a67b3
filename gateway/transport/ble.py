"""One device's link over Bluetooth LE, through bleak and BlueZ.

Only what the stack does lives here. What the bytes mean is the drivers', when to try again is the supervisor's.
bleak is used as it is; added is what it leaves out: a limit of time around every call, a bound on what waits, and
an end of the link when bluetoothd goes.
"""

import asyncio
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import TypeVar

from bleak import BleakClient
from bleak.backends.characteristic import BleakGATTCharacteristic
from bleak.backends.device import BLEDevice
from bleak.backends.service import BleakGATTServiceCollection

from gateway.clock import Clock
from gateway.transport.base import Arrival, Reason, TransportError
from gateway.transport.ble_radio import BleRadio, Limits
from gateway.transport.bluez_errors import STACK_ERRORS, explain

__all__ = ["BleRadio", "BleTransport", "Limits"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

ARRIVALS_MAX = 512
"""Arrivals that wait for `receive`; a GATT value has at most 512 bytes, so at most 256 KiB a device."""
ADDRESS = re.compile(r"(?:[0-9A-F]{2}:){5}[0-9A-F]{2}")


class BleTransport:
    """One device's link over Bluetooth LE. Satisfies `gateway.transport.base.Transport`.

    The device is found by its address and by nothing else: another one of the same kind may be somebody else's.
    """

    def __init__(
        self, address: str, services: tuple[str, ...], clock: Clock, radio: BleRadio
    ) -> None:
        """`services`: UUIDs in lower case; the device must have one of them.

        Raises:
            ValueError: this is no Bluetooth address.
        """
        self.address = address.upper()
        if not ADDRESS.fullmatch(self.address):
            raise ValueError(
                f"Bluetooth address: got {address!r}, expected six hex pairs such as 02:00:00:00:AA:01"
            )
        self._services = services
        self._clock = clock
        self._radio = radio
        self._client: BleakClient | None = None
        self._end: TransportError | None = None
        self._limit: asyncio.Timeout | None = None
        self._subscribed: list[str] = []
        self._arrivals: deque[Arrival] = deque()
        self._newest: dict[str, Arrival] = {}
        self._dropped = 0
        self._stirred = asyncio.Event()

    async def open(self) -> None:
        """Waits without limit until the device can be seen, then connects within `Limits.connect_s`.

        May be called again after it has failed and after the link was lost.
        """
        await self.close()
        self._arrivals.clear()
        self._newest.clear()
        self._subscribed.clear()
        self._dropped = 0
        self._end = None
        found = self._radio.found(self.address, self._services)
        async with found as device, self._radio.connecting:
            await self._connect(device)

    async def receive(self) -> Arrival:
        """The next value, notified or read. Of more than ARRIVALS_MAX waiting ones the oldest are dropped."""
        while not self._arrivals:
            if self._end is not None:
                raise TransportError(self._end.reason, self._end.text)
            self._stirred.clear()
            await self._stirred.wait()
        arrival = self._arrivals.popleft()
        if self._dropped:
            arrival = replace(arrival, dropped=self._dropped)
            self._dropped = 0
        return arrival

    async def subscribe(self, characteristic: str) -> None:
        """Turns notifications or indications on."""
        await self._call(
            f"subscribe to {characteristic}",
            lambda client: client.start_notify(characteristic, self._on_value),
        )
        self._subscribed.append(characteristic)

    async def read(self, characteristic: str) -> None:
        """Reads; the value comes out of `receive`."""
        before = self._newest.get(characteristic)
        data = bytes(
            await self._call(
                f"read {characteristic}", lambda client: client.read_gatt_char(characteristic)
            )
        )
        # BlueZ shows the value that was read to subscribers also; then it has arrived already.
        newest = self._newest.get(characteristic)
        if newest is None or newest is before or newest.data != data:
            self._push(characteristic, data)

    async def write(self, characteristic: str, data: bytes) -> None:
        """Writes, with the device's acknowledgement where the characteristic offers it."""

        async def write(client: BleakClient) -> None:
            found = client.services.get_characteristic(characteristic)
            answered = found is None or "write" in found.properties
            await client.write_gatt_char(characteristic, data, response=answered)

        await self._call(f"write {characteristic}", write)

    async def close(self) -> None:
        """Ends the link within twice `Limits.close_s`. Never raises; harmless when it is closed already."""
        client, self._client = self._client, None
        up = self._end is None
        self._radio.detach(self._on_gone)
        self._lose(TransportError(Reason.LOST, f"{self.address}: the hub has closed the link"))
        if client is None:
            return
        # Disconnecting frees bleak's own bus connection, so it is needed also when the link has ended.
        for step in (
            (self._unsubscribe, BleakClient.disconnect) if up else (BleakClient.disconnect,)
        ):
            try:
                async with asyncio.timeout(self._radio.limits.close_s):
                    await step(client)
            except STACK_ERRORS as error:
                logger.debug("close: %s: %s", type(error).__name__, error)

    async def _connect(self, device: BLEDevice) -> None:
        limits = self._radio.limits
        client = BleakClient(device, self._on_disconnected, timeout=limits.connect_s)
        self._radio.attach(self._on_gone)
        try:
            # bleak gives up by itself first, and asks BlueZ to stop connecting; that may hang as well.
            async with asyncio.timeout(limits.connect_s + limits.close_s) as self._limit:
                await client.connect()
            self._client = client
            self._check(client.services)
        except STACK_ERRORS as error:
            end = self._explain(error, f"connect to {self.address}")
            await self.close()
            raise end from error
        except BaseException:
            await self.close()
            raise
        finally:
            self._limit = None

    async def _call(self, doing: str, call: Callable[[BleakClient], Awaitable[T]]) -> T:
        if self._end is not None:
            raise TransportError(self._end.reason, self._end.text)
        if self._client is None:
            raise TransportError(Reason.LOST, f"{doing}: {self.address} is not open")
        try:
            # bleak repeats what BlueZ answers with InProgress every 10 ms, for ever.
            async with asyncio.timeout(self._radio.limits.call_s):
                return await call(self._client)
        except STACK_ERRORS as error:
            raise self._explain(error, doing) from error

    def _explain(self, error: Exception, doing: str) -> TransportError:
        """What ended the link says more than how a call on it failed."""
        return self._end if self._end is not None else explain(error, doing)

    def _check(self, services: BleakGATTServiceCollection) -> None:
        if not any(services.get_service(service) for service in self._services):
            raise TransportError(
                Reason.REFUSED,
                f"{self.address}: got services {', '.join(each.uuid for each in services)}, "
                f"expected one of {', '.join(self._services)}: check device and driver",
            )

    async def _unsubscribe(self, client: BleakClient) -> None:
        for characteristic in self._subscribed:
            # BlueZ may remember it as subscribed, while the device does not.
            await client.stop_notify(characteristic)

    def _push(self, source: str, data: bytes) -> None:
        arrival = Arrival(source, data, self._clock.boottime_ns())
        if len(self._arrivals) == ARRIVALS_MAX:
            self._arrivals.popleft()
            self._dropped += 1
        self._arrivals.append(arrival)
        self._newest[source] = arrival
        self._stirred.set()

    def _lose(self, end: TransportError) -> None:
        """The first cause stays."""
        if self._end is None:
            self._end = end
            self._stirred.set()

    def _on_value(self, characteristic: BleakGATTCharacteristic, data: bytearray) -> None:
        self._push(characteristic.uuid.lower(), bytes(data))

    def _on_disconnected(self, client: BleakClient) -> None:
        # bleak calls this also for each attempt that it repeats by itself.
        if client is self._client:
            self._lose(TransportError(Reason.LOST, f"{self.address}: the link has ended"))

    def _on_gone(self, text: str) -> None:
        self._lose(TransportError(Reason.LOST, text))
        if self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time())

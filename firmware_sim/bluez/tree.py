"""A tree of D-Bus objects: properties, their signals, and a table of methods. Knows nothing of Bluetooth."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress

from dbus_fast import DBusError, Message, MessageType, RequestNameReply, Variant
from dbus_fast.aio import MessageBus

OBJECT_MANAGER = "org.freedesktop.DBus.ObjectManager"
PROPERTIES = "org.freedesktop.DBus.Properties"
DAEMON = "org.freedesktop.DBus"
UNKNOWN_METHOD = "org.freedesktop.DBus.Error.UnknownMethod"
UNKNOWN_OBJECT = "org.freedesktop.DBus.Error.UnknownObject"

YES = Variant("b", value=True)
NO = Variant("b", value=False)

BURST = 32
"""Messages between two barriers. dbus-fast takes a full socket for a dead connection; 193 messages were enough."""

CONNECTION_ERRORS = (EOFError, OSError)

Interfaces = dict[str, dict[str, Variant]]
Reply = tuple[str, list[object]]
"""Signature and body of a method's reply."""
Method = Callable[[str, list[object]], Awaitable[Reply]]
"""Takes object path and body; may raise DBusError."""


class ObjectTree:
    """Owns one bus name. While it has no connection, changes are kept and nobody is told.

    Attributes:
        objects: path to interface to property; what GetManagedObjects answers.
    """

    def __init__(self, address: str, name: str, methods: Mapping[tuple[str, str], Method]) -> None:
        """`methods` maps (interface, member) to what answers it on every path that has the interface."""
        self._address = address
        self._name = name
        self._methods = {
            (OBJECT_MANAGER, "GetManagedObjects"): self._get_managed_objects,
            (PROPERTIES, "Get"): self._get_property,
            (PROPERTIES, "GetAll"): self._get_properties,
            **methods,
        }
        self._bus: MessageBus | None = None
        self._order = asyncio.Lock()
        self._unanswered = 0
        self._calls: set[asyncio.Task[None]] = set()
        self.objects: dict[str, Interfaces] = {}

    async def start(self) -> None:
        """Connects and takes the name.

        Raises:
            RuntimeError: somebody else has the name.
        """
        bus = MessageBus(bus_address=self._address)
        await bus.connect()
        bus.add_message_handler(self._on_message)
        self._bus = bus
        reply = await bus.request_name(self._name)
        if reply is not RequestNameReply.PRIMARY_OWNER:
            raise RuntimeError(f"bus name {self._name}: got {reply.name}, expected PRIMARY_OWNER")

    async def stop(self) -> None:
        """Cuts the connection without a word to anyone, as a killed process does."""
        bus, self._bus = self._bus, None
        if bus is None:
            return
        for call in self._calls:
            call.cancel()
        await asyncio.gather(*self._calls, return_exceptions=True)
        bus.disconnect()
        with suppress(*CONNECTION_ERRORS):
            await bus.wait_for_disconnect()  # type: ignore[no-untyped-call]

    async def add(self, path: str, interfaces: Interfaces) -> None:
        """Adds or replaces an object, and announces it."""
        self.objects[path] = interfaces
        await self._signal("/", OBJECT_MANAGER, "InterfacesAdded", "oa{sa{sv}}", [path, interfaces])

    async def remove(self, path: str) -> None:
        """Removes an object with everything below it, and says so; harmless when it is not there."""
        for inner in sorted(self.objects, reverse=True):
            if inner == path or inner.startswith(f"{path}/"):
                gone = list(self.objects.pop(inner))
                await self._signal("/", OBJECT_MANAGER, "InterfacesRemoved", "oas", [inner, gone])

    async def change(
        self,
        path: str,
        interface: str,
        changed: Mapping[str, Variant],
        invalidated: Sequence[str] = (),
    ) -> None:
        """Changes properties of an object, and announces it; harmless when the object is not there."""
        if path not in self.objects:
            return
        properties = self.objects[path][interface]
        properties.update(changed)
        for name in invalidated:
            properties.pop(name, None)
        body: list[object] = [interface, dict(changed), list(invalidated)]
        await self._signal(path, PROPERTIES, "PropertiesChanged", "sa{sv}as", body)

    async def barrier(self) -> None:
        """Returns when the daemon has taken everything sent so far, and so put it before what follows."""
        async with self._order:
            await self._barrier()

    async def _barrier(self) -> None:
        if self._bus is None:
            return
        self._unanswered = 0
        call = Message(
            destination=DAEMON, path="/org/freedesktop/DBus", interface=DAEMON, member="GetId"
        )
        # A bus that has gone has nobody to tell.
        with suppress(*CONNECTION_ERRORS):
            await self._bus.call(call)

    async def _signal(
        self, path: str, interface: str, member: str, signature: str, body: list[object]
    ) -> None:
        await self._send(Message.new_signal(path, interface, member, signature, body))

    async def _send(self, message: Message) -> None:
        async with self._order:
            if self._bus is None:
                return
            with suppress(*CONNECTION_ERRORS):
                await self._bus.send(message)
            self._unanswered += 1
            if self._unanswered >= BURST:
                await self._barrier()

    def _on_message(self, message: Message) -> bool:
        if message.message_type is not MessageType.METHOD_CALL:
            return False
        task = asyncio.create_task(self._answer(message))
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)
        return True

    async def _answer(self, call: Message) -> None:
        try:
            signature, body = await self._method(call)(call.path or "", call.body)
        except DBusError as error:
            await self._send(Message.new_error(call, error.type, error.text))
        else:
            await self._send(Message.new_method_return(call, signature, body))

    def _method(self, call: Message) -> Method:
        interface, path = call.interface or "", call.path or ""
        method = self._methods.get((interface, call.member or ""))
        if path != "/" and path not in self.objects:
            raise DBusError(UNKNOWN_OBJECT, f"Unknown object '{path}'")
        if method is None or not (
            interface in {OBJECT_MANAGER, PROPERTIES} or interface in self.objects.get(path, {})
        ):
            raise DBusError(UNKNOWN_METHOD, f"no {interface}.{call.member} on {path}")
        return method

    async def _get_managed_objects(self, _path: str, _body: list[object]) -> Reply:
        return "a{oa{sa{sv}}}", [self.objects]

    async def _get_property(self, path: str, body: list[object]) -> Reply:
        interface, name = body
        value = self.objects.get(path, {}).get(str(interface), {}).get(str(name))
        if value is None:
            raise DBusError(f"{DAEMON}.Error.UnknownProperty", f"no {interface}.{name} on {path}")
        return "v", [value]

    async def _get_properties(self, path: str, body: list[object]) -> Reply:
        return "a{sv}", [self.objects.get(path, {}).get(str(body[0]), {})]

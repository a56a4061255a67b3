"""A small MQTT broker, 5 and 3.1.1, that breaks things on purpose, from a seed.

It speaks what hub and receiver need: CONNECT with will and properties, QoS 1 PUBLISH both ways, SUBSCRIBE, PINGREQ,
DISCONNECT, sessions that outlive a connection. Its parsing is its own, from the OASIS text.

Two faults break a broker's word: `forget` acknowledges a PUBLISH and delivers it to nobody, and `crash` restarts
without sessions, queues and retained messages, as a broker does whose state was not on its disk.
"""

import asyncio
import contextlib
import random
import struct
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Self

from gateway.config.profile import Profile, Protocol

CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK, UNSUBACK, PINGREQ, PINGRESP, DISCONNECT = (
    1, 2, 3, 4, 8, 9, 11, 12, 13, 14,
)  # fmt: skip
QUOTA_EXCEEDED = 0x97
PROPERTY_SIZES = {
    0x01: 1,
    0x02: 4,
    0x11: 4,
    0x13: 2,
    0x17: 1,
    0x18: 4,
    0x19: 1,
    0x21: 2,
    0x22: 2,
    0x23: 2,
    0x27: 4,
}


@dataclass
class Faults:
    """How likely each fault is for one PUBLISH of a hub, and the limits announced to it."""

    drop_before: float = 0.0
    drop_after: float = 0.0
    lose_ack: float = 0.0
    refuse: float = 0.0
    late: float = 0.0
    truncate: float = 0.0
    repeat: float = 0.0
    drop_receiver: float = 0.0
    forget: float = 0.0
    crash: float = 0.0
    lose_echo: float = 0.0
    receive_maximum: int | None = None
    maximum_packet: int | None = None


@dataclass
class Message:
    topic: str
    payload: bytes
    retain: bool = False


@dataclass
class Session:
    filters: dict[str, int] = field(default_factory=dict)
    """And the QoS of each."""
    inflight: dict[int, Message] = field(default_factory=dict)
    queue: list[Message] = field(default_factory=list)
    next_id: int = 0
    receive_maximum: int = 65535
    connection: "Connection | None" = None

    def qos(self, topic: str) -> int | None:
        """The best of the subscriptions that it matches."""
        found = (qos for name, qos in self.filters.items() if matches(name, topic))
        return max(found, default=None)


def number(value: int) -> bytes:
    out = bytearray()
    while True:
        value, digit = divmod(value, 128)
        out.append(digit | (128 if value else 0))
        if not value:
            return bytes(out)


class Reader:
    def __init__(self, data: bytes) -> None:
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        assert self.at + count <= len(self.data), "truncated packet from the client"
        self.at += count
        return self.data[self.at - count : self.at]

    def u16(self) -> int:
        return int.from_bytes(self.take(2))

    def block(self) -> bytes:
        return self.take(self.u16())

    def variable(self) -> int:
        value, shift = 0, 0
        while True:
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def properties(self) -> dict[int, int]:
        """All are numbers: what a message means is in its payload, for a broker of any version."""
        inner, numbers = Reader(self.take(self.variable())), {}
        while inner.at < len(inner.data):
            kind = inner.variable()
            assert kind in PROPERTY_SIZES, f"unexpected property 0x{kind:02x}"
            numbers[kind] = int.from_bytes(inner.take(PROPERTY_SIZES[kind]))
        return numbers

    def rest(self) -> bytes:
        return self.take(len(self.data) - self.at)


class FaultBroker:
    """Counts what it saw; `violations` must stay empty."""

    def __init__(self, faults: Faults, seed: int, provider: Profile | None = None) -> None:
        """A provider ends the connection of whoever breaks one of its limits."""
        self.faults = faults
        self.provider = provider or Profile()
        self.rng = random.Random(seed)
        self.sessions: dict[str, Session] = {}
        self.retained: dict[str, Message] = {}
        self.connections = 0
        self.violations: list[str] = []
        self.most_outstanding = 0
        self.most_in_a_second = 0
        self.counts: dict[str, int] = {}
        self.port = 0
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        connection = Connection(self, writer)
        try:
            while True:
                head = (await reader.readexactly(1))[0]
                size, shift = 0, 0
                while True:
                    byte = (await reader.readexactly(1))[0]
                    size |= (byte & 127) << shift
                    shift += 7
                    if byte < 128:
                        break
                await connection.handle(head, Reader(await reader.readexactly(size)), size)
        except (asyncio.IncompleteReadError, ConnectionError, Dropped, asyncio.CancelledError):
            pass
        except AssertionError as error:
            self.violations.append(str(error))
        finally:
            await connection.end()
            self._tasks.discard(task)

    def hit(self, name: str) -> bool:
        """Whether this fault strikes now."""
        if self.rng.random() >= getattr(self.faults, name):
            return False
        self.counts[name] = self.counts.get(name, 0) + 1
        return True

    def route(self, message: Message) -> None:
        if message.retain:
            self.retained[message.topic] = message
        for session in self.sessions.values():
            qos = session.qos(message.topic)
            live = replace(message, retain=False)
            if qos == 1:
                session.queue.append(live)
                if self.hit("repeat"):
                    session.queue.append(live)
                if session.connection is not None:
                    session.connection.pump()
            elif qos == 0 and session.connection is not None and not self.hit("lose_echo"):
                session.connection.deliver(live, None)

    def restart(self) -> None:
        """Loses everything that it had acknowledged, with the connections; nobody's will is published."""
        sessions, self.sessions, self.retained = self.sessions, {}, {}
        for session in sessions.values():
            if session.connection is not None:
                session.connection.will = None
                session.connection.cut()
                session.connection = None

    def kick(self) -> None:
        """Every connection ends now."""
        for session in self.sessions.values():
            if session.connection is not None:
                session.connection.cut()


def matches(topic_filter: str, topic: str) -> bool:
    left, right = topic_filter.split("/"), topic.split("/")
    return len(left) == len(right) and all(a in {"+", b} for a, b in zip(left, right, strict=True))


class Dropped(Exception):  # noqa: N818 - a fault on purpose
    pass


class Connection:
    def __init__(self, broker: FaultBroker, writer: asyncio.StreamWriter) -> None:
        self.broker, self.writer = broker, writer
        self.session: Session | None = None
        self.will: Message | None = None
        self.outstanding: set[int] = set()
        self.receive_maximum: int | None = None
        self.maximum_packet: int | None = None
        self.version = 5
        self.arrived: deque[float] = deque()

    @property
    def is_v5(self) -> bool:
        return self.version == 5

    def send(self, kind: int, body: bytes, flags: int = 0) -> None:
        if not self.writer.is_closing():
            self.writer.write(bytes([kind << 4 | flags]) + number(len(body)) + body)

    def cut(self) -> None:
        self.writer.transport.abort()

    async def end(self) -> None:
        if self.session is not None and self.session.connection is self:
            self.session.connection = None
            if self.will is not None:
                self.broker.route(self.will)
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def handle(self, head: int, packet: Reader, size: int) -> None:
        if self.session is not None and self.session.connection is not self:
            raise Dropped  # what a taken-over connection still had in its buffer
        limit = self.maximum_packet
        whole = 1 + len(number(size)) + size
        assert limit is None or whole <= limit, f"packet of {whole} bytes, limit {limit}"
        match head >> 4:
            case 1:
                self.connect(packet)
            case 3:
                await self.publish(head, packet)
            case 4:
                self.acknowledged(packet.u16())
            case 8:
                self.subscribe(packet)
            case 10:
                self.unsubscribe(packet)
            case 12:
                self.send(PINGRESP, b"")
            case 14:
                if not packet.data or packet.data[0] == 0:
                    self.will = None
                raise Dropped
            case other:
                raise AssertionError(f"unexpected packet type {other}")

    def connect(self, packet: Reader) -> None:
        assert packet.block() == b"MQTT", "no MQTT"
        self.version = packet.take(1)[0]
        assert self.version in {4, 5}, f"version {self.version}"
        flags = packet.take(1)[0]
        packet.u16()
        properties = packet.properties() if self.is_v5 else {}
        client_id = packet.block().decode()
        provider = self.broker.provider
        version = {4: Protocol.V311, 5: Protocol.V5}[self.version]
        assert version in provider.protocols, f"version {version}"
        assert len(client_id) <= provider.client_id_bytes, f"client id {client_id}"
        if flags & 4:
            if self.is_v5:
                packet.properties()
            topic, payload = packet.block().decode(), packet.block()
            self.will = Message(topic, payload, bool(flags & 0x20))
        broker = self.broker
        if flags & 2 or client_id not in broker.sessions:
            present = 0
            session = broker.sessions[client_id] = Session()
        else:
            present, session = 1, broker.sessions[client_id]
            if session.connection is not None:
                session.connection.cut()
        session.connection, self.session = self, session
        session.receive_maximum = properties.get(0x21, 65535)
        session.queue = [*session.inflight.values(), *session.queue]
        session.inflight = {}
        broker.connections += 1
        if not self.is_v5:
            self.send(CONNACK, bytes([present, 0]))
            self.pump()
            return
        limits = b""
        if broker.faults.receive_maximum is not None:
            self.receive_maximum = broker.faults.receive_maximum
            limits += b"\x21" + struct.pack(">H", self.receive_maximum)
        if broker.faults.maximum_packet is not None:
            self.maximum_packet = broker.faults.maximum_packet
            limits += b"\x27" + struct.pack(">I", self.maximum_packet)
        self.send(CONNACK, bytes([present, 0]) + number(len(limits)) + limits)
        self.pump()

    def provide(self, topic: str, size: int) -> None:
        """Keeps the limits of a provider."""
        provider, now = self.broker.provider, asyncio.get_running_loop().time()
        self.arrived.append(now)
        while now - self.arrived[0] >= 1:
            self.arrived.popleft()
        self.broker.most_in_a_second = max(self.broker.most_in_a_second, len(self.arrived))
        most = provider.publishes_per_s
        assert most is None or len(self.arrived) <= most, f"more than {most} in a second"
        assert size <= provider.packet_bytes, f"packet of {size} bytes"
        assert len(topic) <= provider.topic_bytes, f"topic of {len(topic)} bytes"
        assert topic.count("/") <= provider.topic_slashes, f"too many slashes: {topic}"

    def subscribe(self, packet: Reader) -> None:
        assert self.session is not None
        mid = struct.pack(">H", packet.u16())
        if self.is_v5:
            packet.properties()
        granted = b""
        while packet.at < len(packet.data):
            name, qos = packet.block().decode(), packet.take(1)[0] & 3
            self.session.filters[name] = qos
            granted += bytes([qos])
            for message in self.broker.retained.values():
                if matches(name, message.topic) and qos:
                    self.session.queue.append(message)
                elif matches(name, message.topic):
                    self.deliver(message, None)
        self.send(SUBACK, mid + (b"\x00" if self.is_v5 else b"") + granted)
        self.pump()

    def unsubscribe(self, packet: Reader) -> None:
        assert self.session is not None
        mid = struct.pack(">H", packet.u16())
        if self.is_v5:
            packet.properties()
        del self.session.filters[packet.block().decode()]
        self.send(UNSUBACK, mid + (b"\x00\x00" if self.is_v5 else b""))

    async def publish(self, head: int, packet: Reader) -> None:
        assert head & 6 == 2, "expected QoS 1"
        topic, mid = packet.block().decode(), packet.u16()
        self.provide(topic, len(packet.data))
        if self.is_v5:
            packet.properties()
        message = Message(topic, packet.rest(), bool(head & 1))
        broker = self.broker
        assert mid not in self.outstanding, f"packet id {mid} used again"
        self.outstanding.add(mid)
        most = self.broker.provider.unacknowledged
        assert len(self.outstanding) <= most, f"more than {most} unacknowledged"
        limit = self.receive_maximum
        broker.most_outstanding = max(broker.most_outstanding, len(self.outstanding))
        assert limit is None or len(self.outstanding) <= limit, f"Receive Maximum {limit} exceeded"
        answer = struct.pack(">H", mid)
        if broker.hit("drop_before"):
            self.cut()
            raise Dropped
        if broker.hit("refuse"):
            if not self.is_v5:
                self.cut()  # 3.1.1 has no other word for it
                raise Dropped
            self.puback(mid, answer + bytes([QUOTA_EXCEEDED, 0]))
            return
        if not broker.hit("forget"):
            broker.route(message)
        if broker.hit("crash"):
            self.puback(mid, answer)
            broker.restart()
            raise Dropped
        if broker.hit("drop_after"):
            self.cut()
            raise Dropped
        if broker.hit("truncate"):
            self.writer.write(b"\x40\x02" + answer[:1])
            with contextlib.suppress(ConnectionError):
                await self.writer.drain()
            raise Dropped
        if broker.hit("lose_ack"):
            return
        if broker.hit("late"):
            delay = broker.rng.uniform(0, 0.03)
            asyncio.get_running_loop().call_later(delay, self.puback, mid, answer)
            return
        self.puback(mid, answer)

    def puback(self, mid: int, body: bytes) -> None:
        self.outstanding.discard(mid)
        self.send(PUBACK, body)

    def pump(self) -> None:
        """Delivers to this client while its Receive Maximum allows."""
        session = self.session
        if session is None:
            return
        while session.queue and len(session.inflight) < session.receive_maximum:
            message = session.queue.pop(0)
            session.next_id = session.next_id % 65535 + 1
            session.inflight[session.next_id] = message
            self.deliver(message, session.next_id)

    def deliver(self, message: Message, mid: int | None) -> None:
        """At QoS 1 with a packet id, at QoS 0 without one."""
        topic = message.topic.encode()
        body = struct.pack(">H", len(topic)) + topic
        body += b"" if mid is None else struct.pack(">H", mid)
        body += (number(0) if self.is_v5 else b"") + message.payload
        self.send(PUBLISH, body, flags=(0 if mid is None else 2) | message.retain)

    def acknowledged(self, mid: int) -> None:
        assert self.session is not None
        assert self.session.inflight.pop(mid, None) is not None, f"PUBACK {mid} for nothing"
        if self.broker.hit("drop_receiver"):
            self.cut()
            raise Dropped
        self.pump()

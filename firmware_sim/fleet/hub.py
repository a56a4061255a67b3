"""One simulated hub: connects, sends what it has, keeps what has no receipt, and comes back with full jitter."""

import asyncio
import json
import random
import ssl
import time
import uuid
from dataclasses import dataclass
from typing import NamedTuple

from firmware_sim.fleet import packets
from firmware_sim.fleet.lane import PROBE_MOST_S, Lane, probe_due_s
from firmware_sim.fleet.measure import Measures
from firmware_sim.fleet.messages import EPOCH, PER_SECOND, Identity, Moment
from firmware_sim.fleet.packets import Kind, Packet, PacketError, Will

ANSWER_S = 15.0
"""A connection that answers nothing for so long is dead; also the limit of a connection attempt."""
MESSAGE_ENTRIES = {"vitals": 240, "waveform": 60}
"""Most entries in a message, which is then below 96 KiB."""


@dataclass(frozen=True, slots=True)
class Behaviour:
    """How every hub of the fleet behaves; times in seconds.

    Attributes:
        brokers: (host, port) of each node. A hub begins with one of them and takes the next at each attempt.
        level: `packets.MQTT_5` or `packets.MQTT_3_1_1`.
        batch: a message of each stream in this time.
        by_receipt: whether entries are given free by the receiver's receipt, not by the broker's PUBACK.
        window: publishes without a PUBACK, or what the broker allows if that is less.
        ramp: in this time all hubs connect for the first time.
    """

    brokers: tuple[tuple[str, int], ...]
    level: int = packets.MQTT_5
    tls: ssl.SSLContext | None = None
    streams: tuple[str, ...] = ("vitals",)
    batch: float = 1.0
    heartbeat: float = 10.0
    keepalive: int = 30
    by_receipt: bool = False
    window: int = 20
    ramp: float = 5.0
    backoff_first: float = 1.0
    backoff_most: float = 120.0


class Flight(NamedTuple):
    """A publish without its PUBACK. `stream` is empty for a notice."""

    stream: str
    first: int
    sent_s: float


class Link(asyncio.Protocol):
    """One connection: hands packets to its hub, and wakes it."""

    def __init__(self, hub: "SimulatedHub", level: int) -> None:
        self._hub = hub
        self._reader = packets.Reader(level)
        self.transport: asyncio.Transport | None = None
        self.error: str | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """As in asyncio."""
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        """As in asyncio."""
        self._hub.measures.bytes_received += len(data)
        try:
            for packet in self._reader.feed(data):
                self._hub.came(self, packet)
        except PacketError as error:
            self.end(str(error))

    def connection_lost(self, exc: Exception | None) -> None:
        """As in asyncio."""
        self.end("closed" if exc is None else type(exc).__name__)

    def send(self, data: bytes) -> None:
        """Leaves at once, or with what waits."""
        if self.transport is not None and self.error is None:
            self._hub.measures.bytes_sent += len(data)
            self.transport.write(data)

    def end(self, error: str) -> None:
        """It is over; the first reason counts."""
        self.error = self.error or error
        if self.transport is not None:
            self.transport.abort()
        self._hub.wake.set()


class SimulatedHub:
    """`run` is its life. `stop` makes it finish what it has, `is_done` says that it did."""

    def __init__(
        self, identity: Identity, behaviour: Behaviour, measures: Measures, start_s: float
    ) -> None:
        """`start_s`: when the fleet began, by the event loop's clock."""
        self.identity = identity
        self.measures = measures
        self.wake = asyncio.Event()
        self.lanes = {stream: Lane() for stream in behaviour.streams}
        self.reconnects = 0
        self._behaviour = behaviour
        self._rng = random.Random(f"{identity.seed}/{identity.number}")
        self._boot_id = str(uuid.UUID(int=self._rng.getrandbits(128)))
        self._fleet_start_s = start_s
        self._phase_s = self._rng.random() * behaviour.batch
        self._start_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._start_s = 0.0
        self._node = identity.number
        self._flights: dict[int, Flight] = {}
        self._next_id = 1
        self._window = behaviour.window
        self._joined = False
        self._stopping = False

    @property
    def is_done(self) -> bool:
        """Nothing is left to deliver."""
        return all(lane.mark.released >= lane.mark.high_water for lane in self.lanes.values())

    def stop(self) -> None:
        """Produces nothing more."""
        self._produce()
        self._stopping = True
        self.wake.set()

    async def run(self) -> None:
        """Until it is stopped and done, or cancelled."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._rng.random() * self._behaviour.ramp)
        self._start_s, failures = loop.time(), 0
        self._start_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        while True:
            began_s = loop.time()
            reason = await self._connection()
            if reason is None:
                return
            self.measures.lost[reason] += 1
            # One that held has earned a short wait again, but none comes back without any.
            held = loop.time() - began_s > self._behaviour.backoff_most
            failures = 1 if held else failures + 1
            ceiling = self._behaviour.backoff_first * 2.0 ** min(failures - 1, 16)
            await asyncio.sleep(self._rng.uniform(0.0, min(ceiling, self._behaviour.backoff_most)))

    # --- One connection --------------------------------------------------------------------------------

    async def _connection(self) -> str | None:
        """Why it ended; None when everything is delivered."""
        loop = asyncio.get_running_loop()
        host, port = self._behaviour.brokers[self._node % len(self._behaviour.brokers)]
        self._node += 1
        self._joined = False
        self._flights.clear()
        link = Link(self, self._behaviour.level)
        began_s = loop.time()
        self.measures.tries[int(began_s - self._fleet_start_s)] += 1
        try:
            async with asyncio.timeout(ANSWER_S):
                await loop.create_connection(lambda: link, host, port, ssl=self._behaviour.tls)
                self._hello(link)
                while not self._joined and link.error is None:
                    self.wake.clear()
                    await self.wake.wait()
        except (OSError, TimeoutError) as error:
            link.end(type(error).__name__)
            return type(error).__name__
        if link.error is not None:
            return link.error
        self.measures.connack.add(loop.time() - began_s)
        self.measures.connects[int(loop.time() - self._fleet_start_s)] += 1
        self.measures.connected += 1
        try:
            return await self._deliver(link)
        finally:
            self.measures.connected -= 1
            link.end("ended")

    def _hello(self, link: Link) -> None:
        behaviour, identity = self._behaviour, self.identity
        will = Will(identity.topic("status"), identity.status(online=False))
        link.send(packets.connect(behaviour.level, identity.id, behaviour.keepalive, will))

    async def _deliver(self, link: Link) -> str | None:
        loop = asyncio.get_running_loop()
        for lane in self.lanes.values():
            lane.connected()
        self._notice(link, "status", self.identity.status(online=True), retain=True)
        heartbeat_s = batch_s = loop.time()
        while link.error is None:
            self.wake.clear()
            now_s = loop.time()
            if not self._stopping and now_s >= batch_s:
                self._produce()
                batch_s = self._next_batch_s(now_s)
            if now_s >= heartbeat_s:
                self._notice(link, "heartbeat", self._heartbeat())
                link.send(packets.PINGREQ)
                heartbeat_s = now_s + self._behaviour.heartbeat
            self._fill(link)
            if self._stopping and self.is_done and not self._flights:
                await self._farewell(link)
                return None
            oldest_s = min((flight.sent_s for flight in self._flights.values()), default=now_s)
            if now_s - oldest_s > ANSWER_S:
                return "no PUBACK"
            self._probe(link, now_s)
            until_s = min(heartbeat_s, oldest_s + ANSWER_S, probe_due_s(self.lanes.values(), now_s))
            if not self._stopping:
                until_s = min(until_s, batch_s)
            await self._rest(max(0.001, until_s - now_s))
        return link.error

    def _next_batch_s(self, now_s: float) -> float:
        """The hubs' seconds do not begin together."""
        batch = self._behaviour.batch
        return ((now_s - self._phase_s) // batch + 1) * batch + self._phase_s

    async def _rest(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self.wake.wait()
        except TimeoutError:
            return

    def _produce(self) -> None:
        """What the devices gave since the start, in whole seconds."""
        if self._start_s and not self._stopping:
            elapsed = int(asyncio.get_running_loop().time() - self._start_s)
            for stream, lane in self.lanes.items():
                lane.mark.high_water = elapsed * PER_SECOND[stream]

    def _fill(self, link: Link) -> None:
        for stream, lane in self.lanes.items():
            while lane.sent < lane.mark.high_water and len(self._flights) < self._window:
                last = min(lane.mark.high_water, lane.sent + MESSAGE_ENTRIES[stream])
                self._batch(link, stream, range(lane.sent + 1, last + 1))
                lane.sent = last

    def _batch(self, link: Link, stream: str, span: range, *, is_probe: bool = False) -> None:
        high_water = self.lanes[stream].mark.high_water
        payload = self.identity.batch(
            self._boot_id, _now(), self._start_ns, stream, span, high_water
        )
        # The answer to a probe moves no mark.
        flight = Flight("" if is_probe else stream, span.start, _monotonic())
        self._publish(link, stream, payload, flight)
        self.measures.entries_sent += len(span)

    def _probe(self, link: Link, now_s: float) -> None:
        """Asks the receiver, as the real hub does: docs/messages.md, Receipt."""
        for stream, lane in self.lanes.items():
            if not self._behaviour.by_receipt or lane.acknowledged <= lane.mark.released:
                lane.since_s = None
            elif lane.since_s is None:
                lane.since_s = now_s
            elif now_s - lane.since_s >= lane.patience_s and len(self._flights) < self._window:
                first = lane.mark.released + 1
                lane.probe = first, lane.acknowledged
                lane.since_s, lane.patience_s = now_s, min(2 * lane.patience_s, PROBE_MOST_S)
                self.measures.probes += 1
                self._batch(link, stream, range(first, first + 1), is_probe=True)

    def _notice(self, link: Link, name: str, payload: bytes, *, retain: bool = False) -> None:
        self._publish(link, name, payload, Flight("", 0, _monotonic()), retain=retain)

    def _publish(
        self, link: Link, name: str, payload: bytes, flight: Flight, *, retain: bool = False
    ) -> None:
        while self._next_id in self._flights or not self._next_id:
            self._next_id = (self._next_id + 1) & 0xFFFF
        packet_id, self._next_id = self._next_id, (self._next_id + 1) & 0xFFFF
        self._flights[packet_id] = flight
        self.measures.publishes += 1
        topic = self.identity.topic(name)
        link.send(packets.publish(self._behaviour.level, packet_id, topic, payload, retain=retain))

    def _heartbeat(self) -> bytes:
        marks = {stream: lane.mark for stream, lane in self.lanes.items()}
        return self.identity.heartbeat(self._boot_id, _now(), marks)

    async def _farewell(self, link: Link) -> None:
        self._notice(link, "heartbeat", self._heartbeat())
        self._notice(link, "status", self.identity.status(online=False), retain=True)
        end_s = _monotonic() + ANSWER_S
        while self._flights and link.error is None and _monotonic() < end_s:
            self.wake.clear()
            await self._rest(ANSWER_S)
        link.send(packets.DISCONNECT)
        if link.transport is not None:
            link.transport.close()

    # --- What the broker says ----------------------------------------------------------------------------

    def came(self, link: Link, packet: Packet) -> None:
        """A packet of this connection."""
        match packet.kind:
            case Kind.CONNACK:
                self._window = min(self._behaviour.window, packet.receive_maximum)
                if packet.code:
                    link.end(f"CONNACK {packet.code}")
                elif self._behaviour.by_receipt:
                    topic_filter = self.identity.topic("receipt/+")
                    # Its number is none that a publish has: there is no publish yet.
                    link.send(packets.subscribe(self._behaviour.level, 1, topic_filter))
                else:
                    self._joined = True
            case Kind.SUBACK:
                self._joined = not packet.code
                if packet.code:
                    link.end(f"SUBACK {packet.code}")
            case Kind.PUBACK:
                self._answered(packet)
            case Kind.PUBLISH:
                if packet.packet_id:
                    link.send(packets.puback(packet.packet_id))
                self._receipt(packet)
            case Kind.DISCONNECT:
                link.end(f"DISCONNECT {packet.code}")
            case _:
                return
        self.wake.set()

    def _answered(self, packet: Packet) -> None:
        flight = self._flights.pop(packet.packet_id, None)
        if flight is None:
            return
        self.measures.puback.add(_monotonic() - flight.sent_s)
        if packet.code >= packets.FAILED:
            self.measures.refused += 1
        if not flight.stream:
            return
        lane = self.lanes[flight.stream]
        if packet.code >= packets.FAILED:
            lane.sent = min(lane.sent, flight.first - 1)
        open_from = [f.first for f in self._flights.values() if f.stream == flight.stream]
        lane.acknowledged = min([*open_from, lane.sent + 1]) - 1
        if not self._behaviour.by_receipt:
            lane.mark.released = lane.acknowledged

    def _receipt(self, packet: Packet) -> None:
        """Taken on trust: what a hub must check of it is the real hub's affair."""
        receipt = json.loads(packet.payload)
        if receipt["epoch"] != EPOCH:
            return
        self.measures.receipts += 1
        for stream, held in receipt["streams"].items():
            if stream in self.lanes:
                holes = [hole["first"] - 1 for hole in held["holes"]]
                self.lanes[stream].received(min([held["high"], *holes]), _monotonic())


def _now() -> Moment:
    return Moment(time.clock_gettime_ns(time.CLOCK_BOOTTIME), time.time_ns())


def _monotonic() -> float:
    return asyncio.get_running_loop().time()

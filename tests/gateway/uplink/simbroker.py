"""A broker without sockets, in made time: the same breakages as on a real wire, message by message, from a seed.

It knows sessions, Receive Maximum both ways, retained messages and wills. What a real socket adds (bytes, packets,
threads) is the part of the fault broker and of mosquitto. `Weather` is drawn anew for every connection.
"""

import asyncio
import random
from collections import deque
from dataclasses import dataclass, field

from gateway.uplink.signature import signed
from gateway.uplink.wire import (
    Incoming,
    Limits,
    Listener,
    Outgoing,
    Reason,
    Session,
    UplinkError,
    WireFactory,
)

CONNECT_LIMIT_S = 15.0


@dataclass
class Weather:
    """How likely each breakage is for one message of a hub, and what the way is like."""

    drop_before: float = 0.0
    drop_after: float = 0.0
    lose_ack: float = 0.0
    refuse: float = 0.0
    repeat: float = 0.0
    drop_receiver: float = 0.0
    forget: float = 0.0
    crash: float = 0.0
    silence: float = 0.0
    """From here on nothing passes, for hours, and nobody is told."""
    no_connection: float = 0.0
    """For a connection: refused, or no answer."""
    one_way_s: float = 0.02
    jitter_s: float = 0.0
    receive_maximum: int = 65_535
    maximum_packet_bytes: int = 268_435_455


@dataclass
class Subscriber:
    """A session: what it subscribed, what waits for it, what it was given and has not acknowledged."""

    filter: str | None = None
    queue: deque[Outgoing] = field(default_factory=deque)
    given: dict[int, Outgoing] = field(default_factory=dict)
    next_id: int = 0
    receive_maximum: int = 65_535
    wire: "SimWire | None" = None


class SimBroker:
    """Counts what it did; `violations` must stay empty."""

    def __init__(self, seed: int, weather: Weather) -> None:
        self.rng = random.Random(seed)
        self.weather = weather
        self.sessions: dict[str, Subscriber] = {}
        self.retained: dict[str, Outgoing] = {}
        self.silent_until_s = 0.0
        self.connections = 0
        self.counts: dict[str, int] = {}
        self.violations: list[str] = []
        self.taken: list[tuple[float, Outgoing]] = []
        """What reached it, when; for those who look at the order. Its bound is the story."""

    def hit(self, name: str) -> bool:
        """Whether this breakage strikes now."""
        chance: float = getattr(self.weather, name)
        struck = self.rng.random() < chance
        if struck:
            self.counts[name] = self.counts.get(name, 0) + 1
        return struck

    def way_s(self) -> float:
        return self.weather.one_way_s + self.rng.uniform(0.0, self.weather.jitter_s)

    @property
    def is_silent(self) -> bool:
        return asyncio.get_running_loop().time() < self.silent_until_s

    def fall_silent(self) -> None:
        hours = self.rng.uniform(0.01, 5.0)
        self.silent_until_s = asyncio.get_running_loop().time() + hours * 3600

    async def connect(self, session: Session, listener: Listener) -> "SimWire":
        if self.is_silent:
            await asyncio.sleep(CONNECT_LIMIT_S)
            raise UplinkError(Reason.TIMEOUT, "got no CONNACK")
        await asyncio.sleep(2 * self.way_s())
        if self.hit("no_connection"):
            raise UplinkError(Reason.REFUSED, "not now")
        self.connections += 1
        return SimWire(self, session, listener)

    def wires(self, session: Session) -> WireFactory:
        """For a hub: a clean session each time."""

        async def connect(listener: Listener, will: Outgoing) -> SimWire:
            fresh = Session(session.client_id, session.sign, will, session.subscribe)
            return await self.connect(fresh, listener)

        return connect

    def route(self, message: Outgoing) -> None:
        self.taken.append((asyncio.get_running_loop().time(), message))
        if message.retain:
            self.retained[message.topic] = message
        for session in self.sessions.values():
            if session.filter is not None and matches(session.filter, message.topic):
                session.queue.append(message)
                if self.hit("repeat"):
                    session.queue.append(message)
                if session.wire is not None:
                    session.wire.pump()

    def restart(self) -> None:
        """Loses all that it had acknowledged, and every connection; nobody's will is published."""
        sessions, self.sessions, self.retained = self.sessions, {}, {}
        for session in sessions.values():
            if session.wire is not None:
                session.wire.will = None
                session.wire.end(UplinkError(Reason.LOST, "the broker restarted"))

    def kick(self) -> None:
        """Every connection ends now, and the silence too."""
        self.silent_until_s = 0.0
        for session in list(self.sessions.values()):
            if session.wire is not None:
                session.wire.end(UplinkError(Reason.LOST, "kicked"))


def matches(topic_filter: str, topic: str) -> bool:
    left, right = topic_filter.split("/"), topic.split("/")
    return len(left) == len(right) and all(a in {"+", b} for a, b in zip(left, right, strict=True))


class SimWire:
    """One connection. Everything that it says takes the time of the way."""

    def __init__(self, broker: SimBroker, session: Session, listener: Listener) -> None:
        self.broker, self._session, self._listener = broker, session, listener
        self._loop = asyncio.get_running_loop()
        self.limits = Limits(broker.weather.receive_maximum, broker.weather.maximum_packet_bytes)
        self.will = session.will and self._signed(session.will)
        self._open = True
        self._next_id = 0
        self._outstanding: set[int] = set()
        self._last_up_s = self._last_down_s = 0.0
        clean = session.expiry_s == 0
        kept = None if clean else broker.sessions.get(session.client_id)
        former = broker.sessions.get(session.client_id)
        if former is not None and former.wire is not None:
            former.wire.end(UplinkError(Reason.LOST, "taken over"))
        self._state = broker.sessions[session.client_id] = kept or Subscriber()
        self._state.wire = self
        self._state.receive_maximum = session.receive_maximum
        self._state.queue.extendleft(reversed(self._state.given.values()))
        self._state.given.clear()
        for name in session.subscribe:
            self._state.filter = name
            found = broker.retained.values()
            self._state.queue.extend(m for m in found if matches(name, m.topic))
        self.pump()

    # --- The client's side -------------------------------------------------------------------------------

    def publish(self, message: Outgoing) -> int:
        if not self._open:
            raise UplinkError(Reason.LOST, "the connection is gone")
        self._next_id = self._next_id % 65_535 + 1
        message_id = self._next_id
        if message_id in self._outstanding:
            self.broker.violations.append(f"packet id {message_id} used again")
        self._outstanding.add(message_id)
        most = self.limits.receive_maximum
        if len(self._outstanding) > most:
            self.broker.violations.append(f"{len(self._outstanding)} outstanding, limit {most}")
        sent = self._signed(message)
        if len(sent.topic) + len(sent.payload) + 16 > self.limits.maximum_packet_bytes:
            self.broker.violations.append(f"packet of {len(sent.payload)} bytes")
        self._up(self._published, message_id, sent)
        return message_id

    def acknowledge(self, message_id: int) -> None:
        if message_id:
            self._up(self._acknowledged, message_id)

    async def close(self) -> None:
        self._up(self._closed)
        await asyncio.sleep(2 * self.broker.way_s())
        self.abort()

    def abort(self) -> None:
        self._open = False
        self._leave()

    def _signed(self, message: Outgoing) -> Outgoing:
        sign = self._session.sign
        payload = message.payload if sign is None else signed(message.topic, message.payload, sign)
        return Outgoing(message.topic, payload, message.retain)

    # --- The way, in order like TCP ------------------------------------------------------------------------

    def _up(self, call: object, *arguments: object) -> None:
        if not self.broker.is_silent:
            at = self._last_up_s = max(self._last_up_s, self._loop.time() + self.broker.way_s())
            self._loop.call_at(at, self._if_open, call, *arguments)

    def _down(self, call: object, *arguments: object) -> None:
        if not self.broker.is_silent:
            at = max(self._last_down_s, self._loop.time() + self.broker.way_s())
            self._last_down_s = at
            self._loop.call_at(at, self._if_open, call, *arguments)

    def _if_open(self, call: object, *arguments: object) -> None:
        if self._open and not self.broker.is_silent:
            assert callable(call)
            call(*arguments)

    def end(self, error: UplinkError) -> None:
        """The broker's side of it is gone; the client hears of it."""
        if self._open:
            self._open = False
            self._leave()
            self._loop.call_later(self.broker.way_s(), self._listener.lost, error)

    def _leave(self) -> None:
        if self._state.wire is self:
            self._state.wire = None
            if self.will is not None:
                self.broker.route(self.will)

    # --- The broker's side ---------------------------------------------------------------------------------

    def _published(self, message_id: int, message: Outgoing) -> None:
        broker, lost = self.broker, UplinkError(Reason.LOST, "dropped")
        if broker.hit("silence"):
            broker.fall_silent()
        elif broker.hit("drop_before"):
            self.end(lost)
        elif broker.hit("refuse"):
            self._answer(message_id, "0x97 Quota exceeded")
        else:
            if not broker.hit("forget"):
                broker.route(message)
            if broker.hit("crash"):
                self._answer(message_id, None)
                self._loop.call_later(self.broker.way_s() * 2, broker.restart)
            elif broker.hit("drop_after"):
                self.end(lost)
            elif not broker.hit("lose_ack"):
                self._answer(message_id, None)

    def _answer(self, message_id: int, refusal: str | None) -> None:
        self._down(self._answered, message_id, refusal)

    def _answered(self, message_id: int, refusal: str | None) -> None:
        self._outstanding.discard(message_id)
        self._listener.answered(message_id, refusal)

    def pump(self) -> None:
        state = self._state
        while state.queue and len(state.given) < state.receive_maximum:
            message = state.queue.popleft()
            state.next_id = state.next_id % 65_535 + 1
            state.given[state.next_id] = message
            came = Incoming(state.next_id, message.topic, message.payload, message.retain)
            self._down(self._listener.arrived, came)

    def _acknowledged(self, message_id: int) -> None:
        if self._state.given.pop(message_id, None) is None:
            self.broker.violations.append(f"PUBACK {message_id} for nothing")
        if self.broker.hit("drop_receiver"):
            self.end(UplinkError(Reason.LOST, "dropped"))
        else:
            self.pump()

    def _closed(self) -> None:
        self.will = None

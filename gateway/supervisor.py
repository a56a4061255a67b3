"""The life of one device as a state table, and the one place where a driver's fault is caught.

A device that is absent, refuses or goes away is an expected state. Each time without data of a device that measures
all the time becomes a gap with its span.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum

from drivers.contract import Resume
from drivers.model import Event, EventKind, Observation, Raw, Record
from gateway.clock import Clock
from gateway.config.device import Device
from gateway.link import Link, LinkCounters, Sink
from gateway.transport.base import Reason, Transport, TransportError

log = logging.getLogger(__name__)


class State(StrEnum):
    """Where a device is in its life."""

    ABSENT = "absent"
    CONNECTING = "connecting"
    CONFIGURING = "configuring"
    STREAMING = "streaming"
    CLOSING = "closing"
    BACKING_OFF = "backing_off"


class Trigger(StrEnum):
    """What moves a device from one state to the next."""

    TRY = "try"
    NOT_FOUND = "not_found"
    FAILED = "failed"
    OPENED = "opened"
    ARRIVED = "arrived"
    ENDED = "ended"
    CLOSED = "closed"


TRANSITIONS: dict[tuple[State, Trigger], State] = {
    (State.ABSENT, Trigger.TRY): State.CONNECTING,
    (State.BACKING_OFF, Trigger.TRY): State.CONNECTING,
    (State.CONNECTING, Trigger.NOT_FOUND): State.ABSENT,
    (State.CONNECTING, Trigger.FAILED): State.BACKING_OFF,
    (State.CONNECTING, Trigger.OPENED): State.CONFIGURING,
    (State.CONFIGURING, Trigger.ARRIVED): State.STREAMING,
    (State.CONFIGURING, Trigger.ENDED): State.CLOSING,
    (State.STREAMING, Trigger.ARRIVED): State.STREAMING,
    (State.STREAMING, Trigger.ENDED): State.CLOSING,
    (State.CLOSING, Trigger.CLOSED): State.BACKING_OFF,
}
"""Every transition there is; any other is a fault of ours."""

BACK_OFF_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
"""Longer after each failure; from the start again once the device has streamed."""
OPEN_S = 90.0
"""How long a device is waited for before it is called absent. The search goes on after a pause."""
ABSENT_S = 2.0
"""How soon a port that was not there is looked for again: a cable is plugged in by hand."""


@dataclass(frozen=True, slots=True)
class DeviceStatus:
    """What `wardlink status` shows of a device."""

    id: str
    driver: str
    state: State
    reason: str
    since_ns: int
    last_data_ns: int | None
    connects: int
    counters: LinkCounters


class Supervisor:
    """Keeps one device connected as long as it can be."""

    def __init__(
        self,
        device: Device,
        transport: Callable[[], Transport],
        sink: Sink,
        clock: Clock,
        rng: random.Random,
        *,
        last_ns: int | None,
        before: str,
        silent_since_ns: int | None = None,
    ) -> None:
        """Takes what the journal knows.

        Args:
            device: its row of the configuration.
            transport: makes a new, closed transport for each attempt.
            sink: where records go.
            clock: for times of events.
            rng: spreads retries.
            last_ns: up to when the journal holds data of this device in this boot; None when it holds none.
            before: why there was no data before this process: the reason of a gap that began there.
            silent_since_ns: where that gap began at the earliest, when the journal cannot say what it holds.
        """
        self._device = device
        self._transport = transport
        self._sink = sink
        self._clock = clock
        self._rng = rng
        self._state = State.ABSENT
        self._since_ns = clock.boottime_ns()
        self._reason = ""
        self._connects = 0
        self._failures = 0
        self._counters = LinkCounters()
        self._last_data_ns = last_ns
        self._silent_since_ns = silent_since_ns
        self._missing: str | None = before or None

    def status(self) -> DeviceStatus:
        """How the device is now."""
        return DeviceStatus(
            self._device.id,
            self._device.driver.name,
            self._state,
            self._reason,
            self._since_ns,
            self._last_data_ns,
            self._connects,
            replace(self._counters),
        )

    async def run(self) -> None:
        """Connects, streams, and starts again, until it is cancelled."""
        while True:
            await self._once()
            await asyncio.sleep(self._pause_s())

    async def put(self, record: Record) -> None:
        """Passes a record of this device on; the first observation after a time without any closes its gap."""
        if isinstance(record, Observation):
            if self._missing is not None and self._device.driver.continuous:
                await self._sink.put(self._gap(self._missing, record.determined_at_ns))
            self._missing = None
            self._last_data_ns = max(self._last_data_ns or 0, record.ends_ns)
        await self._sink.put(record)

    async def durable(self) -> None:
        """See `Sink`."""
        await self._sink.durable()

    async def keep(self, raw: Raw) -> int:
        """See `Sink`."""
        return await self._sink.keep(raw)

    def _gap(self, reason: str, until_ns: int) -> Event:
        now_ns, from_ns = self._clock.boottime_ns(), self._last_data_ns
        text = "nothing was taken from the wire"
        if from_ns is None and self._silent_since_ns is not None:
            from_ns = self._silent_since_ns
            text += "; begins somewhat later than stated, the journal of that time is sealed"
        return Event(EventKind.GAP, now_ns, reason, text, from_ns=from_ns, until_ns=until_ns)

    async def _once(self) -> None:
        self._move(Trigger.TRY)
        self._reason = self._reason or "not seen yet"
        transport = self._transport()
        try:
            await self._open(transport)
        except TransportError as error:
            await transport.close()
            self._failures += 1
            if self._reason != error.text:
                log.info("%s: no link: %s", self._device.id, error.text)
            self._reason = error.text
            absent = error.reason is Reason.NOT_FOUND
            self._move(Trigger.NOT_FOUND if absent else Trigger.FAILED)
            return
        self._connects += 1
        self._reason = ""
        self._move(Trigger.OPENED)
        await self._event(EventKind.CONNECTED, "connected", "")
        try:
            await self._converse(transport)
        finally:
            self._move(Trigger.ENDED)
            await transport.close()
            self._move(Trigger.CLOSED)

    async def _open(self, transport: Transport) -> None:
        try:
            async with asyncio.timeout(OPEN_S):
                await transport.open()
        except TimeoutError:
            text = (
                f"not seen for {OPEN_S:g} s; is it switched on, near, and not connected to a phone?"
            )
            raise TransportError(Reason.NOT_FOUND, text) from None

    async def _converse(self, transport: Transport) -> None:
        driver = self._device.driver
        try:
            session = driver.session(self._device.options)
            link = Link(
                driver, session, transport, self, self._clock, self._counters, self._arrived
            )
            reason = await link.run(Resume(self._last_data_ns))
            self._reason = f"closed by the driver: {reason}"
            await self._event(EventKind.LOST, "closed", reason)
        except asyncio.CancelledError:
            await self._event(EventKind.LOST, "hub_stopped", "")
            raise
        except TransportError as error:
            self._failures += 1
            self._reason = error.text
            log.info("%s: link lost: %s", self._device.id, error.text)
            await self._event(EventKind.LOST, error.reason.value, error.text)
        except (
            Exception
        ) as error:  # the supervision edge: a driver's fault ends its own session only
            self._failures += 1
            self._reason = f"fault in driver {driver.name}: {type(error).__name__}"
            log.exception("%s: fault in driver %s", self._device.id, driver.name)
            await self._event(EventKind.FAULT, "driver", f"{type(error).__name__} in {driver.name}")
        self._missing = self._missing or "link_lost"

    def _arrived(self) -> None:
        self._failures = 0
        self._move(Trigger.ARRIVED)

    async def _event(self, kind: EventKind, reason: str, text: str) -> None:
        await self._sink.put(Event(kind, self._clock.boottime_ns(), reason, text))

    def _move(self, trigger: Trigger) -> None:
        state = TRANSITIONS[self._state, trigger]
        if state is not self._state:
            self._since_ns = self._clock.boottime_ns()
            log.debug("%s: %s -> %s", self._device.id, self._state, state)
        self._state = state

    def _pause_s(self) -> float:
        if self._state is State.ABSENT:
            return ABSENT_S
        steps = BACK_OFF_S[min(max(self._failures - 1, 0), len(BACK_OFF_S) - 1)]
        return steps * self._rng.uniform(0.5, 1.0)

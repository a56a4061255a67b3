"""The receiver: from the broker to JSON lines, each entry once, each gap named.

A message is acknowledged only when its lines are in the hands of the kernel, so the broker keeps what a crash of the
receiver leaves undone. The lines are on the disk at most `SYNC_S` later.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Mapping
from pathlib import Path

from gateway.clock import Clock
from gateway.config.broker import Broker
from gateway.journal.readers import Opener
from gateway.receiver.intake import Intake, Report
from gateway.receiver.store import Lines, load, save
from gateway.uplink.paho_wire import PahoWire
from gateway.uplink.patience import NS_PER_S, Backoff, Timing
from gateway.uplink.receipt import Receipt
from gateway.uplink.wire import Incoming, Outgoing, Reason, Session, UplinkError

log = logging.getLogger(__name__)

SYNC_S = 1.0
"""At most one flush to the disk, and one state file, in this time."""
SESSION_EXPIRY_S = 7 * 24 * 3600
"""How long the broker keeps what comes while the receiver is away. The hubs hold far more, but are not asked again."""
RECEIVE_MAXIMUM = 64
INBOX = 1024
"""Receive Maximum bounds QoS 1; this bounds whatever else a broker might send."""


class _Inbox:
    """What one connection delivered and nobody has taken yet."""

    def __init__(self) -> None:
        self._messages: asyncio.Queue[Incoming] = asyncio.Queue(INBOX)
        self._lost = asyncio.Event()
        self._error: UplinkError | None = None
        self.unanswered = 0
        """Receipts on their way to the broker."""

    def answered(self, _message_id: int, refusal: str | None) -> None:
        """The broker has a receipt, or will not have it: the next one says the same and more."""
        self.unanswered -= 1
        if refusal is not None:
            log.warning("receiver: receipt refused: %s", refusal)

    def lost(self, error: UplinkError) -> None:
        """The connection is gone."""
        self._error = self._error or error
        self._lost.set()

    def arrived(self, message: Incoming) -> None:
        """A message came."""
        try:
            self._messages.put_nowait(message)
        except asyncio.QueueFull:
            text = f"got more than {INBOX} messages unacknowledged, expected {RECEIVE_MAXIMUM}"
            self.lost(UplinkError(Reason.PROTOCOL, text))

    async def next(self, limit_s: float | None) -> Incoming | None:
        """The next message; None after `limit_s`. Raises UplinkError when the connection is gone."""
        if self._messages.empty() and not self._lost.is_set():
            get = asyncio.ensure_future(self._messages.get())
            lost = asyncio.ensure_future(self._lost.wait())
            try:
                await asyncio.wait(
                    {get, lost}, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED
                )
                if get.done():
                    return get.result()
            finally:
                get.cancel()
                lost.cancel()
        if self._error is not None:
            raise self._error
        return None if self._messages.empty() else self._messages.get_nowait()


class Receiver:
    """Receives one tenant's hubs. `run` until cancelled; a second one with the same client id would take its place."""

    def __init__(
        self,
        broker: Broker,
        tenant: str,
        keys: Mapping[str, str],
        clock: Clock,
        *,
        lines_file: Path,
        state_file: Path,
        client_id: str,
        rng: random.Random,
        name: str = "",
        sign: Callable[[bytes], bytes] | None = None,
        clinic_key: Opener | None = None,
        grace_s: float = 5.0,
        timing: Timing | None = None,
    ) -> None:
        """Opens the files, so that a fault of theirs is seen before anything is received.

        Args:
            name: the receiver's, on its receipts.
            sign: its signature; without it no receipts are given.
            clinic_key: opens what hubs sealed for it.

        Raises:
            OSError: a file cannot be used.
            PayloadError: the state file is damaged.
            ValueError: a verify key is not one.
        """
        self._broker = broker
        self._clock = clock
        self._tenant = tenant
        self._name = name
        self._session = Session(
            client_id,
            sign,
            subscribe=f"wardlink/1/{tenant}/+/+",
            expiry_s=SESSION_EXPIRY_S,
            receive_maximum=RECEIVE_MAXIMUM,
        )
        self._backoff = Backoff(timing or Timing(), rng)
        self._state_file = state_file
        self._lines = Lines(lines_file)
        self._ledger = load(state_file, self._lines, clock.boottime_ns())
        self._intake = Intake(
            tenant, keys, self._ledger, clock, grace_s=grace_s, clinic_key=clinic_key
        )
        self._saved_ns = self._given_ns = clock.boottime_ns()
        self.is_connected = False

    def report(self) -> Report:
        """Counts of this run, and the gaps as they stand."""
        return self._intake.report()

    async def run(self) -> None:
        """Receives until cancelled; then everything received is on the disk."""
        failures = 0
        try:
            while True:
                try:
                    await self._connection()
                except UplinkError as error:
                    failures = 1 if self.is_connected else failures + 1
                    log.warning("receiver: %s", error)
                self.is_connected = False
                await self._rest(self._backoff.delay_ns(failures) / NS_PER_S)
        finally:
            self.is_connected = False
            self._save()
            self._lines.close()

    async def _connection(self) -> None:
        inbox = _Inbox()
        wire = await PahoWire.connect(self._broker, self._session, inbox)
        self.is_connected = True
        log.info("receiver: connected")
        try:
            while True:
                message = await inbox.next(self._patience_s())
                if message is not None:
                    self._lines.append(self._intake.take(message))
                    wire.acknowledge(message.message_id)
                self._tidy()
                self._give_receipts(wire, inbox)
        finally:
            wire.abort()

    async def _rest(self, seconds: float) -> None:
        """Gaps fall due while there is no connection, too."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while True:
                    self._tidy()
                    await asyncio.sleep(self._patience_s() or seconds)

    def _patience_s(self) -> float | None:
        """Until a gap falls due or the lines must be on the disk; None when neither is waited for."""
        waits = [self._intake.seconds_to_next()]
        if self._lines.unsynced:
            waits.append(self._until_s(self._saved_ns))
        if self._owes:
            waits.append(self._until_s(self._given_ns))
        return min((wait for wait in waits if wait is not None), default=None)

    def _until_s(self, last_ns: int) -> float:
        """Until `SYNC_S` is over."""
        return max(0.0, SYNC_S - (self._clock.boottime_ns() - last_ns) / NS_PER_S)

    @property
    def _owes(self) -> bool:
        return self.is_connected and self._session.sign is not None and self._intake.owes_receipts

    def _tidy(self) -> None:
        self._lines.append(self._intake.due())
        if self._lines.unsynced and not self._until_s(self._saved_ns):
            self._save()

    def _give_receipts(self, wire: PahoWire, inbox: _Inbox) -> None:
        """Only for what is on the disk, since on this word a hub forgets; once in `SYNC_S`, as far as the broker takes them."""
        if self._lines.unsynced or not self._owes or self._until_s(self._given_ns):
            return
        self._given_ns = self._clock.boottime_ns()
        room = wire.limits.receive_maximum - inbox.unanswered
        for receipt in self._intake.receipts(self._name, room):
            topic = Receipt.topic(self._tenant, receipt.hub, self._name)
            wire.publish(Outgoing(topic, receipt.encode()))
            inbox.unanswered += 1

    def _save(self) -> None:
        """Lines first: a state file that knew more than the lines would hide a loss."""
        self._lines.sync()
        save(self._state_file, self._ledger, self._lines.length)
        self._saved_ns = self._clock.boottime_ns()

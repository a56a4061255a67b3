"""The receiver: from the broker to a store, each entry once, each gap named.

A message is acknowledged only when the store has committed it, so the broker keeps what a crash of the receiver leaves
undone. All that waits is taken in one transaction; none is held back to wait for more.
"""

import asyncio
import contextlib
import logging
import random
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from gateway.clock import Clock
from gateway.config.broker import Broker
from gateway.journal.readers import Opener
from gateway.receiver.checks import Checker
from gateway.receiver.intake import Intake, Report
from gateway.receiver.store import Store, StoreError
from gateway.uplink.nodes import nodes_in_turn
from gateway.uplink.paho_wire import PahoWire
from gateway.uplink.patience import NS_PER_S, Backoff, Timing, timing_of
from gateway.uplink.rate import Rate
from gateway.uplink.receipt import Receipt
from gateway.uplink.wire import Incoming, Outgoing, Reason, Session, UplinkError

log = logging.getLogger(__name__)
T = TypeVar("T")

SYNC_S = 1.0
"""At most one flush to the disk, and one receipt to a hub, in this time."""
SESSION_EXPIRY_S = 7 * 24 * 3600
"""How long the broker keeps what comes while the receiver is away. The hubs hold far more, but are not asked again."""
RECEIVE_MAXIMUM = 64
TRANSACTION_BYTES = 4 * 1024 * 1024
"""Of payloads, at most one message more: what a transaction holds in memory."""
GRACE_S = 5.0
STORE_TIMING = Timing(backoff_first=0.1, backoff_most=5.0)
INBOX_BYTES = 256 * 1024 * 1024
"""Of payloads, not stored yet. It bounds what a broker sends against Receive Maximum: mosquitto 2.0.11 sends all that it
has queued, for it takes each PUBACK as leave for twenty messages more. A connection ended for that would get them all anew."""


class _Inbox:
    """What one connection delivered and nobody has taken yet."""

    def __init__(self, clock: Clock) -> None:
        self._messages: asyncio.Queue[Incoming] = asyncio.Queue()
        self._bytes = 0
        self._lost = asyncio.Event()
        self._error: UplinkError | None = None
        self.receipts: deque[Receipt] = deque()
        """Still to be given, one of a hub at most."""
        self.unanswered = 0
        """Receipts on their way to the broker."""
        self._answered = asyncio.Event()
        self.rate = Rate(None)
        self._clock = clock

    def may_publish(self, receive_maximum: int) -> bool:
        """A receipt waits, and the broker takes one more now."""
        now = self._clock.boottime_ns()
        has_room = self.unanswered < receive_maximum and self.rate.has_room(self.unanswered, now)
        return bool(self.receipts) and has_room

    def rate_due_s(self) -> float | None:
        """Until a receipt that waits for its second may go on; None where it waits for an answer, or for nothing."""
        now = self._clock.boottime_ns()
        due_ns = self.rate.due_ns(now) if self.receipts else None
        return None if due_ns is None else (due_ns - now) / NS_PER_S

    def answered(self, _message_id: int, refusal: str | None) -> None:
        """The broker has a receipt, or will not have it: the next one says the same and more."""
        self.unanswered -= 1
        self.rate.answered(self._clock.boottime_ns())
        self._answered.set()
        if refusal is not None:
            log.warning("receiver: receipt refused: %s", refusal)

    def lost(self, error: UplinkError) -> None:
        """The connection is gone."""
        self._error = self._error or error
        self._lost.set()

    def arrived(self, message: Incoming) -> None:
        """A message came."""
        self._bytes += len(message.payload)
        self._messages.put_nowait(message)
        if self._bytes > INBOX_BYTES:
            text = (
                f"got {self._messages.qsize()} messages of {self._bytes} bytes unacknowledged,"
                f" expected at most {RECEIVE_MAXIMUM} messages"
            )
            self.lost(UplinkError(Reason.PROTOCOL, text))

    async def take(self, limit_s: float | None) -> list[Incoming]:
        """All that waits, as far as one transaction takes it; nothing after `limit_s`, or where a receipt can go on.

        Raises UplinkError when lost.
        """
        self._answered.clear()
        if self._messages.empty() and not self._lost.is_set():
            get = asyncio.ensure_future(self._messages.get())
            lost = asyncio.ensure_future(self._lost.wait())
            waits = {get, lost}
            if self.receipts:
                waits.add(asyncio.ensure_future(self._answered.wait()))
            try:
                await asyncio.wait(waits, timeout=limit_s, return_when=asyncio.FIRST_COMPLETED)
                if get.done():
                    return self._more(get.result())
            finally:
                for wait in waits:
                    wait.cancel()
        if self._error is not None:
            raise self._error
        return [] if self._messages.empty() else self._more(self._messages.get_nowait())

    def _more(self, first: Incoming) -> list[Incoming]:
        taken, size = [first], len(first.payload)
        while size < TRANSACTION_BYTES and not self._messages.empty():
            taken.append(self._messages.get_nowait())
            size += len(taken[-1].payload)
        self._bytes -= size
        return taken


class Receiver:
    """Receives one tenant's hubs into a store. `run` until cancelled; a second one with the same client id would take its place."""

    def __init__(
        self,
        broker: Broker,
        tenant: str,
        keys: Mapping[str, str],
        clock: Clock,
        *,
        store: Store,
        client_id: str,
        rng: random.Random,
        name: str = "",
        sign: Callable[[bytes], bytes] | None = None,
        clinic_key: Opener | None = None,
        share: str | None = None,
        grace_s: float = GRACE_S,
        session_expiry_s: int = SESSION_EXPIRY_S,
        timing: Timing | None = None,
    ) -> None:
        """Takes the store, and closes it at the end of `run`.

        Args:
            name: the receiver's, on its receipts.
            sign: its signature; without it no receipts are given.
            clinic_key: opens what hubs sealed for it.
            share: the group that it shares the messages with, each to one of them; their store must be one.
            grace_s: how long a hole may stay before it is named as a gap.
            session_expiry_s: how long the broker keeps what comes while this receiver is away.

        Raises:
            ValueError: a verify key is not one.
        """
        self._nodes = nodes_in_turn(broker, rng)
        self._clock = clock
        self._tenant = tenant
        self._name = name
        topics = f"wardlink/1/{tenant}/+/+"
        self._session = Session(
            client_id,
            sign,
            subscribe=(topics if share is None else f"$share/{share}/{topics}",),
            expiry_s=session_expiry_s,
            receive_maximum=RECEIVE_MAXIMUM,
        )
        self._backoff = Backoff(timing or timing_of(broker), rng)
        self._patience = Backoff(STORE_TIMING, rng)
        self._store = store
        self._intake = Intake(Checker(tenant, keys, clinic_key), store, clock, grace_s=grace_s)
        self._grace_s = grace_s
        self._worker = ThreadPoolExecutor(1, "receiver-store")
        self._saved_ns = self._given_ns = self._looked_ns = self._connected_ns = clock.boottime_ns()
        self.is_connected = False
        self.trouble: str | None = None
        """Why nothing can be stored now. Then nothing is acknowledged, and the broker holds back the rest."""

    def report(self) -> Report:
        """Counts of this run, and the gaps as they stand."""
        return self._intake.report()

    async def run(self) -> None:
        """Receives until cancelled; then everything acknowledged is on the disk."""
        failures = 0
        try:
            await self._greet_store()
            while True:
                try:
                    await self._connection()
                except UplinkError as error:
                    failures = 1 if self.is_connected else failures + 1
                    log.warning("receiver: %s", error)
                self.is_connected = False
                await self._save()
                await asyncio.sleep(self._backoff.delay_ns(failures) / NS_PER_S)
        finally:
            self.is_connected = False
            # What the worker began it ends: its own limits see to that.
            self._worker.shutdown()
            with contextlib.suppress(StoreError):
                self._store.sync()
            self._store.close()

    async def _connection(self) -> None:
        inbox = _Inbox(self._clock)
        wire = await PahoWire.connect(next(self._nodes), self._session, inbox)
        inbox.rate = Rate(wire.limits.publishes_per_s)
        self.is_connected = True
        self._connected_ns = self._clock.boottime_ns()
        log.info("receiver: connected")
        try:
            while True:
                messages = await inbox.take(self._patience_s(inbox))
                if messages:
                    await self._take(messages)
                    for message in messages:
                        wire.acknowledge(message.message_id)
                await self._look()
                await self._save()
                await self._give_receipts(wire, inbox)
        finally:
            wire.abort()

    # --- The store, in a thread of its own: a transaction must not hold up the event loop --------------------

    async def _do(self, call: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call, *arguments)

    async def _greet_store(self) -> None:
        """A fault is told at once. One that may pass keeps nobody from subscribing: from then on the broker keeps all."""
        try:
            await self._do(self._store.totals)
        except StoreError as error:
            self._in_trouble(error)

    async def _take(self, messages: list[Incoming]) -> None:
        """Until the store has them. Meanwhile nothing is acknowledged, so at Receive Maximum the broker waits."""
        failures = 0
        while True:
            try:
                await self._do(self._intake.take, messages)
            except StoreError as error:
                failures += 1
                self._in_trouble(error)
                await asyncio.sleep(self._patience.delay_ns(failures) / NS_PER_S)
            else:
                self._out_of_trouble()
                return

    async def _look(self) -> None:
        """For gaps. Not right after connecting: what fills a hole may have waited at the broker meanwhile."""
        if self._until_s(self._looked_ns, self._look_s) or self._until_s(
            self._connected_ns, self._grace_s
        ):
            return
        self._looked_ns = self._clock.boottime_ns()
        try:
            await self._do(self._intake.name_gaps)
        except StoreError as error:
            self._in_trouble(error)
        else:
            self._out_of_trouble()

    async def _save(self) -> None:
        if not self._store.unsynced or (self.is_connected and self._until_s(self._saved_ns)):
            return
        self._saved_ns = self._clock.boottime_ns()
        try:
            await self._do(self._store.sync)
        except StoreError as error:
            self._in_trouble(error)

    async def _give_receipts(self, wire: PahoWire, inbox: _Inbox) -> None:
        """For all that is on the disk at this moment, since on this word a hub forgets; then as the broker takes them."""
        is_time = self._owes and not self._until_s(self._given_ns)
        if is_time and not inbox.receipts and not self._store.unsynced:
            self._given_ns = self._clock.boottime_ns()
            try:
                inbox.receipts.extend(await self._do(self._intake.receipts, self._name))
            except StoreError as error:
                self._in_trouble(error)
                return
        while inbox.may_publish(wire.limits.receive_maximum):
            receipt = inbox.receipts.popleft()
            topic = Receipt.topic(self._tenant, receipt.hub, self._name)
            wire.publish(Outgoing(topic, receipt.encode()))
            inbox.unanswered += 1

    def _in_trouble(self, error: StoreError) -> None:
        if self.trouble is None:
            log.warning("receiver: nothing is acknowledged until this is over: %s", error)
        self.trouble = str(error)

    def _out_of_trouble(self) -> None:
        if self.trouble is not None:
            log.info("receiver: the store is back")
        self.trouble = None

    # --- When what is due -------------------------------------------------------------------------------

    @property
    def _look_s(self) -> float:
        """Between two looks for gaps: so one is named at most half a grace late."""
        return self._grace_s / 2

    def _patience_s(self, inbox: _Inbox) -> float:
        """Until something is due, if no message comes."""
        waits = [
            max(
                self._until_s(self._looked_ns, self._look_s),
                self._until_s(self._connected_ns, self._grace_s),
            )
        ]
        if self._store.unsynced:
            # Receipts are given only after that.
            waits.append(self._until_s(self._saved_ns))
        elif self._owes and not inbox.receipts:
            waits.append(self._until_s(self._given_ns))
        if (due_s := inbox.rate_due_s()) is not None:
            waits.append(due_s)
        return min(waits)

    def _until_s(self, last_ns: int, period_s: float | None = None) -> float:
        """Until a period is over; `SYNC_S` unless another is named."""
        period_s = SYNC_S if period_s is None else period_s
        return max(0.0, period_s - (self._clock.boottime_ns() - last_ns) / NS_PER_S)

    @property
    def _owes(self) -> bool:
        return self.is_connected and self._session.sign is not None and self._intake.owes_receipts

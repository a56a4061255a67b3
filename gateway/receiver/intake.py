"""From messages to a store: what is new, what is a repeat, what is missing; one transaction for many messages.

A message that fails any check is written as a rejected line with its reason and its bytes: never as data, and never
dropped either, since the broker forgets what is acknowledged.
"""

import base64
import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gateway.clock import Clock
from gateway.journal.entry import Batch
from gateway.receiver.checks import (
    Checked,
    Checker,
    Rejected,
    Rejection,
    Unreadable,
    span_of,
)
from gateway.receiver.clocks import clock_line, learn
from gateway.receiver.ledger import Cause, Gap, Key, Ledger, Taken
from gateway.receiver.state import frame_fields
from gateway.receiver.store import Line, RefusedError, Store, StoreError, Totals
from gateway.timeline import Timeline
from gateway.uplink.fields import Json
from gateway.uplink.notice import Heartbeat, HubStatus, device_fields, mark_fields
from gateway.uplink.payload import Message, entry_fields
from gateway.uplink.receipt import Receipt
from gateway.uplink.spans import Spans
from gateway.uplink.times import iso_time, retimed, time_fields
from gateway.uplink.wire import Incoming

log = logging.getLogger(__name__)

DOUBT = (
    "receiver: %s: %s %d to %d are genuine and in no one history with the entries beside them; look at"
    " that hub's card (docs/messages.md, The chain)"
)


@dataclass(frozen=True, slots=True)
class Report:
    """What came in since the start, from how many hubs; `open_gaps` and `missing` as they stand in the store."""

    entries: int
    repeats: int
    rejected: int
    open_gaps: int
    missing: int
    hubs: int


@dataclass(slots=True)
class _Count:
    entries: int = 0
    repeats: int = 0
    rejected: int = 0

    def add(self, other: "_Count") -> None:
        self.entries += other.entries
        self.repeats += other.repeats
        self.rejected += other.rejected


@dataclass(slots=True)
class _Work:
    """One transaction: nothing of it counts before the store has it."""

    ledger: Ledger
    now_ns: int
    lines: list[Line] = field(default_factory=list)
    count: _Count = field(default_factory=_Count)
    heard: dict[str, str] = field(default_factory=dict)


class Intake:
    """Takes messages into a store. Not for two threads at once."""

    def __init__(self, checker: Checker, store: Store, clock: Clock, *, grace_s: float) -> None:
        """A hole is named as a gap after `grace_s`."""
        self._checker = checker
        self._store = store
        self._clock = clock
        self._grace_ns = int(grace_s * 1e9)
        self._count = _Count()
        self._epochs: dict[str, str] = {}
        self._touched: dict[str, None] = {}
        """In order: hubs that were heard since their last receipt."""
        self._totals = Totals()

    def report(self) -> Report:
        """Counts, as of the last transaction."""
        count, totals = self._count, self._totals
        return Report(
            count.entries,
            count.repeats,
            count.rejected,
            totals.open_gaps,
            totals.missing,
            len(self._epochs),
        )

    def take(self, messages: Iterable[Incoming]) -> list[Line]:
        """Writes what these messages are worth, and returns it. When it returns they may be acknowledged.

        A message that the store refuses for what is in it becomes a rejected line, and the others are written.

        Raises:
            StoreError: the store is away or full. Nothing is written; the same messages may be given again.
        """
        return self._take([self._checker.check(message) for message in messages])

    def _take(self, checked: Sequence[Checked]) -> list[Line]:
        try:
            return self._settle(checked)
        except RefusedError as error:
            if len(checked) > 1:
                return [line for one in checked for line in self._take([one])]
            if isinstance(checked[0].content, Rejected):
                raise StoreError(str(error)) from error
            return self._settle([checked[0].refused(str(error))])

    def _settle(self, checked: Sequence[Checked]) -> list[Line]:
        keys = {key for item in checked for key in item.keys}
        hubs = {item.hub for item in checked if item.hub is not None}
        try:
            work = _Work(*self._store.begin(keys, hubs))
            for item in checked:
                self._one(work, item)
            self._store.commit(work.lines)
        except BaseException:
            self._store.rollback()
            raise
        self._done(work)
        return work.lines

    def _done(self, work: _Work) -> None:
        self._count.add(work.count)
        self._epochs |= work.heard
        self._touched |= dict.fromkeys(work.heard)
        self._totals = self._store.totals()

    def name_gaps(self) -> list[Line]:
        """Names the holes whose grace is over; of several receivers on one store, one does. Raises StoreError."""
        keys = self._store.due(self._grace_ns)
        lines: list[Line] = []
        if keys:
            try:
                ledger, now_ns = self._store.begin(keys, ())
                lines = self._gaps(ledger.due(now_ns, self._grace_ns))
                self._store.commit(lines)
            except BaseException:
                self._store.rollback()
                raise
        self._totals = self._store.totals()
        return lines

    def receipts(self, receiver: str) -> list[Receipt]:
        """What is to be said to the hubs that were heard since, longest waiting first. Raises StoreError.

        Call it when the lines are on the disk: on this word a hub forgets.
        """
        hubs = list(self._touched)
        receipts = [
            Receipt(hub, receiver, self._epochs[hub], self._store.held(hub, self._epochs[hub]))
            for hub in hubs
        ]
        for hub in hubs:
            del self._touched[hub]
        return receipts

    @property
    def owes_receipts(self) -> bool:
        """A hub was heard since the last receipts."""
        return bool(self._touched)

    # --- One message -----------------------------------------------------------------------------------

    def _one(self, work: _Work, item: Checked) -> None:
        match item.content:
            case Rejected(reason, text):
                self._reject(work, item.message, reason, text)
            case Heartbeat() as beat:
                self._heartbeat(work, beat)
            case HubStatus() as status:
                self._status(work, status)
            case parts:
                told: set[str] = set()
                for part in parts:
                    if isinstance(part, Message):
                        self._batch(work, item, part)
                        continue
                    # Its bytes once for a reason, however many of its parts they hold.
                    if part.text not in told:
                        self._reject(work, item.message, Rejection.UNREADABLE, part.text)
                    told.add(part.text)
                    self._unreadable(work, item, part)

    def _unreadable(self, work: _Work, item: Checked, unreadable: Unreadable) -> None:
        taken = self._taken(work, item.keys[0], unreadable)
        # The hub has nothing better: named once, so that it need not be sent for ever.
        lost = [Gap(item.keys[0], span, Cause.UNREADABLE) for span in taken.new]
        work.lines.extend(self._gaps([*lost, *taken.gaps]))

    def _batch(self, work: _Work, item: Checked, message: Message) -> None:
        key, span = item.keys[0], span_of(message.batch)
        fits = message.tags is None or work.ledger.fits(key, span, message.tags)
        taken = self._taken(work, key, message)
        if not fits:
            # Said before its entries: from lines that a crash tore, these are read as come.
            work.lines.extend(self._gaps([Gap(key, span, Cause.CHAIN)]))
            log.warning(DOUBT, key.hub, key.stream, span.first, span.last)
            if taken.repeats:
                # Numbers of another frame: no repeats, though nothing else tells them apart.
                text = f"{taken.repeats} entries under numbers that another frame has"
                self._reject(work, item.message, Rejection.CHAIN, text)
        timeline = self._learn(work, message.batch.hub, message.batch)
        entries = self._entry_lines(message, taken, timeline)
        work.count.entries += len(entries)
        work.lines.extend(entries)
        work.lines.extend(self._gaps(taken.gaps))
        if taken.stale:
            text = f"{taken.stale} entries from below the oldest gap kept"
            self._reject(work, item.message, Rejection.STALE, text)

    def _taken(self, work: _Work, key: Key, content: Message | Unreadable) -> Taken:
        """Which entries of a batch are new."""
        work.heard[key.hub] = key.epoch
        taken = work.ledger.receive(key, span_of(content.batch))
        work.count.repeats += taken.repeats
        return taken

    def _learn(self, work: _Work, hub: str, content: Batch | Heartbeat) -> Timeline:
        """What is known by now of the times of this journal; a line where earlier ones are others by that."""
        timeline = work.ledger.timeline(hub, content.epoch)
        changed = learn(timeline, content)
        if changed is not None:
            work.lines.append({**clock_line(hub, content.epoch, changed), **self._received()})
        return timeline

    def _entry_lines(self, message: Message, taken: Taken, timeline: Timeline) -> list[Line]:
        batch, received = message.batch, self._received()
        lines: list[Line] = []
        for span in taken.new:
            for entry in batch.entries:
                if not span.first <= entry.sequence <= span.last:
                    continue
                record = retimed(entry_fields(entry, batch.clock), timeline, batch)
                device = record.pop("device")
                lines.append(
                    {
                        "type": "entry",
                        "hub": batch.hub,
                        "stream": batch.stream,
                        "epoch": batch.epoch,
                        "sequence": entry.sequence,
                        "device": device,
                        "boot_id": batch.boot_id,
                        **received,
                        "record": record,
                    }
                )
        if lines and message.tags is not None:
            lines[0] = {**lines[0], "frame": frame_fields(span_of(batch), message.tags)}
        return lines

    def _heartbeat(self, work: _Work, beat: Heartbeat) -> None:
        work.heard[beat.hub] = beat.epoch
        if not work.ledger.is_new_beat(beat.hub, beat.boot_id, beat.clock.boottime_ns):
            work.count.repeats += 1
            return
        clock = self._learn(work, beat.hub, beat).boot(beat.boot_id).reading_at(beat.clock)
        gaps: list[Gap] = []
        streams: dict[str, Json] = {}
        for stream, mark in beat.marks.items():
            key = Key(beat.hub, stream, beat.epoch)
            pending = Spans(mark.pending)
            gaps.extend(work.ledger.heartbeat(key, mark.high_water, pending, work.now_ns))
            streams[stream] = mark_fields(mark) | {"received": work.ledger.track(key).high}
        work.lines.append(
            {
                "type": "heartbeat",
                "hub": beat.hub,
                "epoch": beat.epoch,
                "boot_id": beat.boot_id,
                **time_fields(beat.clock.boottime_ns, clock),
                **self._received(),
                "streams": streams,
            }
        )
        work.lines.extend(self._gaps(gaps))

    def _status(self, work: _Work, status: HubStatus) -> None:
        if work.ledger.statuses.get(status.hub) == status:
            work.count.repeats += 1
            return
        work.ledger.statuses[status.hub] = status
        work.lines.append(
            {
                "type": "status",
                "hub": status.hub,
                "state": "online" if status.online else "offline",
                "version": status.version,
                "epoch": status.epoch,
                **device_fields(status.devices),
                **self._received(),
            }
        )

    # --- Lines -----------------------------------------------------------------------------------------

    def _received(self) -> dict[str, Json]:
        reading = self._clock.read()
        return {
            "received_at": iso_time(reading.wall_ns),
            "received_clock": reading.state,
            "received_at_boottime_ns": reading.boottime_ns,
        }

    def _gaps(self, gaps: Iterable[Gap]) -> list[Line]:
        return [
            {
                "type": "gap_closed" if gap.closed else "gap",
                "hub": gap.key.hub,
                "stream": gap.key.stream,
                "epoch": gap.key.epoch,
                "first": gap.span.first,
                "last": gap.span.last,
                "count": len(gap.span),
                "cause": gap.cause,
                **self._received(),
            }
            for gap in gaps
        ]

    def _reject(self, work: _Work, message: Incoming, reason: Rejection, text: str) -> None:
        work.count.rejected += 1
        work.lines.append(
            {
                "type": "rejected",
                "reason": reason,
                "text": text,
                "topic": message.topic,
                "payload": base64.b64encode(message.payload).decode("ascii"),
                **self._received(),
            }
        )

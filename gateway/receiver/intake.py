"""From a message to lines: signature, structure, agreement with its topic, repeats, gaps. No I/O lives here.

A message that fails any check is written as a rejected line with its reason and its bytes: never as data, and never
dropped either, since the broker forgets what is acknowledged.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.clock import Clock
from gateway.journal.entry import Batch, Stream
from gateway.journal.readers import Opener
from gateway.receiver.ledger import Cause, Gap, Key, Ledger, Span, Taken
from gateway.uplink.fields import Json, PayloadError
from gateway.uplink.notice import Heartbeat, HubStatus
from gateway.uplink.payload import Message, decode, entry_fields, iso_time
from gateway.uplink.receipt import Receipt
from gateway.uplink.sealed import DamagedError, NoKeyError, Unsealer, is_sealed
from gateway.uplink.signature import Doubt, VerifyKeys
from gateway.uplink.wire import Incoming


class Rejection(StrEnum):
    """Why a message is no data."""

    TOPIC = "topic"
    UNKNOWN_HUB = "unknown_hub"
    NO_SIGNATURE = "no_signature"
    BAD_SIGNATURE = "bad_signature"
    MALFORMED = "malformed"
    DISAGREES = "disagrees"
    """The payload says another hub or stream than its topic."""
    NO_KEY = "no_key"
    """Sealed for another clinic, or there is no clinic's key here: give the receiver that key, and it comes again."""
    UNREADABLE = "unreadable"
    """Sealed for this clinic, sent by its hub, and not what that hub sealed: it was changed on the hub's disk."""
    STALE = "stale"
    """From below the floor of its track: whether it is a repeat cannot be told any more."""


class _Rejected(Exception):  # noqa: N818 - the sender is at fault; it never leaves this module
    def __init__(self, reason: Rejection, text: str) -> None:
        super().__init__(text)
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Report:
    """What came in since the start; `open_gaps` and `missing` as they stand."""

    entries: int
    repeats: int
    rejected: int
    open_gaps: int
    missing: int


DOUBTS = {
    Doubt.UNKNOWN: (
        Rejection.UNKNOWN_HUB,
        "hub: got {hub!r}, expected one with a verify key; configure it",
    ),
    Doubt.NO_SIGNATURE: (Rejection.NO_SIGNATURE, "signature: got none, expected one of Ed25519"),
    Doubt.BAD_SIGNATURE: (
        Rejection.BAD_SIGNATURE,
        "signature: got one that does not fit, expected that of hub {hub} over this topic",
    ),
}


class Intake:
    """Turns messages into lines by a ledger."""

    def __init__(
        self,
        tenant: str,
        keys: Mapping[str, str],
        ledger: Ledger,
        clock: Clock,
        *,
        grace_s: float,
        clinic_key: Opener | None = None,
    ) -> None:
        """Takes the clinic's key for hubs whose journal is sealed."""
        self._unsealer = Unsealer(clinic_key)
        self._tenant = tenant
        self._keys = VerifyKeys(keys)
        self._epochs: dict[str, str] = {}
        self._touched: dict[str, None] = {}
        """In order: hubs that were heard since their last receipt."""
        self._ledger = ledger
        self._clock = clock
        self._grace_ns = int(grace_s * 1e9)
        self._entries = self._repeats = self._rejected = 0
        self._last_status: dict[str, HubStatus] = {}

    def report(self) -> Report:
        """Counts."""
        ledger = self._ledger
        open_gaps = len(ledger.open_gaps())
        return Report(self._entries, self._repeats, self._rejected, open_gaps, ledger.missing())

    def take(self, message: Incoming) -> list[Json]:
        """The lines that this message is worth. Total: any message gives lines, or none for a repeat."""
        try:
            hub, kind, payload = self._verified(message)
            if kind == "status":
                return self._status(hub, payload)
            if kind == "heartbeat":
                return self._heartbeat(hub, payload)
            return self._batch(hub, kind, message, payload)
        except _Rejected as rejected:
            return [self._rejected_line(message, rejected.reason, rejected.text)]
        except PayloadError as error:
            return [self._rejected_line(message, Rejection.MALFORMED, str(error))]
        except NoKeyError as error:
            return [self._rejected_line(message, Rejection.NO_KEY, str(error))]

    def due(self) -> list[Json]:
        """Lines for the gaps whose grace is over."""
        return self._gaps(self._ledger.due(self._clock.boottime_ns(), self._grace_ns))

    def seconds_to_next(self) -> float | None:
        """When `due` will have something, if nothing comes."""
        at_ns = self._ledger.next_due_ns(self._grace_ns)
        return None if at_ns is None else max(0.0, (at_ns - self._clock.boottime_ns()) / 1e9)

    def receipts(self, receiver: str, most: int) -> list[Receipt]:
        """What is to be said to the hubs that were heard, longest waiting first. Call it when the lines are on disk."""
        hubs = list(self._touched)[:most]
        for hub in hubs:
            del self._touched[hub]
        return [
            Receipt(hub, receiver, self._epochs[hub], self._ledger.held(hub, self._epochs[hub]))
            for hub in hubs
        ]

    @property
    def owes_receipts(self) -> bool:
        """A hub was heard since the last receipts."""
        return bool(self._touched)

    def _heard(self, hub: str, epoch: str) -> None:
        self._epochs[hub] = epoch
        self._touched.setdefault(hub)

    # --- Checks ----------------------------------------------------------------------------------------

    def _verified(self, message: Incoming) -> tuple[str, str, bytes]:
        """Hub and kind as the topic names them, and what that hub said."""
        parts = message.topic.split("/")
        if len(parts) != 5 or parts[:3] != ["wardlink", "1", self._tenant]:
            expected = f"wardlink/1/{self._tenant}/<hub>/<kind>"
            raise _Rejected(
                Rejection.TOPIC, f"topic: got {message.topic[:200]!r}, expected {expected}"
            )
        hub, kind = parts[3], parts[4]
        payload = self._keys.opened(hub, message)
        if isinstance(payload, Doubt):
            reason, text = DOUBTS[payload]
            raise _Rejected(reason, text.format(hub=hub[:48]))
        return hub, kind, payload

    def _batch(self, hub: str, kind: str, message: Incoming, payload: bytes) -> list[Json]:
        if kind not in set(Stream):
            expected = "a stream, status or heartbeat"
            raise _Rejected(Rejection.TOPIC, f"topic: got kind {kind[:48]!r}, expected {expected}")
        try:
            decoded = (
                self._unsealer.open(payload, self._keys.of(hub))
                if is_sealed(payload)
                else decode(payload)
            )
        except DamagedError as error:
            taken = self._taken(error.batch, hub, kind)
            # The hub has nothing better: named once, so that it need not be sent for ever.
            key = Key(hub, error.batch.stream, error.batch.epoch)
            lost = [Gap(key, span, Cause.UNREADABLE) for span in taken.new]
            rejected = self._rejected_line(message, Rejection.UNREADABLE, str(error))
            return [rejected, *self._gaps([*lost, *taken.gaps])]
        taken = self._taken(decoded.batch, hub, kind)
        lines = self._entry_lines(decoded, taken)
        self._entries += len(lines)
        lines.extend(self._gaps(taken.gaps))
        if taken.stale:
            text = f"{taken.stale} entries from below the oldest gap kept"
            lines.append(self._rejected_line(message, Rejection.STALE, text))
        return lines

    def _taken(self, batch: Batch, hub: str, kind: str) -> Taken:
        """Which entries of a batch are new, once it agrees with its topic."""
        _agree("hub", batch.hub, hub)
        _agree("stream", batch.stream, kind)
        self._heard(hub, batch.epoch)
        key = Key(hub, batch.stream, batch.epoch)
        span = Span(batch.first_sequence, batch.last_sequence)
        taken = self._ledger.receive(key, span, self._clock.boottime_ns())
        self._repeats += taken.repeats
        return taken

    def _entry_lines(self, message: Message, taken: Taken) -> list[Json]:
        batch, received = message.batch, self._received()
        lines: list[Json] = []
        for span in taken.new:
            for entry in batch.entries:
                if not span.first <= entry.sequence <= span.last:
                    continue
                record = entry_fields(entry, batch.clock)
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
        return lines

    def _heartbeat(self, hub: str, payload: bytes) -> list[Json]:
        beat = Heartbeat.decode(payload)
        _agree("hub", beat.hub, hub)
        self._heard(hub, beat.epoch)
        if not self._ledger.is_new_beat(hub, beat.boot_id, beat.clock.boottime_ns):
            self._repeats += 1
            return []
        now = self._clock.boottime_ns()
        gaps: list[Gap] = []
        streams: dict[str, Json] = {}
        for stream, mark in beat.marks.items():
            key = Key(hub, stream, beat.epoch)
            gaps.extend(self._ledger.heartbeat(key, mark.high_water, mark.acknowledged, now))
            received = self._ledger.track(key).high
            streams[stream] = {
                "high_water": mark.high_water,
                "acknowledged": mark.acknowledged,
                "received": received,
            }
        head: dict[str, Json] = {"type": "heartbeat", "hub": hub, "epoch": beat.epoch}
        clock: dict[str, Json] = {
            "boot_id": beat.boot_id,
            "boottime_ns": beat.clock.boottime_ns,
            "time": iso_time(beat.clock.wall_ns),
            "clock": beat.clock.state,
        }
        return [head | clock | self._received() | {"streams": streams}, *self._gaps(gaps)]

    def _status(self, hub: str, payload: bytes) -> list[Json]:
        status = HubStatus.decode(payload)
        _agree("hub", status.hub, hub)
        if self._last_status.get(hub) == status:
            self._repeats += 1
            return []
        self._last_status[hub] = status
        line: dict[str, Json] = {
            "type": "status",
            "hub": hub,
            "state": "online" if status.online else "offline",
            "version": status.version,
            "epoch": status.epoch,
        }
        return [line | self._received()]

    # --- Lines -----------------------------------------------------------------------------------------

    def _received(self) -> dict[str, Json]:
        reading = self._clock.read()
        return {
            "received_at": iso_time(reading.wall_ns),
            "received_clock": reading.state,
            "received_at_boottime_ns": reading.boottime_ns,
        }

    def _gaps(self, gaps: list[Gap] | tuple[Gap, ...]) -> list[Json]:
        lines: list[Json] = []
        for gap in gaps:
            line: dict[str, Json] = {
                "type": "gap_closed" if gap.closed else "gap",
                "hub": gap.key.hub,
                "stream": gap.key.stream,
                "epoch": gap.key.epoch,
                "first": gap.span.first,
                "last": gap.span.last,
                "count": len(gap.span),
                "cause": gap.cause,
            }
            lines.append(line | self._received())
        return lines

    def _rejected_line(self, message: Incoming, reason: Rejection, text: str) -> Json:
        self._rejected += 1
        line: dict[str, Json] = {
            "type": "rejected",
            "reason": reason,
            "text": text,
            "topic": message.topic,
            "payload": base64.b64encode(message.payload).decode("ascii"),
        }
        return line | self._received()


def _agree(what: str, got: str, expected: str) -> None:
    if got != expected:
        text = f"{what}: got {got[:48]!r} in the payload, expected {expected!r} as in the topic"
        raise _Rejected(Rejection.DISAGREES, text)

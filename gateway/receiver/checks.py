"""What a message is, and whether to believe it: signature, structure, agreement with its topic. Pure; knows no ledger."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.journal.entry import Batch, Stream
from gateway.journal.readers import Opener
from gateway.receiver.ledger import Key, Span
from gateway.uplink.fields import PayloadError
from gateway.uplink.notice import Heartbeat, HubStatus
from gateway.uplink.packed import UndecodableError, is_packed, unpacked
from gateway.uplink.payload import Message, decode
from gateway.uplink.sealed import DamagedError, NoKeyError, Unsealer, is_sealed
from gateway.uplink.signature import Doubt, VerifyKeys
from gateway.uplink.wire import Incoming
from gateway.waveform import WaveformCodec

MAX_SEQUENCE = 2**63 - 1
"""What a database's 64-bit integer holds. No hub gets there."""


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
    CHAIN = "chain"
    """A frame that fits no history with those that came, and has numbers of theirs."""
    REFUSED = "refused"
    """The store would not take it, for what is in it and not for want of room."""


DOUBTS = {
    Doubt.UNKNOWN: (
        Rejection.UNKNOWN_HUB,
        "hub: got {hub!r}, expected one with a verify key; configure it",
    ),
    Doubt.NO_SIGNATURE: (
        Rejection.NO_SIGNATURE,
        "signature: got none known here, expected one of Ed25519; if the hub is newer, update this",
    ),
    Doubt.BAD_SIGNATURE: (
        Rejection.BAD_SIGNATURE,
        "signature: got one that does not fit, expected that of hub {hub} over this topic",
    ),
}


@dataclass(frozen=True, slots=True)
class Rejected:
    """No data."""

    reason: Rejection
    text: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A batch that is its hub's, and cannot be opened or read: it counts as come, and as lost."""

    batch: Batch
    text: str


Part = Message | Unreadable
Content = tuple[Part, ...] | Heartbeat | HubStatus | Rejected
"""A message of a stream is one batch or several, in order."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A message, and what it is worth.

    Attributes:
        keys: the tracks that it concerns.
        hub: whose notice it is; None for anything else.
    """

    message: Incoming
    content: Content
    keys: tuple[Key, ...] = ()
    hub: str | None = None

    def refused(self, text: str) -> "Checked":
        """The same message as one that is no data."""
        return Checked(self.message, Rejected(Rejection.REFUSED, text))


class _Refusal(Exception):  # noqa: N818 - the sender is at fault; it never leaves this module
    def __init__(self, reason: Rejection, text: str) -> None:
        super().__init__(text)
        self.rejected = Rejected(reason, text)


class Checker:
    """Knows one tenant's hubs."""

    def __init__(
        self, tenant: str, keys: Mapping[str, str], clinic_key: Opener | None = None
    ) -> None:
        """Takes each hub's verify key, and the clinic's key for hubs whose journal is sealed.

        Raises:
            ValueError: a verify key is not one.
        """
        self._tenant = tenant
        self._keys = VerifyKeys(keys)
        self._codec = WaveformCodec()
        self._unsealer = Unsealer(clinic_key, self._codec)

    def check(self, message: Incoming) -> Checked:
        """Total: any message gives a content."""
        try:
            hub, kind, payload = self._verified(message)
            if kind == "status":
                status = HubStatus.decode(payload)
                _agree("hub", status.hub, hub)
                return Checked(message, status, hub=hub)
            if kind == "heartbeat":
                beat = Heartbeat.decode(payload)
                _agree("hub", beat.hub, hub)
                keys = tuple(Key(hub, stream, beat.epoch) for stream in beat.marks)
                highest = max((mark.high_water for mark in beat.marks.values()), default=0)
                _storable(highest)
                return Checked(message, beat, keys, hub)
            return self._batch(hub, kind, message, payload)
        except _Refusal as refusal:
            return Checked(message, refusal.rejected)
        except PayloadError as error:
            return Checked(message, Rejected(Rejection.MALFORMED, str(error)))
        except NoKeyError as error:
            return Checked(message, Rejected(Rejection.NO_KEY, str(error)))

    def _verified(self, message: Incoming) -> tuple[str, str, bytes]:
        """Hub and kind as the topic names them, and what that hub said."""
        parts = message.topic.split("/")
        if len(parts) != 5 or parts[:3] != ["wardlink", "1", self._tenant]:
            expected = f"wardlink/1/{self._tenant}/<hub>/<kind>"
            raise _Refusal(
                Rejection.TOPIC, f"topic: got {message.topic[:200]!r}, expected {expected}"
            )
        hub, kind = parts[3], parts[4]
        payload = self._keys.opened(hub, message)
        if isinstance(payload, Doubt):
            reason, text = DOUBTS[payload]
            raise _Refusal(reason, text.format(hub=hub[:48]))
        return hub, kind, payload

    def _batch(self, hub: str, kind: str, message: Incoming, payload: bytes) -> Checked:
        if kind not in set(Stream):
            expected = "a stream, status or heartbeat"
            raise _Refusal(Rejection.TOPIC, f"topic: got kind {kind[:48]!r}, expected {expected}")
        parts = self._parts(hub, payload)
        batch = parts[-1].batch
        # Of a packed message the head is the same for all of its batches, and the last has the highest number.
        _agree("hub", batch.hub, hub)
        _agree("stream", batch.stream, kind)
        _storable(batch.last_sequence)
        return Checked(message, parts, (Key(hub, batch.stream, batch.epoch),))

    def _parts(self, hub: str, payload: bytes) -> tuple[Part, ...]:
        if is_packed(payload):
            return tuple(_part(part) for part in unpacked(payload, self._codec))
        if is_sealed(payload):
            opened = self._unsealer.open(payload, self._keys.of(hub))
            return tuple(_part(part) for part in opened)
        return (decode(payload),)


def _part(part: Message | UndecodableError | DamagedError) -> Part:
    return part if isinstance(part, Message) else Unreadable(part.batch, str(part))


def span_of(batch: Batch) -> Span:
    """Its sequence numbers."""
    return Span(batch.first_sequence, batch.last_sequence)


def _agree(what: str, got: str, expected: str) -> None:
    if got != expected:
        text = f"{what}: got {got[:48]!r} in the payload, expected {expected!r} as in the topic"
        raise _Refusal(Rejection.DISAGREES, text)


def _storable(sequence: int) -> None:
    if sequence > MAX_SEQUENCE:
        raise PayloadError("message.sequence", str(sequence), f"at most {MAX_SEQUENCE}")

"""[delivery]: on whose word the journal is given free, and what a message looks like."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.config.kinds import VERIFY_KEY, build
from gateway.journal.entry import Stream
from gateway.tables import Key, Reader, one_of


class Payload(StrEnum):
    """How a hub writes what it can read; what is sealed it sends as it is."""

    JSON = "json"
    CBOR = "cbor"


class Ack(StrEnum):
    """On whose word the journal is given free."""

    BROKER = "broker"
    RECEIVER = "receiver"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How delivery is confirmed, and what a message looks like.

    Attributes:
        receivers: the verify key in base64 of each receiver whose receipts count.
        payload: of a stream that is not in `payloads`.
    """

    ack: Ack = Ack.BROKER
    receivers: Mapping[str, str] = field(default_factory=dict)
    payload: Payload = Payload.JSON
    payloads: Mapping[Stream, Payload] = field(default_factory=dict)

    def payload_of(self, stream: Stream) -> Payload:
        """What the messages of a stream look like."""
        return self.payloads.get(stream, self.payload)


DELIVERY_KEYS = (
    Key(
        "ack",
        one_of(Ack),
        'on whose word the journal is given free: "broker" (it has the message), or "receiver" (it is on its disk)',
        Ack.BROKER,
    ),
    Key(
        "payload",
        one_of(Payload),
        'what a message looks like: "json", for everybody to read, or "cbor", packed and deflated',
        Payload.JSON,
    ),
)
PAYLOAD_KEYS = tuple(
    Key(stream, one_of(Payload), f"what a message of the {stream} stream looks like")
    for stream in Stream
)


def _receivers(reader: Reader, table: Mapping[str, object]) -> Mapping[str, str]:
    """[delivery.receivers]: a line for each receiver whose receipts count."""
    found = reader.table(table.get("receivers"), "delivery.receivers", required=False) or {}
    keys = tuple(Key(name, VERIFY_KEY, "the receiver's verify key") for name in found)
    if table.get("ack") == Ack.RECEIVER and not found:
        expected = 'one line a receiver: "receiver-id" = "its verify key"'
        reader.fault("delivery.receivers", "no receiver", expected)
    return {
        name: str(key) for name, key in reader.values(found, "delivery.receivers", keys).items()
    }


def read_delivery(reader: Reader, root: Mapping[str, object]) -> Delivery | None:
    """How delivery is confirmed, or None with the faults noted."""
    table = reader.table(root.get("delivery", {}), "delivery") or {}
    values = reader.values(table, "delivery", DELIVERY_KEYS, nested=("receivers", "payloads"))
    own = reader.table(table.get("payloads"), "delivery.payloads", required=False) or {}
    found = reader.values(own, "delivery.payloads", PAYLOAD_KEYS)
    payloads = {Stream(name): payload for name, payload in found.items() if payload is not None}
    receivers = _receivers(reader, table)
    return build(Delivery, reader, {**values, "receivers": receivers, "payloads": payloads})

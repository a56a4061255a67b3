"""[delivery]: on whose word the journal is given free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.config.kinds import VERIFY_KEY, build
from gateway.tables import Key, Reader, one_of


class Ack(StrEnum):
    """On whose word the journal is given free."""

    BROKER = "broker"
    RECEIVER = "receiver"


@dataclass(frozen=True, slots=True)
class Delivery:
    """How delivery is confirmed. `receivers`: the verify key in base64 of each receiver whose receipts count."""

    ack: Ack = Ack.BROKER
    receivers: Mapping[str, str] = field(default_factory=dict)


DELIVERY_KEYS = (
    Key(
        "ack",
        one_of(Ack),
        'on whose word the journal is given free: "broker" (it has the message), or "receiver" (it is on its disk)',
        Ack.BROKER,
    ),
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
    values = reader.values(table, "delivery", DELIVERY_KEYS, nested=("receivers",))
    return build(Delivery, reader, {**values, "receivers": _receivers(reader, table)})

"""Batches cut into messages of JSON: what every entry shares stands at the head of each message."""

from collections.abc import Iterator
from dataclasses import dataclass

from gateway.journal.entry import Batch
from gateway.uplink import fields
from gateway.uplink.fields import Json
from gateway.uplink.payload import entry_fields, head_fields
from gateway.uplink.signature import TAIL_BYTES

MAX_PAYLOAD_BYTES = 96 * 1024 - TAIL_BYTES
"""With the signature 96 KiB: below the 128 kB that cloud brokers allow. A single larger entry goes alone."""
BETWEEN, END = b",", b"]}"
"""What stands between two entries, and what closes the message."""


@dataclass(frozen=True, slots=True)
class Slice:
    """One payload ready to send. (hub, stream, epoch, first, count) is its identity."""

    first: int
    count: int
    payload: bytes

    @property
    def last(self) -> int:
        """The sequence number of its last entry."""
        return self.first + self.count - 1


def slices(batch: Batch, after: int, high_water: int, limit_bytes: int) -> Iterator[Slice]:
    """What follows sequence number `after` in messages of at most `limit_bytes`; one larger entry goes alone."""
    entries = [entry for entry in batch.entries if entry.sequence > after]
    if not entries:
        return
    last, count = entries[-1].sequence, len(entries)
    widest = len(_head(head_fields(batch, last, count, high_water))) + len(END)
    items: list[bytes] = []
    size, first = widest, entries[0].sequence
    for entry in entries:
        item = _json({"sequence": entry.sequence, **entry_fields(entry, batch.clock)})
        if items and size + len(item) + len(BETWEEN) > limit_bytes:
            yield _slice(batch, first, items, high_water)
            items, size, first = [], widest, entry.sequence
        items.append(item)
        size += len(item) + len(BETWEEN)
    yield _slice(batch, first, items, high_water)


def _slice(batch: Batch, first: int, items: list[bytes], high_water: int) -> Slice:
    head = _head(head_fields(batch, first, len(items), high_water))
    return Slice(first, len(items), head + BETWEEN.join(items) + END)


def _head(value: Json) -> bytes:
    """The message's beginning up to its first entry."""
    return _json(value)[:-1] + b',"entries":['


def _json(value: Json) -> bytes:
    return fields.dumps(value).encode("ascii")

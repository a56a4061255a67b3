"""Batches cut into messages, in either encoding: what every entry shares stands at the head of each message."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from gateway.config.delivery import Payload
from gateway.journal.entry import Batch
from gateway.uplink import cbor, fields
from gateway.uplink.fields import Json
from gateway.uplink.payload import entry_fields, head_fields
from gateway.uplink.signature import CBOR_BREAK, CBOR_MAP, TAIL_BYTES

MAX_PAYLOAD_BYTES = 96 * 1024 - TAIL_BYTES
"""With the signature 96 KiB: below the 128 kB that cloud brokers allow. A single larger entry goes alone."""


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


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a message is put together from its head and its encoded entries.

    Attributes:
        head: the message's beginning up to its first entry.
        between, end: what stands between two entries, and what closes the message.
    """

    item: Callable[[Json], bytes]
    head: Callable[[Json], bytes]
    between: bytes
    end: bytes


def _json(value: Json) -> bytes:
    return fields.dumps(value).encode("ascii")


def _cbor_head(value: Json) -> bytes:
    """A map without length instead of one with, so that the entries and the signature can follow."""
    return CBOR_MAP + cbor.dumps(value)[1:] + cbor.dumps("entries") + CBOR_LIST


CBOR_LIST = b"\x9f"
ENCODINGS = {
    Payload.JSON: Encoding(
        _json, lambda value: _json(value)[:-1] + b',"entries":[', between=b",", end=b"]}"
    ),
    Payload.CBOR: Encoding(cbor.dumps, _cbor_head, between=b"", end=CBOR_BREAK + CBOR_BREAK),
}


def slices(
    batch: Batch, after: int, high_water: int, limit_bytes: int, payload: Payload = Payload.JSON
) -> Iterator[Slice]:
    """What follows sequence number `after` in messages of at most `limit_bytes`; one larger entry goes alone."""
    encoding = ENCODINGS[payload]
    entries = [entry for entry in batch.entries if entry.sequence > after]
    if not entries:
        return
    last, count = entries[-1].sequence, len(entries)
    widest = len(encoding.head(head_fields(batch, last, count, high_water))) + len(encoding.end)
    items: list[bytes] = []
    size, first = widest, entries[0].sequence
    for entry in entries:
        item = encoding.item({"sequence": entry.sequence, **entry_fields(entry, batch.clock)})
        if items and size + len(item) + len(encoding.between) > limit_bytes:
            yield _slice(encoding, batch, first, items, high_water)
            items, size, first = [], widest, entry.sequence
        items.append(item)
        size += len(item) + len(encoding.between)
    yield _slice(encoding, batch, first, items, high_water)


def _slice(
    encoding: Encoding, batch: Batch, first: int, items: list[bytes], high_water: int
) -> Slice:
    head = encoding.head(head_fields(batch, first, len(items), high_water))
    return Slice(first, len(items), head + encoding.between.join(items) + encoding.end)

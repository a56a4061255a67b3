"""The payload `cbor`: batches of one stream as the journal wrote them, many in a message, deflated.

The hub neither decodes nor encodes a record: what it proved when it read the frame is what the receiver gets. One message
stands for itself. Decoding is total: any bytes give messages or PayloadError, in bounded time and memory. Records that
are their hub's and cannot be read, as of a later version, are lost and said to be: a DamagedError in their place.
"""

import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import cbor2

from gateway.journal.blocks import SampleReader
from gateway.journal.blocks import is_packed as is_in_blocks
from gateway.journal.entry import Batch, PackedBatch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.records import (
    decode_batch,
    encode_entry,
    join,
    reading_item,
    reading_of,
)
from gateway.uplink import cbor
from gateway.uplink.fields import SHOWN, PayloadError
from gateway.uplink.payload import Message
from gateway.uplink.signature import PACKED
from gateway.uplink.slices import Slice

SCHEMA = "wardlink.batches/1"
MAX_INFLATED_BYTES = 524_288
"""A receiver inflates no more of one message."""
READ_BYTES = 262_144
"""Records in one message: of vitals, deflated, some 40 kB. More would save nothing, and keep an alarm waiting."""
BATCHES_MOST = 256
"""In one message: of samples in blocks, so no more than 16 MiB come out of it."""
LEVEL = 1
"""Of deflate: level 6 takes three times as long for a tenth less."""


class UndecodableError(Exception):
    """Its hub says so, but its records do not decode. What it held is lost.

    Attributes:
        batch: what it says about itself.
    """

    def __init__(self, batch: PackedBatch, reason: str) -> None:
        super().__init__(f"records: got some that fail ({reason}), expected those of a batch")
        self.batch = batch


Part = Message | UndecodableError


def is_packed(payload: bytes) -> bool:
    """Whether a payload is of this kind; no other one begins like it."""
    return payload.startswith(PACKED)


# --- Writing -----------------------------------------------------------------------------------------


def packed_slices(
    batches: Sequence[PackedBatch], span: tuple[int, int], high_water: int, limit_bytes: int
) -> Iterator[Slice]:
    """Batches that follow each other without a hole, in messages of at most `limit_bytes`; one larger entry goes alone.

    What of the first and the last batch lies outside of `span` comes along, and is dropped there as a repeat.
    """
    first, last = span
    rest = [batch for batch in batches if batch.last_sequence >= first]
    while rest and rest[0].first_sequence <= last:
        held = rest[:BATCHES_MOST]
        while len(payload := _payload(held, high_water)) > limit_bytes and len(held) > 1:
            # Deflated it is about in proportion; a little less, so that it is seldom tried a third time.
            held = held[
                : max(1, min(len(held) - 1, len(held) * limit_bytes * 9 // len(payload) // 10))
            ]
        if len(payload) > limit_bytes and (halves := _halves(held[0], span)):
            rest[:1] = halves
            continue
        rest = rest[len(held) :]
        begin, end = max(held[0].first_sequence, first), min(held[-1].last_sequence, last)
        yield Slice(begin, end - begin + 1, payload)


def _payload(batches: Iterable[PackedBatch], high_water: int) -> bytes:
    items = []
    head: list[object] = []
    for batch in batches:
        head = [SCHEMA, batch.hub, batch.stream.value, batch.epoch, high_water]
        first, last = batch.span
        clock = reading_item(batch.clock)
        stamped = None if batch.stamped is None else reading_item(batch.stamped)
        items.append([first, last - first + 1, batch.boot_id, clock, stamped, batch.records])
    return PACKED + zlib.compress(cbor2.dumps([*head, items]), LEVEL)


def _halves(batch: PackedBatch, span: tuple[int, int]) -> list[PackedBatch]:
    """What of a batch lies in a span, in two parts; nothing when it is one entry, or cannot be read and so not be cut."""
    first, last = max(batch.first_sequence, span[0]), min(batch.last_sequence, span[1])
    if batch.first_sequence == batch.last_sequence:
        return []
    try:
        entries = decode_batch(batch.records, batch.first_sequence)
    except JournalError:
        return []
    middle = (first + last) // 2
    parts = []
    for begin, end in ((first, middle), (middle + 1, last)):
        part = [e for e in entries if begin <= e.sequence <= end]
        if part:
            records = join([encode_entry(e.device, e.subject, e.record) for e in part])
            parts.append(replace(batch, span=(begin, end), records=records))
    return parts


# --- Reading -----------------------------------------------------------------------------------------


def unpacked(payload: bytes, codec: SampleReader | None = None) -> tuple[Part, ...]:
    """The batches in a message, in order. Raises PayloadError, and nothing else, for anything but a whole message.

    Without a codec batches whose samples are in blocks are not read.
    """
    match cbor.loads(_inflated(payload)):
        case [schema, *_] if schema != SCHEMA:
            raise PayloadError("message.schema", repr(schema)[:SHOWN], SCHEMA)
        case [_, str() as hub, str() as stream, str() as epoch, int() as high_water, [*items]]:
            if stream not in set(Stream):
                raise PayloadError("message.stream", repr(stream[:SHOWN]), "one of a hub's streams")
            if not items or isinstance(high_water, bool) or high_water < 0:
                raise PayloadError("message", "no batch or high water", "both")
            batches = [_batch(hub, Stream(stream), epoch, item) for item in items]
        case _:
            raise PayloadError("message", "something else", f"the fields of {SCHEMA}")
    expected = batches[0].first_sequence
    for batch in batches:
        if batch.first_sequence != expected:
            got = f"one from {batch.first_sequence}"
            raise PayloadError("message.batches", got, f"{expected}, without a hole")
        expected = batch.last_sequence + 1
    in_blocks = sum(is_in_blocks(batch.records) for batch in batches)
    if in_blocks > BATCHES_MOST:
        raise PayloadError("message.batches", f"{in_blocks} with blocks", f"{BATCHES_MOST}")
    return tuple(_part(batch, high_water, codec) for batch in batches)


def _inflated(payload: bytes) -> bytes:
    if not is_packed(payload):
        raise PayloadError("message", f"{len(payload)} bytes", f"packed batches ({PACKED!r})")
    inflater = zlib.decompressobj()
    try:
        data = inflater.decompress(payload[len(PACKED) :], MAX_INFLATED_BYTES + 1)
    except zlib.error as error:
        raise PayloadError("message", str(error)[:SHOWN], "deflated batches") from None
    if len(data) > MAX_INFLATED_BYTES:
        raise PayloadError("message", "more bytes inflated", f"at most {MAX_INFLATED_BYTES}")
    if not inflater.eof or inflater.unused_data:
        raise PayloadError("message", "a part or more of it", "deflated batches")
    return data


def _batch(hub: str, stream: Stream, epoch: str, item: object) -> PackedBatch:
    match item:
        case [
            int() as first,
            int() as count,
            str() as boot_id,
            clock,
            stamped,
            bytes() as records,
        ] if type(first) is type(count) is int and first >= 1 and 1 <= count <= len(records):
            try:
                reading = reading_of(clock)
                at_commit = None if stamped is None else reading_of(stamped)
            except (JournalError, ValueError):
                raise PayloadError("message.batches.clock", "something else", "a reading") from None
            return PackedBatch(
                hub,
                stream,
                epoch,
                boot_id,
                reading,
                (),
                span=(first, first + count - 1),
                records=records,
                stamped=at_commit,
            )
        case _:
            raise PayloadError("message.batches", "something else", "the fields of a batch")


def _part(batch: PackedBatch, high_water: int, codec: SampleReader | None) -> Part:
    try:
        entries = decode_batch(batch.records, batch.first_sequence, cbor.loads, codec)
    except JournalError as error:
        return UndecodableError(batch, str(error))
    first, last = batch.span
    if len(entries) != last - first + 1:
        return UndecodableError(batch, f"{len(entries)} entries, not {last - first + 1}")
    opened = Batch(
        batch.hub,
        batch.stream,
        batch.epoch,
        batch.boot_id,
        batch.clock,
        entries,
        stamped=batch.stamped,
    )
    return Message(opened, high_water)

"""Records as bytes and back: CBOR (RFC 8949) arrays with a version. The layout is in docs/journal-format.md.

Encoding takes any record that the model allows; decoding is total: any bytes give entries or a JournalError.
"""

from collections.abc import Callable
from decimal import Decimal

import cbor2

from drivers.assigned import BodySite, Code, Unit
from drivers.model import (
    GOOD,
    Bits,
    ClockChange,
    ClockReading,
    ClockState,
    Coded,
    Compound,
    Decoded,
    Event,
    EventKind,
    Mode,
    Observation,
    Origin,
    Quality,
    Quantity,
    Raw,
    Record,
    SampleArray,
    Special,
    Validity,
    Value,
)
from gateway.journal.blocks import VERSION as BLOCKS_VERSION
from gateway.journal.blocks import SampleReader, is_packed, unpack
from gateway.journal.entry import Entry
from gateway.journal.errors import JournalError

VERSION = 3
"""Version 1 knew neither raw bytes nor what an observation was decoded from, version 2 no clock change; both are read.

Version 4 is that of batches with blocks: see gateway/journal/blocks.py."""
OVERHEAD = 7
"""Bytes of a batch around its entries: an array of two, the version, the head of an array with a 32-bit count."""
OBSERVATION, EVENT, RAW = 0, 1, 2
QUANTITY, COMPOUND, SAMPLES, CODED, BITS = range(5)

Item = list[object]


def encode_entry(device: str, subject: str | None, record: Record) -> bytes:
    """One entry, without its sequence number: that follows from its place in the batch."""
    if isinstance(record, Event):
        fields: Item = [
            EVENT,
            record.kind.value,
            record.at_ns,
            record.reason,
            record.text,
            record.data,
            _code(record.code),
            record.from_ns,
            record.until_ns,
            record.lost,
            *([] if record.clock is None else [_change(record.clock)]),
        ]
    elif isinstance(record, Raw):
        fields = [RAW, record.source, record.data, record.at_ns, record.link_ns]
    else:
        decoded = record.decoded
        fields = [
            OBSERVATION,
            int(record.code),
            _value(record.value),
            record.determined_at_ns,
            _quality(record.quality),
            record.origin.value,
            record.device_time,
            None if record.body_site is None else int(record.body_site),
            decoded and [decoded.raw_sequence, decoded.index, decoded.revision, decoded.boot_id],
        ]
    try:
        return cbor2.dumps([device, subject, *fields])
    except (cbor2.CBORError, ValueError) as error:
        raise JournalError(f"record of {device}: not encodable: {error}") from error


def join(entries: list[bytes]) -> bytes:
    """A batch of encoded entries."""
    head = b"\x82" + bytes([VERSION]) + b"\x9a" + len(entries).to_bytes(4, "big")
    return head + b"".join(entries)


def decode_batch(
    data: bytes,
    first_sequence: int,
    loads: Callable[[bytes], object] = cbor2.loads,
    codec: SampleReader | None = None,
) -> tuple[Entry, ...]:
    """The entries of a batch, numbered from `first_sequence`.

    Args:
        loads: reads the one CBOR item in `data`; a stricter one where a stranger may have written it.
        codec: reads blocks of samples; without one a batch with blocks is not read.

    Raises:
        JournalError: the bytes are no batch of a version that this release reads.
    """
    try:
        match loads(data):
            case [1 | 2 | 3, [*items]]:
                return tuple(_entry(item, first_sequence + n) for n, item in enumerate(items))
            case [4, [*items], [*found]] if codec is not None and is_packed(data):
                whole = unpack(items, found, codec)
                return tuple(_entry(item, first_sequence + n) for n, item in enumerate(whole))
            case [int() as version, *_]:
                known = VERSION if codec is None else BLOCKS_VERSION
                raise JournalError(f"batch: version {version}, expected 1 to {known}")
            case _:
                raise JournalError("batch: expected an array of version and entries")
    except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        # The codec answers hostile bytes with several types of exception; none of them may stop a reader.
        raise JournalError(f"batch: not decodable: {type(error).__name__}") from error


def _entry(item: object, sequence: int) -> Entry:
    match item:
        case [str() as device, (str() | None) as subject, *fields]:
            return Entry(sequence, device, _record(fields), subject)
        case _:
            raise JournalError("entry: expected device, subject and the fields of a record")


def _record(fields: Item) -> Record:
    match fields:
        case [
            0,
            int() as code,
            [int() as kind, *parts],
            int() as at_ns,
            quality,
            str() as origin,
            (str() | None) as device_time,
            (int() | None) as site,
            *late,
        ] if len(late) <= 1:
            return Observation(
                Code(code),
                _value_of(kind, parts),
                at_ns,
                _quality_of(quality),
                Origin(origin),
                device_time,
                None if site is None else BodySite(site),
                _decoded_of(late[0]) if late else None,
            )
        case [
            1,
            str() as kind,
            int() as at_ns,
            str() as reason,
            str() as text,
            bytes() as data,
            (int() | None) as code,
            (int() | None) as from_ns,
            (int() | None) as until_ns,
            (int() | None) as lost,
            *late,
        ] if len(late) <= 1:
            return Event(
                EventKind(kind),
                at_ns,
                reason,
                text,
                data,
                None if code is None else Code(code),
                from_ns,
                until_ns,
                lost,
                _change_of(late[0]) if late else None,
            )
        case [2, str() as source, bytes() as data, int() as at_ns, int() as link_ns]:
            return Raw(source, data, at_ns, link_ns)
        case _:
            raise JournalError(
                "record: expected the fields of an observation, an event or raw bytes"
            )


def _decoded_of(item: object) -> Decoded | None:
    match item:
        case None:
            return None
        case [int() as raw_sequence, int() as index, int() as revision, (str() | None) as boot_id]:
            return Decoded(raw_sequence, index, revision, boot_id)
        case _:
            raise JournalError("decoded: expected sequence, index, revision and boot")


def _change(change: ClockChange) -> Item:
    before = None if change.before is None else reading_item(change.before)
    return [before, reading_item(change.after)]


def reading_item(reading: ClockReading) -> Item:
    """A reading of both clocks as an array."""
    return [reading.boottime_ns, reading.wall_ns, reading.state.value, reading.error_ns]


def _change_of(item: object) -> ClockChange:
    match item:
        case [before, after]:
            return ClockChange(None if before is None else reading_of(before), reading_of(after))
        case _:
            raise JournalError("clock: expected the readings before and after")


def reading_of(item: object) -> ClockReading:
    """The reading that `reading_item` wrote. Raises JournalError, or ValueError for a state that there is not."""
    match item:
        case [int() as boottime_ns, int() as wall_ns, str() as state, (int() | None) as error_ns]:
            return ClockReading(boottime_ns, wall_ns, ClockState(state), error_ns)
        case _:
            raise JournalError("clock: expected boottime, wall time, state and error")


def _code(code: Code | None) -> int | None:
    return None if code is None else int(code)


def _value(value: Value) -> Item:
    match value:
        case Quantity():
            return [QUANTITY, _number(value.value), int(value.unit)]
        case Compound():
            parts = [[int(c), _number(q.value), int(q.unit)] for c, q in value.parts]
            return [COMPOUND, parts]
        case SampleArray():
            numbers = [_number(value.scale), _number(value.offset)]
            fields = [value.data, value.width, value.period_ns, int(value.unit)]
            return [SAMPLES, *fields, *numbers]
        case Coded():
            return [CODED, value.code]
        case Bits():
            return [BITS, value.set_bits, value.supported]


def _value_of(kind: int, parts: Item) -> Value:
    match [kind, *parts]:
        case [0, number, int() as unit]:
            return Quantity(_number_of(number), Unit(unit))
        case [1, [*quantities]]:
            return Compound(tuple(_part(part) for part in quantities))
        case [2, bytes() as data, (2 | 4) as width, int() as period_ns, int() as unit, a, b]:
            if len(data) % width:
                raise JournalError(
                    f"samples: got {len(data)} bytes, expected a multiple of {width}"
                )
            return SampleArray(data, int(width), period_ns, Unit(unit), _finite(a), _finite(b))
        case [3, int() as code]:
            return Coded(code)
        case [4, int() as set_bits, int() as supported]:
            return Bits(set_bits, supported)
        case _:
            raise JournalError(f"value: no value of kind {kind} has these fields")


def _part(part: object) -> tuple[Code, Quantity]:
    match part:
        case [int() as code, number, int() as unit]:
            return Code(code), Quantity(_number_of(number), Unit(unit))
        case _:
            raise JournalError("part: expected code, number and unit")


def _number(number: Decimal | Special) -> Decimal | str:
    """A decimal fraction (tag 4) keeps 2 apart from 2.0; it has no negative zero, so that one travels as text."""
    if isinstance(number, Special):
        return number.value
    if not number.is_finite():
        raise JournalError(f"number: got {number}, expected a finite decimal or a Special")
    return str(number) if number.is_zero() and number.is_signed() else number


def _number_of(item: object) -> Decimal | Special:
    if isinstance(item, str) and not item.startswith("-0"):
        return Special(item)
    return _finite(item)


def _finite(item: object) -> Decimal:
    number = Decimal(item) if isinstance(item, str) else item
    if isinstance(number, Decimal) and number.is_finite():
        return number
    raise JournalError("number: expected a decimal fraction")


def _quality(quality: Quality) -> Item | None:
    if quality == GOOD:
        return None
    sqi = None if quality.sqi is None else float(quality.sqi)
    return [quality.validity.value, quality.mode.value, sqi, quality.reason]


def _quality_of(item: object) -> Quality:
    match item:
        case None:
            return GOOD
        case [str() as validity, str() as mode, (float() | None) as sqi, (str() | None) as reason]:
            return Quality(Validity(validity), Mode(mode), sqi, reason)
        case _:
            raise JournalError("quality: expected validity, mode, index and reason")

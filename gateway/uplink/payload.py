"""The fields of a batch in the payload `json`, which people and platforms can read, and exactly back.

One message is a batch, or a slice of it: what every entry shares stands at the head. Names, LOINC and UCUM codes and
ISO 8601 times stand beside the numbers for whoever reads; the decoder goes by the numbers alone. Decoding is total:
any bytes give a Message or PayloadError.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from drivers.assigned import LOINC, UCUM, BodySite, Code, Unit
from drivers.model import (
    Bits,
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
from gateway.clock import ClockReading
from gateway.journal.entry import Batch, Entry, Stream
from gateway.uplink.fields import Fields, Hex, Json, PayloadError, loads
from gateway.uplink.times import change_fields, change_of, reading_fields, reading_of, time_fields

SCHEMA = "wardlink.batch/1"


@dataclass(frozen=True, slots=True)
class FrameTags:
    """A journal's frame in the chain of its stream: the tag of the frame before it (zeros: none), and its own."""

    previous: bytes
    own: bytes


@dataclass(frozen=True, slots=True)
class Message:
    """A decoded payload: the slice of a batch, and how far the hub's journal reached when it was sent.

    Attributes:
        tags: where the batch is one whole frame, and the tags prove it.
    """

    batch: Batch
    high_water: int
    tags: FrameTags | None = None


# --- Writing -----------------------------------------------------------------------------------------


def head_fields(batch: Batch, first: int, count: int, high_water: int) -> dict[str, Json]:
    """What stands at the head of a message with `count` entries from `first` on."""
    return {
        "schema": SCHEMA,
        "hub": batch.hub,
        "stream": batch.stream,
        "epoch": batch.epoch,
        "first": first,
        "count": count,
        "high_water": high_water,
        "boot_id": batch.boot_id,
        "clock": reading_fields(batch.clock),
        **({} if batch.stamped is None else {"stamped": reading_fields(batch.stamped)}),
    }


def entry_fields(entry: Entry, clock: ClockReading) -> dict[str, Json]:
    """An entry as it stands in the payload, without its sequence number."""
    fields: dict[str, Json] = {"device": entry.device}
    if entry.subject is not None:
        fields["subject"] = entry.subject
    return fields | _record_fields(entry.record, clock)


def _record_fields(record: Record, clock: ClockReading) -> dict[str, Json]:
    if isinstance(record, Event):
        return _event_fields(record, clock)
    if isinstance(record, Raw):
        times = time_fields(record.at_ns, clock) | {"link_ns": record.link_ns}
        return {"type": "raw", "source": record.source, "data": Hex(record.data), **times}
    quality, decoded = record.quality, record.decoded
    optional: dict[str, Json] = {
        "sqi": quality.sqi,
        "reason": quality.reason,
        "device_time": record.device_time,
        "raw_sequence": decoded.raw_sequence if decoded else None,
        "raw_index": decoded.index if decoded else None,
        "revision": decoded.revision if decoded else None,
        "boot_id": decoded.boot_id if decoded else None,
        "body_site": None if record.body_site is None else int(record.body_site),
        "body_site_name": None if record.body_site is None else record.body_site.name.lower(),
    }
    return {
        "type": "observation",
        **_code_fields(record.code),
        **_value_fields(record.value),
        **time_fields(record.determined_at_ns, None if decoded and decoded.boot_id else clock),
        "validity": quality.validity,
        "mode": quality.mode,
        "origin": record.origin,
        **{key: value for key, value in optional.items() if value is not None},
    }


def _event_fields(event: Event, clock: ClockReading) -> dict[str, Json]:
    fields: dict[str, Json] = {
        "type": "event",
        "kind": event.kind,
        "reason": event.reason,
        **time_fields(event.at_ns, clock),
        "text": event.text,
        "data": Hex(event.data),
    }
    if event.code is not None:
        fields |= _code_fields(event.code)
    for key, value in (
        ("from_ns", event.from_ns),
        ("until_ns", event.until_ns),
        ("lost", event.lost),
    ):
        if value is not None:
            fields[key] = value
    return fields if event.clock is None else {**fields, **change_fields(event.clock)}


def _code_fields(code: Code) -> dict[str, Json]:
    name = code.name if code.name.startswith("WARDLINK_") else f"MDC_{code.name}"
    fields: dict[str, Json] = {"code": int(code), "name": name}
    if code in LOINC:
        fields["loinc"] = LOINC[code]
    return fields


def _unit_fields(unit: Unit) -> dict[str, Json]:
    return {"unit": UCUM.get(unit), "unit_code": int(unit)}


def _value_fields(value: Value) -> dict[str, Json]:
    match value:
        case Quantity():
            return {"shape": "quantity", **_quantity_fields(value)}
        case Compound():
            parts = tuple(
                {**_code_fields(code), **_quantity_fields(part)} for code, part in value.parts
            )
            return {"shape": "compound", "parts": parts}
        case SampleArray():
            return {
                "shape": "samples",
                "samples": value.data,
                "width": value.width,
                "period_ns": value.period_ns,
                "scale": value.scale,
                "offset": value.offset,
                **_unit_fields(value.unit),
            }
        case Coded():
            return {"shape": "coded", "coded": value.code}
        case Bits():
            return {"shape": "bits", "set_bits": value.set_bits, "supported": value.supported}


def _quantity_fields(quantity: Quantity) -> dict[str, Json]:
    value = quantity.value
    if isinstance(value, Decimal) and not value.is_finite():
        # Decimal has its own NaN and infinities; on the wire they have one spelling, that of 11073-20601.
        value = _special_of(value)
    if isinstance(value, Special):
        return {"value": None, "special": value, **_unit_fields(quantity.unit)}
    return {"value": value, **_unit_fields(quantity.unit)}


def _special_of(value: Decimal) -> Special:
    if value.is_nan():
        return Special.NOT_A_NUMBER
    return Special.NEGATIVE_INFINITY if value.is_signed() else Special.POSITIVE_INFINITY


# --- Reading -----------------------------------------------------------------------------------------


def decode(data: bytes) -> Message:
    """The message in `data`. Raises PayloadError, and nothing else, for anything but a whole valid message."""
    fields = loads(data)
    schema = fields.text("schema")
    if schema != SCHEMA:
        raise PayloadError("message.schema", repr(schema[:48]), SCHEMA)
    first, count = fields.integer("first", least=1), fields.integer("count", least=1)
    entries = tuple(_entry(item) for item in fields.objects("entries"))
    if len(entries) != count:
        raise PayloadError(
            "message.entries", f"{len(entries)} entries", f"{count}, as `count` says"
        )
    for n, entry in enumerate(entries):
        if entry.sequence != first + n:
            got, expected = f"sequence {entry.sequence}", f"{first + n}, without a hole"
            raise PayloadError(f"message.entries[{n}]", got, expected)
    batch = Batch(
        hub=fields.text("hub"),
        stream=fields.choice("stream", Stream),
        epoch=fields.text("epoch"),
        boot_id=fields.text("boot_id"),
        clock=reading_of(fields.object("clock")),
        entries=entries,
        stamped=reading_of(fields.object("stamped")) if fields.has("stamped") else None,
    )
    return Message(batch, fields.integer("high_water", least=0))


def _entry(fields: Fields) -> Entry:
    kind = fields.text("type")
    if kind not in READERS:
        raise PayloadError("message.entries.type", repr(kind[:48]), "observation, event or raw")
    record = READERS[kind](fields)
    return Entry(
        fields.integer("sequence", least=1),
        fields.text("device"),
        record,
        fields.text_or_none("subject"),
    )


def _observation(fields: Fields) -> Observation:
    quality = Quality(
        fields.choice("validity", Validity),
        fields.choice("mode", Mode),
        float(fields.decimal("sqi")) if fields.has("sqi") else None,
        fields.text_or_none("reason"),
    )
    return Observation(
        fields.number("code", Code),
        _value(fields),
        fields.integer("boottime_ns"),
        quality,
        fields.choice("origin", Origin),
        fields.text_or_none("device_time"),
        fields.number("body_site", BodySite) if fields.has("body_site") else None,
        _decoded(fields) if fields.has("raw_sequence") else None,
    )


def _decoded(fields: Fields) -> Decoded:
    return Decoded(
        fields.integer("raw_sequence", least=1),
        fields.integer("raw_index", least=0),
        fields.integer("revision", least=0),
        fields.text_or_none("boot_id"),
    )


def _raw(fields: Fields) -> Raw:
    return Raw(
        fields.text("source"),
        fields.hex("data"),
        fields.integer("boottime_ns"),
        fields.integer("link_ns"),
    )


def _event(fields: Fields) -> Event:
    return Event(
        fields.choice("kind", EventKind),
        fields.integer("boottime_ns"),
        fields.text("reason"),
        fields.text("text"),
        fields.hex("data"),
        fields.number("code", Code) if fields.has("code") else None,
        fields.integer_or_none("from_ns"),
        fields.integer_or_none("until_ns"),
        fields.integer_or_none("lost"),
        change_of(fields),
    )


READERS: Mapping[str, Callable[[Fields], Record]] = {
    "observation": _observation,
    "event": _event,
    "raw": _raw,
}


def _value(fields: Fields) -> Value:
    match fields.text("shape"):
        case "quantity":
            return _quantity(fields)
        case "compound":
            parts = fields.objects("parts")
            return Compound(tuple((part.number("code", Code), _quantity(part)) for part in parts))
        case "samples":
            return _samples(fields)
        case "coded":
            return Coded(fields.integer("coded"))
        case "bits":
            return Bits(fields.integer("set_bits"), fields.integer("supported"))
        case shape:
            expected = "quantity, compound, samples, coded or bits"
            raise PayloadError("message.entries.shape", repr(shape[:48]), expected)


def _quantity(fields: Fields) -> Quantity:
    unit = fields.number("unit_code", Unit)
    if fields.has("special"):
        return Quantity(fields.choice("special", Special), unit)
    return Quantity(fields.decimal("value"), unit)


def _samples(fields: Fields) -> SampleArray:
    data, width = fields.base64("samples"), fields.integer("width")
    if width not in {2, 4}:
        raise PayloadError("message.entries.width", str(width), "2 or 4 bytes a sample")
    if len(data) % width:
        raise PayloadError(
            "message.entries.samples", f"{len(data)} bytes", f"a multiple of {width}"
        )
    return SampleArray(
        data,
        width,
        fields.integer("period_ns"),
        fields.number("unit_code", Unit),
        fields.decimal("scale"),
        fields.decimal("offset"),
    )

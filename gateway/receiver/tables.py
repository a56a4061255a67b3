"""The database of a receiver: its tables, and which rows a line becomes. Pure; docs/database.md is written for its reader.

Every table's key is the identity of what it holds, so whatever happens a repeat cannot be stored twice.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from math import isfinite

from gateway.receiver.store import Line
from gateway.uplink.fields import Json, dumps

SCHEMA_VERSION = 2


class Type(StrEnum):
    """What a column holds; each dialect has its own word for it."""

    TEXT = "text"
    INTEGER = "integer"
    """64 bits."""
    REAL = "real"
    """64-bit floating point."""
    TIME = "time"
    """UTC, with microseconds."""
    JSON = "json"
    BYTES = "bytes"
    NUMBER = "number"
    """Counted by the database."""


T, N, R, W, J, B = Type.TEXT, Type.INTEGER, Type.REAL, Type.TIME, Type.JSON, Type.BYTES

Value = str | int | float | bytes | None
Row = dict[str, Value]


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        key: its primary key.
        indexes: a column, and the rows that it covers.
        newest_holds: a row takes the place of the one with its key; elsewhere what is there stays.
    """

    name: str
    key: tuple[str, ...]
    columns: Mapping[str, Type]
    indexes: tuple[tuple[str, str], ...] = ()
    newest_holds: bool = False


_STREAM: dict[str, Type] = {"hub": T, "stream": T, "epoch": T}
_NUMBER: dict[str, Type] = {
    "code": N,
    "name": T,
    "value": T,
    "value_numeric": R,
    "special": T,
    "unit": T,
    "unit_code": N,
}

ENTRIES = Table(
    "entries",
    ("hub", "stream", "epoch", "sequence"),
    {
        **_STREAM,
        "sequence": N,
        "device": T,
        "subject": T,
        "boot_id": T,
        "boottime_ns": N,
        "time": W,
        "clock": T,
        "type": T,
        "shape": T,
        **_NUMBER,
        "validity": T,
        "mode": T,
        "origin": T,
        "kind": T,
        "reason": T,
        "raw_sequence": N,
        "raw_index": N,
        "revision": N,
        "samples": B,
        "sample_width": N,
        "period_ns": N,
        "sample_scale": R,
        "sample_offset": R,
        "received_at": W,
        "record": J,
    },
)
PARTS = Table(
    "parts",
    ("hub", "stream", "epoch", "sequence", "part"),
    {**_STREAM, "sequence": N, "part": N, **_NUMBER},
)
GAPS = Table(
    "gaps",
    ("hub", "stream", "epoch", "first_sequence", "last_sequence", "cause"),
    {
        **_STREAM,
        "first_sequence": N,
        "last_sequence": N,
        "cause": T,
        "named_at": W,
        "closed_at": W,
    },
)
CLOCKS = Table(
    "clocks",
    ("hub", "epoch", "boot_id"),
    {
        "hub": T,
        "epoch": T,
        "boot_id": T,
        "boottime_ns": N,
        "wall_ns": N,
        "state": T,
        "error_ns": N,
        "received_at": W,
    },
    newest_holds=True,
)
TIMED_ENTRIES = "timed_entries"
"""A view: entries with the best time that is known now, however it was known when they came."""
REJECTED = Table(
    "rejected",
    ("digest", "reason"),
    {"digest": T, "reason": T, "text": T, "topic": T, "payload": B, "received_at": W},
)
HEARTBEATS = Table(
    "heartbeats",
    ("hub", "boot_id", "boottime_ns"),
    {
        "hub": T,
        "boot_id": T,
        "boottime_ns": N,
        "epoch": T,
        "time": W,
        "clock": T,
        "received_at": W,
        "streams": J,
    },
)
STATUSES = Table(
    "statuses",
    ("number",),
    {
        "number": Type.NUMBER,
        "hub": T,
        "state": T,
        "version": T,
        "epoch": T,
        "devices": J,
        "received_at": W,
    },
)
TRACKS = Table(
    "tracks",
    ("hub", "stream", "epoch"),
    {**_STREAM, "high": N, "missing": N, "open_gaps": N, "unnamed_since": N, "state": J},
    (("missing", "missing > 0"), ("unnamed_since", "unnamed_since IS NOT NULL")),
)
HUBS = Table(
    "hubs",
    ("hub",),
    {"hub": T, "boot_id": T, "boottime_ns": N, "status": T},
)
BOOTS = Table(
    "boots",
    ("hub", "epoch", "boot_id"),
    {"hub": T, "epoch": T, "boot_id": T, "state": J},
)
SCHEMA = Table("wardlink_schema", ("version",), {"version": N})

TABLES = (SCHEMA, ENTRIES, PARTS, GAPS, CLOCKS, REJECTED, HEARTBEATS, STATUSES, TRACKS, HUBS, BOOTS)


# --- From lines to rows ------------------------------------------------------------------------------------


def text(value: Json) -> Value:
    """Text that any database takes: what is no character there becomes U+FFFD. The record has it as it was sent."""
    if value is None:
        return None
    shown = str(value)
    if not shown.isascii():
        shown = shown.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return shown.replace("\0", "\N{REPLACEMENT CHARACTER}")


def integer(value: Json) -> Value:
    """A 64-bit integer; null where it is none. The record has it as it was sent."""
    return value if isinstance(value, int) and -(2**63) <= value < 2**63 else None


def _real(value: Json) -> Value:
    """The nearest 64-bit number; null where there is none near."""
    if value is None or isinstance(value, str | bool | list | tuple | Mapping):
        return None
    number = float(value)
    return number if isfinite(number) else None


def _bytes(value: Json) -> Value:
    """Of a record as they are, of a rejected message in base64."""
    return value if value is None or isinstance(value, bytes) else base64.b64decode(str(value))


READ: Mapping[Type, Callable[[Json], Value]] = {
    Type.TEXT: text,
    Type.INTEGER: integer,
    Type.REAL: _real,
    Type.TIME: text,
    Type.JSON: dumps,
    Type.BYTES: _bytes,
}
ELSEWHERE: Mapping[str, str] = {
    "value_numeric": "value",
    "sample_width": "width",
    "sample_scale": "scale",
    "sample_offset": "offset",
}
"""Columns whose name differs from the field's."""


@cache
def _plan(name: str) -> tuple[tuple[str, str, Callable[[Json], Value]], ...]:
    """Of a table: each column, the field that it comes from, and how that is read."""
    (table,) = (table for table in TABLES if table.name == name)
    return tuple(
        (column, ELSEWHERE.get(column, column), READ[kind])
        for column, kind in table.columns.items()
        if kind is not Type.NUMBER
    )


def _row(table: Table, first: Mapping[str, Json], second: Mapping[str, Json] | None = None) -> Row:
    """Every column from a field of its name, in the first source that has it. What has none is null."""
    fields = {**(second or {}), **first}
    return {
        column: None if (value := fields.get(field)) is None else read(value)
        for column, field, read in _plan(table.name)
    }


def _entry(line: Line) -> Iterator[tuple[Table, Row]]:
    record = line["record"]
    if not isinstance(record, Mapping):
        raise TypeError(f"record: got {type(record).__name__}, expected a mapping")
    # The samples have a column of their own; twice would be half of the database.
    kept = {key: value for key, value in record.items() if key != "samples"}
    # The boot that `boottime_ns` belongs to: a correction may have been made in another.
    own = {
        "type": record["type"],
        "record": kept,
        "boot_id": record.get("boot_id", line["boot_id"]),
    }
    yield ENTRIES, _row(ENTRIES, {**line, **own}, record)
    parts = record.get("parts")
    for number, part in enumerate(parts if isinstance(parts, list | tuple) else ()):
        if isinstance(part, Mapping):
            yield PARTS, _row(PARTS, {**line, "part": number}, part)


def _gap(line: Line) -> Iterator[tuple[Table, Row]]:
    at = {"first_sequence": line["first"], "last_sequence": line["last"]}
    yield GAPS, _row(GAPS, {**line, **at, "named_at": line["received_at"]})


def _clock(line: Line) -> Iterator[tuple[Table, Row]]:
    yield CLOCKS, _row(CLOCKS, line)


def _rejected(line: Line) -> Iterator[tuple[Table, Row]]:
    said = str(line["topic"]).encode("utf-8", "replace") + b"\0" + str(line["payload"]).encode()
    yield REJECTED, _row(REJECTED, {**line, "digest": hashlib.sha256(said).hexdigest()})


def _heartbeat(line: Line) -> Iterator[tuple[Table, Row]]:
    yield HEARTBEATS, _row(HEARTBEATS, line)


def _status(line: Line) -> Iterator[tuple[Table, Row]]:
    yield STATUSES, _row(STATUSES, line)


ROWS: Mapping[str, Callable[[Line], Iterator[tuple[Table, Row]]]] = {
    "entry": _entry,
    "gap": _gap,
    "clock": _clock,
    "rejected": _rejected,
    "heartbeat": _heartbeat,
    "status": _status,
}
"""By a line's type. `gap_closed` makes no row: it changes one."""

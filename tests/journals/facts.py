"""What a record says, as plain values that outlive the classes of this release."""

from dataclasses import fields, is_dataclass
from decimal import Decimal
from enum import Enum

from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from tests.gateway.journal.builders import read_all


def decimal(text: str) -> Decimal:
    return Decimal(text)


def plain(value: object) -> object:
    """Names and values; fields that a record does not use are left out, so that new ones may come."""
    if is_dataclass(value):
        pairs = ((field.name, getattr(value, field.name)) for field in fields(value))
        named = {name: plain(part) for name, part in pairs if part is not None}
        return {"is": type(value).__name__, **named}
    if isinstance(value, Enum):
        return plain(value.value)
    if isinstance(value, tuple | list):
        return [plain(part) for part in value]
    if isinstance(value, bytes):
        return value.hex()
    return str(value) if isinstance(value, Decimal) else value


def facts(journal: Journal, stream: Stream) -> list[object]:
    return [plain(entry) for entry in read_all(journal, stream, journal.acknowledged(stream))]

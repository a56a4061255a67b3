"""The fields of a message: JSON with exact numbers, and total reading of what a stranger sent. No I/O lives here.

The standard library's JSON writer turns a Decimal into a float, which loses the device's digits (2.0 becomes 2).
This writer puts them down verbatim; the reader keeps every number a Decimal.
"""

import base64
import binascii
import json
from collections.abc import Mapping
from decimal import Decimal
from enum import IntEnum, StrEnum
from json.encoder import encode_basestring_ascii as _quoted
from math import isfinite
from typing import TypeVar

Json = (
    Mapping[str, "Json"]
    | list["Json"]
    | tuple["Json", ...]
    | str
    | bool
    | int
    | float
    | Decimal
    | bytes
    | None
)
_Choice = TypeVar("_Choice", bound=StrEnum)
_Number = TypeVar("_Number", bound=IntEnum)

INTEGER_LIMIT = 2**64
"""No count, code or nanosecond time reaches it; a longer run of digits is refused before it costs anything."""
SHOWN = 48
"""How much of a wrong value an error text repeats."""


class PayloadError(ValueError):
    """A message that is not what it should be. The sender is at fault, or the wire."""

    def __init__(self, what: str, got: str, expected: str) -> None:
        super().__init__(f"{what}: got {got}, expected {expected}")
        self.what = what
        self.got = got
        self.expected = expected


class Hex(bytes):
    """Bytes that JSON shows in hexadecimal digits; all others it shows in base64."""

    __slots__ = ()


def dumps(value: Json) -> str:
    """Compact ASCII JSON. Decimals keep their digits; a float that is no number becomes null."""
    match value:
        case str():
            return _quoted(value)
        case None | bool():
            return json.dumps(value)
        case Decimal():
            return str(value) if value.is_finite() else "null"
        case float():
            return repr(value) if isfinite(value) else "null"
        case int():
            return int.__repr__(value)
        case Hex():
            return f'"{value.hex()}"'
        case bytes():
            return f'"{base64.b64encode(value).decode("ascii")}"'
        case list() | tuple():
            return "[" + ",".join(dumps(item) for item in value) + "]"
        case _:
            return "{" + ",".join(f"{_quoted(k)}:{dumps(v)}" for k, v in value.items()) + "}"


def loads(data: bytes) -> "Fields":
    """The one JSON object in `data`. Raises PayloadError, and nothing else, for any other bytes."""
    try:
        value = json.loads(
            data.decode("utf-8"),
            parse_float=Decimal,
            parse_int=Decimal,
            parse_constant=_no_constant,
        )
    except UnicodeDecodeError as error:
        raise PayloadError("message", f"byte {error.start} outside UTF-8", "UTF-8 JSON") from None
    except (ValueError, ArithmeticError, RecursionError) as error:
        raise PayloadError("message", str(error)[:SHOWN], "one JSON object") from None
    return Fields(value, "message")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


class Fields:
    """A JSON object that is read field by field; every method raises PayloadError where the field is wrong."""

    def __init__(self, value: object, path: str) -> None:
        if not isinstance(value, dict):
            raise PayloadError(path, type(value).__name__, "an object")
        self._value = value
        self._path = path

    def _wrong(self, key: str, expected: str) -> PayloadError:
        got = "nothing"
        if key in self._value:
            value = self._value[key]
            got = repr(value)[:SHOWN] if isinstance(value, str) else type(value).__name__
        return PayloadError(f"{self._path}.{key}", got, expected)

    def has(self, key: str) -> bool:
        """Whether the field is there and not null."""
        return self._value.get(key) is not None

    def text(self, key: str) -> str:
        """A string."""
        value = self._value.get(key)
        if not isinstance(value, str):
            raise self._wrong(key, "a string")
        return value

    def text_or_none(self, key: str) -> str | None:
        """A string, or None where the field is absent or null."""
        return self.text(key) if self.has(key) else None

    def boolean(self, key: str) -> bool:
        """True or false."""
        value = self._value.get(key)
        if not isinstance(value, bool):
            raise self._wrong(key, "true or false")
        return value

    def decimal(self, key: str) -> Decimal:
        """A number with the digits it was written with."""
        match self._value.get(key):
            case Decimal() as value:
                return value
        raise self._wrong(key, "a number")

    def integer(self, key: str, least: int = -INTEGER_LIMIT) -> int:
        """A whole number written without point or exponent."""
        value = self.decimal(key)
        expected = f"a whole number from {least}" if least > -INTEGER_LIMIT else "a whole number"
        if value.as_tuple().exponent != 0:
            raise self._wrong(key, expected)
        if not least <= value <= INTEGER_LIMIT:
            raise PayloadError(f"{self._path}.{key}", str(value)[:SHOWN], expected)
        return int(value)

    def integer_or_none(self, key: str) -> int | None:
        """A whole number, or None where the field is absent or null."""
        return self.integer(key) if self.has(key) else None

    def choice(self, key: str, kind: type[_Choice]) -> _Choice:
        """A member of a string enumeration."""
        value = self._value.get(key)
        for member in kind:
            if member.value == value:
                return member
        raise self._wrong(key, "one of " + ", ".join(kind))

    def number(self, key: str, kind: type[_Number]) -> _Number:
        """A member of a numeric enumeration."""
        value = self.integer(key)
        try:
            return kind(value)
        except ValueError:
            expected = f"a known {kind.__name__}"
            raise PayloadError(f"{self._path}.{key}", str(value), expected) from None

    def base64(self, key: str) -> bytes:
        """Bytes in base64."""
        try:
            return base64.b64decode(self.text(key), validate=True)
        except (binascii.Error, ValueError):
            raise self._wrong(key, "base64") from None

    def hex(self, key: str) -> bytes:
        """Bytes in hexadecimal digits."""
        try:
            return bytes.fromhex(self.text(key))
        except ValueError:
            raise self._wrong(key, "hexadecimal digits") from None

    def object(self, key: str) -> "Fields":
        """An object."""
        return Fields(self._value.get(key), f"{self._path}.{key}")

    def mapping(self, key: str) -> Mapping[str, Json]:
        """An object as it stands, to be shown or handed on: nothing in it is checked."""
        value = self._value.get(key)
        if not isinstance(value, dict):
            raise self._wrong(key, "an object")
        return value

    def objects(self, key: str) -> list["Fields"]:
        """A list of objects."""
        value = self._value.get(key)
        if not isinstance(value, list):
            raise self._wrong(key, "a list")
        return [Fields(item, f"{self._path}.{key}[{n}]") for n, item in enumerate(value)]

    def spans(self, key: str, most: int) -> tuple[tuple[int, int], ...]:
        """At most so many objects with `first` and `last`, in order and apart."""
        found = tuple(
            (span.integer("first", least=1), span.integer("last", least=1))
            for span in self.objects(key)
        )
        if len(found) > most:
            raise PayloadError(f"{self._path}.{key}", str(len(found)), f"at most {most}")
        after = 0
        for first, last in found:
            if not after < first <= last:
                raise PayloadError(f"{self._path}.{key}", f"{first} to {last}", "spans in order")
            after = last
        return found

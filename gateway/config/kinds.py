"""What more than one table is made of: kinds of values, a file's tables, and how a dataclass is built of them."""

import base64
import binascii
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

import tomli

from gateway.tables import ConfigError, Fault, Kind, Reader, text

NAME = text("1 to 64 of A-Z a-z 0-9 . _ -", r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
HOST = text("a host name or an IP address", r"[A-Za-z0-9.:_-]{1,253}")


PRIME = 2**255 - 19
LOW_ORDER_Y = frozenset(
    {
        0,
        1,
        PRIME - 1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
    }
)
"""The y of the eight points of Ed25519 whose order divides 8. With one of them as the key, anybody can sign."""


def _is_low_order(key: bytes) -> bool:
    return (int.from_bytes(key, "little") & (2**255 - 1)) % PRIME in LOW_ORDER_Y


def _verify_key(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError  # noqa: TRY004 - one kind of error for every wrong value
    try:
        key = base64.b64decode(value, validate=True)
    except binascii.Error as error:
        raise ValueError from error
    if len(key) != 32 or _is_low_order(key):
        raise ValueError
    return value


VERIFY_KEY = Kind(
    "a verify key in base64, as `wardlink key` prints it",
    _verify_key,
    {"type": "string", "pattern": "^[A-Za-z0-9+/]{43}=$"},
)


def read_toml(source: Path) -> Mapping[str, object]:
    """A file's tables. Raises ConfigError when there are none to be read."""
    try:
        return tomli.loads(source.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            (Fault(str(source), error.strerror or "an error", "a readable file"),)
        ) from error
    except (tomli.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError((Fault(str(source), str(error), "TOML in UTF-8"),)) from error


T = TypeVar("T")


def build(shape: type[T], reader: Reader, values: Mapping[str, object]) -> T | None:
    """The dataclass, unless a fault was noted: then its fields may hold what their types forbid."""
    return None if reader.faults else shape(**values)

"""Reading configuration tables: what a key may hold, every fault collected, and the JSON Schema of the same rules.

One description of a key serves three readers: the program, `config/*.schema.json` and the error message.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TypeVar


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing wrong with a configuration: where, what stands there, what should."""

    key: str
    got: str
    expected: str

    def __str__(self) -> str:
        return f"{self.key}: got {self.got}, expected {self.expected}"


class ConfigError(Exception):
    """A configuration that cannot be used. Carries every fault found, not only the first."""

    def __init__(self, faults: tuple[Fault, ...]) -> None:
        super().__init__("\n".join(str(fault) for fault in faults))
        self.faults = faults


@dataclass(frozen=True, slots=True)
class Kind:
    """What a value may be. `parse` raises ValueError when it is not."""

    expected: str
    parse: Callable[[object], object]
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a table."""

    name: str
    kind: Kind
    doc: str
    default: object = None
    required: bool = False


def text(expected: str, pattern: str) -> Kind:
    """A string that matches a pattern as a whole."""

    def parse(value: object) -> str:
        if not isinstance(value, str) or re.fullmatch(pattern, value) is None:
            raise ValueError
        return value

    return Kind(expected, parse, {"type": "string", "pattern": f"^(?:{pattern})$"})


def integer(low: int, high: int, unit: str = "") -> Kind:
    """A whole number within bounds, ends included."""

    def parse(value: object) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError
        return value

    words = f"a whole number from {low} to {high}{' ' + unit if unit else ''}"
    return Kind(words, parse, {"type": "integer", "minimum": low, "maximum": high})


def one_of(choices: type[StrEnum]) -> Kind:
    """A member of an enumeration, by its value."""

    def parse(value: object) -> StrEnum:
        if not isinstance(value, str):
            raise ValueError  # noqa: TRY004 - one kind of error for every wrong value
        return choices(value)

    names = [member.value for member in choices]
    return Kind("one of " + ", ".join(f'"{name}"' for name in names), parse, {"enum": names})


def some_of(choices: type[StrEnum]) -> Kind:
    """A list of members of an enumeration, by their values; each once, and at least one."""
    member = one_of(choices)

    def parse(value: object) -> tuple[StrEnum, ...]:
        if not isinstance(value, list) or not value or len(set(map(str, value))) < len(value):
            raise ValueError
        return tuple(choices(str(member.parse(item))) for item in value)

    rules = {"type": "array", "items": member.schema, "minItems": 1, "uniqueItems": True}
    return Kind(f"a list of {member.expected.removeprefix('one of ')}", parse, rules)


def list_of(kind: Kind) -> Kind:
    """A list of values of one kind, each once; it may be empty."""

    def parse(value: object) -> tuple[object, ...]:
        if not isinstance(value, list):
            raise ValueError  # noqa: TRY004 - one kind of error for every wrong value
        found = tuple(kind.parse(item) for item in value)
        if len(set(found)) < len(found):
            raise ValueError
        return found

    rules = {"type": "array", "items": kind.schema, "uniqueItems": True}
    return Kind(f"a list, each once, of {kind.expected}", parse, rules)


def path(folder: Path) -> Kind:
    """A path; a relative one starts at the folder of the configuration file."""

    def parse(value: object) -> Path:
        if not isinstance(value, str) or not value or "\0" in value:
            raise ValueError
        return folder / value

    return Kind("a path", parse, {"type": "string", "minLength": 1})


def file(folder: Path) -> Kind:
    """A path of a file that is there."""

    def parse(value: object) -> Path:
        found = path(folder).parse(value)
        if not isinstance(found, Path) or not found.is_file():
            raise ValueError
        return found

    return Kind("the path of an existing file", parse, {"type": "string", "minLength": 1})


def show(value: object) -> str:
    """A value as it can stand in an error message: short, and never more than its type when it is long."""
    shown = (
        f"{type(value).__name__} {value!r}"
        if isinstance(value, str | int | float)
        else type(value).__name__
    )
    return shown if len(shown) <= 80 else f"{shown[:77]}..."


T = TypeVar("T")


class Reader:
    """Walks through tables and collects what is wrong."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def fault(self, key: str, got: str, expected: str) -> None:
        """Notes a fault."""
        self.faults.append(Fault(key, got, expected))

    def table(
        self, value: object, at: str, *, required: bool = True
    ) -> Mapping[str, object] | None:
        """The value as a table, or None with a fault."""
        if value is None:
            if required:
                self.fault(at, "nothing", "a table")
            return None
        if not isinstance(value, Mapping):
            self.fault(at, show(value), "a table")
            return None
        return value

    def values(
        self,
        table: Mapping[str, object],
        at: str,
        keys: tuple[Key, ...],
        nested: tuple[str, ...] = (),
    ) -> dict[str, object]:
        """Every key's value, or its default; notes unknown, missing and wrong ones."""
        names = {key.name for key in keys} | set(nested)
        for name in table:
            if name not in names:
                import difflib  # noqa: PLC0415 - for a fault alone

                near = difflib.get_close_matches(name, names, n=1)
                meant = (
                    f'; did you mean "{near[0]}"?'
                    if near
                    else f"; known: {', '.join(sorted(names))}"
                )
                self.fault(f"{at}.{name}".lstrip("."), "an unknown key", f"a known key{meant}")
        return {key.name: self._value(table, at, key) for key in keys}

    def _value(self, table: Mapping[str, object], at: str, key: Key) -> object:
        where = f"{at}.{key.name}".lstrip(".")
        if key.name not in table:
            if key.required:
                self.fault(where, "nothing", key.kind.expected)
            return key.default
        try:
            return key.kind.parse(table[key.name])
        except ValueError:
            self.fault(where, show(table[key.name]), key.kind.expected)
            return key.default


def schema_of(
    keys: tuple[Key, ...], nested: Mapping[str, object] | None = None
) -> dict[str, object]:
    """The JSON Schema of a table with these keys."""
    properties: dict[str, object] = {}
    for key in keys:
        default = {} if key.default is None else {"default": _plain(key.default)}
        properties[key.name] = {**key.kind.schema, "description": key.doc, **default}
    return {
        "type": "object",
        "properties": {**properties, **(nested or {})},
        "required": [key.name for key in keys if key.required],
        "additionalProperties": False,
    }


def _plain(value: object) -> object:
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) else str(value)

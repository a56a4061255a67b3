"""What is configured of a device's signals: facts about its sensor that are not on the wire."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from gateway.tables import Kind

Limits = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Spo2Curve:
    """A sensor's own calibration: SpO2 in percent = c0 + c1 R + c2 R^2 + ...

    Attributes:
        sensor: its name, which stands in each value that was computed with the curve.
        coefficients: c0 first.
        ratio: the range of R in which the maker states it.
    """

    sensor: str
    coefficients: tuple[float, ...]
    ratio: tuple[float, float]


def _limits(value: object) -> Limits:
    match value:
        case [bool(), _] | [_, bool()]:
            raise ValueError
        case [int() as least, int() as most] if least < most:
            return least, most
        case _:
            raise ValueError


def _numbers(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or any(isinstance(item, bool) for item in value):
        raise ValueError
    if not all(isinstance(item, int | float) and math.isfinite(item) for item in value):
        raise ValueError
    return tuple(float(item) for item in value)


def _curve(value: object) -> Spo2Curve:
    if not isinstance(value, Mapping) or value.keys() != {"sensor", "coefficients", "ratio"}:
        raise ValueError
    sensor, coefficients = value["sensor"], _numbers(value["coefficients"])
    least, most = _numbers(value["ratio"])
    if not isinstance(sensor, str) or not 1 <= len(sensor) <= 64 or not sensor.isprintable():
        raise ValueError
    if not 1 <= len(coefficients) <= 6 or not 0 < least < most:
        raise ValueError
    return Spo2Curve(sensor, coefficients, (least, most))


def _list(kind: str, least: int, most: int) -> dict[str, object]:
    return {"type": "array", "items": {"type": kind}, "minItems": least, "maxItems": most}


LIMITS = Kind(
    "two whole numbers, the lower one first, such as [-32768, 32767]",
    _limits,
    _list("integer", 2, 2),
)
CURVE = Kind(
    'a table such as { sensor = "maker and model", coefficients = [c0, c1, c2], ratio = [least, most] }',
    _curve,
    {
        "type": "object",
        "properties": {
            "sensor": {"type": "string", "minLength": 1, "maxLength": 64},
            "coefficients": _list("number", 1, 6),
            "ratio": _list("number", 2, 2),
        },
        "required": ["sensor", "coefficients", "ratio"],
        "additionalProperties": False,
    },
)

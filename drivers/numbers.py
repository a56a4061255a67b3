"""Fields of device packets: a cursor that raises `Malformed` where a packet ends too soon."""

import struct
from decimal import Decimal

from drivers.contract import Malformed
from drivers.model import Special

_SPECIALS = {
    -1: Special.NOT_A_NUMBER,
    0: Special.NOT_AT_THIS_RESOLUTION,
    -2: Special.POSITIVE_INFINITY,
    2: Special.NEGATIVE_INFINITY,
    1: Special.UNKNOWN,  # reserved: nobody says what it means
}
"""By the distance of the mantissa from its sign bit, with exponent 0 (11073-20601; GATT medfloat16, medfloat32)."""


def medfloat(word: int, exponent_bits: int, mantissa_bits: int) -> Decimal | Special:
    """Mantissa x 10^exponent, both with sign; the exponent is the precision, and is kept.

    A word is special as a whole: the same mantissa with another exponent than 0 is a number.
    """
    sign = 1 << (mantissa_bits - 1)
    mantissa, exponent = word & (2 * sign - 1), word >> mantissa_bits
    if exponent == 0 and mantissa - sign in _SPECIALS:
        return _SPECIALS[mantissa - sign]
    value = mantissa - 2 * sign if mantissa & sign else mantissa
    half = 1 << (exponent_bits - 1)
    power = exponent - 2 * half if exponent & half else exponent
    return Decimal((value < 0, tuple(map(int, str(abs(value)))), power))


class Fields:
    """Reads little-endian fields in order; a packet shorter than its own flags imply is malformed."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def _take(self, layout: str) -> int:
        size = struct.calcsize(layout)
        if self.left < size:
            raise Malformed(
                "short",
                self._data,
                f"got {len(self._data)} bytes, expected {self._at + size} or more",
            )
        (number,) = struct.unpack_from(layout, self._data, self._at)
        self._at += size
        return int(number)

    def u8(self) -> int:
        """An unsigned 8-bit integer."""
        return self._take("<B")

    def u16(self) -> int:
        """An unsigned 16-bit integer."""
        return self._take("<H")

    def sfloat(self) -> Decimal | Special:
        """An SFLOAT (medfloat16): 4 bits of exponent, 12 of mantissa."""
        return medfloat(self._take("<H"), 4, 12)

    def float32(self) -> Decimal | Special:
        """A FLOAT (medfloat32): 8 bits of exponent, 24 of mantissa."""
        return medfloat(self._take("<I"), 8, 24)

    @property
    def left(self) -> int:
        """Bytes not read yet."""
        return len(self._data) - self._at

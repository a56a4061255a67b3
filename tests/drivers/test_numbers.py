"""SFLOAT and FLOAT against public vectors; every word of both against the rule worked with fractions."""

from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.contract import Malformed
from drivers.model import Special
from drivers.numbers import Fields


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("01 02", "513"),
        ("01 FE", "-51.1"),
        ("FF 02", "767"),
        ("70 F8", "-193.6"),
        ("B0 F0", "17.6"),
        ("FF F7", "204.7"),  # the mantissa of NaN with another exponent is a number
        ("64 F0", "10.0"),  # the exponent is the precision
        ("0A 00", "10"),
        ("01 10", "1E+1"),
        ("00 F0", "0.0"),
    ],
)
def test_sfloat(data: str, text: str) -> None:
    assert str(Fields(bytes.fromhex(data)).sfloat()) == text


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("6C 01 00 FF", "36.4"),
        ("B0 0E 00 FE", "37.60"),
        ("71 0E 00 FE", "36.97"),
        ("D8 03 00 FF", "98.4"),
        ("FF FF FF 7F", "-1E+127"),
    ],
)
def test_float(data: str, text: str) -> None:
    assert str(Fields(bytes.fromhex(data)).float32()) == text


SPECIALS = {
    "FF 07": Special.NOT_A_NUMBER,
    "00 08": Special.NOT_AT_THIS_RESOLUTION,
    "FE 07": Special.POSITIVE_INFINITY,
    "02 08": Special.NEGATIVE_INFINITY,
    "01 08": Special.UNKNOWN,
    "FF FF 7F 00": Special.NOT_A_NUMBER,
    "00 00 80 00": Special.NOT_AT_THIS_RESOLUTION,
    "FE FF 7F 00": Special.POSITIVE_INFINITY,
    "02 00 80 00": Special.NEGATIVE_INFINITY,
    "01 00 80 00": Special.UNKNOWN,
}


@pytest.mark.parametrize(("data", "special"), SPECIALS.items())
def test_specials(data: str, special: Special) -> None:
    fields = Fields(bytes.fromhex(data))
    assert (fields.sfloat() if len(data) == 5 else fields.float32()) is special
    assert fields.left == 0


def value(word: int, bits: int, mantissa_bits: int) -> Fraction:
    mantissa, exponent = word % (1 << mantissa_bits), word >> mantissa_bits
    mantissa -= (mantissa >> (mantissa_bits - 1)) << mantissa_bits
    exponent -= (exponent >> (bits - mantissa_bits - 1)) << (bits - mantissa_bits)
    return mantissa * Fraction(10) ** exponent


def test_every_sfloat() -> None:
    special = 0
    for word in range(1 << 16):
        number = Fields(word.to_bytes(2, "little")).sfloat()
        if isinstance(number, Special):
            special += 1
            continue
        assert Fraction(number) == value(word, 16, 12)
    assert special == 5


@given(st.integers(0, (1 << 32) - 1))
def test_any_float(word: int) -> None:
    number = Fields(word.to_bytes(4, "little")).float32()
    if isinstance(number, Decimal):
        assert Fraction(number) == value(word, 32, 24)


def test_too_short_is_malformed() -> None:
    with pytest.raises(Malformed):
        Fields(b"\x01").sfloat()

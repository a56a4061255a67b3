"""CBOR (RFC 8949) that a stranger sent: exact numbers, and total reading.

Read are arrays, text, byte strings, numbers and decimal fractions (tag 4). The codec knows some twenty more tags, and a
regular expression or a number of a hundred thousand digits costs seconds: they are refused unread.
"""

import io
from decimal import Decimal

import cbor2

from gateway.uplink.fields import SHOWN, PayloadError

DEPTH = 9
"""Deepest is a digit: records, entries, entry, value, parts, part, tag, decimal fraction, tag."""
EXPECTED = "one CBOR item of text, bytes and numbers in arrays"
MANTISSA_BYTES = 64
"""Some 150 decimal digits; no measurement has them."""
BIGNUM, NEGATIVE_BIGNUM, FRACTION = 2, 3, 4
KNOWN_TO_THE_CODEC = (
    *(0, 1, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54),
    *(100, 256, 258, 260, 261, 1004, 43000, 55799),
)


def loads(data: bytes) -> object:
    """The one item in `data`. Raises PayloadError, and nothing else, for any other bytes."""
    decoder = cbor2.CBORDecoder(
        io.BytesIO(data),
        tag_hook=_refused,
        semantic_decoders=TAGS,
        max_depth=DEPTH,
        allow_duplicate_keys=False,
        strict_hashable_types=True,
    )
    try:
        value: object = decoder.decode()
    except (cbor2.CBORError, ValueError, TypeError, ArithmeticError, RecursionError) as error:
        # The codec answers hostile bytes with several types of exception.
        raise PayloadError("message", str(error)[:SHOWN], EXPECTED) from None
    try:
        decoder.read(1)
    except cbor2.CBORDecodeEOF:
        return value
    raise PayloadError("message", "more behind it", EXPECTED)


def _refused(_value: object, _immutable: object) -> None:
    raise ValueError("unexpected tag")


def _bignum(value: object, _immutable: object) -> int:
    if not isinstance(value, bytes) or len(value) > MANTISSA_BYTES:
        raise ValueError("unexpected bignum")
    return int.from_bytes(value)


def _negative_bignum(value: object, immutable: object) -> int:
    return -1 - _bignum(value, immutable)


def _fraction(value: object, _immutable: object) -> Decimal:
    match value:
        case [int() as exponent, int() as mantissa] if not isinstance(exponent, bool):
            sign, digits = int(mantissa < 0), tuple(int(digit) for digit in str(abs(mantissa)))
            return Decimal((sign, digits, exponent))
        case _:
            raise ValueError("unexpected decimal fraction")


TAGS = dict.fromkeys(KNOWN_TO_THE_CODEC, _refused) | {
    BIGNUM: _bignum,
    NEGATIVE_BIGNUM: _negative_bignum,
    FRACTION: _fraction,
}

"""Hostile CBOR costs an error: never an exception of another kind, never seconds, never memory."""

import time

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.uplink import cbor
from gateway.uplink.fields import PayloadError
from gateway.uplink.payload import decode

BIG = b"\x5a\x00\x01\x80\x00" + b"\xff" * 98_304
"""A byte string as long as the longest message."""
HOSTILE = {
    "nothing": b"",
    "array without end": b"\x9b" + b"\xff" * 8,
    "map without end": b"\xbb\x7f" + b"\xff" * 7,
    "text without end": b"\xa1\x61a\x7b\x7f" + b"\xff" * 7,
    "bytes without end": b"\xa1\x61a\x5b\x7f" + b"\xff" * 7,
    "deep arrays": b"\x81" * 100_000,
    "deeper than a message": b"\xa1\x61a" + b"\x81" * cbor.DEPTH + b"\x01",
    "deep maps": b"\xa1\x61a" * 100_000,
    "deep tags": b"\xc4" * 100_000,
    "huge number": b"\xa1\x61a\xc2" + BIG,
    "huge negative number": b"\xa1\x61a\xc3" + BIG,
    "huge digits": b"\xa1\x61a\xc4\x82\x00\xc2" + BIG,
    "huge exponent": b"\xa1\x61a\xc4\x82\x1b" + b"\x7f" + b"\xff" * 7 + b"\x01",
    "huge bigfloat": b"\xa1\x61a\xc5\x82\x1a\x00\xff\xff\xff\x01",
    "rational": b"\xa1\x61a\xd8\x1e\x82\x01\x03",
    "regular expression": b"\xa1\x61a\xd8\x23\x66(a+)+$",
    "date": b"\xa1\x61a\xc1\x00",
    "shared reference": b"\xd8\x1c\xa1\x61a\xd8\x1d\x00",
    "string reference": b"\xd9\x01\x00\xa1\x61a\xd8\x19\x00",
    "set": b"\xa1\x61a\xd9\x01\x02\x80",
    "unknown tag": b"\xa1\x61a\xd9\x27\x0f\x01",
    "key that is no text": b"\xa1\x01\x01",
    "a key twice": b"\xa2\x61a\x01\x61a\x02",
    "no UTF-8": b"\xa1\x61\xff\x01",
    "more behind it": b"\xa0\x00",
    "two maps": b"\xa0\xa0",
    "break alone": b"\xff",
}


@pytest.mark.parametrize("data", HOSTILE.values(), ids=list(HOSTILE))
def test_what_no_hub_writes_is_refused_at_once(data: bytes) -> None:
    began = time.process_time()
    with pytest.raises(PayloadError):
        cbor.loads(data)
    assert time.process_time() - began < 0.5


def test_every_tag_but_that_of_numbers_is_refused() -> None:
    for tag in range(70_000):
        if tag not in {2, 3, 4}:
            with pytest.raises(PayloadError):
                cbor.loads(b"\xa1\x61a" + cbor2.dumps(cbor2.CBORTag(tag, 0)))


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", b"\xbf", b"\xa1\x61a"]))
def test_any_bytes_give_fields_or_a_payload_error(data: bytes, before: bytes) -> None:
    for read in (cbor.loads, decode):
        try:
            read(before + data)
        except PayloadError:
            continue


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.binary()
    | st.decimals()
)
NESTED = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@settings(max_examples=200, deadline=None)
@given(NESTED)
def test_any_other_item_is_no_message(value: object) -> None:
    for data in (cbor2.dumps(value), b"\xbf\x66schema" + cbor2.dumps(value) + b"\xff"):
        with pytest.raises(PayloadError):
            decode(data)

"""A receipt comes back as it went out, and no bytes make its reader raise anything but PayloadError."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.entry import Stream
from gateway.receiver.ledger import MAX_HOLES as LEDGER_HOLES
from gateway.uplink.fields import PayloadError
from gateway.uplink.receipt import MAX_HOLES, Held, Receipt

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)


@st.composite
def held(draw: st.DrawFn) -> Held:
    edges = sorted(draw(st.sets(st.integers(1, 2**64), max_size=12)))
    holes = tuple(zip(edges[::2], edges[1::2], strict=False))
    return Held(draw(st.integers(0, 2**64)), holes)


RECEIPTS = st.builds(
    Receipt, st.text(), st.text(), st.text(), st.dictionaries(st.sampled_from(Stream), held())
)
GOOD = Receipt("hub-1", "r-1", "e1", {Stream.VITALS: Held(41, ((3, 4), (9, 9)))})


def changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(GOOD.encode()) | changes).encode()


@settings(max_examples=200)
@given(RECEIPTS)
def test_there_and_back(receipt: Receipt) -> None:
    assert Receipt.decode(receipt.encode()) == receipt


@settings(max_examples=300, deadline=None)
@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_give_a_payload_error_at_worst(data: bytes) -> None:
    with contextlib.suppress(PayloadError):
        Receipt.decode(data)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(["schema", "hub", "receiver", "epoch", "streams"]), JSON)
def test_any_value_in_a_field_gives_a_payload_error_at_worst(field: str, value: object) -> None:
    with contextlib.suppress(PayloadError):
        Receipt.decode(changed(**{field: value}))


@pytest.mark.parametrize(
    "part",
    [
        {"high": -1, "holes": []},
        {"high": 1.5, "holes": []},
        {"high": 9},
        {"high": 9, "holes": [{"first": 0, "last": 1}]},
        {"high": 9, "holes": [{"first": 4, "last": 3}]},
        {"high": 9, "holes": [{"first": 4, "last": 5}, {"first": 1, "last": 2}]},
        {"high": 9, "holes": [{"first": 4, "last": 5}, {"first": 5, "last": 6}]},
    ],
)
def test_a_part_that_cannot_be_is_refused(part: dict[str, Any]) -> None:
    with pytest.raises(PayloadError):
        Receipt.decode(changed(streams={"vitals": part}))


def test_another_schema_is_refused() -> None:
    with pytest.raises(PayloadError, match="schema"):
        Receipt.decode(changed(schema="wardlink.receipt/2"))


def test_a_stream_of_a_later_version_is_passed_over() -> None:
    assert Receipt.decode(changed(streams={"sleep": {"high": 1, "holes": []}})).streams == {}


def test_every_hole_that_a_receiver_keeps_fits_in_and_no_more() -> None:
    assert LEDGER_HOLES <= MAX_HOLES
    holes = tuple((2 * n + 1, 2 * n + 1) for n in range(MAX_HOLES + 1))
    most = Receipt("h", "r", "e", {stream: Held(2**40, holes[:-1]) for stream in Stream})
    assert Receipt.decode(most.encode()) == most
    with pytest.raises(PayloadError, match="holes"):
        Receipt.decode(Receipt("h", "r", "e", {Stream.ALARM: Held(2**40, holes)}).encode())


def test_the_topic_has_no_more_than_seven_slashes() -> None:
    assert Receipt.topic("ward", "hub-1", "r-1") == "wardlink/1/ward/hub-1/receipt/r-1"

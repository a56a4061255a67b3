"""Every record comes back as it was; any bytes at all give records or a JournalError."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.assigned import BodySite, Code, Unit
from drivers.model import (
    Bits,
    ClockChange,
    ClockReading,
    ClockState,
    Coded,
    Compound,
    Decoded,
    Event,
    EventKind,
    Mode,
    Observation,
    Origin,
    Quality,
    Quantity,
    Raw,
    SampleArray,
    Special,
    Validity,
)
from gateway.journal.errors import JournalError
from gateway.journal.records import decode_batch, encode_entry, join

TEXT = st.text(st.characters(codec="utf-8"), max_size=12)
INTEGERS = st.integers(-(2**63), 2**63 - 1)
DECIMALS = st.decimals(allow_nan=False, allow_infinity=False)
CODES = st.sampled_from(Code)
QUANTITIES = st.builds(Quantity, DECIMALS | st.sampled_from(Special), st.sampled_from(Unit))
SAMPLES = st.builds(
    SampleArray,
    st.binary(max_size=20).map(lambda data: data * 4),
    st.sampled_from([2, 4]),
    INTEGERS,
    st.sampled_from(Unit),
    DECIMALS,
    DECIMALS,
)
VALUES = (
    QUANTITIES
    | st.builds(Compound, st.lists(st.tuples(CODES, QUANTITIES), max_size=3).map(tuple))
    | SAMPLES
    | st.builds(Coded, INTEGERS)
    | st.builds(Bits, INTEGERS, INTEGERS)
)
QUALITIES = st.builds(
    Quality,
    st.sampled_from(Validity),
    st.sampled_from(Mode),
    st.none() | st.floats(0, 1),
    st.none() | TEXT,
)
OBSERVATIONS = st.builds(
    Observation,
    CODES,
    VALUES,
    INTEGERS,
    QUALITIES,
    st.sampled_from(Origin),
    st.none() | TEXT,
    st.none() | st.sampled_from(BodySite),
    st.none() | st.builds(Decoded, INTEGERS, INTEGERS, INTEGERS, st.none() | TEXT),
)
RAWS = st.builds(Raw, TEXT, st.binary(max_size=20), INTEGERS, INTEGERS)
READINGS = st.builds(
    ClockReading, INTEGERS, INTEGERS, st.sampled_from(ClockState), st.none() | INTEGERS
)
EVENTS = st.builds(
    Event,
    st.sampled_from(EventKind),
    INTEGERS,
    TEXT,
    TEXT,
    st.binary(max_size=20),
    st.none() | CODES,
    st.none() | INTEGERS,
    st.none() | INTEGERS,
    st.none() | INTEGERS,
    st.none() | st.builds(ClockChange, st.none() | READINGS, READINGS),
)


@given(
    st.lists(
        st.tuples(TEXT, st.none() | TEXT, OBSERVATIONS | EVENTS | RAWS), min_size=1, max_size=4
    )
)
@settings(max_examples=150)
def test_records_come_back_as_they_were(items: list[tuple[str, str | None, Observation]]) -> None:
    batch = join([encode_entry(device, subject, record) for device, subject, record in items])
    entries = decode_batch(batch, 7)
    assert [(e.device, e.subject, e.record) for e in entries] == items
    assert [repr(e.record) for e in entries] == [repr(record) for *_, record in items]
    assert [e.sequence for e in entries] == list(range(7, 7 + len(items)))


def test_the_versions_before_are_read() -> None:
    event = Event(EventKind.GAP, 5, "resync", "text", b"data", None, 1, 2, 3)
    batch = bytearray(join([encode_entry("d", None, event)]))
    assert batch[1] == 3
    for version in (1, 2):
        batch[1] = version
        [entry] = decode_batch(bytes(batch), 1)
        assert entry.record == event


@pytest.mark.parametrize("text", ["2", "2.0", "-0", "-0.0", "0.00", "1E+3", "-1.50"])
def test_a_decimal_keeps_its_digits(text: str) -> None:
    record = Observation(Code.TEMP_BODY, Quantity(Decimal(text), Unit.DEGC), 0)
    [entry] = decode_batch(join([encode_entry("d", None, record)]), 1)
    assert isinstance(entry.record, Observation)
    assert isinstance(entry.record.value, Quantity)
    assert str(entry.record.value.value) == text


def test_a_number_that_is_none_is_refused() -> None:
    record = Observation(Code.TEMP_BODY, Quantity(Decimal("NaN"), Unit.DEGC), 0)
    with pytest.raises(JournalError, match="finite"):
        encode_entry("d", None, record)


def test_text_that_is_no_unicode_is_refused() -> None:
    with pytest.raises(JournalError, match="not encodable"):
        encode_entry("d", None, Event(EventKind.FAULT, 0, "x", text="\udc80"))


@given(st.binary(max_size=200))
@settings(max_examples=250)
def test_any_bytes_are_refused_or_read(data: bytes) -> None:
    with suppress(JournalError):
        decode_batch(data, 1)


@given(OBSERVATIONS | EVENTS, st.data())
@settings(max_examples=250)
def test_a_changed_batch_is_refused_or_read(record: Observation, data: st.DataObject) -> None:
    batch = bytearray(join([encode_entry("d", None, record)]))
    for _ in range(data.draw(st.integers(1, 3))):
        batch[data.draw(st.integers(0, len(batch) - 1))] = data.draw(st.integers(0, 255))
    with suppress(JournalError):
        decode_batch(bytes(batch), 1)


def test_a_later_version_is_named() -> None:
    with pytest.raises(JournalError, match="version 4, expected 1 to 3"):
        decode_batch(b"\x82\x04\x80", 1)

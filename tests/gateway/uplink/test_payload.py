import contextlib
import json
from decimal import Decimal
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.assigned import LOINC, BodySite, Code, Unit
from drivers.model import (
    Bits,
    ClockChange,
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
    Record,
    SampleArray,
    Special,
    Validity,
)
from gateway.clock import ClockReading, ClockState
from gateway.journal.entry import Batch, Entry, Stream
from gateway.uplink.fields import PayloadError, dumps, loads
from gateway.uplink.payload import decode
from gateway.uplink.slices import slices
from gateway.uplink.times import iso_time
from tests.gateway.uplink.bench import MemoryJournal

NS = st.integers(-(2**63), 2**63)
NATURAL = st.integers(0, 2**63)
DECIMALS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.sampled_from([Decimal(t) for t in ("2", "2.0", "-0", "-0.0", "1E+3", "0E-10", "1E-999999")]),
)
QUANTITIES = st.builds(Quantity, DECIMALS | st.sampled_from(Special), st.sampled_from(Unit))
CODES = st.sampled_from(Code)


@st.composite
def sample_arrays(draw: st.DrawFn) -> SampleArray:
    width = draw(st.sampled_from([2, 4]))
    data = draw(st.binary(max_size=40))
    data = data[: len(data) - len(data) % width]
    unit = draw(st.sampled_from(Unit))
    return SampleArray(data, width, draw(NS), unit, draw(DECIMALS), draw(DECIMALS))


VALUES = st.one_of(
    QUANTITIES,
    st.builds(Compound, st.lists(st.tuples(CODES, QUANTITIES), max_size=3).map(tuple)),
    sample_arrays(),
    st.builds(Coded, NATURAL),
    st.builds(Bits, NATURAL, NATURAL),
)
QUALITIES = st.builds(
    Quality,
    st.sampled_from(Validity),
    st.sampled_from(Mode),
    st.none() | st.floats(0, 1),
    st.none() | st.text(),
)
OBSERVATIONS = st.builds(
    Observation,
    CODES,
    VALUES,
    NS,
    QUALITIES,
    st.sampled_from(Origin),
    st.none() | st.text(),
    st.none() | st.sampled_from(BodySite),
    st.none() | st.builds(Decoded, st.integers(1, 2**60), NATURAL, NATURAL, st.none() | st.text()),
)
RAWS = st.builds(Raw, st.text(), st.binary(max_size=20), NS, NS)
READINGS = st.builds(ClockReading, NS, NS, st.sampled_from(ClockState), st.none() | NATURAL)
EVENTS = st.builds(
    Event,
    st.sampled_from(EventKind),
    NS,
    st.text(),
    st.text(),
    st.binary(max_size=20),
    st.none() | CODES,
    st.none() | NS,
    st.none() | NS,
    st.none() | NATURAL,
    st.none() | st.builds(ClockChange, st.none() | READINGS, READINGS),
)


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    first = draw(st.integers(1, 2**60))
    records = draw(st.lists(OBSERVATIONS | EVENTS | RAWS, min_size=1, max_size=4))
    entries = tuple(
        Entry(first + n, draw(st.text(max_size=8)), record, draw(st.none() | st.text(max_size=8)))
        for n, record in enumerate(records)
    )
    reading = ClockReading(
        draw(NATURAL), draw(NS), draw(st.sampled_from(ClockState)), draw(st.none() | NATURAL)
    )
    names = st.text(max_size=12)
    return Batch(
        draw(names), draw(st.sampled_from(Stream)), draw(names), draw(names), reading, entries
    )


def whole(batch: Batch) -> bytes:
    (piece,) = slices(batch, 0, 7, 10**9)
    return piece.payload


def one(record: Record, state: ClockState = ClockState.SYNCHRONISED) -> dict[str, object]:
    reading = ClockReading(0, 1_800_000_000_000_000_000, state)
    batch = Batch("h", Stream.VITALS, "e", "b", reading, (Entry(1, "belt", record, "p"),))
    entry = json.loads(whole(batch))["entries"][0]
    assert isinstance(entry, dict)
    return entry


def same_digits(left: Batch, right: Batch) -> bool:
    """Decimal equality does not tell 2 from 2.0; repr does."""
    return left == right and repr(left) == repr(right)


@settings(max_examples=50, deadline=None)
@given(batches(), st.integers(200, 4000))
def test_every_record_comes_back_exactly_whatever_the_slicing(batch: Batch, limit: int) -> None:
    pieces = list(slices(batch, 0, batch.last_sequence, limit))
    entries: list[Entry] = []
    for piece in pieces:
        message = decode(piece.payload)
        assert message.high_water == batch.last_sequence
        assert message.batch.first_sequence == piece.first == batch.first_sequence + len(entries)
        assert message.batch.last_sequence == piece.last
        assert len(piece.payload) <= limit or piece.count == 1
        entries.extend(message.batch.entries)
    rebuilt = Batch(
        batch.hub, batch.stream, batch.epoch, batch.boot_id, batch.clock, tuple(entries)
    )
    assert same_digits(rebuilt, batch)


def test_no_slice_is_longer_than_its_limit_or_shorter_than_it_must_be() -> None:
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 60)
    (batch,) = journal.batches[Stream.VITALS]
    least = len(whole(batch)) // 40
    for limit in range(2 * least, 8000, 61):
        pieces = list(slices(batch, 0, 60, limit))
        assert sum(piece.count for piece in pieces) == 60
        for piece in pieces:
            assert len(piece.payload) <= limit or piece.count == 1
        for piece, behind in pairwise(pieces):
            # Digits of the head's numbers may differ by a few bytes.
            next_bytes = len(behind.payload) // behind.count
            assert len(piece.payload) + next_bytes > limit - 40


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
def test_any_bytes_give_a_message_or_a_payload_error(data: bytes) -> None:
    with pytest.raises(PayloadError):
        decode(data)


@settings(max_examples=50, deadline=None)
@given(batches(), st.data())
def test_a_damaged_message_gives_a_message_or_a_payload_error(
    batch: Batch, data: st.DataObject
) -> None:
    message = bytearray(whole(batch))
    telling = st.sampled_from(b'0"{}[],:.eE-9nt\xff')
    for _ in range(data.draw(st.integers(1, 4))):
        message[data.draw(st.integers(0, len(message) - 1))] = data.draw(telling)
    with contextlib.suppress(PayloadError):
        decode(bytes(message))


@settings(max_examples=50, deadline=None)
@given(batches(), st.data())
def test_any_field_may_be_of_any_type(batch: Batch, data: st.DataObject) -> None:
    message = json.loads(whole(batch))
    target = data.draw(st.sampled_from([message, message["clock"], message["entries"][0]]))
    key = data.draw(st.sampled_from(sorted(target)))
    target[key] = data.draw(
        st.sampled_from([None, True, "x", 1e400, 2**70, -1, [], {}, [1], [{}], {"a": 1}])
    )
    with contextlib.suppress(PayloadError):
        decode(json.dumps(message).encode())


@pytest.mark.parametrize(
    "data",
    [
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"schema":1e99999999999999999999}',
        b"{}",
        b"1",
        b"NaN",
        b"\xff",
    ],
    ids=["deep list", "deep object", "huge exponent", "empty", "number", "NaN", "not UTF-8"],
)
def test_nasty_bytes(data: bytes) -> None:
    with pytest.raises(PayloadError):
        decode(data)


def test_a_huge_exponent_in_an_integer_field_costs_nothing() -> None:
    batch = Batch(
        "h",
        Stream.AUDIT,
        "e",
        "b",
        ClockReading(1, 2, ClockState.UNSET),
        (Entry(1, "", Event(EventKind.STARTED, 5, "x")),),
    )
    data = whole(batch).replace(b'"high_water":7', b'"high_water":1e999999999')
    with pytest.raises(PayloadError, match="high_water"):
        decode(data)


def test_numbers_stand_with_the_digits_of_the_device() -> None:
    assert (
        dumps({"a": Decimal("2.0"), "b": Decimal(2), "c": Decimal("36.60")})
        == '{"a":2.0,"b":2,"c":36.60}'
    )
    assert str(loads(b'{"a":36.60}').decimal("a")) == "36.60"


def test_a_vital_sign_says_everything_that_a_reader_needs() -> None:
    record = Observation(
        Code.ECG_HEART_RATE,
        Quantity(Decimal(72), Unit.BEAT_PER_MIN),
        1_000_000,
        Quality(mode=Mode.DEMO, sqi=0.5),
        body_site=BodySite.CHEST,
    )
    assert one(record) == {
        "sequence": 1,
        "device": "belt",
        "subject": "p",
        "type": "observation",
        "code": 147842,
        "name": "MDC_ECG_HEART_RATE",
        "loinc": "8867-4",
        "shape": "quantity",
        "value": 72,
        "unit": "/min",
        "unit_code": 264864,
        "time": "2027-01-15T08:00:00.001000Z",
        "clock": "synchronised",
        "boottime_ns": 1_000_000,
        "validity": "valid",
        "mode": "demo",
        "origin": "device",
        "sqi": 0.5,
        "body_site": 1,
        "body_site_name": "chest",
    }
    assert LOINC[Code.ECG_HEART_RATE] == "8867-4"


def test_what_is_no_number_is_null_with_its_name() -> None:
    fields = one(
        Observation(Code.TEMP_BODY, Quantity(Special.NOT_AT_THIS_RESOLUTION, Unit.DEGC), 0)
    )
    assert (fields["value"], fields["special"]) == (None, "nres")


@pytest.mark.parametrize(
    ("text", "special"),
    [("NaN", "nan"), ("-Infinity", "-inf"), ("Infinity", "+inf"), ("sNaN", "nan")],
)
def test_a_decimal_that_is_no_number_does_not_stop_the_stream(text: str, special: str) -> None:
    fields = one(Observation(Code.TEMP_BODY, Quantity(Decimal(text), Unit.DEGC), 0))
    assert (fields["value"], fields["special"]) == (None, special)


def test_a_wall_time_never_stands_without_the_state_of_its_clock() -> None:
    record = Observation(Code.TEMP_BODY, Quantity(Decimal("36.6"), Unit.DEGC), 0)
    assert one(record, ClockState.UNSET)["clock"] == "unset"
    event = Event(EventKind.GAP, 0, "resync", lost=3)
    assert one(event, ClockState.RESTORED)["clock"] == "restored"


def test_an_unknown_unit_gets_no_ucum_name() -> None:
    fields = one(Observation(Code.TEMP_BODY, Quantity(Decimal(1), Unit.NOS), 0))
    assert (fields["unit"], fields["unit_code"]) == (None, 262144)


def test_times_outside_the_calendar_are_unknown() -> None:
    assert iso_time(2**70) is None
    assert iso_time(-1) == "1969-12-31T23:59:59.999999Z"

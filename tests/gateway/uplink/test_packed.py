"""Batches packed as the journal wrote them: exactly what JSON says comes out, and nothing else gets in."""

import contextlib
import time
import zlib
from collections.abc import Sequence
from dataclasses import replace
from decimal import Decimal
from typing import cast

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quantity
from gateway.clock import ClockReading, ClockState
from gateway.journal.entry import Batch, Entry, PackedBatch, Stream
from gateway.uplink.fields import PayloadError
from gateway.uplink.packed import (
    MAX_INFLATED_BYTES,
    UndecodableError,
    packed_slices,
    unpacked,
)
from gateway.uplink.payload import Message, decode
from gateway.uplink.signature import PACKED
from gateway.uplink.slices import Slice, slices
from tests.gateway.uplink.bench import packed
from tests.gateway.uplink.test_payload import READINGS, batches, same_digits

READING = ClockReading(5, 1_800_000_000_000_000_000, ClockState.SYNCHRONISED, 7)


@st.composite
def followed(draw: st.DrawFn) -> list[Batch]:
    """Batches of one stream that follow each other; boot and clock are each one's own."""
    found = draw(st.lists(batches(), min_size=1, max_size=4))
    head, at = found[0], found[0].first_sequence
    row = []
    for one in found:
        entries = tuple(replace(entry, sequence=at + n) for n, entry in enumerate(one.entries))
        row.append(
            replace(
                one,
                hub=head.hub,
                stream=head.stream,
                epoch=head.epoch,
                entries=entries,
                stamped=draw(st.none() | READINGS),
            )
        )
        at += len(entries)
    return row


def vitals(first: int, count: int) -> Batch:
    entries = tuple(
        Entry(
            n,
            "belt",
            Observation(Code.ECG_HEART_RATE, Quantity(Decimal(n % 90), Unit.BEAT_PER_MIN), n),
            "p-1",
        )
        for n in range(first, first + count)
    )
    return Batch("hub-1", Stream.VITALS, "e1", "boot-1", READING, entries)


def pack(row: Sequence[Batch]) -> list[PackedBatch]:
    return [packed(batch) for batch in row]


def cut(row: Sequence[Batch], first: int, last: int, limit_bytes: int) -> list[Slice]:
    return [*packed_slices(pack(row), (first, last), 9, limit_bytes)]


def one(row: Sequence[Batch]) -> bytes:
    (piece,) = cut(row, 1, row[-1].last_sequence, 10**9)
    return piece.payload


def body(payload: bytes) -> list[object]:
    found = cbor2.loads(zlib.decompress(payload[len(PACKED) :]))
    assert isinstance(found, list)
    return found


def message(fields: object) -> bytes:
    return PACKED + zlib.compress(cbor2.dumps(fields))


def read(payload: bytes) -> list[Batch]:
    parts = unpacked(payload)
    assert all(isinstance(part, Message) for part in parts)
    return [part.batch for part in parts]


# --- The same as JSON ----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(followed())
def test_every_record_comes_out_as_json_says_it(row: list[Batch]) -> None:
    said = [decode(piece.payload) for batch in row for piece in slices(batch, 0, 9, 10**9)]
    parts = unpacked(one(row))
    assert [part.batch for part in parts] == [message.batch for message in said]
    assert repr([part.batch for part in parts]) == repr([message.batch for message in said])
    assert {cast("Message", part).high_water for part in parts} == {9}


@settings(max_examples=80, deadline=None)
@given(followed(), st.integers(0, 4000), st.data())
def test_every_entry_of_a_span_is_in_a_message_within_the_limit(
    row: list[Batch], limit_bytes: int, data: st.DataObject
) -> None:
    low, high = row[0].first_sequence, row[-1].last_sequence
    first = data.draw(st.integers(low, high))
    last = data.draw(st.integers(first, high))
    held = [batch for batch in row if batch.last_sequence >= first]
    at, entries = first, dict[int, Entry]()
    for piece in cut(held, first, last, limit_bytes):
        assert piece.first == at
        at = piece.last + 1
        found = [entry for batch in read(piece.payload) for entry in batch.entries]
        assert len(piece.payload) <= limit_bytes or len(found) == 1
        assert {piece.first, piece.last} <= {entry.sequence for entry in found}
        entries |= {entry.sequence: entry for entry in found}
    assert at == last + 1
    for batch in row:
        for entry in batch.entries:
            if first <= entry.sequence <= last:
                other = replace(batch, entries=(entries[entry.sequence],))
                assert same_digits(other, replace(batch, entries=(entry,)))


def test_many_batches_share_a_message_and_a_record_is_some_ten_bytes() -> None:
    row = [vitals(1 + 10 * n, 10) for n in range(200)]
    (piece,) = cut(row, 1, 2000, 98_304)
    assert (piece.first, piece.count) == (1, 2000)
    assert len(piece.payload) < 2000 * 12
    assert read(piece.payload) == row


def test_one_entry_alone_is_cut_out_of_its_batch() -> None:
    (piece,) = cut([vitals(1, 100)], 100, 100, 0)
    assert (piece.first, piece.last) == (100, 100)
    (found,) = read(piece.payload)
    assert [entry.sequence for entry in found.entries] == [100]


def test_what_cannot_be_read_is_not_cut() -> None:
    (whole,) = pack([vitals(1, 9)])
    (piece,) = packed_slices([replace(whole, records=b"\xff" * 99)], (1, 9), 9, 0)
    assert (piece.first, piece.last) == (1, 9)


def test_the_message_is_as_the_documentation_says() -> None:
    row = [vitals(41, 2), replace(vitals(43, 1), boot_id="boot-2")]
    row[1] = replace(row[1], stamped=ClockReading(1, 2, ClockState.UNSET))
    clock = [5, 1_800_000_000_000_000_000, "synchronised", 7]
    records = [batch.records for batch in pack(row)]
    assert body(one(row)) == [
        "wardlink.batches/1",
        "hub-1",
        "vitals",
        "e1",
        9,
        [
            [41, 2, "boot-1", clock, None, records[0]],
            [43, 1, "boot-2", clock, [1, 2, "unset", None], records[1]],
        ],
    ]


# --- And nothing else ------------------------------------------------------------------------------------

GOOD = one([vitals(1, 3), vitals(4, 2)])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200), st.sampled_from([b"", PACKED, PACKED + b"\x78\x01"]))
def test_any_bytes_are_refused(data: bytes, before: bytes) -> None:
    with pytest.raises(PayloadError):
        unpacked(before + data)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_message_gives_parts_or_a_payload_error(data: st.DataObject) -> None:
    """Damaged outside of the deflated, inside of it, and in the records themselves."""
    plain = bytearray(zlib.decompress(GOOD[len(PACKED) :]))
    for _ in range(data.draw(st.integers(1, 4))):
        plain[data.draw(st.integers(0, len(plain) - 1))] = data.draw(st.integers(0, 255))
    outside = bytearray(GOOD)
    outside[data.draw(st.integers(0, len(outside) - 1))] ^= data.draw(st.integers(1, 255))
    for payload in (bytes(outside), PACKED + zlib.compress(plain)):
        with contextlib.suppress(PayloadError):
            assert unpacked(payload)


STRANGE: list[object] = [None, True, "x", b"x", 1.5, float("nan"), 2**70, -1, 0, [], {}, [1], [[]]]
STRANGE += [{1: 2}, cbor2.CBORTag(35, "(a+)+$"), cbor2.CBORTag(4, [2**70, 1]), cbor2.undefined]


@pytest.mark.parametrize("strange", STRANGE, ids=repr)
def test_any_field_may_be_of_any_type(strange: object) -> None:
    for place in range(6):
        fields = body(GOOD)
        fields[place] = strange
        if not (place in {1, 3} and isinstance(strange, str)) and not (
            place == 4 and type(strange) is int and strange >= 0
        ):
            with pytest.raises(PayloadError):
                unpacked(message(fields))
    for place in range(6):
        fields = body(GOOD)
        cast("list[list[list[object]]]", fields)[5][0][place] = strange
        with contextlib.suppress(PayloadError):
            parts = unpacked(message(fields))
            # A name may be another name, and bytes that are no records are lost as such.
            assert place in {2, 4} or (place == 5 and isinstance(parts[0], UndecodableError))
            assert place != 4 or strange is None


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda f: f.__setitem__(0, "wardlink.batches/2"), "message.schema"),
        (lambda f: f.__setitem__(2, "sleep"), "message.stream"),
        (lambda f: f[5].clear(), "message"),
        (lambda f: f[5].reverse(), "message.batches"),
        (lambda f: f[5].append(f[5][0]), "message.batches"),
        (lambda f: f[5][1].__setitem__(0, 5), "message.batches"),
        (lambda f: f[5][1].__setitem__(1, 10**6), "message.batches"),
        (lambda f: f[5][0].append(1), "message.batches"),
        (lambda f: f[5][0][3].__setitem__(2, "wrong"), "message.batches.clock"),
        (lambda f: f[5][0].__setitem__(4, f[5][0][3][:3]), "message.batches.clock"),
        (lambda f: f.append(1), "message"),
    ],
)
def test_a_field_that_is_wrong_is_named(change: object, what: str) -> None:
    fields = body(GOOD)
    change(fields)  # type: ignore[operator]
    with pytest.raises(PayloadError) as caught:
        unpacked(message(fields))
    assert caught.value.what == what


@pytest.mark.parametrize(
    "payload",
    [GOOD[:-1], GOOD + b"\0", GOOD + GOOD, PACKED, GOOD[len(PACKED) :], GOOD[:-4] + bytes(4)],
    ids=["cut", "more", "twice", "nothing", "no magic", "checksum"],
)
def test_a_part_of_a_message_or_more_is_none(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        unpacked(payload)


def test_a_bomb_is_not_inflated() -> None:
    bomb = PACKED + zlib.compress(bytes(90_000_000), 9)
    assert len(bomb) < 98_304
    began = time.process_time()
    with pytest.raises(PayloadError, match=f"at most {MAX_INFLATED_BYTES}"):
        unpacked(bomb)
    assert time.process_time() - began < 0.5


def test_the_bound_of_what_is_inflated_is_exact() -> None:
    def of(size: int) -> bytes:
        fields = body(GOOD)
        cast("list[list[list[object]]]", fields)[5][0][5] = bytes(size)
        return message(fields)

    over = len(zlib.decompress(of(100_000)[len(PACKED) :])) - 100_000
    assert isinstance(unpacked(of(MAX_INFLATED_BYTES - over))[0], UndecodableError)
    with pytest.raises(PayloadError, match="inflated"):
        unpacked(of(MAX_INFLATED_BYTES - over + 1))


@pytest.mark.parametrize(
    "records",
    [
        b"\xff" * 40,
        b"\x82\x18\x63" + bytes(40),
        cbor2.dumps([3, [["d", None, 2, "s", b"", 1, 1]]]),
        cbor2.dumps([3, [["d", None, 2, "s", b"", cbor2.CBORTag(35, "(a+)+$"), 1]] * 3]),
        cbor2.dumps([3, [["d", None, 2, "s", b"", 2 ** (8 * 9_000), 1]] * 3]),
    ],
    ids=["no CBOR", "a later version", "too few", "a regular expression", "a huge number"],
)
def test_records_that_cannot_be_read_are_lost_and_the_other_batches_are_not(records: bytes) -> None:
    fields = body(GOOD)
    cast("list[list[list[object]]]", fields)[5][0][5] = records
    bad, good = unpacked(message(fields))
    assert isinstance(bad, UndecodableError)
    assert bad.batch.span == (1, 3)
    assert isinstance(good, Message)
    assert good.batch == vitals(4, 2)


@pytest.mark.parametrize("number", [float("inf"), float("nan"), 1.5, True, None, "1", "-1"])
def test_what_is_no_number_is_none(number: object) -> None:
    entry = ["d", None, 0, 147842, [0, number, 264864], 5, None, "device", None, None, None]
    fields = body(GOOD)
    cast("list[list[list[object]]]", fields)[5][0][5] = cbor2.dumps([3, [entry] * 3])
    bad, _ = unpacked(message(fields))
    assert isinstance(bad, UndecodableError)

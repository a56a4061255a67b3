"""Waveforms from a board's bytes to a receiver's store, their samples in blocks: the same, or a loss with a name."""

import asyncio
import base64
import json
import random
import sqlite3
import zlib
from array import array
from collections.abc import Iterable, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import cbor2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.contract import Resume
from drivers.model import Observation, Record, SampleArray
from drivers.registry import all_drivers
from firmware_sim.openview_board import LAYOUTS, encoded, quantised
from firmware_sim.patient import Patient, Plan
from gateway.clock import ClockReading, ClockState, SystemClock
from gateway.conditioner import Conditioner
from gateway.config.broker import Broker
from gateway.config.delivery import Delivery, Payload
from gateway.journal.blocks import HEAD, SampleCodec, pack
from gateway.journal.entry import Batch, Entry, PackedBatch, SealedBatch, Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.reader import JournalReader
from gateway.journal.readers import ClinicKey, Reader
from gateway.journal.records import encode_entry
from gateway.receiver.checks import Checker
from gateway.receiver.dialects import sqlite
from gateway.receiver.intake import Intake
from gateway.receiver.receive import Receiver
from gateway.receiver.sql import SqlStore
from gateway.receiver.store import Store
from gateway.uplink.fields import PayloadError, dumps
from gateway.uplink.packed import BATCHES_MOST, UndecodableError, packed_slices, unpacked
from gateway.uplink.payload import entry_fields
from gateway.uplink.retimed import Retimed
from gateway.uplink.signature import PACKED
from gateway.uplink.wire import Incoming
from gateway.waveform import WaveformCodec
from tests.gateway.journal.builders import SEGMENT, ecg
from tests.gateway.receiver.test_delivery import BRISK
from tests.gateway.uplink.bench import (
    HUB,
    KeptStore,
    lines_store,
    make_uplink,
    running,
    said,
    sealed_slice,
    subscribed,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults

CODEC = WaveformCodec()
CLINIC = ClinicKey.generate()
KEY = HubKey.generate()
VERIFY = {HUB.id: base64.b64encode(KEY.verify_key).decode()}
TOPIC = f"wardlink/1/{HUB.tenant}/{HUB.id}/waveform"
NS_PER_S = 1_000_000_000


def open_for(
    folder: Path, codec: SampleCodec | None = CODEC, readers: tuple[Reader, ...] = ()
) -> Journal:
    return Journal.open(
        folder,
        hub=HUB.id,
        clock=SystemClock(),
        hub_key=KEY,
        max_bytes=64 * SEGMENT,
        readers=readers,
        segment_bytes=SEGMENT,
        codec=codec,
    )


def measured(name: str, seconds: int, seed: int) -> list[Record]:
    """What a hub journals of a board whose line is bad: leads come off, bytes are lost, so blocks and gaps are uneven."""
    layout, rng = LAYOUTS[name], random.Random(seed)
    payload = quantised(layout, Patient(Plan(seed=seed), 125).samples(0, seconds * 125))
    if "status" in (layout.payload.names or ()):
        payload["status"][200:290] = layout.lead_off
    stream = bytearray(encoded(layout, payload))
    for _ in range(3):
        at = rng.randrange(len(stream))
        del stream[at : at + rng.randrange(60)]
    session = all_drivers()[name].session({"rate_hz": Fraction(125)})
    conditioner = Conditioner()
    list(session.start(0, Resume()))
    records: list[Record] = []
    for at in range(0, len(stream), 64):
        now_ns = at * NS_PER_S // (125 * layout.frame.itemsize)
        for output in session.receive("", bytes(stream[at : at + 64]), now_ns):
            if isinstance(output, Record):
                records += conditioner.process("board", output)
    return records


def lines_of(records: Iterable[Record]) -> list[str]:
    """The records of waveforms as a receiver writes them, but for their times of day."""
    found = []
    for record in records:
        if isinstance(record, Observation) and isinstance(record.value, SampleArray):
            fields = entry_fields(Entry(1, "board", record, "p-1"), SystemClock().read())
            found.append(timeless(fields))
    return found


def timeless(record: Any) -> str:
    about = {"time", "clock", "error_ns", "not_before", "not_after", "device", "subject"}
    return dumps({key: record[key] for key in sorted(record.keys() - about)})


async def delivered(
    folder: Path, broker: Broker, store: Store, payload: Payload, most: int | None = None
) -> None:
    """The half with the network on a journal of the other half's, until all of it is with the receiver."""
    reader = JournalReader(folder, hub=HUB.id, hub_key=KEY)
    await reader.begin()
    retimed = Retimed(reader, SystemClock())
    uplink = make_uplink(retimed, broker, BRISK, Delivery(payload=payload), sign=KEY.sign)
    receiver = Receiver(
        broker,
        HUB.tenant,
        VERIFY,
        SystemClock(),
        store=store,
        client_id="receiver",
        rng=random.Random(2),
        grace_s=0.2,
        timing=BRISK,
    )
    total = sum(map(reader.high_water, Stream)) if most is None else most
    async with running(receiver.run(), subscribed(receiver, uplink)):
        await until(lambda: receiver.is_connected, "receiver connects")
        assert await uplink.drain(30), uplink.status()
        await until(lambda: receiver.report().entries >= total, f"{total} entries")
    assert receiver.report().missing == receiver.report().rejected == 0
    reader.close()


def written(journal: Journal, records: Sequence[Record], at_a_time: int = 25) -> None:
    for first in range(0, len(records), at_a_time):
        for record in records[first : first + at_a_time]:
            journal.append("board", record, "p-1")
        journal.commit()


BAD = Faults(drop_before=0.02, drop_after=0.02, lose_ack=0.01, refuse=0.03, repeat=0.05)


@pytest.mark.parametrize(
    ("name", "kind"), [("healthypi-v3", "lines"), ("ads1292r", "sqlite"), ("max86150", "lines")]
)
def test_the_whole_way_from_a_boards_bytes_to_a_store(tmp_path: Path, name: str, kind: str) -> None:
    records = measured(name, seconds=12, seed=7)
    expected = lines_of(records)
    assert len(expected) > 90
    journal = open_for(tmp_path / "journal")
    written(journal, records)
    batch = JournalReader(tmp_path / "journal", hub=HUB.id, hub_key=KEY)

    async def main() -> None:
        await batch.begin()
        packed = batch.read(Stream.WAVEFORM, 0)
        assert isinstance(packed, PackedBatch)
        assert packed.records.startswith(HEAD)
        batch.close()
        store = (
            lines_store(tmp_path)
            if kind == "lines"
            else SqlStore(sqlite(tmp_path / "db"), SystemClock())
        )
        async with FaultBroker(BAD, 1) as server:
            broker = Broker("127.0.0.1", server.port)
            await delivered(tmp_path / "journal", broker, store, Payload.CBOR)
        store.close()

    asyncio.run(main())
    journal.close()
    if kind == "lines":
        lines = [
            line
            for line in read_exactly(tmp_path / "lines.jsonl")
            if line["type"] == "entry" and line["stream"] == "waveform"
        ]
        assert [timeless(line["record"]) for line in sorted(lines, key=_sequence)] == expected
        assert {line["record"]["validity"] for line in lines} >= {"valid"}
        return
    with closing(sqlite3.connect(tmp_path / "db")) as database:
        rows = database.execute(
            "SELECT record, samples FROM entries WHERE stream = 'waveform' ORDER BY sequence"
        ).fetchall()
    found = [
        timeless(json.loads(record, parse_float=Decimal) | {"samples": samples})
        for record, samples in rows
    ]
    assert found == expected


def _sequence(line: dict[str, Any]) -> int:
    return int(line["sequence"])


def read_exactly(path: Path) -> list[dict[str, Any]]:
    """With the digits of every number."""
    return [json.loads(line, parse_float=Decimal) for line in path.read_bytes().splitlines()]


def test_what_was_written_in_blocks_arrives_when_the_payload_is_json_by_now(tmp_path: Path) -> None:
    """The half with the network has no codec: it goes as it lies, and what is written from now on as JSON."""
    records = measured("healthypi-v3", seconds=8, seed=3)
    half = len(records) // 2
    folder = tmp_path / "journal"
    journal = open_for(folder)
    written(journal, records[:half])
    journal.close()
    journal = open_for(folder, codec=None)
    written(journal, records[half:])

    async def main() -> None:
        reader = JournalReader(folder, hub=HUB.id, hub_key=KEY, acknowledges=False)
        await reader.begin()
        kinds = [
            type(reader.read(Stream.WAVEFORM, after))
            for after in (0, reader.high_water(Stream.WAVEFORM) - 1)
        ]
        assert kinds == [PackedBatch, Batch]
        reader.close()
        store = lines_store(tmp_path)
        async with FaultBroker(BAD, 2) as server:
            broker = Broker("127.0.0.1", server.port)
            await delivered(folder, broker, store, Payload.JSON)
        store.close()

    asyncio.run(main())
    journal.close()
    lines = [
        line for line in read_exactly(tmp_path / "lines.jsonl") if line.get("stream") == "waveform"
    ]
    found = [timeless(line["record"]) for line in sorted(lines, key=_sequence)]
    assert found == lines_of(records)


# --- Message by message --------------------------------------------------------------------------------


class Broken(WaveformCodec):
    """Every second block is damaged before anything signs it."""

    made = 0

    def encode(self, signals: Sequence["array[int]"], bits: int) -> bytes:
        block = bytearray(super().encode(signals, bits))
        self.made += 1
        if self.made % 2 == 0:
            block[-1] ^= 1
        return bytes(block)


def seconds_of(
    folder: Path, codec: SampleCodec, count: int, readers: tuple[Reader, ...] = ()
) -> list[Batch]:
    """So many seconds of two leads, a batch each, as the half with the network reads them."""
    journal = open_for(folder, codec, readers)
    for second in range(count):
        written(journal, ecg(first=250 * second, at_ns=second * NS_PER_S))
    reader = JournalReader(folder, hub=HUB.id, hub_key=KEY, readers=readers)

    async def main() -> list[Batch]:
        await reader.begin()
        found = [reader.read(Stream.WAVEFORM, 10 * second) for second in range(count)]
        reader.close()
        return [batch for batch in found if batch is not None]

    batches = asyncio.run(main())
    journal.close()
    assert len(batches) == count
    return batches


def packed_payload(batches: Sequence[Batch], limit_bytes: int = 10**6) -> bytes:
    packed = [batch for batch in batches if isinstance(batch, PackedBatch)]
    assert len(packed) == len(batches)
    (piece,) = packed_slices(packed, (1, packed[-1].last_sequence), 99, limit_bytes)
    return piece.payload


ENTRIES = [encode_entry("patch", "p-1", record) for record in ecg()]
BATCH = PackedBatch(
    HUB.id,
    Stream.WAVEFORM,
    "e1",
    "boot-1",
    ClockReading(5, 6, ClockState.RESTORED),
    (),
    span=(1, len(ENTRIES)),
    records=pack(ENTRIES, CODEC) or b"",
)
MESSAGE = zlib.decompress(packed_payload([BATCH])[len(PACKED) :])


def intake() -> Intake:
    return Intake(Checker(HUB.tenant, VERIFY, CLINIC), KeptStore(), SystemClock(), grace_s=0.0)


def take(taker: Intake, messages: Iterable[Incoming]) -> list[dict[str, Any]]:
    lines = cast("list[dict[str, Any]]", taker.take(messages))
    return [line for line in lines if line["type"] != "clock"]


@pytest.mark.parametrize("sealed", [False, True])
def test_a_block_that_is_damaged_is_a_named_gap_and_the_others_arrive(
    tmp_path: Path, *, sealed: bool
) -> None:
    batches = seconds_of(tmp_path, Broken(), 3, (CLINIC.reader,) if sealed else ())
    if sealed:
        payloads = [sealed_slice(b, 0).payload for b in batches if isinstance(b, SealedBatch)]
    else:
        payloads = [packed_payload(batches)]
    taker = intake()
    lines = take(taker, [said(TOPIC, payload, KEY) for payload in payloads])
    (gap,) = [line for line in lines if line["type"] == "gap"]
    assert (gap["first"], gap["last"], gap["cause"]) == (11, 20, "unreadable")
    (rejected,) = [line for line in lines if line["type"] == "rejected"]
    assert rejected["reason"] == "unreadable"
    assert sealed or "DamagedError" in rejected["text"]
    entries = [line for line in lines if line["type"] == "entry"]
    assert [line["sequence"] for line in entries] == [*range(1, 11), *range(21, 31)]
    assert [timeless(line["record"]) for line in entries] == lines_of(
        [*ecg(at_ns=0), *ecg(first=500, at_ns=2 * NS_PER_S)]
    )


def test_a_receiver_that_knows_no_blocks_names_the_version(tmp_path: Path) -> None:
    (part,) = unpacked(packed_payload(seconds_of(tmp_path, CODEC, 1)))
    assert isinstance(part, UndecodableError)
    assert "version 4, expected 1 to 3" in str(part)
    assert part.batch.span == (1, 10)


def test_a_batch_in_blocks_is_not_cut_and_many_share_a_message(tmp_path: Path) -> None:
    batches = [b for b in seconds_of(tmp_path, CODEC, 6) if isinstance(b, PackedBatch)]
    pieces = [*packed_slices(batches, (15, 60), 60, 700)]
    assert [(piece.first, piece.last) for piece in pieces] == [
        (15, 20),
        *((n, n + 9) for n in (21, 31, 41, 51)),
    ]
    whole = packed_payload(batches)
    assert len(whole) < 0.85 * sum(len(piece.payload) for piece in pieces)
    found = [entry.record for part in unpacked(whole, CODEC) for entry in part.batch.entries]
    assert found == [
        r for second in range(6) for r in ecg(first=250 * second, at_ns=second * NS_PER_S)
    ]


def test_what_comes_out_of_one_message_is_bounded(tmp_path: Path) -> None:
    """Of a flat line much comes out of little."""
    (batch,) = seconds_of(tmp_path, CODEC, 1)
    assert isinstance(batch, PackedBatch)
    count = BATCHES_MOST + 44
    row = [replace(batch, span=(1 + 10 * n, 10 + 10 * n)) for n in range(count)]
    pieces = [*packed_slices(row, (1, 10 * count), 10 * count, 10**7)]
    assert [piece.count for piece in pieces] == [10 * BATCHES_MOST, 440]
    body = cbor2.loads(zlib.decompress(pieces[0].payload[len(PACKED) :]))
    body[5].append([10 * BATCHES_MOST + 1, *body[5][0][1:]])
    with pytest.raises(PayloadError, match=f"expected {BATCHES_MOST}"):
        unpacked(PACKED + zlib.compress(cbor2.dumps(body)), CODEC)


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_a_damaged_message_gives_parts_or_a_payload_error(data: st.DataObject) -> None:
    """Damaged before it was signed and deflated: in the message, in the records, in the block."""
    body = bytearray(MESSAGE)
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    with suppress(PayloadError):
        assert unpacked(PACKED + zlib.compress(body, 1), CODEC)

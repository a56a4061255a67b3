"""Several sealed frames in a message: exactly what each of them would be alone, and nothing else gets in."""

import base64
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import SystemClock
from gateway.config.delivery import Payload
from gateway.journal import files
from gateway.journal.entry import Batch, SealedBatch, Stream
from gateway.journal.journal import Journal
from gateway.journal.reader import JournalReader
from gateway.journal.segment import BLOCK_BYTES, FRAME_HEADER_BYTES
from gateway.journal.storage import Storage
from gateway.receiver.checks import Checker
from gateway.receiver.intake import Intake
from gateway.uplink import signature
from gateway.uplink.asks import Asks
from gateway.uplink.fields import PayloadError
from gateway.uplink.lane import Lane
from gateway.uplink.order import Age
from gateway.uplink.packed import READ_BYTES
from gateway.uplink.payload import Message
from gateway.uplink.sealed import (
    FRAMES_MOST,
    DamagedError,
    NoKeyError,
    Unsealer,
    is_sealed,
    sealed_slices,
)
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, Slice
from gateway.uplink.wire import Incoming
from tests.gateway.journal.builders import KEY, MAKERS, SEGMENT, forge_frame
from tests.gateway.journal.histories import quick_keys
from tests.gateway.journal.simulated_disk import SimulatedDisk
from tests.gateway.journal.test_reader import open_reader
from tests.gateway.journal.test_sealed import CLINIC, VERIFY, open_for
from tests.gateway.uplink.bench import KeptStore, open_one, said, sealed_slice
from tests.gateway.uplink.virtual import VirtualClock, play

TOPIC = "wardlink/1/ward/hub-1/"
HEAD = struct.Struct("<8sH")
VITALS, WAVE = Stream.VITALS, Stream.WAVEFORM
KEY_OF_HUB = {"hub-1": base64.b64encode(KEY.verify_key).decode()}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_keys(monkeypatch)


def fill(journal: Journal, stream: Stream, sizes: Sequence[int]) -> None:
    """A frame of each size."""
    for size in sizes:
        for _ in range(size):
            journal.append("device", MAKERS[stream](journal.following(stream)))
        journal.commit()


def read(journal: Journal | JournalReader, stream: Stream) -> Iterator[SealedBatch]:
    after = 0
    while batch := journal.read(stream, after):
        assert isinstance(batch, SealedBatch)
        yield batch
        after = batch.last_sequence


@cache
def disk() -> SimulatedDisk:
    """Segments that are full, and segments that ended with a process; frames from some hundred bytes to some ten thousand."""
    with pytest.MonkeyPatch.context() as patch:
        quick_keys(patch)
        made = SimulatedDisk()
        for boot in range(3):
            journal = open_for(made, boot_id=f"boot-{boot}")
            fill(journal, VITALS, [1, 3, 1, 9, 2] * 3)
            fill(journal, WAVE, [1, 3, 2, 1, 4, 1, 1])
            journal.close()
        return made


@cache
def frames(stream: Stream = WAVE) -> tuple[SealedBatch, ...]:
    with pytest.MonkeyPatch.context() as patch:
        quick_keys(patch)
        journal = open_for(disk(), boot_id="boot-9")
        found = tuple(read(journal, stream))
        journal.close()
        return found


def runs(batches: Sequence[SealedBatch]) -> list[list[SealedBatch]]:
    """As a reader finds them: without a hole."""
    found: list[list[SealedBatch]] = []
    for batch in batches:
        if not found or found[-1][-1].last_sequence + 1 != batch.first_sequence:
            found.append([])
        found[-1].append(batch)
    return found


def message(batches: Sequence[SealedBatch], header: bytes = b"", magic: bytes = b"") -> bytes:
    header = header or batches[0].header
    head = HEAD.pack(magic or b"WLSEALS1", len(header)) + header
    return head + b"".join(batch.frame for batch in batches)


def together(batches: Sequence[SealedBatch]) -> bytes:
    span = batches[0].first_sequence, batches[-1].last_sequence
    (piece,) = sealed_slices(batches, span, MAX_PAYLOAD_BYTES)
    return piece.payload


def neighbours(count: int, stream: Stream = VITALS) -> list[SealedBatch]:
    """The first frames of one segment."""
    found = [*frames(stream)[:count]]
    assert len({batch.header for batch in found}) == 1
    return found


def damaged(batch: SealedBatch, at: int = FRAME_HEADER_BYTES + 5) -> SealedBatch:
    """As an accident cannot: its checksums are right."""
    frame = bytearray(batch.frame)
    frame[at] ^= 1
    padded = frame.ljust(-(-len(frame) // BLOCK_BYTES) * BLOCK_BYTES, b"\0")
    forge_frame(padded)
    return replace(batch, frame=bytes(padded[: len(frame)]))


def intake(store: KeptStore) -> Intake:
    return Intake(Checker("ward", KEY_OF_HUB, CLINIC), store, SystemClock(), grace_s=0.0)


def sent(stream: Stream, payload: bytes) -> Incoming:
    return said(TOPIC + stream, payload, KEY)


def take(store: KeptStore, stream: Stream, *payloads: bytes) -> list[dict[str, Any]]:
    lines: list[Any] = intake(store).take(sent(stream, payload) for payload in payloads)
    return [line for line in lines if line["type"] != "clock"]


def entries(lines: Sequence[dict[str, Any]]) -> dict[int, object]:
    """What came, and in which frame. Every one came once."""
    found: dict[int, object] = {
        line["sequence"]: (line["record"], line["boot_id"]) for line in lines
    }
    assert len(found) == len(lines)
    return found


# --- The same as alone -----------------------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_run_of_frames_is_what_they_are_alone(data: st.DataObject) -> None:
    stream = data.draw(st.sampled_from([VITALS, WAVE]))
    there = frames(stream)
    kept = [b for b in there if data.draw(st.integers(0, 9)) != 0] or [there[0]]
    sizes = [len(message(there[:count])) - under for count in range(1, 9) for under in (0, 1)]
    limit_bytes = data.draw(st.integers(0, 12_000) | st.sampled_from([*sizes, MAX_PAYLOAD_BYTES]))
    unsealer = Unsealer(CLINIC)
    for run in runs(kept):
        first = data.draw(st.integers(run[0].first_sequence, run[0].last_sequence))
        last = data.draw(st.integers(first, run[-1].last_sequence))
        pieces = [*sealed_slices(run, (first, last), limit_bytes)]
        held = [b for b in run if b.last_sequence >= first and b.first_sequence <= last]
        at, parts = first, list[object]()
        for piece in pieces:
            assert is_sealed(piece.payload)
            assert piece.first == at
            at = piece.last + 1
            found = unsealer.open(piece.payload, VERIFY)
            mine = held[len(parts) : len(parts) + len(found)]
            assert len(piece.payload) <= limit_bytes or len(found) == 1
            if len(found) == 1:
                assert piece.payload == message(mine, magic=b"WLSEALD2"), "as ever, byte for byte"
            else:
                assert piece.payload == message(mine)
            parts += found
            if len(parts) < len(held):
                follows = held[len(parts)]
                is_full = len(piece.payload) + len(follows.frame) > limit_bytes
                assert is_full or follows.header != mine[0].header, "it holds what it can"
        assert at == last + 1
        alone = [open_one(unsealer, sealed_slice(b, 0).payload, VERIFY) for b in held]
        assert parts == alone


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([VITALS, WAVE]), st.data())
def test_the_receiver_knows_the_same_whatever_shared_a_message(
    seed: int, stream: Stream, data: st.DataObject
) -> None:
    """Lines, tags of the chain, and holes; in any order, with repeats."""
    rng, there = Random(seed), frames(stream)
    kept = [b for b in there if data.draw(st.integers(0, 9)) != 0] or [there[0]]
    pieces = list[Slice]()
    for run in runs(kept):
        span = run[0].first_sequence, run[-1].last_sequence
        pieces += sealed_slices(run, span, rng.choice([3_000, 9_000, 30_000, MAX_PAYLOAD_BYTES]))
    pieces += rng.sample(pieces, min(3, len(pieces)))
    rng.shuffle(pieces)
    many, single = KeptStore(), KeptStore()
    lines = take(many, stream, *(piece.payload for piece in pieces))
    inside = [b for p in pieces for b in kept if p.first <= b.first_sequence <= p.last]
    alone = take(single, stream, *(sealed_slice(batch, 0).payload for batch in inside))
    assert {line["type"] for line in lines} == {"entry"}
    assert entries(lines) == entries(alone)
    tags, expected = ([line.get("frame") for line in each] for each in (lines, alone))
    assert tags == expected
    assert many.ledger.tracks == single.ledger.tracks


# --- One that does not open --------------------------------------------------------------------------------


def test_a_frame_that_does_not_open_costs_none_of_its_neighbours() -> None:
    row = neighbours(5)
    bad = {1, 3}
    payload = together([damaged(b) if n in bad else b for n, b in enumerate(row)])
    store = KeptStore()
    lines = take(store, VITALS, payload)
    lost = {n for at in bad for n in range(row[at].first_sequence, row[at].last_sequence + 1)}
    whole = {n for b in row for n in range(b.first_sequence, b.last_sequence + 1)} - lost
    assert set(entries([line for line in lines if line["type"] == "entry"])) == whole
    gaps = [line for line in lines if line["type"] == "gap"]
    assert [(g["first"], g["last"], g["cause"]) for g in gaps] == [
        (*row[at].span, "unreadable") for at in sorted(bad)
    ]
    (rejected,) = [line for line in lines if line["type"] == "rejected"]
    assert (rejected["reason"], "authentication" in rejected["text"]) == ("unreadable", True)
    assert base64.b64decode(rejected["payload"]) == sent(VITALS, payload).payload
    again = take(store, VITALS, payload)
    assert [line["type"] for line in again] == ["rejected"], "no gap is named twice"


def test_a_ciphertext_in_the_place_of_its_neighbours_does_not_open() -> None:
    row = neighbours(4)
    moved = row[1].frame[:FRAME_HEADER_BYTES] + row[2].frame[FRAME_HEADER_BYTES:]
    spliced = [row[0], replace(row[1], frame=moved), row[2], row[3]]
    if len(row[1].frame) != len(row[2].frame):
        with pytest.raises(PayloadError):
            Unsealer(CLINIC).open(message(spliced), VERIFY)
    same = [b for b in frames(VITALS) if len(b.frame) == len(row[0].frame)]
    behind = same[1].frame[FRAME_HEADER_BYTES:]
    relabelled = replace(row[0], frame=row[0].frame[:FRAME_HEADER_BYTES] + behind)
    parts = Unsealer(CLINIC).open(message([relabelled, *row[1:]]), VERIFY)
    assert isinstance(parts[0], DamagedError)
    assert all(isinstance(part, Message) for part in parts[1:])


@pytest.mark.parametrize("mend", [False, True])
def test_every_bit_is_found_and_costs_at_most_its_own_frame(*, mend: bool) -> None:
    """The hub signed the change; every fifth bit, and another one at each run of the message."""
    row = neighbours(3)
    good = [open_one(Unsealer(CLINIC), sealed_slice(b, 0).payload, VERIFY) for b in row]
    unsealer = Unsealer(CLINIC)
    begin = HEAD.size + len(row[0].header)
    borders = [begin]
    for batch in row:
        borders.append(borders[-1] + len(batch.frame))
    payload = together(row)
    unsealer.open(payload, VERIFY)
    for bit in range(begin * 8 if mend else 0, len(payload) * 8, 5):
        if mend:
            at = next(n for n in range(3) if bit // 8 < borders[n + 1])
            frame = bytearray(row[at].frame)
            frame[bit // 8 - borders[at]] ^= 1 << bit % 8
            padded = frame.ljust(-(-len(frame) // BLOCK_BYTES) * BLOCK_BYTES, b"\0")
            forge_frame(padded)
            other = replace(row[at], frame=bytes(padded[: len(frame)]))
            changed = message([other if n == at else b for n, b in enumerate(row)])
        else:
            flipped = bytearray(payload)
            flipped[bit // 8] ^= 1 << bit % 8
            changed = bytes(flipped)
        if changed == payload:
            continue  # the flip was in a checksum, which was made right again
        try:
            parts = unsealer.open(changed, VERIFY)
        except (PayloadError, NoKeyError):
            continue
        lost = [n for n, part in enumerate(parts) if isinstance(part, DamagedError)]
        assert lost, bit
        # Of the header of the segment all of them depend, of a frame that frame alone.
        assert bit // 8 < begin or (
            borders[lost[0]] <= bit // 8 < borders[lost[0] + 1] and len(lost) == 1
        )
        assert [p for n, p in enumerate(parts) if n not in lost] == [
            p for n, p in enumerate(good) if n not in lost
        ]


def torn(batch: SealedBatch) -> SealedBatch:
    frame = bytearray(batch.frame)
    frame[30] ^= 1
    return replace(batch, frame=bytes(frame))


@pytest.mark.parametrize("bad", [{0}, {1}, {3}, {0, 1}, {2, 3}, {0, 1, 2, 3}])
def test_frames_whose_header_changed_after_they_were_found_go_alone(bad: set[int]) -> None:
    row = neighbours(4)
    shown = [torn(b) if n in bad else b for n, b in enumerate(row)]
    pieces = [*sealed_slices(shown, (1, row[-1].last_sequence), MAX_PAYLOAD_BYTES)]
    lines = take(KeptStore(), VITALS, *(piece.payload for piece in pieces))
    whole = {
        n for at, b in enumerate(row) if at not in bad for n in range(b.span[0], b.span[1] + 1)
    }
    assert set(entries([line for line in lines if line["type"] == "entry"])) == whole
    rejected = [line for line in lines if line["type"] == "rejected"]
    assert [line["reason"] for line in rejected] == ["malformed"] * len(bad)


@pytest.mark.parametrize(
    "other",
    [
        lambda b: replace(b, span=(b.span[0], b.span[1] + 1)),
        lambda b: replace(b, span=(b.span[0] - 1, b.span[1])),
        lambda b: replace(b, frame=b.frame + b"\0"),
        lambda b: replace(b, header=b.header + b"\0"),
    ],
    ids=["last", "first", "length", "the key wrapped anew"],
)
def test_a_frame_that_is_not_what_was_found_shares_no_message(
    other: Callable[[SealedBatch], SealedBatch],
) -> None:
    row = neighbours(3)
    row[1] = other(row[1])
    pieces = [*sealed_slices(row, (1, row[-1].last_sequence), MAX_PAYLOAD_BYTES)]
    assert [piece.payload for piece in pieces] == [message([b], magic=b"WLSEALD2") for b in row]


# --- And nothing else ------------------------------------------------------------------------------------


def test_only_a_row_of_whole_frames_of_one_segment_is_a_message() -> None:
    row = neighbours(4)
    others = [b for b in frames(VITALS) if b.header != row[0].header]
    good = message(row)
    assert len(Unsealer(CLINIC).open(good, VERIFY)) == 4
    segment = [b for b in frames(VITALS) if b.header == row[0].header]
    assert segment[-1].last_sequence + 1 == others[0].first_sequence
    refused = {
        "a frame alone": message(row[:1]),
        "none": message([], header=row[0].header),
        "a hole": message([row[0], row[2]]),
        "another order": message([row[1], row[0]]),
        "one twice": message([row[0], row[0]]),
        "of another segment": message([row[0], others[0]]),
        "the next segment": message([*segment, others[0]]),
        "of another stream": message([row[0], frames(WAVE)[0]]),
        "under another header": message(row, header=others[0].header),
        "several under the word for one": message(row, magic=b"WLSEALD2"),
        "a byte more": good + b"\0",
    }
    for name, payload in refused.items():
        with pytest.raises(PayloadError):
            Unsealer(CLINIC).open(payload, VERIFY)
        (line,) = take(KeptStore(), VITALS, payload)
        assert (line["type"], line["reason"]) == ("rejected", "malformed"), name
    for end in range(0, len(good), 7):
        with pytest.raises(PayloadError):
            Unsealer(CLINIC).open(good[:end], VERIFY)


def test_frames_and_bytes_of_a_message_are_bounded() -> None:
    journal = open_for(SimulatedDisk(), segments=1000)
    fill(journal, VITALS, [1] * 7)
    row = [*read(journal, VITALS)][:6]
    assert len({batch.header for batch in row}) == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gateway.uplink.sealed.FRAMES_MOST", 4)
        pieces = [*sealed_slices(row, (1, 6), MAX_PAYLOAD_BYTES)]
        assert [piece.count for piece in pieces] == [4, 2]
        with pytest.raises(PayloadError, match="at most 4"):
            Unsealer(CLINIC).open(message(row[:5]), VERIFY)
        patch.setattr("gateway.uplink.sealed.MAX_PAYLOAD_BYTES", len(message(row[:3])))
        assert len(Unsealer(CLINIC).open(message(row[:3]), VERIFY)) == 3
        with pytest.raises(PayloadError, match="at most"):
            Unsealer(CLINIC).open(message(row[:4]), VERIFY)
    assert (FRAMES_MOST, MAX_PAYLOAD_BYTES) == (256, 98_192)


def test_without_the_right_key_all_of_it_waits() -> None:
    payload = together(neighbours(3))
    with pytest.raises(NoKeyError):
        Unsealer(None).open(payload, VERIFY)


def test_a_receiver_of_a_release_before_refuses_it_and_keeps_its_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    message_ = sent(VITALS, together(neighbours(3)))
    former = tuple(form for form in signature.FORMS if form.first != signature.SEALED_RUN)
    monkeypatch.setattr(signature, "FORMS", former)
    store = KeptStore()
    lines: list[Any] = intake(store).take([message_])
    (line,) = lines
    assert (line["type"], line["reason"]) == ("rejected", "no_signature")
    assert "if the hub is newer, update this" in line["text"]
    assert base64.b64decode(line["payload"]) == message_.payload
    assert store.ledger.tracks == {}, "no receipt says that it has them"


# --- From the disk -----------------------------------------------------------------------------------------


def lane_of(source: JournalReader, stream: Stream, payload: Payload = Payload.JSON) -> Lane:
    asks = Asks(VirtualClock(), lambda: None)
    lane = Lane(source, stream, asks, by_receipt=False, payload=payload)
    asks.follow(dict.fromkeys(Stream, lane))
    return lane


async def drained(lane: Lane, limit_bytes: int, *ages: Age) -> list[Slice]:
    found: list[Slice] = []
    for age in ages or Age:
        while piece := await lane.peek(age, limit_bytes, 0):
            lane.launch(age, len(found), piece, 0)
            lane.outbound.land(len(found), accepted=True)
            found.append(piece)
    return found


@pytest.mark.parametrize("payload", [Payload.JSON, Payload.CBOR])
def test_a_backlog_leaves_in_few_messages_and_no_segment_is_read_twice(
    payload: Payload, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = open_reader(disk(), acknowledges=False)
    scans: list[Path] = []
    whole = files.read_segment

    def counted(storage: Storage, path: Path) -> bytes:
        scans.append(path)
        return whole(storage, path)

    monkeypatch.setattr("gateway.journal.log.read_segment", counted)

    async def story() -> None:
        for stream in (VITALS, WAVE):
            segments = len({batch.header for batch in frames(stream)})
            scans.clear()  # the first who asks for the frames reads them
            pieces = await drained(lane_of(reader, stream, payload), MAX_PAYLOAD_BYTES)
            assert sum(piece.count for piece in pieces) == reader.high_water(stream)
            assert len(pieces) == segments < len(frames(stream)) / 1.5
            assert len(scans) == len(set(scans)) <= segments
            lines = take(KeptStore(), stream, *(piece.payload for piece in pieces))
            assert sorted(entries(lines)) == [*range(1, reader.high_water(stream) + 1)]

    play(story)
    reader.close()


def test_what_is_live_and_alone_leaves_as_ever_and_what_has_gathered_shares_a_message() -> None:
    made = SimulatedDisk()
    journal = open_for(made)
    fill(journal, VITALS, [1])
    reader = open_reader(made)

    async def story() -> None:
        lane = lane_of(reader, VITALS)
        await drained(lane, MAX_PAYLOAD_BYTES)
        for count in (1, 4):
            high_water = reader.high_water(VITALS)
            fill(journal, VITALS, [4] * count)
            reader.refresh()
            (piece,) = await drained(lane, MAX_PAYLOAD_BYTES, Age.LIVE)
            new = [b for b in read(journal, VITALS) if b.first_sequence > high_water]
            assert piece.count == 4 * count
            magic = b"WLSEALD2" if count == 1 else b"WLSEALS1"
            header = new[0].header
            frames_ = b"".join(batch.frame for batch in new)
            assert piece.payload == HEAD.pack(magic, len(header)) + header + frames_

    play(story)
    reader.close()


def test_a_small_broker_gets_as_many_as_it_takes_and_a_probe_is_one_frame() -> None:
    reader = open_reader(disk(), acknowledges=False)

    async def story() -> None:
        pieces = await drained(lane_of(reader, VITALS), 3_500)
        counts = [len(Unsealer(CLINIC).open(piece.payload, VERIFY)) for piece in pieces]
        assert max(len(piece.payload) for piece in pieces) <= 3_500
        assert {1} < set(counts) or min(counts) > 1
        assert sum(counts) == len(frames(VITALS))
        lane = lane_of(reader, VITALS)
        lane.outbound.extend(lane.high_water)
        probe = await lane._prepare((lane.high_water, lane.high_water), 0)
        assert [piece.payload[:8] for piece in probe] == [b"WLSEALD2"]
        log, reads = reader._logs[VITALS], list[int]()
        whole = log.read

        def counted(after: int, *, packed: bool = False) -> Batch | None:
            reads.append(after)
            return whole(after, packed=packed)

        log.read = counted  # type: ignore[method-assign]
        assert len(await lane._prepare((1, 1), 0)) == 1
        assert reads == [0], "nothing is read beyond what is asked for"

    play(story)
    reader.close()


def test_a_run_ends_where_the_hub_can_read_again_and_before_a_hole() -> None:
    made = SimulatedDisk()
    for readers in ((CLINIC.reader,), (KEY.reader, CLINIC.reader), (CLINIC.reader,)):
        journal = open_for(made, readers)
        fill(journal, VITALS, [2, 2, 2])
        journal.close()
    reader = open_reader(made, acknowledges=False)
    found = list[tuple[str, int]]()
    after = 0
    while batches := reader.read_packed(VITALS, after, 18, READ_BYTES):
        after = batches[-1].last_sequence
        found.append((type(batches[0]).__name__, len(batches)))
        assert len({type(batch) for batch in batches}) == 1
    assert found == [("SealedBatch", 3), ("PackedBatch", 3), ("SealedBatch", 3)]
    sizes = [len(batch.frame) for batch in batches_of(reader.read_packed(VITALS, 0, 6, READ_BYTES))]
    assert [len(reader.read_packed(VITALS, 0, 6, most)) for most in (0, sum(sizes[:2]))] == [1, 2]
    assert len(reader.read_packed(VITALS, 0, 4, READ_BYTES)) == 2

    async def story() -> None:
        pieces = await drained(lane_of(reader, VITALS), MAX_PAYLOAD_BYTES)
        assert [piece.payload[:8] for piece in pieces if piece.payload[:1] != b"{"] == [
            b"WLSEALS1"
        ] * 2
        assert sum(piece.count for piece in pieces) == 18
        log = reader._logs[VITALS]
        opened = log._open
        log._open = lambda place, frame, **rest: (  # type: ignore[method-assign]
            None if frame.first_sequence == 3 else opened(place, frame, **rest)
        )
        found = [batches_of(reader.read_packed(VITALS, n, 6, READ_BYTES)) for n in (0, 2)]
        assert [[batch.span for batch in run] for run in found] == [[(1, 2)], [(5, 6)]]
        pieces = await drained(lane_of(reader, VITALS), MAX_PAYLOAD_BYTES)
        assert {n for p in pieces for n in range(p.first, p.last + 1)} == {1, 2, *range(5, 19)}

    play(story)
    reader.close()


def batches_of(found: Sequence[object]) -> list[SealedBatch]:
    return [batch for batch in found if isinstance(batch, SealedBatch)]


def test_the_segments_are_small_enough_for_all_that() -> None:
    assert len({batch.header for batch in frames(WAVE)}) > 5
    assert max(len(batch.frame) for batch in frames(WAVE)) > SEGMENT / 3

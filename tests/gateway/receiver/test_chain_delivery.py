"""Sealed journals to their receiver: whatever the order and whoever restarts, their frames are one chain or it is said."""

import base64
import json
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, cast

import pytest

from gateway.clock import SystemClock
from gateway.journal.entry import SealedBatch, Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.offline import segment_files
from gateway.journal.rotation import rotate
from gateway.journal.segment import BLOCK_BYTES, FRAME_HEADER_BYTES
from gateway.receiver.checks import Checker
from gateway.receiver.intake import Intake
from gateway.receiver.ledger import Track
from gateway.receiver.lines import LinesStore
from gateway.receiver.sql import SqlStore
from gateway.receiver.store import Store
from gateway.uplink.fields import dumps
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, slices
from gateway.uplink.wire import Incoming
from tests.gateway.journal.builders import DIRECTORY, KEY, MAKERS, forge_frame, read_all
from tests.gateway.journal.histories import quick_keys
from tests.gateway.journal.simulated_disk import PowerCutError, SimulatedDisk
from tests.gateway.journal.test_sealed import CLINIC, SEALED, open_for
from tests.gateway.receiver.conftest import NUMBERS
from tests.gateway.receiver.databases import fresh, query, some_dialect
from tests.gateway.schemas import DOCS, LINES, faults
from tests.gateway.uplink.bench import KeptStore, lines_store, read_lines, said, sealed_slice

TOPIC = "wardlink/1/ward/hub-1/"
BOTH = (KEY.reader, *SEALED)
WAVE = Stream.WAVEFORM
STRANGER = HubKey.generate()
"""To whom a segment for a hub and a clinic is as good as sealed."""


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_keys(monkeypatch)


def intake(store: Store, key: HubKey = KEY) -> Intake:
    verify = {"hub-1": base64.b64encode(key.verify_key).decode()}
    return Intake(Checker("ward", verify, CLINIC), store, SystemClock(), grace_s=0.0)


def write(journal: Journal, stream: Stream, *sizes: int) -> None:
    """A frame of each size."""
    for size in sizes:
        for _ in range(size):
            journal.append("device", MAKERS[stream](journal.following(stream)))
        journal.commit()


def batches(journal: Journal, stream: Stream = WAVE, after: int = 0) -> list[SealedBatch]:
    found = []
    while batch := journal.read(stream, after):
        assert isinstance(batch, SealedBatch)
        found.append(batch)
        after = batch.last_sequence
    return found


def message(batch: SealedBatch, key: HubKey = KEY) -> Incoming:
    return said(TOPIC + batch.stream, sealed_slice(batch, 0).payload, key)


def copied(disk: SimulatedDisk) -> SimulatedDisk:
    """An image of it, as a card that was copied before its hub went on."""
    made = deepcopy(disk)
    made.crash(Random(0))
    return made


def sequences(lines: list[dict[str, Any]]) -> list[int]:
    return sorted(line["sequence"] for line in lines if line["type"] == "entry")


def gaps(lines: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(line["cause"], line["first"], line["last"]) for line in lines if line["type"] == "gap"]


def take(taker: Intake, *messages: Incoming) -> list[dict[str, Any]]:
    lines = [json.loads(dumps(line)) for line in taker.take(messages)]
    for line in lines:
        assert faults(line, LINES) == []
    return lines


# --- One history -----------------------------------------------------------------------------------------


def three_boots() -> SimulatedDisk:
    """Segments that are full, segments that ended with a process, frames of many sizes."""
    disk = SimulatedDisk()
    for boot in range(3):
        journal = open_for(disk, boot_id=f"boot-{boot}")
        write(journal, WAVE, 1, 3, 2, 1, 4, 1, 1)
        journal.close()
    return disk


def test_two_receivers_of_one_database_find_one_chain_in_any_order(place: tuple[str, str]) -> None:
    journal = open_for(three_boots(), boot_id="boot-9")
    sent = [message(batch) for batch in batches(journal)]
    assert len({batch.header for batch in batches(journal)}) > 5
    rng = Random(3)
    sent += rng.sample(sent, 10)
    rng.shuffle(sent)
    stores: list[SqlStore] = []
    lines: list[dict[str, Any]] = []
    for message_ in sent:
        if len(stores) < 2 or rng.random() < 0.2:
            for store in stores:
                store.close()
            stores = [SqlStore(some_dialect(*place), SystemClock()) for _ in range(2)]
        lines += take(intake(rng.choice(stores)), message_)
    for store in stores:
        store.close()
    assert sequences(lines) == list(range(1, journal.high_water(WAVE) + 1))
    assert gaps(lines) == []
    assert query(*place, "SELECT * FROM gaps") == []
    (row,) = query(*place, "SELECT CAST(state AS text) AS state FROM tracks")
    assert row["state"].count('"behind"') == 1


@pytest.mark.parametrize("seed", range(2))
def test_a_receiver_that_is_killed_after_any_byte_of_its_lines_knows_every_tag(
    tmp_path: Path, seed: int
) -> None:
    """The state file is as old as it likes to be: the lines tell. What they tell in part comes again."""
    rng = Random(seed)
    journal = open_for(three_boots(), boot_id="boot-9")
    sent = [message(batch) for batch in batches(journal)]
    rng.shuffle(sent)
    path, twin = tmp_path / "lines.jsonl", KeptStore()
    for message_ in sent:
        whole = intake(twin)
        assert gaps(take(whole, message_)) == []
        while True:
            store = lines_store(tmp_path)
            size = path.stat().st_size
            assert gaps(take(intake(store), message_)) == []
            if rng.random() < 0.3:
                store.sync()
                store.close()
                break
            store.close()
            if rng.random() < 0.5:
                break
            with path.open("r+b") as file:
                file.truncate(rng.randint(size, path.stat().st_size))
        store = lines_store(tmp_path)
        assert tags(store) == tags(twin)
        assert store.ledger.tracks == twin.ledger.tracks
        store.close()
    assert sequences(read_lines(path)) == list(range(1, journal.high_water(WAVE) + 1))


def test_lines_tell_the_tags_of_a_frame_of_which_a_part_came_plain(tmp_path: Path) -> None:
    disk = SimulatedDisk()
    journal = open_for(disk, BOTH)
    write(journal, Stream.VITALS, 3)
    journal.close()
    whole = journal.read(Stream.VITALS, 0)
    assert whole is not None
    (part,) = slices(replace(whole, entries=whole.entries[:2]), 0, 3, MAX_PAYLOAD_BYTES)
    store = lines_store(tmp_path)
    take(intake(store), said(TOPIC + Stream.VITALS, part.payload, KEY))
    (sealed,) = batches(open_for(disk, SEALED, key=STRANGER, boot_id="boot-2"), Stream.VITALS)
    take(intake(store), message(sealed))
    store.close()
    again = lines_store(tmp_path)
    assert tags(again) == tags(store)
    assert [sorted(found) for found in tags(again)] == [[3]]
    again.close()


def tags(store: LinesStore | KeptStore) -> list[Mapping[int, bytes]]:
    return [track.chain.tags for track in store.ledger.tracks.values()]


def only(store: KeptStore) -> Track:
    (track,) = store.ledger.tracks.values()
    return track


@pytest.mark.parametrize("seed", range(3))
def test_a_hub_that_loses_power_writes_one_chain(seed: int) -> None:
    """What a power cut tore was not sent, and is a hole; whatever was sent fits to what follows."""
    rng, disk, store = Random(seed), SimulatedDisk(), KeptStore()
    taker, sent, cuts = intake(store), 0, 0
    for boot in range(12):
        disk.steps_left = rng.randrange(1, 60) if boot else 200
        try:
            journal = open_for(disk, boot_id=f"boot-{boot}", segments=16, entropy=rng.randbytes)
            while True:
                for batch in batches(journal, WAVE, sent):
                    take(taker, message(batch))
                    sent = batch.last_sequence
                journal.acknowledge(WAVE, max(sent - 9, 0))
                write(journal, WAVE, rng.randint(1, 5))
        except PowerCutError:
            cuts += 1
        disk.crash(rng)
    journal = open_for(disk, boot_id="boot-last", segments=16, entropy=rng.randbytes)
    write(journal, WAVE, 1)
    take(taker, *(message(batch) for batch in batches(journal)))
    assert gaps(cast("list[dict[str, Any]]", store.lines)) == []
    assert max(only(store).chain.tags) == journal.high_water(WAVE) > 30
    assert cuts == 12


def test_another_key_of_the_hub_and_plain_messages_between_do_not_break_it() -> None:
    disk, store = SimulatedDisk(), KeptStore()
    journal = open_for(disk, BOTH)
    write(journal, WAVE, 2, 1, 3)
    plain = [
        said(TOPIC + WAVE, piece.payload, KEY)
        for n in (0, 2, 3)
        if (batch := journal.read(WAVE, n)) is not None
        for piece in slices(batch, n, 1 << 30, MAX_PAYLOAD_BYTES)
    ]
    journal.close()
    for message_ in plain[:2]:
        take(intake(store), message_)
    journal = open_for(disk, SEALED, boot_id="boot-2")
    write(journal, WAVE, 2, 2)
    sealed = [message(batch) for batch in batches(journal, after=6)]
    journal.close()
    take(intake(store), *reversed(sealed))
    assert sorted(only(store).chain.tags) == [6, 10]
    take(intake(store), plain[2])
    assert sorted(only(store).chain.tags) == [10]
    new = HubKey(KEY.renewed())
    rotate(DIRECTORY, disk, KEY, new, SEALED, lambda: None)
    journal = open_for(disk, SEALED, key=new, boot_id="boot-3")
    write(journal, WAVE, 1, 4)
    behind = [message(batch, new) for batch in batches(journal, after=10)]
    lines = take(intake(store, new), *behind)
    assert sequences(lines) == list(range(11, 16))
    assert gaps(cast("list[dict[str, Any]]", store.lines)) == []


# --- Two histories, and what never was one -----------------------------------------------------------------


def forked() -> tuple[list[Incoming], list[Incoming]]:
    """What a hub sent, and what it sends when its disk is an old one again. Two frames are the same."""
    disk = SimulatedDisk()
    journal = open_for(disk)
    write(journal, WAVE, 2, 2)
    past = copied(disk)
    write(journal, WAVE, 2, 2, 2)
    again = open_for(past, boot_id="boot-2")
    write(again, WAVE, 3, 4, 3, 2)
    return (
        [message(b) for b in batches(journal)],
        [message(b) for b in batches(again)],
    )


Open = Callable[[], Store]


@pytest.fixture(params=["json_lines", "sqlite", "postgresql"])
def kept(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Open, Callable[[], list[tuple[str, int, int]]]]]:
    """Any store, and the gaps in it."""
    if request.param == "json_lines":
        yield lambda: lines_store(tmp_path), lambda: gaps(read_lines(tmp_path / "lines.jsonl"))
        return
    place = (request.param, str(tmp_path / "received.sqlite"))
    if request.param == "postgresql":
        server = request.getfixturevalue("postgresql_server")
        place = (request.param, fresh(server, next(NUMBERS)))

    def found() -> list[tuple[str, int, int]]:
        rows = query(
            *place,
            "SELECT cause, first_sequence AS first, last_sequence AS last FROM gaps"
            " WHERE closed_at IS NULL ORDER BY first_sequence",
        )
        return [(row["cause"], row["first"], row["last"]) for row in rows]

    yield lambda: SqlStore(some_dialect(*place), SystemClock()), found


def test_an_old_disk_that_grew_past_what_was_sent_is_found_in_every_store(
    kept: tuple[Open, Callable[[], list[tuple[str, int, int]]]], caplog: pytest.LogCaptureFixture
) -> None:
    """No heartbeat came between: its high-water mark never went back."""
    opened, found = kept
    before, after = forked()
    lines: list[dict[str, Any]] = []
    for message_ in [*before, *after]:
        store = opened()
        lines += take(intake(store), message_)
        store.close()
    # A holds 1 to 10; of B the frame 8 to 11 overlaps its last one, and 12 to 14 follows on it.
    assert sequences(lines) == list(range(1, 17))
    assert found() == [("chain", 8, 11)]
    assert ["hub-1: waveform 8 to 11" in text for text in caplog.messages] == [True]
    (rejected,) = [line for line in lines if line["type"] == "rejected"]
    assert (rejected["reason"], base64.b64decode(rejected["payload"])) == (
        "chain",
        after[3].payload,
    )
    store = opened()
    [(_, held)] = store.held("hub-1", lines[-1]["epoch"]).items()
    assert (held.high, held.holes) == (16, ()), "kept, and given free: the hub has nothing better"
    store.close()


def test_two_histories_never_pass_for_one() -> None:
    before, after = forked()
    of = [{frame["tag"] for frame in frames_of(messages)} for messages in (before[2:], after[2:])]
    mixed = 0
    for seed in range(16):
        store = KeptStore()
        sent = [*before, *after[2:]]
        Random(seed).shuffle(sent)
        lines = [line for message_ in sent for line in take(intake(store), message_)]
        assert sequences(lines) == list(range(1, 17))
        came = {line["frame"]["tag"] for line in lines if "frame" in line}
        both = all(came & tags for tags in of)
        assert {cause for cause, _, _ in gaps(lines)} == ({"chain"} if both else set())
        mixed += both
    assert 8 < mixed < 16


def frames_of(messages: list[Incoming]) -> list[dict[str, Any]]:
    return [take(intake(KeptStore()), message_)[1]["frame"] for message_ in messages]


def test_a_history_that_begins_anew_behind_a_damaged_frame_is_told() -> None:
    """The newest frame was delivered, and rotted before the hub started again: what follows cannot name it."""
    disk, store = SimulatedDisk(), KeptStore()
    journal = open_for(disk)
    write(journal, WAVE, 1, 1, 1)
    take(intake(store), *(message(batch) for batch in batches(journal)))
    journal.close()
    (path,) = [path for path in segment_files(DIRECTORY, disk) if WAVE in str(path)]
    inode = disk.directories[path.parent].cache[path.name]
    newest = batches(open_for(copied(disk), boot_id="look"))[-1]
    at = bytes(inode.cache).index(newest.frame)
    inode.cache[at + 200] ^= 1
    journal = open_for(disk, boot_id="boot-2")
    write(journal, WAVE, 2)
    assert [entry.sequence for entry in read_all(journal, WAVE, 3)] == []
    lines = take(intake(store), *(message(batch) for batch in batches(journal, after=3)))
    assert gaps(lines) == [("chain", 4, 5)]
    assert sequences(lines) == [4, 5]
    assert all(line["type"] != "rejected" for line in lines), "no other frame has their numbers"


def test_whatever_is_spliced_is_found() -> None:
    """A frame in another's place: of another stream, hub, journal or segment, or under other numbers."""
    disk = three_boots()
    journal = open_for(disk, boot_id="boot-9")
    found = batches(journal)
    write(journal, Stream.VITALS, 2)
    (vitals,) = batches(journal, Stream.VITALS)
    other = open_for(SimulatedDisk())
    write(other, WAVE, 1, 3, 2)
    mine = found[0]
    behind = next(b for b in found if b.header != mine.header and len(b.frame) == len(mine.frame))
    stranger = batches(other)[0]
    spliced = {
        "disagrees": [said(TOPIC + WAVE, sealed_slice(vitals, 0).payload, KEY)],
        "unreadable": [under(behind.header, relabelled(mine, behind))],
        "malformed": [
            under(mine.header, behind.frame),
            under(mine.header, vitals.frame),
            under(mine.header, stranger.frame),
        ],
        "unknown_hub": [said("wardlink/1/ward/hub-2/waveform", sealed_slice(mine, 0).payload, KEY)],
    }
    for reason, messages in spliced.items():
        for message_ in messages:
            lines = take(intake(KeptStore()), message_)
            assert [line["reason"] for line in lines if line["type"] == "rejected"] == [reason]
            assert sequences(lines) == []
    # Another journal's own frames are another epoch: they neither fit nor disturb this one's.
    store = KeptStore()
    lines = take(intake(store), *map(message, [mine, stranger, *found[1:], *batches(other)[1:]]))
    assert gaps(lines) == []
    assert len(store.ledger.tracks) == 2


def under(header: bytes, frame: bytes) -> Incoming:
    payload = b"WLSEALD2" + len(header).to_bytes(2, "little") + header + frame
    return said(TOPIC + WAVE, payload, KEY)


def relabelled(batch: SealedBatch, as_: SealedBatch) -> bytes:
    """Its ciphertext behind the header of another, with the checksums made right."""
    frame = as_.frame[:FRAME_HEADER_BYTES] + batch.frame[FRAME_HEADER_BYTES:]
    padded = bytearray(frame.ljust(-(-len(frame) // BLOCK_BYTES) * BLOCK_BYTES, b"\0"))
    forge_frame(padded)
    return bytes(padded[: len(frame)])


def test_an_old_segment_sent_again_is_all_repeats() -> None:
    journal = open_for(three_boots(), boot_id="boot-9")
    sent = [message(batch) for batch in batches(journal)]
    store = KeptStore()
    take(intake(store), *sent)
    was = deepcopy(only(store))
    assert take(intake(store), *sent) == []
    assert only(store) == was


def test_an_analyst_finds_what_is_in_doubt_by_the_documents_question(
    place: tuple[str, str],
) -> None:
    document = " ".join((DOCS / "database.md").read_text(encoding="utf-8").split())
    begin = document.index("`SELECT e.* FROM entries e")
    question = document[begin + 1 : document.index("`", begin + 1)]
    before, after = forked()
    store = SqlStore(some_dialect(*place), SystemClock())
    take(intake(store), *before, *after)
    store.close()
    found = query(*place, question)
    assert sorted(row["sequence"] for row in found) == [7, 8, 9, 10, 11, 12]

"""Journals of every format that was ever written are kept in tests/journals and read."""

import json
import shutil
from pathlib import Path

import pytest

from gateway.journal.blocks import HEAD
from gateway.journal.entry import Batch, PackedBatch, Stream
from gateway.journal.inspect import JournalFiles
from gateway.journal.keys import HubKey
from gateway.journal.segment import (
    BLOCK_BYTES,
    FRAME_HEADER_BYTES,
    body_is_whole,
    parse_frame,
)
from gateway.journal.storage import DISK
from gateway.waveform import WaveformCodec
from tests.gateway.journal.builders import ecg, open_journal, vital
from tests.journals.facts import facts

KEPT = sorted(path for path in Path(__file__).parents[2].glob("journals/v*") if path.is_dir())

IN_BLOCKS = KEPT[0].parent / "records-4"
"""Of format 2, with batches of version 4."""


def within(kept: object, found: object) -> bool:
    """Whether everything that was kept is found; a later release may say more."""
    if isinstance(kept, dict):
        return isinstance(found, dict) and all(
            name in found and within(part, found[name]) for name, part in kept.items()
        )
    if isinstance(kept, list):
        return isinstance(found, list) and len(kept) == len(found) and all(map(within, kept, found))
    return kept == found


def test_there_is_one_of_each_format() -> None:
    assert [path.name for path in KEPT] == ["v1", "v2"]


@pytest.mark.parametrize("kept", KEPT, ids=lambda path: path.name)
def test_every_bit_of_a_kept_frame_is_found_without_a_key(kept: Path) -> None:
    segment = min((kept / "journal" / Stream.VITALS).iterdir()).read_bytes()
    good = bytearray(segment[BLOCK_BYTES : 2 * BLOCK_BYTES])
    header = parse_frame(bytes(good))
    assert header
    assert f"v{header.version}" == kept.name
    assert body_is_whole(header, bytes(good))
    for bit in range(len(good) * 8):
        good[bit // 8] ^= 1 << bit % 8
        whole = body_is_whole(header, bytes(good))
        assert not whole if bit >= FRAME_HEADER_BYTES * 8 else not parse_frame(bytes(good)), bit
        good[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("kept", [*KEPT, IN_BLOCKS], ids=lambda path: path.name)
def test_a_kept_journal_is_read_and_goes_on(kept: Path, tmp_path: Path) -> None:
    here = shutil.copytree(kept, tmp_path / "kept")
    journal = open_journal(
        DISK,
        here / "journal",
        key=HubKey((here / "hub.key").read_bytes()),
        segment_bytes=24_576,
        boot_id="boot-later",
        codec=WaveformCodec(),
    )
    contents = json.loads((here / "contents.json").read_text(encoding="utf-8"))
    assert sum(map(len, contents.values())) > 15
    for stream in Stream:
        assert within(contents[stream], facts(journal, stream)), stream
    assert journal.acknowledged(Stream.WAVEFORM) == 4
    assert journal.recovery.previous_boot_id == "boot-1"
    assert [*journal.recovery.damage, *journal.take_damage()] == []
    journal.append("belt", vital(101))
    journal.close()


def test_the_kept_blocks_are_blocks_and_the_half_with_the_network_carries_them(
    tmp_path: Path,
) -> None:
    here = shutil.copytree(IN_BLOCKS, tmp_path / "kept")
    key = HubKey((here / "hub.key").read_bytes())
    files = JournalFiles(here / "journal", WaveformCodec())
    entries = [
        entry
        for batch in files.batches(Stream.WAVEFORM, key)
        if isinstance(batch, Batch)
        for entry in batch.entries
        if entry.device == "patch"
    ]
    assert [entry.record for entry in entries] == [
        record for second in range(3) for record in ecg(first=250 * second, at_ns=second * 10**9)
    ]
    journal = open_journal(DISK, here / "journal", key=key, segment_bytes=24_576)
    batch = journal.read(Stream.WAVEFORM, entries[0].sequence - 1)
    assert isinstance(batch, PackedBatch)
    assert batch.records.startswith(HEAD)
    assert batch.span == (entries[0].sequence, entries[9].sequence)
    journal.close()

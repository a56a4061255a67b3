"""What a caller of the journal may rely on."""

import errno
from pathlib import Path
from random import Random

import pytest

from drivers.model import Event, EventKind
from gateway.journal.buffer import PENDING_BYTES
from gateway.journal.entry import Stream
from gateway.journal.journal import Damage, Evicted, Journal, JournalError, JournalFull
from gateway.journal.keys import HubKey
from gateway.journal.segment import BLOCK_BYTES
from gateway.journal.storage import DISK
from tests.gateway.journal.builders import (
    DIRECTORY,
    SEGMENT,
    alarm,
    audit,
    open_journal,
    read_all,
    records,
    vital,
    wave,
)
from tests.gateway.journal.simulated_disk import SimulatedDisk


def fill(journal: Journal, count: int, start: int = 1) -> None:
    """One wave of a little more than a block each, one commit each: three to a segment of eight blocks."""
    for number in range(start, start + count):
        journal.append("ecg", wave(number))
        journal.commit()


def test_nothing_is_handed_out_before_it_is_durable() -> None:
    journal = open_journal(SimulatedDisk())
    assert journal.append("hr", vital(1)) == 1
    assert journal.append("hr", vital(2), subject="s-7") == 2
    assert journal.read(Stream.VITALS, 0) is None
    assert journal.pending_bytes > 0
    journal.commit()
    assert journal.pending_bytes == 0
    batch = journal.read(Stream.VITALS, 0)
    assert batch is not None
    assert [entry.record for entry in batch.entries] == [vital(1), vital(2)]
    assert [entry.subject for entry in batch.entries] == [None, "s-7"]
    assert (batch.hub, batch.epoch, batch.boot_id) == ("hub-1", journal.epoch, "boot-1")
    assert journal.read(Stream.VITALS, 1) == batch
    assert journal.read(Stream.VITALS, 2) is None


def test_a_frame_written_but_not_synced_is_not_handed_out() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    seen = []

    def look(operation: str, _path: Path) -> OSError | None:
        if operation == "datasync":
            seen.append(journal.read(Stream.VITALS, 0))
        return None

    journal.append("hr", vital(1))
    disk.fault = look
    journal.commit()
    assert seen
    assert not any(seen)


def test_one_process_at_a_time(tmp_path: Path) -> None:
    directory = tmp_path / "journal"
    first = open_journal(DISK, directory)
    with pytest.raises(JournalError, match="another process has it open"):
        open_journal(DISK, directory)
    first.close()
    open_journal(DISK, directory).close()


def test_a_closed_journal_takes_nothing() -> None:
    journal = open_journal(SimulatedDisk())
    journal.close()
    journal.close()
    for use in (
        lambda: journal.append("hr", vital(1)),
        journal.commit,
        lambda: journal.acknowledge(Stream.VITALS, 0),
    ):
        with pytest.raises(JournalError, match="closed"):
            use()


def test_pending_records_are_bounded_in_bytes() -> None:
    journal = open_journal(SimulatedDisk(), segment_bytes=1 << 20)
    number = 0
    while journal.pending_bytes + 60_100 < PENDING_BYTES:
        number = journal.append("ecg", wave(number, 60_000))
    with pytest.raises(JournalFull, match="wait for a commit"):
        journal.append("ecg", wave(number, 60_000))
    assert PENDING_BYTES - 61_000 < journal.pending_bytes <= PENDING_BYTES
    journal.commit()
    journal.append("ecg", wave(1))
    assert journal.high_water(Stream.WAVEFORM) == number


def test_a_record_larger_than_a_frame_is_refused() -> None:
    journal = open_journal(SimulatedDisk(), segment_bytes=1 << 20)
    with pytest.raises(JournalError, match="expected at most 65529"):
        journal.append("ecg", wave(1, 65_600))
    assert journal.append("ecg", wave(1)) == 1


def test_a_budget_that_cannot_work_is_refused() -> None:
    with pytest.raises(JournalError, match="max_bytes"):
        open_journal(SimulatedDisk(), segments=7)


def test_an_orderly_end_is_told_from_a_power_cut() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    assert journal.recovery.clean
    assert journal.recovery.previous_boot_id is None
    journal.append("hr", vital(1))
    journal.close()
    journal = open_journal(disk, boot_id="boot-2")
    assert journal.recovery.clean
    assert journal.recovery.previous_boot_id == "boot-1"
    assert journal.recovery.last_commit is not None
    disk.crash(Random(0))
    journal = open_journal(disk, boot_id="boot-3")
    assert not journal.recovery.clean
    assert journal.recovery.previous_boot_id == "boot-2"
    assert journal.recovery.last_commit is None  # nothing was committed in that boot
    assert journal.recovery.damage == ()


def test_the_newest_time_of_a_device_is_known_within_a_boot() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append("hr", vital(30))
    assert journal.last_ns("hr") is None
    journal.append("hr", vital(20))
    journal.append("ecg", wave(7))
    journal.commit()
    assert (journal.last_ns("hr"), journal.last_ns("ecg")) == (30, 7)
    disk.crash(Random(0))
    journal = open_journal(disk)
    assert (journal.last_ns("hr"), journal.last_ns("ecg")) == (30, 7)
    journal.close()
    assert open_journal(disk, boot_id="boot-2").last_ns("hr") is None


def test_a_journal_of_another_hub_is_refused_and_left_alone() -> None:
    disk = SimulatedDisk()
    open_journal(disk).close()
    with pytest.raises(JournalError, match="belongs to hub 'hub-1', expected 'hub-2'"):
        open_journal(disk, hub="hub-2")
    open_journal(disk)


def test_acknowledged_segments_are_used_again_and_never_show_old_data() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 9)
    files = journal.status().size_bytes
    for start in range(10, 60, 3):
        journal.acknowledge(Stream.WAVEFORM, start - 1)
        assert journal.acknowledged(Stream.WAVEFORM) == start - 1
        fill(journal, 3, start)
        assert journal.read(Stream.WAVEFORM, 0) is not None
        found = records(read_all(journal, Stream.WAVEFORM, start - 1))
        assert found == {n: wave(n) for n in range(start, start + 3)}
    assert journal.status().size_bytes == files
    disk.crash(Random(1))
    journal = open_journal(disk)
    assert journal.recovery.damage == ()
    assert journal.high_water(Stream.WAVEFORM) == 60
    assert records(read_all(journal, Stream.WAVEFORM, 57)) == {n: wave(n) for n in (58, 59, 60)}


def test_a_drained_backlog_gives_its_disk_back() -> None:
    journal = open_journal(SimulatedDisk())
    fill(journal, 150)
    assert journal.status().size_bytes == 50 * SEGMENT
    journal.acknowledge(Stream.WAVEFORM, 150)
    assert journal.status().size_bytes == 17 * SEGMENT


def test_an_acknowledgement_never_goes_back_and_never_ahead() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 3)
    journal.acknowledge(Stream.WAVEFORM, 2)
    journal.acknowledge(Stream.WAVEFORM, 1)
    assert journal.acknowledged(Stream.WAVEFORM) == 2
    with pytest.raises(JournalError, match="acknowledgement of 4, expected at most 3"):
        journal.acknowledge(Stream.WAVEFORM, 4)
    disk.crash(Random(2))
    assert open_journal(disk).acknowledged(Stream.WAVEFORM) == 2


def test_a_full_budget_evicts_waveform_then_vitals_and_names_both() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=8)
    named: set[tuple[Stream, int]] = set()
    for number in range(1, 4):  # each start takes four segments of the eight
        journal.append("hr", vital(number))
        journal.append("ecg", wave(number))
        journal.append("hub", audit(number))
        journal.append("hub", alarm(number))
        journal.close()
        named |= sequences(journal.take_evictions())
        journal = open_journal(disk, segments=8)
        assert sequences(journal.take_evictions()) == named  # until the cursor is past it
    for stream in Stream:
        found = {(stream, entry.sequence) for entry in read_all(journal, stream)}
        assert found == {(stream, n) for n in (1, 2, 3)} - named
    assert named == {(s, n) for s in (Stream.WAVEFORM, Stream.VITALS) for n in (1, 2)}


def sequences(evictions: list[Evicted]) -> set[tuple[Stream, int]]:
    return {(e.stream, n) for e in evictions for n in range(e.first_sequence, e.last_sequence + 1)}


def test_the_lowest_class_gives_way_first_and_oldest_first() -> None:
    journal = open_journal(SimulatedDisk(), segments=8)
    for number in range(1, 15):  # six frames to a segment of eight blocks
        journal.append("hr", vital(number))
        journal.commit()
    fill(journal, 6)
    evicted = []
    for _ in range(6):  # one to a segment
        journal.append("hub", Event(EventKind.FAULT, 1, "test", data=bytes(20_000)))
        journal.commit()
        evicted += journal.take_evictions()
    assert evicted == [
        Evicted(Stream.WAVEFORM, 1, 3),
        Evicted(Stream.VITALS, 1, 6),
        Evicted(Stream.VITALS, 7, 12),
    ]


def test_alarms_are_never_evicted_and_a_full_journal_says_so() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=8)
    big = Event(EventKind.FAULT, 1, "test", data=bytes(20_000))
    for _ in range(8):
        journal.append("hub", big)
        journal.commit()
    journal.append("hub", big)
    with pytest.raises(JournalFull, match="must not be evicted"):
        journal.commit()
    held = journal.high_water(Stream.ALARM)
    assert held == 8
    assert journal.pending_bytes > 20_000
    assert len(read_all(journal, Stream.ALARM)) == held
    journal.acknowledge(Stream.ALARM, 2)
    journal.commit()
    assert journal.high_water(Stream.ALARM) == held + 1
    assert journal.take_evictions() == []


def test_a_disk_smaller_than_the_budget_is_lived_with() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 9)
    disk.fault = lambda op, _path: OSError(errno.ENOSPC, "full") if op == "create" else None
    fill(journal, 6, 10)
    assert journal.take_evictions() == [
        Evicted(Stream.WAVEFORM, 1, 3),
        Evicted(Stream.WAVEFORM, 4, 6),
    ]
    assert records(read_all(journal, Stream.WAVEFORM)) == {n: wave(n) for n in range(7, 16)}


@pytest.mark.parametrize("operation", ["pwrite", "datasync"])
def test_after_a_failed_write_a_fresh_segment_takes_over(operation: str) -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 1)
    failures = 0
    touched: list[Path] = []

    def fail_once(op: str, path: Path) -> OSError | None:
        nonlocal failures
        if op == operation:
            touched.append(path)
            failures += 1
            return OSError(errno.EIO, "input/output error") if failures == 1 else None
        return None

    disk.fault = fail_once
    fill(journal, 2, 2)
    assert touched[0] not in touched[1:], "the failed file was used again"
    assert records(read_all(journal, Stream.WAVEFORM)) == {n: wave(n) for n in (1, 2, 3)}
    assert journal.take_damage() == []
    disk.fault = lambda _op, _path: None
    disk.crash(Random(3))
    journal = open_journal(disk)
    assert records(read_all(journal, Stream.WAVEFORM)) == {n: wave(n) for n in (1, 2, 3)}
    assert journal.take_damage() == []


def test_a_disk_that_fails_twice_loses_nothing_that_was_accepted() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 1)
    disk.fault = lambda op, _path: OSError(errno.EIO, "bad") if op == "datasync" else None
    journal.append("ecg", wave(2))
    for _ in range(2):
        with pytest.raises(JournalError, match="failed in two segments"):
            journal.commit()
    assert journal.high_water(Stream.WAVEFORM) == 1
    assert records(read_all(journal, Stream.WAVEFORM)) == {1: wave(1)}
    disk.fault = lambda _op, _path: None
    journal.commit()
    assert records(read_all(journal, Stream.WAVEFORM)) == {1: wave(1), 2: wave(2)}


def segment_file(disk: SimulatedDisk, stream: Stream, at: int = 0) -> bytearray:
    names = disk.directories[DIRECTORY / stream].cache
    inode = names[sorted(names)[at]]
    return inode.cache


def test_a_damaged_block_costs_its_frame_and_no_more() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 6)
    journal.close()
    segment_file(disk, Stream.WAVEFORM)[3 * BLOCK_BYTES + 7] ^= 4
    segment_file(disk, Stream.WAVEFORM)[7] ^= 4  # the header has a copy
    segment_file(disk, Stream.WAVEFORM, 1)[1 * BLOCK_BYTES + 300] ^= 4
    journal = open_journal(disk, boot_id="boot-2")
    assert [(d.first_sequence, d.reason) for d in journal.recovery.damage] == [(4, "checksum")]
    found = records(read_all(journal, Stream.WAVEFORM))
    assert found == {n: wave(n) for n in (1, 3, 5, 6)}
    assert journal.take_damage() == [Damage(Stream.WAVEFORM, 2, 2, "missing")]
    assert journal.take_damage() == []


def test_a_bad_sector_costs_its_frame_and_no_more() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 3)
    journal.close()
    bad = range(4 * BLOCK_BYTES, 5 * BLOCK_BYTES)  # the second block of the second frame
    disk.bad_blocks = lambda _path, offset, size: (
        OSError(errno.EIO, "bad sector")
        if offset < bad.stop and offset + size > bad.start
        else None
    )
    journal = open_journal(disk)
    assert journal.recovery.damage == (Damage(Stream.WAVEFORM, 2, 2, "checksum"),)
    assert records(read_all(journal, Stream.WAVEFORM)) == {n: wave(n) for n in (1, 3)}


def test_a_segment_evicted_under_a_reader_is_no_damage() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=8)
    fill(journal, 24)
    assert journal.read(Stream.WAVEFORM, 0)

    def evict(operation: str, path: Path) -> OSError | None:
        if operation == "open" and path.parent.name == Stream.WAVEFORM:
            disk.fault = lambda _operation, _path: None
            fill(journal, 1, 25)
        return None

    disk.fault = evict
    batch = journal.read(Stream.WAVEFORM, 0)
    assert batch is not None
    assert batch.first_sequence == 4
    assert journal.take_damage() == []
    assert journal.take_evictions() == [Evicted(Stream.WAVEFORM, 1, 3)]


def test_a_lost_segment_is_named() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 9)
    journal.close()
    names = disk.directories[DIRECTORY / Stream.WAVEFORM].cache
    del names[sorted(names)[1]]
    journal = open_journal(disk, boot_id="boot-2")
    found = records(read_all(journal, Stream.WAVEFORM))
    assert found == {n: wave(n) for n in (1, 2, 3, 7, 8, 9)}
    assert journal.take_damage() == [Damage(Stream.WAVEFORM, 4, 6, "missing")]


def test_a_lost_tail_is_named_after_an_orderly_end() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 3)
    journal.close()
    segment = segment_file(disk, Stream.WAVEFORM)
    segment[5 * BLOCK_BYTES :] = bytes(len(segment) - 5 * BLOCK_BYTES)
    journal = open_journal(disk)
    assert journal.recovery.damage == (Damage(Stream.WAVEFORM, 3, 3, "missing"),)
    assert journal.append("ecg", wave(4)) == 4  # its number is not given again


def test_without_state_and_cursor_the_data_is_still_there() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 9)
    journal.acknowledge(Stream.WAVEFORM, 4)
    epoch = journal.epoch
    journal.close()
    for name in ("state", "cursor"):
        disk.directories[DIRECTORY].cache[name].cache[:] = bytes(8192)
    journal = open_journal(disk)
    assert not journal.recovery.clean
    assert journal.epoch == epoch
    assert journal.acknowledged(Stream.WAVEFORM) == 3
    found = records(read_all(journal, Stream.WAVEFORM, 3))
    assert found == {n: wave(n) for n in range(4, 10)}
    assert journal.take_evictions() == []


def test_with_another_key_the_old_data_is_named_and_new_data_flows() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    fill(journal, 2)
    journal.close()
    journal = open_journal(disk, key=HubKey.generate())
    fill(journal, 1, 3)
    assert records(read_all(journal, Stream.WAVEFORM)) == {3: wave(3)}
    damage = [*journal.recovery.damage, *journal.take_damage()]
    assert {(d.first_sequence, d.reason) for d in damage} == {(1, "no key"), (2, "no key")}


def test_what_was_recorded_cannot_be_found_on_the_disk(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "journal")
    needle = b"THE-PATIENT-HAS-A-SECRET"
    journal.append(needle.decode(), Event(EventKind.FAULT, 1, "x", data=needle), needle.decode())
    journal.close()
    files = [path for path in (tmp_path / "journal").rglob("*") if path.is_file()]
    assert len(files) == 6  # lock, state, cursor and its lock, published, one segment
    assert not [path for path in files if needle in path.read_bytes()]
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
    again = open_journal(DISK, tmp_path / "journal")
    assert len(read_all(again, Stream.ALARM)) == 1
    again.close()

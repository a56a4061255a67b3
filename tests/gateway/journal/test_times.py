"""When things were written: which segments hold a day, and which frames a time; and what need not be sent again."""

from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import ClockReading, ClockState
from gateway.journal import times
from gateway.journal.cursor import BEYOND_KEPT
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.reader import JournalReader
from gateway.journal.segment import BLOCK_BYTES
from tests.gateway.journal.builders import DIRECTORY, KEY, SEGMENT, open_journal, read_all, vital
from tests.gateway.journal.simulated_disk import SimulatedDisk
from tests.gateway.journal.test_reader import open_reader, put, sequences

VITALS = Stream.VITALS
HOUR_NS = 3_600_000_000_000
DAY_NS = 24 * HOUR_NS
START_NS = 20_000 * DAY_NS


class HandClock:
    """Stands still; a boot without a set clock counts from 1970."""

    def __init__(self, boot_id: str = "boot-1", wall_ns: int = START_NS) -> None:
        self.boot_id = boot_id
        self.now = ClockReading(1, wall_ns, ClockState.SYNCHRONISED, 1)

    def boottime_ns(self) -> int:
        return self.now.boottime_ns

    def read(self) -> ClockReading:
        return self.now

    def pass_ns(self, duration_ns: int) -> None:
        now = self.now
        boottime_ns, wall_ns = now.boottime_ns + duration_ns, now.wall_ns + duration_ns
        self.now = replace(now, boottime_ns=boottime_ns, wall_ns=wall_ns)


def journal_at(disk: SimulatedDisk, clock: HandClock) -> Journal:
    return Journal.open(
        DIRECTORY,
        hub="hub-1",
        clock=clock,
        hub_key=KEY,
        max_bytes=200 * SEGMENT,
        storage=disk,
        segment_bytes=SEGMENT,
    )


def hourly(disk: SimulatedDisk, clock: HandClock, hours: int) -> JournalReader:
    """An entry an hour, six to a segment: four segments a day."""
    with_clock = journal_at(disk, clock)
    for _ in range(hours):
        put(with_clock, 1)
        clock.pass_ns(HOUR_NS)
    with_clock.close()
    return open_reader(disk)


def begin(reader: JournalReader, sequence: int) -> int:
    return reader.day_begin(VITALS, sequence)


def during(reader: JournalReader, clock: HandClock, first_h: float, last_h: float) -> list[int]:
    """The entries of these hours since the start."""
    spans, all_of_it = reader.during(
        VITALS,
        START_NS + int(first_h * HOUR_NS),
        START_NS + int(last_h * HOUR_NS),
        clock.boot_id,
        clock.now,
    )
    assert all_of_it
    return [n for first, last in spans for n in range(first, last + 1)]


def test_a_day_begins_with_the_segment_that_was_begun_in_it() -> None:
    reader = hourly(SimulatedDisk(), HandClock(), 60)
    assert [begin(reader, n) for n in (1, 7, 24, 25, 31, 48, 49, 60)] == [
        1,
        1,
        1,
        25,
        25,
        25,
        49,
        49,
    ]
    assert reader.day_begin(Stream.ALARM, 1) == 1
    assert begin(reader, 10**9) == 49


def test_a_time_is_found_to_the_commit() -> None:
    clock = HandClock()
    reader = hourly(SimulatedDisk(), clock, 60)
    assert during(reader, clock, 0, 0.5) == [1, 2], (
        "the commit behind it may hold what was before it"
    )
    assert during(reader, clock, 7, 8) == [8, 9]
    assert during(reader, clock, 22.5, 30.5) == list(range(24, 33))
    assert during(reader, clock, 58.5, 99) == [60]
    assert during(reader, clock, -9, -1) == []
    assert during(reader, clock, -9, 999) == list(range(1, 61))
    assert during(reader, clock, 100, 101) == []


def test_what_was_written_before_the_clock_was_set_is_found_where_it_belongs() -> None:
    disk, clock = SimulatedDisk(), HandClock(wall_ns=0)
    clock.now = replace(clock.now, state=ClockState.UNSET, error_ns=None)
    journal = journal_at(disk, clock)
    for _ in range(10):
        put(journal, 1)
        clock.pass_ns(HOUR_NS)
    clock.now = replace(clock.now, wall_ns=START_NS + 10 * HOUR_NS, state=ClockState.SYNCHRONISED)
    reader = open_reader(disk)
    assert during(reader, clock, 1.5, 3.5) == [3, 4, 5]
    journal.close()
    # A later boot goes on where this one ended; one that never had a time stands in 1970.
    later = HandClock("boot-2", START_NS + 20 * HOUR_NS)
    journal = journal_at(disk, later)
    put(journal, 2)
    journal.close()
    reader.refresh()
    assert during(reader, later, 20, 21) == [11, 12]
    assert during(reader, later, 1.5, 3.5) == [3, 4, 5]
    assert begin(reader, 12) == begin(reader, 3) == 1


def test_the_index_grows_from_the_newest_on_and_a_part_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(times.SegmentTimes.update, "__defaults__", (3,))
    clock = HandClock()
    reader = hourly(SimulatedDisk(), clock, 48)
    asked = (VITALS, START_NS, START_NS + 100 * HOUR_NS, clock.boot_id, clock.now)
    assert begin(reader, 48) == 31, "three segments are known"
    found = [reader.during(*asked) for _ in range(3)]
    assert found == [(((13, 48),), False), (((1, 48),), True), (((1, 48),), True)]
    assert begin(reader, 48) == 25
    assert begin(reader, 5) == 1


def test_only_headers_are_read_and_each_once() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    reader = hourly(disk, clock, 48)
    looks: list[Path] = []

    def look(operation: str, path: Path) -> None:
        if operation == "open":
            looks.append(path)

    disk.fault = look
    assert begin(reader, 48) == 25
    assert len(looks) == len(set(looks)) <= 8
    looks.clear()
    assert begin(reader, 20) == 1
    assert looks == []


def test_what_was_given_back_and_what_is_damaged_stops_nothing() -> None:
    disk, clock = SimulatedDisk(), HandClock()
    journal = journal_at(disk, clock)
    for _ in range(48):
        put(journal, 1)
        clock.pass_ns(HOUR_NS)
    reader = open_reader(disk)
    assert begin(reader, 48) == 25
    reader.acknowledge(VITALS, 12)
    journal.commit()
    put(journal, 1)
    reader.refresh()
    assert during(reader, clock, 0, 99) == list(range(13, 50))
    journal.close()
    place = sorted(p for p in disk.list(DIRECTORY / VITALS))[3]
    with disk.open(DIRECTORY / VITALS / place) as file:
        file.pwrite(bytes(BLOCK_BYTES), 0)
        file.pwrite(bytes(BLOCK_BYTES), SEGMENT - BLOCK_BYTES)
    again = open_reader(disk, acknowledges=False)
    assert during(again, clock, 0, 99) == list(range(13, 50))
    assert begin(again, 49) == 49


# --- What was delivered behind the cursor ----------------------------------------------------------------


def test_what_was_delivered_behind_the_cursor_is_known_after_a_restart() -> None:
    disk = SimulatedDisk()
    put(open_journal(disk), 90)
    reader = open_reader(disk)
    assert reader.remembered(VITALS) == ()
    reader.acknowledge(VITALS, 5, [(11, 20), (31, 40)])
    reader.acknowledge(Stream.ALARM, 0, [])
    reader.close()
    again = open_reader(disk)
    assert (again.acknowledged(VITALS), again.remembered(VITALS)) == (5, ((11, 20), (31, 40)))
    assert sequences(again, VITALS, 10)[0] == 11, "it is still kept"
    again.acknowledge(VITALS, 20, [(31, 40)])
    again.close()
    assert open_reader(disk).remembered(VITALS) == ((31, 40),)


def test_a_damaged_memory_costs_repeats_alone() -> None:
    disk = SimulatedDisk()
    put(open_journal(disk), 9)
    reader = open_reader(disk)
    reader.acknowledge(VITALS, 2, [(5, 6)])
    reader.close()
    with disk.open(DIRECTORY / "delivered") as file:
        file.pwrite(b"x" * 8192, 0)
    again = open_reader(disk)
    assert (again.acknowledged(VITALS), again.remembered(VITALS)) == (2, ())
    again.acknowledge(VITALS, 2, [(5, 6)])
    again.close()
    assert open_reader(disk).remembered(VITALS) == ((5, 6),)


def test_the_memory_of_another_journal_says_nothing() -> None:
    disk = SimulatedDisk()
    put(open_journal(disk), 9)
    reader = open_reader(disk)
    reader.acknowledge(VITALS, 2, [(5, 6)])
    with disk.open(DIRECTORY / "delivered") as file:
        kept = file.pread(8192, 0)
    disk = SimulatedDisk()
    put(open_journal(disk), 9)
    disk.create(DIRECTORY / "delivered", 8192)
    with disk.open(DIRECTORY / "delivered") as file:
        file.pwrite(kept, 0)
    assert open_reader(disk).remembered(VITALS) == ()


def test_the_memory_is_bounded_and_keeps_the_largest() -> None:
    disk = SimulatedDisk()
    put(open_journal(disk), 1)
    reader = open_reader(disk)
    far = 2**62
    spans = [(far + 100 * n, far + 100 * n + n) for n in range(BEYOND_KEPT + 9)]
    for stream in Stream:
        reader.acknowledge(stream, 0, spans)
    reader.close()
    again = open_reader(disk)
    assert all(again.remembered(stream) == tuple(spans[9:]) for stream in Stream)


def test_a_number_that_was_delivered_is_never_given_again() -> None:
    """The newest entries were delivered before a backlog; then the disk loses them."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    put(journal, 8)
    reader = open_reader(disk)
    reader.acknowledge(VITALS, 2, [(7, 8)])
    reader.close()
    journal.close()
    (name,) = disk.list(DIRECTORY / VITALS)
    with disk.open(DIRECTORY / VITALS / name) as file:
        file.pwrite(bytes(SEGMENT - 2 * BLOCK_BYTES), BLOCK_BYTES)
    for slots in ("state", "state.new"):
        if slots in disk.list(DIRECTORY):
            disk.unlink(DIRECTORY / slots)
    journal = open_journal(disk)
    assert journal.append("d", vital(1)) == 9
    journal.commit()
    assert [entry.sequence for entry in read_all(journal, VITALS)] == [9]
    assert [(d.first_sequence, d.last_sequence) for d in journal.recovery.damage] == [(3, 8)]

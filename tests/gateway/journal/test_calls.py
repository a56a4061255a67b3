"""What a commit asks of the disk: each call costs time and wear, and their order is what makes a promise true."""

import errno
from collections.abc import Callable
from pathlib import Path

from gateway.journal import published
from gateway.journal.cursor import Cursor
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.reader import JournalReader
from gateway.journal.slots import SLOT_BYTES, Slots
from tests.gateway.journal.builders import (
    DIRECTORY,
    KEY,
    SEGMENT,
    open_journal,
    read_all,
    records,
    vital,
    wave,
)
from tests.gateway.journal.simulated_disk import SimulatedDisk

CHANGES = {"pwrite", "datasync", "rename", "sync_directory", "create", "unlink"}
FIRST = ["pwrite frames", "pwrite frames", "datasync frames", "rename", "sync_directory"]
"""The header with the first frames, the copy of the header; only what is durable gets a name."""
NEXT = ["pwrite frames", "datasync frames"]
MARK = ["pwrite published"]


class Calls:
    """Notes what changes the disk, in words that do not depend on a file's number."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.made: list[str] = []
        disk.fault = self._note

    def _note(self, operation: str, path: Path) -> None:
        if operation in CHANGES:
            kind = "frames" if path.suffix in {".free", ".seg"} else path.name
            of_file = operation in {"pwrite", "datasync"}
            self.made.append(f"{operation} {kind}" if of_file else operation)

    def of(self, work: Callable[[], object]) -> list[str]:
        self.made.clear()
        work()
        return self.made[:]


def commit(journal: Journal, *numbers: int) -> Callable[[], None]:
    def work() -> None:
        for number in numbers:
            journal.append("ecg", wave(number))
        journal.commit()

    return work


def drained() -> tuple[SimulatedDisk, Journal]:
    """A journal with spare files, so that none has to be made."""
    disk = SimulatedDisk()
    journal = open_journal(disk)
    for number in range(1, 10):
        commit(journal, number)()
    journal.acknowledge(Stream.WAVEFORM, 9)
    return disk, journal


def test_a_commit_is_one_write_and_one_sync_and_a_new_segment_one_sync_of_its_directory() -> None:
    disk, journal = drained()
    calls = Calls(disk)
    assert calls.of(commit(journal, 10)) == FIRST + MARK
    assert calls.of(commit(journal, 11)) == NEXT + MARK
    assert calls.of(commit(journal, 12, 13)) == FIRST + MARK, "a frame too large for what is left"
    assert calls.of(journal.commit) == []
    assert list(records(read_all(journal, Stream.WAVEFORM, 9))) == [10, 11, 12, 13]


def test_nothing_of_a_segment_that_got_no_name_counts() -> None:
    for operation in ("rename", "sync_directory"):
        disk, journal = drained()
        failed: list[str] = []

        def fail_once(
            called: str, path: Path, fails: str = operation, failed: list[str] = failed
        ) -> OSError | None:
            if called == fails and "waveform" in str(path) and not failed:
                failed.append(called)
                return OSError(errno.EIO, "input/output error")
            return None

        disk.fault = fail_once
        files = journal.status().size_bytes
        commit(journal, 10)()
        assert failed
        assert journal.high_water(Stream.WAVEFORM) == 10
        assert records(read_all(journal, Stream.WAVEFORM, 9)) == {10: wave(10)}
        assert journal.take_damage() == []
        assert journal.status().size_bytes == files - SEGMENT, "the file is given up, and no other"
        held = sum(len(disk.list(DIRECTORY / name)) for name in (*Stream, "spare"))
        assert held * SEGMENT == journal.status().size_bytes
        disk.fault = lambda _operation, _path: None
        journal.close()
        journal = open_journal(disk)
        assert records(read_all(journal, Stream.WAVEFORM, 9)) == {10: wave(10)}
        assert journal.recovery.damage == ()


def test_a_cursor_that_did_not_move_is_read_once_and_parsed_never() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    reader = JournalReader(DIRECTORY, hub="hub-1", hub_key=KEY, storage=disk)
    marks = published.load(DIRECTORY, disk)
    assert marks
    reader.follow(marks)
    commit(journal, 1)()
    reads: list[str] = []
    disk.fault = lambda operation, path: reads.append(path.name) if operation == "pread" else None
    for number in range(2, 5):
        commit(journal, number)()
    assert reads == ["cursor"] * 3
    disk.fault = lambda _operation, _path: None
    reader.refresh()
    reader.acknowledge(Stream.WAVEFORM, 4)
    journal.append("hr", vital(1))
    journal.commit()
    assert journal.acknowledged(Stream.WAVEFORM) == 4


def test_what_could_not_be_taken_back_is_tried_again_though_the_cursor_stands() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    for number in range(1, 10):
        commit(journal, number)()
    reader = JournalReader(DIRECTORY, hub="hub-1", hub_key=KEY, storage=disk)
    marks = published.load(DIRECTORY, disk)
    assert marks
    reader.follow(marks)
    reader.acknowledge(Stream.WAVEFORM, 9)
    full = len(disk.list(DIRECTORY / Stream.WAVEFORM))
    disk.fault = lambda op, _path: OSError(errno.EIO, "bad") if op == "rename" else None
    journal.commit()
    assert len(disk.list(DIRECTORY / Stream.WAVEFORM)) == full
    disk.fault = lambda _operation, _path: None
    journal.commit()
    assert len(disk.list(DIRECTORY / Stream.WAVEFORM)) == 1


def test_news_are_told_once() -> None:
    disk = SimulatedDisk()
    writer, follower = Slots(Path("/slots"), disk), Slots(Path("/slots"), disk)
    assert follower.news() is None
    for n in range(4):
        writer.write(b"%d" % n)
        assert follower.news() == b"%d" % n
        assert follower.news() is None
        assert follower.load() == b"%d" % n, "what is asked for by `load` always comes"
        assert follower.news() is None
    assert len(disk.open(Path("/slots")).pread(3 * SLOT_BYTES, 0)) == 2 * SLOT_BYTES


def test_a_cursor_of_another_epoch_is_no_news() -> None:
    disk = SimulatedDisk()
    disk.make_directory(DIRECTORY)
    ours, other = Cursor(DIRECTORY, disk, b"a" * 16), Cursor(DIRECTORY, disk, b"b" * 16)
    other.write(dict.fromkeys(Stream, 7))
    assert not ours.follow()
    assert set(ours.acknowledged.values()) == {0}

"""A journal followed from outside of its writer. What two real processes do to each other is in test_processes.py."""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.journal import published
from gateway.journal.blocks import SampleReader
from gateway.journal.entry import Batch, PackedBatch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import Place
from gateway.journal.journal import Journal
from gateway.journal.reader import GLANCE_BYTES, JournalReader
from gateway.journal.records import decode_batch
from gateway.journal.segment import FrameHeader
from gateway.journal.storage import DISK, File, FileStorage, Storage
from tests.gateway.journal.builders import (
    DIRECTORY,
    KEY,
    SEGMENT,
    open_journal,
    vital,
    wave,
)
from tests.gateway.journal.simulated_disk import SimulatedDisk

IDLE_S = 5.0
WRITTEN = ".free"
"""The simulated disk knows a file by the name under which it was opened: the writer's, before it became a segment."""


OPENED: list[JournalReader] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    """What a test opened does not outlive it."""
    yield
    while OPENED:
        OPENED.pop().close()


def open_reader(
    storage: Storage, directory: Path = DIRECTORY, *, acknowledges: bool = True
) -> JournalReader:
    """On a disk where nothing wakes it: `refresh` takes the place of that."""
    reader = JournalReader(
        directory, hub="hub-1", hub_key=KEY, storage=storage, acknowledges=acknowledges
    )
    marks = published.load(directory, storage)
    OPENED.append(reader)
    assert marks
    reader.follow(marks)
    return reader


def sequences(reader: JournalReader, stream: Stream, after: int = 0) -> list[int]:
    found: list[int] = []
    while batch := reader.read(stream, after):
        found += [entry.sequence for entry in batch.entries if entry.sequence > after]
        after = batch.last_sequence
    return found


def put(journal: Journal, count: int, make: Callable[[int], object] = vital) -> None:
    for number in range(count):
        journal.append("d", make(number))  # type: ignore[arg-type]
    journal.commit()


# --- Only what is durable ------------------------------------------------------------------------------


def test_what_is_in_the_page_cache_alone_is_not_handed_out() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    put(journal, 3)
    reader = open_reader(disk)
    seen: list[tuple[int, list[int]]] = []

    def look(operation: str, path: Path) -> None:
        if operation == "datasync" and path.suffix == WRITTEN:
            other = open_reader(disk, acknowledges=False)  # begins between write and sync
            reader.refresh()
            seen.append((other.high_water(Stream.VITALS), sequences(other, Stream.VITALS)))
            seen.append((reader.high_water(Stream.VITALS), sequences(reader, Stream.VITALS)))

    disk.fault = look
    put(journal, 2)
    disk.fault = lambda _operation, _path: None
    assert seen == [(3, [1, 2, 3])] * 2
    assert reader.refresh()
    assert sequences(reader, Stream.VITALS) == [1, 2, 3, 4, 5]
    assert reader.read(Stream.VITALS, 5) is None


def test_a_failed_sync_is_never_published_and_what_follows_is_read_once() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    put(journal, 3)
    reader = open_reader(disk)
    failures = 1

    def fail(operation: str, path: Path) -> OSError | None:
        nonlocal failures
        if operation == "datasync" and path.suffix == WRITTEN and failures:
            failures -= 1
            assert not reader.refresh()
            return OSError(5, "EIO")
        return None

    disk.fault = fail
    put(journal, 2)
    assert not failures
    assert reader.refresh()
    assert sequences(reader, Stream.VITALS) == [1, 2, 3, 4, 5]
    put(journal, 1)
    assert journal.take_damage() == []


def test_what_a_killed_process_left_in_the_cache_is_synced_before_it_counts() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    put(journal, 1)
    journal.append("d", vital(2))
    disk.fault = lambda operation, path: (
        InterruptedError() if operation == "datasync" and path.suffix == WRITTEN else None
    )
    with pytest.raises(JournalError):
        journal.commit()
    disk.locked.clear()  # the process is gone, the page cache is not
    synced: list[Path] = []

    def watch(operation: str, path: Path) -> None:
        if operation == "datasync":
            synced.append(path)

    disk.fault = watch
    again = open_journal(disk)
    assert [path.suffix for path in synced if path.parent.name == Stream.VITALS] == [".seg"]
    assert again.high_water(Stream.VITALS) >= 1


@pytest.mark.parametrize("size", [0, 1, 20, 60, 4095])
def test_a_torn_or_missing_mark_is_no_mark(tmp_path: Path, size: int) -> None:
    journal = open_journal(DISK, tmp_path / "j")
    put(journal, 3)
    reader = open_reader(DISK, tmp_path / "j")
    whole = (tmp_path / "j" / published.NAME).read_bytes()
    put(journal, 1)
    new = (tmp_path / "j" / published.NAME).read_bytes()
    differ = min(n for n in range(4096) if new[n] != whole[n])
    cut = max(size, differ + 1)
    (tmp_path / "j" / published.NAME).write_bytes(new[:cut].ljust(4096, b"\xff"))
    if cut < 60:
        assert published.load(tmp_path / "j", DISK) is None
        assert not reader.refresh()
        assert reader.high_water(Stream.VITALS) == 3
    (tmp_path / "j" / published.NAME).write_bytes(new)
    assert reader.refresh()
    assert sequences(reader, Stream.VITALS) == [1, 2, 3, 4]
    journal.close()


def test_another_journal_in_its_place_ends_the_reader(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "j")
    put(journal, 3)
    journal.close()
    reader = open_reader(DISK, tmp_path / "j")
    other = open_journal(DISK, tmp_path / "other")
    other.close()
    (tmp_path / "other" / published.NAME).replace(tmp_path / "j" / published.NAME)
    with pytest.raises(JournalError, match=r"epoch .* is no more; start again"):
        reader.refresh()
    (tmp_path / "j" / published.NAME).unlink()
    with pytest.raises(JournalError, match="is no more"):
        reader.refresh()


def test_following_costs_what_is_new_not_the_segment() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segment_bytes=1_048_576, segments=8)
    put(journal, 1)
    reader = open_reader(disk)
    pread: list[int] = []
    for number in range(1, 100):
        assert [e.sequence for e in reader.read(Stream.VITALS, number - 1).entries] == [number]  # type: ignore[union-attr]
        put(journal, 1)
        disk.bad_blocks = lambda path, _offset, size: (
            pread.append(size) if "spare" not in path.parts else None
        )
        assert reader.refresh()
    assert max(pread) <= GLANCE_BYTES


def test_a_commit_larger_than_a_glance_is_read_whole() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segment_bytes=1_048_576, segments=8)
    put(journal, 1, wave)
    reader = open_reader(disk)
    assert sequences(reader, Stream.WAVEFORM) == [1]
    for _ in range(8):
        put(journal, 100, wave)
        reader.refresh()
    assert sequences(reader, Stream.WAVEFORM) == list(range(1, 802))
    put(journal, 1)
    assert journal.take_damage() == []


# --- Under a writer that recycles ------------------------------------------------------------------------


def test_a_segment_used_again_under_a_reader_gives_no_wrong_record() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=8)
    put(journal, 6, wave)
    behind = open_reader(disk, acknowledges=False)
    assert behind.read(Stream.WAVEFORM, 0)
    for _ in range(30):
        put(journal, 6, wave)  # the budget is used up: the oldest goes
    assert journal.take_evictions()
    batch = behind.read(Stream.WAVEFORM, 1)  # by the names that it knows
    while batch:
        assert all(entry.record == wave((entry.sequence - 1) % 6) for entry in batch.entries)
        batch = behind.read(Stream.WAVEFORM, batch.last_sequence)
    behind.refresh()
    found = sequences(behind, Stream.WAVEFORM)
    assert found == list(range(found[0], journal.high_water(Stream.WAVEFORM) + 1))
    assert found[0] > 1
    put(journal, 1)
    assert journal.take_damage() == []


class SwappingStorage(FileStorage):
    """Just before a segment is opened to be read, its writer recycles and overwrites it, once."""

    def __init__(self) -> None:
        self.swap: Callable[[], None] | None = None

    def open(self, path: Path) -> File:
        file = super().open(path)
        if path.suffix == ".seg" and self.swap:
            swap, self.swap = self.swap, None
            swap()
        return file


def test_a_segment_overwritten_while_it_is_open_is_noticed(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "j", segments=8)
    put(journal, 6, wave)
    storage = SwappingStorage()
    reader = open_reader(storage, tmp_path / "j")
    first = reader.read(Stream.WAVEFORM, 0)
    assert first

    def swap() -> None:
        for _ in range(40):
            put(journal, 6, wave)

    storage.swap = swap
    batch = reader.read(Stream.WAVEFORM, 0)
    assert batch is None or batch == first or batch.first_sequence > first.last_sequence
    reader.refresh()
    batch = reader.read(Stream.WAVEFORM, 0)
    assert isinstance(batch, Batch)
    assert batch.first_sequence > 6
    put(journal, 1)
    assert journal.take_damage() == []
    journal.close()


def test_the_writer_recycles_what_the_reader_has_passed_and_nothing_else() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=256)
    reader = open_reader(disk)
    for _ in range(20):
        put(journal, 6, wave)
    reader.refresh()
    assert sequences(reader, Stream.WAVEFORM) == list(range(1, 121))
    before = len(disk.list(DIRECTORY / Stream.WAVEFORM))
    put(journal, 1)
    assert len(disk.list(DIRECTORY / Stream.WAVEFORM)) == before
    reader.acknowledge(Stream.WAVEFORM, 60)
    put(journal, 1)
    assert len(disk.list(DIRECTORY / Stream.WAVEFORM)) < before
    assert journal.acknowledged(Stream.WAVEFORM) == 60
    assert sequences(reader, Stream.WAVEFORM, 60) == list(range(61, 121))


def test_what_the_reader_cannot_read_is_named_by_the_writer_once(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "j")
    put(journal, 2)
    put(journal, 2)
    (segment,) = (tmp_path / "j" / Stream.VITALS).iterdir()
    data = bytearray(segment.read_bytes())
    data[4096 + 200] ^= 1
    segment.write_bytes(data)
    reader = open_reader(DISK, tmp_path / "j")
    assert sequences(reader, Stream.VITALS) == [3, 4]
    reader.acknowledge(Stream.VITALS, 4)
    put(journal, 1)
    (damage,) = journal.take_damage()
    assert (damage.first_sequence, damage.last_sequence, damage.reason) == (1, 2, "checksum")
    assert sequences(reader, Stream.VITALS) == [3, 4]
    put(journal, 1)
    assert journal.take_damage() == []
    journal.close()
    again = open_journal(DISK, tmp_path / "j")
    put(again, 1)
    assert again.take_damage() == []
    again.close()


# --- The cursor ----------------------------------------------------------------------------------------


def test_one_process_acknowledges(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "j")
    put(journal, 3)
    first = open_reader(DISK, tmp_path / "j")
    with pytest.raises(JournalError, match="another process acknowledges"):
        open_reader(DISK, tmp_path / "j")
    with pytest.raises(JournalError, match="another process acknowledges"):
        journal.acknowledge(Stream.VITALS, 1)
    looker = open_reader(DISK, tmp_path / "j", acknowledges=False)
    assert sequences(looker, Stream.VITALS) == [1, 2, 3]
    with pytest.raises(JournalError, match="only looks"):
        looker.acknowledge(Stream.VITALS, 1)
    with pytest.raises(JournalError, match="expected at most 3"):
        first.acknowledge(Stream.VITALS, 4)
    first.acknowledge(Stream.VITALS, 2)
    first.acknowledge(Stream.VITALS, 1)
    first.close()
    second = open_reader(DISK, tmp_path / "j")
    assert second.acknowledged(Stream.VITALS) == 2
    second.close()
    journal.acknowledge(Stream.VITALS, 3)
    assert journal.acknowledged(Stream.VITALS) == 3
    journal.close()


def test_a_restarted_writer_leaves_the_cursor_to_its_reader(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "j")
    put(journal, 9)
    reader = open_reader(DISK, tmp_path / "j")
    reader.acknowledge(Stream.VITALS, 4)
    journal.close()
    again = open_journal(DISK, tmp_path / "j")
    assert again.acknowledged(Stream.VITALS) == 4
    reader.acknowledge(Stream.VITALS, 7)
    put(again, 1)
    assert again.acknowledged(Stream.VITALS) == 7
    again.close()
    reader.close()
    assert open_reader(DISK, tmp_path / "j").acknowledged(Stream.VITALS) == 7


def test_without_a_cursor_everything_on_disk_is_sent_again(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "j", segments=64)
    for _ in range(20):
        put(journal, 6, wave)
    journal.acknowledge(Stream.WAVEFORM, 60)
    journal.close()
    (tmp_path / "j" / "cursor").unlink()
    reader = open_reader(DISK, tmp_path / "j")
    start = reader.acknowledged(Stream.WAVEFORM)
    assert 0 < start <= 60
    assert sequences(reader, Stream.WAVEFORM, start) == list(range(start + 1, 121))


# --- Being woken ---------------------------------------------------------------------------------------


def live(directory: Path) -> Journal:
    return Journal.open(
        directory, hub="hub-1", clock=SystemClock(), hub_key=KEY, max_bytes=64 * SEGMENT,
        segment_bytes=SEGMENT,
    )  # fmt: skip


def test_a_reader_may_be_first(tmp_path: Path) -> None:
    async def main() -> None:
        reader = JournalReader(tmp_path / "j", hub="hub-1", hub_key=KEY)
        beginning = asyncio.create_task(reader.begin())
        await asyncio.sleep(0.05)
        assert not beginning.done()
        journal = await asyncio.to_thread(live, tmp_path / "j")
        await asyncio.wait_for(beginning, 40)
        assert reader.epoch == journal.epoch
        await asyncio.to_thread(put, journal, 2)
        await asyncio.wait_for(reader.advanced(), 40)
        assert sequences(reader, Stream.VITALS) == [1, 2]
        await asyncio.to_thread(journal.close)
        again = await asyncio.to_thread(live, tmp_path / "j")  # the writer comes back
        await asyncio.to_thread(put, again, 1)
        await asyncio.wait_for(reader.advanced(), 40)
        assert sequences(reader, Stream.VITALS, 2) == [3]
        again.close()
        reader.close()

    asyncio.run(main())


def test_the_wrong_hub_is_told(tmp_path: Path) -> None:
    live(tmp_path / "j").close()
    reader = JournalReader(tmp_path / "j", hub="hub-2", hub_key=KEY)
    with pytest.raises(JournalError, match="belongs to hub 'hub-1', expected 'hub-2'"):
        asyncio.run(reader.begin())
    reader.close()


def test_an_idle_reader_is_never_woken(tmp_path: Path) -> None:
    """Counted in the event loop's own selector: not one turn in five seconds, and no processor time."""

    async def main() -> None:
        journal = await asyncio.to_thread(live, tmp_path / "j")
        await asyncio.to_thread(put, journal, 1)
        reader = JournalReader(tmp_path / "j", hub="hub-1", hub_key=KEY)
        await reader.begin()
        following = asyncio.create_task(reader.advanced())
        await asyncio.sleep(0.1)
        selector = asyncio.get_running_loop()._selector  # type: ignore[attr-defined]
        turns = 0
        select = selector.select

        def counted(timeout: float | None = None) -> object:
            nonlocal turns
            turns += 1
            return select(timeout)

        selector.select = counted
        began = time.process_time()
        await asyncio.sleep(IDLE_S)
        assert turns <= 2  # to sleep, and to end the sleep
        assert time.process_time() - began < 0.05
        assert reader.wakes == 0
        await asyncio.to_thread(journal.commit)  # nothing to commit, nothing to tell
        await asyncio.sleep(0.1)
        assert reader.wakes == 0
        await asyncio.to_thread(put, journal, 1)
        await asyncio.wait_for(following, 40)
        following = asyncio.create_task(reader.advanced())
        await asyncio.sleep(0.1)
        assert reader.wakes == 1  # what it was told it was told once
        following.cancel()
        journal.close()
        reader.close()

    asyncio.run(main())


# --- Undecoded -----------------------------------------------------------------------------------------


def test_packed_batches_are_what_was_written_and_as_many_as_asked_for() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    for count in (3, 1, 5, 2):
        put(journal, count)
    reader = open_reader(disk)
    read = [reader.read(Stream.VITALS, after) for after in (0, 3, 4, 9)]
    batches = reader.read_packed(Stream.VITALS, 0, 11, 10**6)
    assert [batch.first_sequence for batch in batches] == [1, 4, 5, 10]
    for one, whole in zip(batches, read, strict=True):
        assert isinstance(one, PackedBatch)
        assert whole is not None
        assert decode_batch(one.records, one.first_sequence) == whole.entries
        assert replace(whole, entries=()) == Batch(
            one.hub, one.stream, one.epoch, one.boot_id, one.clock, ()
        )
    sizes = [len(batch.records) for batch in batches if isinstance(batch, PackedBatch)]
    for after, until, most_bytes, firsts in (
        (0, 4, 10**6, [1, 4]),
        (0, 5, 10**6, [1, 4, 5]),
        (2, 11, 10**6, [1, 4, 5, 10]),
        (0, 11, 0, [1]),
        (0, 11, sum(sizes[:2]), [1, 4]),
        (0, 11, sum(sizes[:3]) - 1, [1, 4]),
        (4, 11, sum(sizes[2:]), [5, 10]),
        (11, 12, 10**6, []),
    ):
        found = reader.read_packed(Stream.VITALS, after, until, most_bytes)
        assert [batch.first_sequence for batch in found] == firsts


def test_packed_batches_end_before_what_is_damaged_and_it_is_told() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    for _ in range(4):
        put(journal, 2)
    reader = open_reader(disk)
    log = reader._logs[Stream.VITALS]
    whole = log._open

    def torn(
        place: Place,
        frame: FrameHeader,
        *,
        packed: bool = False,
        codec: SampleReader | None = None,
    ) -> Batch | None:
        del codec
        return None if frame.first_sequence == 3 else whole(place, frame, packed=packed)

    log._open = torn  # type: ignore[method-assign]
    for after, firsts in ((0, [1]), (2, [5, 7])):
        found = reader.read_packed(Stream.VITALS, after, 8, 10**6)
        assert [batch.first_sequence for batch in found] == firsts

"""`append` and `read` go on in one thread while another commits, acknowledges, recycles and evicts."""

from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from gateway.journal.entry import Stream
from gateway.journal.journal import Evicted
from gateway.journal.storage import DISK
from tests.gateway.journal.builders import open_journal, wave

RECORDS = 400
BURST = 40
"""One record a frame, three frames a segment, eight segments: a burst does not fit, and the oldest is evicted."""


def test_a_reader_sees_each_record_once_or_its_eviction(tmp_path: Path) -> None:
    journal = open_journal(DISK, tmp_path / "journal", segments=8)
    evicted: list[Evicted] = []
    asked: SimpleQueue[int | None] = SimpleQueue()

    def disk_thread() -> None:
        while (read := asked.get()) is not None:
            journal.commit()
            evicted.extend(journal.take_evictions())
            if read % 3 == 0:
                journal.acknowledge(Stream.WAVEFORM, read)

    worker = Thread(target=disk_thread)
    worker.start()
    reached, holes = 0, set[int]()
    try:
        for number in range(1, RECORDS + 1):
            assert journal.append("ecg", wave(number)) == number
            asked.put(reached)
            while number % BURST == 0 and reached < number:
                batch = journal.read(Stream.WAVEFORM, reached)
                for entry in batch.entries if batch else ():
                    if entry.sequence > reached:
                        holes |= set(range(reached + 1, entry.sequence))
                        assert entry.record == wave(entry.sequence)
                        reached = entry.sequence
    finally:
        asked.put(None)
        worker.join()
    named = {n for e in evicted for n in range(e.first_sequence, e.last_sequence + 1)}
    assert holes <= named
    assert journal.take_damage() == []
    journal.close()

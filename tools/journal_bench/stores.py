"""The journal and its peers behind one interface, for the bench; and what no store can do without.

All get encoded bytes. A put is one commit, durable on return by one sync.
"""

import os
import sqlite3
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from drivers.assigned import Code, Unit
from drivers.model import Observation, SampleArray
from gateway.clock import SystemClock
from gateway.journal import published
from gateway.journal.algorithms import AEADS, KEY_BYTES, cpu_algorithm
from gateway.journal.entry import Stream
from gateway.journal.journal import SEGMENT_BYTES, Journal
from gateway.journal.keys import KEY_FILE, HubKey
from gateway.journal.reader import JournalReader
from gateway.journal.segment import BLOCK_BYTES, TAG_BYTES
from gateway.journal.storage import DISK, page_memory

GIGABYTE = 1_000_000_000
FLOOR_BYTES = 8 * SEGMENT_BYTES
"""The floor's file: written over and over, as segments are used again."""
NONCE_BYTES = 12
HUB, JOURNAL = "bench", "journal"


class Store(Protocol):
    """A queue on disk."""

    def put(self, records: list[bytes]) -> None:
        """Durable on return."""
        ...

    def empty(self) -> None:
        """Everything is taken out."""
        ...


class Ours:
    """The journal below its record codec: buffer, frame, AEAD, segment. As the others, it has no reader elsewhere."""

    stream = Stream.VITALS

    def __init__(self, directory: Path) -> None:
        self.journal = open_journal(directory)
        self._add = self.journal._buffer.add  # noqa: SLF001 - the others are given encoded bytes as well

    def put(self, records: list[bytes]) -> None:
        """See Store."""
        add, stream = self._add, self.stream
        for data in records:
            add(stream, "device", 1, data)
        self.journal.commit()

    def empty(self) -> None:
        """See Store."""
        self.journal.acknowledge(self.stream, self.journal.high_water(self.stream))


class Followed(Ours):
    """The journal as on a hub, where another process owns the cursor: each commit looks how far it has come."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self._reader = open_reader(directory)

    def empty(self) -> None:
        """See Store. With the next commit the writer takes the segments back."""
        self._reader.refresh()
        self._reader.acknowledge(self.stream, self.journal.high_water(self.stream))
        self.journal.commit()


class Whole(Ours):
    """The journal as a driver sees it: records in, with CBOR."""

    stream = Stream.WAVEFORM

    def put(self, records: list[bytes]) -> None:
        """See Store. The records become sample arrays of the same bytes."""
        for data in records:
            samples = SampleArray(data, 2, 8_000_000, Unit.MILLI_VOLT)
            self.journal.append("device", Observation(Code.ECG_ELEC_POTL, samples, 1), "p-1")
        self.journal.commit()


class Sqlite:
    """A table in WAL mode, synchronous=FULL, one transaction for each commit."""

    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(directory / "queue.db", isolation_level=None)
        self._db.execute("pragma journal_mode=wal")
        self._db.execute("pragma synchronous=full")
        self._db.execute("create table queue (id integer primary key, data blob)")

    def put(self, records: list[bytes]) -> None:
        """See Store."""
        self._db.execute("begin")
        self._db.executemany("insert into queue (data) values (?)", [(data,) for data in records])
        self._db.execute("commit")

    def empty(self) -> None:
        """See Store."""
        self._db.execute("delete from queue")


class PersistQueue:
    """persist-queue's SQLiteQueue, WAL and synchronous=FULL; its serialiser left out. It commits each record."""

    def __init__(self, directory: Path) -> None:
        class Plain:
            """The bytes are encoded already."""

            loads = dumps = staticmethod(lambda data, **_: data)

        module = import_module("persistqueue")
        self._queue: Any = module.SQLiteQueue(
            str(directory), multithreading=True, auto_commit=False, serializer=Plain
        )
        self._db = self._queue._putter  # noqa: SLF001 - there is no setting for it
        self._db.execute("pragma synchronous=full")

    def put(self, records: list[bytes]) -> None:
        """See Store."""
        for data in records:
            self._queue.put(data)
        self._queue.task_done()

    def empty(self) -> None:
        """See Store."""
        self._db.execute(f"delete from {self._queue._table_name}")  # noqa: S608, SLF001 - its own name
        self._db.commit()


class LiteQueue:
    """litequeue, WAL and synchronous=FULL, one transaction for each commit."""

    def __init__(self, directory: Path) -> None:
        self._queue: Any = import_module("litequeue").LiteQueue(str(directory / "lite.db"))
        self._queue.conn.execute("pragma journal_mode=wal")
        self._queue.conn.execute("pragma synchronous=full")

    def put(self, records: list[bytes]) -> None:
        """See Store."""
        with self._queue.transaction():
            for data in records:
                self._queue.put(data)

    def empty(self) -> None:
        """See Store."""
        self._queue.conn.execute(f"delete from {self._queue.table}")  # noqa: S608 - its own name


class Encrypted:
    """No store: records joined and encrypted."""

    def __init__(self, directory: Path) -> None:
        del directory
        self._aead = AEADS[cpu_algorithm()](os.urandom(KEY_BYTES))
        self._memory = page_memory()
        self._count = 0

    def put(self, records: list[bytes]) -> None:
        """Durable nowhere."""
        self._encrypt(records)

    def _encrypt(self, records: list[bytes]) -> memoryview:
        """Whole blocks of ciphertext."""
        plaintext = b"".join(records)
        self._count += 1
        end = len(plaintext) + TAG_BYTES
        nonce = self._count.to_bytes(NONCE_BYTES, "big")
        self._aead.encrypt_into(nonce, plaintext, b"", self._memory[:end])
        return self._memory[: -(-end // BLOCK_BYTES) * BLOCK_BYTES]

    def empty(self) -> None:
        """See Store."""


class Floor(Encrypted):
    """No store: what encrypting, writing and syncing take by themselves. Durable, and nothing finds it again."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        DISK.create(directory / "floor", FLOOR_BYTES)
        self._file = DISK.open_writer(directory / "floor")
        self._offset = 0

    def put(self, records: list[bytes]) -> None:
        """Durable on return."""
        blocks = self._encrypt(records)
        if self._offset + len(blocks) > FLOOR_BYTES:
            self._offset = 0
        self._file.pwrite(blocks, self._offset)
        self._file.datasync()
        self._offset += len(blocks)


def open_journal(directory: Path, max_bytes: int = GIGABYTE) -> Journal:
    """A journal with a key of its own."""
    directory.mkdir(exist_ok=True)
    key = HubKey.load_or_create(directory / KEY_FILE)
    return Journal.open(
        directory / JOURNAL, hub=HUB, clock=SystemClock(), hub_key=key, max_bytes=max_bytes
    )


def open_reader(directory: Path) -> JournalReader:
    """The uplink's end of a journal that `open_journal` has opened."""
    hub_key = HubKey.load_or_create(directory / KEY_FILE)
    reader = JournalReader(directory / JOURNAL, hub=HUB, hub_key=hub_key)
    marks = published.load(directory / JOURNAL, DISK)
    assert marks is not None  # noqa: S101 - opening has published it
    reader.follow(marks)
    return reader


STORES: dict[str, Callable[[Path], Store]] = {
    "journal": Ours,
    "followed": Followed,
    "with CBOR": Whole,
    "SQLite": Sqlite,
    "persist-queue": PersistQueue,
    "litequeue": LiteQueue,
    "floor": Floor,
    "AEAD": Encrypted,
}

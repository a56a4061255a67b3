#!/usr/bin/env python3
"""The journal beside its peers, on this machine's disk: durable enqueue, device bytes, 10 GB, memory.

Every store gets the same encoded bytes and makes them durable with one sync for each commit; the journal encrypts them
as well. Rounds are interleaved, so that whatever else the machine does hits all alike. Between rounds each store is
emptied outside the time, as a queue in use is. A round is long enough that what a store does only now and then falls into
the time: the journal's next segment each 1 MiB, SQLite's checkpoint each 1,000 pages of its log.
"""

import argparse
import contextlib
import os
import shutil
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from drivers.assigned import Code, Unit
from drivers.model import Observation, SampleArray
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import SEGMENT_BYTES, Journal
from gateway.journal.keys import KEY_FILE, HubKey
from gateway.journal.records import encode_entry

SHAPES = ((200, 1), (200, 10), (200, 100), (4096, 10), (4096, 100))
"""Bytes of a record, and records in a commit."""
ROUNDS = 11
ROUND_BYTES = 5_000_000
COMMITS = (12, 1200)
"""Least and most commits in a round."""
SHORT = 3, 40
"""Rounds, and most commits in each, where every sync is slowed: one store syncs for each record."""
SECOND_BYTES = 17_000
"""What ten devices leave in a second."""
CURSOR_S = 10
GIGABYTE = 1_000_000_000
SECTOR_BYTES = 512
out = sys.stdout


class Store(Protocol):
    """A queue on disk."""

    def put(self, records: list[bytes]) -> None:
        """Durable on return."""
        ...

    def empty(self) -> None:
        """Everything is taken out."""
        ...


class Ours:
    """The journal below its record codec: buffer, frame, AEAD, segment."""

    def __init__(self, directory: Path) -> None:
        self.journal = open_journal(directory)
        self._add = self.journal._buffer.add  # noqa: SLF001 - the others are given encoded bytes as well

    def put(self, records: list[bytes]) -> None:
        """See Store."""
        for data in records:
            self._add(Stream.VITALS, "device", 1, data)
        self.journal.commit()

    def empty(self) -> None:
        """See Store."""
        self.journal.acknowledge(Stream.VITALS, self.journal.high_water(Stream.VITALS))


class Whole(Ours):
    """The journal as a driver sees it: records in, with CBOR."""

    def put(self, records: list[bytes]) -> None:
        """See Store. The records become sample arrays of the same bytes."""
        for data in records:
            samples = SampleArray(data, 2, 8_000_000, Unit.MILLI_VOLT)
            self.journal.append("device", Observation(Code.ECG_ELEC_POTL, samples, 1), "p-1")
        self.journal.commit()

    def empty(self) -> None:
        """See Store."""
        self.journal.acknowledge(Stream.WAVEFORM, self.journal.high_water(Stream.WAVEFORM))


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


STORES: dict[str, Callable[[Path], Store]] = {
    "journal": Ours,
    "with CBOR": Whole,
    "SQLite": Sqlite,
    "persist-queue": PersistQueue,
    "litequeue": LiteQueue,
}


def open_journal(directory: Path, max_bytes: int = GIGABYTE) -> Journal:
    """A journal with a key of its own."""
    directory.mkdir(exist_ok=True)
    key = HubKey.load_or_create(directory / KEY_FILE)
    return Journal.open(
        directory / "journal", hub="bench", clock=SystemClock(), hub_key=key, max_bytes=max_bytes
    )


# --- Durable enqueue ---------------------------------------------------------------------------------


def enqueue(directory: Path, turns: int, most: int) -> bool:
    """Prints the table, of so many rounds and commits in each. Returns whether the target holds at each shape."""
    stores: dict[str, Store] = {}
    for name, make in STORES.items():
        (directory / name).mkdir()
        try:
            stores[name] = make(directory / name)
        except ModuleNotFoundError:
            out.write(f"{name}: not installed; uv pip install --group bench\n")
    out.write(
        "\nDurable enqueue, median microseconds for a commit; how often the journal fits in; of them"
        " processor time\n"
    )
    out.write(f"{'bytes x records':16}" + "".join(f"{name:>22}" for name in stores) + "\n")
    holds = True
    for size, count in SHAPES:
        times = rounds(list(stores.values()), size, count, turns, most)
        busy = dict(
            zip(stores, [statistics.median(cpu for _, cpu in one) for one in times], strict=True)
        )
        medians = dict(
            zip(stores, [statistics.median(wall for wall, _ in one) for one in times], strict=True)
        )
        row = f"{f'{size} x {count}':16}"
        for name, micros in medians.items():
            row += f"{micros:9.0f} {micros / medians['journal']:5.2f}x {busy[name]:5.0f}"
        out.write(row + "\n")
        holds &= medians["SQLite"] >= 2 * medians["journal"]
    return holds


def rounds(
    stores: list[Store], size: int, count: int, turns: int, most: int
) -> list[list[tuple[float, float]]]:
    """Microseconds for a commit in each round, of each store: by the clock, and of the processor."""
    commits = min(max(ROUND_BYTES // (size * count), COMMITS[0]), most)
    times: list[list[tuple[float, float]]] = [[] for _ in stores]
    for turn in range(-2, turns):
        for at, store in enumerate(stores):
            batches = [[os.urandom(size) for _ in range(count)] for _ in range(commits)]
            begin, busy = time.perf_counter(), time.process_time()
            for records in batches:
                store.put(records)
            took, busy = time.perf_counter() - begin, time.process_time() - busy
            store.empty()
            if turn >= 0:  # the first two warm files and caches
                times[at].append((took / commits * 1e6, busy / commits * 1e6))
    return times


def slow_enqueue(directory: Path, sync_us: int) -> None:
    """Prints the table once more with each sync delayed, as a cheap card delays it, for every store alike."""
    strace = shutil.which("strace")
    if strace is None:
        out.write("\nstrace is not installed: no table for a slow disk\n")
        return
    out.write(
        f"\nEach fsync and fdatasync takes {sync_us} us more (strace), in {SHORT[0]} short rounds:\n"
    )
    out.flush()
    calls = "fsync,fdatasync"
    tracer = [strace, "-f", "--seccomp-bpf", "-qq", "-o", os.devnull, "-e", f"trace={calls}"]
    tracer += ["-e", f"inject={calls}:delay_exit={sync_us}"]
    command = [sys.executable, __file__, "--short", "--directory", str(directory)]
    subprocess.run([*tracer, *command], check=False)  # noqa: S603 - ourselves


# --- Device bytes ------------------------------------------------------------------------------------


class Device:
    """Bytes that reach a block device: of a loop device of its own, or what the kernel charges this process."""

    def __init__(self, loop: str | None) -> None:
        self._loop = loop
        self.kind = f"sectors of {loop}, ext4" if loop else "write_bytes of this process"

    def written(self) -> int:
        """So far."""
        if self._loop:
            os.sync()
            fields = Path(f"/sys/block/{self._loop}/stat").read_text(encoding="ascii").split()
            return int(fields[6]) * SECTOR_BYTES
        text = Path("/proc/self/io").read_text(encoding="ascii")
        return int(text.partition("\nwrite_bytes: ")[2].split()[0])


@contextlib.contextmanager
def small_disk(directory: Path) -> Iterator[tuple[Path, Device]]:
    """A file system of its own on a loop device where that is allowed; else the directory itself."""
    image, mount = directory / "disk.img", directory / "mnt"
    mount.mkdir()
    with image.open("wb") as file:
        file.truncate(256 << 20)
    run = subprocess.run
    try:
        run(["mkfs.ext4", "-q", "-F", str(image)], check=True)
        command = ["mount", "-o", "loop", str(image), str(mount)]
        run(command, check=True, stderr=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError):
        yield mount, Device(None)
        return
    try:
        lines = Path("/proc/self/mounts").read_text(encoding="utf-8").splitlines()
        loop = next(line.split()[0] for line in lines if line.split()[1] == str(mount))
        yield mount, Device(loop.rpartition("/")[2])
    finally:
        run(["umount", str(mount)], check=True)
        image.unlink()


def device_bytes(directory: Path, seconds: int) -> None:
    """Prints what a second of data, and acknowledging it, costs the disk; at real seconds."""
    out.write(f"\nDevice bytes for a payload byte, {SECOND_BYTES} B committed each second\n")
    with small_disk(directory) as (disk, device):
        journal = open_journal(disk / "hub")
        second(journal)
        costs = []
        for work in (second, acknowledge):
            before, begin = device.written(), time.monotonic()
            for n in range(seconds):
                if work is second:
                    second(journal)
                elif n % CURSOR_S == 0:
                    acknowledge(journal, (n + 1) / seconds)
                time.sleep(max(0.0, begin + n + 1 - time.monotonic()))
            costs.append((device.written() - before) / (seconds * SECOND_BYTES))
        journal.close()
    out.write(f"counted as {device.kind}, over {seconds} s each\n")
    out.write(
        f"commit {costs[0]:.3f} (target 1.25), cursor each {CURSOR_S} s {costs[1]:.3f} (0.05)\n"
    )


def second(journal: Journal) -> None:
    """Ten devices' second, durable."""
    for n in range(10):
        samples = SampleArray(os.urandom(SECOND_BYTES // 10 - 60), 2, 8_000_000, Unit.MILLI_VOLT)
        journal.append(f"device-{n}", Observation(Code.ECG_ELEC_POTL, samples, 1), "p-1")
    journal.commit()


def acknowledge(journal: Journal, part: float) -> None:
    """The cursor moves."""
    journal.acknowledge(Stream.WAVEFORM, int(journal.high_water(Stream.WAVEFORM) * part) + 1)


# --- Large ------------------------------------------------------------------------------------------

READER = """
import resource, sys, time
from pathlib import Path
from tools.bench_journal import Stream, open_journal, resident_kb
begin = time.perf_counter()
journal = open_journal(Path(sys.argv[1]), int(sys.argv[2]))
opened, empty = time.perf_counter() - begin, resident_kb()
begin, after, size = time.perf_counter(), 0, 0
while time.perf_counter() - begin < 8 and (batch := journal.read(Stream.WAVEFORM, after)):
    size += sum(len(entry.record.value.data) for entry in batch.entries)
    after = batch.last_sequence
took = time.perf_counter() - begin
print(opened, empty, size / took / 1e6, resident_kb())
"""


def resident_kb() -> int:
    """Resident memory of this process."""
    text = Path("/proc/self/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0])


def measure(directory: Path, max_bytes: int) -> list[float]:
    """Seconds to open, kB resident then, MB/s of draining, kB resident after it; in a process of its own."""
    command = [sys.executable, "-c", READER, str(directory), str(max_bytes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603 - ourselves
    return [float(word) for word in done.stdout.split()]


def large(directory: Path, wanted: int) -> None:
    """Prints what opening, holding and draining a large journal costs."""
    size = min(wanted, shutil.disk_usage(directory).free // 3)
    room = directory / "large"
    open_journal(room, 2 * wanted).close()
    empty = measure(room, 2 * wanted)
    journal = open_journal(room, 2 * wanted)
    samples = SampleArray(os.urandom(4000), 2, 8_000_000, Unit.MILLI_VOLT)
    data = encode_entry("device", "p-1", Observation(Code.ECG_ELEC_POTL, samples, 1))
    for _ in range(size // (len(data) * 240)):
        for _ in range(240):
            journal._buffer.add(Stream.WAVEFORM, "device", 1, data)  # noqa: SLF001 - quickly
        journal.commit()
    files = journal.status().size_bytes
    journal.close()
    opened, resident, rate, drained = measure(room, 2 * wanted)
    less = (
        f"; {wanted / GIGABYTE:.0f} GB were wanted, the disk has no room" if size < wanted else ""
    )
    out.write(f"\nA journal of {files / GIGABYTE:.1f} GB in {files // SEGMENT_BYTES} files{less}\n")
    out.write(f"opens in {opened:.2f} s (target 2), empty in {empty[0]:.2f} s\n")
    out.write(f"resident {resident / 1000:.1f} MB, empty {empty[1] / 1000:.1f} MB, ")
    out.write(f"after draining {drained / 1000:.1f} MB\n")
    out.write(f"drains at {rate:.0f} MB/s of samples, decrypted and decoded (target 50)\n")
    shutil.rmtree(room)


# --- A process that only reads and forwards -----------------------------------------------------------

FORWARDER = """
[hub]
id = "bench"
state_dir = "state"
runtime_dir = "run"
[broker]
host = "127.0.0.1"
port = {port}
"""
SETTLE_S = 5.0


def forwarder(directory: Path) -> None:
    """Prints what `wardlink uplink` takes in memory with a journal before it and a broker that refuses."""
    state = directory / "state"
    state.mkdir(mode=0o700)
    journal = open_journal(state)
    samples = SampleArray(bytes(500), 2, 8_000_000, Unit.MILLI_VOLT)
    for n in range(1000):
        journal.append("device", Observation(Code.ECG_ELEC_POTL, samples, n))
    journal.close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening
        config = directory / "uplink.toml"
        config.write_text(FORWARDER.format(port=taken.getsockname()[1]), encoding="utf-8")
        command = [sys.executable, "-m", "gateway", "uplink", "--config", str(config)]
        # As installed: the sources are compiled before, which the first of the two starts does.
        compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(directory / "pyc")}
        compiled.pop("PYTHONDONTWRITEBYTECODE", None)
        text = ""
        for _ in range(2):
            process = subprocess.Popen(command, env=compiled, stderr=subprocess.DEVNULL)  # noqa: S603 - ourselves
            try:
                time.sleep(SETTLE_S)
                text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
            finally:
                process.terminate()
                process.wait()
    resident = int(text.partition("VmRSS:")[2].split()[0]) / 1024
    out.write(f"\nwardlink uplink: {resident:.1f} MiB resident (target 35)\n")


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="size of the large journal")
    parser.add_argument("--seconds", type=int, default=30, help="length of the device byte count")
    parser.add_argument("--directory", type=Path, default=None, help="where: the disk to measure")
    parser.add_argument("--short", action="store_true", help="a small first table, nothing else")
    parser.add_argument("--slow-us", type=int, default=0, help="one more table, with syncs delayed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="wardlink-bench-") as name:
        directory = Path(name)
        if options.short:
            enqueue(directory, *SHORT)
            return 0
        holds = enqueue(directory, ROUNDS, COMMITS[1])
        if options.slow_us:
            slow_enqueue(directory, options.slow_us)
        device_bytes(directory, options.seconds)
        large(directory, int(options.gigabytes * GIGABYTE))
        forwarder(directory)
    if not holds:
        out.write("durable enqueue: expected at least twice SQLite at each shape\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

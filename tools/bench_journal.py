#!/usr/bin/env python3
"""The journal beside its peers, on this machine's disk: durable enqueue, device bytes, 10 GB, memory.

Every store gets the same encoded bytes and makes them durable with one sync for each commit; the journal encrypts them
as well. Rounds are interleaved, so that whatever else the machine does hits all alike. Between rounds each store is
emptied outside the time, as a queue in use is. A round is long enough that what a store does only now and then falls into
the time: the journal's next segment each 1 MiB, SQLite's checkpoint each 1,000 pages of its log.

What a column includes:

- journal: encoded records into the buffer, frames, AES-256-GCM, the write and its sync, the mark that wakes a reader, and
  each 1 MiB a new segment: key, header and its copy, name, sync of the directory. As with the others, nobody reads.
- followed: the same with a reader that owns the cursor, as on a hub: each commit looks how far it has come.
- with CBOR: the same from records on: what a driver gives is encoded first.
- SQLite: one transaction with `executemany` into a table in plaintext, WAL, synchronous=FULL, with its checkpoints.
- persist-queue, litequeue: the same through their own `put`.
- floor: no store, but what every store on this disk pays that encrypts: the records joined, AES-256-GCM, whole blocks of
  the ciphertext written past the page cache into a file that is long there, and a sync. Nothing could find them again.
- AEAD: of the floor the processor's part: joined and encrypted, nothing written.

A store that syncs once for each commit can be no faster than the floor. So where SQLite is less than twice the floor, no
store can be twice as fast as SQLite, and the last line says so.
"""

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from drivers.assigned import Code, Unit
from drivers.model import Observation, SampleArray
from gateway.journal.entry import Stream
from gateway.journal.journal import SEGMENT_BYTES, Journal
from gateway.journal.reader import JournalReader
from gateway.journal.records import encode_entry
from gateway.journal.segment import BLOCK_BYTES
from tools.journal_bench.forwarder import forwarder
from tools.journal_bench.stores import GIGABYTE, STORES, Store, open_journal, open_reader

SHAPES = ((200, 1), (200, 10), (200, 100), (4096, 10), (4096, 100))
"""Bytes of a record, and records in a commit."""
ROUNDS = 11
ROUND_BYTES = 5_000_000
COMMITS = (12, 1200)
"""Least and most commits in a round."""
TARGET = 2.0
"""SQLite shall take so many times as long as the journal."""
SHORT = 3, 40
"""Rounds, and most commits in each, where every sync is slowed: one store syncs for each record."""
SECOND_BYTES = 17_000
"""What ten devices leave in a second."""
CURSOR_S = 10
WARM_COMMITS = 300
"""Five segments of them."""
SECTOR_BYTES = 512
MKFS = [
    "mkfs.ext4",
    "-q",
    "-F",
    "-b",
    str(BLOCK_BYTES),
    "-E",
    "lazy_itable_init=0,lazy_journal_init=0",
]
"""All of it at once: else the file system goes on making itself while we count."""
MOUNTED = "defaults", "commit=60"
"""By default ext4 notes each 5 s, in 12 kB, when a file was last written. What is synced does not wait for that."""
out = sys.stdout


# --- Durable enqueue ---------------------------------------------------------------------------------


def enqueue(directory: Path, turns: int, most: int) -> list[str]:
    """Prints the table, of so many rounds and commits in each. Returns what there is to say where the target is missed."""
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
    missed = []
    for size, count in SHAPES:
        times = rounds(list(stores.values()), size, count, turns, most)
        walls, busy = (
            dict(zip(stores, [statistics.median(column) for column in columns], strict=True))
            for columns in zip(*(zip(*one, strict=True) for one in times), strict=True)
        )
        row = f"{f'{size} x {count}':16}"
        for name, micros in walls.items():
            row += f"{micros:9.0f} {micros / walls['journal']:5.2f}x {busy[name]:5.0f}"
        out.write(row + "\n")
        if walls["SQLite"] < TARGET * walls["journal"]:
            missed.append(
                f"{size} x {count}: SQLite takes {walls['SQLite'] / walls['journal']:.2f} times as"
                f" long as the journal, {walls['SQLite'] / walls['floor']:.2f} times as the floor"
            )
    return missed


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
def small_disk(directory: Path, mounted: str) -> Iterator[tuple[Path, Device]]:
    """A file system of its own on a loop device where that is allowed; else the directory itself.

    With blocks of 4 KiB as on a card: a disk this small would get 1 KiB, which makes the file system's journal cheap.
    """
    image, mount = directory / "disk.img", directory / "mnt"
    mount.mkdir(exist_ok=True)
    with image.open("wb") as file:
        file.truncate(256 << 20)
    run = subprocess.run
    try:
        run([*MKFS, str(image)], check=True)
        command = ["mount", "-o", f"loop,{mounted}", str(image), str(mount)]
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
    out.write(f"\nDevice bytes for a payload byte, {SECOND_BYTES} B a second, {seconds} s each\n")
    for mounted in MOUNTED:
        with small_disk(directory, mounted) as (disk, device):
            journal = open_journal(disk / "hub")
            reader = open_reader(disk / "hub")
            # Segment files are there to be used again, as on a hub that has run for a while: making one costs its size, once.
            for _ in range(WARM_COMMITS):
                second(journal)
            acknowledge(journal, reader)
            costs = []
            for acknowledged in (False, True):
                before, begin = device.written(), time.monotonic()
                for n in range(seconds):
                    second(journal)
                    if acknowledged and n % CURSOR_S == 0:
                        acknowledge(journal, reader)
                    time.sleep(max(0.0, begin + n + 1 - time.monotonic()))
                costs.append((device.written() - before) / (seconds * SECOND_BYTES))
            reader.close()
            journal.close()
        out.write(
            f"commit {costs[0]:.3f} (target 1.25), with it a cursor each {CURSOR_S} s {costs[1] - costs[0]:.3f}"
            f" (0.05): {device.kind}, {mounted}\n"
        )


def second(journal: Journal) -> None:
    """Ten devices' second, durable."""
    for n in range(10):
        samples = SampleArray(os.urandom(SECOND_BYTES // 10 - 60), 2, 8_000_000, Unit.MILLI_VOLT)
        journal.append(f"device-{n}", Observation(Code.ECG_ELEC_POTL, samples, 1), "p-1")
    journal.commit()


def acknowledge(journal: Journal, reader: JournalReader) -> None:
    """The cursor moves to the end; with the next commit the writer takes back what lies before it."""
    reader.refresh()
    reader.acknowledge(Stream.WAVEFORM, reader.high_water(Stream.WAVEFORM))
    journal.commit()


# --- Large ------------------------------------------------------------------------------------------

READER = """
import resource, sys, time
from pathlib import Path
from gateway.journal.entry import Stream
from tools.bench_journal import resident_kb
from tools.journal_bench.forwarder import forwarder
from tools.journal_bench.stores import open_journal
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
    second(journal)
    journal.close()
    _, one, _, _ = measure(room, 2 * wanted)
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
    out.write(f"resident {resident / 1000:.1f} MB, with one segment {one / 1000:.1f} MB, ")
    out.write(f"empty {empty[1] / 1000:.1f} MB, after draining {drained / 1000:.1f} MB\n")
    out.write(f"drains at {rate:.0f} MB/s of samples, decrypted and decoded (target 50)\n")
    shutil.rmtree(room)


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gigabytes", type=float, default=10.0, help="size of the large journal")
    parser.add_argument("--seconds", type=int, default=60, help="length of the device byte count")
    parser.add_argument("--directory", type=Path, default=None, help="where: the disk to measure")
    parser.add_argument("--short", action="store_true", help="a small first table, nothing else")
    parser.add_argument("--slow-us", type=int, default=0, help="one more table, with syncs delayed")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory, prefix="wardlink-bench-") as name:
        directory = Path(name)
        if options.short:
            enqueue(directory, *SHORT)
            return 0
        missed = enqueue(directory, ROUNDS, COMMITS[1])
        if options.slow_us:
            slow_enqueue(directory, options.slow_us)
        device_bytes(directory, options.seconds)
        large(directory, int(options.gigabytes * GIGABYTE))
        out.writelines(forwarder(directory))
    if missed:
        out.write(f"durable enqueue: expected SQLite to take at least {TARGET:g} times as long\n")
        out.writelines(f"  {line}\n" for line in missed)
    return 0


if __name__ == "__main__":
    sys.exit(main())

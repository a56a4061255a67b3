"""What the uplink's and the receiver's tests stand on: a journal in memory, records, keys, a real mosquitto."""

import asyncio
import base64
import contextlib
import getpass
import json
import random
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quantity
from gateway.clock import Clock, ClockReading, ClockState, SystemClock
from gateway.config.broker import Broker
from gateway.config.delivery import Delivery
from gateway.config.hub import Hub
from gateway.journal.entry import Batch, Entry, PackedBatch, SealedBatch, Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.records import encode_entry, join
from gateway.receiver.ledger import Ledger
from gateway.receiver.lines import LinesStore
from gateway.receiver.receive import Receiver
from gateway.receiver.store import Line, SoleStore
from gateway.uplink.hub_wires import hub_wires
from gateway.uplink.patience import Timing
from gateway.uplink.payload import Message
from gateway.uplink.sealed import DamagedError, Unsealer, sealed_slices
from gateway.uplink.signature import signed
from gateway.uplink.slices import Slice
from gateway.uplink.source import Source
from gateway.uplink.uplink import Uplink
from gateway.uplink.wire import Incoming

HUB = Hub("hub-1", "ward", Path("unused"), Path("unused"))
KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
QUICK = Timing(heartbeat=0.2, cursor=0.05, answer=2.0, backoff_first=0.05, backoff_most=2.0)
PUBLIC = base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
EPOCH = "e1"
READING = ClockReading(1_000_000_000, 1_800_000_000_000_000_000, ClockState.SYNCHRONISED, 5_000_000)


def observation(number: int) -> Observation:
    value = Quantity(Decimal(number % 200), Unit.BEAT_PER_MIN)
    return Observation(Code.ECG_HEART_RATE, value, number * 1000)


DAY_NS = 86_400_000_000_000


class OneProcess:
    """A journal with its uplink in its own process, without an index of times."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def acknowledge(self, stream: Stream, sequence: int, _beyond: object = ()) -> None:
        self._journal.acknowledge(stream, sequence)

    def remembered(self, _stream: Stream) -> tuple[tuple[int, int], ...]:
        return ()

    def read_packed(
        self, stream: Stream, after: int, until: int, _most_bytes: int
    ) -> tuple[Batch, ...]:
        sealed: list[Batch] = []
        while after < until and (batch := self._journal.read(stream, after)) is not None:
            if not isinstance(batch, SealedBatch):
                return tuple(sealed or (packed(batch),))
            if sealed and batch.first_sequence != after + 1:
                break
            sealed.append(batch)
            after = batch.last_sequence
        return tuple(sealed)

    def day_begin(self, _stream: Stream, sequence: int) -> int:
        return sequence


def packed(batch: Batch) -> PackedBatch:
    """As the journal's reader gives it away undecoded."""
    return PackedBatch(
        batch.hub,
        batch.stream,
        batch.epoch,
        batch.boot_id,
        batch.clock,
        (),
        span=(batch.first_sequence, batch.last_sequence),
        records=join([encode_entry(e.device, e.subject, e.record) for e in batch.entries]),
        stamped=batch.stamped,
    )


def sealed_slice(batch: SealedBatch, after: int) -> Slice:
    """A frame as a message of its own."""
    (piece,) = sealed_slices([batch], (after + 1, batch.last_sequence), 0)
    return piece


def open_one(unsealer: Unsealer, payload: bytes, hub_key: Ed25519PublicKey) -> Message:
    """What a message of one frame holds. Raises what stands in its place."""
    (part,) = unsealer.open(payload, hub_key)
    if isinstance(part, DamagedError):
        raise part
    return part


class MemoryJournal:
    """The journal's protocol, in memory: batches never change, the cursor never goes back."""

    epoch = EPOCH

    def __init__(self) -> None:
        self.batches: dict[Stream, list[Batch]] = {stream: [] for stream in Stream}
        self.cursors = dict.fromkeys(Stream, 0)
        self.beyond: dict[Stream, tuple[tuple[int, int], ...]] = dict.fromkeys(Stream, ())
        self.days: list[tuple[Stream, int]] = []
        self.wall_ns = READING.wall_ns
        self.cursor_writes = 0
        self.reads: list[tuple[Stream, int]] = []
        self._lock = threading.Lock()

    def commit(self, stream: Stream, count: int) -> None:
        first = self.high_water(stream) + 1
        records = (Entry(first + n, "belt", observation(first + n), "p-1") for n in range(count))
        self.put(stream, tuple(records))

    def put(self, stream: Stream, entries: tuple[Entry, ...]) -> None:
        with self._lock:
            reading = replace(READING, wall_ns=self.wall_ns)
            self.batches[stream].append(Batch(HUB.id, stream, EPOCH, "boot-1", reading, entries))

    def evict(self, stream: Stream) -> None:
        with self._lock:
            self.batches[stream].pop(0)

    def read(self, stream: Stream, after: int) -> Batch | None:
        with self._lock:
            self.reads.append((stream, after))
            found = (batch for batch in self.batches[stream] if batch.last_sequence > after)
            return next(found, None)

    def read_packed(
        self, stream: Stream, after: int, until: int, most_bytes: int
    ) -> tuple[Batch, ...]:
        found: list[Batch] = []
        size_bytes = 0
        while after < until and (batch := self.read(stream, after)) is not None:
            size_bytes += 30 * len(batch.entries)
            if found and (size_bytes > most_bytes or batch.first_sequence != after + 1):
                break
            found.append(packed(batch))
            after = batch.last_sequence
        return tuple(found)

    def acknowledge(
        self, stream: Stream, sequence: int, beyond: Iterable[tuple[int, int]] = ()
    ) -> None:
        with self._lock:
            assert self.cursors[stream] <= sequence <= self.high_water(stream)
            self.cursors[stream] = sequence
            self.beyond[stream] = tuple(beyond)
            self.cursor_writes += 1

    def remembered(self, stream: Stream) -> tuple[tuple[int, int], ...]:
        return self.beyond[stream]

    def day_begin(self, stream: Stream, sequence: int) -> int:
        with self._lock:
            self.days.append((stream, sequence))
            before = [b for b in self.batches[stream] if b.first_sequence <= sequence]
            day = before[-1].clock.wall_ns // DAY_NS if before else 0
            begin = sequence
            for batch in reversed(before):
                if batch.clock.wall_ns // DAY_NS != day:
                    break
                begin = min(begin, batch.first_sequence)
            return begin

    def during(
        self, stream: Stream, from_wall_ns: int, until_wall_ns: int, _boot_id: str, _now: object
    ) -> tuple[tuple[tuple[int, int], ...], bool]:
        with self._lock:
            return tuple(
                (batch.first_sequence, batch.last_sequence)
                for batch in self.batches[stream]
                if from_wall_ns <= batch.clock.wall_ns <= until_wall_ns
            ), True

    def acknowledged(self, stream: Stream) -> int:
        return self.cursors[stream]

    def high_water(self, stream: Stream) -> int:
        batches = self.batches[stream]
        return batches[-1].last_sequence if batches else 0

    def all_sequences(self) -> dict[Stream, list[int]]:
        return {
            stream: [entry.sequence for batch in batches for entry in batch.entries]
            for stream, batches in self.batches.items()
        }


def said(topic: str, payload: bytes, key: Ed25519PrivateKey | HubKey = KEY) -> Incoming:
    """A message as it comes from whoever has the key."""
    return Incoming(1, topic, signed(topic, payload, key.sign), retain=False)


def clock() -> Clock:
    return SystemClock()


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


async def until(condition: Callable[[], bool], what: str, limit_s: float = 40.0) -> None:
    """Waits for a condition that other tasks and threads bring about."""
    end = time.monotonic() + limit_s
    while not condition():
        assert time.monotonic() < end, f"not within {limit_s} s: {what}"
        await asyncio.sleep(0.01)


@contextlib.asynccontextmanager
async def running(*coroutines: Any) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Tasks that are cancelled and awaited at the end; what went wrong in them is raised."""
    tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def subscribed(receiver: Receiver, uplink: Uplink) -> None:
    """The hub speaks when there is a session to keep it: before that a broker acknowledges what nobody will get."""
    await until(lambda: receiver.is_connected, "receiver connects")
    await uplink.run()


def read_lines(path: Path) -> list[dict[str, Any]]:
    whole, _, _being_written = path.read_bytes().rpartition(b"\n")
    return [json.loads(line) for line in whole.splitlines()]


def entries_of(lines: list[dict[str, Any]]) -> dict[Stream, list[int]]:
    found: dict[Stream, list[int]] = {stream: [] for stream in Stream}
    for line in lines:
        if line["type"] == "entry":
            found[Stream(line["stream"])].append(line["sequence"])
    return found


class Mosquitto:
    """A real mosquitto on a loopback port, that can be stopped and started again."""

    def __init__(self, folder: Path, listener: str = "allow_anonymous true\n") -> None:
        self.port = free_port()
        self.folder = folder
        self._config = folder / "mosquitto.conf"
        self._config.write_text(
            f"user {getpass.getuser()}\n"  # as root it would become "mosquitto", who may not write here
            f"persistence true\npersistence_location {folder}/\n"
            f"listener {self.port} 127.0.0.1\n{listener}"
        )
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def broker(self) -> Broker:
        return Broker("127.0.0.1", self.port)

    @property
    def pid(self) -> int:
        """Of the running server."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        log = (self.folder / "mosquitto.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                ["mosquitto", "-c", str(self._config), "-v"], stdout=log, stderr=log
            )
        for _ in range(500):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.01)
        raise AssertionError(f"mosquitto does not listen: {self.log()}")

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None

    def log(self) -> str:
        return (self.folder / "mosquitto.log").read_text()


@contextlib.contextmanager
def mosquitto(folder: Path, listener: str = "allow_anonymous true\n") -> Iterator[Mosquitto]:
    if shutil.which("mosquitto") is None:
        pytest.skip("mosquitto is not installed")
    server = Mosquitto(folder, listener)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def make_uplink(
    journal: Source,
    broker: Broker,
    timing: Timing = QUICK,
    delivery: Delivery | None = None,
    echo: tuple[str, ...] = (),
    sign: Callable[[bytes], bytes] = KEY.sign,
) -> Uplink:
    return Uplink(
        journal,
        hub_wires(broker, HUB.id, sign, echo=echo),
        clock(),
        HUB,
        version="test",
        window_bytes=broker.window_bytes,
        rng=random.Random(1),
        timing=timing,
        delivery=delivery,
    )


class KeptStore(SoleStore):
    """Lines in memory."""

    def __init__(self, ledger: Ledger | None = None) -> None:
        super().__init__(SystemClock(), ledger)
        self.lines: list[Line] = []

    def write(self, lines: Sequence[Line], changed: Ledger) -> None:
        del changed
        self.lines.extend(lines)


def lines_store(folder: Path) -> LinesStore:
    return LinesStore(folder / "lines.jsonl", folder / "state.json", SystemClock())


def make_receiver(folder: Path, broker: Broker, grace_s: float = 0.3) -> Receiver:
    return Receiver(
        broker,
        HUB.tenant,
        {HUB.id: PUBLIC},
        clock(),
        store=lines_store(folder),
        client_id="receiver-1",
        rng=random.Random(2),
        grace_s=grace_s,
        timing=QUICK,
    )

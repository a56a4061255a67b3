#!/usr/bin/env python3
"""What a receiver takes in a second: each output behind a real mosquitto on loopback, and by itself.

Messages are made and signed beforehand: what is counted begins at the broker. Several runs beside each other on a shared
machine differ; compare the rows of one run.
"""

import argparse
import asyncio
import contextlib
import os
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from gateway.clock import SystemClock
from gateway.config.broker import Broker
from gateway.journal.entry import Batch, Entry, Stream
from gateway.receiver.checks import Checker
from gateway.receiver.dialects import postgresql, sqlite
from gateway.receiver.intake import Intake
from gateway.receiver.lines import LinesStore
from gateway.receiver.receive import RECEIVE_MAXIMUM, Receiver
from gateway.receiver.sql import SqlStore
from gateway.receiver.store import Store
from gateway.uplink.paho_wire import PahoWire
from gateway.uplink.slices import slices
from gateway.uplink.wire import Incoming, Outgoing, Session, UplinkError
from tests.gateway.receiver import databases
from tests.gateway.uplink.bench import (
    EPOCH,
    HUB,
    PUBLIC,
    READING,
    Mosquitto,
    observation,
    said,
    until,
)

BATCH = 50
"""Entries in a message: what a hub on a good link sends of a few seconds."""
SENDING = 200
"""Messages on their way to the broker."""
out = sys.stdout


def messages(entries: int) -> list[Incoming]:
    """Vital signs of one hub, in order."""
    made: list[Incoming] = []
    for first in range(1, entries + 1, BATCH):
        records = tuple(
            Entry(n, "belt", observation(n), "p-1") for n in range(first, first + BATCH)
        )
        whole = Batch(HUB.id, Stream.VITALS, EPOCH, "boot-1", READING, records)
        (only,) = slices(whole, 0, first + BATCH, 10**6)
        made.append(said(f"wardlink/1/{HUB.tenant}/{HUB.id}/vitals", only.payload))
    return made


def by_itself(store: Store, made: list[Incoming]) -> float:
    """Seconds for all of them, a full window in a transaction."""
    intake = Intake(Checker(HUB.tenant, {HUB.id: PUBLIC}), store, SystemClock(), grace_s=5)
    began = time.perf_counter()
    for n in range(0, len(made), RECEIVE_MAXIMUM):
        intake.take(made[n : n + RECEIVE_MAXIMUM])
    store.sync()
    return time.perf_counter() - began


class _Sender:
    """A listener that keeps a bounded number of messages on their way."""

    def __init__(self) -> None:
        self._room = asyncio.Semaphore(SENDING)

    async def send(self, wire: PahoWire, message: Incoming) -> None:
        await self._room.acquire()
        wire.publish(Outgoing(message.topic, message.payload))

    def answered(self, _message_id: int, _refusal: str | None) -> None:
        self._room.release()

    def lost(self, error: UplinkError) -> None:
        raise SystemExit(f"sender: {error}")

    def arrived(self, message: Incoming) -> None:
        del message


async def behind_a_broker(
    store: Store, broker: Broker, made: list[Incoming], entries: int
) -> float:
    """Seconds from the first message sent to the last one stored."""
    receiver = Receiver(
        broker,
        HUB.tenant,
        {HUB.id: PUBLIC},
        SystemClock(),
        store=store,
        client_id=f"bench-{random.random()}",  # noqa: S311 - a name, no secret
        rng=random.Random(1),  # noqa: S311
        session_expiry_s=0,
    )
    task = asyncio.ensure_future(receiver.run())
    await until(lambda: receiver.is_connected, "connected")
    sender = _Sender()
    wire = await PahoWire.connect(broker, Session("bench-sender"), sender)
    began = time.perf_counter()
    for message in made:
        await sender.send(wire, message)
    await until(lambda: receiver.report().entries >= entries, "all entries", 600)
    took = time.perf_counter() - began
    await wire.close()
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
    assert receiver.report().repeats == receiver.report().missing == 0  # noqa: S101
    return took


@contextlib.contextmanager
def postgres() -> Iterator[str]:
    """How to reach a PostgreSQL: the one of the tests, or the one that the environment names."""
    elsewhere = os.environ.get(databases.ELSEWHERE)
    if elsewhere:
        yield elsewhere
    else:
        with databases.server() as server:
            yield server.conninfo


def main() -> None:
    """Prints the table."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--entries", type=int, default=20_000)
    entries = arguments.parse_args().entries // BATCH * BATCH
    made = messages(entries)
    with tempfile.TemporaryDirectory() as name, postgres() as conninfo:
        folder = Path(name)
        outputs: dict[str, Callable[[str], Store]] = {
            "JSON lines": lambda n: LinesStore(folder / f"l{n}", folder / f"s{n}", SystemClock()),
            "SQLite": lambda n: SqlStore(sqlite(folder / f"d{n}"), SystemClock()),
            "PostgreSQL": lambda n: SqlStore(
                postgresql(databases.fresh(conninfo, int(n))), SystemClock()
            ),
        }
        server = Mosquitto(folder, "allow_anonymous true\nmax_queued_messages 0\n")
        server.start()
        out.write(f"{entries} entries of one hub, {BATCH} in a message, each message signed\n\n")
        out.write(f"{'output':12}{'behind mosquitto':>20}{'by itself':>14}{'CPU, by itself':>20}\n")
        try:
            for label, make in outputs.items():
                behind = asyncio.run(behind_a_broker(make("1"), server.broker, made, entries))
                store, before = make("2"), resource.getrusage(resource.RUSAGE_SELF)
                alone = by_itself(store, made)
                after = resource.getrusage(resource.RUSAGE_SELF)
                store.close()
                cpu_us = (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) * 1e6
                out.write(
                    f"{label:12}{entries / behind:12.0f} entries/s{entries / alone:8.0f} /s"
                    f"{cpu_us / entries:14.0f} us/entry\n"
                )
                out.flush()
        finally:
            server.stop()


if __name__ == "__main__":
    main()

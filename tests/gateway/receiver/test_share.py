"""Several receivers on one database share what a real mosquitto hands out, and are killed."""

import asyncio
import contextlib
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.clock import SystemClock
from gateway.config.broker import Broker
from gateway.journal.entry import Stream
from gateway.receiver.dialects import sqlite
from gateway.receiver.receive import Receiver
from gateway.receiver.sql import SqlStore
from tests.gateway.receiver.databases import query
from tests.gateway.receiver.test_delivery import receipting_uplink
from tests.gateway.uplink.bench import (
    HUB,
    KEY,
    PUBLIC,
    QUICK,
    MemoryJournal,
    clock,
    make_uplink,
    mosquitto,
    running,
    subscribed,
    until,
)

pytestmark = pytest.mark.system

COMMAND = [sys.executable, "-c", "import sys; from gateway.cli import main; sys.exit(main())"]
SUMMARY = re.compile(r"receiver: (\d+) entries of 1 hubs")


class Member:
    """`wardlink receive`, as a process of its own."""

    def __init__(self, folder: Path, number: int, broker: Broker, place: tuple[str, str]) -> None:
        self.log = folder / f"member-{number}.log"
        self._config = folder / f"member-{number}.toml"
        dialect, where = place
        key = "output_file" if dialect == "sqlite" else "database"
        self._config.write_text(
            f'[receiver]\nid = "r-{number}"\ntenant = "{HUB.tenant}"\nstate_dir = "state-{number}"\n'
            f'output = "{dialect}"\n{key} = "{where}"\nshare = "ward"\ngrace_s = 60\n'
            f'[broker]\nhost = "127.0.0.1"\nport = {broker.port}\n[hubs]\n{HUB.id} = "{PUBLIC}"\n'
        )
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*COMMAND, "receive", "--config", str(self._config)],
                cwd=Path(__file__).parents[3],
                stdout=log,
                stderr=log,
            )

    def end(self, number: int) -> None:
        assert self._process is not None
        os.kill(self._process.pid, number)
        self._process.wait(40)

    @property
    def connections(self) -> int:
        return self.log.read_text().count("receiver: connected")


@contextlib.asynccontextmanager
async def members(
    folder: Path, broker: Broker, place: tuple[str, str]
) -> AsyncIterator[list[Member]]:
    group = [Member(folder, number, broker, place) for number in range(3)]
    try:
        for member in group:
            member.start()
        for member in group:
            await until(lambda: member.connections == 1, "a member connects")  # noqa: B023
        yield group
    finally:
        for member in group:
            member.end(signal.SIGTERM)


def test_three_that_share_and_are_killed_miss_and_repeat_nothing(
    tmp_path: Path, place: tuple[str, str]
) -> None:
    journal, rng = MemoryJournal(), random.Random(5)

    def stored() -> int:
        return int(query(*place, "SELECT count(*) AS n FROM entries")[0]["n"])

    async def main() -> list[str]:
        with mosquitto(tmp_path) as server:
            async with members(tmp_path, server.broker, place) as group:
                uplink = make_uplink(journal, server.broker)
                async with running(uplink.run()):
                    for member in rng.sample(group, 2):
                        for _ in range(60):
                            journal.commit(rng.choice(list(Stream)), rng.randint(1, 20))
                        before = stored()
                        uplink.wake()
                        await until(lambda: stored() > before, "something new")  # noqa: B023
                        connections = member.connections
                        member.end(signal.SIGKILL)
                        member.start()
                        await until(lambda: member.connections > connections, "back")  # noqa: B023
                    assert await uplink.drain(40), uplink.status()
                    total = sum(map(len, journal.all_sequences().values()))
                    await until(lambda: stored() >= total, f"{total} entries")
            assert f"$share/ward/wardlink/1/{HUB.tenant}/+/+" in server.log()
            return [member.log.read_text() for member in group]

    logs = asyncio.run(main())
    rows = query(*place, "SELECT stream, sequence FROM entries ORDER BY sequence")
    for stream, sequences in journal.all_sequences().items():
        assert [row["sequence"] for row in rows if row["stream"] == stream] == sequences, stream
    assert query(*place, "SELECT * FROM gaps") == []
    assert query(*place, "SELECT * FROM rejected") == []
    (track,) = query(*place, "SELECT sum(missing) AS missing FROM tracks")
    assert track["missing"] == 0
    shares = [int(SUMMARY.findall(log)[-1]) for log in logs]
    assert all(share > 0 for share in shares), shares


def sharing(folder: Path, broker: Broker, number: int, expiry_s: int) -> Receiver:
    return Receiver(
        broker,
        HUB.tenant,
        {HUB.id: PUBLIC},
        clock(),
        store=SqlStore(sqlite(folder / "db"), SystemClock()),
        client_id=f"r-{number}",
        rng=random.Random(number),
        name=f"r-{number}",
        sign=KEY.sign,
        share="ward",
        grace_s=30,
        session_expiry_s=expiry_s,
        timing=QUICK,
    )


@pytest.mark.usefixtures("hurry")
def test_what_one_that_never_comes_back_had_comes_to_another(
    tmp_path: Path,
) -> None:
    """On the receiver's word: the hub sends again what nobody gave a receipt for."""
    journal = MemoryJournal()

    async def main() -> None:
        with mosquitto(tmp_path) as server:
            stays = sharing(tmp_path, server.broker, 0, expiry_s=60)
            leaves = sharing(tmp_path, server.broker, 1, expiry_s=1)
            uplink = receipting_uplink(journal, server.broker, ("r-0", "r-1"))
            async with running(stays.run(), subscribed(stays, uplink)):
                async with running(leaves.run()):
                    await until(lambda: stays.is_connected and leaves.is_connected, "both")
                    journal.commit(Stream.VITALS, 40)
                    uplink.wake()
                    await until(lambda: journal.cursors[Stream.VITALS] == 40, "receipts")
                for _ in range(40):
                    journal.commit(Stream.VITALS, 5)
                    uplink.wake()
                    await asyncio.sleep(0.01)
                assert await uplink.drain(40), uplink.status()
            # Half of them went to the one that is gone, and were sent again.
            assert uplink.status().streams[Stream.VITALS].messages > 41
            assert stays.report().missing == 0

    asyncio.run(main())
    rows = query("sqlite", str(tmp_path / "db"), "SELECT sequence FROM entries ORDER BY sequence")
    assert [row["sequence"] for row in rows] == list(range(1, 241))
    assert query("sqlite", str(tmp_path / "db"), "SELECT * FROM gaps") == []

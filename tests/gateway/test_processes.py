"""The halves of the hub as real processes: what they load, that they end in order, that a kill of either loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random

import pytest

from gateway import status
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from tests.gateway.journal.builders import read_all, vital

ROOT = Path(__file__).parents[2]
KILLS = 12
LAST = 999_999_999
CONFIG = """
[hub]
id = "hub-1"
state_dir = "state"
runtime_dir = "run"
mode = "test"
[broker]
host = "127.0.0.1"
port = 1
"""
"""Nobody listens at port 1, and there are no devices: what is left is the halves themselves."""

pytestmark = pytest.mark.system


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "wardlink.toml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


@contextmanager
def running(*command: str) -> Iterator["subprocess.Popen[str]"]:
    with subprocess.Popen(
        [sys.executable, *command], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as child:  # fmt: skip
        try:
            yield child
        finally:
            child.kill()


def until_answers(socket: Path, child: "subprocess.Popen[str]", limit_s: float = 40.0) -> None:
    end = time.monotonic() + limit_s
    while True:
        try:
            status.fetch(socket)
        except status.NoStatus:
            assert child.poll() is None, child.stderr and child.stderr.read()
            assert time.monotonic() < end, f"{socket} does not answer"
            time.sleep(0.05)
        else:
            return


# --- What they load ------------------------------------------------------------------------------------

LOADED = """
import json, sys
from gateway import cli
cli._serve = lambda main: None
assert cli.main([sys.argv[1], "--config", sys.argv[2]]) == 0
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.parametrize(
    ("half", "needs", "never"),
    [
        ("acquire", "bleak", {"paho", "gateway.uplink"}),
        ("uplink", "paho", {"bleak", "dbus_fast", "serial", "numpy", "numba", "gateway.transport",
                            "gateway.signal", "drivers.registry", "drivers.ble", "drivers.serial",
                            "gateway.acquire", "gateway.budget", "gateway.intake", "gateway.view",
                            "gateway.receiver", "gateway.operator", "gateway.journal.journal",
                            "gateway.journal.rotation", "gateway.journal.shred", "gateway.schema",
                            "difflib", "http.client", "email", "sqlite3", "psycopg"}),
    ],
)  # fmt: skip
def test_a_half_loads_nothing_of_the_other(
    half: str, needs: str, never: set[str], config: Path
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOADED, half, str(config)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    loaded = set(json.loads(done.stdout))
    assert needs in loaded
    assert loaded & never == set()


def test_the_half_with_the_network_stays_small(config: Path, tmp_path: Path) -> None:
    """It takes 32 MB of 35; numpy alone would be 20 more. Compiling the sources counts too, so they are compiled before."""
    compiled = {**os.environ, "PYTHONPYCACHEPREFIX": str(tmp_path), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "gateway", "uplink", "--config", str(config)]
    sizes_kib = []
    for _ in range(2):
        with subprocess.Popen(command, cwd=ROOT, env=compiled, stderr=subprocess.PIPE, text=True) as child:  # fmt: skip
            until_answers(config.parent / "run" / status.UPLINK, child)
            lines = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines()
            sizes_kib.append(int(next(x for x in lines if x.startswith("VmRSS")).split()[1]))
            child.terminate()
            assert child.wait(timeout=10) == 0
    assert sizes_kib[1] * 1024 <= 35_000_000


# --- Their life ----------------------------------------------------------------------------------------


def test_the_halves_start_in_any_order_and_end_without_each_other(config: Path) -> None:
    sockets = config.parent / "run"
    with running("-m", "gateway", "uplink", "--config", str(config)) as uplink:
        until_answers(sockets / status.UPLINK, uplink)
        early = status.fetch_all(sockets)
        assert early["uplink"] is None
        assert set(early["silent"]) == {"acquire"}  # type: ignore[call-overload]
        with running("-m", "gateway", "uplink", "--config", str(config)) as second:
            _, complaint = second.communicate(timeout=20)
        assert second.returncode == 1
        assert "another process acknowledges" in complaint
        assert "Traceback" not in complaint
        with running("-m", "gateway", "acquire", "--config", str(config)) as acquire:
            until_answers(sockets / status.ACQUIRE, acquire)
            time.sleep(0.3)
            both = status.fetch_all(sockets)
            assert both["silent"] == {}
            assert both["uplink"]["streams"]["audit"]["high_water"] == 1  # type: ignore[index]
            began = time.monotonic()
            acquire.send_signal(signal.SIGTERM)
            assert acquire.wait(timeout=10) == 0
            assert time.monotonic() - began < 3
        late = status.fetch_all(sockets)
        assert set(late["silent"]) == {"acquire"}  # type: ignore[call-overload]
        assert late["backlog"]["audit"] == 2  # type: ignore[index]  # started, stopped
        uplink.send_signal(signal.SIGTERM)
        assert uplink.wait(timeout=20) == 0
    # Nobody may ask this hub for anything.
    assert not (config.parent / "state" / "commands").exists()


# --- A writer that is killed ---------------------------------------------------------------------------

WRITER = """
import os, sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from tests.gateway.journal.builders import vital

here, seed = Path(sys.argv[1]), int(sys.argv[2])
journal = Journal.open(here / "journal", hub="hub-1", clock=SystemClock(), segment_bytes=65536,
                       hub_key=HubKey.load_or_create(here / "hub.key"), max_bytes=64 << 20)
number = seed * 1_000_000  # two lives never write the same record
while True:
    for _ in range(5):
        number += 1
        journal.append("hr", vital(number))
    journal.commit()
    print(number, flush=True)
"""
READER = """
import asyncio, sys
from pathlib import Path
from gateway.journal.entry import Stream
from gateway.journal.keys import HubKey
from gateway.journal.reader import JournalReader

async def main():
    here, out = Path(sys.argv[1]), open(sys.argv[2], "w")
    reader = JournalReader(here / "journal", hub="hub-1", acknowledges=sys.argv[3] == "yes",
                           hub_key=HubKey.load_or_create(here / "hub.key"))
    print("follows", flush=True)
    await reader.begin()
    at = 0
    while True:
        while batch := reader.read(Stream.VITALS, at):
            for entry in batch.entries:
                print(entry.sequence, entry.record.determined_at_ns, file=out)
                if entry.record.determined_at_ns == int(sys.argv[4]):
                    return out.close()
            at = batch.last_sequence
        await reader.advanced()

asyncio.run(main())
"""


def test_readers_see_the_journal_as_it_is_after_every_kill(tmp_path: Path) -> None:
    random = Random(11)
    key = HubKey.load_or_create(tmp_path / "hub.key")
    with (
        running("-c", READER, str(tmp_path), str(tmp_path / "one"), "yes", str(LAST)) as one,
        running("-c", READER, str(tmp_path), str(tmp_path / "two"), "no", str(LAST)) as two,
    ):
        for reader in (one, two):
            assert reader.stdout
            assert reader.stdout.readline() == "follows\n"
        assert not list((tmp_path / "journal").glob("*/*.seg"))  # they were first
        for seed in range(1, KILLS + 1):
            with running("-c", WRITER, str(tmp_path), str(seed)) as writer:
                assert writer.stdout
                for _ in range(random.randrange(1, 40)):
                    assert writer.stdout.readline()
                time.sleep(random.random() * 0.01)
                writer.send_signal(signal.SIGKILL)
        journal = Journal.open(
            tmp_path / "journal", hub="hub-1", clock=SystemClock(), hub_key=key,
            max_bytes=64 << 20, segment_bytes=65536,
        )  # fmt: skip
        journal.append("hr", vital(LAST))
        journal.commit()
        for reader in (one, two):
            assert reader.wait(timeout=20) == 0, reader.stderr and reader.stderr.read()
    there = [
        f"{entry.sequence} {entry.record.determined_at_ns}"  # type: ignore[union-attr]
        for entry in read_all(journal, Stream.VITALS)
    ]
    assert len(there) > KILLS * 5
    for name in ("one", "two"):
        assert (tmp_path / name).read_text(encoding="utf-8").splitlines() == there
    assert journal.take_damage() == []
    journal.close()

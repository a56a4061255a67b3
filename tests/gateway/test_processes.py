"""The halves of the hub as real processes: what they load, that they end in order, that a kill of either loses nothing."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random
from typing import Any

import pytest

from drivers.assigned import Code, Unit
from drivers.model import Observation, SampleArray
from gateway import status
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.readers import ClinicKey
from tests.gateway.journal.builders import read_all, vital
from tests.gateway.uplink.authority import Authority, tls_mosquitto

ROOT = Path(__file__).parents[2]
KILLS = 12
LAST = 999_999_999
COMPILING_S = 300
"""The first start of `acquire` in a fresh checkout compiles the kernels, on a busy machine for more than a minute."""
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


def until_answers(
    socket: Path, child: "subprocess.Popen[str]", limit_s: float = COMPILING_S
) -> None:
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


def idle_s(child: "subprocess.Popen[str]", limit_s: float = 40.0) -> float:
    """How long a process does nothing until it ends: no thread of it runs, wants to run or waits for a disk.

    However busy the machine is, work does not count, and a wait for a time or for somebody else does.
    """
    end, idle, last, was_idle = time.monotonic() + limit_s, 0.0, time.monotonic(), False
    while child.poll() is None:
        assert time.monotonic() < end, f"still there after {limit_s:g} s, idle for {idle:.1f}"
        states = set()
        for stat in Path(f"/proc/{child.pid}/task").glob("*/stat"):
            with suppress(OSError):  # a thread has ended
                states.add(stat.read_text(encoding="utf-8").rpartition(") ")[2][0])
        now, is_idle = time.monotonic(), states <= {"S"}
        if is_idle and was_idle:
            idle += now - last
        last, was_idle = now, is_idle
        time.sleep(0.005)
    return idle


# --- What they load ------------------------------------------------------------------------------------

LOADED = """
import json, sys
from gateway import cli
cli._serve = lambda main: None
assert cli.main([sys.argv[1], "--config", sys.argv[2]]) == 0
print(json.dumps(sorted(sys.modules)))
"""


@pytest.mark.timeout(COMPILING_S)
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


LIMIT_BYTES = 35_000_000
BACKLOG = 3000
"""Of half a kilobyte each."""


def memory_bytes(child: "subprocess.Popen[str]", what: str) -> int:
    lines = Path(f"/proc/{child.pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith(what + ":")).split()[1]) * 1024


@contextmanager
def uplink_as_installed(config: Path, compiled: Path) -> Iterator["subprocess.Popen[str]"]:
    """Compiling the sources takes memory too, so a start before leaves them compiled."""
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled), "PYTHONDONTWRITEBYTECODE": ""}
    command = [sys.executable, "-m", "gateway", "uplink", "--config", str(config)]
    with subprocess.Popen(command, cwd=ROOT, env=env, stderr=subprocess.PIPE, text=True) as child:
        try:
            until_answers(config.parent / "run" / status.UPLINK, child)
            yield child
            child.terminate()
            assert child.wait(timeout=20) == 0
        finally:
            child.kill()


def test_the_half_with_the_network_stays_small(config: Path, tmp_path: Path) -> None:
    """It takes 32 MB of 35; numpy alone would be 20 more."""
    sizes = []
    for _ in range(2):
        with uplink_as_installed(config, tmp_path / "pyc") as child:
            sizes.append(memory_bytes(child, "VmRSS"))
    assert sizes[1] <= LIMIT_BYTES


@pytest.mark.parametrize("sealed", [False, True])
def test_it_is_as_small_again_after_a_handshake_and_a_backlog(
    tmp_path: Path, *, sealed: bool
) -> None:
    """Mutual TLS and 1.5 MB take it to the limit; with its heartbeat it gives 4 MB back that were needed once.

    Sealed, they are some hundred frames, of which a dozen share a message.
    """
    clinic = ClinicKey.generate()
    (tmp_path / "clinic.pub").write_text(clinic.public_text, encoding="ascii")
    readers = '[journal]\nreaders = "clinic"\nclinic_key_file = "clinic.pub"\n'
    ca = Authority(tmp_path, "ca")
    certificate, key_file = ca.issue("hub-1")
    config = tmp_path / "wardlink.toml"
    with tls_mosquitto(tmp_path, ca, ca.issue("server")) as server:
        config.write_text(
            CONFIG.replace("port = 1\n", f"port = {server.port}\n")
            + f'[broker.tls]\nca_file = "{ca.file}"\n'
            f'certificate_file = "{certificate}"\nkey_file = "{key_file}"\n'
            + (readers if sealed else ""),
            encoding="utf-8",
        )
        with uplink_as_installed(config, tmp_path / "pyc"):
            pass
        state = tmp_path / "state"
        journal = Journal.open(
            state / "journal", hub="hub-1", clock=SystemClock(), max_bytes=64 << 20,
            hub_key=HubKey.find(state, {}), readers=(clinic.reader,) if sealed else (),
        )  # fmt: skip
        samples = SampleArray(Random(1).randbytes(500), 2, 8_000_000, Unit.MILLI_VOLT)
        for n in range(BACKLOG):
            journal.append("ecg", Observation(Code.ECG_ELEC_POTL, samples, n + 1))
            if sealed and n % 10 == 9:
                journal.commit()
        journal.close()
        with uplink_as_installed(config, tmp_path / "pyc") as child:
            said: Mapping[str, Any] = {"backlog": None}
            end, mapped = time.monotonic() + 40, 0
            while said["backlog"] != dict.fromkeys(Stream, 0):
                assert time.monotonic() < end, said
                time.sleep(0.02)
                said = status.fetch(tmp_path / "run" / status.UPLINK)
                mapped = max(mapped, memory_bytes(child, "RssFile"))
            assert said["uplink"]["streams"]["waveform"]["acknowledged"] == BACKLOG
            while memory_bytes(child, "RssFile") > mapped - 2_000_000:
                assert time.monotonic() < end, f"{mapped} bytes of files stay mapped"
                time.sleep(0.2)
            assert memory_bytes(child, "VmRSS") <= LIMIT_BYTES


# --- Their life ----------------------------------------------------------------------------------------


def seen(sockets: Path, high_water: int) -> Mapping[str, Any]:
    """What the halves say once the uplink has seen the audit stream as far as that."""
    end = time.monotonic() + 20
    while True:
        said: Mapping[str, Any] = status.fetch_all(sockets)
        if said["uplink"] and said["uplink"]["streams"]["audit"]["high_water"] >= high_water:
            return said
        assert time.monotonic() < end, said
        time.sleep(0.05)


@pytest.mark.timeout(COMPILING_S + 60)
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
            both = seen(sockets, 1)
            assert both["silent"] == {}
            assert both["uplink"]["streams"]["audit"]["high_water"] == 1
            uplink.send_signal(signal.SIGSTOP)  # whoever needs it waits for ever
            acquire.send_signal(signal.SIGTERM)
            assert idle_s(acquire) < 3
            assert acquire.wait() == 0
            uplink.send_signal(signal.SIGCONT)
        late = seen(sockets, 2)
        assert set(late["silent"]) == {"acquire"}
        assert late["backlog"]["audit"] == 2  # started, stopped
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

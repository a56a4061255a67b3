"""The real `wardlink uplink` on a real journal: filled, configured, started and asked."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from unittest import mock

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quantity, SampleArray
from gateway.clock import SystemClock
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from tools.uplink_bench.peers import Files

WAVE_BYTES = 6_000
HUB = "hub-1"


def vitals(number: int) -> Observation:
    """A value a second, of ten devices in turn."""
    value = Quantity(Decimal(60 + number * 7 % 31), Unit.BEAT_PER_MIN)
    return Observation(
        Code.ECG_HEART_RATE, value, number * 100_000_000 + number * 7_919 % 1_000_000
    )


def fill(folder: Path, batches: int, entries: int) -> HubKey:
    """A journal with vitals that nobody has had yet."""
    key = HubKey.find(folder, {})
    with opened(folder, key) as journal:
        number = 0
        for _ in range(batches):
            for _ in range(entries):
                number += 1
                journal.append(f"device-{number % 10}", vitals(number), "patient-1")
            journal.commit()
    return key


def pile_up(folder: Path, size_bytes: int) -> HubKey:
    """A journal with so much waveform that nobody has had yet: 10 s of six leads at 500 Hz a commit."""
    key = HubKey.find(folder, {})
    # Waiting for the disk at each of a hundred thousand commits is no part of what is measured.
    with mock.patch("os.fdatasync"), opened(folder, key) as journal:
        for number in range(size_bytes // (WAVE_BYTES * 10)):
            for second in range(10):
                data = os.urandom(WAVE_BYTES)
                wave = SampleArray(data, 2, 2_000_000, Unit.MICRO_VOLT)
                at_ns = (number * 10 + second) * 1_000_000_000
                journal.append("device-1", Observation(Code.ECG_ELEC_POTL_I, wave, at_ns), "p-1")
            journal.commit()
    os.sync()
    return key


@contextlib.contextmanager
def opened(folder: Path, key: HubKey) -> Iterator[Journal]:
    """The journal while the block lasts."""
    journal = Journal.open(
        folder / "journal", hub=HUB, clock=SystemClock(), hub_key=key, max_bytes=1 << 34
    )
    try:
        yield journal
    finally:
        journal.close()


def config(folder: Path, port: int, files: Files | None, payload: str = "json") -> Path:
    """The hub's configuration."""
    tls = (
        ""
        if files is None
        else (
            f'[broker.tls]\nca_file = "{files.ca}"\ncertificate_file = "{files.certificate}"\n'
            f'key_file = "{files.key}"\n'
        )
    )
    path = folder / "wardlink.toml"
    path.write_text(
        f'[hub]\nid = "{HUB}"\ntenant = "ward"\nstate_dir = "{folder}"\nruntime_dir = "{folder}/run"\n'
        f'[broker]\nhost = "127.0.0.1"\nport = {port}\n{tls}[delivery]\npayload = "{payload}"\n',
        encoding="utf-8",
    )
    return path


def wardlink(configured: Path) -> list[str]:
    """The command of the real uplink."""
    return [str(Path(sys.executable).with_name("wardlink")), "uplink", "--config", str(configured)]


def status(folder: Path) -> dict[str, object] | None:
    """What the uplink says of itself."""
    with socket.socket(socket.AF_UNIX) as sock, contextlib.suppress(OSError, ValueError):
        sock.connect(str(folder / "run" / "uplink.sock"))
        with sock.makefile("rb") as file:
            found = json.loads(file.read())
            return found if isinstance(found, dict) else None
    return None


def backlog(folder: Path) -> int | None:
    """Entries that are not delivered yet; None while nobody says."""
    found = status(folder)
    waiting = found.get("backlog") if found else None
    return sum(waiting.values()) if isinstance(waiting, dict) and waiting else None


@contextlib.contextmanager
def program(command: list[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process while the block lasts."""
    with log.open("ab") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)  # noqa: S603 - our own commands
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()


def cpu_s(pid: int) -> float:
    """Processor time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

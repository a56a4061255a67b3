"""The whole way with real programs: the hub, the receiver, an embedded broker, a private bus and a pty."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.demo.world import PORT
from tests.gateway import schemas
from tests.gateway.uplink.bench import read_lines

ROOT = Path(__file__).parents[2]
DEVICES = {"board": "healthypi-v3", "strap": "heart-rate"}
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(400),
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian package dbus-daemon)"
    ),
]


@contextmanager
def own_port() -> Iterator[None]:
    """Takes the port of the example away, so that a demo draws one of its own.

    One that stops its broker leaves its port to whoever comes: another demo beside it got the messages of both hubs.
    """
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # several demos may hold it
        with suppress(OSError):  # then somebody listens there, which is as good
            taken.bind(("127.0.0.1", PORT))
        yield


@contextmanager
def demo(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with (
        own_port(),
        subprocess.Popen(
            [sys.executable, "-m", "firmware_sim", "demo", "--keep", str(folder), *arguments],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "COLUMNS": "120"},
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()  # it ends its own programs


def finished(process: subprocess.Popen[str]) -> str:
    out, _ = process.communicate(timeout=300)
    assert process.returncode == 0, out
    assert "PROVED: nothing is missing" in out
    return out


def row(out: str, title: str) -> list[int]:
    (line,) = (line for line in out.splitlines() if f"│ {title} " in line)
    return [int(cell) for cell in line.replace("│", " ").split() if cell.isdigit()]


def check_lines(path: Path) -> None:
    """Three of each kind of line: there are thousands, and they differ in their numbers alone."""
    kinds: dict[tuple[object, ...], list[dict[str, Any]]] = {}
    for line in read_lines(path):
        record = line.get("record", {})
        kind = line["type"], *(record.get(key) for key in ("kind", "reason", "code", "validity"))
        kinds.setdefault(kind, []).append(line)
    shown = [line for same in kinds.values() for line in same[:3]]
    assert {line["record"]["shape"] for line in shown if "shape" in line.get("record", {})} >= {
        "quantity",
        "samples",
    }
    assert [fault for line in shown for fault in schemas.faults(line, schemas.LINES)] == []


def test_a_quiet_time_is_proved_without_a_gap_and_an_interrupt_ends_it(tmp_path: Path) -> None:
    lines = tmp_path / "received.jsonl"
    with demo(tmp_path) as process:
        limit_s = time.monotonic() + 300
        while time.monotonic() < limit_s and (not lines.exists() or lines.stat().st_size < 90_000):
            time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        out = finished(process)
    assert row(out, "in gaps that the hub named") == [0, 0]
    board, strap = row(out, "received")
    assert board >= 500
    assert strap >= 3
    check_lines(lines)
    devices = [line["devices"] for line in read_lines(lines) if line["type"] == "status"]
    assert devices
    for said in devices:
        assert {row["device"]: row["driver"] for row in said} == DEVICES
    log = (tmp_path / "hub.log").read_text(encoding="utf-8")
    assert "patient-1" not in log, "the log names a person, if only by a pseudonym"


def test_a_killed_hub_and_a_lost_broker_lose_nothing_that_was_accepted(tmp_path: Path) -> None:
    with demo(tmp_path, "--seconds", "30", "--kill-hub", "--stop-broker", "8") as process:
        out = finished(process)
    assert row(out, "missing") == [0, 0]
    board, _ = row(out, "in gaps that the hub named")
    assert board > 0, "the hub was dead for seconds: a gap must be named"
    assert "hub_killed" in out
    drained = [line.split("that had waited") for line in out.splitlines() if "had waited" in line]
    streams = [row[0].split()[-1] for row in drained]
    assert streams.index("vitals") < streams.index("waveform"), "vitals come first"


def test_a_sealed_hub_whose_halves_are_killed_lost_nothing_and_its_disk_tells_nothing(
    tmp_path: Path,
) -> None:
    with demo(tmp_path, "--sealed", "--two-processes", "--seconds", "25", "--kill-hub") as process:
        out = finished(process)
    assert row(out, "missing") == row(out, "repeated") == [0, 0]
    for half in ("acquire", "uplink"):
        assert f"{half} was killed and started again" in out
    assert "hub_killed, of unknown length" not in out
    lines = (tmp_path / "received.jsonl").read_text(encoding="ascii")
    assert '"type":"status"' in lines
    assert '"devices"' not in lines, "the retained status of a sealed hub is for anybody's eyes"
    assert '"hub_killed"' in lines
    assert "patient-1" in lines
    for path in (tmp_path / "state").rglob("*"):
        data = path.read_bytes() if path.is_file() else b""
        assert b"patient-1" not in data
        assert b"strap" not in data

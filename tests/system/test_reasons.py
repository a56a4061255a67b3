"""What is absent or refuses has its reason in `wardlink status`, and the rest goes on."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from firmware_sim.bluez.bus import PrivateBus
from firmware_sim.bluez.server import VirtualBluez
from firmware_sim.line import PtyLine
from firmware_sim.openview_board import LAYOUTS, OpenViewBoard
from firmware_sim.patient import Patient, Plan
from gateway.status import NoStatus, fetch_all

ROOT = Path(__file__).parents[2]
pytestmark = [
    pytest.mark.system,
    pytest.mark.timeout(180),
    pytest.mark.skipif(
        shutil.which("dbus-daemon") is None, reason="needs dbus-daemon (Debian package dbus-daemon)"
    ),
]

CONFIG = """
[hub]
id = "h1"
state_dir = "state"
runtime_dir = "run"
mode = "test"
[broker]
host = "127.0.0.1"
port = {port}
[[device]]
id = "away"
driver = "heart-rate"
address = "C0:00:00:00:00:77"
[[device]]
id = "unplugged"
driver = "ads1292r"
port = "tty-none"
[[device]]
id = "board"
driver = "healthypi-v3"
port = "tty-board"
"""


@contextmanager
def hub(folder: Path, bus_address: str) -> Iterator[subprocess.Popen[bytes]]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: every connection is refused
        port = taken.getsockname()[1]
        (folder / "wardlink.toml").write_text(CONFIG.format(port=port), encoding="utf-8")
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "--config", str(folder / "wardlink.toml")],
                cwd=ROOT,
                env={**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus_address},
                stderr=log,
            )
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def status(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "status", "--json", "--runtime-dir", str(folder / "run")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


async def settled(folder: Path) -> dict[str, Any]:
    """The status once the board streams and the broker has refused."""
    limit_s = time.monotonic() + 120
    while time.monotonic() < limit_s:
        with contextlib.suppress(NoStatus):
            state: dict[str, Any] = await asyncio.to_thread(fetch_all, folder / "run")
            devices = {device["id"]: device for device in state["devices"]}
            if devices["board"]["state"] == "streaming" and state["uplink"]["text"]:
                return await asyncio.to_thread(status, folder)
        await asyncio.sleep(0.3)
    raise AssertionError((folder / "log").read_text(encoding="utf-8"))


def test_every_absence_has_its_reason_and_the_rest_goes_on(tmp_path: Path) -> None:
    async def main() -> dict[str, Any]:
        async with PrivateBus(tmp_path) as bus, VirtualBluez(bus.address):
            board = OpenViewBoard(
                LAYOUTS["healthypi-v3"], Patient(Plan(), 125.0), PtyLine(tmp_path / "tty-board")
            )
            with hub(tmp_path, bus.address):
                streaming = asyncio.create_task(board.run())
                try:
                    return await settled(tmp_path)
                finally:
                    streaming.cancel()

    state = asyncio.run(main())
    devices = {device["id"]: device for device in state["devices"]}
    assert devices["away"]["state"] in {"connecting", "absent"}
    assert "not seen" in devices["away"]["reason"]
    assert devices["unplugged"]["state"] == "absent"
    assert "tty-none" in devices["unplugged"]["reason"]
    assert devices["board"]["counters"]["records"] > 0
    assert "refused" in state["uplink"]["text"]
    assert state["journal"]["streams"]
    log = (tmp_path / "log").read_text(encoding="utf-8")
    assert "Traceback" not in log

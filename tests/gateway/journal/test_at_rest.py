"""What a real hub leaves on its disk tells nothing of what it recorded."""

import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from firmware_sim.line import PtyLine
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import KEY_FILE, HubKey
from tests.gateway.journal.builders import read_all

SUBJECT = "patient-7f3a91"
DEVICE = "board-by-the-bed"
SAMPLES = [(n * 7919) % 3001 - 1500 for n in range(1200)]
"""No two seconds are alike, so that any eight samples in a row are found nowhere by chance."""
CONFIG = f"""
[hub]
id = "hub-at-rest"
tenant = "ward"
state_dir = "state"
runtime_dir = "run"
mode = "test"
[broker]
host = "127.0.0.1"
port = 9
[[device]]
id = "{DEVICE}"
driver = "healthypi-v3"
port = "tty"
subject = "{SUBJECT}"
uv_per_count = 1.0
lead = "II"
"""


def packet(n: int) -> bytes:
    body = struct.pack("<hhiih", SAMPLES[n], 300, 70_000 + n, 90_000 - n, 3650)
    return (
        b"\x0a\xfa" + struct.pack("<HB", 20, 2) + body + bytes((16, 97, 75, 80, 0, 0)) + b"\x00\x0b"
    )


def needles() -> list[bytes]:
    """Names, codes and samples, as they stand in memory and on the wire."""
    rows = [struct.pack("<8h", *SAMPLES[at : at + 8]) for at in range(0, len(SAMPLES) - 8, 8)]
    return [SUBJECT.encode(), DEVICE.encode(), b"MDC_ECG", *rows]


@pytest.mark.system
def test_nothing_recorded_can_be_read_in_the_state_directory(tmp_path: Path) -> None:
    config = tmp_path / "wardlink.toml"
    config.write_text(CONFIG)
    line = PtyLine(tmp_path / "tty")
    command = [sys.executable, "-m", "gateway", "run", "--config", str(config)]
    with subprocess.Popen(command, stderr=subprocess.DEVNULL) as hub:
        try:
            end = time.monotonic() + 45
            while not line.opened:
                assert time.monotonic() < end, "the hub does not open its port"
                assert hub.poll() is None
                time.sleep(0.02)
            for n in range(len(SAMPLES)):
                line.write(packet(n))
                time.sleep(0.002)
            time.sleep(1.2)  # one commit
            hub.send_signal(signal.SIGTERM)
            hub.wait(20)
        finally:
            hub.kill()  # a test that failed leaves no hub behind, and does not wait for one
    line.close()
    state = tmp_path / "state"
    files = [path for path in tmp_path.rglob("*") if path.is_file() and path != config]
    assert len(files) > 5
    assert {path.stat().st_mode & 0o077 for path in files} == {0}
    secrets = (state / KEY_FILE).read_bytes()[-64:]
    wanted = needles()
    for path in files:
        data = path.read_bytes()
        assert [needle for needle in wanted if needle in data] == [], path
        if path.name != KEY_FILE:
            assert secrets[:32] not in data
            assert secrets[32:] not in data
    found = recorded(state)
    assert SUBJECT.encode() in found
    assert sum(needle in found for needle in wanted) > len(wanted) // 2, "the search can find it"


def recorded(state: Path) -> bytes:
    """Everything in the journal in the clear, to see that what is searched for was there."""
    journal = Journal.open(
        state / "journal",
        hub="hub-at-rest",
        clock=SystemClock(),
        hub_key=HubKey.load_or_create(state / KEY_FILE),
        max_bytes=1 << 30,
    )
    entries = [entry for stream in Stream for entry in read_all(journal, stream)]
    journal.close()
    plain = b""
    for entry in entries:
        data = getattr(getattr(entry.record, "value", None), "data", b"")
        plain += os.fsencode(f"{entry.subject} {entry.device} ") + data
    return plain

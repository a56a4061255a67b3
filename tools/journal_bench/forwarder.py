"""The memory of `wardlink uplink`, the process that only reads and forwards."""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from drivers.assigned import Code, Unit
from drivers.model import Observation, SampleArray
from gateway import status
from gateway.uplink.status import State
from tests.gateway.uplink.authority import Authority, tls_mosquitto
from tests.gateway.uplink.bench import free_port, mosquitto
from tools.journal_bench.stores import HUB, open_journal

CONFIG = """
[hub]
id = "{hub}"
state_dir = "state"
runtime_dir = "run"
[broker]
host = "127.0.0.1"
port = {port}
"""
TLS = """
[broker.tls]
ca_file = "{ca}"
certificate_file = "{certificate}"
key_file = "{key}"
"""
COMMITS, RECORDS, RECORD_BYTES = 100, 30, 500
"""A backlog of 1.5 MB."""
SETTLE_S, POLL_S, LIMIT_S = 12.0, 0.02, 120.0
"""A heartbeat, with which memory is given back, comes each 10 s."""


def forwarder(directory: Path) -> Iterator[str]:
    """Says what it takes with nobody there, with a broker in plaintext, and with one over mutual TLS."""
    yield (
        "\nwardlink uplink, MB resident (target 35): after its start, at most while it delivers"
        " 1.5 MB, after the next heartbeat\n"
    )
    for kind, broker in (("no broker", _nobody), ("plaintext", _plain), ("mutual TLS", _mutual)):
        if broker is not _nobody and shutil.which("mosquitto") is None:
            yield f"{kind}: mosquitto is not installed\n"
            continue
        room = directory / kind.replace(" ", "-")
        (room / "state").mkdir(parents=True, mode=0o700)
        with broker(room) as where:
            config = room / "uplink.toml"
            config.write_text(where, encoding="utf-8")
            with _uplink(config, directory / "pyc"):
                pass  # as installed: the sources are compiled before
            figures = _figures(room, directory / "pyc", connects=broker is not _nobody)
            yield f"{kind:12}" + "".join(f"{figure:7.1f}" for figure in figures) + "\n"


def _figures(room: Path, compiled: Path, *, connects: bool) -> Iterator[float]:
    journal = open_journal(room / "state")
    samples = SampleArray(os.urandom(RECORD_BYTES), 2, 8_000_000, Unit.MILLI_VOLT)
    with _uplink(room / "uplink.toml", compiled) as process:
        state = State.CONNECTED if connects else State.BACKING_OFF
        _sampled(process, room, lambda said: said["uplink"]["state"] == state)
        time.sleep(1)
        yield _resident_mb(process)
        for n in range(COMMITS):
            for k in range(RECORDS):
                journal.append("device", Observation(Code.ECG_ELEC_POTL, samples, n * RECORDS + k))
            journal.commit()
        if connects:
            yield max(_sampled(process, room, lambda said: said["backlog"]["waveform"] == 0))
        time.sleep(SETTLE_S)
        yield _resident_mb(process)
    journal.close()


def _sampled(
    process: "subprocess.Popen[bytes]", room: Path, done: Callable[[Any], bool]
) -> list[float]:
    """Its memory at each look until then."""
    found, end = [], time.monotonic() + LIMIT_S
    while True:
        # TypeError: it has no uplink before it has a journal.
        with contextlib.suppress(status.NoStatus, TypeError):
            is_done = done(status.fetch(room / "run" / status.UPLINK))
            found.append(_resident_mb(process))
            if is_done:
                return found
        if time.monotonic() > end:
            sys.exit(f"wardlink uplink did not get there within {LIMIT_S:g} s")
        time.sleep(POLL_S)


def _resident_mb(process: "subprocess.Popen[bytes]") -> float:
    text = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    return int(text.partition("VmRSS:")[2].split()[0]) * 1024 / 1_000_000


@contextlib.contextmanager
def _uplink(config: Path, compiled: Path) -> Iterator["subprocess.Popen[bytes]"]:
    env = {**os.environ, "PYTHONPYCACHEPREFIX": str(compiled)}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-m", "gateway", "uplink", "--config", str(config)]
    process = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL)  # noqa: S603 - ourselves
    try:
        while not (config.parent / "run" / status.UPLINK).exists() and process.poll() is None:
            time.sleep(POLL_S)
        yield process
    finally:
        process.terminate()
        process.wait()


@contextlib.contextmanager
def _nobody(_room: Path) -> Iterator[str]:
    yield CONFIG.format(hub=HUB, port=free_port())


@contextlib.contextmanager
def _plain(room: Path) -> Iterator[str]:
    with mosquitto(room) as server:
        yield CONFIG.format(hub=HUB, port=server.port)


@contextlib.contextmanager
def _mutual(room: Path) -> Iterator[str]:
    ca = Authority(room, "ca")
    certificate, key = ca.issue(HUB)
    with tls_mosquitto(room, ca, ca.issue("server")) as server:
        tls = TLS.format(ca=ca.file, certificate=certificate, key=key)
        yield CONFIG.format(hub=HUB, port=server.port) + tls

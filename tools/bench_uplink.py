#!/usr/bin/env python3
"""The uplink beside its peers: a modelled 4G link with mutual TLS, a long backlog, an alarm behind it, and loopback.

Ours is the real `wardlink uplink` on a real journal, the peers are the clients as their documentation uses them; each
is a process of its own, the broker is a real mosquitto. What was on the link is counted by the link.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from unittest import mock

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from drivers.assigned import Code, Unit
from drivers.model import Event, EventKind, Observation, Quantity, SampleArray
from gateway.clock import SystemClock
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from tests.gateway.uplink.authority import Authority, tls_mosquitto
from tests.gateway.uplink.bench import Mosquitto, free_port, mosquitto

ROUND_TRIP_MS, MBIT_S = 80, 5
LINK_BYTES_S = MBIT_S * 125_000
SETTLE_S, WINDOW_S = 3.0, 10.0
"""Connecting and slow start are not counted: the link is watched after it has settled."""
RECORD_BYTES = 200
BATCH = 100
WAVE_BYTES = 6_000
HUB = "hub-1"
PAYLOADS = ("json", "cbor")
out = sys.stdout


@dataclass(frozen=True, slots=True)
class Files:
    """Whom to trust, and who we are."""

    ca: Path
    certificate: Path
    key: Path


# --- The link, and what was on it --------------------------------------------------------------------------


class Link:
    """The modelled link as a process of its own, and the bytes that it counted."""

    def __init__(self, target: int) -> None:
        self.port = free_port()
        command = [sys.executable, str(Path(__file__).with_name("link_model.py"))]
        command += [str(self.port), str(target)]
        command += ["--round-trip-ms", str(ROUND_TRIP_MS), "--mbit-s", str(MBIT_S)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)  # noqa: S603 - our own file
        self.samples: list[tuple[float, int, int]] = []
        threading.Thread(target=self._listen, daemon=True).start()
        while not self.samples:
            time.sleep(0.01)

    def _listen(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it was asked for
        for line in self._process.stdout:
            since_s, up, down = json.loads(line)
            self.samples.append((since_s, up, down))

    def wait(self, since_s: float, sender: "subprocess.Popen[bytes]") -> None:
        """Until so long after the first byte. Whoever ends before it sent one will not be waited for."""
        while self.samples[-1][0] < since_s:
            if sender.poll() is not None and not self.samples[-1][1]:
                sys.exit(f"{sender.args!r} ended before it sent anything")
            time.sleep(0.02)

    def use(self) -> float:
        """Share of the link upwards while it was watched."""
        watched = [s for s in self.samples if SETTLE_S <= s[0] <= SETTLE_S + WINDOW_S]
        (begin_s, begin, _), (end_s, end, _) = watched[0], watched[-1]
        return (end - begin) / (end_s - begin_s) / LINK_BYTES_S

    def close(self) -> None:
        """Ends it."""
        self._process.terminate()
        self._process.wait()


@contextlib.contextmanager
def link(target: int) -> Iterator[Link]:
    """A link to a port."""
    model = Link(target)
    try:
        yield model
    finally:
        model.close()


# --- The contestants ---------------------------------------------------------------------------------------


def vitals(number: int) -> Observation:
    """A value a second, of ten devices in turn."""
    value = Quantity(Decimal(60 + number * 7 % 31), Unit.BEAT_PER_MIN)
    return Observation(
        Code.ECG_HEART_RATE, value, number * 100_000_000 + number * 7_919 % 1_000_000
    )


def fill(folder: Path, batches: int, entries: int) -> HubKey:
    """A journal with vitals that nobody has had yet."""
    key = HubKey.find(folder, {})
    with _journal(folder, key) as journal:
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
    with mock.patch("os.fdatasync"), _journal(folder, key) as journal:
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
def _journal(folder: Path, key: HubKey) -> Iterator[Journal]:
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


def peer_paho(port: int, files: Files | None, size: int, count: int) -> None:
    """As paho's documentation does: publish and let it queue."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    if files is not None:
        client.tls_set(str(files.ca), str(files.certificate), str(files.key))
    client.connect("127.0.0.1", port)
    client.loop_start()
    message = os.urandom(size // 2).hex().encode()
    infos = [client.publish("peer/data", message, qos=1) for _ in range(count)]
    for info in infos:
        info.wait_for_publish()
    client.disconnect()
    client.loop_stop()


def peer_aiomqtt(port: int, files: Files | None, size: int, count: int) -> None:
    """As the documentation of aiomqtt does: publish, one after the other."""
    import aiomqtt  # noqa: PLC0415 - only here

    async def run() -> None:
        tls = files and aiomqtt.TLSParameters(
            ca_certs=str(files.ca), certfile=str(files.certificate), keyfile=str(files.key)
        )
        message = os.urandom(size // 2).hex().encode()
        async with aiomqtt.Client("127.0.0.1", port, tls_params=tls or None) as client:
            for _ in range(count):
                await client.publish("peer/data", message, qos=1)

    asyncio.run(run())


PEERS: dict[str, Callable[[int, Files | None, int, int], None]] = {
    "paho": peer_paho,
    "aiomqtt": peer_aiomqtt,
}


def peer(name: str, port: int, files: Files | None, size: int, count: int) -> list[str]:
    """The command of a peer: this file as a program."""
    command = [sys.executable, __file__, "--peer", name, str(port), str(size), str(count)]
    return (
        command
        if files is None
        else [*command, *map(str, (files.ca, files.certificate, files.key))]
    )


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


# --- What is measured --------------------------------------------------------------------------------------


def link_use(server: Mosquitto, files: Files, scratch: Path) -> None:
    """Share of the link that each keeps busy."""
    out.write(
        f"\nA 4G link ({ROUND_TRIP_MS} ms, {MBIT_S} Mbit/s, TLS with certificates on both sides),"
    )
    out.write(f" {WINDOW_S:g} s of it\n{'':38}{'link in use':>12}{'records/s':>12}\n")
    total = int((SETTLE_S + WINDOW_S + 5) * LINK_BYTES_S)
    folder = scratch / "use"
    folder.mkdir()
    fill(folder, total // (BATCH * 150), BATCH)
    with link(server.port) as model:
        command = wardlink(config(folder, model.port, files))
        with program(command, scratch / "use.log") as process:
            model.wait(SETTLE_S, process)
            before = backlog(folder)
            model.wait(SETTLE_S + WINDOW_S, process)
            after = backlog(folder)
        rate = (before - after) / WINDOW_S if before is not None and after is not None else 0.0
        row("wardlink uplink, json", model.use(), rate)
    for name in PEERS:
        for size, records in ((RECORD_BYTES * BATCH, BATCH), (RECORD_BYTES, 1)):
            with link(server.port) as model:
                count = min(60_000, total // size)
                command = peer(name, model.port, files, size, count)
                with program(command, scratch / "peer.log") as process:
                    model.wait(SETTLE_S + WINDOW_S, process)
                use = model.use()
                row(f"{name}, {size} B a message", use, use * LINK_BYTES_S / size * records)


def row(name: str, use: float, rate: float) -> None:
    """A line of the table."""
    out.write(f"{name:38}{100 * use:10.1f} %{rate:12.0f}\n")
    out.flush()


def long_backlog(server: Mosquitto, files: Files, scratch: Path, hours: float) -> None:
    """How long vitals that waited take over the 4G link. As JSON it would take long: an hour shows it."""
    out.write("\nA backlog of ten devices' vitals, one value a second each, over the same link\n")
    for payload in PAYLOADS:
        some = min(hours, 1.0) if payload == "json" else hours
        folder = scratch / f"backlog-{payload}"
        folder.mkdir()
        one_backlog(server, files, folder, some, payload)


def one_backlog(server: Mosquitto, files: Files, folder: Path, hours: float, payload: str) -> None:
    """A line of the table."""
    entries = int(hours * 36_000)
    fill(folder, entries // 10, 10)
    with link(server.port) as model:
        begin = time.monotonic()
        configured = config(folder, model.port, files, payload)
        with program(wardlink(configured), folder / "backlog.log") as process:
            while (left := backlog(folder)) is None or left > 0:
                time.sleep(0.1)
                if out.isatty() and left is not None:
                    out.write(f"\r{entries - left} of {entries} records ")
                    out.flush()
            took_s, used_s = time.monotonic() - begin, _cpu_s(process.pid)
        up = model.samples[-1][1]
    if out.isatty():
        out.write("\r")
    out.write(
        f"{f'wardlink uplink, {payload}, {hours:g} h':38}{took_s:10.1f} s, {up / entries:.1f} bytes and"
        f" {1e6 * used_s / entries:.1f} us of CPU a record\n"
    )
    out.flush()


def alarm_delay(
    server: Mosquitto, files: Files, scratch: Path, count: int, waveform_gb: float
) -> None:
    """From the commit of an alarm to the broker, with a backlog before it: vitals, or so much waveform."""
    folder = scratch / "alarm"
    folder.mkdir()
    key = pile_up(folder, int(waveform_gb * 1e9)) if waveform_gb else fill(folder, 3_000, BATCH)
    streams = (folder / "journal" / name for name in ("vitals", "waveform"))
    size = sum(file.stat().st_size for stream in streams for file in stream.iterdir()) / 1e6
    out.write(
        f"\nAn alarm during a backlog of {size:,.0f} MB over the same link: from its commit to the broker\n"
    )
    arrived: dict[int, float] = {}

    def on_message(_client: paho.Client, _userdata: object, message: paho.MQTTMessage) -> None:
        at = time.monotonic()
        batch = json.loads(message.payload)
        for entry in batch["entries"]:
            arrived.setdefault(entry["sequence"], at)

    ears = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    ears.tls_set(str(files.ca), str(files.certificate), str(files.key))
    ears.on_message = on_message
    ears.connect("127.0.0.1", server.port)
    ears.subscribe(f"wardlink/1/ward/{HUB}/alarm", qos=0)
    ears.loop_start()
    raised: dict[int, float] = {}
    with (
        link(server.port) as model,
        _journal(folder, key) as journal,
        program(wardlink(config(folder, model.port, files)), scratch / "alarm.log") as process,
    ):
        model.wait(SETTLE_S, process)
        for _ in range(count):
            event = Event(EventKind.LOST, SystemClock().boottime_ns(), "bench", "an alarm")
            sequence = journal.append("device-1", event)
            journal.commit()
            raised[sequence] = time.monotonic()
            time.sleep(0.21)
        time.sleep(1)
        left = backlog(folder)
    ears.loop_stop()
    ears.disconnect()
    delays = sorted(1_000 * (arrived[n] - at) for n, at in raised.items() if n in arrived)
    if len(delays) < count or not left:
        out.write(f"got {len(delays)} of {count} alarms with a backlog of {left}, expected all\n")
        return
    p50, p99 = statistics.median(delays), delays[int(0.99 * (len(delays) - 1))]
    out.write(
        f"{'wardlink uplink':38}p50 {p50:.0f} ms, p99 {p99:.0f} ms; {ROUND_TRIP_MS / 2:g} ms of it the way\n"
    )


def loopback(scratch: Path) -> None:
    """Records a second, and what one costs the processor, without a link between."""
    out.write(f"\nLoopback without TLS{'':18}{'records/s':>12}{'us of CPU a record':>20}\n")
    entries = 200_000
    broker_folder = scratch / "plain"
    broker_folder.mkdir()
    with mosquitto(broker_folder) as server:
        for payload in PAYLOADS:
            folder = scratch / f"loopback-{payload}"
            folder.mkdir()
            fill(folder, entries // BATCH, BATCH)
            configured = config(folder, server.port, None, payload)
            with program(wardlink(configured), scratch / "loop.log") as process:
                while backlog(folder) is None:
                    time.sleep(0.005)
                begin, cpu, had = time.monotonic(), _cpu_s(process.pid), backlog(folder) or 1
                while backlog(folder):
                    time.sleep(0.02)
                took, used = time.monotonic() - begin, _cpu_s(process.pid) - cpu
            cost(f"wardlink uplink, {payload}", had / took, used / had)
        used = 0.0
        for name in PEERS:
            count = 20_000
            with program(
                peer(name, server.port, None, RECORD_BYTES, count), scratch / "peer.log"
            ) as process:
                while process.poll() is None:
                    with contextlib.suppress(OSError):
                        used = _cpu_s(process.pid)
                    time.sleep(0.01)
            took = float((scratch / "peer.log").read_text(encoding="ascii").split()[-1])
            cost(f"{name}, a record a message", count / took, used / count)


def cost(name: str, rate: float, cpu_s: float) -> None:
    """A line of the table."""
    out.write(f"{name:38}{rate:12.0f}{1e6 * cpu_s:20.1f}\n")
    out.flush()


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hours", type=float, default=12.0, help="of vitals in the backlog")
    parser.add_argument("--alarms", type=int, default=100)
    parser.add_argument(
        "--waveform-gb",
        type=float,
        default=0.0,
        help="that waits when an alarm comes (default: vitals)",
    )
    parser.add_argument("--only", choices=("use", "backlog", "alarm", "loopback"))
    parser.add_argument("--peer", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peer:
        name, port, size, count, *paths = options.peer
        files = Files(*map(Path, paths)) if paths else None
        begin = time.monotonic()
        PEERS[name](int(port), files, int(size), int(count))
        out.write(f"{time.monotonic() - begin}\n")
        return 0
    scratch = Path(tempfile.mkdtemp(prefix="wardlink-bench-"))
    try:
        (scratch / "pki").mkdir()
        authority = Authority(scratch / "pki", "ca")
        files = Files(authority.file, *authority.issue("hub"))
        (scratch / "broker").mkdir()
        with tls_mosquitto(scratch / "broker", authority, authority.issue("broker")) as server:
            parts: dict[str, Callable[[], None]] = {
                "use": lambda: link_use(server, files, scratch),
                "backlog": lambda: long_backlog(server, files, scratch, options.hours),
                "alarm": lambda: alarm_delay(
                    server, files, scratch, options.alarms, options.waveform_gb
                ),
                "loopback": lambda: loopback(scratch),
            }
            for name, part in parts.items():
                if options.only in {None, name}:
                    part()
    finally:
        shutil.rmtree(scratch)
    return 0


if __name__ == "__main__":
    sys.exit(main())

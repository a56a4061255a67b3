#!/usr/bin/env python3
"""The uplink beside its peers: a modelled 4G link with mutual TLS, a long backlog, an alarm behind it, and loopback.

Ours is the real `wardlink uplink` on a real journal, the peers are the clients as their documentation uses them; each
is a process of its own, the broker is a real mosquitto. What was on the link is counted by the link.
"""

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from drivers.model import Event, EventKind
from gateway.clock import SystemClock
from tests.gateway.uplink.authority import Authority, tls_mosquitto
from tests.gateway.uplink.bench import Mosquitto, mosquitto
from tools.uplink_bench.hub import (
    HUB,
    backlog,
    config,
    cpu_s,
    fill,
    opened,
    pile_up,
    program,
    wardlink,
)
from tools.uplink_bench.link import LINK_BYTES_S, MBIT_S, ROUND_TRIP_MS, SETTLE_S, WINDOW_S, link
from tools.uplink_bench.peers import PEERS, Files, peer

RECORD_BYTES = 200
BATCH = 100
PAYLOADS = ("json", "cbor")
out = sys.stdout


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
            took_s, used_s = time.monotonic() - begin, cpu_s(process.pid)
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
        opened(folder, key) as journal,
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
                begin, cpu, had = time.monotonic(), cpu_s(process.pid), backlog(folder) or 1
                while backlog(folder):
                    time.sleep(0.02)
                took, used = time.monotonic() - begin, cpu_s(process.pid) - cpu
            cost(f"wardlink uplink, {payload}", had / took, used / had)
        used = 0.0
        for name in PEERS:
            count = 20_000
            with program(
                peer(name, server.port, None, RECORD_BYTES, count), scratch / "peer.log"
            ) as process:
                while process.poll() is None:
                    with contextlib.suppress(OSError):
                        used = cpu_s(process.pid)
                    time.sleep(0.01)
            took = float((scratch / "peer.log").read_text(encoding="ascii").split()[-1])
            cost(f"{name}, a record a message", count / took, used / count)


def cost(name: str, rate: float, cpu_s: float) -> None:
    """A line of the table."""
    out.write(f"{name:38}{rate:12.0f}{1e6 * cpu_s:20.1f}\n")
    out.flush()


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
    options = parser.parse_args()
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

#!/usr/bin/env python3
"""A lost carrier and a blackhole with Wi-Fi and 4G, in network namespaces: the hub beside plain paho, in one run.

Both are processes in the hub's namespace with the same two links, the same broker and the same load, ten messages a
second. paho is used as its documentation has it: `loop_start`, `reconnect_delay_set`, a keep-alive of 10 s; nothing
binds it, so the kernel's routes decide (Wi-Fi with the better metric). A network manager withdraws the route of a link
without a carrier; that is measured too. The kernel tells of carriers up to a second late, depending on what it told just
before: here always as late as it can. What is measured is the time from the cut to the first acknowledgement of
something sent after it.
"""

import argparse
import json
import ssl
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion

from tests.gateway.uplink.links.home import hub_at_work
from tests.gateway.uplink.links.world import BROKER_HOST, TLS_PORT, World, missing, world

WATCHED_S = 30.0
"""Who has not delivered by then is not waited for."""
PERIOD_S = 0.1
CARRIER, WITHDRAWN, BLACKHOLE = "carrier lost", "the same, route withdrawn", "blackhole, link up"


def peer(ca: str, certificate: str, key: str) -> None:
    """Plain paho: a publish ten times a second; prints the time of each acknowledgement with the time of its publish."""
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="peer", protocol=paho.MQTTv5)
    context = ssl.create_default_context(cafile=ca)
    context.load_cert_chain(certificate, key)
    client.tls_set_context(context)
    client.reconnect_delay_set(min_delay=1, max_delay=2)
    sent: dict[int, float] = {}

    def on_publish(_client: Any, _data: Any, mid: int, _reason: Any, _properties: Any) -> None:
        sys.stdout.write(json.dumps([sent.get(mid, 0.0), time.monotonic()]) + "\n")
        sys.stdout.flush()

    client.on_publish = on_publish
    client.connect(BROKER_HOST, TLS_PORT, keepalive=10)
    client.loop_start()
    while True:
        info = client.publish("bench/peer", b"x" * 200, qos=1)
        sent[info.mid] = time.monotonic()
        time.sleep(PERIOD_S)


def acknowledged_after(log: Path, since: float) -> float | None:
    """When something that was published after `since` was acknowledged."""
    for line in log.read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            sent, answered = json.loads(line)
            if sent > since:
                return float(answered) - since
    return None


def measure_peer(fault: str) -> float | None:
    """One cut while plain paho publishes."""
    with tempfile.TemporaryDirectory(prefix="wl-links-") as name, world(Path(name)) as home:
        certificate, key = home.authority.issue("peer")
        command = [sys.executable, "-m", "tools.bench_links", "--peer"]
        command += [str(home.authority.file), str(certificate), str(key)]
        with home.broker(), home.program(home.hub, *command, log="peer.log"):
            home.until_says("peer.log", "]\n")
            time.sleep(1)
            home.hold_back_news()
            since = time.monotonic()
            cut(home, fault)
            return wait(lambda: acknowledged_after(home.folder / "peer.log", since))


def measure_hub(fault: str) -> float | None:
    """One cut while `wardlink uplink` delivers."""
    with (
        tempfile.TemporaryDirectory(prefix="wl-links-") as name,
        hub_at_work(Path(name)) as (home, hub, writer),
    ):
        home.hold_back_news()
        since, beyond = time.monotonic(), writer.count + 1
        cut(home, fault)
        delivered = hub.delivered("4g", beyond)
        return wait(lambda: time.monotonic() - since if delivered(hub.state()) else None)


def cut(home: World, fault: str) -> None:
    """The Wi-Fi's cable, or what comes over it."""
    if fault == BLACKHOLE:
        home.blackhole("w0", on=True)
    else:
        home.carrier("w0", on=False)
    if fault == WITHDRAWN:
        home.withdraw_route()


def wait(look: Callable[[], float | None]) -> float | None:
    """What it says, at the latest after `WATCHED_S`."""
    end = time.monotonic() + WATCHED_S
    while (found := look()) is None and time.monotonic() < end:
        time.sleep(0.01)
    return found


def main() -> None:
    """Prints a table, or why there is none."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer", nargs=3, metavar=("CA", "CERT", "KEY"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        peer(*arguments.peer)
    reason = missing()
    if reason is not None:
        sys.stdout.write(f"two links: not measured: {reason}\n")
        return
    sys.stdout.write("\nTwo links: seconds from the cut to the next acknowledgement\n")
    sys.stdout.write(f"{'':28}{'wardlink uplink':>18}{'plain paho':>18}\n")
    for fault in (CARRIER, WITHDRAWN, BLACKHOLE):
        times = [measure_hub(fault), measure_peer(fault)]
        cells = (f"over {WATCHED_S:.0f}" if t is None else f"{t:.2f}" for t in times)
        sys.stdout.write(f"{fault:28}" + "".join(f"{cell:>18}" for cell in cells) + "\n")


if __name__ == "__main__":
    main()

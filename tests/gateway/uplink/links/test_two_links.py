"""A hub with Wi-Fi and 4G in network namespaces, as real processes: what is cut, and how soon the other link carries."""

import base64
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

import pytest

from gateway import status
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import KEY_FILE, HubKey
from tests.gateway.journal.builders import vital
from tests.gateway.uplink.bench import entries_of, read_lines
from tests.gateway.uplink.links.world import (
    BROKER_HOST,
    PLAIN_PORT,
    TLS_PORT,
    World,
    missing,
    world,
)

REASON = missing()
pytestmark = [
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
    pytest.mark.timeout(180),
]
HUB = """
[hub]
id = "hub-1"
tenant = "ward"
state_dir = "hub"
runtime_dir = "run"
mode = "test"
[broker]
host = "{host}"
port = {port}
[broker.tls]
ca_file = "{ca}"
certificate_file = "{certificate}"
key_file = "{key}"
[[link]]
name = "wifi"
interface = "wlan0"
metered = false
[[link]]
name = "4g"
interface = "wwan0"
metered = true
"""
RECEIVER = """
[receiver]
id = "r1"
tenant = "ward"
state_dir = "receiver"
output_file = "lines.jsonl"
[broker]
host = "127.0.0.1"
port = {port}
[hubs]
hub-1 = "{key}"
"""


class Writer:
    """The half with the devices: ten commits a second, each durable, from a thread of the test."""

    def __init__(self, folder: Path, key: HubKey) -> None:
        self._journal = Journal.open(
            folder / "journal", hub="hub-1", clock=SystemClock(), hub_key=key,
            max_bytes=64 << 20, segment_bytes=1 << 20,
        )  # fmt: skip
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.count = 0

    def _write(self) -> None:
        while not self._stop.wait(0.1):
            self._journal.append("hr", vital(self.count + 1))
            self._journal.commit()
            self.count += 1

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._journal.close()


def report(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


class Hub:
    """What `wardlink status` says of the uplink."""

    def __init__(self, folder: Path, home: World) -> None:
        self._socket = folder / "run" / status.UPLINK
        self._home = home

    def until(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> float:
        """Waits for it; returns how long that took, in seconds."""
        began = time.monotonic()
        while True:
            state: dict[str, Any] = {}
            try:
                state = status.fetch(self._socket)
            except status.NoStatus:
                state = {"uplink": None}
            if state["uplink"] and state["links"] and condition(state):
                return time.monotonic() - began
            assert time.monotonic() - began < 40, (
                f"never {what}: {state}\n{self._home.log('uplink.log')}"
            )
            time.sleep(0.01)

    def uses(self, name: str) -> Callable[[dict[str, Any]], bool]:
        return lambda state: (
            [row["name"] for row in state["links"]["links"] if row["in_use"]] == [name]
        )

    def delivered(self, name: str, beyond: int) -> Callable[[dict[str, Any]], bool]:
        """Entries behind `beyond` are acknowledged, and the link in use is this one."""
        return lambda state: (
            self.uses(name)(state) and state["uplink"]["streams"]["vitals"]["acknowledged"] > beyond
        )


@contextmanager
def at_work(folder: Path) -> Iterator[tuple[World, Hub, Writer]]:
    with ExitStack() as stack:
        home = stack.enter_context(world(folder))
        state = folder / "hub"
        state.mkdir()
        key = HubKey.load_or_create(state / KEY_FILE)
        certificate, key_file = home.authority.issue("hub-1")
        hub_config, receiver_config = folder / "hub.toml", folder / "receiver.toml"
        hub_config.write_text(
            HUB.format(host=BROKER_HOST, port=TLS_PORT, ca=home.authority.file, certificate=certificate, key=key_file)
        )  # fmt: skip
        verify_key = base64.b64encode(key.verify_key).decode()
        receiver_config.write_text(RECEIVER.format(port=PLAIN_PORT, key=verify_key))
        stack.enter_context(home.broker())
        stack.enter_context(home.gateway(home.cloud, "receive", receiver_config))
        home.until_says("mosquitto.log", "wardlink-receiver")
        writer = stack.enter_context(Writer(state, key))
        stack.enter_context(home.gateway(home.hub, "uplink", hub_config))
        hub = Hub(folder, home)
        hub.until("delivers over Wi-Fi", hub.delivered("wifi", 5))
        yield home, hub, writer


@pytest.mark.parametrize(("fault", "limit_s"), [("carrier", 1.0), ("blackhole", 5.0)])
def test_the_other_link_carries_on_and_the_better_one_comes_back(
    tmp_path: Path, fault: str, limit_s: float
) -> None:
    with at_work(tmp_path) as (home, hub, writer):
        cut = home.carrier if fault == "carrier" else lambda far, on: home.blackhole(far, on=not on)
        beyond = writer.count + 1  # one may be acknowledged already
        cut("w0", on=False)
        took_s = hub.until("delivers over 4G", hub.delivered("4g", beyond))
        report(f"{fault}: acknowledged over the other link after {took_s:.2f} s")
        assert took_s < limit_s
        time.sleep(0.5)
        cut("w0", on=True)
        back_s = hub.until("is back on Wi-Fi", hub.delivered("wifi", writer.count))
        report(f"{fault}: back on the better link {back_s:.2f} s after it worked again")
        writer.stop()
        hub.until("has delivered all", hub.delivered("wifi", writer.count - 1))
        found = received(tmp_path / "lines.jsonl", writer.count)
        assert entries_of(found)[Stream.VITALS] == list(range(1, writer.count + 1))
        kinds = {"entry", "status", "heartbeat", "clock"}
        assert {line["type"] for line in found} == kinds, "no gap"
        states = [line["state"] for line in found if line["type"] == "status"]
        assert states.count("offline") == 1, "the cut is told, the move back is none"
        assert states[-1] == "online"
        for address in ("10.1.0.2", "10.2.0.2"):
            assert f"New connection from {address}" in home.log("mosquitto.log")


def received(lines: Path, count: int) -> list[dict[str, Any]]:
    """What the receiver wrote, once it has so many vitals."""
    end = time.monotonic() + 40
    while len(entries_of(found := read_lines(lines))[Stream.VITALS]) < count:
        assert time.monotonic() < end, json.dumps(found[-3:])
        time.sleep(0.05)
    return found

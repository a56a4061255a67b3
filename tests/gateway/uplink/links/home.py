"""A hub with two links as real processes in a home of network namespaces, and what it says of itself."""

import base64
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from gateway import status
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import KEY_FILE, HubKey
from tests.gateway.journal.builders import alarm, vital, wave
from tests.gateway.uplink.links.world import BROKER_HOST, PLAIN_PORT, TLS_PORT, World, world

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
        self.alarm = threading.Event()
        """Set it for one alarm."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._write)
        self.count = 0

    def _write(self) -> None:
        while not self._stop.wait(0.1):
            self._journal.append("hr", vital(self.count + 1))
            self._journal.append("ecg", wave(self.count + 1))
            if self.alarm.is_set():
                self._journal.append("ecg", alarm(self.count + 1))
                self.alarm.clear()
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


class Hub:
    """What `wardlink status` says of the uplink."""

    def __init__(self, folder: Path, home: World) -> None:
        self._socket = folder / "run" / status.UPLINK
        self._home = home

    def state(self) -> dict[str, Any]:
        """Nothing while it does not answer, or has no journal yet."""
        try:
            state = status.fetch(self._socket)
        except status.NoStatus:
            return {}
        return state if state["uplink"] and state["links"] else {}

    def until(self, what: str, condition: Callable[[dict[str, Any]], bool]) -> float:
        """Waits for it; returns how long that took, in seconds."""
        began = time.monotonic()
        while not condition(state := self.state()):
            waited_s = time.monotonic() - began
            assert waited_s < 40, f"never {what}: {state}\n{self._home.log('uplink.log')}"
            time.sleep(0.01)
        return time.monotonic() - began

    def uses(self, name: str) -> Callable[[dict[str, Any]], bool]:
        """It is the link in use."""
        return lambda state: (
            [row["name"] for row in state.get("links", {}).get("links", ()) if row["in_use"]]
            == [name]
        )

    def delivered(self, name: str, beyond: int) -> Callable[[dict[str, Any]], bool]:
        """Entries behind `beyond` are acknowledged, and the link in use is this one."""
        return lambda state: self.uses(name)(state) and acknowledged(state, Stream.VITALS) > beyond


def acknowledged(state: dict[str, Any], stream: Stream) -> int:
    """Up to which entry everything of a stream is where it has to be."""
    return int(state["uplink"]["streams"][stream]["acknowledged"])


@contextmanager
def hub_at_work(folder: Path, *, wifi: bool = True) -> Iterator[tuple[World, Hub, Writer]]:
    """A home in which a hub delivers to a broker and a receiver, over Wi-Fi or without it; ten commits a second."""
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
        home.carrier("w0", on=wifi)
        stack.enter_context(home.broker())
        stack.enter_context(home.gateway(home.cloud, "receive", receiver_config))
        home.until_says("mosquitto.log", "wardlink-receiver")
        writer = stack.enter_context(Writer(state, key))
        stack.enter_context(home.gateway(home.hub, "uplink", hub_config))
        hub = Hub(folder, home)
        hub.until("delivers", hub.delivered("wifi" if wifi else "4g", 5))
        yield home, hub, writer

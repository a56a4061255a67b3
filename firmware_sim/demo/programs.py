"""The programs of the demo: hub, receiver and broker, each a process of its own that can be killed and restarted."""

import asyncio
import base64
import contextlib
import json
import os
import re
import shutil
import socket
import sys
from pathlib import Path

CONFIG = Path(__file__).parents[2] / "config"
WARDLINK = (sys.executable, "-m", "gateway")
STOP_S = 15.0
PORT_LINE = re.compile(r"^port = 18830$", re.MULTILINE)
BACKOFF_LINE = re.compile(r"^backoff_most_s = 120$", re.MULTILINE)

BROKER = """
id = 0
[router]
id = 0
max_connections = 64
max_outgoing_packet_count = 200
max_segment_size = 104857600
max_segment_count = 10
[v5.1]
name = "v5"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1
[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 262144
max_inflight_count = 100
dynamic_filters = true
"""
"""rumqttd by itself speaks 3.1.1 and listens on every address; with this it is MQTT 5 on loopback alone."""


class ProgramError(Exception):
    """A program of the demo did not do what it had to."""


def free_port(wanted: int) -> int:
    """The wanted port, or another when somebody has it."""
    for port in (wanted, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
            return int(probe.getsockname()[1])
    raise ProgramError("no free port on 127.0.0.1")


def write_config(name: str, folder: Path, port: int) -> Path:
    """A copy of the example; a relative path in it starts in `folder`. Only a port that is taken is changed."""
    text = (CONFIG / f"{name}.example.toml").read_text(encoding="utf-8")
    target = folder / f"{name}.toml"
    target.write_text(PORT_LINE.sub(f"port = {port}", text), encoding="utf-8")
    return target


def hurry(config: Path) -> None:
    """After an outage it comes back within seconds: who watches one hub does not wait as a thousand have to."""
    text = config.read_text(encoding="utf-8")
    config.write_text(BACKOFF_LINE.sub("backoff_most_s = 2", text), encoding="utf-8")


def write_key(config: Path, name: str, verify_key: str) -> None:
    """Tells one end the other's verify key."""
    text = config.read_text(encoding="utf-8")
    line = re.compile(rf'^{name} = ".*"$', re.MULTILINE)
    config.write_text(line.sub(f'{name} = "{verify_key}"', text), encoding="utf-8")


async def seal(config: Path, receiving: Path) -> None:
    """Makes the clinic's key at the receiver, and has the hub seal its journal for it."""
    _set(receiving, "clinic_key_file", "clinic.key")
    public = config.parent / "clinic.pub"
    public.write_text(await _key(receiving, "--clinic"), encoding="ascii")
    _set(config, "clinic_key_file", public.name)
    _set(config, "readers", "clinic")


def _set(config: Path, key: str, value: str) -> None:
    """Gives a key of the example another value; one that is commented out counts from now on."""
    text = config.read_text(encoding="utf-8")
    changed, count = re.subn(
        rf'^(?:# )?{key} = ".*"$', f'{key} = "{value}"', text, flags=re.MULTILINE
    )
    if count != 1:
        raise ProgramError(f"{config}: got {count} lines for {key}, expected one")
    config.write_text(changed, encoding="utf-8")


class Program:
    """One program, its log in a file."""

    def __init__(
        self, name: str, command: tuple[str, ...], folder: Path, **environment: str
    ) -> None:
        self.name = name
        self.log = folder / f"{name}.log"
        self._command = command
        self._folder = folder
        self._environment = {**os.environ, **environment}
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Starts it (again)."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                cwd=self._folder,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C in the terminal is for the demo, which ends them in order
            )

    @property
    def running(self) -> bool:
        """Whether it has been started and has not ended."""
        return self._process is not None and self._process.returncode is None

    async def kill(self) -> None:
        """SIGKILL: no last words."""
        if self._process is not None and self.running:
            self._process.kill()
            await self._process.wait()

    async def stop(self) -> int:
        """SIGTERM, and its exit status; killed when it takes too long."""
        if self._process is None:
            return 0
        if self.running:
            self._process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                return await self._process.wait()
        except TimeoutError:
            await self.kill()
            return -9

    def said(self, words: str) -> int:
        """How often its log says so."""
        with contextlib.suppress(FileNotFoundError):
            return self.log.read_text(encoding="utf-8", errors="replace").count(words)
        return 0

    def check(self) -> None:
        """Raises ProgramError with the end of its log when it has ended by itself."""
        if self._process is not None and not self.running:
            raise ProgramError(
                f"{self.name} ended with status {self._process.returncode}:\n{self.tail()}"
            )

    def tail(self, lines: int = 15) -> str:
        """The last lines of its log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(
                self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
            )
        return ""


async def verify_key(config: Path, *options: str) -> str:
    """The verify key that `wardlink key` prints."""
    key = await _key(config, *options)
    if len(base64.b64decode(key)) != 32:
        raise ProgramError(f"wardlink key: got {key!r}, expected 32 bytes in base64")
    return key


async def _key(config: Path, *options: str) -> str:
    """What `wardlink key` prints."""
    process = await asyncio.create_subprocess_exec(
        *WARDLINK, "key", "--config", str(config), *options, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    if process.returncode != 0:
        raise ProgramError(f"wardlink key: got status {process.returncode}, expected 0")
    return out.decode("ascii").strip()


def broker(folder: Path, port: int) -> Program:
    """The embedded broker of the `iotcore` wheel."""
    config = folder / "rumqttd.toml"
    config.write_text(BROKER.format(port=port), encoding="utf-8")
    code = (
        "import logging, iotcore; logging.getLogger('rumqttd').setLevel(logging.CRITICAL);"
        f" iotcore.IotCoreBroker(config_path={str(config)!r}).run_forever()"
    )
    return Program("broker", (sys.executable, "-c", code), folder)


def hub(config: Path, bus_address: str, *, halves: bool) -> tuple[Program, ...]:
    """The hub, on the private bus: one process, or one for each half, in the order in which they are to be stopped."""
    return tuple(
        Program(
            "hub" if name == "run" else name,
            (*WARDLINK, name, "--config", str(config)),
            config.parent,
            DBUS_SYSTEM_BUS_ADDRESS=bus_address,
        )
        for name in (("acquire", "uplink") if halves else ("run",))
    )


def receiver(config: Path) -> Program:
    """The receiver."""
    return Program("receiver", (*WARDLINK, "receive", "--config", str(config)), config.parent)


async def status(folder: Path) -> dict[str, object] | None:
    """What `wardlink status --json` says, read from the hub's sockets; None unless both halves answer."""
    found: dict[str, object] = {}
    for name in ("acquire", "uplink"):
        half = await _ask(folder / "run" / f"{name}.sock")
        if half is None or not half.get(name, True):
            return None
        found |= half
    return found


async def _ask(path: Path) -> dict[str, object] | None:
    try:
        reader, writer = await asyncio.open_unix_connection(str(path))
        async with asyncio.timeout(2.0):
            data = await reader.read()
        writer.close()
    except (OSError, TimeoutError):
        return None
    try:
        answer = json.loads(data)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None


def missing() -> list[str]:
    """Debian packages that the demo needs and this machine lacks."""
    return [] if shutil.which("dbus-daemon") else ["dbus-daemon"]

"""An operator asks a real hub in two processes over a real broker, and the receiver learns of it."""

import asyncio
import base64
import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from paho.mqtt import publish as paho_publish
from paho.mqtt import subscribe as paho_subscribe
from paho.mqtt.enums import MQTTProtocolVersion

from gateway import status
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.keys import KEY_FILE, HubKey
from gateway.operator.request import Operator, RequestError
from gateway.operator.settings import load_operator
from gateway.uplink.command import Asked, Command, Logging, LogLevel, StatusReport, StoredRange
from gateway.uplink.signature import signed
from tests.gateway import schemas
from tests.gateway.uplink.bench import Mosquitto, make_receiver, mosquitto, read_lines, running

ROOT = Path(__file__).parents[2]
LIMIT_S = 120.0
ROUNDS = int(os.environ.get("WARDLINK_KILLS", "100")) // 100
pytestmark = [pytest.mark.system, pytest.mark.timeout(180 + 60 * ROUNDS)]
TENANT, HUB = "ward", "hub-1"

SYNCHRONISED = """
import sys
from dataclasses import replace
from gateway import cli, clock

read = clock.SystemClock.read
clock.SystemClock.read = lambda self: replace(read(self), state=clock.ClockState.SYNCHRONISED, error_ns=1_000_000)
sys.exit(cli.main(sys.argv[1:]))
"""
"""The machine of a test may have no time server. This is the real program on a clock that says it is kept."""

CONFIG = """
[hub]
id = "hub-1"
tenant = "ward"
state_dir = "state"
runtime_dir = "run"
mode = "test"
[broker]
host = "127.0.0.1"
port = {port}
[[device]]
id = "board"
driver = "healthypi-v3"
port = "tty-none"
[commands.operators.ward-1]
verify_key = "{ward}"
[commands.operators.guest]
verify_key = "{guest}"
allow = ["status"]
"""
OPERATOR = """
[operator]
id = "{id}"
tenant = "ward"
state_dir = "{id}"
[broker]
host = "127.0.0.1"
port = {port}
[hubs]
hub-1 = "{hub}"
"""


def wardlink(*arguments: str | Path, code: str = "") -> "subprocess.Popen[str]":
    command = ["-c", code] if code else ["-m", "gateway"]
    return subprocess.Popen(
        [sys.executable, *command, *map(str, arguments)],
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def until_answers(socket: Path, child: "subprocess.Popen[str]") -> None:
    end = time.monotonic() + LIMIT_S
    while True:
        try:
            found = status.fetch(socket)
        except status.NoStatus:
            assert child.poll() is None, child.stderr and child.stderr.read()
        else:
            if "devices" in found or (found["uplink"] or {}).get("state") == "connected":  # type: ignore[attr-defined]
                return
        assert time.monotonic() < end, f"{socket}: not in time"
        time.sleep(0.05)


class World:
    """A broker, the keys, the configuration, and the hub's halves."""

    def __init__(self, folder: Path, server: Mosquitto) -> None:
        self.folder, self.server = folder, server
        self.keys = {}
        for name in ("state", "ward-1", "guest"):
            (folder / name).mkdir()
            self.keys[name] = HubKey.load_or_create(folder / name / KEY_FILE)
        public = {n: base64.b64encode(k.verify_key).decode() for n, k in self.keys.items()}
        self.hub_key = public["state"]
        self.config = folder / "wardlink.toml"
        self.config.write_text(
            CONFIG.format(port=server.port, ward=public["ward-1"], guest=public["guest"])
        )
        for name in ("ward-1", "guest"):
            text = OPERATOR.format(id=name, port=server.port, hub=self.hub_key)
            (folder / f"{name}.toml").write_text(text)
        self.children: dict[str, subprocess.Popen[str]] = {}

    def start(self, half: str, code: str = "") -> None:
        child = wardlink(half, "--config", self.config, code=code)
        self.children[half] = child
        name = status.ACQUIRE if half == "acquire" else status.UPLINK
        until_answers(self.folder / "run" / name, child)

    def kill(self, half: str) -> None:
        child = self.children.pop(half)
        child.kill()
        child.communicate(timeout=20)

    def stop(self) -> None:
        for half in list(self.children):
            child = self.children.pop(half)
            child.terminate()
            child.communicate(timeout=30)
            assert child.returncode == 0, half

    async def ask(self, operator: str, asked: Asked) -> list[tuple[str, str | None]]:
        """Every answer, and why where it is none."""
        config = load_operator(self.folder / f"{operator}.toml")
        said: list[tuple[str, str | None]] = []
        try:
            await Operator(config, self.keys[operator].sign, SystemClock()).ask(
                HUB, asked, lambda response: said.append((response.answer, response.reason))
            )
        except RequestError as error:
            said.append(("", error.reason))
        return said

    async def run_request(self, operator: str, *words: str) -> tuple[int, str, str]:
        config = self.folder / f"{operator}.toml"
        child = wardlink("request", "--config", config, *words)
        out, err = await asyncio.to_thread(child.communicate, timeout=100)
        assert "Traceback" not in err, err
        return child.returncode, out, err

    async def send(self, payload: bytes, operator: str = "ward-1") -> None:
        await asyncio.to_thread(
            paho_publish.single, Command.topic(TENANT, HUB, operator), payload, qos=1,
            hostname="127.0.0.1", port=self.server.port, protocol=MQTTProtocolVersion.MQTTv5,
        )  # fmt: skip

    def audited(self) -> list[tuple[str, str]]:
        """What the receiver has of commands: the outcome, and who and what."""
        return [
            (line["record"]["reason"], line["record"]["text"].split(";")[0])
            for line in read_lines(self.folder / "lines.jsonl")
            if line["type"] == "entry" and line["record"].get("kind") == "command"
        ]

    async def until_audited(self, count: int) -> list[tuple[str, str]]:
        end = time.monotonic() + LIMIT_S
        while len(self.audited()) < count:
            assert time.monotonic() < end, f"{self.audited()}: expected {count}"
            await asyncio.sleep(0.05)
        return self.audited()


@contextlib.contextmanager
def world(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    with mosquitto(folder) as server:
        made = World(folder, server)
        monkeypatch.setattr("tests.gateway.uplink.bench.PUBLIC", made.hub_key)
        try:
            yield made
        finally:
            for half in list(made.children):
                made.kill(half)


DONE = [("accepted", None), ("completed", None)]
DEBUG = Logging(LogLevel.DEBUG, 1)


def test_an_operator_asks_and_the_receiver_learns_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main(w: World) -> None:
        async with running(make_receiver(tmp_path, w.server.broker).run()):
            code, out, _ = await w.run_request("ward-1", "--json", HUB, "status")
            said = [json.loads(line) for line in out.splitlines()]
            assert [row["answer"] for row in said] == ["accepted", "completed"]
            found = said[1]["details"]["status"]
            assert (code, found["silent"], found["devices"][0]["id"]) == (0, {}, "board")
            words = HUB, "live-waveform", "--device", "belt", "--minutes", "5"
            code, out, _ = await w.run_request("ward-1", *words)
            assert (code, out) == (
                1,
                "hub-1 live-waveform: refused (unknown_device): device: got 'belt', expected one of board\n",
            )
            now_ns = SystemClock().read().wall_ns
            span = StoredRange(Stream.AUDIT, now_ns - 3600 * 10**9, now_ns)
            assert await w.ask("ward-1", span) == DONE
            assert await w.ask("guest", DEBUG) == [("refused", "not_allowed")]
            assert await w.ask("guest", StatusReport()) == DONE
            await hostile(w)
            expected = [
                ("accepted", "ward-1: status"),
                ("unknown_device", "ward-1: live-waveform"),
                ("accepted", "ward-1: range"),
                ("not_allowed", "guest: log-level"),
                ("accepted", "guest: status"),
                ("accepted", "ward-1: status"),
                ("replayed", "ward-1: status"),
                ("bad_signature", "ward-1: unknown"),
                ("unknown_sender", "stranger: unknown"),
            ]
            assert await w.until_audited(len(expected)) == expected
            for _ in range(ROUNDS):
                # Asked while nobody writes the journal; then the other half is killed as well.
                w.kill("acquire")
                assert await w.ask("guest", DEBUG) == [("refused", "not_allowed")]
                assert (
                    await w.ask("ward-1", StatusReport()) == DONE
                )  # the other half is named as silent
                w.kill("uplink")
                await asyncio.to_thread(w.start, "acquire")
                await asyncio.to_thread(w.start, "uplink", SYNCHRONISED)
                expected += [("not_allowed", "guest: log-level"), ("accepted", "ward-1: status")]
                assert await w.until_audited(len(expected)) == expected
            await asyncio.to_thread(w.stop)
            assert w.audited() == expected
            assert await w.ask("ward-1", StatusReport()) == [("", "offline")]
            code, _, err = await w.run_request("ward-1", "hub-2", "status")
            assert (code, err) == (
                1,
                "wardlink: unknown_hub: hub: got 'hub-2', expected one with a verify key in [hubs]: hub-1\n",
            )

    with world(tmp_path, monkeypatch) as w, schemas.tap(w.server.port) as heard:
        w.start("acquire")
        w.start("uplink", SYNCHRONISED)
        asyncio.run(main(w))
    # What `hostile` changed has the form of a command but for its kind.
    assert [f for f in schemas.heard_faults(heard) if "stetus" not in f] == []
    said = {"status", "heartbeat", "alarm", "audit", "command", "response"}
    assert schemas.channels_of(heard) == said
    lines = read_lines(tmp_path / "lines.jsonl")
    assert [fault for line in lines for fault in schemas.faults(line, schemas.LINES)] == []


async def hostile(w: World) -> None:
    """A command of its own, the same again, changed, and of nobody."""
    shown = await asyncio.to_thread(
        paho_subscribe.simple, f"wardlink/1/{TENANT}/{HUB}/status",
        hostname="127.0.0.1", port=w.server.port, protocol=MQTTProtocolVersion.MQTTv5,
    )  # fmt: skip
    epoch = json.loads(shown.payload)["epoch"]
    now_ns = SystemClock().read().wall_ns
    command = Command(
        "ab" * 16, HUB, epoch, "ward-1", now_ns, now_ns + 60 * 10**9, "status", StatusReport()
    )
    topic = Command.topic(TENANT, HUB, "ward-1")
    payload = signed(topic, command.encode(), w.keys["ward-1"].sign)
    await w.send(payload)
    await w.send(payload)
    await w.send(payload.replace(b'"status"', b'"stetus"'))
    await w.send(payload, "stranger")

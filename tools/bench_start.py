#!/usr/bin/env python3
"""What a process with all kernels takes and how soon it gives its first result, for each way of running them.

And what follows from it: how long a hub that was killed is deaf. Each row is the median of several starts, of the two
ways in turns; what is counted is from the start of the process to the first result, or to the first record of a
simulated board. Ahead of time runs from the wheel of this tree, just in time from its sources.
"""

import argparse
import asyncio
import json
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from firmware_sim.line import PtyLine
from firmware_sim.openview_board import LAYOUTS, OpenViewBoard
from firmware_sim.patient import Patient, Plan
from gateway import status
from gateway.view import table
from tools.wheel import ROOT, wheel

RUNS = 5
PROCESSES = (
    "process", "kernels", "resident MB", "private MB", "first result s", "processor s",
    "ns/sample", "in packets", "under PR_SET_MDWE",
)  # fmt: skip
HUBS = (
    "wardlink acquire after a kill, kernels", "first record s", "worst", "processor s", "resident MB",
)  # fmt: skip
ALL_S = 60.0
NOTHING = "kernels = 0; implementation = ''"
NO_SPEED = "speeds = (0, 0)"
NUMPY = f"import numpy; {NOTHING}"
KERNELS = """
import numpy as np
from gateway.signal import jit
from gateway.signal.ecg import EcgStream
kernels, implementation = len(jit.all_kernels()), jit.IMPLEMENTATION
EcgStream(250.0).process(np.zeros(25))
"""
SPEED = """
import timeit
x = np.random.default_rng(1).normal(0, 100, 36_000)
stream = EcgStream(360.0)
whole = lambda: stream.process(x)
packets = lambda: [stream.process(x[at:at + 36]) for at in range(0, x.size, 36)]
speeds = [min(timeit.repeat(way, number=1, repeat=9)) / x.size * 1e9 for way in (whole, packets)]
"""
MEASURE = """
import time
first_result_ns = time.monotonic_ns()
memory = open("/proc/self/smaps_rollup").read().split("kB")
sizes = {row.split()[-2]: int(row.split()[-1]) for row in memory if ":" in row}
cpu_s = time.process_time()
import json
"""
PRINT = """
print(json.dumps([implementation, kernels, sizes["Rss:"], sizes["Private_Dirty:"], first_result_ns, cpu_s, *speeds]))
"""
MDWE = """
import ctypes, sys
if ctypes.CDLL(None).prctl(65, 1, 0, 0, 0):
    sys.exit("no PR_SET_MDWE")
"""
CONFIG = """
[hub]
id = "hub-1"
state_dir = "state"
runtime_dir = "run"
mode = "test"
[broker]
host = "127.0.0.1"
port = 1
[[device]]
id = "board"
driver = "healthypi-v3"
port = "tty-board"
subject = "p-1"
uv_per_count = 12.309
lead = "II"
"""


def _environment() -> dict[str, str]:
    """With bytecode kept, as an installation has it: compiling sources would count, in time and in memory."""
    kept = {"PYTHONPYCACHEPREFIX": str(ROOT / "build" / "bytecode"), "PYTHONDONTWRITEBYTECODE": ""}
    return {**os.environ, **kept}


@dataclass(frozen=True, slots=True)
class Probe:
    """One process after its first result."""

    implementation: str
    kernels: int
    resident_kb: int
    private_kb: int
    start_s: float
    cpu_s: float
    whole_ns: float
    packets_ns: float


def probe(place: Path, code: str = KERNELS, speed: str = NO_SPEED, **environment: str) -> Probe:
    """Starts a process with the hub's packages from `place`, which loads all kernels and computes once.

    Raises:
        RuntimeError: it failed; the text is what it said last.
    """
    began_ns = time.monotonic_ns()
    done = subprocess.run(  # noqa: S603 - ourselves
        [sys.executable, "-c", code + MEASURE + speed + PRINT],
        cwd=place, env={**_environment(), **environment}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    implementation, kernels, resident_kb, private_kb, first_ns, *rest = json.loads(done.stdout)
    return Probe(
        implementation, kernels, resident_kb, private_kb, (first_ns - began_ns) / 1e9, *rest
    )


@dataclass(slots=True)
class Row:
    """One way of starting, and what its runs measured."""

    name: str
    place: Path
    code: str = KERNELS
    cold: bool = False
    runs: list[Probe] = field(default_factory=list)

    def run(self) -> None:
        """One more run; a cold one has an empty cache of machine code."""
        with tempfile.TemporaryDirectory() as folder:
            cache = {"NUMBA_CACHE_DIR": folder} if self.cold else {}
            speed = SPEED if self.code == KERNELS else NO_SPEED
            self.runs.append(probe(self.place, self.code, speed, **cache))

    def cells(self) -> tuple[str, ...]:
        """As the table shows it."""

        def median(name: str) -> float:
            return float(statistics.median(getattr(run, name) for run in self.runs))

        return (
            self.name,
            str(self.runs[0].kernels or ""),
            f"{median('resident_kb') / 1024:.1f}",
            f"{median('private_kb') / 1024:.1f}",
            f"{median('start_s'):.2f}",
            f"{median('cpu_s'):.2f}",
            *(
                [f"{median('whole_ns'):.1f}", f"{median('packets_ns'):.1f}", self._mdwe()]
                if self.runs[0].kernels
                else [""] * 3
            ),
        )

    def _mdwe(self) -> str:
        try:
            probe(self.place, MDWE + self.code)
        except RuntimeError as error:
            return str(error).partition(". ")[0]
        return "runs"


def processes(runs: int = RUNS) -> list[Row]:
    """Measures every way of starting, one after the other, again and again."""
    ahead = wheel().unpacked
    rows = [
        Row("Python", ahead, NOTHING),
        Row("+ numpy", ahead, NUMPY),
        Row("+ kernels, ahead of time", ahead),
        Row("+ kernels, just in time, cached", ROOT),
        Row("+ kernels, just in time, no cache", ROOT, cold=True),
    ]
    for row in rows:
        if not row.cold:
            probe(row.place, row.code)  # keeps bytecode and machine code
    for _ in range(runs):
        for row in rows:
            if not (row.cold and row.runs):
                row.run()
    return rows


@dataclass(frozen=True, slots=True)
class Start:
    """One start of a hub, until its first records were taken in."""

    kernels: str
    first_record_s: float
    cpu_s: float
    resident_kb: int


async def starts(
    place: Path, folder: Path, runs: int, *, prelude: str = "", records: int = 1
) -> list[Start]:
    """Starts `wardlink acquire` beside a streaming board, and kills it when its first `records` are taken in.

    Raises:
        RuntimeError: they did not come; the text is the hub's log.
    """
    (folder / "wardlink.toml").write_text(CONFIG, encoding="utf-8")
    layout = LAYOUTS["healthypi-v3"]
    board = OpenViewBoard(layout, Patient(Plan(), layout.rate_hz), PtyLine(folder / "tty-board"))
    streaming = asyncio.create_task(board.run())
    code = f"{prelude}\nimport sys; from gateway.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "acquire", "--config", str(folder / "wardlink.toml")]
    taken = []
    try:
        for _ in range(runs):
            began = time.monotonic()
            with (folder / "log").open("wb") as log:
                hub = await asyncio.create_subprocess_exec(
                    *command, cwd=place, env=_environment(), stderr=log
                )
            try:
                kernels = await _records(folder / "run" / status.ACQUIRE, records, hub)
                taken.append(_measured(hub.pid, kernels, time.monotonic() - began))
            except TimeoutError as error:
                raise RuntimeError((folder / "log").read_text(encoding="utf-8")) from error
            finally:
                if hub.returncode is None:
                    hub.kill()
                await hub.wait()
    finally:
        streaming.cancel()
        board.line.close()
    return taken


async def _records(socket: Path, records: int, hub: asyncio.subprocess.Process) -> str:
    """Waits for them, and returns which kernels run."""
    end = time.monotonic() + ALL_S
    while hub.returncode is None and time.monotonic() < end:
        try:
            state: Any = await asyncio.to_thread(status.fetch, socket)
        except status.NoStatus:
            state = {"devices": []}
        if any(device["counters"]["records"] >= records for device in state["devices"]):
            return str(state["kernels"])
        await asyncio.sleep(0.01)
    raise TimeoutError


def _measured(pid: int, kernels: str, first_record_s: float) -> Start:
    proc = Path(f"/proc/{pid}")
    ticks = (proc / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[11:13]
    (size,) = re.findall(
        r"^VmRSS:\s+(\d+)", (proc / "status").read_text(encoding="utf-8"), re.MULTILINE
    )
    cpu_s = sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")
    return Start(kernels, first_record_s, cpu_s, int(size))


def hub_rows(runs: int) -> Iterable[tuple[str, ...]]:
    """The hub's rows, for both ways."""
    for place in (wheel().unpacked, ROOT):
        with tempfile.TemporaryDirectory() as folder:
            taken = asyncio.run(starts(place, Path(folder), runs + 1))[1:]
        yield (
            taken[0].kernels,
            f"{statistics.median(start.first_record_s for start in taken):.2f}",
            f"{max(start.first_record_s for start in taken):.2f}",
            f"{statistics.median(start.cpu_s for start in taken):.2f}",
            f"{statistics.median(start.resident_kb for start in taken) / 1024:.1f}",
        )


def main() -> int:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS, help=f"of each row (default: {RUNS})")
    runs = parser.parse_args().runs
    made = wheel()
    out = sys.stdout
    out.write(
        f"{platform.machine()}, Python {platform.python_version()}; medians of {runs} starts;"
        " samples: one lead through the QRS detector, in one call and in packets of 100 ms\n"
    )
    out.write(table(PROCESSES, [row.cells() for row in processes(runs)]) + "\n\n")
    out.write(table(HUBS, hub_rows(runs)) + "\n\n")
    out.write(
        f"{made.file.name} {made.file.stat().st_size / 1000:.0f} kB,"
        f" of which machine code unpacked {made.compiled.stat().st_size / 1000:.0f} kB;"
        f" built in {made.build_cpu_s:.0f} s of processor time\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

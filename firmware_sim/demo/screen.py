"""What the terminal shows while the demo runs: the waveform at the far end, vitals, links, queues, and the proof."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from drivers.assigned import Code
from firmware_sim.demo.proof import Proof
from firmware_sim.demo.received import Block, Number, Received

NS_PER_S = 1_000_000_000
SHOWN_S = 6.0
STALE_S = 10.0
DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))
"""The eight dots of a braille character, by row and column."""


@dataclass(frozen=True, slots=True)
class Scene:
    """Everything that one picture shows."""

    title: str
    elapsed_s: float
    seconds: float | None
    note: str
    now_ns: int
    received: Received
    produced: int
    status: Mapping[str, Any] | None


def plot(values: NDArray[np.float64], width: int, height: int) -> str:
    """A line of values as braille characters, oldest left, scaled to fill the height."""
    cells = np.zeros((height, width), np.int64)
    if len(values) > 1:
        columns = np.interp(
            np.linspace(0, len(values) - 1, width * 2), np.arange(len(values)), values
        )
        low, high = float(values.min()), float(values.max())
        rows = np.rint((1 - (columns - low) / max(high - low, 1e-9)) * (height * 4 - 1)).astype(int)
        for x in range(width * 2):
            first, last = sorted((rows[x], rows[max(0, x - 1)]))
            for y in range(first, last + 1):
                cells[y // 4, x // 2] |= DOTS[y % 4][x % 2]
    return "\n".join("".join(chr(0x2800 + cell) for cell in row) for row in cells)


def latest_samples(
    blocks: Mapping[int, Block], channel: str, seconds: float
) -> NDArray[np.float64]:
    """The last seconds of a channel as they were received."""
    recent = sorted(blocks)[-64:]
    parts = [
        blocks[first].channels[channel]
        for first in recent
        if channel in blocks[first].channels and first >= recent[-1] - seconds * NS_PER_S
    ]
    return np.concatenate(parts).astype(np.float64) if parts else np.empty(0)


VITALS = (
    ("heart rate, from the ECG by the hub", "board", Code.ECG_HEART_RATE, True, "/min"),
    ("heart rate, as the strap says", "strap", Code.ECG_HEART_RATE, False, "/min"),
    ("oxygen saturation, as the board says", "board", Code.PULS_OXIM_SAT_O2, False, "%"),
    ("respiration rate, as the board says", "board", Code.RESP_RATE, False, "/min"),
    ("temperature, as the board says", "board", Code.TEMP_BODY, False, "°C"),
)


def _latest(numbers: Sequence[Number], device: str, code: Code, *, by_hub: bool) -> Number | None:
    for number in reversed(numbers):
        if (number.device, number.code, number.by_hub) == (device, code, by_hub):
            return number
    return None


def _vitals(scene: Scene) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    for title, device, code, by_hub, unit in VITALS:
        number = _latest(scene.received.numbers, device, code, by_hub=by_hub)
        if number is None:
            shown = Text("unknown", "dim")
        elif scene.now_ns - number.at_ns > STALE_S * NS_PER_S:
            shown = Text(f"stale: {(scene.now_ns - number.at_ns) / NS_PER_S:.0f} s old", "yellow")
        elif number.value is None:
            shown = Text("unknown", "yellow")
        else:
            shown = Text(f"{number.value:g} {unit}", "bold green")
        table.add_row(title, shown)
    return table


def _links(status: Mapping[str, Any] | None) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 1))
    if status is None:
        table.add_row("hub", Text("no answer", "red"))
        return table
    for device in status["devices"]:
        good = device["state"] == "streaming"
        table.add_row(
            device["id"],
            Text(device["state"], "green" if good else "yellow"),
            device["reason"][:40],
        )
    uplink = status["uplink"]
    good = uplink["state"] == "connected"
    reason = "" if good else (uplink["text"] or "")[:40]
    table.add_row("uplink", Text(uplink["state"], "green" if good else "yellow"), reason)
    return table


def _queues(scene: Scene) -> Table:
    table = Table(box=None, padding=(0, 1))
    for column in ("stream", "journalled", "waiting", "acknowledged", "at the receiver"):
        table.add_column(
            column,
            justify="left" if column == "stream" else "right",
            style="cyan" if column == "stream" else "",
        )
    streams = scene.status["uplink"]["streams"] if scene.status else {}
    counts: dict[str, int] = {}
    for (_, stream), numbers in scene.received.sequences.items():
        counts[stream] = counts.get(stream, 0) + len(numbers)
    for name, stream in streams.items():
        table.add_row(
            name,
            str(stream["high_water"]),
            str(stream["waiting"]),
            str(stream["acknowledged"]),
            str(counts.get(name, 0)),
        )
    return table


def picture(scene: Scene, width: int) -> RenderableType:
    """The whole screen."""
    left = f"{scene.elapsed_s:.0f} s" + (f" of {scene.seconds:.0f} s" if scene.seconds else "")
    head = Text.assemble((scene.title, "bold"), "   ", left, "   ", (scene.note, "yellow"))
    ecg = latest_samples(scene.received.blocks["board"], "ecg", SHOWN_S)
    ppg = -latest_samples(scene.received.blocks["board"], "infrared", SHOWN_S)
    wide = max(20, width - 6)
    samples = sum(
        len(next(iter(b.channels.values()))) for b in scene.received.blocks["board"].values()
    )
    counts = f"samples produced {scene.produced}   received {samples}   gaps named {len(scene.received.gaps)}"
    return Group(
        head,
        Panel(
            Text(plot(ecg, wide, 6), "green"),
            title="ECG, as it reached the receiver",
            title_align="left",
        ),
        Panel(Text(plot(ppg, wide, 3), "red"), title="pleth (infrared)", title_align="left"),
        Panel(_vitals(scene), title="vitals at the receiver", title_align="left"),
        Panel(_links(scene.status), title="links", title_align="left"),
        Panel(
            Group(_queues(scene), Text(counts)), title="journal and delivery", title_align="left"
        ),
    )


def progress(scene: Scene) -> str:
    """One line, where there is no terminal."""
    backlog = scene.status["backlog"] if scene.status else {}
    held = ", ".join(f"{n} {name}" for name, n in backlog.items() if n) or "nothing"
    numbers = len(scene.received.numbers)
    return (
        f"{scene.elapsed_s:5.0f} s  produced {scene.produced} samples  records at the receiver"
        f" {sum(map(len, scene.received.sequences.values()))} ({numbers} numbers)  waiting {held}"
        f"  {scene.note}"
    ).rstrip()


ROWS = (
    ("produced by the device", "produced"),
    ("before the hub listened", "unheard"),
    ("received", "received"),
    ("in gaps that the hub named", "in_gaps"),
    ("missing", "missing"),
    ("repeated", "repeated"),
    ("invented", "invented"),
)


def verdict(proof: Proof) -> RenderableType:
    """The proof as tables, and one sentence."""
    table = Table(title="Proof", title_justify="left", title_style="bold")
    table.add_column("")
    table.add_column("board: samples", justify="right")
    table.add_column("strap: notifications", justify="right")
    for title, name in ROWS:
        cells = [str(getattr(tally, name)) for tally in (proof.board, proof.strap)]
        table.add_row(title, *cells)
    faults = proof.faults()
    lines = [
        _records(proof),
        _beats(proof),
        _delay(proof),
        *_drained(proof),
    ]
    lines.extend(
        f"gap        {gap.device}: {gap.reason}, {_span(gap.from_ns, gap.until_ns)}"
        for gap in proof.gaps
    )
    end = Text("PROVED: nothing is missing, nothing is repeated.", "bold green")
    if faults:
        end = Text("NOT PROVED: " + "; ".join(faults), "bold red")
    return Group(table, Text("\n".join(lines)), end)


def _records(proof: Proof) -> str:
    return (
        f"records    journalled {proof.journalled}, received {proof.entries},"
        f" missing {proof.sequence_holes}, written twice {proof.sequence_repeats}"
    )


def _beats(proof: Proof) -> str:
    beats = proof.beats
    if beats is None:
        return f"beats      found {proof.found_beats}; the recording is not annotated, so nothing to compare with"
    share = 100 * beats.within
    return (
        f"beats      truth {beats.truth}, found {beats.found}, missed {beats.missed}, false {beats.false}"
        f" ({share:.2f} % wrong, allowed {100 * proof.tolerance:g} %)"
    )


def _delay(proof: Proof) -> str:
    if proof.delays_ms is None:
        return "delay      unknown: no sample arrived"
    p50, p99 = proof.delays_ms
    return f"delay      sample to receiver: p50 {p50:.0f} ms, p99 {p99:.0f} ms"


def _drained(proof: Proof) -> Iterator[str]:
    """What waited, stream by stream in the order in which it came."""
    title = "backlog"
    for row in proof.drained:
        yield (
            f"{title:10} {row.waited} {row.stream} that had waited came"
            f" {row.first_s:.2f} to {row.last_s:.2f} s after the first"
        )
        title = ""


def _span(from_ns: int | None, until_ns: int | None) -> str:
    if from_ns is None or until_ns is None:
        return "of unknown length"
    return f"{(until_ns - from_ns) / NS_PER_S:.2f} s"

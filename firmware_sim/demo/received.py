"""Reads the receiver's JSON lines as they are written: what reached the far end, and when."""

import base64
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from drivers.assigned import Code

WAVES = {
    Code.ECG_ELEC_POTL: "ecg",
    Code.ECG_ELEC_POTL_I: "ecg",
    Code.ECG_ELEC_POTL_II: "ecg",
    Code.IMPED_TTHOR: "resp",
    Code.WARDLINK_PPG_INFRARED: "infrared",
    Code.WARDLINK_PPG_RED: "red",
}


@dataclass(slots=True)
class Block:
    """Samples of all channels of one device over one stretch of time."""

    first_ns: int
    received_ns: int
    channels: dict[str, NDArray[np.int64]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Number:
    """One quantity. `value` is None where the record says that there is none."""

    device: str
    code: int
    value: float | None
    at_ns: int
    received_ns: int
    by_hub: bool


@dataclass(frozen=True, slots=True)
class Gap:
    """A gap that the hub named. Either end may be unknown."""

    device: str
    reason: str
    from_ns: int | None
    until_ns: int | None


@dataclass(slots=True)
class Received:
    """Everything in the receiver's file so far."""

    blocks: dict[str, dict[int, Block]] = field(default_factory=lambda: defaultdict(dict))
    numbers: list[Number] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    events: list[dict[str, Any]] = field(default_factory=list)
    sequences: dict[tuple[str, str], list[int]] = field(default_factory=lambda: defaultdict(list))
    came_ns: dict[tuple[str, int], int] = field(default_factory=dict)
    """When each entry was received, by stream and sequence number."""
    open_gaps: set[tuple[str, str, int, int]] = field(default_factory=set)
    high_water: dict[tuple[str, str], int] = field(default_factory=dict)
    rejected: list[str] = field(default_factory=list)

    def take(self, line: dict[str, Any]) -> None:
        """One line."""
        match line["type"]:
            case "entry":
                stream, sequence = line["stream"], line["sequence"]
                self.sequences[line["epoch"], stream].append(sequence)
                self.came_ns.setdefault((stream, sequence), line["received_at_boottime_ns"])
                self._record(line["device"], line["received_at_boottime_ns"], line["record"])
            case "gap":
                self.open_gaps.add((line["epoch"], line["stream"], line["first"], line["last"]))
            case "gap_closed":
                self.open_gaps.discard((line["epoch"], line["stream"], line["first"], line["last"]))
            case "heartbeat":
                for stream, mark in line["streams"].items():
                    self.high_water[line["epoch"], stream] = mark["high_water"]
            case "rejected":
                self.rejected.append(f"{line['reason']}: {line['text']}")
            case _:
                pass

    def _record(self, device: str, received_ns: int, record: dict[str, Any]) -> None:
        if record["type"] == "event":
            self.events.append({"device": device, **record})
            if record["kind"] == "gap":
                ends = record.get("from_ns"), record.get("until_ns")
                self.gaps.append(Gap(device, record["reason"], *ends))
        elif record["shape"] == "samples" and record["code"] in WAVES:
            first_ns = record["boottime_ns"]
            block = self.blocks[device].setdefault(first_ns, Block(first_ns, received_ns))
            width = "<i2" if record["width"] == 2 else "<i4"
            samples = np.frombuffer(base64.b64decode(record["samples"]), width)
            block.channels[WAVES[Code(record["code"])]] = samples.astype(np.int64)
        elif record["shape"] == "quantity":
            by_hub = record["origin"] == "hub"
            number = Number(
                device, record["code"], record["value"], record["boottime_ns"], received_ns, by_hub
            )
            self.numbers.append(number)


class Tail:
    """Follows a growing file of JSON lines; a line counts once its newline is there."""

    def __init__(self, path: Path, received: Received) -> None:
        self._path = path
        self._received = received
        self._offset = 0

    def read(self) -> int:
        """Takes the new lines; returns how many there were."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return 0
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        lines = whole.splitlines()
        for line in lines:
            self._received.take(json.loads(line))
        return len(lines)

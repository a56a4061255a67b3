import json
from pathlib import Path

from firmware_sim.demo.received import Received, Tail

SAMPLES = {
    "type": "observation",
    "shape": "samples",
    "code": 131328,
    "boottime_ns": 1000,
    "width": 2,
    "samples": "AQD+/w==",
    "origin": "device",
}


def entry(record: dict[str, object], sequence: int = 1) -> str:
    line = {
        "type": "entry",
        "epoch": "e",
        "stream": "waveform",
        "sequence": sequence,
        "device": "board",
        "received_at_boottime_ns": 2000,
        "record": record,
    }
    return json.dumps(line) + "\n"


def test_follows_whole_lines_only(tmp_path: Path) -> None:
    received = Received()
    path = tmp_path / "lines"
    tail = Tail(path, received)
    assert tail.read() == 0
    whole = entry(SAMPLES)
    path.write_text(whole + whole[:30], encoding="utf-8")
    assert tail.read() == 1
    assert list(received.blocks["board"][1000].channels["ecg"]) == [1, -2]
    with path.open("a", encoding="utf-8") as file:
        file.write(whole[30:])
    assert tail.read() == 1
    assert received.sequences["e", "waveform"] == [1, 1]


def test_gaps_open_and_close() -> None:
    received = Received()
    gap = {"type": "gap", "epoch": "e", "stream": "vitals", "first": 3, "last": 5}
    received.take(gap)
    assert len(received.open_gaps) == 1
    received.take({**gap, "type": "gap_closed"})
    assert not received.open_gaps

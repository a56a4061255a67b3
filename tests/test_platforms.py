"""The templates and the flow in docs/platforms.md give the values of messages that the hub's own encoder made."""

import json
import re
import shutil
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest
from jinja2.sandbox import SandboxedEnvironment

from drivers.assigned import Code, Unit
from drivers.model import (
    Event,
    EventKind,
    Mode,
    Observation,
    Quality,
    Quantity,
    Record,
    SampleArray,
    Special,
    Validity,
)
from gateway.clock import ClockReading, ClockState
from gateway.journal.entry import Batch, Entry, Stream
from gateway.uplink.notice import HubStatus
from gateway.uplink.slices import slices
from tests.gateway import schemas

NOW_S = 1_800_000_000
TEXT = (schemas.DOCS / "platforms.md").read_text(encoding="utf-8")
RATE = Quantity(Decimal(72), Unit.BEAT_PER_MIN)


def template(begin: str) -> str:
    """The text of a folded YAML scalar: its lines, joined by spaces."""
    block = TEXT[TEXT.index(begin) :]
    found = re.search(r"value_template: >-\n((?: {8}.*\n)+)", block)
    assert found
    return " ".join(line.strip() for line in found[1].splitlines())


def rendered(begin: str, message: Any) -> str:
    """As Home Assistant renders it: its two functions, the result without the space around it."""
    environment = SandboxedEnvironment()
    made = environment.from_string(template(begin)).render(
        value_json=message,
        now=lambda: datetime.fromtimestamp(NOW_S, UTC),
        as_timestamp=as_timestamp,
    )
    return made.strip()


def as_timestamp(value: "str | datetime") -> float:
    return (datetime.fromisoformat(value) if isinstance(value, str) else value).timestamp()


def heart_rate(value: Quantity = RATE, at_s: float = -1, **quality: Any) -> Observation:
    return Observation(
        Code.ECG_HEART_RATE,
        value,
        int((100 + at_s) * 1e9),
        Quality(**{"mode": Mode.REAL, **quality}),
    )


def message(
    *records: tuple[str, Record],
    state: ClockState = ClockState.SYNCHRONISED,
    stream: Stream = Stream.VITALS,
) -> Any:
    reading = ClockReading(
        100 * 10**9, NOW_S * 10**9, state, 1 if state == "synchronised" else None
    )
    entries = tuple(Entry(n, device, record) for n, (device, record) in enumerate(records, 1))
    (piece,) = slices(Batch("hub-1", stream, "e", "b", reading, entries), 0, 9, 10**9)
    return json.loads(piece.payload)


def other(number: int) -> Quantity:
    return Quantity(Decimal(number), Unit.BEAT_PER_MIN)


NONE = Quantity(Special.NOT_A_NUMBER, Unit.BEAT_PER_MIN)
WAVE = Observation(Code.ECG_HEART_RATE, SampleArray(b"\1\2", 2, 1, Unit.MILLI_VOLT), 100 * 10**9)
EVENT = Event(EventKind.LOST, 5, "link")

CASES: list[tuple[str, Any, str, list[float]]] = [
    ("one", message(("belt", heart_rate())), "72", [72]),
    ("digits", message(("belt", heart_rate(Quantity(Decimal("36.5"), Unit.DEGC)))), "36.5", [36.5]),
    (
        "the last holds",
        message(("belt", heart_rate(other(60))), ("belt", heart_rate())),
        "72",
        [60, 72],
    ),
    ("another device", message(("board", heart_rate(other(60)))), "", [60]),
    ("beside others", message(("belt", EVENT), ("belt", heart_rate()), ("belt", WAVE)), "72", [72]),
    ("a test", message(("belt", heart_rate(mode=Mode.TEST))), "", []),
    ("old", message(("belt", heart_rate(at_s=-3600 + 100))), "", []),
    ("no number", message(("belt", heart_rate(NONE))), "None", []),
    ("doubtful", message(("belt", heart_rate(validity=Validity.QUESTIONABLE))), "None", []),
    ("no clock", message(("belt", heart_rate()), state=ClockState.UNSET), "", []),
    ("restored clock", message(("belt", heart_rate()), state=ClockState.RESTORED), "", []),
]


@pytest.mark.parametrize(
    ("said", "shown"), [case[1:3] for case in CASES], ids=[c[0] for c in CASES]
)
def test_the_sensor_of_home_assistant(said: Any, shown: str) -> None:
    assert rendered("- name: Heart rate", said) == shown


def test_the_problem_of_home_assistant() -> None:
    begin = "- name: Belt"
    started = Event(EventKind.STARTED, 5, "start")
    assert rendered(begin, message(("belt", EVENT), stream=Stream.ALARM)) == "ON"
    assert rendered(begin, message(("board", EVENT), stream=Stream.ALARM)) == ""
    assert rendered(begin, message(("belt", started), stream=Stream.ALARM)) == ""


def test_the_words_of_availability_are_the_platforms_own() -> None:
    assert 'availability_template: "{{ value_json.state }}"' in TEXT
    states = [HubStatus("h", online=o, version="1", epoch="e").encode() for o in (True, False)]
    assert [json.loads(status)["state"] for status in states] == ["online", "offline"]


def flow() -> list[dict[str, Any]]:
    (block,) = re.findall(r"^```json\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    found: list[dict[str, Any]] = json.loads(block)
    return found


def test_the_flow_hangs_together_and_its_topics_are_ours() -> None:
    nodes = {node["id"]: node for node in flow()}
    wired = {to for node in nodes.values() for out in node.get("wires", []) for to in out}
    assert wired | {node["broker"] for node in nodes.values() if node["type"] == "mqtt in"} <= set(
        nodes
    )
    topics = set(re.findall(r"wardlink/1/ward/[\w/-]+", TEXT))
    assert topics
    for topic in topics:
        assert any(pattern.fullmatch(topic) for _, _, pattern in schemas.channels()), topic


@pytest.mark.skipif(
    shutil.which("node") is None, reason="needs node, which runs the flow's function"
)
def test_the_function_of_the_flow() -> None:
    (function,) = (node["func"] for node in flow() if node["type"] == "function")
    program = (
        f"Date.now = () => {NOW_S * 1000};"
        "const run = new Function('msg', process.argv[1]);"
        "const said = JSON.parse(process.argv[2]);"
        "console.log(JSON.stringify(said.map(payload => run({payload})[0].map(m => m.payload))));"
    )
    said = json.dumps([case[1] for case in CASES])
    done = subprocess.run(
        ["node", "-e", program, function, said],
        capture_output=True,
        text=True,
        check=True,
        timeout=40,
    )
    assert json.loads(done.stdout) == [case[3] for case in CASES]

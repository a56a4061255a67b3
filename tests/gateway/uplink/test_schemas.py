"""What docs/messages.schema.json, docs/lines.schema.json and docs/asyncapi.json say is what is written."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from drivers.assigned import LOINC, UCUM, BodySite, Code, Unit
from drivers.model import (
    Bits,
    ClockChange,
    Coded,
    Compound,
    Decoded,
    Event,
    EventKind,
    Mode,
    Observation,
    Origin,
    Quality,
    Quantity,
    Raw,
    Record,
    SampleArray,
    Special,
    Validity,
)
from gateway.clock import ClockState
from gateway.config.commands import CommandKind
from gateway.config.device import Named
from gateway.config.kinds import NAME as CONFIG_NAME
from gateway.journal.entry import Batch, Entry, Stream
from gateway.receiver.checks import Rejection
from gateway.receiver.ledger import Cause
from gateway.uplink.command import (
    MAX_MINUTES,
    Answer,
    Command,
    LiveWaveform,
    Logging,
    LogLevel,
    Refusal,
    Response,
    StatusReport,
    StoredRange,
)
from gateway.uplink.notice import MAX_PENDING, Heartbeat, HubStatus, Mark
from gateway.uplink.payload import READERS, decode
from gateway.uplink.receipt import MAX_HOLES, Held, Receipt
from gateway.uplink.signature import signed
from gateway.uplink.slices import slices
from tests.gateway import schemas
from tests.gateway.schemas import LINES, MESSAGES
from tests.gateway.uplink.bench import KEY, READING
from tests.gateway.uplink.test_payload import EVENTS, OBSERVATIONS, RAWS, READINGS

# --- What is said once in the program and once in the schema -----------------------------------------------

DEFS = schemas.document(MESSAGES)["$defs"]
LINE_DEFS = schemas.document(LINES)["$defs"]


def shapes() -> list[str]:
    """As the conditions of an observation name them."""
    return [
        rule["if"]["properties"]["shape"]["const"]
        for rule in DEFS["observation"]["allOf"]
        if "if" in rule
    ]


ENUMS: dict[str, tuple[Iterable[object], Iterable[object]]] = {
    "stream": (DEFS["stream"]["enum"], Stream),
    "clock": (DEFS["clock_state"]["enum"], ClockState),
    "type": (DEFS["record"]["properties"]["type"]["enum"], READERS),
    "shape": (DEFS["observation"]["properties"]["shape"]["enum"], shapes()),
    "validity": (DEFS["observation"]["properties"]["validity"]["enum"], Validity),
    "mode": (DEFS["observation"]["properties"]["mode"]["enum"], Mode),
    "origin": (DEFS["observation"]["properties"]["origin"]["enum"], Origin),
    "body_site": (DEFS["observation"]["properties"]["body_site"]["enum"], map(int, BodySite)),
    "body_site_name": (
        DEFS["observation"]["properties"]["body_site_name"]["enum"],
        (site.name.lower() for site in BodySite),
    ),
    "special": (DEFS["special"]["enum"], Special),
    "kind": (DEFS["event"]["properties"]["kind"]["enum"], EventKind),
    "code": (DEFS["coded_name"]["properties"]["code"]["enum"], map(int, Code)),
    "name": (
        DEFS["coded_name"]["properties"]["name"]["enum"],
        (code.name if code.name.startswith("WARDLINK_") else f"MDC_{code.name}" for code in Code),
    ),
    "unit": (DEFS["unit"]["properties"]["unit"]["enum"], {*UCUM.values(), None}),
    "unit_code": (DEFS["unit"]["properties"]["unit_code"]["enum"], map(int, Unit)),
    "command": (DEFS["command"]["properties"]["command"]["enum"], CommandKind),
    "level": (DEFS["log_level"]["properties"]["level"]["enum"], LogLevel),
    "answer": (DEFS["response"]["properties"]["answer"]["enum"], Answer),
    "refusal": (DEFS["refusal"]["enum"], [*Refusal, "silent", "too_large", None]),
    "cause": (LINE_DEFS["gap"]["properties"]["cause"]["enum"], Cause),
    "rejection": (LINE_DEFS["rejected"]["properties"]["reason"]["enum"], Rejection),
    "stream topics": (
        schemas.document("asyncapi.json")["channels"]["stream"]["parameters"]["stream"]["enum"],
        Stream,
    ),
    "spans": ([DEFS["spans"]["maxItems"]] * 2, [MAX_PENDING, MAX_HOLES]),
    "minutes": ([DEFS["minutes"]["maximum"]], [MAX_MINUTES]),
    "names": (
        [DEFS["name"]["pattern"], f"^(?:{schemas.NAME})$"],
        [CONFIG_NAME.schema["pattern"]] * 2,
    ),
}


@pytest.mark.parametrize("name", ENUMS)
def test_the_schema_names_what_the_program_names(name: str) -> None:
    said, known = ENUMS[name]
    assert sorted(said, key=repr) == sorted((_plain(value) for value in known), key=repr)


def _plain(value: object) -> object:
    return str(value) if isinstance(value, str) else value


def test_loinc_codes_look_like_those_that_are_sent() -> None:
    pattern = re.compile(DEFS["coded_name"]["properties"]["loinc"]["pattern"])
    assert all(pattern.fullmatch(code) for code in LOINC.values())


# --- The documents themselves ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [MESSAGES, LINES])
def test_a_schema_is_one_and_all_of_it_is_used(name: str) -> None:
    form = schemas.document(name)
    Draft202012Validator.check_schema(form)
    Draft202012Validator.check_schema(schemas.strict(form))
    text = json.dumps([schemas.document(n) for n in (MESSAGES, LINES, "asyncapi.json")])
    used = set(re.findall(r'"\$ref": "[\w.]*#/\$defs/(\w+)"', text))
    assert set(form["$defs"]) <= used
    assert used <= {*DEFS, *LINE_DEFS}


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    text = json.dumps(schemas.document("asyncapi.json"))
    references = set(re.findall(r'"\$ref": "([^"]+)"', text))
    assert len(references) > 20
    for reference in references:
        if reference.startswith(MESSAGES):
            assert reference.removeprefix(f"{MESSAGES}#/$defs/") in DEFS
        else:
            assert schemas.resolve(reference)


def test_every_channel_has_its_parameters_and_one_operation_at_qos_1() -> None:
    names = []
    for name, channel, _ in schemas.channels():
        assert set(channel["parameters"]) == set(re.findall(r"\{(\w+)\}", channel["address"]))
        operation = schemas.operation_of(name)
        assert operation["bindings"]["mqtt"]["qos"] == 1
        assert operation["bindings"]["mqtt"]["retain"] == (name == "status")
        said = {message["$ref"] for message in operation["messages"]}
        assert said == {f"#/channels/{name}/messages/{message}" for message in channel["messages"]}
        names.append(name)
    assert len(schemas.document("asyncapi.json")["operations"]) == len(names) == 6


def test_the_conditions_are_those_of_every_shape_and_kind() -> None:
    assert set(shapes()) == set(DEFS["observation"]["properties"]["shape"]["enum"])
    kinds = {rule["if"]["properties"]["command"]["const"] for rule in DEFS["command"]["allOf"]}
    assert kinds == set(CommandKind) - {CommandKind.STATUS}  # it has no arguments


# --- What the encoders write -------------------------------------------------------------------------------

NAMES = st.from_regex(schemas.NAME, fullmatch=True)
WORDS = st.text(min_size=1, max_size=12)
SEQUENCES = st.integers(1, 2**60)
READ = OBSERVATIONS.filter(lambda found: found.decoded is None or found.decoded.boot_id != "")


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """As a hub makes them: names are names."""
    first = draw(SEQUENCES)
    records = draw(st.lists(READ | EVENTS | RAWS, min_size=1, max_size=4))
    entries = tuple(
        Entry(first + n, draw(NAMES | st.just("")), record, draw(st.none() | NAMES))
        for n, record in enumerate(records)
    )
    stream = draw(st.sampled_from(Stream))
    stamped = draw(st.none() | READINGS)
    words = draw(NAMES), stream, draw(WORDS), draw(WORDS)
    return Batch(*words, draw(READINGS), entries, stamped=stamped)


def spans(most: int = 4) -> st.SearchStrategy[tuple[tuple[int, int], ...]]:
    edges = st.lists(SEQUENCES, max_size=2 * most, unique=True).map(sorted)
    return edges.map(lambda e: tuple(zip(e[::2], e[1::2], strict=False)))


COUNTS = st.integers(0, 2**60)
DEVICES = st.lists(st.builds(Named, st.text(), st.text()), max_size=3).map(tuple)
STATUSES = st.builds(HubStatus, NAMES, st.booleans(), st.text(), WORDS, st.none() | DEVICES)
MARKS = st.dictionaries(st.sampled_from(Stream), st.builds(Mark, COUNTS, COUNTS, spans()))
HEARTBEATS = st.builds(Heartbeat, NAMES, WORDS, WORDS, READINGS, MARKS)
HOLDS = st.dictionaries(st.sampled_from(Stream), st.builds(Held, COUNTS, spans()))
RECEIPTS = st.builds(Receipt, NAMES, NAMES, WORDS, HOLDS)
IDS = st.from_regex("[0-9a-f]{32}", fullmatch=True)
MINUTES = st.integers(1, MAX_MINUTES)
ASKED = st.one_of(
    st.builds(LiveWaveform, NAMES, MINUTES),
    st.builds(StoredRange, st.sampled_from(Stream), COUNTS, COUNTS),
    st.just(StatusReport()),
    st.builds(Logging, st.sampled_from(LogLevel), MINUTES),
)
KINDS: Mapping[type, CommandKind] = {
    LiveWaveform: CommandKind.LIVE_WAVEFORM,
    StoredRange: CommandKind.RANGE,
    StatusReport: CommandKind.STATUS,
    Logging: CommandKind.LOG_LEVEL,
}
COMMANDS = st.tuples(IDS, NAMES, WORDS, NAMES, COUNTS, COUNTS, ASKED).map(
    lambda c: Command(c[0], c[1], c[2], c[3], c[4], c[5], KINDS[type(c[6])], c[6])
)


RESPONSES = st.builds(
    Response,
    NAMES,
    WORDS,
    NAMES,
    st.none() | IDS,
    st.text(),
    st.just(Answer.FAILED) | st.just(Answer.REFUSED),
    st.sampled_from([*Refusal, "silent", "too_large"]),
    st.text(),
    st.just(None) | st.just("2027-01-15T08:00:00.000000Z"),
    st.sampled_from(ClockState),
    COUNTS,
    st.just({}) | st.just({"status": {"uplink": {"state": "connected"}}}),
)


def as_sent(payload: bytes) -> Any:
    """Signed, and read again with the digits."""
    return json.loads(signed("t", payload, KEY.sign), parse_float=Decimal)


@settings(max_examples=40, deadline=None)
@given(batches())
def test_every_batch_fits(batch: Batch) -> None:
    (piece,) = slices(batch, 0, batch.last_sequence, 10**9)
    found = as_sent(piece.payload)
    assert schemas.faults(found, MESSAGES, "/$defs/batch") == []
    assert decode(piece.payload).batch == batch


@settings(max_examples=25, deadline=None)
@given(STATUSES, HEARTBEATS, RECEIPTS, COMMANDS, RESPONSES)
def test_every_other_message_fits(
    status: HubStatus, heartbeat: Heartbeat, receipt: Receipt, command: Command, response: Response
) -> None:
    for message, name in (
        (status, "status"),
        (heartbeat, "heartbeat"),
        (receipt, "receipt"),
        (command, "command"),
        (response, "response"),
    ):
        found = as_sent(message.encode())
        assert schemas.faults(found, MESSAGES, f"/$defs/{name}") == []


def test_the_examples_of_the_document_fit() -> None:
    """One of a kind stands there at least, and all without their signature."""
    text = (schemas.DOCS / "messages.md").read_text(encoding="utf-8")
    seen = set()
    for block in re.findall(r"^```json\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        rest = block.strip()
        while rest:
            found, end = json.JSONDecoder().raw_decode(rest)
            rest = rest[end:].strip()
            seen.add(found["schema"])
            found = as_sent(json.dumps(found).encode())
            assert schemas.faults(found, MESSAGES) == []
    assert seen == {DEFS[name]["properties"]["schema"]["const"] for name in KINDS_OF_MESSAGES}


# --- What the schemas refuse -------------------------------------------------------------------------------

KINDS_OF_MESSAGES = [
    rule["$ref"].rpartition("/")[2] for rule in schemas.document(MESSAGES)["oneOf"]
]
UNIT = Unit.PERCENT
VALUES = (
    Quantity(Decimal("36.60"), UNIT),
    Quantity(Special.UNKNOWN, UNIT),
    Compound(((Code.PRESS_BLD_NONINV_SYS, Quantity(Decimal(120), UNIT)),)),
    SampleArray(b"\1\2", 2, 4_000_000, UNIT, Decimal("0.1")),
    Coded(5),
    Bits(1, 3),
)
QUALITY = Quality(Validity.QUESTIONABLE, Mode.TEST, 0.5, "motion")
FROM = Decoded(4, 0, 1, "boot-0")
CHANGE = ClockChange(READING, READING)
RECORDS: tuple[Record, ...] = (
    *(
        Observation(Code.TEMP_BODY, v, 1, QUALITY, Origin.HUB, "12:00", BodySite.CHEST, FROM)
        for v in VALUES
    ),
    Raw("2a35", b"\x1e", 5, 4),
    Event(EventKind.CLOCK, 5, "step", "t", b"\1", Code.TEMP_BODY, 1, 2, 3, CHANGE),
)
HELD = {Stream.VITALS: Held(9, ((3, 4),))}
MARKED = {Stream.VITALS: Mark(9, 2, ((3, 4),))}
NOW = "2027-01-15T08:00:00.000000Z"
SAID: tuple[Any, ...] = (
    HubStatus("h", online=True, version="1", epoch="e", devices=(Named("belt", "heart-rate"),)),
    Heartbeat("h", "e", "b", READING, MARKED),
    Receipt("h", "r", "e", HELD),
    *(
        Command("ab" * 16, "h", "e", "o", 1, 2, KINDS[type(asked)], asked)
        for asked in (
            LiveWaveform("d", 1),
            StoredRange(Stream.AUDIT, 1, 2),
            StatusReport(),
            Logging(LogLevel.INFO, 1),
        )
    ),
    *(
        Response(
            "h",
            "e",
            "o",
            "ab" * 16,
            "range",
            answer,
            why,
            "",
            NOW,
            ClockState.UNSET,
            1,
            {"sent": 1, "waiting": 2},
        )
        for answer, why in ((Answer.PROGRESS, None), (Answer.FAILED, "busy"))
    ),
)
OPTIONAL = {
    "batch": {"stamped"},
    "observation": {"subject", "loinc", "sqi", "reason", "device_time", "boot_id"},
    "event": {"subject", "loinc", "from_ns", "until_ns", "lost"},
    "raw": {"subject"},
    "part": {"loinc"},
    "mark": {"pending"},
    "status": {"devices"},
    "details": {"sent", "waiting"},
}
"""Members that may be absent by themselves, of what a member is called or of what type it is."""


def samples() -> list[Any]:
    """A message of each kind, and a batch of each kind of record."""
    batches = [
        Batch("h", Stream.VITALS, "e", "b", READING, (Entry(1, "d", record, "p"),), stamped=READING)
        for record in RECORDS
    ]
    pieces = [piece for batch in batches for piece in slices(batch, 0, 99, 10**9)]
    return [
        *(as_sent(piece.payload) for piece in pieces),
        *(as_sent(message.encode()) for message in SAID),
    ]


BELOW = {"parts": "part"}
"""What the objects in a member are, where that is not its name."""


def objects(node: Any, name: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object in a message, with what it is."""
    if isinstance(node, dict):
        head = str(node.get("schema", "")).removeprefix("wardlink.").removesuffix("/1")
        yield str(node.get("type", head or name)), node
        for key, value in node.items():
            is_mark = name == "streams" and "acknowledged" in value
            yield from objects(value, "mark" if is_mark else BELOW.get(key, str(key)))
    for item in node if isinstance(node, list) else ():
        yield from objects(item, name)


def test_a_changed_message_is_refused() -> None:
    tried = 0
    for message in samples():
        assert refused(message) is False
        for what, part in objects(message):
            part["surplus"] = 1
            is_open = what == "streams"  # a surplus stream is refused by its name in both forms
            assert refused(message), f"{what}: a surplus member"
            assert is_open == refused(message, is_strict=False), (
                f"{what}: a member of a later version"
            )
            del part["surplus"]
            for key, kept in list(part.items()):
                part[key] = [kept]
                assert refused(message, is_strict=False), f"{what}.{key}: a list"
                del part[key]
                if what != "streams":
                    may = key in OPTIONAL.get(what, ())
                    assert refused(message, is_strict=False) is not may, f"{what}.{key}: absent"
                part[key] = kept
                tried += 2
    assert tried > 500
    assert all(not refused(message) for message in samples())


def refused(message: Any, *, is_strict: bool = True) -> bool:
    name = str(message.get("schema")).removeprefix("wardlink.").removesuffix("/1")
    pointer = f"/$defs/{name}" if name in KINDS_OF_MESSAGES else ""
    return not schemas.validator(MESSAGES, pointer, is_strict=is_strict).is_valid(message)


WRONG: list[tuple[str, str, Any]] = [
    ("", "first", 0),
    ("", "stream", "Vitals"),
    ("", "clock.state", "set"),
    ("", "clock.error_ns", -1),
    ("0", "sequence", 1.5),
    ("0", "device", "a/b"),
    ("0", "type", "reading"),
    ("0", "shape", "number"),
    ("0", "value", None),
    ("0", "value", "36.60"),
    ("0", "special", "nan"),
    ("0", "unit", "bpm"),
    ("0", "unit_code", 1),
    ("0", "code", 1),
    ("0", "name", "MDC_NOTHING"),
    ("0", "time", "2027-01-15T08:00:00Z"),
    ("0", "sqi", 1.1),
    ("0", "validity", "good"),
    ("0", "mode", "simulated"),
    ("0", "origin", "cloud"),
    ("0", "body_site", 7),
    ("1", "special", "none"),
    ("3", "width", 3),
    ("3", "samples", "AQI"),
    ("6", "data", "1E"),
    ("7", "kind", "unknown"),
    ("", "signature", "A" * 86 + "=="[:1]),
    ("", "signature", "A" * 85 + "B=="),
]


@pytest.mark.parametrize(("record", "path", "value"), WRONG, ids=lambda part: str(part)[:24])
def test_a_wrong_value_is_refused(record: str, path: str, value: Any) -> None:
    """In the entry of a record, by its place in RECORDS, or in the head."""
    message = samples()[int(record or 0)]
    part = message["entries"][0] if record else message
    *steps, last = path.split(".")
    for step in steps:
        part = part[step]
    part[last] = value
    assert refused(message, is_strict=False)


def test_a_message_on_another_topic_or_retained_is_named() -> None:
    status = signed("t", SAID[0].encode(), KEY.sign)
    topic = "wardlink/1/ward/h/status"
    assert schemas.message_faults(topic, status, is_retained=True) == []
    for other in (
        "wardlink/1/ward/h/heartbeat",
        "wardlink/1/ward/h/state",
        "wardlink/2/ward/h/status",
    ):
        assert schemas.message_faults(other, status)
    heartbeat = signed("t", SAID[1].encode(), KEY.sign)
    assert schemas.message_faults("wardlink/1/ward/h/heartbeat", heartbeat) == []
    assert schemas.message_faults("wardlink/1/ward/h/heartbeat", heartbeat, is_retained=True)
    assert schemas.message_faults(topic, SAID[0].encode()), "without a signature"

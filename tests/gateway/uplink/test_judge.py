"""What is done is signed, addressed, in time, allowed and new: each check by itself, and all against a plain twin."""

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import BUILT_NS, ClockReading, ClockState
from gateway.config.commands import CommandKind, Operator
from gateway.journal.entry import Stream
from gateway.uplink.command import (
    MAX_COMMAND_BYTES,
    MAX_RANGE_NS,
    MAX_VALIDITY_NS,
    Answer,
    Asked,
    Command,
    LiveWaveform,
    Logging,
    LogLevel,
    Refusal,
    Response,
    StatusReport,
    StoredRange,
    described,
)
from gateway.uplink.fields import PayloadError
from gateway.uplink.judge import AHEAD_NS, Judge, Memory, Verdict
from gateway.uplink.signature import signed
from gateway.uplink.wire import Incoming
from tests.gateway.uplink.bench import EPOCH, HUB, KEY, PUBLIC

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
GUEST = Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
GUEST_PUBLIC = base64.b64encode(GUEST.public_key().public_bytes_raw()).decode()
NOW_NS = 1_800_000_000_000_000_000
S = 1_000_000_000
READING = ClockReading(9, NOW_NS, ClockState.SYNCHRONISED, 5_000_000)
NEW = Memory(was_accepted=False, expired_before_ns=0, issued_after_ns=0)
OPERATORS = {
    "ward-1": Operator(PUBLIC, frozenset(CommandKind)),
    "guest": Operator(GUEST_PUBLIC, frozenset({CommandKind.STATUS})),
}
JUDGE = Judge(HUB, EPOCH, OPERATORS, ("belt",))
LIVE = LiveWaveform("belt", 5)
RANGE = StoredRange(Stream.VITALS, NOW_NS - 100 * S, NOW_NS - 50 * S)
EVERYTHING: tuple[Asked, ...] = (LIVE, RANGE, StatusReport(), Logging(LogLevel.DEBUG, 60))
GOOD = Command(
    "0f" * 16, HUB.id, EPOCH, "ward-1", NOW_NS - S, NOW_NS + 60 * S, "status", StatusReport()
)


def asking(asked: Asked) -> Command:
    return replace(GOOD, kind=described(asked)[0], asked=asked)


def message(
    payload: bytes, key: Ed25519PrivateKey = KEY, name: str = "ward-1", hub: str = HUB.id
) -> Incoming:
    topic = Command.topic(HUB.tenant, hub, name)
    return Incoming(1, topic, signed(topic, payload, key.sign), retain=False)


def judged(
    command: Command = GOOD,
    *,
    reading: ClockReading = READING,
    memory: Memory = NEW,
    name: str = "ward-1",
    key: Ed25519PrivateKey = KEY,
) -> Verdict:
    return verdict(message(command.encode(), key, name), reading, memory, name)


def verdict(came: Incoming, reading: ClockReading, memory: Memory, name: str = "ward-1") -> Verdict:
    found = JUDGE.read(name, came)
    return found if isinstance(found, Verdict) else JUDGE.decide(name, found, reading, memory)


@pytest.mark.parametrize("asked", EVERYTHING)
def test_a_good_command_is_done(asked: Asked) -> None:
    found = judged(asking(asked))
    assert (found.asked, found.refusal) == (asked, None)
    assert Command.decode(asking(asked).encode()).asked == asked


def test_a_command_reads_as_the_document_shows_it() -> None:
    fields = json.loads(asking(RANGE).encode())
    assert fields == {
        "schema": "wardlink.command/1", "id": "0f" * 16, "hub": "hub-1", "epoch": "e1",
        "operator": "ward-1", "issued": "2027-01-15T07:59:59.000000Z", "issued_ns": NOW_NS - S,
        "valid_until": "2027-01-15T08:01:00.000000Z", "valid_until_ns": NOW_NS + 60 * S,
        "command": "range", "stream": "vitals", "from": "2027-01-15T07:58:20.000000Z",
        "until": "2027-01-15T07:59:10.000000Z", "from_ns": NOW_NS - 100 * S,
        "until_ns": NOW_NS - 50 * S,
    }  # fmt: skip


LAGS = replace(READING, state=ClockState.RESTORED, error_ns=None)
UNSET = replace(READING, wall_ns=5, state=ClockState.UNSET, error_ns=None)
SPAN = (GOOD.issued_ns, GOOD.valid_until_ns)


@pytest.mark.parametrize(
    ("got", "refusal"),
    [
        (judged(key=STRANGER), Refusal.BAD_SIGNATURE),
        (judged(key=GUEST), Refusal.BAD_SIGNATURE),
        (judged(name="nobody"), Refusal.UNKNOWN_SENDER),
        (judged(name="guest", key=GUEST), Refusal.WRONG_HUB),
        (judged(replace(GOOD, hub="hub-2")), Refusal.WRONG_HUB),
        (judged(replace(GOOD, epoch="e0")), Refusal.WRONG_EPOCH),
        (judged(memory=replace(NEW, was_accepted=True)), Refusal.REPLAYED),
        (judged(memory=replace(NEW, issued_after_ns=GOOD.issued_ns)), Refusal.REPLAYED),
        (judged(memory=replace(NEW, issued_after_ns=None)), Refusal.REPLAYED),
        (judged(memory=replace(NEW, expired_before_ns=GOOD.valid_until_ns)), Refusal.EXPIRED),
        (judged(reading=replace(READING, wall_ns=GOOD.valid_until_ns)), Refusal.EXPIRED),
        (judged(reading=replace(READING, error_ns=61 * S)), Refusal.EXPIRED),
        (judged(reading=replace(READING, wall_ns=SPAN[0] - AHEAD_NS - S)), Refusal.NOT_YET_VALID),
        (judged(reading=LAGS), Refusal.CLOCK),
        (judged(reading=replace(LAGS, wall_ns=SPAN[1] + 1)), Refusal.EXPIRED),
        (judged(reading=replace(LAGS, wall_ns=SPAN[0] - 9 * S)), Refusal.CLOCK),
        (judged(reading=UNSET), Refusal.CLOCK),
        (judged(reading=replace(READING, state=ClockState.RESTORED)), Refusal.CLOCK),
        (judged(reading=replace(READING, state=ClockState.UNSET)), Refusal.CLOCK),
        (judged(reading=replace(READING, error_ns=None)), Refusal.CLOCK),
        (judged(replace(GOOD, issued_ns=7, valid_until_ns=8), reading=UNSET), Refusal.EXPIRED),
        (judged(replace(GOOD, valid_until_ns=SPAN[0] + MAX_VALIDITY_NS + 1)), Refusal.OUT_OF_RANGE),
        (judged(replace(GOOD, issued_ns=SPAN[1] + 1)), Refusal.OUT_OF_RANGE),
        (judged(asking(LiveWaveform("bolt", 5))), Refusal.UNKNOWN_DEVICE),
        (judged(asking(LiveWaveform("belt", 0))), Refusal.OUT_OF_RANGE),
        (judged(asking(LiveWaveform("belt", 61))), Refusal.OUT_OF_RANGE),
        (judged(asking(Logging(LogLevel.INFO, 61))), Refusal.OUT_OF_RANGE),
        (judged(asking(replace(RANGE, until_ns=RANGE.from_ns))), Refusal.OUT_OF_RANGE),
        (judged(asking(replace(RANGE, until_ns=NOW_NS + 6 * S))), Refusal.OUT_OF_RANGE),
        (judged(asking(replace(RANGE, from_ns=RANGE.until_ns - MAX_RANGE_NS - 1))), Refusal.OUT_OF_RANGE),
        (judged(replace(asking(LIVE), operator="guest"), name="guest", key=GUEST), Refusal.NOT_ALLOWED),
        # Neither is asked about before it is known that this operator may ask at all.
        (judged(replace(asking(LiveWaveform("bolt", 99)), operator="guest"), name="guest", key=GUEST), Refusal.NOT_ALLOWED),
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_its_reason(got: Verdict, refusal: Refusal) -> None:
    assert (got.asked, got.refusal) == (None, refusal)
    assert got.text


def test_the_edges_hold() -> None:
    last = replace(READING, wall_ns=GOOD.valid_until_ns - 5_000_000)
    first = replace(READING, wall_ns=GOOD.issued_ns - AHEAD_NS - 5_000_000)
    for reading in (last, first):
        assert judged(reading=reading).refusal is None
    assert judged(reading=replace(last, wall_ns=last.wall_ns + 1)).refusal is Refusal.EXPIRED
    assert (
        judged(reading=replace(first, wall_ns=first.wall_ns - 1)).refusal is Refusal.NOT_YET_VALID
    )
    assert judged(asking(replace(RANGE, from_ns=RANGE.until_ns - MAX_RANGE_NS))).refusal is None
    guest = replace(GOOD, operator="guest")
    assert judged(guest, name="guest", key=GUEST).refusal is None


def test_a_signature_holds_for_one_topic_and_every_byte() -> None:
    came = message(GOOD.encode())
    other = replace(came, topic=Command.topic(HUB.tenant, "hub-2", "ward-1"))
    assert verdict(other, READING, NEW).refusal is Refusal.BAD_SIGNATURE
    for at in range(len(came.payload)):
        flipped = bytearray(came.payload)
        flipped[at] ^= 1
        found = verdict(replace(came, payload=bytes(flipped)), READING, NEW)
        assert found.refusal is Refusal.BAD_SIGNATURE
    bare = replace(came, payload=GOOD.encode())
    assert verdict(bare, READING, NEW).refusal is Refusal.BAD_SIGNATURE


FIELDS = json.loads(asking(LIVE).encode())
SIGNED_JUNK = st.one_of(
    st.binary(max_size=300).map(lambda junk: b"{" + junk + b"}"),
    st.dictionaries(
        st.sampled_from([*FIELDS, "shell"]),
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40)
        | st.sampled_from([*FIELDS.values(), *CommandKind, "shell"])
        | st.lists(st.integers(), max_size=3),
        max_size=16,
    ).map(lambda changed: json.dumps(FIELDS | changed).encode()),
    st.sets(st.sampled_from(list(FIELDS)), max_size=4).map(
        lambda left_out: json.dumps({k: v for k, v in FIELDS.items() if k not in left_out}).encode()
    ),
)  # fmt: skip


@given(SIGNED_JUNK)
@settings(max_examples=400, deadline=None)
def test_whatever_an_operator_signs_has_a_verdict(payload: bytes) -> None:
    found = verdict(message(payload), READING, NEW)
    if found.refusal is None:
        assert isinstance(found.asked, LiveWaveform | StoredRange | StatusReport | Logging)
        assert found.command is not None
        assert (found.command.hub, found.command.epoch) == (HUB.id, EPOCH)
        if isinstance(found.asked, LiveWaveform):
            assert found.asked.device == "belt"
            assert 1 <= found.asked.minutes <= 60
    else:
        assert found.asked is None


@given(st.binary(max_size=400), st.sampled_from(["ward-1", "guest", "nobody", "a b", ""]))
@settings(max_examples=300, deadline=None)
def test_what_nobody_signed_is_never_done(payload: bytes, name: str) -> None:
    topic = Command.topic(HUB.tenant, HUB.id, name)
    found = JUDGE.read(name, Incoming(1, topic, payload, retain=False))
    assert isinstance(found, Verdict)
    assert found.asked is None


NEAR_S = (-4000, -61, -60, -6, -5, -1, 0, 1, 5, 59, 60, 3599, 3600, 3601)
TIMES = st.sampled_from(NEAR_S).map(lambda s: NOW_NS + s * S) | st.sampled_from([0, 1, BUILT_NS])


@given(
    issued_ns=TIMES,
    until_ns=TIMES,
    wall_ns=TIMES | st.just(NOW_NS),
    state=st.sampled_from([*ClockState, *[ClockState.SYNCHRONISED] * 3]),
    error_ns=st.none() | st.sampled_from([0, 5_000_000, 16 * S]),
    seen=st.booleans(),
    floors=st.just((0, 0)) | st.tuples(TIMES, TIMES | st.none()) | st.just((0, 0)),
    hub=st.sampled_from([HUB.id, HUB.id, HUB.id, "hub-2"]),
    epoch=st.sampled_from([EPOCH, EPOCH, EPOCH, "e0"]),
    name=st.sampled_from(["ward-1", "ward-1", "guest"]),
    asked=st.sampled_from(EVERYTHING),
)
@settings(max_examples=600, deadline=None)
def test_what_is_done_is_what_a_plain_reading_of_the_rules_allows(
    issued_ns: int, until_ns: int, wall_ns: int, state: ClockState, error_ns: int | None, seen: bool,  # noqa: FBT001
    floors: tuple[int, int | None], hub: str, epoch: str, name: str, asked: Asked,
) -> None:  # fmt: skip
    reading = ClockReading(9, wall_ns, state, error_ns)
    command = Command(
        "0f" * 16, hub, epoch, "ward-1", issued_ns, until_ns, described(asked)[0], asked
    )
    key = {"ward-1": KEY, "guest": GUEST}[name]
    memory = Memory(seen, *floors)
    found = judged(command, reading=reading, memory=memory, name=name, key=key)
    may = (
        hub == HUB.id and epoch == EPOCH and name == "ward-1" and not seen
        and state is ClockState.SYNCHRONISED and error_ns is not None
        and 0 <= until_ns - issued_ns <= MAX_VALIDITY_NS
        and wall_ns + error_ns <= until_ns
        and issued_ns <= wall_ns + error_ns + AHEAD_NS
        and until_ns > floors[0]
        and floors[1] is not None and issued_ns > floors[1]
        and (asked is not RANGE or RANGE.until_ns <= wall_ns + AHEAD_NS)
    )  # fmt: skip
    assert (found.refusal is None) == may
    assert found.asked == (asked if may else None)


@pytest.mark.parametrize(
    "wrong",
    [{"id": "0F" * 16}, {"id": "0f" * 15}, {"schema": "wardlink.command/2"}, {"issued_ns": -1}],
)
def test_an_envelope_that_is_not_whole_is_malformed(wrong: dict[str, object]) -> None:
    payload = json.dumps(json.loads(GOOD.encode()) | wrong).encode()
    assert verdict(message(payload), READING, NEW).refusal is Refusal.MALFORMED


def test_a_command_is_small() -> None:
    padded = json.loads(GOOD.encode()) | {"text": "x" * MAX_COMMAND_BYTES}
    found = verdict(message(json.dumps(padded).encode()), READING, NEW)
    assert found.refusal is Refusal.MALFORMED


@pytest.mark.parametrize("kind", ["shell", "", "file", "status "])
def test_there_is_no_other_command(kind: str) -> None:
    payload = json.dumps(json.loads(GOOD.encode()) | {"command": kind}).encode()
    found = verdict(message(payload), READING, NEW)
    assert found.refusal is Refusal.UNKNOWN_COMMAND
    assert "live-waveform" in found.text


def test_a_refusal_cannot_be_sent_as_a_command() -> None:
    with pytest.raises(PayloadError):
        replace(GOOD, asked=Refusal.MALFORMED).encode()


def test_a_response_comes_back_as_it_was() -> None:
    response = Response(
        "hub-1", "e1", "ward-1", None, "", Answer.REFUSED, Refusal.CLOCK, "text", None,
        ClockState.UNSET, 3, {"status": {"a": [1, None, "x"]}},
    )  # fmt: skip
    assert Response.decode(response.encode()) == response
    assert [answer for answer in Answer if answer.is_last] == ["refused", "completed", "failed"]


@given(st.binary(max_size=200) | SIGNED_JUNK)
@settings(max_examples=100, deadline=None)
def test_any_bytes_are_a_response_or_none(payload: bytes) -> None:
    with pytest.raises(PayloadError):
        Response.decode(payload)

import base64
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.clock import ClockReading, ClockState
from gateway.config.device import Named
from gateway.journal.entry import Batch, Stream
from gateway.receiver.checks import Checker
from gateway.receiver.intake import Intake
from gateway.receiver.ledger import Ledger
from gateway.receiver.lines import Lines, load, save
from gateway.uplink.fields import PayloadError, dumps
from gateway.uplink.notice import Heartbeat, HubStatus, Mark, Notices
from gateway.uplink.packed import packed_slices
from gateway.uplink.receipt import Held
from gateway.uplink.slices import slices
from gateway.uplink.wire import Incoming
from tests.gateway.uplink.bench import (
    EPOCH,
    HUB,
    PUBLIC,
    KeptStore,
    MemoryJournal,
    clock,
    packed,
    read_lines,
    said,
)
from tests.gateway.uplink.test_packed import followed

NOTICES = Notices(HUB, "test", EPOCH)


def unsigned(first: int, count: int, stream: Stream = Stream.VITALS) -> bytes:
    journal = MemoryJournal()
    journal.commit(stream, first + count - 1)
    whole = journal.batches[stream][0]
    piece = replace(whole, entries=whole.entries[first - 1 :])
    (only,) = slices(piece, 0, 100, 10**6)
    return only.payload


def batch(first: int, count: int, stream: Stream = Stream.VITALS) -> Incoming:
    return said(NOTICES.topic(stream), unsigned(first, count, stream))


def beat(boottime_ns: int, high_water: int, acknowledged: int, *streams: Stream) -> Incoming:
    reading = ClockReading(boottime_ns, 2, ClockState.UNSET)
    marks = dict.fromkeys(streams or (Stream.VITALS,), Mark.in_order(high_water, acknowledged))
    payload = Heartbeat(HUB.id, EPOCH, "boot-1", reading, marks).encode()
    return said(NOTICES.topic("heartbeat"), payload)


def make_intake(ledger: Ledger | None = None, grace_s: float = 0.0) -> Intake:
    return Intake(
        Checker(HUB.tenant, {HUB.id: PUBLIC}), KeptStore(ledger), clock(), grace_s=grace_s
    )


def take(intake: Intake, message: Incoming) -> list[dict[str, Any]]:
    """Its lines, without what they tell of the hub's clocks: tests/gateway/test_time_truth.py is about those."""
    lines = cast("list[dict[str, Any]]", intake.take([message]))
    return [line for line in lines if line["type"] != "clock"]


def test_entries_are_written_once_and_repeats_counted() -> None:
    intake = make_intake()
    assert [line["sequence"] for line in take(intake, batch(1, 5))] == [1, 2, 3, 4, 5]
    assert take(intake, batch(1, 5)) == []
    assert [line["sequence"] for line in take(intake, batch(4, 4))] == [6, 7]
    report = intake.report()
    assert (report.entries, report.repeats, report.rejected) == (7, 7, 0)


def test_an_entry_line_says_who_what_and_when() -> None:
    (line,) = take(make_intake(), batch(1, 1))
    assert (line["type"], line["hub"], line["stream"], line["epoch"]) == (
        "entry",
        "hub-1",
        "vitals",
        "e1",
    )
    assert (line["device"], line["boot_id"]) == ("belt", "boot-1")
    assert line["record"]["name"] == "MDC_ECG_HEART_RATE"
    assert line["record"]["clock"] == "synchronised"
    assert line["received_at_boottime_ns"] > 0


SAID = unsigned(1, 2)
GOOD = batch(1, 2)
STRANGER = Ed25519PrivateKey.generate()


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (replace(GOOD, payload=SAID), "no_signature"),
        (replace(GOOD, payload=b""), "no_signature"),
        (replace(GOOD, payload=GOOD.payload[:-1]), "no_signature"),
        (replace(GOOD, payload=SAID[:-1] + b',"signature":"' + b"A" * 88 + b'"}'), "bad_signature"),
        (replace(GOOD, payload=SAID[:-1] + b',"signature":"' + b"?" * 88 + b'"}'), "bad_signature"),
        (said(GOOD.topic, SAID, STRANGER), "bad_signature"),
        (
            replace(GOOD, payload=GOOD.payload.replace(b'"value":1,', b'"value":9,')),
            "bad_signature",
        ),
        (replace(GOOD, topic=NOTICES.topic("alarm")), "bad_signature"),
        (said(NOTICES.topic("alarm"), SAID), "disagrees"),
        (said(GOOD.topic, SAID.replace(b"hub-1", b"hub-2")), "disagrees"),
        (said("wardlink/1/ward/hub-2/vitals", SAID), "unknown_hub"),
        (said("wardlink/1/other/hub-1/vitals", SAID), "topic"),
        (said(NOTICES.topic("gossip"), SAID), "topic"),
        (said("x", SAID), "topic"),
        (said(GOOD.topic, SAID[:-2] + b"}"), "malformed"),
        (said(NOTICES.topic("status"), b"{}"), "malformed"),
        (said(NOTICES.topic("heartbeat"), SAID), "malformed"),
    ],
)
def test_what_fails_a_check_is_kept_but_is_no_data(message: Incoming, reason: str) -> None:
    intake = make_intake()
    (line,) = take(intake, message)
    assert (line["type"], line["reason"]) == ("rejected", reason)
    assert base64.b64decode(line["payload"]) == message.payload
    assert intake.report().rejected == 1
    assert intake.report().entries == 0
    assert [good["type"] for good in take(intake, GOOD)] == ["entry", "entry"]


def test_a_gap_is_named_and_closed() -> None:
    intake = make_intake()
    take(intake, batch(1, 1))
    take(intake, batch(4, 1))
    assert intake.name_gaps() == []  # it may be still to come
    take(intake, beat(1, 4, 4))
    (gap,) = cast("list[dict[str, Any]]", intake.name_gaps())
    assert (gap["type"], gap["first"], gap["last"], gap["count"], gap["cause"]) == (
        "gap",
        2,
        3,
        2,
        "sequence",
    )
    assert intake.report().open_gaps == 1
    *entries, closed = take(intake, batch(2, 2))
    assert [line["sequence"] for line in entries] == [2, 3]
    assert (closed["type"], closed["first"], closed["last"]) == ("gap_closed", 2, 3)
    assert (intake.report().open_gaps, intake.report().missing) == (0, 0)


def test_a_heartbeat_proves_a_cut_tail_and_an_old_one_proves_nothing() -> None:
    intake = make_intake()
    take(intake, batch(1, 3))
    (line,) = take(intake, beat(10, 9, 5))
    assert line["streams"]["vitals"] == {
        "high_water": 9,
        "acknowledged": 5,
        "pending": ({"first": 6, "last": 9},),
        "received": 5,
    }
    (gap,) = cast("list[dict[str, Any]]", intake.name_gaps())
    assert (gap["first"], gap["last"], gap["cause"]) == (4, 5, "tail")
    _, rollback = take(intake, beat(20, 7, 5))
    assert (rollback["first"], rollback["last"], rollback["cause"]) == (8, 9, "rollback")
    assert take(intake, beat(10, 9, 5)) == []
    assert take(intake, beat(15, 1, 1)) == []


def test_a_retained_status_that_comes_again_is_one_line() -> None:
    intake = make_intake()
    payload = HubStatus(HUB.id, online=True, version="1", epoch=EPOCH).encode()
    message = said(NOTICES.topic("status"), payload)
    (line,) = take(intake, message)
    assert line["state"] == "online"
    assert "devices" not in line
    assert take(intake, message) == []


def test_a_status_with_other_devices_is_another_line() -> None:
    intake = make_intake()
    devices = [(), (Named("belt", "heart-rate"),)]
    lines = [
        line for row in devices for message in [birth(row)] * 2 for line in take(intake, message)
    ]
    assert [line["devices"] for line in lines] == [
        (),
        ({"device": "belt", "driver": "heart-rate"},),
    ]


def birth(devices: tuple[Named, ...]) -> Incoming:
    status = HubStatus(HUB.id, online=True, version="1", epoch=EPOCH, devices=devices)
    return said(NOTICES.topic("status"), status.encode())


@pytest.mark.parametrize(
    "devices", ["1", "[1]", '[{"device":"belt"}]', '[{"driver":1,"device":"b"}]']
)
def test_devices_that_are_none_are_malformed(devices: str) -> None:
    payload = birth(()).payload.replace(b'"devices":[]', f'"devices":{devices}'.encode())
    with pytest.raises(PayloadError, match="devices"):
        HubStatus.decode(payload)


def test_a_wrong_verify_key_is_named() -> None:
    with pytest.raises(ValueError, match="hub-9"):
        Checker("ward", {"hub-9": "short"})


@pytest.mark.parametrize("saved_after", [0, 1, 2, 3, 4])
def test_a_restart_knows_exactly_what_was_written(tmp_path: Path, saved_after: int) -> None:
    """Whatever the age of the state file, and with the last line torn."""
    lines = Lines(tmp_path / "lines")
    ledger = load(tmp_path / "state", lines, 0)
    intake = make_intake(ledger)
    for n, message in enumerate([batch(1, 2), batch(6, 1), beat(5, 9, 8), batch(3, 1)]):
        if n == saved_after:
            save(tmp_path / "state", ledger, lines.length)
        lines.append(intake.take([message]))
        lines.append(intake.name_gaps())
    if saved_after == 4:
        save(tmp_path / "state", ledger, lines.length)
    lines.close()
    length = (tmp_path / "lines").stat().st_size
    with (tmp_path / "lines").open("ab") as file:
        file.write(b'{"type":"entry","hub":"hub-1","str')

    again = Lines(tmp_path / "lines")
    assert again.length == length
    restored = load(tmp_path / "state", again, 0)
    assert restored.open_gaps() == ledger.open_gaps()
    assert restored.missing() == ledger.missing() == 4
    assert {k: (t.high, t.claimed) for k, t in restored.tracks.items()} == {
        k: (t.high, t.claimed) for k, t in ledger.tracks.items()
    }
    second = make_intake(restored)
    assert second.name_gaps() == []
    take(second, beat(6, 9, 8))
    assert second.name_gaps() == []
    assert take(second, batch(1, 3)) == []
    assert take(second, beat(5, 1, 1)) == []
    assert [line["sequence"] for line in take(second, batch(4, 1)) if line["type"] == "entry"] == [
        4
    ]
    again.close()


def test_lines_that_were_rotated_away_are_not_missed(tmp_path: Path) -> None:
    lines = Lines(tmp_path / "lines")
    intake = make_intake(ledger := Ledger())
    lines.append(intake.take([batch(1, 3)]))
    save(tmp_path / "state", ledger, lines.length)
    lines.close()
    (tmp_path / "lines").unlink()
    again = Lines(tmp_path / "lines")
    assert take(make_intake(load(tmp_path / "state", again, 0)), batch(1, 4))[0]["sequence"] == 4
    again.close()


def test_a_damaged_state_file_is_said(tmp_path: Path) -> None:
    (tmp_path / "state").write_bytes(b'{"schema":"other"}')
    lines = Lines(tmp_path / "lines")
    with pytest.raises(PayloadError, match="other"):
        load(tmp_path / "state", lines, 0)
    lines.close()
    assert read_lines(tmp_path / "lines") == []


# --- Packed batches ------------------------------------------------------------------------------------


class _Still:
    """The same moment for whatever comes."""

    boot_id = "boot-r"

    def boottime_ns(self) -> int:
        return 1

    def read(self) -> ClockReading:
        return ClockReading(1, 2, ClockState.UNSET)


@settings(max_examples=60, deadline=None)
@given(followed(), st.data())
def test_packed_batches_give_the_very_lines_that_json_gives(
    row: list[Batch], data: st.DataObject
) -> None:
    row = [replace(one, hub=HUB.id) for one in row]
    low, high = row[0].first_sequence, row[-1].last_sequence
    topic = NOTICES.topic(row[0].stream)
    said_before = data.draw(st.sampled_from(row))
    (before,) = slices(said_before, low - 1, high, 10**9)
    plain = [piece for one in row for piece in slices(one, low - 1, high, 10**9)]
    packs = [packed(one) for one in row]
    written = []
    for pieces in (plain, packed_slices(packs, (low, high), high, 10**9)):
        checker = Checker(HUB.tenant, {HUB.id: PUBLIC})
        intake = Intake(checker, KeptStore(Ledger()), _Still(), grace_s=0)
        messages = [said(topic, piece.payload) for piece in (before, *pieces)]
        lines = [line for message in messages for line in intake.take([message])]
        written.append((dumps(lines), intake.report(), intake.receipts("r")))  # type: ignore[arg-type]
    assert written[0] == written[1]


def test_a_packed_batch_that_cannot_be_read_is_a_named_gap_and_the_others_count() -> None:
    journal = MemoryJournal()
    for _ in range(3):
        journal.commit(Stream.VITALS, 2)
    row = [packed(one) for one in journal.batches[Stream.VITALS]]
    row[1] = replace(row[1], records=b"\xff" * 50)
    (piece,) = packed_slices(row, (1, 6), 6, 10**6)
    intake = make_intake()
    message = said(NOTICES.topic(Stream.VITALS), piece.payload)
    lines = take(intake, message)
    assert [line["sequence"] for line in lines if line["type"] == "entry"] == [1, 2, 5, 6]
    gaps = [(g["first"], g["last"], g["cause"]) for g in lines if g["type"] == "gap"]
    assert gaps == [(3, 4, "unreadable")]
    assert [line["reason"] for line in lines if line["type"] == "rejected"] == ["unreadable"]
    (receipt,) = intake.receipts("r")
    assert receipt.streams[Stream.VITALS] == Held(6, ())
    assert not [line for line in take(intake, message) if line["type"] != "rejected"]


@pytest.mark.parametrize(
    ("topic", "reason"),
    [
        (NOTICES.topic(Stream.ALARM), "disagrees"),
        ("wardlink/1/ward/hub-1/heartbeat", "malformed"),
    ],
)
def test_a_packed_message_on_another_topic_is_no_data(topic: str, reason: str) -> None:
    journal = MemoryJournal()
    journal.commit(Stream.VITALS, 2)
    row = [packed(one) for one in journal.batches[Stream.VITALS]]
    (piece,) = packed_slices(row, (1, 2), 2, 10**6)
    (line,) = take(make_intake(), said(topic, piece.payload))
    assert line["reason"] == reason
    far = [replace(row[0], span=span) for span in ((2**63 - 2, 2**63 - 1), (2**63, 2**63 + 1))]
    (piece,) = packed_slices(far, (2**63 - 2, 2**63 + 1), 2, 10**6)
    (line,) = take(make_intake(), said(NOTICES.topic(Stream.VITALS), piece.payload))
    assert line["reason"] == "malformed"

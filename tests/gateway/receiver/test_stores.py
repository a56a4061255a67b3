"""Databases as stores, for real: SQLite, and a PostgreSQL server. The store in memory is what they are held against."""

import json
import random
import sqlite3
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from drivers.assigned import Code, Unit
from drivers.model import Compound, Event, EventKind, Observation, Quantity, SampleArray, Special
from gateway.clock import ClockReading, ClockState, SystemClock
from gateway.config.device import Named
from gateway.journal.entry import Batch, Entry, Stream
from gateway.receiver.checks import Checker
from gateway.receiver.dialects import sqlite
from gateway.receiver.intake import Intake
from gateway.receiver.lines import LinesStore
from gateway.receiver.sql import SqlStore
from gateway.receiver.store import Line, RefusedError, Store, StoreError
from gateway.receiver.tables import HUBS, SCHEMA, SCHEMA_VERSION, TABLES
from gateway.uplink.fields import Json
from gateway.uplink.notice import Heartbeat, HubStatus, Mark
from gateway.uplink.slices import slices
from gateway.uplink.wire import Incoming
from tests.gateway.receiver.databases import query, server, some_dialect
from tests.gateway.receiver.test_intake import NOTICES, batch, beat
from tests.gateway.uplink.bench import EPOCH, HUB, PUBLIC, READING, KeptStore, said

Place = tuple[str, str]
CHECKER = Checker(HUB.tenant, {HUB.id: PUBLIC})


def intake_of(store: Store, grace_s: float = 0.0) -> Intake:
    return Intake(CHECKER, store, SystemClock(), grace_s=grace_s)


def sql_store(place: Place) -> SqlStore:
    return SqlStore(some_dialect(*place), SystemClock())


def message(*records: Any, first: int = 1, stream: Stream = Stream.VITALS) -> Incoming:
    entries = tuple(Entry(first + n, "belt", record, "p-1") for n, record in enumerate(records))
    whole = Batch(HUB.id, stream, EPOCH, "boot-1", READING, entries)
    (only,) = slices(whole, 0, 100, 10**6)
    return said(NOTICES.topic(stream), only.payload)


# --- Columns -----------------------------------------------------------------------------------------------

ECG = SampleArray.of([1, -2, 300], period_ns=4_000_000, unit=Unit.MILLI_VOLT, scale=Decimal("0.25"))


def test_an_analyst_finds_what_was_sent(place: Place) -> None:
    store = sql_store(place)
    pressure = Compound(
        (
            (Code.PRESS_BLD_NONINV_SYS, Quantity(Decimal(120), Unit.MMHG)),
            (Code.PRESS_BLD_NONINV_DIA, Quantity(Special.NOT_AT_THIS_RESOLUTION, Unit.MMHG)),
        )
    )
    intake_of(store).take(
        [
            message(
                Observation(Code.TEMP_BODY, Quantity(Decimal("36.60"), Unit.DEGC), 5_000),
                Observation(Code.PRESS_BLD_NONINV, pressure, 6_000),
                Observation(Code.ECG_ELEC_POTL, ECG, 7_000),
                Event(EventKind.FAULT, 8_000, "w\0h\ud800y", "a\0b\ud800", b""),
            )
        ]
    )
    store.close()
    rows = query(*place, "SELECT * FROM entries ORDER BY sequence")
    temperature, compound, wave, event = rows
    assert {row["hub"] for row in rows} == {HUB.id}
    assert (temperature["value"], temperature["value_numeric"]) == ("36.60", 36.6)
    assert (temperature["code"], temperature["name"]) == (Code.TEMP_BODY, "MDC_TEMP_BODY")
    assert (temperature["unit"], temperature["validity"], temperature["mode"]) == (
        "Cel",
        "valid",
        "real",
    )
    assert (temperature["device"], temperature["subject"], temperature["boot_id"]) == (
        "belt",
        "p-1",
        "boot-1",
    )
    assert (temperature["boottime_ns"], temperature["clock"]) == (5_000, "synchronised")
    assert str(temperature["time"]).startswith("2027-01-15")
    assert compound["value"] is None
    assert (bytes(wave["samples"]), wave["sample_width"]) == (ECG.data, 4)
    assert (wave["period_ns"], wave["sample_scale"], wave["sample_offset"]) == (4_000_000, 0.25, 0)
    assert (event["type"], event["kind"], event["reason"]) == (
        "event",
        "fault",
        "w\ufffdh\ufffdy",
    )
    records = [
        json.loads(row["record"]) if isinstance(row["record"], str) else row["record"]
        for row in rows
    ]
    assert "samples" not in records[2]
    assert records[2]["period_ns"] == 4_000_000
    assert records[3]["text"] == "a\0b\ud800"
    parts = query(*place, "SELECT * FROM parts ORDER BY part")
    assert [(part["value"], part["special"], part["unit"]) for part in parts] == [
        ("120", None, "mm[Hg]"),
        (None, "nres", "mm[Hg]"),
    ]
    exact = query(*place, "SELECT CAST(record AS text) AS said FROM entries WHERE sequence = 1")
    assert '"value":36.60,' in exact[0]["said"]


def test_no_number_and_no_text_is_too_strange_to_keep(place: Place) -> None:
    values: list[Decimal | Special] = [
        Decimal("1E+999"),
        Decimal("1" + 40 * "0"),
        Decimal("-0.0"),
        Special.UNKNOWN,
    ]
    records = [
        Observation(Code.TEMP_BODY, Quantity(value, Unit.DEGC), 2**63 + 5) for value in values
    ]
    store = sql_store(place)
    lines = intake_of(store).take([message(*records)])
    store.close()
    assert [line["type"] for line in lines] == ["clock", *["entry"] * 4]
    rows = query(*place, "SELECT * FROM entries ORDER BY sequence")
    assert [row["value"] for row in rows] == ["1E+999", "1" + 40 * "0", "-0.0", None]
    assert [row["value_numeric"] for row in rows] == [None, 1e40, 0, None]
    assert [row["special"] for row in rows] == [None, None, None, "unknown"]
    assert {row["boottime_ns"] for row in rows} == {None}


def test_what_is_no_data_is_kept_beside(place: Place) -> None:
    store = sql_store(place)
    intake = intake_of(store)
    stranger = replace(batch(1, 1), topic="wardlink/1/ward/hub-2/vit\0als")
    intake.take([stranger, batch(1, 1), stranger])
    devices = (Named("belt\0", "heart-rate"),)
    status = HubStatus(HUB.id, online=True, version="1", epoch=EPOCH, devices=devices).encode()
    intake.take([said(NOTICES.topic("status"), status), beat(10, 9, 5)])
    second = sql_store(place)
    again = intake_of(second)
    again.take([said(NOTICES.topic("status"), status), beat(10, 9, 5), stranger])
    assert again.report().repeats == 2
    store.close()
    second.close()
    (rejected,) = query(*place, "SELECT * FROM rejected")
    assert (rejected["reason"], bytes(rejected["payload"])) == ("unknown_hub", stranger.payload)
    (heartbeat,) = query(*place, "SELECT * FROM heartbeats")
    assert (heartbeat["boot_id"], heartbeat["boottime_ns"]) == ("boot-1", 10)
    (told,) = query(*place, "SELECT * FROM statuses")
    assert (told["state"], told["version"]) == ("online", "1")
    told_devices = told["devices"]
    if isinstance(told_devices, str):
        told_devices = json.loads(told_devices)
    assert [row["driver"] for row in told_devices] == ["heart-rate"]


def test_a_gap_that_closes_in_part_is_cut(place: Place) -> None:
    store = sql_store(place)
    intake = intake_of(store)
    intake.take([batch(1, 1), batch(10, 1), beat(1, 10, 10)])
    intake.name_gaps()
    assert intake.report().open_gaps == 1
    intake.take([batch(4, 2)])
    intake.name_gaps()
    rows = query(*place, "SELECT * FROM gaps ORDER BY first_sequence")
    assert [
        (row["first_sequence"], row["last_sequence"], row["closed_at"] is None) for row in rows
    ] == [(2, 3, True), (4, 5, False), (6, 9, True)]
    assert len({row["named_at"] for row in rows}) == 1
    intake.take([batch(2, 8)])
    store.close()
    assert intake.report().open_gaps == 0
    assert query(*place, "SELECT * FROM gaps WHERE closed_at IS NULL") == []


def test_what_is_learnt_of_a_clock_times_what_came_before(place: Place) -> None:
    store = sql_store(place)
    intake_of(store).take([batch(1, 2)])

    def learn(wall_ns: int, state: str) -> None:
        store.begin((), ())
        line: dict[str, Json] = {"type": "clock", "hub": HUB.id, "epoch": EPOCH}
        reading: dict[str, Json] = {
            "boottime_ns": 500,
            "wall_ns": wall_ns,
            "state": state,
            "error_ns": 7,
        }
        reading |= {"boot_id": "boot-1", "received_at": "2027-01-15T08:00:00.000000Z"}
        store.commit([line | reading])

    def best() -> list[tuple[str, str]]:
        rows = query(*place, "SELECT * FROM timed_entries ORDER BY sequence")
        return [(str(row["best_time"])[:26].replace(" ", "T"), row["best_clock"]) for row in rows]

    before = best()
    assert before[0][0].startswith("2027-01-15T07:59:59")
    learn(0, "unset")
    assert best() == before
    learn(1_900_000_000_000_000_500, "restored")
    learn(1_900_000_000_123_456_500, "synchronised")
    assert best() == [
        ("2030-03-17T17:46:40.123457", "synchronised"),
        ("2030-03-17T17:46:40.123458", "synchronised"),
    ]
    store.close()
    (clock,) = query(*place, "SELECT * FROM clocks")
    assert (clock["state"], clock["error_ns"]) == ("synchronised", 7)


# --- Against the store in memory ---------------------------------------------------------------------------


class Flaky:
    """A store whose commits fail now and then, before and after the real one."""

    def __init__(self, store: SqlStore, rng: random.Random) -> None:
        self._store = store
        self._rng = rng

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def commit(self, lines: Sequence[Line]) -> None:
        fate = self._rng.random()
        if fate < 0.15:
            raise StoreError("before")
        self._store.commit(lines)
        if fate > 0.9:
            raise StoreError("after")


def some_messages(rng: random.Random) -> list[Incoming]:
    messages: list[Incoming] = []
    claimed = boottime = 0
    for _ in range(rng.randint(1, 6)):
        if rng.random() < 0.2:
            boottime, claimed = boottime + 1, claimed + rng.randint(0, 5)
            messages.append(beat(boottime, claimed, rng.randint(0, claimed)))
        else:
            stream = rng.choice([Stream.VITALS, Stream.ALARM])
            messages.append(batch(rng.randint(1, 60), rng.randint(1, 6), stream))
    return messages


@pytest.mark.parametrize("seed", range(3))
def test_a_database_that_fails_now_and_then_keeps_what_memory_keeps(
    place: Place, seed: int
) -> None:
    rng = random.Random(seed)
    twin = KeptStore()
    memory = intake_of(twin)
    store = sql_store(place)
    for _ in range(25):
        messages = some_messages(rng)
        memory.take(messages)
        memory.name_gaps()
        if rng.random() < 0.2:
            store.close()
            store = sql_store(place)
        intake = intake_of(Flaky(store, rng))
        succeed(lambda: intake.take(messages))  # noqa: B023
        succeed(intake.name_gaps)
    assert store.totals() == twin.totals()
    assert store.held(HUB.id, EPOCH) == twin.held(HUB.id, EPOCH)
    store.close()
    rows = query(*place, "SELECT stream, sequence FROM entries ORDER BY stream, sequence")
    kept = [line for line in twin.lines if line["type"] == "entry"]
    assert [(row["stream"], row["sequence"]) for row in rows] == sorted(
        (str(line["stream"]), int(str(line["sequence"]))) for line in kept
    )
    gaps = query(*place, "SELECT * FROM gaps WHERE closed_at IS NULL AND cause <> 'rollback'")
    assert {(row["stream"], row["first_sequence"], row["last_sequence"]) for row in gaps} == {
        (gap.key.stream, gap.span.first, gap.span.last) for gap in twin.ledger.open_gaps()
    }


def succeed(call: Callable[[], object]) -> None:
    for _ in range(200):
        try:
            call()
        except StoreError:
            continue
        return
    raise AssertionError("never succeeds")


# --- Several receivers ------------------------------------------------------------------------------------


def test_three_receivers_take_each_entry_once_and_name_each_gap_once(place: Place) -> None:
    """Threads with a connection each, the same messages in another order: nobody may see another's half."""
    rng = random.Random(7)
    streams = Stream.VITALS, Stream.ALARM
    messages = [
        batch(first, 4, stream)
        for stream in streams
        for first in range(1, 121, 4)
        if first not in {41, 81}
    ]
    failures: list[BaseException] = []
    lines: list[Line] = []
    intakes = []
    begun = threading.Barrier(3)

    def receive(intake: Intake, mine: list[Incoming]) -> None:
        try:
            begun.wait()
            for n in range(0, len(mine), 3):
                succeed(lambda: lines.extend(intake.take(mine[n : n + 3])))  # noqa: B023
            begun.wait()
            succeed(lambda: lines.extend(intake.take([beat(1, 120, 120, *streams)])))
            for _ in range(3):
                lines.extend(intake.name_gaps())
        except BaseException as failure:  # noqa: BLE001 - told by the test's thread
            failures.append(failure)
            begun.abort()

    threads = []
    stores = [sql_store(place) for _ in range(3)]
    for store in stores:
        intakes.append(intake_of(store))
        mine = rng.sample(messages, len(messages))
        threads.append(threading.Thread(target=receive, args=(intakes[-1], mine)))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    entries = [
        (str(line["stream"]), int(str(line["sequence"])))
        for line in lines
        if line["type"] == "entry"
    ]
    assert len(entries) == len(set(entries)) == 4 * len(messages)
    gaps = [
        (str(line["stream"]), line["first"], line["last"])
        for line in lines
        if line["type"] == "gap"
    ]
    assert sorted(gaps) == [
        (stream, first, first + 3) for stream in ("alarm", "vitals") for first in (41, 81)
    ]
    assert sum(intake.report().entries for intake in intakes) == len(entries)
    held = [store.held(HUB.id, EPOCH) for store in stores]
    assert held[0] == held[1] == held[2]
    assert held[0][Stream.VITALS].holes == ((41, 44), (81, 84))
    for store in stores:
        store.close()
    assert len(query(*place, "SELECT sequence FROM entries")) == len(entries)


def test_a_hole_that_another_is_just_filling_is_no_gap(place: Place) -> None:
    first, second = sql_store(place), sql_store(place)
    intake_of(first, grace_s=30).take([batch(1, 1), batch(3, 1), beat(1, 3, 3)])
    assert intake_of(second, grace_s=30).name_gaps() == []
    assert second.totals().missing == 1
    assert intake_of(second, grace_s=30).take([batch(2, 1)])[0]["sequence"] == 2
    assert second.totals().missing == 0
    first.close()
    second.close()


def test_a_hole_from_before_a_restart_of_the_machine_gets_its_grace_anew(tmp_path: Path) -> None:
    class Young(SystemClock):
        def boottime_ns(self) -> int:
            return 1_000

    path = tmp_path / "db"
    old = SqlStore(sqlite(path), SystemClock())
    intake_of(old).take([batch(1, 1), batch(3, 1), beat(1, 3, 3)])
    old.close()
    store = SqlStore(sqlite(path), Young())
    assert intake_of(store, grace_s=1).name_gaps() == []
    (row,) = query("sqlite", str(path), "SELECT unnamed_since FROM tracks")
    assert row["unnamed_since"] == 1_000
    store.close()


# --- Faults -----------------------------------------------------------------------------------------------


def test_a_full_database_keeps_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    room = sqlite(tmp_path / "db")
    tight = replace(room, session=(*room.session, "PRAGMA max_page_count = 60"))
    store = SqlStore(tight, SystemClock())
    intake = intake_of(store)
    taken = 0
    fault: StoreError | None = None
    while fault is None:
        try:
            intake.take([batch(1 + 50 * taken, 50)])
        except StoreError as error:
            fault = error
        else:
            taken += 1
    assert "full" in str(fault)
    assert not isinstance(fault, RefusedError)
    assert taken > 0
    assert intake.report().entries == 50 * taken
    store.close()
    assert len(query("sqlite", str(tmp_path / "db"), "SELECT 1 FROM entries")) == 50 * taken
    roomy = SqlStore(room, SystemClock())
    assert len(intake_of(roomy).take([batch(1 + 50 * taken, 50)])) == 50
    roomy.close()


def test_a_full_disk_leaves_no_half_of_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = LinesStore(tmp_path / "lines", tmp_path / "state", SystemClock())
    intake = intake_of(store)
    intake.take([batch(1, 1)])
    before = (tmp_path / "lines").read_bytes()
    file = store._lines._file

    class Full:
        """The first 100 bytes still fit."""

        def __getattr__(self, name: str) -> Any:
            return getattr(file, name)

        def write(self, data: bytes) -> int:
            if len(data) < 1000:
                raise OSError(28, "No space left on device")
            return int(file.write(data[:100]))

    monkeypatch.setattr(store._lines, "_file", Full())
    with pytest.raises(StoreError, match="No space left"):
        intake.take([batch(2, 3)])
    assert (tmp_path / "lines").read_bytes() == before
    assert intake.report().entries == 1
    monkeypatch.setattr(store._lines, "_file", file)
    assert [line["sequence"] for line in intake.take([batch(2, 3)])] == [2, 3, 4]
    store.close()


def test_a_server_that_dies_is_told_and_used_again() -> None:
    with server() as postgres:
        store = SqlStore(some_dialect("postgresql", postgres.conninfo), SystemClock())
        intake = intake_of(store)
        intake.take([batch(1, 2)])
        postgres.kill()
        with pytest.raises(StoreError) as caught:
            intake.take([batch(3, 2)])
        assert not isinstance(caught.value, RefusedError)
        with pytest.raises(StoreError, match=r"PostgreSQL: connection .*failed"):
            intake.name_gaps()
        postgres.start()
        assert [line["sequence"] for line in intake.take([batch(1, 4)])] == [3, 4]
        assert intake.report().entries == 4
        store.close()


def test_what_a_database_will_never_take_is_kept_as_rejected(tmp_path: Path) -> None:
    store = sql_store(("sqlite", str(tmp_path / "db")))
    store.totals()
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute(
        "CREATE TRIGGER no_alarm BEFORE INSERT ON entries WHEN NEW.stream = 'alarm'"
        " BEGIN SELECT RAISE(ABORT, 'not here'); END"
    )
    connection.close()
    intake = intake_of(store)
    lines = intake.take([batch(1, 2), batch(1, 3, Stream.ALARM), batch(3, 2)])
    kinds = [line["type"] for line in lines]
    assert kinds == ["clock", "entry", "entry", "rejected", "entry", "entry"]
    assert lines[3]["reason"] == "refused"
    assert "p-1" not in str(lines[3]["text"])
    assert store.held(HUB.id, EPOCH).keys() == {Stream.VITALS, Stream.ALARM}
    assert store.held(HUB.id, EPOCH)[Stream.ALARM].high == 0
    store.close()


def test_tables_of_another_version_are_not_touched(tmp_path: Path) -> None:
    place = ("sqlite", str(tmp_path / "db"))
    store = sql_store(place)
    store.totals()
    store.close()
    connection = sqlite3.connect(tmp_path / "db")
    connection.execute("UPDATE wardlink_schema SET version = 99")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="got tables of version 99, expected 2"):
        sql_store(place).totals()


def test_those_that_make_the_tables_at_once_do_not_fall_over_each_other(place: Place) -> None:
    kind, where = place
    places = [(kind, f"{where}-{n}") for n in range(20)] if kind == "sqlite" else [place]
    failures: list[BaseException] = []
    begun = threading.Barrier(6)

    def make() -> None:
        for there in places:
            store = sql_store(there)
            begun.wait()
            try:
                store.totals()
            except BaseException as failure:  # noqa: BLE001 - told by the test's thread
                failures.append(failure)
            finally:
                store.close()

    threads = [threading.Thread(target=make) for _ in range(begun.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_an_alien_file_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        sql_store(("sqlite", str(tmp_path / "db"))).totals()


def test_the_document_names_every_table_and_column() -> None:
    text = (Path(__file__).parents[3] / "docs" / "database.md").read_text(encoding="utf-8")
    for table in TABLES:
        assert f"`{table.name}`" in text
        private = {HUBS.name, SCHEMA.name}
        for column in () if table.name in private else table.columns:
            assert f"`{column}`" in text, (table.name, column)
    assert f"Version {SCHEMA_VERSION}." in text


# --- Times -------------------------------------------------------------------------------------------------


def test_what_was_stored_before_the_clock_was_set_has_its_time_in_a_view(place: Place) -> None:
    """The entries stay as they are; the boot's row is what changes, and a receiver started anew knows it."""
    store = sql_store(place)
    intake = intake_of(store)
    unset = replace(READING, wall_ns=READING.boottime_ns, state=ClockState.UNSET, error_ns=None)
    entry = Entry(
        1,
        "belt",
        Observation(Code.ECG_HEART_RATE, Quantity(Decimal(70), Unit.BEAT_PER_MIN), 5_000_000_000),
        None,
    )
    early = Batch(HUB.id, Stream.VITALS, EPOCH, "boot-1", unset, (entry,))
    (only,) = slices(early, 0, 100, 10**6)
    intake.take([said(NOTICES.topic(Stream.VITALS), only.payload)])
    columns = "SELECT time, clock FROM entries"
    assert query(*place, columns) == [{"time": None, "clock": "unset"}]
    best = "SELECT best_time, best_clock FROM timed_entries"
    assert query(*place, best) == [{"best_time": None, "best_clock": "unset"}]
    store.close()

    store = sql_store(place)
    intake = intake_of(store)
    reading = ClockReading(25_000_000_000, 1_800_000_000_000_000_000, ClockState.SYNCHRONISED, 7)
    heartbeat = Heartbeat(HUB.id, EPOCH, "boot-1", reading, {Stream.VITALS: Mark.in_order(1, 1)})
    lines = intake.take([said(NOTICES.topic("heartbeat"), heartbeat.encode())])
    assert [line["type"] for line in lines] == ["clock", "heartbeat"]
    assert query(*place, columns) == [{"time": None, "clock": "unset"}]
    (row,) = query(*place, best)
    # 2027-01-15T08:00:00Z, less twenty seconds.
    assert str(row["best_time"])[:19].replace(" ", "T") == "2027-01-15T07:59:40"
    assert row["best_clock"] == "synchronised"
    again = replace(heartbeat, clock=replace(reading, boottime_ns=26_000_000_000))
    again = replace(again, clock=replace(again.clock, wall_ns=reading.wall_ns + 1_000_000_000))
    lines = intake.take([said(NOTICES.topic("heartbeat"), again.encode())])
    assert [line["type"] for line in lines] == ["heartbeat"], "what is known is not said twice"
    store.close()

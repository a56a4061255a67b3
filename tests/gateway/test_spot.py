"""Spot measurements: the bytes are safe before anybody decodes them, and a later driver may read them again."""

import asyncio
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import pytest

from drivers import assigned, registry
from drivers.assigned import Code, Unit
from drivers.ble.blood_pressure import DRIVER, BloodPressureSession
from drivers.contract import Driver, Malformed, Output, Resume
from drivers.model import (
    Compound,
    Decoded,
    Mode,
    Observation,
    Quantity,
    Raw,
    Validity,
)
from firmware_sim.blood_pressure_cuff import BloodPressureCuff, Reading
from firmware_sim.bluez.bus import PrivateBus, installed
from firmware_sim.bluez.server import VirtualBluez
from gateway import cli
from gateway.clock import ClockReading, ClockState, SystemClock
from gateway.conditioner import Conditioner
from gateway.intake import Intake
from gateway.journal.entry import Batch, Entry, Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.scan import Damage
from gateway.link import Link, LinkCounters
from gateway.redecode import RETRACTED, Means, Redecoded, redecode
from gateway.transport.base import Arrival, Reason, TransportError
from gateway.transport.ble import BleRadio, BleTransport, Limits
from tests.gateway.fakes import FastLoop, ListSink, LoopClock, ScriptedTransport
from tests.gateway.journal.builders import open_journal, read_all
from tests.gateway.journal.simulated_disk import SimulatedDisk

MEASUREMENT = assigned.BLOOD_PRESSURE_MEASUREMENT
GONE = TransportError(Reason.LOST, "gone")
READING = Reading(128, 82, 97, (2026, 3, 14, 7, 5, 9), 64, status=4)


class Scripted(BloodPressureSession):
    """Notes what the sink held when it was called, and answers as it is told to."""

    def __init__(self, sink: ListSink, *answers: Iterable[Output] | Exception) -> None:
        super().__init__({})
        self.sink = sink
        self.answers = list(answers)
        self.held: list[int] = []

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterable[Output]:
        self.held.append(self.sink.durable_after[-1] if self.sink.durable_after else 0)
        if not self.answers:
            return super().receive(source, data, now_ns)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


def link(
    transport: ScriptedTransport, *answers: Iterable[Output] | Exception, driver: Driver = DRIVER
) -> tuple[ListSink, Scripted, Exception | None]:
    sink = ListSink()
    session = Scripted(sink, *answers)

    async def main() -> Exception | None:
        made = Link(driver, session, transport, sink, LoopClock(), LinkCounters(), lambda: None)
        try:
            await made.run(Resume())
        except (TransportError, ZeroDivisionError) as error:
            return error
        return None

    with asyncio.Runner(loop_factory=FastLoop) as runner:
        return sink, session, runner.run(main())


def arrivals(*readings: Reading) -> list[Arrival]:
    return [Arrival(MEASUREMENT, reading.encode(), n + 1) for n, reading in enumerate(readings)]


def test_bytes_are_durable_before_they_are_decoded_and_observations_name_them() -> None:
    sink, session, _ = link(ScriptedTransport(arrivals(READING, READING), ends=GONE))
    raws = [n for n, record in enumerate(sink.records, 1) if isinstance(record, Raw)]
    assert session.held == raws
    first = sink.records[0]
    assert isinstance(first, Raw)
    assert (first.source, first.data, first.at_ns) == (MEASUREMENT, READING.encode(), 1)
    told = [o.decoded for o in sink.observations()]
    assert told == [Decoded(raw, index) for raw in raws for index in range(3)]


@pytest.mark.parametrize(
    "answer",
    [Malformed("short", b"\x01"), [Malformed("odd", b"\x01")], ZeroDivisionError()],
)
def test_what_a_driver_cannot_read_is_kept_all_the_same(
    answer: Exception | Iterable[Output],
) -> None:
    sink, _, end = link(ScriptedTransport(arrivals(READING), ends=GONE), answer)
    assert isinstance(sink.records[0], Raw)
    assert sink.records[0].data == READING.encode()
    assert sink.observations() == []
    assert isinstance(end, ZeroDivisionError) == isinstance(answer, ZeroDivisionError)


def test_a_device_that_measures_all_the_time_has_no_raw_records() -> None:
    driver = replace(DRIVER, continuous=True)
    sink, _, _ = link(ScriptedTransport(arrivals(READING), ends=GONE), driver=driver)
    assert not any(isinstance(record, Raw) for record in sink.records)
    assert {o.decoded for o in sink.observations()} == {None}


class DropsAtOnce(ScriptedTransport):
    """Its reading has arrived, and the link is gone, before the subscription is answered."""

    async def subscribe(self, characteristic: str) -> None:
        await super().subscribe(characteristic)
        raise GONE


def test_a_reading_that_came_before_the_link_was_lost_is_taken() -> None:
    sink, _, end = link(DropsAtOnce(arrivals(READING, READING), ends=GONE))
    assert end is GONE
    assert len([record for record in sink.records if isinstance(record, Raw)]) == 2
    assert len(sink.observations()) == 6


# --- The whole way: a cuff over BlueZ into a journal ---------------------------------------------------


class Watching(BloodPressureSession):
    """Looks into the journal at the moment of decoding."""

    journal: Journal

    def __init__(self, options: Mapping[str, object]) -> None:
        super().__init__(options)
        self.found: list[bool] = []

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterable[Output]:
        raws = [
            e.record for e in read_all(self.journal, Stream.VITALS) if isinstance(e.record, Raw)
        ]
        self.found.append(raws[-1].data == data if raws else False)
        return super().receive(source, data, now_ns)


LIMITS = Limits(connect_s=2, call_s=1, close_s=0.3, scan_s=1.0, renew_s=0.3, pause_s=0.05)


@pytest.mark.skipif(not installed(), reason="dbus-daemon is not installed")
def test_a_cuff_that_sends_and_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    readings = [READING, Reading(118, 76, 90, pulse=60), Reading(141, 93, status=3)]
    journal = open_journal(SimulatedDisk())
    session = Watching({})
    session.journal = journal

    async def deliver(cuff: BloodPressureCuff, drop: object) -> None:
        while cuff.memory:
            await cuff.deliver(drop)  # type: ignore[arg-type]
            await asyncio.sleep(0.005)

    async def main() -> None:
        clock = SystemClock()
        intake = Intake(journal, Conditioner(), clock, mode=Mode.DEMO, committed=lambda: ())
        running = asyncio.create_task(intake.run())
        async with PrivateBus(tmp_path) as bus:
            monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", bus.address)
            async with VirtualBluez(bus.address) as bluez, BleRadio(limits=LIMITS) as radio:
                cuff = BloodPressureCuff()
                cuff.memory = list(readings)
                device = bluez.add_device("02:00:00:00:BB:01", "Cuff", cuff)
                services = (assigned.BLOOD_PRESSURE_SERVICE,)
                transport = BleTransport("02:00:00:00:bb:01", services, clock, radio)
                sending = asyncio.create_task(deliver(cuff, device.drop))
                await transport.open()
                sink = intake.sink("cuff", "p-1")
                made = Link(DRIVER, session, transport, sink, clock, LinkCounters(), lambda: None)
                async with asyncio.timeout(10):
                    with pytest.raises(TransportError):
                        await made.run(Resume())
                await sending
                await transport.close()
        await intake.close()
        await running

    asyncio.run(main())
    assert session.found
    assert all(session.found)
    entries = read_all(journal, Stream.VITALS)
    raws = {e.sequence: e.record for e in entries if isinstance(e.record, Raw)}
    assert [raw.data for raw in raws.values() if raw.source == MEASUREMENT] == [
        reading.encode() for reading in readings
    ]
    pressures = [
        e.record
        for e in entries
        if isinstance(e.record, Observation) and e.record.code is Code.PRESS_BLD_NONINV
    ]
    values = [o.value.parts[0][1].value for o in pressures if isinstance(o.value, Compound)]
    assert values == [Decimal(128), Decimal(118), Decimal(141)]
    for pressure in pressures:
        assert pressure.quality.mode is Mode.DEMO
        assert pressure.decoded is not None
        assert raws[pressure.decoded.raw_sequence].at_ns == pressure.determined_at_ns


# --- Decoding anew -------------------------------------------------------------------------------------

CLOCK = ClockReading(0, 1_800_000_000_000_000_000, ClockState.SYNCHRONISED)


def pulse(rate: int, at_ns: int = 5) -> Observation:
    return Observation(Code.PULS_RATE_NON_INV, Quantity(Decimal(rate), Unit.BEAT_PER_MIN), at_ns)


class Today(BloodPressureSession):
    """Reads each byte as a pulse; adds what the session has seen before, so that its life can be seen."""

    def __init__(self, _options: Mapping[str, object]) -> None:
        super().__init__({})
        self._sum = 0

    def receive(self, source: str, data: bytes, now_ns: int) -> Iterator[Output]:
        del source
        for byte in data:
            if byte == 0xFF:
                raise ZeroDivisionError
            if byte == 0xFE:
                raise Malformed("test", data)
            self._sum += byte
            yield pulse(self._sum, now_ns)


TODAY = {"cuff": Means(replace(DRIVER, session=Today), {})}


def raw(data: bytes, link_ns: int = 1) -> Raw:
    return Raw(MEASUREMENT, data, 5, link_ns)


def again(*records: Raw | Observation, boots: str = "", boot_id: str = "a") -> Redecoded:
    """One batch a record; `boots` has a letter for each, the boot in which it was written."""
    batches = [
        Batch(
            "h", Stream.VITALS, "e", boots[n] if boots else "a", CLOCK, (Entry(n + 1, "cuff", r),)
        )
        for n, r in enumerate(records)
    ]
    return redecode(batches, TODAY, mode=Mode.DEMO, boot_id=boot_id)


def corrected(done: Redecoded) -> list[tuple[int, int, int, str]]:
    found = []
    for device, _, record in done.corrections:
        assert device == "cuff"
        assert record.decoded is not None
        assert isinstance(record.value, Quantity)
        told = record.decoded
        found.append((told.raw_sequence, told.index, told.revision, str(record.value.value)))
    return found


def first(rate: int, raw_sequence: int, index: int = 0, revision: int = 0) -> Observation:
    return replace(pulse(rate), decoded=Decoded(raw_sequence, index, revision))


def test_what_has_not_changed_is_not_issued_again() -> None:
    done = again(raw(b"\x50\x01"), first(80, 1), first(81, 1, 1))
    assert (done.raws, done.corrections) == (1, [])


def test_what_has_changed_keeps_its_identity_and_counts_the_revision_up() -> None:
    done = again(raw(b"\x50"), first(70, 1))
    assert corrected(done) == [(1, 0, 1, "80")]
    # The newest revision counts, and running once more changes nothing.
    assert corrected(again(raw(b"\x50"), first(70, 1), first(79, 1, 0, 1))) == [(1, 0, 2, "80")]
    assert again(raw(b"\x50"), first(70, 1), first(80, 1, 0, 1)).corrections == []


def test_what_nobody_could_read_before_is_issued_for_the_first_time() -> None:
    done = again(raw(b"\x50"))
    assert corrected(done) == [(1, 0, 0, "80")]
    assert done.corrections[0][2].quality.mode is Mode.DEMO


def test_what_is_no_longer_found_is_retracted_once() -> None:
    done = again(raw(b"\x50\xfe"), first(80, 1), first(3, 1, 1))
    ((_, _, record),) = done.corrections
    assert record.decoded == Decoded(1, 1, 1)
    assert (record.quality.validity, record.quality.reason) == (Validity.INVALID, RETRACTED)
    assert again(raw(b"\x50\xfe"), first(80, 1), first(3, 1, 1), record).corrections == []


def test_a_failing_driver_changes_nothing_and_is_counted() -> None:
    done = again(raw(b"\xff"), first(80, 1), raw(b"\x50", 2))
    assert done.failed == 1
    assert corrected(done) == [(3, 0, 0, "80")]


def test_each_link_has_a_session_of_its_own() -> None:
    done = again(raw(b"\x01"), raw(b"\x01"), raw(b"\x01", 2), raw(b"\x01", 2), boots="aaab")
    assert [text for *_, text in corrected(done)] == ["1", "2", "1", "1"]


def test_a_correction_in_another_boot_says_whose_time_it_has() -> None:
    done = again(raw(b"\x50"), first(70, 1), boots="aa", boot_id="b")
    ((_, _, record),) = done.corrections
    assert record.decoded == Decoded(1, 0, 1, "a")
    assert again(raw(b"\x50"), first(70, 1), record, boots="aab", boot_id="c").corrections == []


def test_what_is_not_configured_or_not_readable_is_counted() -> None:
    batch = Batch("h", Stream.VITALS, "e", "a", CLOCK, (Entry(1, "scale", raw(b"\x01")),))
    damage = Damage(Stream.VITALS, 2, 4, "checksum")
    done = redecode([batch, damage], TODAY, mode=Mode.REAL, boot_id="a")
    assert (done.unknown, done.unreadable, done.raws) == (1, 3, 0)


CONFIG = """
[hub]
id = "hub-1"
state_dir = "."
[broker]
host = "localhost"
[[device]]
id = "cuff"
driver = "blood-pressure"
address = "C0:00:00:00:00:01"
"""


def test_the_command_corrects_a_stopped_hub_and_leaves_a_running_one_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wardlink.toml").write_text(CONFIG, encoding="utf-8")
    arguments = ["journal", "redecode", "--config", str(tmp_path / "wardlink.toml")]
    assert cli.main(arguments) == cli.FAILED  # there is no journal, and none is made
    assert not (tmp_path / "journal").exists()
    capsys.readouterr()

    def open_it() -> Journal:
        return Journal.open(
            tmp_path / "journal",
            hub="hub-1",
            clock=SystemClock(),
            hub_key=HubKey.load_or_create(tmp_path / "identity.key"),
            max_bytes=64 << 20,
        )

    journal = open_it()
    journal.append("cuff", Raw(MEASUREMENT, READING.encode(), 5, 1), "p-1")
    wrong = replace(pulse(1), decoded=Decoded(1, 1))
    journal.append("cuff", wrong, "p-1")
    journal.commit()
    assert cli.main(arguments) == cli.FAILED
    assert "another process has it open" in capsys.readouterr().err
    journal.close()
    assert cli.main([*arguments, "--dry-run", "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out)["corrected"] == 3
    assert cli.main(arguments) == cli.OK
    assert (
        "1 raw records on this hub: 3 observations corrected, 0 failed" in capsys.readouterr().out
    )
    assert cli.main([*arguments, "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out)["corrected"] == 0
    journal = open_it()
    entries = read_all(journal, Stream.VITALS)[2:]
    told = [e.record.decoded for e in entries if isinstance(e.record, Observation)]
    assert told == [Decoded(1, 0), Decoded(1, 1, 1), Decoded(1, 2)]
    assert {e.subject for e in entries} == {"p-1"}
    assert journal.take_damage() == []
    journal.close()


def test_what_another_key_sealed_is_the_receivers_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "wardlink.toml").write_text(CONFIG, encoding="utf-8")
    journal = Journal.open(
        tmp_path / "journal",
        hub="hub-1",
        clock=SystemClock(),
        hub_key=HubKey.generate(),
        max_bytes=64 << 20,
    )
    journal.append("cuff", Raw(MEASUREMENT, READING.encode(), 5, 1))
    journal.close()
    HubKey.load_or_create(tmp_path / "identity.key")
    assert cli.main(["journal", "redecode", "--config", str(tmp_path / "wardlink.toml")]) == cli.OK
    captured = capsys.readouterr()
    assert "0 raw records" in captured.out
    assert "the receiver's to do" in captured.err


def test_the_cuff_is_a_spot_driver() -> None:
    spot = {name for name, driver in registry.all_drivers().items() if not driver.continuous}
    assert spot == {"blood-pressure"}

"""Whatever the wall clock does, times come out true: a real journal, uplink and receiver, beside a model of true time."""

import base64
import json
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    rule,
    run_state_machine_as_test,
)

from drivers.assigned import Code, Unit
from drivers.model import ClockReading, ClockState, Observation, Quantity
from gateway.cli import main
from gateway.cli_inspect import lines as export_lines
from gateway.clock import BUILT_NS
from gateway.clock_watch import ClockLog
from gateway.config.hub import Hub
from gateway.journal.entry import Batch, SealedBatch, Stream
from gateway.journal.inspect import JournalFiles
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.readers import ClinicKey, Reader, choose
from gateway.journal.storage import DISK, Storage
from gateway.receiver.checks import Checker
from gateway.receiver.intake import Intake
from gateway.receiver.ledger import Key
from gateway.receiver.lines import LinesStore
from gateway.receiver.retime import learn_lines, retime_line
from gateway.timeline import RATE_PPM, Boot
from gateway.uplink.fields import dumps
from gateway.uplink.notice import Mark, Notices
from gateway.uplink.payload import decode
from gateway.uplink.retimed import Retimed
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, Slice, slices
from gateway.waveform import WaveformCodec
from tests.gateway.journal.simulated_disk import SimulatedDisk
from tests.gateway.uplink.bench import OneProcess, said, sealed_slice

S = 1_000_000_000
DAY = 86_400 * S
KEY, CLINIC = HubKey.generate(), ClinicKey.generate()
ROUNDING_NS = 2_000
"""Times are written with microseconds."""
HUB = Hub("hub-1", "ward", Path("unused"), Path("unused"))


class SimulatedClock:
    """A hub's clocks beside true time. The crystal runs off by up to RATE_PPM; a time server may set the wall clock."""

    def __init__(self, true_ns: int) -> None:
        self.true_ns = true_ns
        self.boots = 0
        self.boot_id = ""

    def boot(self, wall_ns: int) -> None:
        """The hub starts. Its wall clock begins where it does."""
        self.boots += 1
        self.boot_id = f"boot-{self.boots}"
        self._boottime_ns = 2 * S
        self.true_ns += 2 * S
        self._offset_ns = wall_ns - self._boottime_ns
        self._error_ns: int | None = None
        self.ppm = 0

    def off(self, span_ns: int) -> None:
        """True time goes on without the hub."""
        self.true_ns += span_ns

    def go(self, span_ns: int) -> None:
        """Time passes, and the crystal does what it does."""
        self.true_ns += span_ns
        self._boottime_ns += span_ns + span_ns * self.ppm // 1_000_000
        if self._error_ns is not None:
            self._error_ns += span_ns * RATE_PPM // 1_000_000 + 1

    def step(self, by_ns: int) -> None:
        """Somebody sets the clock by hand: the kernel calls it unsynchronised from then on."""
        self._offset_ns += by_ns
        self._error_ns = None

    def synchronise(self, wrong_by_ns: int, error_ns: int) -> None:
        """A time server sets the clock, and says how well."""
        self._offset_ns = self.true_ns + wrong_by_ns - self._boottime_ns
        self._error_ns = error_ns

    def forget(self) -> None:
        """No time server was heard for long."""
        self._error_ns = None

    def boottime_ns(self) -> int:
        return self._boottime_ns

    def read(self) -> ClockReading:
        wall_ns = self._boottime_ns + self._offset_ns
        if self._error_ns is not None:
            state = ClockState.SYNCHRONISED
        else:
            state = ClockState.UNSET if wall_ns < BUILT_NS else ClockState.RESTORED
        return ClockReading(self._boottime_ns, wall_ns, state, self._error_ns)


class TrueClock:
    """The receiver's own: it does not matter here."""

    boot_id = "cloud"

    def boottime_ns(self) -> int:
        return 1

    def read(self) -> ClockReading:
        return ClockReading(1, BUILT_NS, ClockState.RESTORED)


@dataclass
class Truth:
    """When a record was truly made."""

    true_ns: int
    boot_id: str
    boottime_ns: int


def wall_ns(text: str) -> int:
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")
    return (datetime.fromisoformat(text) - epoch) // timedelta(microseconds=1) * 1000


def pieces(batch: Batch, after: int) -> list[Slice]:
    if isinstance(batch, SealedBatch):
        return [sealed_slice(batch, after)]
    return list(slices(batch, after, 1 << 30, MAX_PAYLOAD_BYTES))


class Ward:
    """A hub, its journal, its uplink and a receiver with its files."""

    def __init__(self, folder: Path, *, sealed: bool = False) -> None:
        self.folder = folder
        self.clock = SimulatedClock(BUILT_NS + 400 * DAY)
        self.disk: Storage = SimulatedDisk()
        self.directory = Path("/journal")
        self.readers: tuple[Reader, ...] = ()
        if sealed:
            (folder / "clinic.pub").write_text(CLINIC.public_text, encoding="ascii")
            self.readers = choose("clinic", KEY.reader, folder / "clinic.pub")
        self.truths: dict[int, Truth] = {}
        self.sent = dict.fromkeys(Stream, 0)
        self.journal: Journal | None = None
        self.receive_anew()

    def receive_anew(self) -> None:
        """The receiver starts, with the files of the one before."""
        verify = base64.b64encode(KEY.verify_key).decode()
        store = LinesStore(self.folder / "lines", self.folder / "state", TrueClock())
        self.intake = Intake(
            Checker("ward", {"hub-1": verify}, CLINIC), store, TrueClock(), grace_s=0
        )
        self.store = store

    def boot(self, wall_ns: int) -> None:
        if self.journal is not None:
            self.journal.close()
        self.clock.boot(wall_ns)
        self.journal = Journal.open(
            self.directory,
            hub="hub-1",
            clock=self.clock,
            hub_key=KEY,
            max_bytes=64 * 65_536,
            readers=self.readers,
            storage=self.disk,
            segment_bytes=65_536,
        )
        self.log = ClockLog(None)
        self.source = Retimed(OneProcess(self.journal), self.clock)
        self.commit()

    def record(self) -> None:
        assert self.journal is not None
        value = Quantity(Decimal(len(self.truths)), Unit.BEAT_PER_MIN)
        at_ns = self.clock.boottime_ns()
        sequence = self.journal.append("belt", Observation(Code.ECG_HEART_RATE, value, at_ns))
        self.truths[sequence] = Truth(self.clock.true_ns, self.clock.boot_id, at_ns)

    def commit(self) -> None:
        assert self.journal is not None
        event = self.log.look(self.clock.read())
        if event is not None:
            self.journal.append("", event)
        self.journal.commit()

    def deliver(self, streams: tuple[Stream, ...] = tuple(Stream), batches: int = 1000) -> None:
        assert self.journal is not None
        notices = Notices(HUB, "test", self.journal.epoch)
        for stream in streams:
            for _ in range(batches):
                batch = self.source.read(stream, self.sent[stream])
                if batch is None:
                    break
                # Undecoded it has the same time.
                undecoded = self.source.read_packed(
                    stream, self.sent[stream], batch.last_sequence, 0
                )
                assert [(b.clock, b.stamped) for b in undecoded] == [(batch.clock, batch.stamped)]
                for piece in pieces(batch, self.sent[stream]):
                    self.intake.take([said(notices.topic(stream), piece.payload, KEY)])
                self.sent[stream] = batch.last_sequence
        self.heartbeat()

    def heartbeat(self) -> None:
        assert self.journal is not None
        notices = Notices(HUB, "test", self.journal.epoch)
        marks = {s: Mark.in_order(self.journal.high_water(s), self.sent[s]) for s in Stream}
        beat = notices.heartbeat(self.clock, marks)
        self.intake.take([said(beat.topic, beat.payload, KEY)])

    # --- What came of it ---------------------------------------------------------------------------------

    def written(self) -> list[bytes]:
        return (self.folder / "lines").read_bytes().splitlines(keepends=True)

    def retimed(self) -> list[dict[str, Any]]:
        """The vitals as they stand after all that is known, which twice is the same as once."""
        lines = self.written()
        journals = learn_lines(lines)
        once = [retime_line(line, journals) for line in lines]
        again = learn_lines(once)
        assert [retime_line(line, again) for line in once] == once
        return vitals(once)

    def check(self) -> None:
        """Every line is true as it was written, and after all that is known."""
        for line in vitals(self.written()):
            self.check_line(line)
        retimed = self.retimed()
        for line in retimed:
            self.check_line(line)
        self.check_intervals(retimed)

    def check_line(self, line: dict[str, Any]) -> None:
        truth, record = self.truths[line["sequence"]], line["record"]
        assert (line["boot_id"], record["boottime_ns"]) == (truth.boot_id, truth.boottime_ns)
        match record["clock"]:
            case "synchronised":
                off_ns = abs(wall_ns(record["time"]) - truth.true_ns)
                assert off_ns <= record["error_ns"] + ROUNDING_NS
            case "unset":
                assert record["time"] is None
                assert "error_ns" not in record
            case _:
                assert record["time"] is not None
                assert "error_ns" not in record
        if record["clock"] != "synchronised":
            assert wall_ns(record["not_before"]) <= truth.true_ns + ROUNDING_NS
            if "not_after" in record:
                assert truth.true_ns <= wall_ns(record["not_after"]) + ROUNDING_NS

    def check_intervals(self, lines: list[dict[str, Any]]) -> None:
        """Order and differences within a boot are those of boottime."""
        ordered = sorted(lines, key=lambda line: line["sequence"])
        for left, right in pairwise(ordered):
            a, b = left["record"], right["record"]
            if left["boot_id"] != right["boot_id"] or a["time"] is None:
                continue
            assert a["clock"] == b["clock"]
            span_ns = b["boottime_ns"] - a["boottime_ns"]
            assert abs(wall_ns(b["time"]) - wall_ns(a["time"]) - span_ns) <= ROUNDING_NS
            assert wall_ns(b["time"]) >= wall_ns(a["time"])

    def close(self) -> None:
        if self.journal is not None:
            self.journal.close()
        self.store.close()


def vitals(lines: list[bytes]) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in lines]
    return [x for x in found if x["type"] == "entry" and x["stream"] == "vitals"]


SPANS = st.one_of(st.integers(1_000, S), st.integers(S, DAY), st.integers(DAY, 9 * DAY))


class TimeMachine(RuleBasedStateMachine):
    sealed = False

    @initialize(ahead=st.booleans())
    def begin(self, ahead: bool) -> None:  # noqa: FBT001
        self.folder = tempfile.TemporaryDirectory()
        self.ward = Ward(Path(self.folder.name), sealed=self.sealed)
        self.ward.boot(self.ward.clock.true_ns - DAY if ahead else 0)

    def teardown(self) -> None:
        if hasattr(self, "ward"):
            self.deliver(list(Stream), 1000)
            self.ward.close()
            self.folder.cleanup()

    @rule(span=SPANS, ppm=st.integers(-RATE_PPM + 1, RATE_PPM - 1))
    def go(self, span: int, ppm: int) -> None:
        self.ward.clock.ppm = ppm
        self.ward.clock.go(span)

    @rule(count=st.integers(1, 3), spans=SPANS)
    def record(self, count: int, spans: int) -> None:
        for _ in range(count):
            self.ward.record()
            self.ward.clock.go(spans // 1000)
        self.ward.commit()

    @rule(by=st.sampled_from([-DAY, DAY, -S, S, -30_000_000, -400 * DAY]))
    def step(self, by: int) -> None:
        self.ward.clock.step(by)

    @rule(off=st.floats(-1, 1), error=st.sampled_from([1_000, 5_000_000, 2 * S]))
    def synchronise(self, off: float, error: int) -> None:
        self.ward.clock.synchronise(int(off * error), error)
        self.ward.commit()

    @rule()
    def forget(self) -> None:
        self.ward.clock.forget()

    @rule(off=SPANS, wall=st.sampled_from(["1970", "lags", "right"]))
    def reboot(self, off: int, wall: str) -> None:
        clock = self.ward.clock
        stopped = clock.read().wall_ns
        clock.off(off)
        self.ward.boot(
            {"1970": 0, "lags": max(0, stopped - 3600 * S), "right": max(0, stopped)}[wall]
        )

    @rule(
        streams=st.permutations(list(Stream)),
        batches=st.sampled_from([1, 2, 1000]),
    )
    def deliver(self, streams: list[Stream], batches: int) -> None:
        self.ward.commit()
        self.ward.deliver(tuple(streams), batches)
        self.ward.check()

    @rule(saved=st.booleans())
    def receive_anew(self, saved: bool) -> None:  # noqa: FBT001
        if saved:
            self.ward.store.sync()
        self.ward.store.close()
        self.ward.receive_anew()

    @rule()
    def uplink_anew(self) -> None:
        assert self.ward.journal is not None
        self.ward.source = Retimed(OneProcess(self.ward.journal), self.ward.clock)


class SealedTimeMachine(TimeMachine):
    sealed = True


@pytest.mark.parametrize("machine", [TimeMachine, SealedTimeMachine])
def test_times_are_true_whatever_the_clock_does(machine: type[TimeMachine]) -> None:
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=25,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


# --- Stories ---------------------------------------------------------------------------------------------


@pytest.fixture(params=[False, True], ids=["plain", "sealed"])
def ward(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Ward]:
    made = Ward(tmp_path, sealed=request.param)
    yield made
    made.close()


def used(ward: Ward, records: int = 3, every_ns: int = 3600 * S) -> None:
    for _ in range(records):
        ward.clock.go(every_ns)
        ward.record()
        ward.commit()


def clocks(lines: list[dict[str, Any]]) -> list[str]:
    return [line["record"]["clock"] for line in lines]


def test_what_was_sent_before_the_first_synchronisation_is_repaired(ward: Ward) -> None:
    ward.boot(0)
    used(ward)
    ward.deliver()
    assert clocks(vitals(ward.written())) == ["unset"] * 3
    ward.clock.go(S)
    ward.clock.synchronise(1_000_000, 5_000_000)
    ward.heartbeat()
    ward.check()
    assert clocks(vitals(ward.written())) == ["unset"] * 3, "lines are never rewritten"
    retimed = ward.retimed()
    assert clocks(retimed) == ["synchronised"] * 3
    # Three hours before the synchronisation at most: 5 ms, and what a crystal may do in three hours.
    assert all(line["record"]["error_ns"] < 5_000_000 + 3 * 360_000_000 for line in retimed)


def test_what_waits_is_sent_with_the_better_time_and_says_so(ward: Ward) -> None:
    ward.boot(0)
    used(ward)
    assert ward.journal is not None
    stored = ward.journal.read(Stream.VITALS, 0)
    assert stored is not None
    ward.clock.synchronise(0, 5_000_000)
    batch = ward.source.read(Stream.VITALS, 0)
    assert batch is not None
    if isinstance(batch, SealedBatch):
        assert batch == stored
    else:
        assert batch.stamped == stored.clock
        assert batch.clock.state is ClockState.SYNCHRONISED
        assert batch.clock.boottime_ns == stored.clock.boottime_ns
        [piece] = pieces(batch, 0)
        assert decode(piece.payload).batch == batch
    ward.commit()
    ward.deliver()
    ward.check()
    # The clock's own record came first, so even a sealed hub's are right as they are written.
    assert clocks(vitals(ward.written())) == ["synchronised"] * 3


def test_another_boots_batches_leave_as_they_are(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.boot(0)
    used(ward)
    ward.boot(0)
    ward.clock.synchronise(0, 1_000)
    batch = ward.source.read(Stream.VITALS, 0)
    assert batch is not None
    assert (batch.boot_id, batch.clock.state, batch.stamped) == ("boot-1", ClockState.UNSET, None)
    ward.close()


def test_three_reboots_offline(ward: Ward) -> None:
    ward.boot(0)
    ward.clock.synchronise(0, 1_000_000)
    used(ward)
    for off_ns in (DAY, 2 * DAY, 3600 * S):
        ward.clock.off(off_ns)
        ward.boot(0)
        used(ward)
    ward.deliver()
    ward.check()
    assert clocks(ward.retimed()) == ["synchronised"] * 3 + ["unset"] * 9
    assert all("not_after" not in line["record"] for line in ward.retimed())
    ward.clock.off(DAY)
    ward.boot(0)
    ward.clock.synchronise(0, 1_000_000)
    used(ward)
    ward.deliver()
    ward.check()
    lines = ward.retimed()
    assert clocks(lines) == ["synchronised"] * 3 + ["unset"] * 9 + ["synchronised"] * 3
    offline = [line["record"] for line in lines if line["record"]["clock"] == "unset"]
    bounds = [(wall_ns(r["not_before"]), wall_ns(r["not_after"])) for r in offline]
    # Within one boot they move on with boottime, from boot to boot at least by the uptime between.
    assert bounds == sorted(bounds)
    width_ns = bounds[0][1] - bounds[0][0]
    off_ns = DAY + 2 * DAY + 3600 * S + DAY
    assert off_ns <= width_ns < off_ns + 60 * S, (
        "what is not known is how the time off is shared out"
    )


def test_a_restored_clock_that_lags_is_told_as_such_and_bounded(ward: Ward) -> None:
    ward.boot(0)
    ward.clock.synchronise(0, 1_000_000)
    used(ward)
    lagging_ns = ward.clock.read().wall_ns
    ward.clock.off(6 * DAY)
    ward.boot(lagging_ns)
    used(ward)
    ward.deliver()
    ward.check()
    late = ward.retimed()[-1]["record"]
    assert late["clock"] == "restored"
    assert wall_ns(late["time"]) < ward.truths[6].true_ns - 5 * DAY
    ward.clock.synchronise(0, 1_000_000)
    ward.commit()
    ward.deliver()
    ward.check()
    assert clocks(ward.retimed()) == ["synchronised"] * 6


@pytest.mark.parametrize("by_ns", [DAY, -DAY, 600_000_000, -600_000_000])
def test_a_synchronisation_that_was_wrong_is_corrected_for_all_of_its_boot(
    ward: Ward, by_ns: int
) -> None:
    """A time server lied; the next one is right: no interval gets negative, and the earlier records come right."""
    ward.boot(0)
    ward.clock.synchronise(by_ns, 1_000_000)
    ward.commit()
    used(ward)
    ward.deliver()
    ward.clock.synchronise(0, 1_000_000)
    used(ward)
    ward.deliver()
    retimed = ward.retimed()
    for line in retimed:
        ward.check_line(line)
    ward.check_intervals(retimed)


def test_what_came_before_the_correction_cannot_undo_it(tmp_path: Path) -> None:
    """A sealed backlog that carries the wrong clock arrives last."""
    ward = Ward(tmp_path, sealed=True)
    ward.boot(0)
    ward.clock.synchronise(-DAY, 1_000_000)
    used(ward)
    ward.clock.synchronise(0, 1_000_000)
    ward.heartbeat()
    ward.deliver((Stream.VITALS,))
    ward.check()
    ward.close()


@pytest.mark.parametrize("is_saved", [False, True])
def test_a_receiver_that_starts_anew_knows_what_the_last_one_knew(
    ward: Ward,
    is_saved: bool,  # noqa: FBT001
) -> None:
    ward.boot(0)
    ward.clock.synchronise(0, 1_000_000)
    used(ward)
    ward.deliver()
    for _ in range(2):
        ward.clock.off(DAY)
        ward.boot(0)
        used(ward)
        ward.deliver()
    ward.clock.off(DAY)
    ward.boot(0)
    ward.clock.synchronise(0, 1_000_000)
    ward.deliver()
    before = ward.store.ledger.timelines
    if is_saved:
        ward.store.sync()
    ward.store.close()
    ward.receive_anew()
    for name, timeline in before.items():
        kept = {boot.boot_id: boot for boot in ward.store.ledger.timelines[name]}
        for boot in timeline:
            found = kept[boot.boot_id]
            assert (
                found == boot
                if is_saved
                else (found.relation, found.alarm)
                == (
                    boot.relation,
                    boot.alarm,
                )
            )
    # The clock is known already: nothing is said twice.
    ward.heartbeat()
    said_clocks = [json.loads(line) for line in ward.written() if b'"type":"clock"' in line]
    assert len(said_clocks) == len({(c["boot_id"], c["wall_ns"]) for c in said_clocks})
    ward.check()


def test_a_transaction_that_fails_leaves_no_trace_in_the_clocks(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.boot(0)
    ward.clock.synchronise(0, 1_000)
    ledger, _ = ward.store.begin([Key("hub-1", Stream.ALARM, "e")], ["hub-1"])
    ledger.timeline("hub-1", "e").keep(Boot("b").lasted(5))
    ward.store.rollback()
    assert ward.store.ledger.timelines == {}
    ledger, _ = ward.store.begin([Key("hub-1", Stream.ALARM, "e")], ["hub-1"])
    ledger.timeline("hub-1", "e").keep(Boot("b").lasted(5))
    ward.store.commit([])
    ledger, _ = ward.store.begin([Key("hub-1", Stream.ALARM, "e")], ["hub-1"])
    assert [*ledger.timeline("hub-1", "e")] == [Boot("b").lasted(5)]
    ward.close()


def test_the_command_writes_what_is_known_now(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    ward = Ward(tmp_path)
    ward.boot(0)
    used(ward)
    ward.deliver()
    ward.clock.go(S)
    ward.clock.synchronise(0, 1_000)
    ward.heartbeat()
    ward.close()
    before = ward.written()
    with (tmp_path / "lines").open("ab") as file:
        file.write(b"no line\n")
    assert main(["retime", str(tmp_path / "lines")]) == 0
    printed = capsysbinary.readouterr().out.splitlines(keepends=True)
    assert clocks(vitals(printed[:-1])) == ["synchronised"] * 3
    assert printed[-1] == b"no line\n"
    assert [*printed[:-1]] != before
    output = tmp_path / "better"
    assert main(["retime", str(tmp_path / "lines"), "--output", str(output)]) == 0
    assert output.read_bytes() == b"".join(printed)
    assert main(["retime", str(tmp_path / "lines"), "--output", str(output)]) == 1
    assert b"File exists" in capsysbinary.readouterr().err
    assert ward.written()[:-1] == before


def test_an_export_has_the_times_that_the_journal_knows(tmp_path: Path) -> None:
    ward = Ward(tmp_path)
    ward.disk, ward.directory = DISK, tmp_path / "journal"
    ward.boot(0)
    used(ward)
    for _ in range(2):
        ward.clock.off(DAY)
        ward.boot(0)
        used(ward)
    ward.clock.synchronise(0, 1_000_000)
    ward.commit()
    ward.close()
    files = JournalFiles(tmp_path / "journal", WaveformCodec())
    lines = [json.loads(dumps(line)) for line in export_lines(files, KEY, Stream.VITALS, None)]
    assert clocks(lines) == ["unset"] * 6 + ["synchronised"] * 3
    for line in lines:
        ward.check_line(line)
    assert all("not_after" in line["record"] for line in lines[:6])
    ward.check_intervals(lines)


def test_an_uplink_that_starts_after_the_synchronisation_was_lost_learns_it_from_the_batches(
    tmp_path: Path,
) -> None:
    ward = Ward(tmp_path)
    ward.boot(0)
    ward.clock.synchronise(0, 1_000_000)
    used(ward, records=1)
    ward.clock.step(DAY)
    used(ward, records=1)
    assert ward.journal is not None
    ward.source = Retimed(OneProcess(ward.journal), ward.clock)
    good, lost = ward.source.read(Stream.VITALS, 0), ward.source.read(Stream.VITALS, 1)
    assert good is not None
    assert lost is not None
    assert good.stamped is None
    assert lost.stamped is not None
    assert lost.stamped.state is ClockState.RESTORED
    assert lost.clock.state is ClockState.SYNCHRONISED
    assert lost.clock.wall_ns == good.clock.wall_of(lost.clock.boottime_ns)
    ward.close()

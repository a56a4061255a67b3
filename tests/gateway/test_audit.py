"""From decided commands to the audit stream: each once, whatever crashes, and whatever stands in the files."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from pathlib import Path
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.model import Event, EventKind, Mode, Record
from gateway.audit import Audit
from gateway.clock import ClockReading, ClockState
from gateway.intake import Intake
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.slots import SLOT_BYTES, Slots, pack_slot
from gateway.journal.storage import DISK
from gateway.spool import (
    BLOCKS,
    MARK,
    RING,
    Block,
    Decision,
    Mark,
    Spool,
    SpoolFull,
    make_ring,
    read_ring,
)
from gateway.verbosity import Verbosity
from tests.gateway.fakes import LoopClock
from tests.gateway.journal.builders import KEY, FixedClock, audit, open_journal, read_all
from tests.gateway.journal.simulated_disk import PowerCutError, SimulatedDisk

STATE = Path("/state")
HISTORIES = 40
NOW_NS = 1_800_000_000_000_000_000
READING = ClockReading(5, NOW_NS, ClockState.SYNCHRONISED, 1_000_000)


def decision(number: int, outcome: str = "accepted", valid_until_ns: int = 1) -> Decision:
    until_ns = valid_until_ns if outcome == "accepted" else None
    name = number.to_bytes(16, "big")
    return Decision("boot-1", READING, "ward-1", name, "status", "", outcome, until_ns)


class Quiet(Verbosity):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__(FixedClock())
        self.told: list[tuple[str, int]] = []

    def raise_until(self, level: str, until_ns: int) -> None:
        self.told.append((level, until_ns))


def commands_in(journal: Journal) -> list[Event]:
    return [
        entry.record
        for entry in read_all(journal, Stream.AUDIT)
        if isinstance(entry.record, Event) and entry.record.kind is EventKind.COMMAND
    ]


class Hub:
    """Both halves on one simulated disk. Either may die by itself, or both with the power."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.disk = SimulatedDisk()
        self.disk.make_directory(STATE)
        self.durable: list[bytes] = []
        self.tried = 0
        self.spool: Spool | None = None
        self.journal: Journal | None = None
        self.audit: Audit | None = None

    def start_uplink(self) -> Spool:
        self.spool = Spool(STATE, self.disk, self.random.randbytes)
        if self.spool.damaged:
            self.spool.mend(decision(0, "damaged"))
        return self.spool

    def start_acquire(self) -> None:
        self.journal = open_journal(self.disk, STATE / "journal")
        self.audit = Audit(
            STATE,
            FixedClock(),
            epoch=self.journal.epoch,
            high_water=self.journal.high_water(Stream.AUDIT),
            damage=self.journal.recovery.damage,
            storage=self.disk,
        )
        self.journal.append("", audit(1))  # "started" takes the next number
        if self.random.random() < 0.5:
            self.journal.commit()

    async def keep(self, event: Event, before: Callable[[int], None]) -> int:
        journal = self.journal
        assert journal is not None
        for _ in range(self.random.randrange(3)):
            journal.append("", audit(2))
        number = journal.following(Stream.AUDIT)
        before(number)
        assert journal.append("", event) == number
        for _ in range(self.random.randrange(2)):
            journal.append("", audit(3))
        journal.commit()
        return number

    def decide(self) -> None:
        self.tried += 1
        made = decision(self.tried, self.random.choice(["accepted", "expired"]))
        spool = self.spool or self.start_uplink()
        spool.write(made, NOW_NS)
        self.durable.append(made.command_id)

    async def take_up(self) -> None:
        if self.audit is None:
            self.start_acquire()
        assert self.audit is not None
        make_ring(self.disk, STATE)
        await self.audit.take_up(self.keep, Quiet())

    async def live(self) -> None:
        """Until something dies: the half that was at work, the other one too, or both with the power."""
        self.disk.steps_left = self.random.randrange(1, 60)
        at_work = ""
        try:
            while True:
                at_work = "uplink"
                for _ in range(self.random.randrange(4)):
                    self.decide()
                at_work = "acquire"
                await self.take_up()
        except PowerCutError:
            self.disk.steps_left = None
        power = self.random.random() < 0.6
        if power or at_work == "uplink" or self.random.random() < 0.5:
            self.spool = None
        if power or at_work == "acquire" or self.random.random() < 0.5:
            self.audit = self.journal = None
            self.disk.locked.clear()
        if power:
            self.disk.crash(self.random)


async def lives(hub: Hub) -> Counter[bytes]:
    """How often each decision is in the journal, after a dozen deaths."""
    for _ in range(12):
        await hub.live()
    await hub.take_up()
    assert hub.journal is not None
    return Counter(event.data for event in commands_in(hub.journal) if event.data.strip(b"\0"))


@pytest.mark.parametrize("seed", range(HISTORIES))
def test_each_decision_is_journalled_once_whatever_dies(seed: int) -> None:
    hub = Hub(Random(seed))
    found = asyncio.run(lives(hub))
    assert [name for name, count in found.items() if count > 1] == [], f"seed {seed}: twice"
    assert [name for name in hub.durable if name not in found] == [], f"seed {seed}: lost"
    assert len(hub.durable) >= 5


def test_the_simulation_meets_what_it_is_for() -> None:
    """Without the number that is noted beforehand, something comes twice in such histories."""

    async def forgetful(hub: Hub, event: Event, before: Callable[[int], None]) -> int:
        del before
        assert hub.journal is not None
        number = hub.journal.append("", event)
        hub.journal.commit()
        return number

    for seed in range(HISTORIES):
        hub = Hub(Random(seed))
        hub.keep = partial(forgetful, hub)  # type: ignore[method-assign]
        if max(asyncio.run(lives(hub)).values()) > 1:
            return
    raise AssertionError("nothing came twice")


# --- The ring ----------------------------------------------------------------------------------------


@pytest.fixture
def disk() -> SimulatedDisk:
    made = SimulatedDisk()
    made.make_directory(STATE)
    return made


def test_a_ring_remembers_what_was_executed_over_a_restart(disk: SimulatedDisk) -> None:
    Spool(STATE, disk).write(decision(1, valid_until_ns=NOW_NS + 1), NOW_NS)
    Spool(STATE, disk).write(decision(2, "expired"), NOW_NS)
    after = Spool(STATE, disk)
    assert after.was_accepted(decision(1).command_id)
    assert not after.was_accepted(decision(2).command_id)  # refused: it may come again


def fill(spool: Spool, disk: SimulatedDisk, valid_until_ns: int) -> None:
    for number in range(1, BLOCKS + 1):
        spool.write(decision(number, valid_until_ns=valid_until_ns), NOW_NS)
    newest = read_ring(disk, STATE / RING).newest
    assert newest is not None
    write_mark(disk, Mark(newest.life, BLOCKS))


def write_mark(disk: SimulatedDisk, mark: Mark) -> None:
    Slots(STATE / MARK, disk).write(mark.pack())


def test_what_is_valid_still_is_not_forgotten(disk: SimulatedDisk) -> None:
    spool = Spool(STATE, disk)
    fill(spool, disk, NOW_NS)
    for now_ns in (NOW_NS, None):
        with pytest.raises(SpoolFull, match="valid still"):
            spool.write(decision(900), now_ns)
    spool.write(decision(901), NOW_NS + 1)
    assert not spool.was_accepted(decision(1).command_id)
    # Nothing that was valid as long may come again, whatever the clock says later.
    assert spool.remembers_from(None)[0] == NOW_NS
    assert Spool(STATE, disk).remembers_from(None)[0] == NOW_NS


def test_what_the_journal_has_not_is_not_overwritten(disk: SimulatedDisk) -> None:
    spool = Spool(STATE, disk)
    fill(spool, disk, 1)
    life = spool._life
    for mark in (Mark(), Mark(life, 0), Mark(b"another!", 500)):
        write_mark(disk, mark)
        with pytest.raises(SpoolFull, match="journal"):
            spool.write(decision(900), NOW_NS)
    write_mark(disk, Mark(life, 1))
    spool.write(decision(900), NOW_NS)


def test_a_memory_that_begins_refuses_what_was_sent_before(disk: SimulatedDisk) -> None:
    spool = Spool(STATE, disk)
    assert spool.remembers_from(None) == (0, None)
    assert spool.remembers_from(7) == (0, 7)
    assert spool.remembers_from(9) == (0, 7)
    spool.write(decision(1), NOW_NS)
    assert Spool(STATE, disk).remembers_from(11) == (0, 7)


def spoil(disk: SimulatedDisk, number: int) -> None:
    with disk.open(STATE / RING) as file:
        file.pwrite(b"\xff", number % BLOCKS * SLOT_BYTES + 20)
        file.datasync()


async def taken_up(disk: SimulatedDisk, journal: Journal, quiet: Quiet | None = None) -> Audit:
    made = Audit(STATE, FixedClock(), epoch=journal.epoch, high_water=0, damage=(), storage=disk)

    async def keep(event: Event, before: Callable[[int], None]) -> int:
        before(journal.following(Stream.AUDIT))
        number = journal.append("", event)
        journal.commit()
        return number

    await made.take_up(keep, quiet or Quiet())
    return made


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_damaged_block_is_named_and_forgets_safely(disk: SimulatedDisk, lost: int) -> None:
    spool = Spool(STATE, disk)
    spool.remembers_from(5)
    for number in (1, 2, 3):
        spool.write(decision(number), NOW_NS)
    spoil(disk, lost)
    after = Spool(STATE, disk)
    assert after.damaged == (lost,)
    assert after.remembers_from(None)[1] is None  # what was in it may have been executed
    after.mend(decision(0, "damaged"))
    assert Spool(STATE, disk).damaged == ()
    assert Spool(STATE, disk).remembers_from(None)[1] is None
    journal = open_journal(disk, STATE / "journal")
    asyncio.run(taken_up(disk, journal))
    events = commands_in(journal)
    assert [event.reason for event in events] == [
        "damaged" if number == lost else "accepted" for number in (1, 2, 3)
    ] + ["damaged"]
    assert f"records {lost} to {lost}" in events[lost - 1].text
    assert events[lost - 1].lost == 1


@pytest.mark.parametrize("seed", range(8))
def test_what_is_taken_up_outlives_the_power(seed: int) -> None:
    """A half that was killed before its sync has left a block that a power cut would give back, number and all."""
    disk = SimulatedDisk()
    disk.make_directory(STATE)
    spool = Spool(STATE, disk)
    disk.steps_left = 1  # the write, and not the sync
    with pytest.raises(PowerCutError):
        spool.write(decision(1), NOW_NS)
    disk.steps_left = None
    journal = open_journal(disk, STATE / "journal")
    asyncio.run(taken_up(disk, journal))
    assert len(commands_in(journal)) == 1
    disk.crash(Random(seed))
    Spool(STATE, disk).write(decision(2), NOW_NS)
    journal = open_journal(disk, STATE / "journal")
    asyncio.run(taken_up(disk, journal))
    assert [event.data for event in commands_in(journal)] == [
        decision(n).command_id for n in (1, 2)
    ]


def test_a_ring_made_anew_is_named(disk: SimulatedDisk) -> None:
    Spool(STATE, disk).write(decision(1), NOW_NS)
    journal = open_journal(disk, STATE / "journal")
    asyncio.run(taken_up(disk, journal))
    disk.unlink(STATE / RING)
    Spool(STATE, disk).write(decision(2), NOW_NS)
    asyncio.run(taken_up(disk, journal))
    asyncio.run(taken_up(disk, journal))
    assert [event.reason for event in commands_in(journal)] == ["accepted", "damaged", "accepted"]


def test_a_full_ring_that_nobody_reads_keeps_all(disk: SimulatedDisk) -> None:
    spool = Spool(STATE, disk)
    for number in range(1, BLOCKS + 1):
        spool.write(decision(number), NOW_NS)
    with pytest.raises(SpoolFull):
        spool.write(decision(0), NOW_NS)
    journal = open_journal(disk, STATE / "journal")
    asyncio.run(taken_up(disk, journal))
    spool.write(decision(999), NOW_NS)
    asyncio.run(taken_up(disk, journal))
    names = [event.data for event in commands_in(journal)]
    assert names == [decision(n).command_id for n in (*range(1, BLOCKS + 1), 999)]


@given(
    blocks=st.dictionaries(
        st.integers(0, BLOCKS - 1),
        st.binary(max_size=200) | st.binary(max_size=60).map(lambda b: pack_slot(3, b)),
        max_size=6,
    ),
    mark=st.binary(max_size=100) | st.binary(max_size=60).map(lambda b: pack_slot(1, b)),
)
@settings(max_examples=30, deadline=None)
def test_any_bytes_in_the_files_are_read(blocks: dict[int, bytes], mark: bytes) -> None:
    disk = SimulatedDisk()
    disk.make_directory(STATE)
    disk.create(STATE / RING, BLOCKS * SLOT_BYTES)
    disk.create(STATE / MARK, 2 * SLOT_BYTES)
    with disk.open(STATE / RING) as file:
        for at, data in blocks.items():
            file.pwrite(data, at * SLOT_BYTES)
    with disk.open(STATE / MARK) as file:
        file.pwrite(mark, 0)
    journal = open_journal(disk, STATE / "journal")
    asyncio.run(taken_up(disk, journal))
    spool = Spool(STATE, disk)
    if spool.damaged:
        spool.mend(decision(0, "damaged"))
    spool.write(decision(5), NOW_NS)
    asyncio.run(taken_up(disk, journal))
    assert commands_in(journal)[-1].data == decision(5).command_id


def test_a_block_says_the_same_after_the_disk() -> None:
    whole = replace(
        decision(7), text="ü" * 600, log_level="debug", log_until_ns=9, unrecorded=3, kind="k" * 90
    )
    block = Block(b"life-123", 7, whole, 1, None)
    read = Block.parse(block.pack())
    assert read is not None
    assert read == replace(block, decision=replace(whole, text="ü" * 512, kind="k" * 64))


# --- What acquire does with it ---------------------------------------------------------------------------


def test_the_event_tells_who_what_when_and_the_outcome(disk: SimulatedDisk) -> None:
    made = replace(decision(1, "clock"), text="it cannot tell", unrecorded=4)
    spool = Spool(STATE, disk)
    spool.write(made, NOW_NS)
    spool.write(replace(made, boot_id="boot-0", operator="", kind=""), NOW_NS)
    journal = open_journal(disk, STATE / "journal")
    asyncio.run(taken_up(disk, journal))
    here, elsewhere = commands_in(journal)
    assert (here.reason, here.at_ns, here.data) == ("clock", 5, made.command_id)
    assert here.text == (
        "ward-1: status; it cannot tell; 4 refusals before it were not written down"
    )
    assert elsewhere.at_ns != 5  # no time of this boot
    assert elsewhere.text.startswith("somebody: unknown; it cannot tell; in boot boot-0")


def test_a_log_level_reaches_this_half_in_its_boot_alone(disk: SimulatedDisk) -> None:
    spool = Spool(STATE, disk)
    loud = replace(decision(1), log_level="debug", log_until_ns=77)
    spool.write(loud, NOW_NS)
    spool.write(replace(loud, boot_id="boot-0", log_until_ns=78), NOW_NS)
    spool.write(replace(loud, outcome="not_allowed", log_until_ns=79), NOW_NS)
    journal, quiet = open_journal(disk, STATE / "journal"), Quiet()
    asyncio.run(taken_up(disk, journal, quiet))
    assert [told for told in quiet.told if told[0]] == [("debug", 77)]


def test_more_log_ends_by_itself() -> None:
    ours, root = logging.getLogger("gateway.uplink.any"), logging.getLogger("bleak")
    before = ours.getEffectiveLevel(), root.getEffectiveLevel()

    async def main() -> None:
        clock = LoopClock()
        verbosity = Verbosity(clock)
        verbosity.raise_until("debug", clock.boottime_ns() - 1)
        verbosity.raise_until("silent", clock.boottime_ns() + 10**9)
        assert ours.getEffectiveLevel() == before[0]
        verbosity.raise_until("debug", clock.boottime_ns() + 10**11)
        verbosity.raise_until("debug", clock.boottime_ns() + 10**8)
        assert ours.getEffectiveLevel() == logging.DEBUG
        assert (
            root.getEffectiveLevel() == before[1]
        )  # what libraries log may hold what a device sent
        for _ in range(4000):
            if ours.getEffectiveLevel() == before[0]:
                return
            await asyncio.sleep(0.01)
        raise AssertionError("it did not end")

    asyncio.run(main())


class Refusing:
    """A conditioner that what is the hub's own must go past."""

    def process(self, device: str, record: Record) -> Iterable[Record]:
        raise AssertionError(f"{device}: {record} is none of the conditioner's")


def test_the_ring_is_followed_while_the_hub_runs(tmp_path: Path) -> None:
    async def main() -> None:
        journal = Journal.open(
            tmp_path / "journal", hub="hub-1", clock=FixedClock(), hub_key=KEY, max_bytes=64 << 20
        )
        audit_end = Audit(
            tmp_path, FixedClock(), epoch=journal.epoch,
            high_water=journal.high_water(Stream.AUDIT), damage=(),
        )  # fmt: skip
        assert not audit_end.is_there

        intake = Intake(journal, Refusing(), LoopClock(), mode=Mode.REAL, committed=lambda: ())
        tasks = [
            asyncio.create_task(intake.run()),
            asyncio.create_task(audit_end.run(intake, Quiet())),
        ]
        spool = Spool(tmp_path, DISK)
        for number in (1, 2, 3):
            await asyncio.to_thread(spool.write, decision(number), NOW_NS)
            for _ in range(4000):
                if len(commands_in(journal)) == number:
                    break
                await asyncio.sleep(0.01)
            assert [event.data for event in commands_in(journal)][-1] == decision(number).command_id
        for task in reversed(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        journal.close()

    asyncio.run(main())

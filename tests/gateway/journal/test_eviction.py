"""What gives way for what, with its times, and that each eviction is named durably once."""

from dataclasses import replace
from random import Random

import cbor2
import pytest

from drivers.model import Event, EventKind
from gateway.clock import ClockReading, ClockState
from gateway.journal.entry import Stream
from gateway.journal.eviction import eviction_event
from gateway.journal.journal import Evicted, Journal, JournalFull
from gateway.journal.state import State
from tests.gateway.journal.builders import (
    DIRECTORY,
    KEY,
    SEGMENT,
    FixedClock,
    alarm,
    open_journal,
    read_all,
    vital,
    wave,
)
from tests.gateway.journal.simulated_disk import SimulatedDisk

DAY_NS = 86_400_000_000_000


def with_quota(disk: SimulatedDisk, vitals: int, waveform: int, segments: int = 12) -> Journal:
    return Journal.open(
        DIRECTORY,
        hub="hub-1",
        clock=FixedClock(),
        hub_key=KEY,
        max_bytes=segments * SEGMENT,
        quota_bytes={Stream.VITALS: vitals * SEGMENT, Stream.WAVEFORM: waveform * SEGMENT},
        storage=disk,
        segment_bytes=SEGMENT,
    )


def fill_vitals(journal: Journal, segments: int, first: int = 1) -> None:
    for number in range(first, first + 6 * segments):  # six frames to a segment of eight blocks
        journal.append("hr", vital(number))
        journal.commit()


def fill_waveform(journal: Journal, segments: int, first: int = 1) -> None:
    for number in range(first, first + 3 * segments):  # three frames to a segment
        journal.append("ecg", wave(number))
        journal.commit()


def segments(journal: Journal, stream: Stream) -> int:
    return {status.stream: status.segments for status in journal.status().streams}[stream]


def test_waveform_never_takes_from_what_is_promised_of_vitals() -> None:
    journal = with_quota(SimulatedDisk(), vitals=9, waveform=2)
    fill_vitals(journal, 9)
    fill_waveform(journal, 12)
    assert segments(journal, Stream.VITALS) == 9
    assert {e.stream for e in journal.take_evictions()} == {Stream.WAVEFORM}


def test_not_even_its_last_segment_lets_waveform_take_from_vitals() -> None:
    journal = with_quota(SimulatedDisk(), vitals=9, waveform=2)
    fill_vitals(journal, 9)
    fill_waveform(journal, 1)
    for number in range(2):
        journal.append("hub", Event(EventKind.FAULT, number, "test", data=bytes(20_000)))
        journal.commit()
    journal.append("ecg", wave(4))
    with pytest.raises(JournalFull):
        journal.commit()
    assert segments(journal, Stream.VITALS) == 9
    assert journal.take_evictions() == []


def test_vitals_above_their_promise_give_way_before_promised_waveform() -> None:
    journal = with_quota(SimulatedDisk(), vitals=3, waveform=6)
    fill_waveform(journal, 6)
    fill_vitals(journal, 8)
    assert segments(journal, Stream.WAVEFORM) == 6
    assert journal.take_evictions() == [Evicted(Stream.VITALS, 1, 6), Evicted(Stream.VITALS, 7, 12)]


def test_waveform_above_its_promise_gives_way_first() -> None:
    journal = with_quota(SimulatedDisk(), vitals=3, waveform=4)
    fill_waveform(journal, 7)
    fill_vitals(journal, 7)
    assert journal.take_evictions() == [
        Evicted(Stream.WAVEFORM, 1, 3),
        Evicted(Stream.WAVEFORM, 4, 6),
    ]


def test_alarms_take_even_what_is_promised() -> None:
    journal = with_quota(SimulatedDisk(), vitals=6, waveform=4)
    fill_vitals(journal, 6)
    fill_waveform(journal, 4)
    for number in range(6):
        journal.append("hub", Event(EventKind.FAULT, number, "test", data=bytes(20_000)))
        journal.commit()
    assert journal.high_water(Stream.ALARM) == 6
    assert {e.stream for e in journal.take_evictions()} == {Stream.WAVEFORM, Stream.VITALS}


def test_an_eviction_says_when_its_records_were_kept() -> None:
    journal = open_journal(SimulatedDisk(), segments=8)
    fill_waveform(journal, 9)
    (evicted, *_) = journal.take_evictions()
    assert evicted.boot_id == "boot-1"
    assert evicted.begins is not None
    assert evicted.ends is not None
    first = journal.read(Stream.WAVEFORM, evicted.last_sequence)
    assert first is not None
    assert 0 < evicted.begins.boottime_ns < evicted.ends.boottime_ns < first.clock.boottime_ns


def test_what_was_acknowledged_is_no_part_of_the_times() -> None:
    one, other = (open_journal(SimulatedDisk(), segments=8) for _ in range(2))
    begins = []
    for journal, acknowledged in ((one, 0), (other, 2)):
        fill_waveform(journal, 2)
        journal.acknowledge(Stream.WAVEFORM, acknowledged)
        fill_waveform(journal, 7, 7)
        evicted = journal.take_evictions()[0]
        assert evicted.first_sequence == acknowledged + 1
        assert evicted.begins is not None
        begins.append(evicted.begins.boottime_ns)
    assert begins[0] < begins[1]


READING = ClockReading(5_000, 1_800_000_000_000_000_000, ClockState.RESTORED)
LATER = replace(READING, boottime_ns=7_000, wall_ns=READING.wall_ns + DAY_NS)


def test_the_record_names_stream_range_times_and_reason() -> None:
    event = eviction_event(Evicted(Stream.VITALS, 3, 9, "boot-1", READING, LATER), FixedClock())
    assert (event.kind, event.reason, event.lost) == (EventKind.EVICTED, "budget", 7)
    assert (event.from_ns, event.until_ns) == (5_000, 7_000)
    assert event.text == (
        "vitals 3 to 9: disk budget, kept 2027-01-15T08:00:00Z (restored) to"
        " 2027-01-16T08:00:00Z (restored), boot boot-1"
    )


def test_times_of_another_boot_are_wall_times_alone() -> None:
    event = eviction_event(Evicted(Stream.VITALS, 3, 9, "boot-0", READING, LATER), FixedClock())
    assert (event.from_ns, event.until_ns) == (None, None)
    assert "2027-01-15T08:00:00Z" in event.text
    unknown = eviction_event(Evicted(Stream.VITALS, 3, 9), FixedClock())
    assert unknown.text == "vitals 3 to 9: disk budget"
    assert (unknown.from_ns, unknown.lost) == (None, 7)


def tell(journal: Journal) -> list[Evicted]:
    """As the hub does: a record for each, then told."""
    taken = journal.take_evictions()
    for evicted in taken:
        journal.append("", alarm(evicted.first_sequence))
        journal.told(evicted)
    return taken


@pytest.mark.parametrize("clean", [True, False])
def test_a_named_eviction_is_not_named_again(*, clean: bool) -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=8)
    fill_waveform(journal, 9)
    assert tell(journal)
    journal.commit()  # the alarm stream takes a segment for it, and one more gives way
    assert tell(journal)
    journal.commit()
    if clean:
        journal.close()
    else:
        disk.crash(Random(1))
    for _ in range(3):
        journal = open_journal(disk, segments=8)
        assert journal.take_evictions() == []
        journal.close()
    # What goes later is named, and it alone.
    last = read_all(journal, Stream.WAVEFORM)[0].sequence
    journal = open_journal(disk, segments=8)
    fill_waveform(journal, 3, 28)
    assert journal.take_evictions()[0].first_sequence == last


def test_an_eviction_is_named_until_its_record_is_durable() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=8)
    fill_waveform(journal, 9)
    told = tell(journal)  # appended and told, and the power fails before the commit
    disk.crash(Random(1))
    journal = open_journal(disk, segments=8)
    (again,) = journal.take_evictions()
    assert (again.first_sequence, again.last_sequence) == (1, told[-1].last_sequence)
    # Taken, and the power fails before anybody told of it.
    journal.commit()
    disk.crash(Random(2))
    assert open_journal(disk, segments=8).take_evictions() == [again]


def test_told_in_the_middle_of_a_commit_waits_for_the_next() -> None:
    disk = SimulatedDisk()
    journal = open_journal(disk, segments=8)
    fill_waveform(journal, 9)
    taken = journal.take_evictions()

    def during(operation: str, _path: object) -> OSError | None:
        if operation == "datasync":
            disk.fault = lambda _operation, _path: None
            journal.told(taken[-1])
        return None

    journal.append("hr", vital(1))
    disk.fault = during
    journal.commit()
    disk.crash(Random(3))
    (again,) = open_journal(disk, segments=8).take_evictions()
    assert again.first_sequence == 1


def test_a_state_of_the_first_release_is_read() -> None:
    old = cbor2.dumps(["h", bytes(16), "boot", True, [1, 2, 3, 4]])
    state = State.parse(old)
    assert state is not None
    assert state.high_water[Stream.AUDIT] == 4
    assert set(state.evicted.values()) == {0}
    assert State.parse(state.pack()) == state

"""The disk refuses: ENOSPC, EIO and EFBIG at each storage call in turn, once and for a while."""

import errno
import os
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from drivers.model import Record
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal, JournalError
from tests.gateway.journal.builders import MAKERS, open_journal, read_all
from tests.gateway.journal.histories import quick_keys
from tests.gateway.journal.simulated_disk import SimulatedDisk

SEGMENTS = 10
ROUNDS = 3
OUTAGES = [
    (errno.ENOSPC, 1),
    (errno.ENOSPC, 25),
    (errno.EIO, 1),
    (errno.EIO, 9),
    (errno.EFBIG, 1),
]
"""The error, and how many storage calls one after the other fail with it."""
MAX_TRIES = 80


class Faults:
    """Counts storage calls, and lets a row of them fail."""

    def __init__(self, disk: SimulatedDisk, first: int, last: int, code: int) -> None:
        self.calls = 0
        self._span = range(first, last)
        self._code = code
        disk.fault = self._look

    def _look(self, operation: str, path: Path) -> OSError | None:
        self.calls += 1
        if self.calls - 1 in self._span:
            return OSError(self._code, os.strerror(self._code), f"{operation} {path}")
        return None


class Hub:
    """Uses a journal as a program does: what failed is tried again, what was promised is remembered."""

    def __init__(self, disk: SimulatedDisk) -> None:
        self.disk = disk
        self.random = Random(1)
        self.records: dict[Stream, dict[int, Record]] = {stream: {} for stream in Stream}
        self.promised = dict.fromkeys(Stream, 0)
        self.began = dict.fromkeys(Stream, 0)
        self.named: dict[Stream, set[int]] = {stream: set() for stream in Stream}
        self.journal = self.open()

    def open(self) -> Journal:
        for _ in range(MAX_TRIES):
            with suppress(JournalError):
                journal = open_journal(self.disk, segments=SEGMENTS, entropy=self.random.randbytes)
                for damage in journal.recovery.damage:
                    self._name(damage.stream, damage.first_sequence, damage.last_sequence)
                for stream in Stream:
                    high_water = journal.high_water(stream)
                    assert high_water >= self.promised[stream], "a promise was forgotten"
                    self.began[stream] = high_water
                    kept = self.records[stream]
                    for sequence in [n for n in kept if n > high_water]:
                        del kept[sequence]
                return journal
        raise AssertionError("the journal does not open any more")

    def run(self) -> None:
        for number in range(ROUNDS):
            for stream in Stream:
                self.append(stream, number)
            self.append(Stream.WAVEFORM, number + 100)
            self.commit()
            for stream in Stream:
                with suppress(JournalError):
                    self.journal.read(stream, self.journal.acknowledged(stream))
                if stream is not Stream.WAVEFORM:
                    with suppress(JournalError):
                        self.journal.acknowledge(stream, self.promised[stream])
                assert self.journal.acknowledged(stream) <= self.promised[stream]
            if number == 2:
                self.disk.crash(self.random)
                self.journal = self.open()
            if number == 1:
                with suppress(JournalError):
                    self.journal.close()
                    self._promise()
                self.note()
                self.journal = self.open()

    def append(self, stream: Stream, number: int) -> None:
        record = MAKERS[stream](number)
        sequence = self.journal.append("device", record)
        assert sequence not in self.records[stream]
        self.records[stream][sequence] = record

    def commit(self) -> None:
        with suppress(JournalError):
            self.journal.commit()
            self._promise()
        for stream in Stream:
            self.promised[stream] = max(self.promised[stream], self.journal.high_water(stream))
        self.note()

    def _promise(self) -> None:
        for stream in Stream:
            last = max(self.records[stream], default=0)
            assert self.journal.high_water(stream) == max(last, self.began[stream])
            self.promised[stream] = self.journal.high_water(stream)

    def note(self) -> None:
        for damage in self.journal.take_damage():
            self._name(damage.stream, damage.first_sequence, damage.last_sequence)
        for evicted in self.journal.take_evictions():
            assert evicted.stream in {Stream.WAVEFORM, Stream.VITALS}
            self._name(evicted.stream, evicted.first_sequence, evicted.last_sequence)

    def _name(self, stream: Stream, first: int, last: int) -> None:
        self.named[stream] |= set(range(first, last + 1))

    def check(self) -> None:
        for stream in Stream:
            after, high_water = self.journal.acknowledged(stream), self.journal.high_water(stream)
            assert high_water >= self.promised[stream], "a promise was forgotten"
            found = {e.sequence: e.record for e in read_all(self.journal, stream, after)}
            self.note()
            missing = set(range(after + 1, high_water + 1)) - found.keys()
            assert missing <= self.named[stream], f"lost without a name: {stream} {missing}"
            assert all(self.records[stream][n] == record for n, record in found.items())


def outage(first: int, length: int, code: int) -> int:
    """Runs a hub through an outage, cuts the power, and looks. Returns how many storage calls it made."""
    disk = SimulatedDisk()
    faults = Faults(disk, first, first + length, code)
    hub = Hub(disk)
    hub.run()
    calls = faults.calls
    disk.fault = lambda _operation, _path: None
    hub.check()
    hub.commit()
    assert hub.journal.pending_bytes == 0, "it did not recover when the fault went away"
    for stream in Stream:
        hub.journal.acknowledge(stream, hub.promised[stream])
        hub.append(stream, 7)
    hub.commit()
    assert hub.journal.pending_bytes == 0, "what was acknowledged did not make room"
    disk.crash(Random(first))
    hub.journal = hub.open()
    hub.check()
    return calls


@pytest.fixture(autouse=True)
def _quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    quick_keys(monkeypatch)


@pytest.mark.parametrize(("code", "length"), OUTAGES)
def test_no_failing_call_makes_a_promise_a_lie(code: int, length: int) -> None:
    calls = outage(1 << 30, 1, code)
    assert calls > 150
    for first in range(calls):
        try:
            outage(first, length, code)
        except BaseException as error:
            error.add_note(f"again: outage({first}, {length}, {code})")
            raise


def test_a_full_disk_never_stops_an_acknowledgement() -> None:
    """Nothing can be created or grow any more; what was recycled is enough to go on."""
    disk = SimulatedDisk()
    hub = Hub(disk)
    for number in range(40):  # every stream has been through more than one file
        for stream in Stream:
            hub.append(stream, number)
        hub.commit()
        for stream in Stream:
            hub.journal.acknowledge(stream, hub.promised[stream])
    full = OSError(errno.ENOSPC, "no space left")
    disk.fault = lambda operation, _path: full if operation == "create" else None
    for number in range(200):
        for stream in Stream:
            hub.append(stream, number)
        hub.commit()
        for stream in Stream:
            hub.journal.acknowledge(stream, hub.promised[stream])
    assert hub.journal.pending_bytes == 0
    hub.check()

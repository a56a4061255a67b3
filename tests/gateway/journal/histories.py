"""Histories of a hub on a disk that loses power: a journal, an uplink that reads it, a receiver that keeps a ledger.

Every choice follows from the seed, so a history that went wrong can be seen again.
"""

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from drivers.model import Record
from gateway.journal import readers
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal, JournalFull
from gateway.receiver.ledger import Key, Ledger, Span
from tests.gateway.journal.builders import MAKERS, open_journal, read_all
from tests.gateway.journal.simulated_disk import PowerCutError, SimulatedDisk

MAX_STEPS = 60
TIGHT, ROOMY = 14, 4096
STREAMS = tuple(Stream)


class QuickSuite:
    """AES in the place of HPKE, which would take most of the time and is not what is looked at here."""

    def __init__(self) -> None:
        self._aead = AESGCM(bytes(32))

    def encrypt(self, data_key: bytes, _public: object, info: bytes) -> bytes:
        return self._aead.encrypt(bytes(12), data_key, info)

    def decrypt(self, wrapped: bytes, _private: object, info: bytes) -> bytes:
        return self._aead.decrypt(bytes(12), wrapped, info)


def quick_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """For the rest of a test, data keys are wrapped quickly."""
    monkeypatch.setattr(readers, "_SUITES", dict.fromkeys(readers._SUITES, QuickSuite()))


class Receiver:
    """What a cloud keeps: each entry once, as its ledger says."""

    def __init__(self) -> None:
        self._ledger = Ledger()
        self.kept: dict[Stream, dict[int, Record]] = {stream: {} for stream in Stream}
        self.repeats = 0

    def receive(self, epoch: str, stream: Stream, records: dict[int, Record]) -> None:
        span = Span(min(records), max(records))
        taken = self._ledger.receive(Key("hub-1", stream, epoch), span)
        self.repeats += taken.repeats
        kept = self.kept[stream]
        for new in taken.new:
            for sequence in range(new.first, new.last + 1):
                assert sequence not in kept, "it came twice"
                kept[sequence] = records[sequence]
        assert all(kept[sequence] == record for sequence, record in records.items())


class History:
    """One hub from its first start on, and what must be true of it after each of its power cuts."""

    def __init__(self, seed: int, start: Callable[..., Journal] = open_journal) -> None:
        self._start = start
        self.random = Random(seed)
        self.disk = SimulatedDisk()
        self.segments = TIGHT if seed % 5 == 0 else ROOMY
        self.receiver = Receiver()
        self.epoch: str | None = None
        self.accepted: dict[Stream, dict[int, Record]] = {stream: {} for stream in Stream}
        self.committed = dict.fromkeys(Stream, 0)
        self.acknowledged = dict.fromkeys(Stream, 0)
        self.named: dict[Stream, set[int]] = {stream: set() for stream in Stream}
        """Given up for want of room, or damaged before it was durable; the journal said so."""

    def run(self, cuts: int) -> None:
        """Works until the power has gone so many times, then delivers everything."""
        for boot in range(cuts):
            self.disk.steps_left = self.random.randrange(1, MAX_STEPS)
            with suppress(PowerCutError):
                journal = self._open(f"boot-{boot}")
                self._work(journal)
            self.disk.crash(self.random)
        self._deliver(self._open("boot-last"))

    def _open(self, boot_id: str) -> Journal:
        journal = self._start(
            self.disk,
            boot_id=boot_id,
            segments=self.segments,
            entropy=self.random.randbytes,
        )
        if any(self.committed.values()):
            assert journal.epoch == self.epoch
        self.epoch = journal.epoch
        for damage in journal.recovery.damage:
            self._lost(damage.stream, damage.first_sequence, damage.last_sequence)
        self._note_evictions(journal)
        for stream in STREAMS:
            self._check(journal, stream)
        return journal

    def _check(self, journal: Journal, stream: Stream) -> None:
        after, high_water = journal.acknowledged(stream), journal.high_water(stream)
        assert after >= self.acknowledged[stream], "an acknowledgement was lost"
        assert high_water >= self.committed[stream], "numbers will be given twice"
        accepted = self.accepted[stream]
        for sequence in [n for n in accepted if n > high_water]:
            del accepted[sequence]
        found = {entry.sequence: entry.record for entry in read_all(journal, stream, after)}
        for damage in journal.take_damage():
            self._lost(damage.stream, damage.first_sequence, damage.last_sequence)
        missing = set(range(after + 1, high_water + 1)) - found.keys()
        assert missing <= self.named[stream], "a loss without a name"
        for sequence, record in found.items():
            assert record == accepted[sequence]
        self.committed[stream], self.acknowledged[stream] = high_water, after

    def _lost(self, stream: Stream, first: int, last: int) -> None:
        fresh = set(range(first, last + 1)) - self.named[stream]
        assert all(n > self.committed[stream] for n in fresh), "a committed record was lost"
        self.named[stream] |= fresh

    def _note_evictions(self, journal: Journal) -> None:
        for evicted in journal.take_evictions():
            assert self.segments == TIGHT
            assert evicted.stream in {Stream.WAVEFORM, Stream.VITALS}
            self.named[evicted.stream] |= set(
                range(evicted.first_sequence, evicted.last_sequence + 1)
            )

    def _work(self, journal: Journal) -> None:
        random = self.random
        for _ in range(random.randrange(1, 6)):
            for _ in range(random.randrange(1, 8)):
                stream = random.choice(STREAMS)
                record = MAKERS[stream](random.randrange(1 << 30))
                sequence = journal.append("device", record)
                assert sequence > self.committed[stream]
                self.accepted[stream][sequence] = record
            try:
                journal.commit()
            except JournalFull:
                assert self.segments == TIGHT
            self._note_evictions(journal)
            for stream in STREAMS:
                self.committed[stream] = journal.high_water(stream)
                if random.random() < 0.7:
                    self._send(journal, stream, random.randrange(1, 4))
        if random.random() < 0.2:
            with suppress(JournalFull):
                journal.close()

    def _send(self, journal: Journal, stream: Stream, batches: int) -> None:
        """An uplink: the next batches from the cursor on, then perhaps the cursor."""
        sent = self.acknowledged[stream]
        for _ in range(batches):
            batch = journal.read(stream, sent)
            if batch is None:
                break
            records = {e.sequence: e.record for e in batch.entries if e.sequence > sent}
            assert all(self.accepted[stream][n] == record for n, record in records.items())
            self.receiver.receive(journal.epoch, stream, records)
            sent = batch.last_sequence
        if self.random.random() < 0.7:
            journal.acknowledge(stream, sent)
            self.acknowledged[stream] = sent

    def _deliver(self, journal: Journal) -> None:
        for stream in STREAMS:
            self._send(journal, stream, 1 << 30)
            kept = self.receiver.kept[stream]
            assert all(kept[n] == self.accepted[stream][n] for n in kept)
            missing = set(range(1, self.committed[stream] + 1)) - kept.keys()
            assert missing <= self.named[stream], "it was given free and never arrived"

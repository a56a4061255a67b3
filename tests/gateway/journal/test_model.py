"""The journal against a list: any order of calls, restarts, new keys, power cuts and damage on the disk."""

from collections.abc import Iterable
from contextlib import suppress
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from drivers.model import Record
from gateway.journal.entry import Stream
from gateway.journal.journal import JournalFull
from gateway.journal.keys import HubKey
from gateway.journal.rotation import rotate
from gateway.journal.scan import Damage
from gateway.journal.segment import BLOCK_BYTES, FrameHeader, parse_frame
from tests.gateway.journal.builders import DIRECTORY, KEY, MAKERS, open_journal, read_all
from tests.gateway.journal.simulated_disk import SimulatedDisk

STREAMS = st.sampled_from(Stream)
SEGMENTS = 14


class JournalMachine(RuleBasedStateMachine):
    """A list of records for each stream, and the numbers that were named as given up."""

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.boots = 0
        self.records: dict[Stream, list[Record]] = {stream: [] for stream in Stream}
        self.durable = dict.fromkeys(Stream, 0)
        self.acknowledged = dict.fromkeys(Stream, 0)
        self.named: set[tuple[Stream, int]] = set()
        self.damaged: set[tuple[Stream, int]] = set()
        self.key = KEY
        self.journal = open_journal(self.disk, segments=SEGMENTS)

    @rule(stream=STREAMS, count=st.integers(1, 12), number=st.integers(0, 1 << 30))
    def append(self, stream: Stream, count: int, number: int) -> None:
        for n in range(count):
            record = MAKERS[stream](number + n)
            assert self.journal.append("device", record) == len(self.records[stream]) + 1
            self.records[stream].append(record)

    @rule()
    def commit(self) -> None:
        try:
            self.journal.commit()
        except JournalFull:
            status = self.journal.status()
            assert status.size_bytes == status.max_bytes
        else:
            for stream in Stream:
                assert self.journal.high_water(stream) == len(self.records[stream])
        self._note()

    @rule(stream=STREAMS, back=st.integers(0, 5))
    def acknowledge(self, stream: Stream, back: int) -> None:
        sequence = max(self.durable[stream] - back, 0)
        self.journal.acknowledge(stream, sequence)
        self.acknowledged[stream] = max(self.acknowledged[stream], sequence)

    @rule()
    def close_and_open(self) -> None:
        try:
            self.journal.close()
        except JournalFull:
            pass
        else:
            assert not any(
                self.journal.high_water(stream) < len(self.records[stream]) for stream in Stream
            )
        self._note()
        self._open()

    @rule()
    def rotate_the_key(self) -> None:
        with suppress(JournalFull):
            self.journal.close()
        self._note()
        old, self.key = self.key, HubKey(self.key.renewed())
        done = rotate(DIRECTORY, self.disk, old, self.key, (self.key.reader,), lambda: None)
        assert done.unreadable == 0
        self._open()

    @rule(seed=st.integers(0, 1 << 30))
    def cut_the_power(self, seed: int) -> None:
        self.disk.crash(Random(seed))
        self._open()

    @rule(
        stream=STREAMS,
        segment=st.integers(0, 3),
        at=st.integers(0, 5),
        bit=st.integers(0, BLOCK_BYTES * 8 - 1),
    )
    def damage(self, stream: Stream, segment: int, at: int, bit: int) -> None:
        """One bit of a frame of the log turns over. Of the newest frame not in its header: that is a cut tail."""
        names = self.disk.directories[DIRECTORY / stream].cache
        if not names:
            return
        name = sorted(names)[-1 - segment % len(names)]
        data = names[name].cache
        number = int(name.partition("-")[0], 16)
        frames = [
            frame
            for offset in range(BLOCK_BYTES, len(data) - BLOCK_BYTES, BLOCK_BYTES)
            if (frame := parse_frame(bytes(data[offset : offset + BLOCK_BYTES])))
            and (frame.stream, frame.segment, frame.offset) == (stream, number, offset)
        ]
        if frames:
            frame = frames[at % len(frames)]
            if frame.last_sequence >= self.durable[stream]:
                bit |= BLOCK_BYTES * 4  # in the second half of its first block
            self._flip(frame, name, bit)

    def _flip(self, frame: FrameHeader, name: str, bit: int) -> None:
        inode = self.disk.directories[DIRECTORY / frame.stream].cache[name]
        for copy in (inode.cache, inode.durable):
            copy[frame.offset + bit // 8] ^= 1 << bit % 8
        span = range(frame.first_sequence, frame.last_sequence + 1)
        self.damaged |= {(frame.stream, n) for n in span}

    def _note_damage(self, found: Iterable[Damage]) -> None:
        for d in found:
            span = {(d.stream, n) for n in range(d.first_sequence, d.last_sequence + 1)}
            assert span <= self.damaged | self.named, "damage was seen where none was done"
            self.named |= span

    def _open(self) -> None:
        self.boots += 1
        boot_id = f"boot-{self.boots}"
        self.journal = open_journal(self.disk, key=self.key, segments=SEGMENTS, boot_id=boot_id)
        self._note()
        for stream in Stream:
            del self.records[stream][self.durable[stream] :]

    def _note(self) -> None:
        """What the journal says about itself, against what it said before."""
        self._note_damage(self.journal.recovery.damage)
        for e in self.journal.take_evictions():
            assert e.stream in {Stream.WAVEFORM, Stream.VITALS}
            span = range(e.first_sequence, e.last_sequence + 1)
            self.named |= {(e.stream, n) for n in span}
        for stream in Stream:
            assert self.journal.high_water(stream) >= self.durable[stream]
            self.durable[stream] = self.journal.high_water(stream)

    @invariant()
    def what_is_readable_is_what_was_committed(self) -> None:
        assert self.journal.status().size_bytes <= SEGMENTS * 32_768
        for stream in Stream:
            after = self.acknowledged[stream]
            assert self.journal.acknowledged(stream) == after
            numbers = range(after + 1, self.durable[stream] + 1)
            found = {e.sequence: e.record for e in read_all(self.journal, stream, after)}
            self._note_damage(self.journal.take_damage())
            for n, record in found.items():
                assert record == self.records[stream][n - 1]
            assert set(numbers) - found.keys() <= {n for s, n in self.named if s is stream}


JournalMachine.TestCase.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
TestJournal = JournalMachine.TestCase

"""Power cuts at any step: nothing committed is lost, nothing is invented, no number is given twice."""

from random import Random

import pytest

from drivers.model import Record
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from tests.gateway.journal.builders import MAKERS, open_journal, read_all
from tests.gateway.journal.simulated_disk import PowerCutError, SimulatedDisk

CRASHES = 250


class Model:
    """What a journal may and must hold."""

    def __init__(self) -> None:
        self.accepted: dict[Stream, dict[int, Record]] = {stream: {} for stream in Stream}
        self.committed = dict.fromkeys(Stream, 0)
        self.acknowledged = dict.fromkeys(Stream, 0)
        self.lost: dict[Stream, set[int]] = {stream: set() for stream in Stream}

    def check(self, journal: Journal) -> None:
        for damage in journal.recovery.damage:
            self._name_lost(damage.stream, damage.first_sequence, damage.last_sequence)
        for stream in Stream:
            after = journal.acknowledged(stream)
            assert after >= self.acknowledged[stream]
            high_water = journal.high_water(stream)
            assert high_water >= self.committed[stream]
            found = {entry.sequence: entry.record for entry in read_all(journal, stream, after)}
            for damage in journal.take_damage():
                self._name_lost(damage.stream, damage.first_sequence, damage.last_sequence)
            expected = set(range(after + 1, high_water + 1)) - self.lost[stream]
            assert found.keys() == expected
            for sequence, record in found.items():
                assert record == self.accepted[stream][sequence]
            self.committed[stream] = high_water
            self.acknowledged[stream] = after
            for sequence in [n for n in self.accepted[stream] if n > high_water]:
                del self.accepted[stream][sequence]
        assert journal.take_evictions() == []

    def _name_lost(self, stream: Stream, first: int, last: int) -> None:
        new = set(range(first, last + 1)) - self.lost[stream]
        assert all(n > self.committed[stream] for n in new), "a committed record was lost"
        self.lost[stream] |= new


def work(journal: Journal, model: Model, random: Random) -> None:
    """A few appends, commits and acknowledgements."""
    for _ in range(random.randrange(1, 6)):
        for _ in range(random.randrange(1, 8)):
            stream = random.choice(list(Stream))
            record = MAKERS[stream](random.randrange(1 << 30))
            sequence = journal.append("device", record)
            assert sequence not in model.accepted[stream]
            model.accepted[stream][sequence] = record
        journal.commit()
        for stream in Stream:
            model.committed[stream] = max(model.accepted[stream], default=0)
        for stream in [stream for stream in Stream if model.committed[stream]]:
            sequence = max(1, model.committed[stream] - random.randrange(4))
            journal.acknowledge(stream, sequence)
            model.acknowledged[stream] = max(model.acknowledged[stream], sequence)
    if random.random() < 0.2:
        journal.close()


@pytest.mark.parametrize("seed", range(8))
def test_power_cuts_lose_nothing_committed(seed: int) -> None:
    random, disk, model = Random(seed), SimulatedDisk(), Model()
    cuts = 0
    while cuts < CRASHES:
        disk.steps_left = random.randrange(1, 90)
        try:
            journal = open_journal(disk, boot_id=f"boot-{cuts}", segments=4096)
            model.check(journal)
            work(journal, model, random)
        except PowerCutError:
            pass
        disk.crash(random)
        cuts += 1
    model.check(open_journal(disk))
    assert sum(model.committed.values()) > CRASHES

"""Real processes, a real file system, real SIGKILL."""

import signal
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from tests.gateway.journal.builders import read_all, vital

KILLS = 20
CHILD = """
import sys
from pathlib import Path
from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from tests.gateway.journal.builders import vital

here = Path(sys.argv[1])
journal = Journal.open(here / "journal", hub="hub-1", clock=SystemClock(),
                       hub_key=HubKey.load_or_create(here / "hub.key"), max_bytes=64 << 20)
number = journal.high_water(Stream.VITALS)
while True:
    for _ in range(7):
        number += 1
        assert journal.append("hr", vital(number)) == number
    journal.commit()
    print(number, flush=True)
    if number % 11 == 0:
        journal.acknowledge(Stream.VITALS, number - 5)
"""


@pytest.mark.system
def test_what_a_killed_process_reported_as_committed_is_there(tmp_path: Path) -> None:
    random = Random(7)
    committed = 0
    for _ in range(KILLS):
        with subprocess.Popen(
            [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
        ) as child:
            assert child.stdout
            for _ in range(random.randrange(1, 60)):
                committed = int(child.stdout.readline())
            child.send_signal(signal.SIGKILL)
            for line in child.stdout:  # what it still said
                if line.endswith("\n"):
                    committed = int(line)
        assert child.returncode == -signal.SIGKILL
    journal = Journal.open(
        tmp_path / "journal",
        hub="hub-1",
        clock=SystemClock(),
        hub_key=HubKey.load_or_create(tmp_path / "hub.key"),
        max_bytes=64 << 20,
    )
    assert not journal.recovery.clean
    assert committed > KILLS
    high_water = journal.high_water(Stream.VITALS)
    assert high_water >= committed
    assert journal.last_ns("hr") == high_water
    entries = read_all(journal, Stream.VITALS)
    assert [e.sequence for e in entries] == list(range(entries[0].sequence, high_water + 1))
    assert entries[0].sequence <= journal.acknowledged(Stream.VITALS) + 1
    assert all(e.record == vital(e.sequence) for e in entries)
    assert journal.take_damage() == list(journal.recovery.damage) == []
    journal.close()

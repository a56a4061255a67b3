"""Real processes, a real file system, real SIGKILL. `make soak` kills more often."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from tests.gateway.journal.builders import read_all, vital

KILLS = int(os.environ.get("WARDLINK_KILLS", "200"))
SERVER = """
import os, sys
from pathlib import Path
from tests.gateway.journal.test_kill import serve
serve(Path(sys.argv[1]))
"""


def say(text: str) -> None:
    os.write(
        1, f"{text}\n".encode()
    )  # at once and whole: no buffer of ours, and shorter than a pipe's


def serve(here: Path) -> None:
    """For each line, forks a child that works until it is killed: the start of an interpreter is not looked at."""
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            work(here)
        os.waitpid(child, 0)
        say("dead")


def open_here(here: Path) -> Journal:
    key = HubKey.load_or_create(here / "hub.key")
    return Journal.open(
        here / "journal", hub="hub-1", clock=SystemClock(), hub_key=key, max_bytes=64 << 20
    )


def work(here: Path) -> None:
    say(f"pid {os.getpid()}")
    journal = open_here(here)
    number = journal.high_water(Stream.VITALS)
    say(f"found {number}")
    while True:
        for _ in range(7):
            number += 1
            assert journal.append("hr", vital(number)) == number
        journal.commit()
        say(f"committed {number}")
        if number % 11 == 0:
            journal.acknowledge(Stream.VITALS, number - 5)


def until_dead(lines: Iterator[str], committed: int) -> int:
    for line in lines:
        what, *number = line.split()
        if what == "dead":
            return committed
        if what == "found":
            assert int(number[0]) >= committed, "a start forgot what was committed"
        committed = max(committed, int(number[0]))
    raise AssertionError("the server of children ended")


@pytest.mark.system
@pytest.mark.timeout(3600)
def test_what_a_killed_process_reported_as_committed_is_there(tmp_path: Path) -> None:
    random = Random(7)
    committed = 0
    command = [sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdin
        assert server.stdout
        for _ in range(KILLS):
            server.stdin.write("go\n")
            server.stdin.flush()
            child = int(server.stdout.readline().removeprefix("pid "))
            for _ in range(random.randrange(12)):
                committed = max(committed, int(server.stdout.readline().split()[1]))
            time.sleep(random.random() * 0.004)
            os.kill(child, signal.SIGKILL)
            committed = until_dead(server.stdout, committed)
        server.stdin.close()
        assert server.wait() == 0
    journal = open_here(tmp_path)
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

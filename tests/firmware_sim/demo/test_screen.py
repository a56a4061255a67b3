import io

import numpy as np
from rich.console import Console, RenderableType

from firmware_sim.demo import screen
from firmware_sim.demo.proof import drained
from firmware_sim.demo.received import Received
from tests.firmware_sim.demo.test_proof import World


def shown(what: RenderableType) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(what)
    return console.export_text()


def test_a_line_rises_from_bottom_left_to_top_right() -> None:
    rows = screen.plot(np.arange(100.0), 10, 4).splitlines()
    assert [len(row) for row in rows] == [10] * 4
    empty = chr(0x2800)
    assert rows[0][0] == empty
    assert rows[0][-1] != empty
    assert rows[-1][0] != empty
    assert rows[-1][-1] == empty


def test_nothing_and_a_flat_line_can_be_drawn() -> None:
    assert screen.plot(np.empty(0), 3, 1) == chr(0x2800) * 3
    assert chr(0x2800) not in screen.plot(np.ones(50), 3, 1)


def test_the_picture_shows_what_is_known_and_says_what_is_not() -> None:
    world = World()
    scene = screen.Scene("demo", 3.0, 60.0, "note", world.time(2500), world.received, 2500, None)
    text = shown(screen.picture(scene, 100))
    assert "89 /min" in text
    assert "unknown" in text
    assert "no answer" in text
    later = screen.Scene("demo", 90.0, 60.0, "", world.time(9000), Received(), 2500, None)
    assert "/min" not in shown(screen.picture(later, 100))


def test_an_old_value_is_shown_as_stale() -> None:
    world = World()
    scene = screen.Scene("demo", 3.0, None, "", world.time(6000), world.received, 2500, None)
    text = shown(screen.picture(scene, 100))
    assert "stale: 2" in text
    assert "89 /min" not in text


def test_what_waited_is_shown_in_the_order_in_which_it_came() -> None:
    proof = World().prove()
    waited = {"waveform": {8, 9}, "vitals": {1, 2, 3}, "audit": set[int]()}
    came_s = {("vitals", 1): 5.0, ("vitals", 2): 5.5, ("waveform", 8): 5.6, ("waveform", 9): 7.25}
    came_ns = {key: round(at_s * 1e9) for key, at_s in came_s.items()}
    proof.drained = drained(waited, came_ns)
    assert proof.faults() == []
    text = shown(screen.verdict(proof))
    assert "backlog    2 vitals that had waited came 0.00 to 0.50 s after the first" in text
    assert "           2 waveform that had waited came 0.60 to 2.25 s after the first" in text
    assert text.index("2 vitals") < text.index("2 waveform")
    proof.drained = drained(waited, {**came_ns, ("vitals", 3): 8_000_000_000})
    assert proof.faults() == ["what waited: the vitals came after the waveform"]


def test_without_a_terminal_a_line_says_what_waits() -> None:
    status = {"backlog": {"alarm": 0, "vitals": 7, "waveform": 90}}
    scene = screen.Scene("demo", 3.0, None, "broker away", 0, Received(), 2500, status)
    assert "waiting 7 vitals, 90 waveform  broker away" in screen.progress(scene)


def test_the_verdict_is_a_sentence() -> None:
    world = World()
    assert "PROVED: nothing is missing" in shown(screen.verdict(world.prove()))
    world.received.sequences["e", "waveform"].remove(7)
    assert "NOT PROVED: 1 journalled records did not arrive" in shown(screen.verdict(world.prove()))

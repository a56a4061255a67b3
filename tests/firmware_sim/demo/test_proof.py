"""The proof is worth something only if it fails when it should: every kind of loss, repeat and invention."""

from collections.abc import Callable

import numpy as np
import pytest

from drivers.assigned import Code
from firmware_sim.bluez.peripheral import Fate
from firmware_sim.demo.proof import Proof, compare_beats, prove
from firmware_sim.demo.received import Block, Gap, Number, Received
from firmware_sim.heart_rate_strap import Measured
from firmware_sim.ledger import Ledger
from firmware_sim.openview_board import HEALTHYPI, LAYOUTS, quantised
from firmware_sim.patient import Patient, Plan

RATE_HZ = 125.0
PERIOD_NS = 8_000_000
COUNT = 2500
START_NS = 50_000_000_000
LATE_NS = 11_000_000
DELAY_NS = 400_000_000


class World:
    """Twenty seconds of a patient, everything received as it should be."""

    def __init__(self) -> None:
        self.patient = Patient(Plan(seed=4), RATE_HZ)
        layout = LAYOUTS["healthypi-v3"]
        self.payload = quantised(layout, self.patient.samples(0, COUNT))
        self.ledger = Ledger(HEALTHYPI, layout.frame.itemsize, PERIOD_NS, 1 << 16)
        self.ledger.start_ns = START_NS
        self.ledger.append(self.payload)
        self.truth = self.patient.beats(COUNT / RATE_HZ) * RATE_HZ
        self.received = Received()
        for first in range(0, COUNT, 25):
            self.block(first, 25)
        for begin, end in zip(self.truth, self.truth[1:], strict=False):
            self.number(
                "board", Code.ECG_TIME_PD_RR_GL, (end - begin) * 8.0, self.time(end), by_hub=True
            )
        self.strap: list[Measured] = []
        for n in range(20):
            line = Measured(START_NS + n * 1_000_000_000, 70 + n, (880 + n,), Fate.DELIVERED)
            self.strap.append(line)
            self.number("strap", Code.ECG_HEART_RATE, 70.0 + n, line.at_ns + 5_000_000)
            self.number(
                "strap", Code.ECG_TIME_PD_RR_GL, (880 + n) * 1000 / 1024, line.at_ns + 5_000_000
            )
        self.received.sequences["e", "waveform"] = list(range(1, 401))
        self.received.high_water["e", "waveform"] = 400

    def time(self, sample: float) -> int:
        return round(START_NS + LATE_NS + sample * PERIOD_NS)

    def block(self, first: int, count: int) -> Block:
        channels = {
            name: self.payload[name][first : first + count].astype(np.int64)
            for name in ("ecg", "resp", "infrared", "red")
        }
        at_ns = self.time(first)
        block = Block(at_ns, at_ns + DELAY_NS, channels)
        self.received.blocks["board"][at_ns] = block
        return block

    def number(
        self, device: str, code: Code, value: float, at_ns: int, *, by_hub: bool = False
    ) -> None:
        self.received.numbers.append(Number(device, code, value, at_ns, at_ns, by_hub))

    def prove(self) -> Proof:
        return prove(self.ledger, self.strap, self.truth, RATE_HZ, self.received)


def test_a_whole_transfer_is_proved() -> None:
    proof = World().prove()
    assert proof.faults() == []
    assert (proof.board.received, proof.board.missing) == (COUNT, 0)
    assert (proof.strap.received, proof.strap.missing) == (20, 0)
    assert proof.beats is not None
    assert (proof.beats.missed, proof.beats.false) == (0, 0)
    assert proof.beats.truth >= 20
    assert proof.delays_ms is not None
    # A block's first sample waits for the other 24.
    assert proof.delays_ms[0] == pytest.approx(411 - 96, abs=2)


def without_a_block(world: World) -> None:
    del world.received.blocks["board"][world.time(500)]


def without_the_tail(world: World) -> None:
    for first in range(2000, COUNT, 25):
        del world.received.blocks["board"][world.time(first)]


def with_a_changed_sample(world: World) -> None:
    world.received.blocks["board"][world.time(500)].channels["red"][3] += 1


def with_a_block_twice(world: World) -> None:
    block = world.received.blocks["board"][world.time(500)]
    world.received.blocks["board"][block.first_ns + 1] = block


def with_mixed_channels(world: World) -> None:
    one, other = (world.received.blocks["board"][world.time(n)] for n in (500, 525))
    one.channels["ecg"], other.channels["ecg"] = other.channels["ecg"], one.channels["ecg"]


def without_a_notification(world: World) -> None:
    del world.received.numbers[-2:]


def with_a_notification_twice(world: World) -> None:
    world.received.numbers.extend(world.received.numbers[-2:])


def with_a_wrong_rate(world: World) -> None:
    last = world.received.numbers.pop()
    world.received.numbers.pop()
    world.number("strap", Code.ECG_HEART_RATE, 11.0, last.at_ns)


def with_a_hole_in_the_sequence(world: World) -> None:
    world.received.sequences["e", "waveform"].remove(200)


def with_a_cut_tail(world: World) -> None:
    world.received.high_water["e", "waveform"] = 405


def with_a_line_twice(world: World) -> None:
    world.received.sequences["e", "waveform"].append(200)


def without_a_beat(world: World) -> None:
    beats = [n for n in world.received.numbers if n.by_hub]
    for number in beats[8:10]:
        world.received.numbers.remove(number)


def with_false_beats(world: World) -> None:
    for at in (0.4, 0.6):
        world.number(
            "board",
            Code.ECG_TIME_PD_RR_GL,
            100.0,
            world.time(world.truth[9] + at * 100),
            by_hub=True,
        )


def with_nothing(world: World) -> None:
    world.received.blocks.clear()


def with_a_refused_message(world: World) -> None:
    world.received.rejected.append("bad_signature: no")


MISHAPS: dict[str, Callable[[World], None]] = {
    function.__name__: function
    for function in (
        without_a_block,
        without_the_tail,
        with_a_changed_sample,
        with_a_block_twice,
        with_mixed_channels,
        without_a_notification,
        with_a_notification_twice,
        with_a_wrong_rate,
        with_a_hole_in_the_sequence,
        with_a_cut_tail,
        with_a_line_twice,
        without_a_beat,
        with_false_beats,
        with_nothing,
        with_a_refused_message,
    )
}


@pytest.mark.parametrize("name", MISHAPS)
def test_the_proof_fails_when_something_is_wrong(name: str) -> None:
    world = World()
    MISHAPS[name](world)
    assert world.prove().faults()


def test_what_a_gap_names_is_not_missing_but_counted() -> None:
    world = World()
    without_a_block(world)
    world.received.gaps.append(Gap("board", "resync", world.time(500), world.time(525)))
    proof = world.prove()
    assert proof.faults() == []
    assert (proof.board.in_gaps, proof.board.received) == (25, COUNT - 25)


def test_a_gap_elsewhere_or_of_another_device_excuses_nothing() -> None:
    world = World()
    without_a_block(world)
    world.received.gaps.append(Gap("board", "resync", world.time(900), world.time(1000)))
    world.received.gaps.append(Gap("strap", "resync", world.time(0), world.time(2000)))
    assert world.prove().board.missing == 25


def test_samples_before_the_hub_listened_are_told_apart() -> None:
    world = World()
    for first in range(0, 250, 25):
        del world.received.blocks["board"][world.time(first)]
    proof = world.prove()
    assert proof.board.unheard == 250
    assert proof.board.missing == 0


def test_beats_beside_holes_do_not_count() -> None:
    covered = np.ones(1000, bool)
    covered[400:450] = False
    truth = np.array([100.0, 405.0, 440.0, 700.0])
    beats = compare_beats(truth, np.array([101.0, 701.0]), covered, RATE_HZ)
    assert (beats.truth, beats.missed, beats.false) == (2, 0, 0)


def test_beats_further_off_than_150_ms_do_not_match() -> None:
    covered = np.ones(1000, bool)
    beats = compare_beats(np.array([500.0]), np.array([500.0 + 19]), covered, RATE_HZ)
    assert (beats.missed, beats.false) == (1, 1)

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firmware_sim.faults import (
    FOREIGN,
    NS_PER_S,
    Batch,
    Corrupt,
    Delay,
    Disconnect,
    Duplicate,
    Fault,
    Faults,
    Insert,
    Loss,
    OneByOne,
    Stall,
)

DATA = bytes(n * 7 % 251 for n in range(5000))


def passed(faults: Faults, cuts: list[int]) -> Batch:
    out = Batch.of_bytes(b"", 0)
    at = 0
    for end in [*sorted(cuts), len(DATA)]:
        out = out.then(faults.apply(Batch.of_bytes(DATA[at:end], at), at))
        at = end
    return out


STRIKING: list[Callable[[], Fault]] = [
    lambda: Loss(0.05, 30),
    lambda: Duplicate(0.01),
    lambda: Corrupt(0.01),
    lambda: Insert(0.01, 5),
]


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(0, len(DATA)), max_size=40), seed=st.integers(0, 1000))
def test_same_seed_strikes_the_same_bytes_in_any_cutting(cuts: list[int], seed: int) -> None:
    for make in STRIKING:
        one, other = Faults(seed, make()), Faults(seed, make())
        whole, pieces = passed(one, []), passed(other, cuts)
        assert whole.units.tobytes() == pieces.units.tobytes()
        assert np.array_equal(whole.origin, pieces.origin)
        assert one.counts() == other.counts()


@pytest.mark.parametrize("seed", range(5))
def test_origin_tells_the_truth_about_every_byte(seed: int) -> None:
    faults = Faults(seed, *(make() for make in STRIKING))
    out = passed(faults, [1000, 1001, 3000])
    sent = np.frombuffer(DATA, np.uint8)
    known = out.origin >= 0
    assert np.array_equal(out.units[known], sent[out.origin[known]])
    assert (np.diff(out.origin[known]) >= 0).all()
    assert not known.all()
    assert all(count > 0 for count in faults.counts().values())


def test_loss_counts_what_is_missing() -> None:
    faults = Faults(3, Loss(0.01, 5))
    out = passed(faults, [])
    assert faults.counts() == {"loss": len(DATA) - len(out)}
    runs = np.diff(out.origin)[np.diff(out.origin) > 1] - 1
    assert 30 < len(runs) < 80
    assert runs.max() >= 4


def test_corrupt_flips_one_bit_of_what_it_counts() -> None:
    faults = Faults(4, Corrupt(0.01))
    out = passed(faults, [])
    flips = out.units ^ np.frombuffer(DATA, np.uint8)
    assert faults.counts() == {"corrupt": np.count_nonzero(flips)}
    assert np.array_equal(flips != 0, out.origin == FOREIGN)
    assert all(int(flip).bit_count() == 1 for flip in flips[flips != 0])


def test_duplicate_and_insert_only_add() -> None:
    doubled = Faults(5, Duplicate(0.02))
    out = passed(doubled, [])
    assert len(out) == len(DATA) + doubled.counts()["duplicate"]
    assert np.array_equal(np.unique(out.origin), np.arange(len(DATA)))
    inserted = Faults(5, Insert(0.02, 3))
    out = passed(inserted, [])
    assert out.units[out.origin >= 0].tobytes() == DATA
    assert np.count_nonzero(out.origin == FOREIGN) == inserted.counts()["insert"]


def test_packets_are_struck_whole() -> None:
    packets = [bytes([n, 0, 0, 0]) for n in range(200)]
    faults = Faults(6, Loss(0.1), Duplicate(0.1), Corrupt(0.1), Insert(0.1, 4))
    out = faults.apply(Batch.of_packets(packets, 0), 0)
    known = out.origin >= 0
    assert [packets[n] for n in out.origin[known]] == list(out.units[known])
    assert all(isinstance(packet, bytes) for packet in out.units)
    assert all(count > 5 for count in faults.counts().values())


def step(faults: Faults, seconds: int) -> list[Batch]:
    """One byte every 10 ms."""
    return [
        faults.apply(Batch.of_bytes(bytes([n % 256]), n), n * NS_PER_S // 100)
        for n in range(seconds * 100)
    ]


def test_delay_holds_back_and_loses_nothing() -> None:
    faults = Faults(7, Delay(every_s=1.0, for_s=0.5))
    batches = step(faults, 60)
    origin = np.concatenate([batch.origin for batch in batches])
    assert np.array_equal(origin, np.arange(len(origin)))
    assert max(len(batch) for batch in batches) >= 50
    assert len(origin) > 60 * 100 - 60
    assert faults.counts()["delay"] > 10


def test_stall_is_silence_that_is_counted() -> None:
    stall = Stall(every_s=1.0, for_s=0.5)
    faults = Faults(8, stall)
    got = sum(len(batch) for batch in step(faults, 60))
    assert got + stall.lost == 6000
    assert stall.lost == pytest.approx(50 * stall.struck, abs=50)
    assert stall.struck > 10


def test_disconnect_pulls_the_plug_for_its_time() -> None:
    faults = Faults(9, Disconnect(every_s=1.0, for_s=0.5))
    pulled = []
    for n in range(6000):
        faults.apply(Batch.of_bytes(b"", 0), n * NS_PER_S // 100)
        pulled.append(faults.pulled)
    edges = np.flatnonzero(np.diff(np.array(pulled, int)))
    lengths = np.diff(edges)[::2]
    assert (np.abs(lengths - 50) <= 1).all()
    assert faults.counts()["disconnect"] > 10


def test_episode_between_two_calls_is_counted() -> None:
    stall = Stall(every_s=1.0, for_s=0.1)
    faults = Faults(10, stall)
    for n in range(10):
        faults.apply(Batch.of_bytes(b"x", n), n * 100 * NS_PER_S)
    assert stall.struck > 500


def test_one_by_one_is_announced() -> None:
    assert Faults(0, OneByOne()).one_by_one
    assert not Faults(0).one_by_one


def test_no_faults_change_nothing_and_the_seed_is_shown() -> None:
    faults = Faults(42)
    assert passed(faults, [7]).units.tobytes() == DATA
    assert str(faults) == "faults of seed 42: none"
    assert str(Faults(7, Loss(0.0))) == "faults of seed 7: loss 0"

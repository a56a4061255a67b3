import random

import pytest

from drivers.sampleclock import SampleClock

PERIOD_NS = 8_000_000
JITTER_NS = 20_000_000


@pytest.mark.parametrize("seed", range(5))
def test_follows_the_device_through_jitter(seed: int) -> None:
    rng = random.Random(seed)
    clock = SampleClock(PERIOD_NS)
    arrived = 0
    for n in range(5000):
        arrived = max(arrived, n * PERIOD_NS + rng.randrange(JITTER_NS))
        taken = clock.next(arrived)
        assert taken <= arrived
        if n > 500:
            assert abs(taken - n * PERIOD_NS) < JITTER_NS
        assert clock.slipped() == 0


@pytest.mark.parametrize("drift", [-0.03, 0.03])
def test_follows_a_crystal_that_is_three_percent_off(drift: float) -> None:
    clock = SampleClock(PERIOD_NS)
    for n in range(20_000):
        true_ns = round(n * PERIOD_NS * (1 + drift))
        assert abs(clock.next(true_ns) - true_ns) < 12_000_000
        assert clock.slipped() == 0


def test_says_how_many_samples_vanished() -> None:
    clock = SampleClock(PERIOD_NS)
    lost = []
    for n in [*range(1000), *range(1125, 2000)]:
        clock.next(n * PERIOD_NS)
        if missing := clock.slipped():
            lost.append(missing)
            clock.restart()
    assert len(lost) == 1
    assert 110 <= lost[0] <= 125


def test_a_stall_that_catches_up_lost_nothing() -> None:
    clock = SampleClock(PERIOD_NS)
    for n in range(3000):
        clock.next(max(n, 1500 if 1000 <= n < 1500 else n) * PERIOD_NS)
        assert clock.slipped() == 0

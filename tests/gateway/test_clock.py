import time

from gateway.clock import ClockReading, ClockState, SystemClock


def test_boottime_never_goes_back() -> None:
    clock = SystemClock()
    times = [clock.boottime_ns() for _ in range(1000)]
    assert times == sorted(times)


def test_both_clocks_are_of_one_moment() -> None:
    reading = SystemClock().read()
    offset = time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert abs(reading.wall_ns - reading.boottime_ns - offset) < 50_000_000


def test_error_is_known_only_when_synchronised() -> None:
    reading = SystemClock().read()
    assert (reading.error_ns is not None) == (reading.state is ClockState.SYNCHRONISED)


def test_wall_time_of_an_earlier_moment() -> None:
    reading = ClockReading(1_000, 5_000_000, ClockState.RESTORED)
    assert reading.wall_of(400) == 4_999_400


def test_boot_has_a_name() -> None:
    assert len(SystemClock().boot_id) == 36

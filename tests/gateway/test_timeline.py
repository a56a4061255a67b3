"""The rules by which a moment gets its time, one by one. tests/gateway/test_time_truth.py plays them all together."""

from dataclasses import replace

from drivers.model import ClockReading, ClockState
from gateway.clock import BUILT_NS
from gateway.timeline import AGREE_NS, MAX_BOOTS, MAX_PROOFS, RATE_PPM, Boot, Bounds, Timeline

S = 1_000_000_000
DAY = 86_400 * S
NOW = BUILT_NS + 300 * DAY
UNSET, RESTORED, SYNCED = ClockState.UNSET, ClockState.RESTORED, ClockState.SYNCHRONISED


def synced(boottime_ns: int, offset_ns: int = NOW, error_ns: int = 1_000_000) -> ClockReading:
    return ClockReading(boottime_ns, boottime_ns + offset_ns, SYNCED, error_ns)


def unset(boottime_ns: int) -> ClockReading:
    return ClockReading(boottime_ns, boottime_ns, UNSET)


def restored(boottime_ns: int, offset_ns: int = NOW - DAY) -> ClockReading:
    return ClockReading(boottime_ns, boottime_ns + offset_ns, RESTORED)


def drift(span_ns: int) -> int:
    return span_ns * RATE_PPM // 1_000_000


def test_the_first_synchronisation_times_the_whole_boot() -> None:
    boot = Boot("b").observe(unset(5 * S)).observe(restored(9 * S)).observe(synced(100 * S))
    early = boot.reading_at(unset(5 * S))
    assert early == ClockReading(5 * S, NOW + 5 * S, SYNCED, 1_000_000 + drift(95 * S))
    late = boot.reading_at(restored(1_100 * S))
    assert late == ClockReading(1_100 * S, NOW + 1_100 * S, SYNCED, 1_000_000 + drift(1_000 * S))


def test_a_nearer_reading_of_its_own_makes_the_error_smaller() -> None:
    boot = Boot("b").observe(synced(0))
    own = synced(DAY, NOW + 7_000_000, 2_000_000)
    assert boot.error_ns(DAY) == 1_000_000 + drift(DAY)
    assert boot.error_ns(DAY, own) == 2_000_000 + 7_000_000
    assert boot.reading_at(own) == ClockReading(DAY, NOW + DAY, SYNCED, 9_000_000)


def test_an_own_reading_that_is_not_synchronised_proves_nothing() -> None:
    boot = Boot("b").observe(synced(0))
    assert boot.error_ns(DAY, restored(DAY, NOW)) == boot.error_ns(DAY)


def test_readings_that_agree_leave_the_relation_as_it_is() -> None:
    """Otherwise two records a microsecond apart could change places."""
    boot = Boot("b").observe(synced(0))
    for n in range(1, 50):
        boot = boot.observe(synced(n * S, NOW + (-1) ** n * (AGREE_NS - 1)))
    assert boot.relation == synced(0)
    assert boot.newest_ns == 49 * S


def test_a_later_synchronisation_that_differs_corrects_the_whole_boot() -> None:
    for by_ns in (AGREE_NS, -AGREE_NS, DAY, -DAY):
        boot = Boot("b").observe(synced(10 * S)).observe(synced(20 * S, NOW + by_ns))
        assert boot.relation == synced(20 * S, NOW + by_ns)
        assert boot.reading_at(synced(10 * S)).wall_ns == NOW + by_ns + 10 * S


def test_what_was_corrected_does_not_come_back_with_the_backlog() -> None:
    boot = Boot("b").observe(synced(20 * S, NOW - DAY))
    assert boot.observe(synced(10 * S)) == boot
    assert boot.observe(synced(20 * S, NOW)).relation == synced(20 * S, NOW - DAY)


def test_the_error_holds_what_two_true_readings_differ_by() -> None:
    """The first is off by 40 ms within its two seconds, the second is exact: the time stays, the error says so."""
    boot = Boot("b").observe(synced(0, NOW + 40_000_000, 2 * S)).observe(synced(10 * S, NOW, 1_000))
    assert boot.reading_at(unset(10 * S)).error_ns == 40_001_000


def test_a_hand_on_the_clock_changes_no_synchronised_time() -> None:
    boot = Boot("b").observe(synced(10 * S))
    assert boot.observe(restored(20 * S)).observe(unset(30 * S)).relation == boot.relation
    assert boot.observe(restored(20 * S)).until_ns == 20 * S


def test_of_clocks_that_are_not_synchronised_the_latest_counts() -> None:
    boot = Boot("b").observe(restored(10 * S)).observe(unset(5 * S))
    assert boot.relation == restored(10 * S)
    later = boot.observe(restored(20 * S, NOW - 2 * DAY))
    assert later.relation == restored(20 * S, NOW - 2 * DAY)
    assert boot.observe(restored(20 * S)).relation == restored(10 * S)


def test_proofs_are_few_and_reach_far() -> None:
    boot = Boot("b")
    for n in range(200):
        boot = boot.observe(synced(n * DAY))
    assert len(boot.proofs) == MAX_PROOFS
    assert (boot.proofs[0], boot.proofs[-1]) == (synced(0), synced(199 * DAY))
    assert boot.error_ns(199 * DAY) == 1_000_000
    assert boot.error_ns(100 * DAY) < drift(20 * DAY)


def test_a_reading_each_second_does_not_pile_up() -> None:
    boot = Boot("b")
    for n in range(300):
        boot = boot.observe(synced(n * S))
    assert len(boot.proofs) < 5


def three_offline() -> Timeline:
    """Synchronised for a day; three boots of an hour, two and three without a network; synchronised again."""
    timeline = Timeline()
    boots = [
        Boot("a").observe(synced(DAY)).lasted(DAY, 1),
        *(Boot(f"off-{n}").observe(unset(S)).lasted(n * 3600 * S, 10 + n) for n in (1, 2, 3)),
        Boot("z").observe(synced(60 * S, NOW + 5 * DAY)).lasted(60 * S, 99),
    ]
    for boot in reversed(boots):  # in whatever order they come
        timeline.keep(boot)
    return timeline


def test_three_reboots_offline_have_bounds_from_both_sides() -> None:
    timeline, hour = three_offline(), 3600 * S
    end_of_a = NOW + DAY - 1_000_000
    start_of_z = NOW + 5 * DAY + 1_000_000 + drift(60 * S)
    at = 600 * S  # into each of them

    def least(span_ns: int) -> int:
        return span_ns - drift(span_ns)

    uptimes = [least(n * hour) for n in (1, 2, 3)]
    for n, name in enumerate(("off-1", "off-2", "off-3")):
        before = end_of_a + sum(uptimes[:n]) + least(at)
        after = start_of_z - sum(uptimes[n + 1 :]) - least((n + 1) * hour - at)
        assert timeline.bounds(name, at) == Bounds(before, after)
    synchronised = timeline.bounds("a", at)
    error_ns = timeline.boot("a").error_ns(at)
    assert synchronised == Bounds(NOW + at - error_ns, NOW + at + error_ns)


def test_without_neighbours_only_the_release_bounds_it() -> None:
    timeline = Timeline([Boot("a").observe(unset(S)).lasted(S, 1)])
    assert timeline.bounds("a", 0) == Bounds(BUILT_NS, None)
    assert timeline.bounds("unheard", 0) == Bounds(BUILT_NS, None)


def test_claims_that_contradict_each_other_bound_nothing() -> None:
    timeline = three_offline()
    timeline.keep(Boot("z").observe(synced(S, NOW - DAY)).lasted(S, 99))
    assert timeline.bounds("off-2", 0) == Bounds(None, None)


def test_a_boot_that_is_known_by_its_clock_alone_has_no_place_among_the_others() -> None:
    timeline = three_offline()
    timeline.keep(Boot("later").observe(unset(S)))
    assert timeline.bounds("later", 0) == Bounds(BUILT_NS, None)


def test_the_lowest_number_orders_a_boot() -> None:
    boot = Boot("a").lasted(5, 7).lasted(9, 3).lasted(2, 8).lasted(1)
    assert (boot.until_ns, boot.alarm) == (9, 3)


def test_keeping_says_whether_times_change() -> None:
    timeline = Timeline()
    boot = Boot("a").observe(unset(S))
    assert timeline.keep(boot)
    assert not timeline.keep(boot.lasted(DAY, 4))
    assert not timeline.keep(boot.observe(unset(2 * S)))
    assert timeline.keep(boot.observe(synced(3 * S)))


def test_a_copy_changes_alone() -> None:
    timeline = three_offline()
    copy = timeline.copy()
    copy.keep(replace(copy.boot("a"), until_ns=7))
    assert timeline.boot("a").until_ns == DAY


def test_of_too_many_boots_the_earliest_is_forgotten() -> None:
    timeline = Timeline()
    for n in range(MAX_BOOTS + 5):
        timeline.keep(Boot(f"b{n}").lasted(S, n + 1))
    names = [boot.boot_id for boot in timeline]
    assert len(names) == MAX_BOOTS
    assert names[0] == "b5"

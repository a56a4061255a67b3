"""What may go over the link in use."""

import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from gateway.clock import ClockReading, ClockState
from gateway.config.links import Allow, Link, Quiet
from gateway.journal.entry import Stream
from gateway.journal.storage import FileStorage
from gateway.uplink.links.policy import LinkPolicy, cost_bytes, wants_strips
from gateway.uplink.links.usage import Usage
from gateway.uplink.order import Age

OPEN = Link("4g", "wwan0")


class SetClock:
    boot_id = "boot-1"

    def __init__(self, text: str = "2026-11-22T12:00:00") -> None:
        self.text = text
        self.state = ClockState.SYNCHRONISED

    def boottime_ns(self) -> int:
        return 5

    def read(self) -> ClockReading:
        moment = datetime.fromisoformat(self.text).replace(tzinfo=UTC)
        return ClockReading(5, round(moment.timestamp()) * 1_000_000_000, self.state)


class Bench:
    def __init__(self, folder: Path, link: Link | None, *, metered: bool = True) -> None:
        self.clock = SetClock()
        self.usage = Usage(folder / "links", FileStorage(), ("4g",))
        found = None if link is None else (link, metered)
        self.policy = LinkPolicy(self.clock, self.usage, lambda: found)

    def may(self, stream: Stream, age: Age = Age.LIVE, size_bytes: int = 1000) -> bool:
        return self.policy.may_send(stream, age, size_bytes, 0)


def test_a_metered_link_carries_alarms_vitals_and_what_was_asked_for(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OPEN)
    assert bench.may(Stream.VITALS)
    assert bench.may(Stream.VITALS, Age.BACKLOG)
    assert bench.may(Stream.AUDIT)
    assert not bench.may(Stream.WAVEFORM)
    assert not bench.may(Stream.WAVEFORM, Age.BACKLOG)
    assert bench.may(Stream.WAVEFORM, Age.ASKED)
    assert wants_strips(OPEN, metered=True)


def test_a_free_link_carries_everything(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OPEN, metered=False)
    assert all(bench.may(stream, age) for stream in Stream for age in Age)
    assert not wants_strips(OPEN, metered=False)
    assert bench.policy.next_change_ns(0) is None
    assert all(Bench(tmp_path, None).may(stream, age) for stream in Stream for age in Age)


def test_a_link_says_how_long_messages_gather_and_how_often_the_heart_beats(tmp_path: Path) -> None:
    usual, none = Bench(tmp_path, OPEN).policy, Bench(tmp_path, None).policy
    slow = Bench(tmp_path, replace(OPEN, gather_s=20, heartbeat_s=120)).policy
    assert (usual.gather_ns(), usual.heartbeat_ns()) == (0, 10_000_000_000)
    assert (none.gather_ns(), none.heartbeat_ns()) == (0, None)
    assert (slow.gather_ns(), slow.heartbeat_ns()) == (20_000_000_000, 120_000_000_000)


@pytest.mark.parametrize("metered", [True, False])
@pytest.mark.parametrize("allow", Allow)
def test_the_configuration_decides_for_each_class(
    tmp_path: Path,
    allow: Allow,
    metered: bool,  # noqa: FBT001
) -> None:
    bench = Bench(tmp_path, Link("4g", "wwan0", vitals=allow, waveform=allow, audit=allow), metered=metered)  # fmt: skip
    for stream in (Stream.VITALS, Stream.WAVEFORM, Stream.AUDIT):
        assert bench.may(stream) is (allow is Allow.ALWAYS)
    assert bench.may(Stream.ALARM)


def test_waveform_ends_with_the_budget_and_comes_back_with_the_month(tmp_path: Path) -> None:
    budget = 10 * cost_bytes(1000)
    link = Link("4g", "wwan0", waveform=Allow.ALWAYS, waveform_bytes_month=budget)
    bench = Bench(tmp_path, link)
    sent = 0
    while bench.may(Stream.WAVEFORM):
        bench.policy.sent(Stream.WAVEFORM, Age.LIVE, 1000)
        sent += 1
    assert sent == 10
    bench.policy.sent(Stream.WAVEFORM, Age.ASKED, 1000)
    assert bench.usage.of("4g").used.waveform_bytes == 11 * cost_bytes(1000)
    assert bench.may(Stream.VITALS)
    assert wants_strips(link, metered=True)
    bench.clock.text, bench.clock.state = "2026-12-01T00:00:00", ClockState.RESTORED
    assert not bench.may(Stream.WAVEFORM), "perhaps it is December"
    bench.clock.state = ClockState.SYNCHRONISED
    assert bench.may(Stream.WAVEFORM)
    assert bench.policy.next_change_ns(7) == 7 + 60_000_000_000


def test_other_classes_are_counted_and_take_nothing_of_the_waveforms(tmp_path: Path) -> None:
    bench = Bench(tmp_path, OPEN)
    bench.policy.sent(Stream.VITALS, Age.LIVE, 1000)
    bench.policy.sent(Stream.ALARM, Age.LIVE, 0)
    used = bench.usage.of("4g").used
    assert (used.total_bytes, used.waveform_bytes) == (cost_bytes(1000) + cost_bytes(0), 0)


NIGHT = Quiet(22 * 60, 6 * 60, utc=True)


@pytest.mark.parametrize(
    ("time_of_day", "quiet"),
    [("21:59:59", False), ("22:00:00", True), ("00:00:00", True), ("05:59:59", True), ("06:00:00", False)],
)  # fmt: skip
def test_in_quiet_hours_all_but_alarms_and_live_vitals_waits(
    tmp_path: Path,
    time_of_day: str,
    quiet: bool,  # noqa: FBT001
) -> None:
    bench = Bench(tmp_path, replace(OPEN, quiet=NIGHT), metered=False)
    bench.clock.text = f"2026-11-22T{time_of_day}"
    for stream, age in [(s, a) for s in Stream for a in (Age.LIVE, Age.BACKLOG)]:
        goes = stream is Stream.ALARM or (stream, age) == (Stream.VITALS, Age.LIVE)
        assert bench.may(stream, age) is (goes or not quiet), (stream, age)
    assert bench.policy.next_change_ns(0) is not None
    bench.clock.state = ClockState.UNSET
    assert bench.may(Stream.VITALS, Age.BACKLOG), "nobody knows what time it is"


def test_quiet_hours_by_the_hubs_own_time_zone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = Bench(tmp_path, replace(OPEN, quiet=replace(NIGHT, utc=False)))
    bench.clock.text = "2026-07-01T20:30:00"
    try:
        monkeypatch.setitem(os.environ, "TZ", "CET-1CEST,M3.5.0,M10.5.0/3")
        time.tzset()
        assert not bench.may(Stream.VITALS, Age.BACKLOG)
        bench.clock.text = "2026-07-01T19:30:00"
        assert bench.may(Stream.VITALS, Age.BACKLOG)
    finally:
        monkeypatch.undo()
        time.tzset()


def test_a_span_within_a_day() -> None:
    lunch = Quiet(12 * 60, 13 * 60, utc=True)
    assert [lunch.holds(m) for m in (719, 720, 779, 780)] == [False, True, True, False]

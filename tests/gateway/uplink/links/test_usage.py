"""What is counted by month: with a clock that is right, wrong and unknown, over restarts, kills and a damaged file."""

from datetime import UTC, datetime
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from gateway.clock import ClockReading, ClockState
from gateway.journal.storage import FileStorage
from gateway.uplink.links.usage import (
    ALL,
    RESERVE_BYTES,
    UNKNOWN,
    Months,
    Usage,
    month_of,
    month_text,
)

NOV, DEC = 2026 * 12 + 10, 2026 * 12 + 11


def reading(text: str, state: ClockState = ClockState.SYNCHRONISED) -> ClockReading:
    moment = datetime.fromisoformat(text).replace(tzinfo=UTC)
    return ClockReading(0, round(moment.timestamp()) * 1_000_000_000, state)


def usage(folder: Path) -> Usage:
    return Usage(folder / "links", FileStorage(), ("wifi", "4g"))


def test_a_month_is_a_calendar_month_in_utc_and_only_a_kept_clock_knows_it() -> None:
    assert month_of(reading("2026-11-30T23:59:59")) == NOV
    assert month_of(reading("2026-12-01T00:00:00")) == DEC
    assert month_of(reading("2026-12-01T00:00:00", ClockState.RESTORED)) == UNKNOWN
    assert month_of(reading("1970-01-01T00:00:00", ClockState.UNSET)) == UNKNOWN
    assert [month_text(month) for month in (NOV, DEC, UNKNOWN)] == ["2026-11", "2026-12", "unknown"]


def test_a_new_month_begins_at_nothing_and_an_unknown_one_does_not() -> None:
    months = Months()
    for month, total in (
        (UNKNOWN, 10),
        (NOV, 20),
        (UNKNOWN, 30),
        (NOV, 40),
        (DEC, 10),
        (UNKNOWN, 20),
    ):
        months.turn(month)
        months.used.total_bytes += 10
        assert months.used.total_bytes == total, month_text(month)


def test_a_clock_that_was_ahead_for_a_while_neither_frees_nor_doubles() -> None:
    months = Months()
    months.turn(NOV)
    months.used.total_bytes += 100
    months.turn(NOV + 60)
    months.used.total_bytes += 7
    months.turn(NOV)
    assert months.used.total_bytes == 107
    months.turn(NOV)
    assert months.used.total_bytes == 107
    months.turn(DEC)
    assert months.used.total_bytes == 0


PIECE = st.tuples(st.booleans(), st.integers(0, 99))


@given(st.lists(PIECE), st.lists(PIECE), st.lists(PIECE), st.integers(NOV - 30, NOV + 90))
def test_a_clock_that_is_wrong_for_a_while_shows_all_of_the_month_and_nothing_twice(
    before: list[tuple[bool, int]],
    during: list[tuple[bool, int]],
    after: list[tuple[bool, int]],
    wrong: int,
) -> None:
    months, used = Months(), 0
    for pieces, month in ((before, NOV), (during, wrong), (after, NOV)):
        for is_known, count in pieces:
            months.turn(month if is_known else UNKNOWN)
            months.used.total_bytes += count
            used += count
    months.turn(NOV)
    if wrong >= NOV or not any(known for known, _ in during) or any(known for known, _ in before):
        assert months.used.total_bytes == used
    assert months.used.total_bytes <= used
    months.turn(NOV + 91)
    assert months.used.total_bytes == 0


def test_the_counts_survive_an_end_exactly_and_a_kill_on_the_safe_side(tmp_path: Path) -> None:
    first, due = usage(tmp_path), []
    first.turn(NOV)
    due.append(first.is_due)
    first.add("4g", 1000, waveform=True)
    first.add("4g", 500, waveform=False)
    due.append(first.is_due)
    first.write(first.payload())
    due.append(first.is_due)
    first.add("4g", RESERVE_BYTES - 1, waveform=False)
    due.append(first.is_due)
    killed = usage(tmp_path)
    killed.turn(NOV)
    assert killed.of("4g").used.total_bytes == 1500 + RESERVE_BYTES
    assert killed.of("4g").used.waveform_bytes == 1000 + RESERVE_BYTES
    assert killed.of("wifi").used.total_bytes == 0
    first.add("4g", 2, waveform=False)
    due.append(first.is_due)
    first.write(first.payload(reserve_bytes=0))
    ended = usage(tmp_path)
    assert ended.of("4g").used.total_bytes == 1501 + RESERVE_BYTES
    assert ended.of("4g").used.waveform_bytes == 1000
    assert ended.of("4g").month == NOV
    assert due == [False, True, False, False, True]


def test_a_damaged_file_is_a_budget_used_up_until_the_month_ends(tmp_path: Path) -> None:
    usage(tmp_path).write(usage(tmp_path).payload())
    (tmp_path / "links").write_bytes(b"\xff" * 8192)
    damaged = usage(tmp_path)
    assert damaged.damaged
    damaged.turn(NOV)
    assert damaged.of("4g").used.waveform_bytes >= ALL
    damaged.write(damaged.payload())
    again = usage(tmp_path)
    again.turn(NOV)
    assert again.of("4g").used.waveform_bytes >= ALL
    again.turn(DEC)
    assert again.of("4g").used.waveform_bytes == 0


def test_a_link_that_is_taken_out_of_the_configuration_and_put_back_keeps_its_count(
    tmp_path: Path,
) -> None:
    first = usage(tmp_path)
    first.turn(NOV)
    first.add("4g", 77, waveform=False)
    first.write(first.payload(0))
    without = Usage(tmp_path / "links", FileStorage(), ("wifi",))
    without.write(without.payload(0))
    assert usage(tmp_path).of("4g").used.total_bytes == 77

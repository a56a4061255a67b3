"""Falls of SpO2: only where they are configured, of valid values alone, and never across a hole."""

from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.assigned import Code, Unit
from drivers.model import (
    Event,
    EventKind,
    Observation,
    Origin,
    Quality,
    Quantity,
    Record,
    Special,
    Validity,
)
from drivers.registry import all_drivers
from firmware_sim.patient import Desaturation, Plan
from gateway.conditioner import Conditioner
from gateway.config.device import Device
from gateway.journal.entry import Stream, stream_of
from tests.gateway.conditioner_signals import run
from tests.gateway.test_conditioner_oximeter import CURVE, lights

SPO2 = Code.PULS_OXIM_SAT_O2
S = 1_000_000_000
BEGAN = 70
"""Seconds, of `FALLEN`."""


def device(drop: int | None = 3, *, curve: bool = False) -> Device:
    driver = all_drivers()["healthypi-v3"]
    port = Path("/dev/ttyUSB0")
    known = CURVE if curve else None
    return Device("board", driver, port=port, spo2_curve=known, desaturation_percent=drop)


def said(
    percent: Decimal | Special | int,
    at_ns: int,
    validity: Validity = Validity.VALID,
    origin: Origin = Origin.DEVICE,
    unit: Unit = Unit.PERCENT,
) -> Observation:
    value = Decimal(percent) if isinstance(percent, int) else percent
    return Observation(SPO2, Quantity(value, unit), at_ns, Quality(validity), origin)


def series(values: Iterable[int], first_s: int = 0, origin: Origin = Origin.DEVICE) -> list[Record]:
    return [said(value, (first_s + k) * S + 7, origin=origin) for k, value in enumerate(values)]


FALLEN = series([97] * BEGAN + [91] * 15)


def falls(records: Iterable[Record], conditioner: Conditioner | None = None) -> list[Event]:
    found = run(records, conditioner or Conditioner([device()]))
    return [r for r in found if isinstance(r, Event) and r.reason == "desaturation"]


def spans(events: Iterable[Event]) -> list[tuple[int | None, int | None]]:
    """From and until which second."""
    return [
        (
            None if e.from_ns is None else e.from_ns // S,
            None if e.until_ns is None else e.until_ns // S,
        )
        for e in events
    ]


def test_it_is_off_unless_configured() -> None:
    records = [*FALLEN, *series([97] * 5, 85)]
    assert run(records, Conditioner([device(None)])) == records
    assert run(records) == records
    assert falls(records)


def test_a_fall_is_an_event_of_the_vitals_when_it_has_lasted_and_when_it_is_over() -> None:
    begun, over = falls([*FALLEN, *series([90, 97, 97], 85)])
    assert begun == Event(
        EventKind.SIGNAL,
        80 * S + 7,
        "desaturation",
        "SpO2 of the device: baseline 97.0 %, lowest 91.0 %, lasts",
        code=SPO2,
        from_ns=70 * S + 7,
    )
    assert over == Event(
        EventKind.SIGNAL,
        86 * S + 7,
        "desaturation",
        "SpO2 of the device: baseline 97.0 %, lowest 90.0 %, recovered",
        code=SPO2,
        from_ns=70 * S + 7,
        until_ns=86 * S + 7,
    )
    assert stream_of(begun) is stream_of(over) is Stream.VITALS


def test_the_records_pass_unchanged_and_first() -> None:
    out = run(FALLEN, Conditioner([device()]))
    assert [r for r in out if isinstance(r, Observation)] == FALLEN
    at = next(k for k, r in enumerate(out) if isinstance(r, Event))
    assert out[at - 1] == FALLEN[80]


def test_how_deep_it_must_be_is_the_configured_value() -> None:
    records = [*FALLEN, *series([97], 85)]
    assert spans(falls(records, Conditioner([device(6)]))) == [(70, None), (70, 85)]
    assert not falls(records, Conditioner([device(7)]))


@pytest.mark.parametrize(
    "bad",
    [
        said(91, 85 * S, Validity.QUESTIONABLE),
        said(91, 85 * S, Validity.INVALID),
        said(91, 85 * S, Validity.CALIBRATING),
        said(Special.UNKNOWN, 85 * S),
        said(Decimal("NaN"), 85 * S),
        said(Decimal("sNaN"), 85 * S),
        said(Decimal(-1), 85 * S),
        said(Decimal(101), 85 * S),
        said(91, 85 * S, unit=Unit.NOS),
        Event(EventKind.GAP, 85 * S, "resync"),
    ],
    ids=str,
)
def test_what_is_no_valid_value_ends_it(bad: Record) -> None:
    records = [*FALLEN, bad, *series([91] * 5, 86)]
    _, over = falls(records)
    assert spans([over]) == [(70, 85)]
    assert over.text.endswith("no valid value")


def test_a_gap_leaves_the_baseline_and_a_new_link_none() -> None:
    rest = series([91] * 20, 86)
    gap = Event(EventKind.GAP, 85 * S + 8, "resync")
    assert spans(falls([*FALLEN, gap, *rest])) == [(70, None), (70, 85), (86, None)]
    for kind in (EventKind.LOST, EventKind.CONNECTED):
        broken = [*FALLEN, Event(kind, 85 * S + 8, "x"), *rest]
        assert spans(falls(broken)) == [(70, None), (70, 84)]


def test_the_first_value_of_a_new_link_counts_though_one_of_the_old_came_in_that_second() -> None:
    """It is the first of the 30 that a baseline takes."""
    linked = [*series([97] * 10), Event(EventKind.CONNECTED, 9 * S + 8, "x"), said(97, 9 * S + 9)]
    assert spans(falls([*linked, *series([97] * 29 + [91] * 12, 10)])) == [(39, None)]


def test_silence_ends_it_with_the_last_value() -> None:
    assert spans(falls([*FALLEN, *series([91], 91)])) == [(70, None), (70, 84)]
    assert spans(falls([*FALLEN, *series([91], 89)])) == [(70, None)]


def test_of_several_values_in_a_second_one_counts() -> None:
    """A baseline of 30 values is one of 30 s, however many come."""
    quick = [said(97, k * S // 10) for k in range(290)] + [
        said(91, k * S // 10) for k in range(290, 396)
    ]
    assert not falls(quick)
    bad = [*FALLEN, said(91, 84 * S + 9, Validity.INVALID)]
    assert spans(falls(bad)) == [(70, None), (70, 84)]


def test_times_that_go_back_begin_anew() -> None:
    records = [*FALLEN, *series([97] * 25, 20), *series([91] * 14, 45)]
    assert spans(falls(records)) == [(70, None), (70, 84)]


def test_devices_do_not_mix_nor_do_device_and_hub() -> None:
    conditioner = Conditioner([device()])
    assert not [
        r for record in FALLEN for r in conditioner.process("other", record) if isinstance(r, Event)
    ]
    mixed = [*series([97] * 70), *series([91] * 15, 70, Origin.HUB)]
    assert not falls(mixed)


def test_what_the_hub_computes_of_light_is_followed_where_its_curve_is_configured() -> None:
    plan = Plan(desaturations=(Desaturation(60, 100, 12),))
    assert not falls(lights(plan), Conditioner([device()]))
    begun, *_ = falls(lights(plan), Conditioner([device(curve=True)]))
    assert begun.text.startswith("SpO2 of the hub: baseline 9")
    assert begun.from_ns is not None
    # Three percent are reached at 77 s, and the value of a second speaks of the eight before it.
    assert 77 < begun.from_ns / 1e9 < 86
    assert begun.until_ns is None
    assert begun.at_ns - begun.from_ns >= 10 * S


KINDS = st.sampled_from([EventKind.GAP, EventKind.LOST, EventKind.CONNECTED, EventKind.SIGNAL])
TIMES = st.one_of(st.integers(0, 300 * S), st.integers(0, 1 << 63))
STEPS = st.tuples(
    st.integers(-S, 7 * S) | st.just(S), st.integers(80, 100), st.sampled_from(Validity)
)


@given(start=TIMES, jumps=st.lists(st.one_of(TIMES, KINDS, STEPS), max_size=60))
def test_it_never_raises_nor_withholds(start: int, jumps: list[object]) -> None:
    now, records = start, list(FALLEN)
    for jump in jumps:
        match jump:
            case EventKind():
                records.append(Event(jump, now, "x"))
            case int():
                now = jump
                records.append(said(88, now))
            case (int() as step, int() as percent, Validity() as validity):
                now += step
                records.append(said(percent, now, validity))
    out = run(records, Conditioner([device()]))
    assert [r for r in out if not (isinstance(r, Event) and r.reason == "desaturation")] == records
    for event in out:
        if isinstance(event, Event) and event.until_ns is not None and event.from_ns is not None:
            assert event.until_ns - event.from_ns >= 10 * S


def test_never_raises_where_a_float_no_longer_tells_nanoseconds_apart() -> None:
    late = 1 << 62
    records = [*FALLEN, said(97, late), said(97, late + 1, Validity.INVALID), said(91, late + S)]
    assert len(run(records, Conditioner([device()]))) == len(records) + 2

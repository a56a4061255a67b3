from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
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
    SampleArray,
    Special,
    Validity,
)
from firmware_sim.patient import Patient, Plan
from gateway.conditioner import Conditioner
from tests.gateway.conditioner_signals import RATE_HZ, STOP, block, number, of, run, stream


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_beats_are_those_of_the_patient(seed: int) -> None:
    patient = Patient(Plan(seed=seed), RATE_HZ)
    found = of(Code.ECG_TIME_PD_RR_GL, run([*stream(patient, 60), STOP]))
    truth = patient.beats(59.9)
    ends = np.array([r.determined_at_ns for r in found]) / 1e9
    assert len(found) == len(truth) - 1
    assert np.abs(ends - truth[1:]).max() < 0.004
    expected = np.diff(truth) * 1000
    values = [number(r) for r in found]
    assert np.abs(np.array(values) - expected).max() < 8


def test_every_record_passes_first_and_unchanged_but_for_the_index() -> None:
    records: list[Record] = [
        *stream(Patient(Plan(), RATE_HZ), 10),
        Observation(Code.PULS_OXIM_SAT_O2, Quantity(Special.UNKNOWN, Unit.PERCENT), 5),
        Event(EventKind.MALFORMED, 6, "resync"),
    ]
    conditioner = Conditioner()
    for record in records:
        out = next(iter(conditioner.process("board", record)))
        if isinstance(record, Observation) and isinstance(out, Observation):
            out = replace(out, quality=replace(out.quality, sqi=record.quality.sqi))
        assert out == record


def test_what_the_hub_determined_says_so() -> None:
    derived = [
        r
        for r in run([*stream(Patient(Plan(), RATE_HZ), 20)])
        if isinstance(r, Observation) and not isinstance(r.value, SampleArray)
    ]
    assert derived
    assert {r.origin for r in derived} == {Origin.HUB}
    assert {r.code for r in derived} == {Code.ECG_TIME_PD_RR_GL, Code.ECG_HEART_RATE}


def test_cutting_into_other_blocks_changes_nothing() -> None:
    patient = Patient(Plan(), RATE_HZ)
    whole = of(Code.ECG_TIME_PD_RR_GL, run([*stream(patient, 30), STOP]))
    pieces = of(Code.ECG_TIME_PD_RR_GL, run([*stream(patient, 30, size=1), STOP]))
    assert [(r.value, round(r.determined_at_ns / 1e6)) for r in whole] == [
        (r.value, round(r.determined_at_ns / 1e6)) for r in pieces
    ]


@pytest.mark.parametrize("how", ["event", "jump", "lead_off"])
def test_no_interval_spans_a_gap(how: str) -> None:
    patient = Patient(Plan(), RATE_HZ)
    before, after = stream(patient, 10), stream(patient, 10, start_s=13)
    middles: dict[str, list[Record]] = {
        "event": [Event(EventKind.GAP, 0, "resync")],
        "jump": [],
        "lead_off": [
            block(10 * RATE_HZ, [0] * 25, quality=Quality(Validity.INVALID, reason="lead_off"))
        ],
    }
    middle = middles[how]
    if how != "jump":
        after = [replace(b, determined_at_ns=b.determined_at_ns - 3_000_000_000) for b in after]
    found = of(Code.ECG_TIME_PD_RR_GL, run([*before, *middle, *after, STOP]))
    assert max(number(r) or 0 for r in found) < 1500
    assert len(found) >= 20


def test_two_devices_do_not_mix() -> None:
    one, two = Patient(Plan(seed=1), RATE_HZ), Patient(Plan(seed=2, heart_rate=110), RATE_HZ)
    alone = of(Code.ECG_TIME_PD_RR_GL, run([*stream(one, 20)]))
    conditioner = Conditioner()
    together: list[Record] = []
    for a, b in zip(stream(one, 20), stream(two, 20), strict=True):
        together += [r for r in conditioner.process("one", a) if r is not a]
        list(conditioner.process("two", b))
    assert of(Code.ECG_TIME_PD_RR_GL, together) == alone


CODES = (
    Code.ECG_ELEC_POTL,
    Code.WARDLINK_PPG_INFRARED,
    Code.WARDLINK_PPG_RED,
    Code.PULS_OXIM_PLETH,
    Code.IMPED_TTHOR,
)


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(-(1 << 31), (1 << 31) - 1), max_size=40),
            st.integers(-(1 << 40), 1 << 40),
            st.sampled_from(
                [1, 7_000, 999_999, 1_000_000, 8_000_000, 16_666_667, 17_000_000, 10**12]
            ),
            st.permutations(CODES),
        ),
        max_size=12,
    )
)
@settings(max_examples=100, deadline=None)
def test_never_raises(parts: list[tuple[list[int], int, int, list[Code]]]) -> None:
    conditioner = Conditioner()
    for values, at_ns, period_ns, codes in parts:
        samples = SampleArray.of(values, period_ns=period_ns, unit=Unit.NOS)
        for code in codes:
            record = Observation(code, samples, at_ns)
            out = next(iter(conditioner.process("board", record)))
            assert isinstance(out, Observation)
            assert (out.value, out.determined_at_ns) == (samples, at_ns)
            list(conditioner.process("board", record))
    list(conditioner.process("board", STOP))


@given(seed=st.integers(0, 1 << 32), level=st.sampled_from([-1, 0, 1, 1 << 20]))
@settings(max_examples=20, deadline=None)
def test_never_raises_whatever_lasts_for_minutes(seed: int, level: int) -> None:
    """Light of no level, of less than none, of noise alone; an ECG of steps; all at their numbers' limits now and then."""
    rng = np.random.default_rng(seed)
    conditioner = Conditioner()
    x = level + np.rint(rng.choice([0, 3, 1e5]) * rng.standard_normal(90 * RATE_HZ))
    x[rng.integers(0, x.size, 20)] = rng.choice([-(1 << 31), (1 << 31) - 1], 20)
    for first in range(0, x.size, 125):
        for code in CODES:
            record = block(first, x[first : first + 125].astype(int).tolist(), code=code)
            for out in conditioner.process("board", record):
                if isinstance(out, Observation) and out.origin is Origin.HUB:
                    value = number(out)
                    assert value is None or np.isfinite(value)
    list(conditioner.process("board", STOP))

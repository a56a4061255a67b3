from dataclasses import FrozenInstanceError
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from drivers.assigned import LOINC, UCUM, Code, Unit
from drivers.model import Observation, Quantity, SampleArray


@given(st.lists(st.integers(-(1 << 31), (1 << 31) - 1)))
def test_samples_come_back_as_they_went_in(values: list[int]) -> None:
    packed = SampleArray.of(values, period_ns=1, unit=Unit.NOS)
    assert list(packed.samples()) == values
    assert len(packed) == len(values)


def test_samples_are_little_endian() -> None:
    assert SampleArray.of([1, -2], period_ns=1, unit=Unit.NOS, width=2).data == b"\x01\x00\xfe\xff"


def test_a_sample_that_does_not_fit_is_refused() -> None:
    with pytest.raises(OverflowError):
        SampleArray.of([40_000], period_ns=1, unit=Unit.NOS, width=2)


def test_two_is_not_two_point_nought() -> None:
    assert str(Quantity(Decimal("2.0"), Unit.DEGC).value) != str(
        Quantity(Decimal(2), Unit.DEGC).value
    )


def test_an_observation_ends_with_its_last_sample() -> None:
    wave = SampleArray.of([1, 2, 3], period_ns=10, unit=Unit.NOS)
    assert Observation(Code.ECG_ELEC_POTL, wave, 100).ends_ns == 130
    assert (
        Observation(Code.ECG_HEART_RATE, Quantity(Decimal(1), Unit.BEAT_PER_MIN), 100).ends_ns
        == 100
    )


def test_records_cannot_be_changed() -> None:
    record = Observation(Code.ECG_HEART_RATE, Quantity(Decimal(1), Unit.BEAT_PER_MIN), 100)
    with pytest.raises(FrozenInstanceError):
        record.determined_at_ns = 5  # type: ignore[misc]


def test_every_known_unit_has_a_ucum_code_and_the_unknown_none() -> None:
    assert set(Unit) - set(UCUM) == {Unit.NOS}
    assert set(LOINC) <= set(Code)

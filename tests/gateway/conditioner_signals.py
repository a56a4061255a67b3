"""Signals as records, for the tests of the conditioner."""

from collections.abc import Iterable
from decimal import Decimal

import numpy as np
from numpy.typing import NDArray

from drivers.assigned import Code, Unit
from drivers.model import Event, EventKind, Observation, Quality, Quantity, Record, SampleArray
from firmware_sim.patient import Patient
from gateway.conditioner import Conditioner

Floats = NDArray[np.float64]

RATE_HZ = 125
PERIOD_NS = 8_000_000
STOP = Event(EventKind.LOST, 0, "hub_stopped")


def block(
    first: int,
    values: list[int],
    at_ns: int | None = None,
    quality: Quality | None = None,
    code: Code = Code.ECG_ELEC_POTL,
) -> Observation:
    samples = SampleArray.of(values, period_ns=PERIOD_NS, unit=Unit.NOS)
    start_ns = first * PERIOD_NS if at_ns is None else at_ns
    return Observation(code, samples, start_ns, quality or Quality())


def blocks(
    x: Floats, size: int = 25, start: int = 0, code: Code = Code.ECG_ELEC_POTL
) -> list[Observation]:
    """A signal in counts as records of `size` samples; the first is number `start`."""
    counts = np.rint(x).astype(int)
    return [
        block(start + first, counts[first : first + size].tolist(), code=code)
        for first in range(0, len(counts), size)
    ]


def stream(patient: Patient, seconds: int, size: int = 25, start_s: int = 0) -> list[Observation]:
    """A patient's ECG, 100 counts for 1 mV."""
    first = start_s * RATE_HZ
    return blocks(100 * patient.samples(first, seconds * RATE_HZ)["ecg"], size, first)


def run(records: Iterable[Record], conditioner: Conditioner | None = None) -> list[Record]:
    conditioner = conditioner or Conditioner()
    return [out for record in records for out in conditioner.process("board", record)]


def of(code: Code, records: Iterable[Record]) -> list[Observation]:
    """The observations of one code, in order."""
    return [r for r in records if isinstance(r, Observation) and r.code is code]


def number(record: Observation) -> float | None:
    """Its value; None when it is unknown."""
    assert isinstance(record.value, Quantity)
    return float(record.value.value) if isinstance(record.value.value, Decimal) else None


def second(record: Observation | Event) -> float:
    """When it was, in seconds since sample 0."""
    return (record.determined_at_ns if isinstance(record, Observation) else record.at_ns) / 1e9

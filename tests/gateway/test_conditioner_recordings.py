"""Real ECG with real noise, where the recordings are at hand: good seconds give a rate, bad ones no confident one."""

import numpy as np
import pytest

from drivers.assigned import Code, Unit
from drivers.model import Observation, SampleArray, Validity
from gateway.conditioner import Conditioner
from tests.gateway.conditioner_signals import Floats, number, of, second
from tests.gateway.signal.test_recordings import beats_of, samples_of
from tools.signal_bench import data
from tools.signal_bench.noise import noise_test, noisy_spans
from tools.signal_bench.records import Record

PERIOD_NS = round(1e9 / data.MITDB_HZ)
BLOCK = 72
MINUTES = 9
"""Five clean, two noisy, two clean."""

pytestmark = pytest.mark.skipif(not data.stressed(), reason=data.absent("ecg/noise, ecg/mitdb"))


def rates(x: Floats) -> list[Observation]:
    conditioner, found = Conditioner(), []
    counts = np.rint(x[: round(MINUTES * 60 * data.MITDB_HZ)]).astype(int).tolist()
    for first in range(0, len(counts), BLOCK):
        samples = SampleArray.of(counts[first : first + BLOCK], period_ns=PERIOD_NS, unit=Unit.NOS)
        record = Observation(Code.ECG_ELEC_POTL_II, samples, first * PERIOD_NS)
        found += of(Code.ECG_HEART_RATE, conditioner.process("board", record))
    return found


def truth_bpm(beats_s: Floats, at_s: float) -> float:
    """60 s over the median of the last eight intervals."""
    seen = int(np.searchsorted(beats_s, at_s + 0.1))
    return float(60 / np.median(np.diff(beats_s[max(0, seen - 9) : seen])))


@pytest.mark.parametrize("name", ["118", "124"])
@pytest.mark.parametrize(("kind", "most"), [("em", 0.05), ("ma", 0.2)])
def test_of_noise_as_strong_as_beats_hardly_a_rate_is_confident(
    name: str, kind: str, most: float
) -> None:
    beats_s = beats_of(name) / data.MITDB_HZ
    marks = ("N",) * len(beats_s)
    clean = Record(name, data.MITDB_HZ, samples_of(name), 200.0, 1024.0, beats_s, marks, ())
    found = rates(noise_test(clean, data.noise(kind), 0.0))
    (begin, end), *_ = noisy_spans(MINUTES * 60)
    valid = [record for record in found if record.quality.validity is Validity.VALID]
    inside = [record for record in valid if begin + 2 < second(record) < end]
    assert len(inside) < most * (end - begin)
    before = [record for record in valid if 10 < second(record) < begin]
    after = [record for record in valid if second(record) > end + 30]
    # One for each second with a beat: 124 has 49 beats a minute.
    assert len(before) > 0.75 * (begin - 10)
    assert len(after) > 0.65 * (MINUTES * 60 - end - 30)
    for group in (before, after):
        wrong = [r for r in group if abs((number(r) or 0) - truth_bpm(beats_s, second(r))) > 5]
        assert len(wrong) < 0.03 * len(group)

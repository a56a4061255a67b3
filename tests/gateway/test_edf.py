"""Waveforms out of a journal into EDF+, read back with the library's reader: every sample, no other, at its time."""

from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

edfio = pytest.importorskip("edfio")

from drivers.assigned import Code, Unit  # noqa: E402 - only where the extra is installed
from drivers.model import Observation, Quality, SampleArray, Validity  # noqa: E402
from gateway import cli  # noqa: E402
from gateway.clock import ClockReading, ClockState  # noqa: E402
from gateway.edf import Exported, Exporter  # noqa: E402
from gateway.journal.entry import Batch, Entry, Stream  # noqa: E402
from gateway.journal.journal import Journal  # noqa: E402
from gateway.journal.keys import HubKey  # noqa: E402
from tests.gateway.journal.builders import SEGMENT, FixedClock  # noqa: E402

PERIOD_NS = 8_000_000
CLOCK = ClockReading(0, 1_800_000_000_250_000_000, ClockState.SYNCHRONISED, 1_000)


def block(
    first: int, count: int, code: Code = Code.ECG_ELEC_POTL_II, start_ns: int | None = None
) -> Observation:
    samples = SampleArray.of(
        [n % 30_000 - 15_000 for n in range(first, first + count)],
        period_ns=PERIOD_NS,
        unit=Unit.MICRO_VOLT,
        scale=Decimal("12.309"),
        width=2,
    )
    return Observation(code, samples, first * PERIOD_NS if start_ns is None else start_ns)


def export(folder: Path, records: list[Observation], clock: ClockReading = CLOCK) -> Exported:
    exporter = Exporter(folder)
    for n, record in enumerate(records):
        entry = Entry(n + 1, "board", record, "p 1")
        batch = Batch("hub-1", Stream.WAVEFORM, "e", "boot-1", clock, (entry,))
        exporter.take(batch, entry)
    exporter.close()
    return exporter.done


def read(folder: Path) -> list[Any]:
    paths = sorted(folder.iterdir(), key=lambda path: int(path.stem.split("-")[4]))
    return [edfio.read_edf(p) if p.suffix == ".edf" else edfio.read_bdf(p) for p in paths]


def test_a_run_without_a_hole_is_one_file(tmp_path: Path) -> None:
    done = export(tmp_path, [block(n, 25) for n in range(0, 1250, 25)])
    assert (done.files, done.samples, done.gaps, done.left_out) == (1, 1250, 0, [])
    (found,) = read(tmp_path)
    (signal,) = found.signals
    assert signal.digital.tolist() == [n - 15_000 for n in range(1250)]
    assert signal.data == pytest.approx(signal.digital * 12.309, rel=1e-5, abs=0.02)
    assert (signal.label, signal.physical_dimension) == ("ECG_ELEC_POTL_II", "uV")
    assert signal.sampling_frequency == 125
    assert (str(found.startdate), str(found.starttime)) == ("2027-01-15", "08:00:00.250000")
    assert (found.patient.code, found.recording.equipment_code) == ("p_1", "board")


def test_a_gap_ends_the_file_and_is_named_in_the_next(tmp_path: Path) -> None:
    done = export(tmp_path, [block(0, 25), block(25, 25), block(1000, 25)])
    assert (done.files, done.samples, done.gaps) == (2, 75, 1)
    before, after = read(tmp_path)
    assert len(before.signals[0].digital) == 50
    assert after.signals[0].digital.tolist() == [n - 15_000 for n in range(1000, 1025)]
    assert str(after.starttime) == "08:00:08.250000"
    texts = [note.text for note in after.annotations]
    assert "after a gap of 7.600 s" in texts
    assert not any("gap" in note.text for note in before.annotations)


def test_bad_samples_stay_and_are_annotated(tmp_path: Path) -> None:
    bad = replace(block(25, 25), quality=Quality(Validity.INVALID, reason="lead_off"))
    export(tmp_path, [block(0, 25), bad, block(50, 25)])
    (found,) = read(tmp_path)
    assert len(found.signals[0].digital) == 75
    (note,) = [n for n in found.annotations if "invalid" in n.text]
    assert (note.onset, note.duration) == (0.2, 0.2)
    assert note.text == "ECG_ELEC_POTL_II invalid: lead_off"


def wide(first: int, values: list[int], code: Code = Code.WARDLINK_PPG_INFRARED) -> Observation:
    samples = SampleArray.of(values, period_ns=PERIOD_NS, unit=Unit.NOS)
    return Observation(code, samples, first * PERIOD_NS)


def test_signals_of_a_device_share_a_file_and_24_bits_make_it_bdf(tmp_path: Path) -> None:
    values = [(-1) ** n * (8_000_000 + n) for n in range(25)]
    done = export(tmp_path, [block(0, 25), wide(0, values), block(25, 25), wide(25, values)])
    assert (done.files, done.samples) == (1, 100)
    (found,) = read(tmp_path)
    assert next(tmp_path.iterdir()).suffix == ".bdf"
    assert [signal.label for signal in found.signals] == ["ECG_ELEC_POTL_II", "PPG_INFRARED"]
    assert found.signals[1].digital.tolist() == values * 2


def test_shifted_samples_fit_without_loss_and_what_does_not_is_left_out_by_name(
    tmp_path: Path,
) -> None:
    shifted = [n << 10 for n in range(-2_000_000, 2_000_000, 160_000)]
    export(tmp_path / "a", [wide(0, shifted)])
    (found,) = read(tmp_path / "a")
    (note,) = [n.text for n in found.annotations if "steps" in n.text]
    step = int(note.split()[4])
    assert (found.signals[0].data * step).tolist() == shifted
    assert note == f"PPG_INFRARED in steps of {step} of unknown unit, from 0"
    full = [(1 << 30) + n for n in range(25)]
    done = export(tmp_path / "b", [block(0, 25), wide(0, full)])
    assert done.left_out == ["board PPG_INFRARED: 25 samples need more than 24 bits"]
    assert [s.label for s in read(tmp_path / "b")[0].signals] == ["ECG_ELEC_POTL_II"]


def test_a_clock_that_nobody_set_gives_no_date(tmp_path: Path) -> None:
    export(tmp_path, [block(0, 25)], replace(CLOCK, state=ClockState.UNSET))
    (found,) = read(tmp_path)
    with pytest.raises(edfio.AnonymizedDateError):
        _ = found.startdate
    assert any("unknown" in note.text for note in found.annotations)


@given(
    sizes=st.lists(st.tuples(st.integers(1, 60), st.booleans()), min_size=1, max_size=30),
    seed=st.integers(0, 3),
)
@settings(max_examples=60, deadline=None)
def test_every_sample_once_at_its_time(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[tuple[int, bool]], seed: int
) -> None:
    folder = tmp_path_factory.mktemp("edf")
    records: list[Observation] = []
    at, expected = seed, dict[int, int]()
    for count, hole in sizes:
        at += 100 if hole else 0
        records.append(block(at, count))
        expected |= {n: n - 15_000 for n in range(at, at + count)}
        at += count
    done = export(folder, records)
    found = {}
    for document in read(folder):
        start = document.starttime
        second = start.hour * 3600 + start.minute * 60 + start.second - 8 * 3600
        first = round((second + start.microsecond / 1e6 - 0.25) / 0.008)
        for n, value in enumerate(document.signals[0].digital.tolist()):
            assert first + n not in found
            found[first + n] = value
    assert found == expected
    starts = sum(b - a > 1 for a, b in pairwise(sorted(expected)))
    assert done.gaps == starts
    assert starts + 1 <= done.files <= 2 * (starts + 1)


def test_the_command_writes_from_a_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = Journal.open(
        tmp_path / "journal",
        hub="hub-1",
        clock=FixedClock(),
        hub_key=HubKey.load_or_create(tmp_path / "identity.key"),
        max_bytes=64 * SEGMENT,
        segment_bytes=SEGMENT,
    )
    for first in (0, 25, 500):
        journal.append("board", block(first, 25))
        journal.append("other", block(first, 25))
    journal.close()
    folder = tmp_path / "edf"
    arguments = ["--journal", str(tmp_path / "journal"), "--device", "board"]
    code = cli.main(["journal", "export", "--format", "edf", "--output", str(folder), *arguments])
    assert code == cli.OK
    assert "2 files, 75 samples, 1 gaps" in capsys.readouterr().err
    assert len(read(folder)) == 2

"""`wardlink journal list, verify, export, days` on real directories: copies, damaged ones, and beside a running hub."""

import base64
import json
import shutil
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pytest

from drivers.model import Observation, SampleArray
from gateway import cli
from gateway.journal.entry import Stream
from gateway.journal.files import read_segment
from gateway.journal.inspect import JournalFiles
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.segment import BLOCK_BYTES
from gateway.journal.storage import Storage
from gateway.receiver.retime import TRUST
from gateway.uplink.fields import loads
from gateway.waveform import WaveformCodec
from tests.gateway.journal.builders import SEGMENT, FixedClock, alarm, ecg, vital, wave

OLD = Path(__file__).parents[1] / "journals" / "records-1"
IN_BLOCKS = OLD.with_name("records-4")
KEY = HubKey.generate()


def open_here(directory: Path) -> Journal:
    return Journal.open(
        directory,
        hub="hub-1",
        clock=FixedClock(),
        hub_key=HubKey.load_or_create(directory.parent / "identity.key"),
        max_bytes=64 * SEGMENT,
        segment_bytes=SEGMENT,
    )


@pytest.fixture
def written(tmp_path: Path) -> Path:
    """Three segments of waveform, of which the first is acknowledged, some vitals, an alarm."""
    journal = open_here(tmp_path / "journal")
    for number in range(1, 10):
        journal.append("ecg", wave(number), "p-1")
        journal.append("hr", vital(number))
        journal.commit()
    journal.append("", alarm(1))
    journal.commit()
    journal.acknowledge(Stream.WAVEFORM, 2)
    journal.close()
    return tmp_path / "journal"


def run(*arguments: str | Path) -> int:
    return cli.main(["journal", *map(str, arguments)])


def contents(directory: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(path.relative_to(directory)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in directory.rglob("*")
        if path.is_file()
    }


def flip(directory: Path, stream: Stream, segment: int, offset: int) -> None:
    path = sorted((directory / stream).iterdir())[segment]
    data = bytearray(path.read_bytes())
    data[offset] ^= 0x10
    path.write_bytes(data)


def test_list_for_machines_and_people(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("list", "--journal", written, "--json") == cli.OK
    document = json.loads(capsys.readouterr().out)
    assert document["hub"] == "hub-1"
    streams = {row["stream"]: row for row in document["streams"]}
    waveform = streams["waveform"]
    assert (waveform["segments"], waveform["first"], waveform["last"]) == (3, 1, 9)
    assert (waveform["acknowledged"], waveform["size_bytes"]) == (2, 3 * SEGMENT)
    assert waveform["begins"]["boottime_ns"] < waveform["ends"]["boottime_ns"]
    assert (streams["audit"]["segments"], streams["audit"]["last"]) == (0, 0)
    assert run("list", "--journal", written) == cli.OK
    people = capsys.readouterr().out
    assert "waveform  3         0.1  1      9     2             0" in people
    assert "2027-01-15T08:00:00Z restored" in people


def test_list_counts_what_was_given_up(tmp_path: Path) -> None:
    journal = Journal.open(
        tmp_path / "journal",
        hub="hub-1",
        clock=FixedClock(),
        hub_key=KEY,
        max_bytes=8 * SEGMENT,
        segment_bytes=SEGMENT,
    )
    for number in range(1, 31):
        journal.append("ecg", wave(number))
        journal.commit()
    summary = JournalFiles(tmp_path / "journal", WaveformCodec()).summary(Stream.WAVEFORM)
    assert (summary.first, summary.last, summary.missing) == (7, 30, 6)
    journal.close()


@pytest.mark.parametrize("command", ["list", "verify", "export"])
def test_looking_changes_nothing_even_beside_a_running_hub(
    command: str, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = open_here(written)
    journal.append("ecg", wave(10))
    journal.commit()
    before = contents(written)
    assert run(command, "--journal", written) == cli.OK
    assert contents(written) == before
    assert capsys.readouterr().out
    journal.append("ecg", wave(11))
    journal.commit()  # it is still the writer's
    journal.close()


def test_verify_counts_every_frame(written: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("verify", "--journal", written, "--json") == cli.OK
    document = json.loads(capsys.readouterr().out)
    rows = {row["stream"]: row for row in document["streams"]}
    assert document["ok"]
    assert (rows["waveform"]["frames"], rows["waveform"]["records"]) == (9, 9)
    assert (rows["vitals"]["frames"], rows["alarm"]["frames"], rows["audit"]["frames"]) == (9, 1, 0)
    assert {row["unopened"] for row in rows.values()} == {0}


@pytest.mark.parametrize(
    ("offset", "named"),
    [
        (BLOCK_BYTES + 200, "waveform 4 to 4: checksum"),  # a frame's body
        (BLOCK_BYTES + 20, "waveform 4 to 4: missing"),  # its header
        (2 * BLOCK_BYTES - 1, "waveform 4 to 4: checksum"),  # the padding
    ],
)
def test_verify_names_damage_and_exits_1(
    offset: int, named: str, written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(written, Stream.WAVEFORM, 1, offset)
    assert run("verify", "--journal", written) == cli.FAILED
    assert named in capsys.readouterr().out


def test_verify_finds_what_no_checksum_can(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted((written / "waveform").iterdir())
    names[1].unlink()  # a segment taken out of the middle
    assert run("verify", "--journal", written) == cli.FAILED
    assert "waveform 4 to 6: missing" in capsys.readouterr().out
    names[2].unlink()  # and the newest: the state knows how far it went
    assert run("verify", "--journal", written) == cli.FAILED
    assert "waveform 4 to 9: missing" in capsys.readouterr().out
    # A segment of another life of the same hub, with whole checksums.
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(tmp_path / "identity.key", other / "identity.key")
    journal = open_here(other / "journal")
    journal.append("ecg", wave(1))
    journal.close()
    (stranger,) = (other / "journal" / "waveform").iterdir()
    shutil.copy(stranger, names[0])
    assert run("verify", "--journal", written) == cli.FAILED
    assert "waveform 1 to 9: missing" in capsys.readouterr().out


def test_verify_follows_the_chain_from_segment_to_segment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two copies of one journal went on apart: the end of one does not fit the beginning of the other."""
    first = open_here(tmp_path / "journal")
    first.append("ecg", wave(1))
    first.close()
    for name, number in (("journal", 2), ("copy", 3)):
        if name == "copy":
            shutil.copytree(tmp_path / "before", tmp_path / "copy")
        else:
            shutil.copytree(tmp_path / "journal", tmp_path / "before")
        journal = open_here(tmp_path / name)
        journal.append("ecg", wave(number))
        journal.close()
        journal = open_here(tmp_path / name)
        journal.append("ecg", wave(number))
        journal.close()
    ours, theirs = (sorted((tmp_path / n / "waveform").iterdir()) for n in ("journal", "copy"))
    assert run("verify", "--journal", tmp_path / "journal") == cli.OK
    shutil.copy(theirs[2], ours[2])
    assert run("verify", "--journal", tmp_path / "journal") == cli.FAILED
    assert "waveform 3 to 3: chain" in capsys.readouterr().out


def test_without_its_key_a_journal_is_verified_by_checksum_and_not_read(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / "elsewhere" / "journal"
    shutil.copytree(written, copied)
    assert run("verify", "--journal", copied) == cli.OK
    assert "checksum and chain alone" in capsys.readouterr().out
    assert not (copied.parent / "identity.key").exists()
    assert run("export", "--journal", copied) == cli.FAILED
    assert "hub key" in capsys.readouterr().err
    assert run("export", "--journal", copied, "--key-file", tmp_path / "identity.key") == cli.OK
    assert len(capsys.readouterr().out.splitlines()) == 19
    assert run("verify", "--journal", copied, "--key-file", tmp_path / "none") == cli.FAILED
    other = tmp_path / "other.key"
    HubKey.load_or_create(other)
    assert run("verify", "--journal", copied, "--key-file", other, "--json") == cli.OK
    rows = json.loads(capsys.readouterr().out)["streams"]
    assert [row["unopened"] for row in rows] == [row["frames"] for row in rows]


def test_export_writes_what_a_receiver_would(
    written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "out.jsonl"
    assert run("export", "--journal", written, "--output", output) == cli.OK
    found = [loads(line) for line in output.read_bytes().splitlines()]
    assert [line.text("stream") for line in found] == ["alarm"] + ["vitals"] * 9 + ["waveform"] * 9
    line = found[10]
    assert (line.text("type"), line.text("hub"), line.integer("sequence")) == ("entry", "hub-1", 1)
    assert line.object("record").text("subject") == "p-1"
    assert run("export", "--journal", written, "--output", output) == cli.FAILED
    assert "name a new file" in capsys.readouterr().err
    assert run("export", "--journal", written, "--stream", "vitals", "--device", "ecg") == cli.OK
    assert capsys.readouterr().out == ""


def test_export_names_what_cannot_be_read(
    written: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(written, Stream.WAVEFORM, 1, BLOCK_BYTES + 200)
    assert run("export", "--journal", written, "--stream", "waveform") == cli.OK
    captured = capsys.readouterr()
    lines = [json.loads(line) for line in captured.out.splitlines()]
    (gap,) = [line for line in lines if line["type"] == "gap"]
    assert (gap["first"], gap["last"], gap["count"], gap["cause"]) == (4, 4, 1, "checksum")
    assert len(lines) == 9
    assert "1 gaps" in captured.err


def test_days_left_of_a_configured_journal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "wardlink.toml"
    config.write_text(
        '[hub]\nid = "hub-1"\nstate_dir = "."\n[broker]\nhost = "localhost"\n'
        "[journal]\nvitals_days = 2\nwaveform_hours = 0\n"
        '[[device]]\nid = "s"\ndriver = "heart-rate"\naddress = "C0:00:00:00:00:01"\n',
        encoding="utf-8",
    )
    open_here(tmp_path / "journal").close()
    assert run("days", "--config", config, "--json") == cli.OK
    vitals, waveform = json.loads(capsys.readouterr().out)
    assert vitals["promised_s"] == 2 * 86_400
    usable = 1_073_741_824 * 15 // 16
    assert vitals["left_s"] == pytest.approx(usable / (4096 * 256 / 254), rel=0.01)
    assert waveform["left_s"] is None
    assert run("days", "--config", config) == cli.OK
    assert "2.8 days" in capsys.readouterr().out


def test_where_no_journal_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("list", "verify", "export"):
        assert run(command, "--journal", tmp_path / "none") == cli.FAILED
        assert "none" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()


def test_a_segment_that_is_given_back_meanwhile_is_no_damage(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = JournalFiles(written, WaveformCodec())
    real = files.places(Stream.WAVEFORM)
    gone: list[int] = []

    def vanish(stream: Stream) -> object:
        if stream is Stream.WAVEFORM and not gone:
            gone.append(1)
            (written / "waveform" / real[0].name).rename(written / "spare" / "00000001.free")
        return real

    monkeypatch.setattr(files, "places", vanish)
    *_, verdict = files.verify(Stream.WAVEFORM, None)
    assert verdict.damage == []
    assert verdict.frames == 6


def test_records_of_version_1_are_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """tests/journals/records-1 was written by the release before version 2 of the records."""
    key = tmp_path / "hub.key"
    shutil.copy(OLD / "hub.key", key)
    key.chmod(0o600)
    assert run("verify", "--journal", OLD / "journal", "--key-file", key) == cli.OK
    capsys.readouterr()
    assert run("export", "--journal", OLD / "journal", "--key-file", key) == cli.OK
    text = (OLD / "expected.jsonl").read_text(encoding="ascii")
    expected = [json.loads(line, parse_float=Decimal) for line in text.splitlines()]
    found = [json.loads(line, parse_float=Decimal) for line in capsys.readouterr().out.splitlines()]
    for line, want in zip(found, expected, strict=True):
        head = {key: want.pop(key) for key in ("stream", "boot_id", "sequence", "device")}
        assert {key: line[key] for key in head} == head
        # What this release says besides: no clock was synchronised, so there are bounds.
        bounds = {key: line["record"].pop(key) for key in TRUST if key in line["record"]}
        assert bounds.keys() <= {"not_before"}
        # One relation holds for a boot, and not each commit's own: a commit's may be some microseconds off it.
        times = [datetime.fromisoformat(fields.pop("time")) for fields in (line["record"], want)]
        assert abs(times[0] - times[1]) < timedelta(milliseconds=50)
        assert line["record"] == want
    copied = tmp_path / "journal"
    shutil.copytree(OLD / "journal", copied)
    journal = Journal.open(
        copied,
        hub="hub-old",
        clock=FixedClock("boot-9"),
        hub_key=HubKey.load_or_create(key),
        max_bytes=64 * SEGMENT,
        segment_bytes=SEGMENT,
    )
    batch = journal.read(Stream.VITALS, 0)
    assert batch is not None
    assert isinstance(batch.entries[0].record, Observation)
    assert journal.take_damage() == []
    journal.close()


def test_samples_in_blocks_are_verified_and_exported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """tests/journals/records-4 has three seconds of two leads so."""
    key = tmp_path / "hub.key"
    shutil.copy(IN_BLOCKS / "hub.key", key)
    key.chmod(0o600)
    where = "--journal", IN_BLOCKS / "journal", "--key-file", key
    assert run("verify", *where) == cli.OK
    capsys.readouterr()
    assert run("export", *where, "--stream", "waveform", "--device", "patch") == cli.OK
    found = [json.loads(line)["record"] for line in capsys.readouterr().out.splitlines()]
    waves = [wave for n in range(3) for wave in ecg(first=250 * n, at_ns=n * 10**9)]
    assert [base64.b64decode(record["samples"]) for record in found] == [
        wave.value.data for wave in waves if isinstance(wave.value, SampleArray)
    ]
    assert [record["boottime_ns"] for record in found] == [w.determined_at_ns for w in waves]
    pytest.importorskip("edfio")
    edf = tmp_path / "edf"
    edf.mkdir()
    assert run("export", *where, "--format", "edf", "--device", "patch", "--output", edf) == cli.OK
    assert f"{3 * 2 * 250} samples" in capsys.readouterr().err


def test_a_segment_that_is_used_again_while_it_is_read_is_no_damage(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = JournalFiles(written, WaveformCodec())
    first = written / "waveform" / files.places(Stream.WAVEFORM)[0].name

    def recycle(storage: Storage, path: Path) -> bytes:
        if path != first:
            return read_segment(storage, path)
        if path.exists():
            path.rename(written / "spare" / "00000001.free")
        return bytes(SEGMENT)  # what another stream has written into it

    monkeypatch.setattr("gateway.journal.inspect.read_segment", recycle)
    *_, verdict = files.verify(Stream.WAVEFORM, None)
    assert verdict.damage == []

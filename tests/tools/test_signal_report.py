"""What a person gets to see: tables, verdicts, pictures of the worst strips, and the document."""

import re
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests.tools.wfdb_records import RATE_HZ, write_record
from tools import bench_signal
from tools.signal_bench import data, strips
from tools.signal_bench.codec import shuffled_deltas
from tools.signal_bench.drawing import Plane, svg
from tools.signal_bench.index import auc
from tools.signal_bench.jobs import Job, Outcome
from tools.signal_bench.pulse import (
    RATE_S,
    Reference,
    best_lag,
    compared,
    near_monitor,
    peer_rates,
)
from tools.signal_bench.records import wfdb
from tools.signal_bench.report import page
from tools.signal_bench.results import (
    Peer,
    Section,
    Strip,
    Table,
    goals_text,
    judge,
    section_text,
)

wfdb()  # its first import warns, whatever the marks say
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


# --- Verdicts ----------------------------------------------------------------------------------------


def test_a_goal_is_judged_by_what_was_measured_not_by_what_is_printed() -> None:
    assert judge("x", 99.8799, 99.88, text="{:.2f}").holds is False
    assert judge("x", 99.88, 99.88).holds is True
    assert judge("x", 12.01, 12, least=False).holds is False
    assert judge("x", None, 12).holds is judge("x", float("nan"), 12).holds is None


def test_a_missed_goal_is_said_plainly() -> None:
    section = Section("a", "A", [judge("speed", 3.0, 2.0, least=False), judge("F1", None, 9.0)])
    text = goals_text([section]).splitlines()
    assert text[1].split() == ["speed", "<=", "2", "3.000", "MISSED", "-", "-"]
    assert "not measured" in text[2]
    assert text[-1] == "2 goals: 1 missed, 1 not measured; at 0 a peer is better"


def test_a_goal_may_hold_while_a_peer_is_better() -> None:
    """Equal is not ahead."""
    better, equal = Peer("99.95 x", 99.95), Peer("99.9 x", 99.9)
    assert [judge("F1", 99.9, 99.8, peer=p).ahead for p in (better, equal)] == [False, False]
    assert judge("F1", 99.9, 99.8, peer=Peer("99.7 x", 99.7)).ahead is True
    assert judge("ns", 9.0, 12.0, least=False, peer=Peer("28 x", 28.0)).ahead is True
    assert judge("F1", 99.9, 99.8, peer="the whole record").ahead is None
    text = goals_text([Section("a", "A", [judge("F1", 99.9, 99.8, peer=better)])]).splitlines()
    assert text[1].split()[-4:] == ["yes", "99.95", "x", "NO"]
    assert text[-1].endswith("at 1 a peer is better")


def test_tables_are_aligned() -> None:
    table = Table("T", ("name", "n"), (("a", "1"), ("long", "100")), note="why")
    assert section_text(Section("s", "S", tables=[table])) == (
        "== S\n\nT\nname    n\na       1\nlong  100\nwhy"
    )


# --- Figures -----------------------------------------------------------------------------------------


def test_area_under_the_curve() -> None:
    assert auc(np.array([0.9, 0.8]), np.array([0.1, 0.2, 0.3])) == 1
    assert auc(np.array([0.5]), np.array([0.5])) == 0.5
    assert auc(np.array([0.9, 0.2]), np.array([0.5, 0.2])) == (1 + 1 + 0 + 0.5) / 4


def test_deltas_are_shuffled_as_one_would_by_hand() -> None:
    """Lead one: 1, 1, -2 gives deltas 1, 0, -3, zigzag 2, 0, 5. Lead two: 300, 300, 0 gives 600, 0, 599."""
    block = np.array([[1, 300], [1, 300], [-2, 0]], np.int16)
    assert shuffled_deltas(block) == bytes([2, 0, 5, 600 & 255, 0, 599 & 255, 0, 0, 0, 2, 0, 2])


def test_a_constant_lag_is_taken_out_and_waves_past_the_end_do_not_count() -> None:
    beats = np.cumsum(np.random.default_rng(1).uniform(0.6, 1.0, 70))
    reference = Reference(beats, np.ones(int(beats[-1]) + 1, np.bool_), float(beats[-1]) + 0.3)
    found = beats + 0.41
    assert best_lag(beats, found) == pytest.approx(0.41)
    score = compared(reference, found[:-1], 0.41).score
    assert (score.fp, score.fn) == (0, 0)
    assert score.tp >= 68
    before = np.append(
        [beats[0] - 0.3], found[:-1]
    )  # of a beat that the ECG's first seconds do not show
    assert compared(reference, before, 0.41).score == score
    believed = np.ones(len(reference.agreed), np.bool_)
    believed[20:30] = False
    inside = int(((beats >= 20) & (beats < 30)).sum())
    part = compared(Reference(beats, believed, reference.seconds), found[:-1], 0.41).score
    assert part.tp == score.tp - inside


def test_the_pulse_rate_is_judged_each_second() -> None:
    """Number n of the rates ends at n + 1 s: the monitor's rate at 3 s is held against the third."""
    rates = np.array([np.nan, 60.0, 63.0, 57.9, np.nan])
    assert near_monitor(rates, {1: 60.0, 2: 60.0, 3: 60.0, 4: 61.0, 5: 60.0, 6: 60.0}) == (2, 3, 6)


def test_a_peer_gets_the_same_rule_for_its_rate() -> None:
    """A beat a second and one missed: intervals of 1 s, and one of 2 s that is left out; silence ends it."""
    beats = np.delete(np.arange(1.0, 31.0), 14)
    rates = peer_rates(beats, 60)
    over = round(27 + RATE_S)  # of the beats at 28, 29 and 30 s the first is then too old
    assert np.isnan(rates[:4]).all()  # what ends with the second weighs nothing yet
    assert rates[4:over] == pytest.approx(60)
    assert np.isnan(rates[over:]).all()
    assert peer_rates(np.arange(0, 30, 0.5), 30)[20] == pytest.approx(120)


def test_in_the_rate_of_a_peer_intervals_fade_in_and_out() -> None:
    """At 32 s: those of 1 s that ended at 15, 16, 17, 18 to 28, 29 and 30 s, and two of 0.8 s."""
    rates = peer_rates(np.concatenate([np.arange(31.0), [30.8, 31.6, 32.4]]), 40)
    long, short = 0.25 + 0.5 + 0.75 + 11 + 0.75 + 0.5, 0.3 + 0.1
    assert rates[31] == pytest.approx(60 * (long + short) / (long + 0.8 * short))


# --- Pictures ----------------------------------------------------------------------------------------


def strip(**changes: object) -> Strip:
    """Four seconds with one beat found, one missed and one extra."""
    whole: dict[str, object] = {
        "title": "<one> & 0:02.0",
        "why": "1 extra, 1 missed",
        "begin_s": 2.0,
        "rate_hz": 100.0,
        "values": np.sin(np.arange(400) / 10),
        "unit": "mV",
        "reference_s": np.array([3.0, 4.0]),
        "codes": ("N", "V"),
        "found_s": np.array([3.01, 5.0]),
        "extras_s": np.array([5.0]),
        "misses_s": np.array([4.0]),
        "quality_s": np.array([3.0, 4.0]),
        "quality": np.array([1.0, 0.25]),
        "status": ("", "motion"),
        "excluded_s": ((0.0, 2.5), (90.0, 99.0)),
    }
    return Strip(**(whole | changes))  # type: ignore[arg-type]


def drawn(picture: str, kind: str) -> list[ET.Element]:
    return [one for one in ET.fromstring(picture).iter() if one.get("class") == kind]  # noqa: S314 - our own


def test_a_strip_shows_what_is_right_and_what_is_wrong_at_its_place() -> None:
    picture = svg(strip())
    plane = Plane(strip())
    assert [one.text for one in drawn(picture, "code")] == ["N"]
    (missed,) = drawn(picture, "code bad")
    assert (missed.text, missed.get("x")) == ("V", str(plane.x(4.0)))
    assert len(drawn(picture, "found")) == 1
    (extra,) = drawn(picture, "found bad")
    assert str(extra.get("d")).startswith(f"M{plane.x(5.0) - 5}")
    assert {one.get("x1") for one in drawn(picture, "wrong")} == {str(plane.x(4)), str(plane.x(5))}
    assert plane.x(2.0) < plane.x(5.9)
    assert plane.y(1.0) < plane.y(-1.0), "up is up: y grows downwards"
    assert len(drawn(picture, "excluded")) == 1
    assert len(drawn(picture, "quality")) == len(drawn(picture, "quality low")) == 1
    assert [one.text for one in drawn(picture, "status")] == ["motion"]


def test_the_axes_say_seconds_and_the_unit() -> None:
    said = [one.text for one in drawn(svg(strip()), "tick")]
    assert {"2 s", "3 s", "4 s", "5 s", "6 s", "mV", "0.0", "0.5", "-0.5", "SQI"} <= set(said)
    assert "SQI" not in svg(strip(quality=np.empty(0), quality_s=np.empty(0), status=()))


def test_a_flat_strip_is_drawn() -> None:
    assert len(drawn(svg(strip(values=np.zeros(400))), "trace")) == 1


class Reader(HTMLParser):
    """What the page would load, and whether its elements close."""

    VOID = frozenset({"meta", "line", "rect", "path", "polyline"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loads += [f"{name}={value}" for name, value in attrs if name in {"src", "href"}]
        if tag in {"script", "link", "img"}:
            self.loads.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_whole_and_loads_nothing() -> None:
    table = Table("T <1>", ("name", "n"), (("wardlink & co", "1"), ("peer", "2")))
    section = Section("s", "S", [judge("F1", 1.0, 2.0)], [table], [strip()], ["no <data>"])
    text = page("x86 & co", [section], "wardlink")
    reader = Reader()
    reader.feed(text)
    assert (reader.open, reader.loads) == ([], [])
    assert "url(" not in text
    assert "@import" not in text
    assert "&lt;one&gt; &amp; 0:02.0" in text
    assert "no &lt;data&gt;" in text
    assert re.findall(r"<tr class=ours><td>(.*?)</td>", text) == ["wardlink &amp; co"]
    assert 'class="missed">MISSED' in text


def test_the_worst_strip_is_where_most_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats = np.arange(1.0, 60.0)
    (tmp_path / "ecg" / "mitdb").mkdir(parents=True)
    write_record(tmp_path / "ecg" / "mitdb", "900", beats, 60)
    monkeypatch.setattr(data, "FOLDER", tmp_path)
    data.load.cache_clear()
    strips.judged.cache_clear()
    found = np.delete(beats, [9, 29, 30, 31])  # 10, 30, 31, 32 s
    found = np.sort(np.append(found, 33.5))
    outcome = Outcome(Job("wardlink", "mitdb", "900"), found, 0.1, 60 * RATE_HZ)
    first, second = strips.worst_strips([outcome], start_s=0)
    assert (first.title, first.why) == ("900 from 0:26.8", "1 extra, 3 missed")
    assert first.misses_s.tolist() == [30, 31, 32]
    assert first.extras_s.tolist() == [33.5]
    assert len(first.values) == 10 * RATE_HZ
    assert second.misses_s.tolist() == [10]
    data.load.cache_clear()


# --- The document ------------------------------------------------------------------------------------


def test_figures_go_between_the_marks_and_nowhere_else(tmp_path: Path) -> None:
    document = tmp_path / "signal.md"
    document.write_text(f"before\n{bench_signal.BEGIN}\nold\n{bench_signal.END}\nafter\n")
    bench_signal.write_docs(document, "new\nfigures")
    bench_signal.write_docs(document, "newer")
    assert document.read_text() == (
        f"before\n{bench_signal.BEGIN}\n```text\nnewer\n```\n{bench_signal.END}\nafter\n"
    )
    document.write_text("no marks")
    with pytest.raises(ValueError, match="got no single pair of marks"):
        bench_signal.write_docs(document, "x")
    assert document.read_text() == "no marks"


def test_only_a_whole_run_may_go_into_the_document(capsys: pytest.CaptureFixture[str]) -> None:
    for part in (["--quick"], ["--only", "qrs"]):
        with pytest.raises(SystemExit):
            bench_signal.options_of(["--write-docs", *part])
    with pytest.raises(SystemExit):
        bench_signal.options_of(["--only", "qrs,nonsense"])
    assert "got nonsense, expected some of qrs" in capsys.readouterr().err


def test_without_recordings_it_says_so_and_measures_the_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "FOLDER", tmp_path)
    monkeypatch.setattr(bench_signal, "installed", lambda: frozenset({"wardlink"}))
    report = tmp_path / "report.html"
    only = "qrs,noise,cpsc,quality,pulse"
    status = bench_signal.main(["--only", only, "--report", str(report)])
    said = capsys.readouterr().out
    assert status in {0, 1}  # a busy machine may miss the goal of speed
    assert said.count(f"not in {tmp_path}; set WARDLINK_DATA") == 5
    assert re.search(r"quality index, ms for 10 s +<= 0.3 +\d", said)
    assert "QRS, MIT-BIH development records, F1 %" in report.read_text()

"""The figures in docs/ that can be reckoned, or that the code knows, are those that stand there."""

import re
from math import ceil
from pathlib import Path

import pytest

from gateway.config.hub import Hub, topics_of
from gateway.config.profile import PROFILES, ProfileName
from gateway.uplink.links import ladder, pace, probe, selector, strips, usage
from gateway.uplink.notice import MAX_PENDING
from gateway.uplink.order import LIVE_NS, MOST_SPANS
from gateway.uplink.patience import Timing
from gateway.uplink.slices import MAX_PAYLOAD_BYTES
from tools import bench_fleet

DOCS = Path(__file__).parents[1] / "docs"
SCALE, BROKERS, LINKS, MESSAGES = (
    (DOCS / f"{name}.md").read_text(encoding="utf-8")
    for name in ("scale", "brokers", "links", "messages")
)


def table(text: str, heading: str) -> list[list[str]]:
    """The rows of the first table behind a heading, without its head."""
    begin = text.index(f"## {heading}\n")
    lines = text[begin:].splitlines()
    first = next(n for n, line in enumerate(lines) if line.startswith("|"))
    rows = []
    for line in lines[first + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip(" `") for cell in line.strip("|").split("|")])
    return rows


def number(cell: str) -> float:
    return float(re.sub(r"[^0-9.]", "", cell))


def test_messages_a_second() -> None:
    rows = table(SCALE, "Messages a second")
    assert len(rows) == 3
    for hubs, *rates in rows:
        expected = [number(hubs) / interval for interval in (1, 10, 30, Timing().heartbeat)]
        assert [number(rate) for rate in rates] == [int(rate) for rate in expected]


def test_bytes_a_month(tmp_path: Path) -> None:
    documented = {row[0].replace("`", ""): row[1:] for row in table(SCALE, "Bytes a month")}
    reckoned = dict(bench_fleet.weights(tmp_path))
    assert documented.keys() == reckoned.keys()
    for title, cells in documented.items():
        months = [number(cell) for cell in cells if cell]
        assert months == pytest.approx(reckoned[title], rel=0.02), title


def test_connections_after_an_outage() -> None:
    text = SCALE[SCALE.index("| hubs | 500 a second") :]
    rows = [line.strip("|").split("|") for line in text.splitlines()[2:5]]
    for hubs, *seconds in rows:
        expected = [ceil(number(hubs) / connects) for connects in (500, 6000)]
        assert [number(cell) for cell in seconds] == expected
    assert round(100_000 / Timing().backoff_most) == 833
    assert "100,000 hubs come at 833 a second" in SCALE
    assert f"{833 * 0.0027:.1f} cores" in SCALE
    assert f"{100_000 * 41e3 / 1e9:.1f} GB" in SCALE


def test_what_a_topic_and_a_message_need() -> None:
    hub = Hub("hub-1", "ward", Path(), Path())
    streams, receipts = (
        [topic.count("/") for topic in topics_of(hub, names, ())] for names in ((), ("r",))
    )
    assert (max(streams), max(receipts)) == (4, 5)
    assert "four slashes in a stream's topic and five in a" in SCALE
    assert 96 * 1024 - 16 < MAX_PAYLOAD_BYTES + 104 <= 96 * 1024  # with the signature of JSON
    for text in (SCALE, MESSAGES):
        assert "at most 96 KiB" in text


def test_profiles() -> None:
    rows = {row[0]: row[1:] for row in table(BROKERS, "Profiles")}
    sizes = {
        "bytes of a packet": "packet_bytes",
        "publishes a second": "publishes_per_s",
        "unacknowledged": "unacknowledged",
        "slashes in a topic": "topic_slashes",
        "bytes of a topic": "topic_bytes",
        "bytes of the client identifier": "client_id_bytes",
    }
    assert rows.keys() == {"version", *sizes}
    for n, name in enumerate(ProfileName):
        profile = PROFILES[name]
        assert rows["version"][n].split(", ") == [*profile.protocols]
        for title, attribute in sizes.items():
            limit, shown = getattr(profile, attribute), rows[title][n]
            unit = {"KiB": 1024, "MiB": 1024**2}.get(shown[-3:], 1)
            if not shown:
                assert limit in {None, 65_535}, title
            else:
                assert limit in {number(shown) * unit, number(shown) * unit - 1}, title
    assert "a fifth" in BROKERS.lower()


def test_links() -> None:
    waits = {rung.step: (rung.wait_s, rung.again_s) for rung in ladder.LADDER}
    assert waits[ladder.Step.REACTIVATE] == (3 * 60, 15 * 60)
    assert waits[ladder.Step.MODEM_RESET] == (15 * 60, 6 * 3600)
    rows = table(LINKS, "When nothing is acknowledged over any link")
    assert [row[1:] for row in rows[1:]] == [["3 min", "15 min"], ["15 min", "6 h"]]
    assert (pace.QUICK_S, selector.HOLD_S, selector.HOLD_MOST_S) == (2, 5, 15 * 60)
    assert (selector.PATIENT, selector.PROVEN_S, Timing().answer) == (3, 60, 10)
    assert (strips.BEFORE_NS, strips.AFTER_NS) == (60 * 10**9, 30 * 10**9)
    assert usage.RESERVE_BYTES == 256 * 1024
    assert probe.PROBE_LIMIT_S <= 5
    said = " ".join(LINKS.split())
    for words in (
        "after 2 s and two round trips of silence", "5 s later a probe", "up to 15 min", "a minute of delivery",
        "waits 10 s and two round trips", "back-off up to 120 s", "the third time another one", "256 KiB too high",
        "from 60 s before it to 30 s after it",
    ):  # fmt: skip
        assert words in said


def test_the_order() -> None:
    said = " ".join(MESSAGES.split())
    assert (LIVE_NS, MOST_SPANS, MAX_PENDING) == (60 * 10**9, 64, 256)
    for words in ("caught up with for a minute", "at most 64 spans", "in order, at most 256"):
        assert words in said

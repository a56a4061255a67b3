"""A hub with Wi-Fi and 4G in network namespaces, as real processes: what is cut, and how soon the other link carries."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.journal.entry import Stream
from tests.gateway.uplink.bench import entries_of, read_lines
from tests.gateway.uplink.links.home import acknowledged, hub_at_work
from tests.gateway.uplink.links.world import missing

REASON = missing()
pytestmark = [
    pytest.mark.system,
    pytest.mark.root,
    pytest.mark.skipif(REASON is not None, reason=REASON or ""),
    pytest.mark.timeout(180),
]


def report(text: str) -> None:
    sys.stdout.write(f"\n{text}\n")


@pytest.mark.parametrize(("fault", "limit_s"), [("carrier", 1.0), ("blackhole", 5.0)])
def test_the_other_link_carries_on_and_the_better_one_comes_back(
    tmp_path: Path, fault: str, limit_s: float
) -> None:
    with hub_at_work(tmp_path) as (home, hub, writer):
        if fault == "carrier":
            home.hold_back_news()
            home.carrier("w0", on=False)
        else:
            home.blackhole("w0", on=True)
        beyond = writer.count + 1  # one may be acknowledged already
        took_s = hub.until("delivers over 4G", hub.delivered("4g", beyond))
        report(f"{fault}: acknowledged over the other link after {took_s:.2f} s")
        assert took_s < limit_s
        time.sleep(0.5)
        home.carrier("w0", on=True)
        home.blackhole("w0", on=False)
        back_s = hub.until("is back on Wi-Fi", hub.delivered("wifi", writer.count))
        report(f"{fault}: back on the better link {back_s:.2f} s after it worked again")
        writer.stop()
        hub.until("has delivered all", hub.delivered("wifi", writer.count - 1))
        found = received(tmp_path / "lines.jsonl", writer.count)
        assert sorted(entries_of(found)[Stream.VITALS]) == list(range(1, writer.count + 1))
        kinds = {"entry", "status", "heartbeat", "clock"}
        assert {line["type"] for line in found} == kinds, "no gap"
        states = [line["state"] for line in found if line["type"] == "status"]
        assert states.count("offline") == 1, "the cut is told, the move back is none"
        assert states[-1] == "online"
        for address in ("10.1.0.2", "10.2.0.2"):
            assert f"New connection from {address}" in home.log("mosquitto.log")


def test_over_4g_waveform_goes_around_an_alarm_and_the_rest_of_it_over_wifi(tmp_path: Path) -> None:
    with hub_at_work(tmp_path, wifi=False) as (home, hub, writer):
        hub.until("goes on", hub.delivered("4g", 12))
        lines = tmp_path / "lines.jsonl"
        assert entries_of(received(lines, 12))[Stream.WAVEFORM] == []
        writer.alarm.set()
        while len(found := entries_of(read_lines(lines))[Stream.WAVEFORM]) < 12:
            hub.until("delivers still", hub.uses("4g"))
        before = writer.count
        (mobile,) = [row for row in hub.state()["links"]["links"] if row["name"] == "4g"]
        assert 0 < mobile["waveform_bytes_month"] < mobile["bytes_month"]
        home.carrier("w0", on=True)
        hub.until("is on Wi-Fi", hub.delivered("wifi", before))
        writer.stop()
        hub.until("has all", lambda state: acknowledged(state, Stream.WAVEFORM) == writer.count)
        found = entries_of(received(lines, writer.count))[Stream.WAVEFORM]
        assert sorted(found) == list(range(1, writer.count + 1))


def received(lines: Path, count: int) -> list[dict[str, Any]]:
    """What the receiver wrote, once it has so many vitals."""
    end = time.monotonic() + 40
    while len(entries_of(found := read_lines(lines))[Stream.VITALS]) < count:
        assert time.monotonic() < end, json.dumps(found[-3:])
        time.sleep(0.05)
    return found

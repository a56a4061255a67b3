"""Lines that a receiver wrote earlier, with the times that are known now. Pure: lines in, lines out.

Lines are never rewritten by the receiver: a `clock` line tells what became of a boot. This applies all of them. Every
time is computed from its boottime, so doing it twice changes nothing.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

from gateway.receiver.clocks import replay_clock, replay_entry
from gateway.timeline import Timeline
from gateway.uplink.fields import PayloadError, dumps, loads
from gateway.uplink.times import when_fields

Journals = dict[tuple[str, str], Timeline]
"""By hub and epoch."""
TRUST = ("error_ns", "not_before", "not_after")
"""The fields of a record that say how far its time can be trusted."""


def learn_lines(lines: Iterable[bytes]) -> Journals:
    """What lines tell about their hubs' clocks. A line that is none tells nothing."""
    journals: Journals = defaultdict(Timeline)
    for data in lines:
        try:
            line = loads(data)
            match line.text("type"):
                case "clock":
                    replay_clock(journals[line.text("hub"), line.text("epoch")], line)
                case "entry":
                    replay_entry(journals[line.text("hub"), line.text("epoch")], line)
                case _:
                    pass
        except PayloadError:
            continue
    return journals


def retime_line(data: bytes, journals: Journals) -> bytes:
    """An `entry` line with the best that is known of its time; any other line as it is."""
    try:
        line = json.loads(data, parse_float=Decimal)
        if line["type"] != "entry":
            return data
        record = line["record"]
        boot_id, boottime_ns = record.get("boot_id") or line["boot_id"], record["boottime_ns"]
        timeline = journals[line["hub"], line["epoch"]]
        when: dict[str, Any] = when_fields(timeline, boot_id, boottime_ns)
        if "error_ns" in record and "error_ns" in when:
            # The receiver had the batch's own reading, which may lie nearer than any that the lines tell of.
            same = when["time"] == record["time"]
            when["error_ns"] = (
                min(record["error_ns"], when["error_ns"]) if same else when["error_ns"]
            )
        kept = {key: value for key, value in record.items() if key not in TRUST}
        line["record"] = {**kept, **when}
        return dumps(line).encode("ascii") + b"\n"
    except (ValueError, KeyError, TypeError, AttributeError):
        return data

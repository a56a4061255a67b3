"""What a person sees on a terminal: tables and short sentences, made from the same state that `--json` prints."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

NS_PER_S = 1_000_000_000
KERNELS = {
    "aot": "ahead of time",
    "jit": "just in time",
    "python": "interpreted",
}
"""How the signal kernels came to run: gateway/signal/jit.py."""


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Columns as wide as their widest cell."""
    lines = [tuple(head), *(tuple(row) for row in rows)]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    shown = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([shown[0], "  ".join("-" * width for width in widths), *shown[1:]])


def seconds(span_s: float) -> str:
    """A span in words, as coarse as a person needs it."""
    if span_s < 120:
        return f"{span_s:.0f} s"
    if span_s < 7200:
        return f"{span_s / 60:.0f} min"
    return f"{span_s / 3600:.0f} h"


def state(snapshot: Mapping[str, Any]) -> str:
    """The hub's state as `wardlink status` prints it."""
    now_ns = snapshot["clock"]["boottime_ns"]
    head = (
        f"hub {snapshot['hub']}  wardlink {snapshot['version']}  data {snapshot['mode']}"
        f"  {_clock(snapshot['clock'])}"
    )
    parts = [f"{half}: {why}" for half, why in snapshot.get("silent", {}).items()]
    if "devices" in snapshot:
        journal = snapshot["journal"]
        head += f"  kernels {KERNELS[snapshot['kernels']]}"
        head += f"\njournal key {journal['key_kind']}  readers {journal['readers']}"
        parts.append(_devices(snapshot["devices"], now_ns))
        parts.append(room(snapshot["budget"]))
    if "uplink" in snapshot:
        waits = "uplink waits for a journal: nothing was acquired here yet"
        parts.append(_uplink(snapshot) if snapshot["uplink"] else waits)
    if snapshot.get("links"):
        parts.append(links(snapshot["links"]))
    return "\n\n".join((head, *parts))


def _clock(reading: Mapping[str, Any]) -> str:
    """The wall clock, and how far it can be trusted. One that nobody has set shows no time."""
    if reading["state"] == "unset":
        return "clock unset: nobody has set it since it started"
    moment = datetime.fromtimestamp(reading["wall_ns"] // NS_PER_S, UTC)
    shown = f"{moment:%Y-%m-%d %H:%M:%S}Z"
    if reading["error_ns"] is None:
        return f"clock restored: {shown}, which may lag by hours"
    return f"clock synchronised: {shown} within {reading['error_ns'] / 1e6:.0f} ms"


def room(lines: Iterable[Mapping[str, Any]]) -> str:
    """How long the journal goes on without a network: one line for each stream that a promise is made for."""
    rows = []
    for line in lines:
        source = "measured" if line["measured"] else "by the drivers' rows"
        left = "no records come" if line["left_s"] is None else span(line["left_s"])
        rate = f"{line['bytes_s'] / 1000:.1f} kB/s, {source}"
        rows.append((line["stream"], span(line["promised_s"]), left, rate))
    return table(("stream", "promised", "left without a network", "rate on disk"), rows)


def span(span_s: float) -> str:
    """A long span in days, or hours where it is shorter than two days."""
    days = span_s / 86_400
    return f"{days:.1f} days" if days >= 2 else f"{span_s / 3_600:.1f} h"


def _devices(devices: Iterable[Mapping[str, Any]], now_ns: int) -> str:
    rows = []
    for device in devices:
        last = device["last_data_ns"]
        age = "never" if last is None else f"{seconds(max(0, now_ns - last) / NS_PER_S)} ago"
        counters = device["counters"]
        rows.append(
            (
                device["id"],
                device["driver"],
                device["state"],
                age,
                str(counters["records"]),
                str(counters["malformed"]),
                device["reason"],
            )
        )
    if not rows:
        return "no devices are configured"
    return table(("device", "driver", "state", "last data", "records", "malformed", "reason"), rows)


def _uplink(snapshot: Mapping[str, Any]) -> str:
    uplink = snapshot["uplink"]
    line = f"uplink {uplink['state']}"
    if uplink["text"]:
        line += f": {uplink['text']}"
    if uplink["retry_in_s"] is not None:
        line += f"; next try in {seconds(uplink['retry_in_s'])}"
    rows = [
        (
            name,
            str(stream["high_water"]),
            str(stream["acknowledged"]),
            str(stream["waiting"]),
            stream["refusal"] or "",
        )
        for name, stream in uplink["streams"].items()
    ]
    return f"{line}\n" + table(("stream", "journalled", "acknowledged", "waiting", "refused"), rows)


def links(state: Mapping[str, Any]) -> str:
    """The ways to the broker, the best first."""
    rows = []
    for link in state["links"]:
        age, says = link["last_answer_age_s"], link["says"]
        rows.append(
            (
                link["name"],
                link["interface"],
                link["state"],
                "in use" if link["in_use"] else "",
                {"yes": "metered", "no": "free"}.get(link["metered"], "unknown: metered"),
                "never" if age is None else f"{seconds(age)} ago",
                f"{_megabytes(link['bytes_month'])} in {link['month']}",
                _budget(link),
                ", ".join(f"{key} {value}" for key, value in says.items()),
            )
        )
    head = (
        "link", "interface", "state", "", "cost", "last answer", "sent", "waveform", "network says",
    )  # fmt: skip
    steps = ", ".join(f"{name} {count}" for name, count in state["ladder"].items() if count)
    return table(head, rows) + f"\nsteps when nothing was acknowledged: {steps or 'none'}"


def _budget(link: Mapping[str, Any]) -> str:
    used = _megabytes(link["waveform_bytes_month"])
    budget = link["waveform_budget_bytes"]
    return used if budget is None else f"{used} of {_megabytes(budget)}"


def _megabytes(count: int | None) -> str:
    return "unknown" if count is None else f"{count / 1e6:.1f} MB"

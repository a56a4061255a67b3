"""A strip of signal as SVG: the trace in its unit over seconds, the reference above it, what was found below it."""

import math
from html import escape

import numpy as np

from tools.signal_bench.results import Strip

WIDTH, HEIGHT = 1100, 300
LEFT, RIGHT, TOP = 56, 12, 34
TRACE_HEIGHT = 180
FOUND_Y = TOP + TRACE_HEIGHT + 12
QUALITY_Y, QUALITY_HEIGHT = TOP + TRACE_HEIGHT + 26, 24
AXIS_Y = QUALITY_Y + QUALITY_HEIGHT + 14
STEPS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)
TICKS = 6
"""About so many on the axis of values."""


class Plane:
    """From seconds and values to places in the picture."""

    def __init__(self, strip: Strip) -> None:
        seconds = len(strip.values) / strip.rate_hz
        low, high = float(strip.values.min()), float(strip.values.max())
        room = max(high - low, 1e-6) * 0.08
        self.begin_s, self.end_s = strip.begin_s, strip.begin_s + seconds
        self.low, self.high = low - room, high + room
        self._x_scale = (WIDTH - LEFT - RIGHT) / seconds
        self._y_scale = TRACE_HEIGHT / (self.high - self.low)

    def x(self, at_s: float) -> float:
        """Of a time in the record, kept inside."""
        inside = min(max(at_s, self.begin_s), self.end_s)
        return round(LEFT + (inside - self.begin_s) * self._x_scale, 1)

    def y(self, value: float) -> float:
        """Of a value of the trace."""
        return round(TOP + (self.high - value) * self._y_scale, 1)


def step_of(span: float) -> float:
    """A round step that gives about `TICKS` ticks."""
    return next((step for step in STEPS if span / step <= TICKS), STEPS[-1])


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    """A straight line of a CSS class."""
    return f'<line class="{kind}" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}"/>'


def label(x: float, y: float, said: str, kind: str, anchor: str = "middle") -> str:
    """Text of a CSS class."""
    return f'<text class="{kind}" x="{x}" y="{y}" text-anchor="{anchor}">{escape(said)}</text>'


def axes(plane: Plane, unit: str) -> list[str]:
    """Grid and numbers: seconds below, values at the left."""
    parts = []
    step = step_of(plane.high - plane.low)
    digits = max(0, -math.floor(math.log10(step)))
    for k in range(math.ceil(plane.low / step), math.floor(plane.high / step) + 1):
        y = plane.y(k * step)
        parts += [
            line(LEFT, y, WIDTH - RIGHT, y, "grid"),
            label(LEFT - 6, y + 4, f"{k * step:.{digits}f}", "tick", "end"),
        ]
    for second in range(math.ceil(plane.begin_s), math.floor(plane.end_s) + 1):
        x = plane.x(second)
        parts += [
            line(x, TOP, x, TOP + TRACE_HEIGHT, "grid"),
            label(x, AXIS_Y, f"{second} s", "tick"),
        ]
    middle = TOP + TRACE_HEIGHT / 2
    parts.append(
        f'<text class="tick" transform="translate(14 {middle}) rotate(-90)" text-anchor="middle">{escape(unit)}</text>'
    )
    return parts


def trace(plane: Plane, strip: Strip) -> str:
    """The signal."""
    times = strip.begin_s + np.arange(len(strip.values)) / strip.rate_hz
    points = " ".join(
        f"{plane.x(at)},{plane.y(value)}"
        for at, value in zip(times.tolist(), strip.values.tolist(), strict=True)
    )
    return f'<polyline class="trace" points="{points}"/>'


def marks(plane: Plane, strip: Strip) -> list[str]:
    """Letters of the reference above, triangles of what was found below, and red lines where they disagree."""
    parts = []
    missed, extra = set(strip.misses_s.tolist()), set(strip.extras_s.tolist())
    for at, code in zip(strip.reference_s.tolist(), strip.codes, strict=True):
        x, wrong = plane.x(at), at in missed
        if wrong:
            parts.append(line(x, TOP - 8, x, TOP + TRACE_HEIGHT, "wrong"))
        parts.append(label(x, TOP - 12, code, "code bad" if wrong else "code"))
    for at in strip.found_s.tolist():
        x, wrong = plane.x(at), at in extra
        if wrong:
            parts.append(line(x, TOP, x, FOUND_Y - 6, "wrong"))
        kind = "found bad" if wrong else "found"
        parts.append(
            f'<path class="{kind}" d="M{x - 5} {FOUND_Y + 5}L{x + 5} {FOUND_Y + 5}L{x} {FOUND_Y - 5}Z"/>'
        )
    return parts


def quality_band(plane: Plane, strip: Strip) -> list[str]:
    """The index as a stepped area between 0 and 1, and what is wrong with a second; each holds for the one before."""
    base = QUALITY_Y + QUALITY_HEIGHT
    parts = [
        f'<rect class="band" x="{LEFT}" y="{QUALITY_Y}" width="{WIDTH - LEFT - RIGHT}" height="{QUALITY_HEIGHT}"/>',
        label(LEFT - 6, QUALITY_Y + 8, "1", "tick", "end"),
        label(LEFT - 6, base + 2, "0", "tick", "end"),
        label(18, base - 6, "SQI", "tick"),
    ]
    values = zip(strip.quality_s.tolist(), strip.quality.tolist(), strip.status, strict=True)
    for at, value, status in values:
        left, right = plane.x(at - 1.0), plane.x(at)
        height = round(QUALITY_HEIGHT * value, 1)
        kind = "quality" if value >= 0.5 else "quality low"
        width = max(0.0, right - left)
        parts.append(
            f'<rect class="{kind}" x="{left}" y="{base - height:.1f}" width="{width:.1f}" height="{height}"/>'
        )
        if status and width > 30:
            parts.append(label((left + right) / 2, base - 8, status, "status"))
    return parts


def svg(strip: Strip) -> str:
    """The whole picture."""
    plane = Plane(strip)
    parts = []
    for begin, end in strip.excluded_s:
        if begin < plane.end_s and end > plane.begin_s:
            left, right = plane.x(begin), plane.x(end)
            parts.append(
                f'<rect class="excluded" x="{left}" y="{TOP}" width="{right - left}" height="{TRACE_HEIGHT}"/>'
            )
    parts += axes(plane, strip.unit)
    parts.append(trace(plane, strip))
    parts += marks(plane, strip)
    if len(strip.quality):
        parts += quality_band(plane, strip)
    name = escape(f"{strip.title}: {strip.why}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{name}">{"".join(parts)}</svg>'
    )

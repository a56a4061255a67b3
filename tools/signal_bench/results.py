"""What a section of the bench found, as text, as JSON and for the picture report."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from tools.signal_bench.records import Floats, Spans


@dataclass(frozen=True, slots=True)
class Goal:
    """One line of the verdict. `holds` is None where nothing was measured; `got` then says why.

    `ahead` says whether ours is better than the best peer; None where there is none to compare with.
    """

    what: str
    goal: str
    got: str
    peer: str
    holds: bool | None
    ahead: bool | None = None


@dataclass(frozen=True, slots=True)
class Peer:
    """The best of the others, and its figure."""

    text: str
    figure: float | None = None


@dataclass(frozen=True, slots=True)
class Table:
    """Figures ready to print. The first column names the row."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Strip:
    """A stretch of signal with what was found in it. Times in seconds since the start of the record.

    Attributes:
        unit: of `values`.
        quality: index 0 to 1 of the second that ends at `quality_s`; empty where there is none.
        status: what is wrong with that second, in a word; empty when nothing is.
        excluded_s: spans that do not count.
    """

    title: str
    why: str
    begin_s: float
    rate_hz: float
    values: Floats
    unit: str
    reference_s: Floats
    codes: tuple[str, ...]
    found_s: Floats
    extras_s: Floats
    misses_s: Floats
    quality_s: Floats
    quality: Floats
    status: tuple[str, ...]
    excluded_s: Spans = ()


@dataclass(slots=True)
class Section:
    """One part of the bench."""

    key: str
    title: str
    goals: list[Goal] = field(default_factory=list)
    tables: list[Table] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def judge(
    what: str,
    got: float | None,
    limit: float,
    *,
    least: bool = True,
    text: str = "{:.3f}",
    unit: str = "",
    peer: Peer | str = "-",
) -> Goal:
    """A goal of one number. None or NaN: not measured. What is judged is not rounded; `text` is how it is printed."""
    goal = f"{'>=' if least else '<='} {limit:g}{unit}"
    best = Peer(peer) if isinstance(peer, str) else peer
    if got is None or math.isnan(got):
        return Goal(what, goal, "not measured", best.text, None)
    holds = got >= limit if least else got <= limit
    ahead = None
    if best.figure is not None:
        ahead = got > best.figure if least else got < best.figure
    return Goal(what, goal, f"{text.format(got)}{unit}", best.text, holds, ahead)


def grid(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Aligned lines: the first column to the left, all others to the right."""
    lines = [list(columns), *map(list, rows)]
    wide = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    return [
        "  ".join(
            cell.ljust(wide[k]) if k == 0 else cell.rjust(wide[k]) for k, cell in enumerate(line)
        ).rstrip()
        for line in lines
    ]


VERDICTS = {True: "yes", False: "MISSED", None: "-"}
AHEAD = {True: "yes", False: "NO", None: "-"}
GOALS = ("what", "goal", "got", "holds", "best peer in this run", "ahead of it")


def goal_cells(goal: Goal) -> tuple[str, ...]:
    """One line of the table of goals."""
    verdicts = VERDICTS[goal.holds], goal.peer, AHEAD[goal.ahead]
    return (goal.what, goal.goal, goal.got, *verdicts)


def goals_text(sections: Sequence[Section]) -> str:
    """The table of goals, over all sections."""
    goals = [goal for section in sections for goal in section.goals]
    lines = grid(GOALS, [goal_cells(goal) for goal in goals])
    missed = sum(goal.holds is False for goal in goals)
    unknown = sum(goal.holds is None for goal in goals)
    behind = sum(goal.ahead is False for goal in goals)
    lines.append(
        f"{len(goals)} goals: {missed} missed, {unknown} not measured; at {behind} a peer is better"
    )
    return "\n".join(lines)


def section_text(section: Section) -> str:
    """The tables of one section with their notes."""
    lines = [f"== {section.title}"]
    for table in section.tables:
        lines += ["", table.title, *grid(table.columns, table.rows)]
        if table.note:
            lines.append(table.note)
    lines += ["", *section.remarks] if section.remarks else []
    return "\n".join(lines)

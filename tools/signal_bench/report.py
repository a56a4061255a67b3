"""One HTML file with the tables and the worst strips: nothing is loaded from anywhere, light or dark as the reader has it."""

from collections.abc import Sequence
from html import escape

from tools.signal_bench.drawing import svg
from tools.signal_bench.results import GOALS, Goal, Section, Strip, Table, goal_cells

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #5d6670; --paper: #fff; --card: #f6f7f9; --rule: #d9dde2;
  --trace: #1b1f24; --found: #1769c2; --bad: #c8102e; --good: #1b7f3b; --fine: #8fb8e8; --excluded: #f3e2b8; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #9aa4af; --paper: #14171a; --card: #1d2226;
  --rule: #343b42; --trace: #e6e8eb; --found: #5aa9f5; --bad: #ff5f6d; --good: #57c27a; --fine: #35618f;
  --excluded: #4a3f20; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1180px; padding: 24px 20px 60px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 24px; margin: 0; } h2 { font-size: 18px; margin: 36px 0 4px; } h3 { font-size: 15px; margin: 18px 0 4px; }
p { margin: 4px 0; color: var(--soft); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 14px; }
th, td { padding: 4px 10px; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { color: var(--soft); font-weight: 600; } th:first-child, td:first-child { text-align: left; }
tr.ours td { font-weight: 600; }
.yes { color: var(--good); font-weight: 600; } .missed { color: var(--bad); font-weight: 700; } .open { color: var(--soft); }
.strip { background: var(--card); border: 1px solid var(--rule); border-radius: 8px; padding: 10px 12px 4px; margin: 12px 0; }
.strip b { font-size: 15px; } .strip i { color: var(--bad); font-style: normal; margin-left: 10px; }
svg { display: block; width: 100%; height: auto; } svg text { font: 12px system-ui, sans-serif; fill: var(--soft); }
.grid { stroke: var(--rule); stroke-width: 1; } .trace { fill: none; stroke: var(--trace); stroke-width: 1.2; stroke-linejoin: round; }
svg .code { fill: var(--ink); font-weight: 600; } svg .code.bad { fill: var(--bad); font-weight: 800; font-size: 15px; }
.found { fill: var(--found); } .found.bad { fill: var(--bad); }
.wrong { stroke: var(--bad); stroke-width: 1.5; stroke-dasharray: 5 4; }
.band { fill: none; stroke: var(--rule); } .quality { fill: var(--fine); } .quality.low { fill: var(--bad); opacity: .55; }
svg .status { fill: var(--bad); font-weight: 600; }
.excluded { fill: var(--excluded); opacity: .7; }
.legend span { margin-right: 18px; white-space: nowrap; } .legend b { font-weight: 700; }
.blue { color: var(--found); } .red { color: var(--bad); }
"""

LEGEND = (
    '<p class="legend"><span><b>N V A ...</b> reference beat, by its annotation code; R: R peak of the ECG, as late as the pulse</span> '
    '<span><b class="blue">&#9650;</b> found beat</span> '
    '<span><b class="red">V &#9478;</b> missed: in the reference, not found</span> '
    '<span><b class="red">&#9650; &#9478;</b> extra: found, not in the reference</span> '
    "<span>SQI: quality index, second by second; red below 0.5, with what is wrong</span> "
    "<span>shaded: flutter, not counted</span></p>"
)
CLASSES = {True: "yes", False: "missed", None: "open"}


def cells(values: Sequence[str], kind: str = "td") -> str:
    """Of one row."""
    return "".join(f"<{kind}>{escape(value)}</{kind}>" for value in values)


def goals_html(goals: Sequence[Goal]) -> str:
    """The verdict."""
    rows = []
    for goal in goals:
        *measured, holds, peer, ahead = goal_cells(goal)
        rows.append(
            f'<tr>{cells(measured)}<td class="{CLASSES[goal.holds]}">{holds}</td>'
            f'{cells((peer,))}<td class="{CLASSES[goal.ahead]}">{ahead}</td></tr>'
        )
    head = cells(GOALS, "th")
    return f'<div class="scroll"><table><tr>{head}</tr>{"".join(rows)}</table></div>'


def table_html(table: Table, ours: str) -> str:
    """One table; our rows stand out."""
    rows = "".join(
        f"<tr{' class=ours' if row[0].startswith(ours) else ''}>{cells(row)}</tr>"
        for row in table.rows
    )
    note = f"<p>{escape(table.note)}</p>" if table.note else ""
    head = cells(table.columns, "th")
    return f'<h3>{escape(table.title)}</h3><div class="scroll"><table><tr>{head}</tr>{rows}</table></div>{note}'


def strip_html(strip: Strip) -> str:
    """One picture with its title."""
    return f'<div class="strip"><b>{escape(strip.title)}</b><i>{escape(strip.why)}</i>{svg(strip)}</div>'


def section_html(section: Section, ours: str) -> str:
    """Tables, remarks and strips."""
    parts = [f"<h2>{escape(section.title)}</h2>"]
    parts += [table_html(table, ours) for table in section.tables]
    parts += [f"<p>{escape(remark)}</p>" for remark in section.remarks]
    if section.strips:
        parts.append(f"<h3>The worst strips: {escape(section.title)}</h3>{LEGEND}")
        parts += [strip_html(strip) for strip in section.strips]
    return "".join(parts)


def page(head: str, sections: Sequence[Section], ours: str) -> str:
    """The whole file. `ours` is how the rows of the project begin."""
    goals = [goal for section in sections for goal in section.goals]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>Signal core: what was measured</title><style>{STYLE}</style></head><body>"
        f"<h1>Signal core: what was measured</h1><p>{escape(head)}</p>{goals_html(goals)}"
        + "".join(section_html(section, ours) for section in sections)
        + "</body></html>\n"
    )

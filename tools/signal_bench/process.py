"""A process with all kernels: what it takes, how soon it begins, whether it runs where no memory may become executable."""

import statistics

from tools.bench_start import PROCESSES, Row, processes
from tools.signal_bench.beats import Options
from tools.signal_bench.results import Goal, Peer, Section, Table, judge

GOAL_MB, GOAL_S = 30.0, 0.3


def process(options: Options) -> Section:
    """Both ways of running the kernels; the peers are compiled just in time or bring scipy."""
    section = Section("process", "Process with all kernels")
    rows = processes(2 if options.quick else 5)
    section.tables.append(
        Table("Medians of several starts", PROCESSES, tuple(row.cells() for row in rows))
    )
    (ahead,) = (row for row in rows if row.name.endswith("ahead of time"))
    (cached,) = (row for row in rows if row.name.endswith("just in time, cached"))
    peer = "{:.{digits}f} just in time"
    resident = [memory(row) for row in (ahead, cached)]
    started = [statistics.median(run.start_s for run in row.runs) for row in (ahead, cached)]
    verdict = f"{'runs' if cached.cells()[-1] == 'runs' else 'fails'} just in time"
    section.goals += [
        judge(
            "process, kernels ahead of time, MB", resident[0], GOAL_MB,
            least=False, text="{:.1f}", peer=Peer(peer.format(resident[1], digits=1), resident[1]),
        ),
        judge(
            "its start to the first result, s", started[0], GOAL_S,
            least=False, text="{:.2f}", peer=Peer(peer.format(started[1], digits=2), started[1]),
        ),
        Goal(
            "it runs under PR_SET_MDWE", "runs", ahead.cells()[-1],
            verdict, ahead.cells()[-1] == "runs",
        ),
    ]  # fmt: skip
    return section


def memory(row: Row) -> float:
    """Resident, in MB, the median of its runs."""
    return float(statistics.median(run.resident_kb for run in row.runs)) / 1024

"""Beats on annotated records: clean, with atrial fibrillation, and under noise."""

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass

from tools.ec57 import Comparison, Score, average, gross
from tools.signal_bench import data
from tools.signal_bench.detectors import OURS
from tools.signal_bench.jobs import Job, Outcome, run_all
from tools.signal_bench.noise import noisy_spans
from tools.signal_bench.progress import progress
from tools.signal_bench.results import Peer, Section, Table, judge
from tools.signal_bench.strips import worst_strips

LEARNING_S = 300.0
SNRS_DB = (12.0, 6.0, 0.0)
QUICK = 4
"""Records of each database when it has to be quick; peers that take microseconds are then left out."""
GOALS_EM = {12.0: 99.4, 6.0: 93.6, 0.0: 79.6}


@dataclass(frozen=True, slots=True)
class Options:
    """Of a run.

    Attributes:
        quick: a few records only.
        detectors: names of those that are there.
        packages: that can be imported.
        pool: does the long work.
    """

    quick: bool
    detectors: tuple[str, ...]
    packages: frozenset[str]
    pool: Executor

    def some(self, names: Sequence[str]) -> list[str]:
        """All records, or a few of them."""
        return list(names[:QUICK] if self.quick else names)


def scores(
    outcomes: Sequence[Outcome], detector: str, one: Callable[[Outcome], Comparison]
) -> dict[str, Score]:
    """By the record's name."""
    return {o.job.name: one(o).score for o in outcomes if o.job.detector == detector}


def row(name: str, results: dict[str, Score], outcomes: Sequence[Outcome]) -> tuple[str, ...]:
    """One detector's line."""
    whole = gross(results.values())
    mine = [o for o in outcomes if o.job.detector == name]
    worst = min(results, key=lambda record: results[record].f1)
    samples = sum(o.samples for o in mine)
    faults = sum(bool(o.fault) for o in mine)
    return (
        name + (f" (broke down on {faults})" if faults else ""),
        f"{whole.sensitivity:.3f}",
        f"{whole.positive_predictivity:.3f}",
        f"{whole.f1:.3f}",
        f"{average(one.f1 for one in results.values()):.3f}",
        f"{whole.fp}",
        f"{whole.fn}",
        f"{worst} {results[worst].f1:.1f}",
        f"{sum(o.cpu_s for o in mine) / samples * 1e9:.0f}",
    )


COLUMNS = ("detector", "Se %", "+P %", "F1 %", "average F1 %", "FP", "FN", "worst", "ns/sample")


def best_peer(figures: dict[str, float], text: str = "{:.3f}", *, most: bool = True) -> Peer | str:
    """The best of the others: the one with the most, or with the least."""
    others = {name: value for name, value in figures.items() if not name.startswith(OURS)}
    if not others:
        return "-"
    name = (max if most else min)(others, key=lambda key: others[key])
    return Peer(f"{text.format(others[name])} {name}", others[name])


def clean(
    key: str, database: str, title: str, start_s: float, goal: float, options: Options
) -> Section:
    """Every detector on the records of one database."""
    section = Section(key, title)
    names = options.some(getattr(data, database)())
    what = f"{title}, F1 %"
    if not names:
        section.remarks.append(data.absent(f"ecg/{database}"))
        section.goals.append(judge(what, None, goal))
        return section
    jobs = [Job(d, database, name) for d in options.detectors for name in names]
    with progress(title, len(jobs)) as bar:
        outcomes = run_all(jobs, bar, options.pool)

    def one(outcome: Outcome) -> Comparison:
        return outcome.comparison(start_s)

    by_detector = {d: scores(outcomes, d, one) for d in options.detectors}
    figures = {d: gross(results.values()).f1 for d, results in by_detector.items()}
    rows = tuple(row(d, by_detector[d], outcomes) for d in options.detectors)
    beats = gross(by_detector[OURS].values())
    section.tables.append(
        Table(
            f"{len(names)} records, first lead, {beats.tp + beats.fn} beats from {start_s:g} s on, window 150 ms",
            COLUMNS,
            rows,
        )
    )
    section.goals.append(judge(what, figures[OURS], goal, peer=best_peer(figures)))
    section.strips += worst_strips([o for o in outcomes if o.job.detector == OURS], start_s)
    return section


def qrs(options: Options) -> Section:
    """The MIT-BIH Arrhythmia Database."""
    title = "QRS, MIT-BIH development records"
    return clean("qrs", "mitdb", title, LEARNING_S, 99.88, options)


def fibrillation(options: Options) -> Section:
    """CPSC 2021: records of some minutes, so nothing is left out at their start."""
    title = "QRS, CPSC 2021 development records"
    return clean("cpsc", "cpsc2021", title, 0.0, 98.3, options)


# --- Noise -------------------------------------------------------------------------------------------


def in_noise(outcome: Outcome) -> Comparison:
    """What lies in the noisy spans."""
    whole = outcome.comparison(LEARNING_S)
    return whole.within(noisy_spans(outcome.job.record().seconds))


def noise(options: Options) -> Section:
    """Electrode motion and muscle noise at three ratios."""
    section = Section("noise", "QRS under noise (noise stress test)")
    names = options.some(data.stressed())
    if not names:
        section.remarks.append(data.absent("ecg/noise with the MIT-BIH records"))
        for snr, goal in GOALS_EM.items():
            section.goals.append(judge(f"QRS, em noise {snr:g} dB, F1 %", None, goal))
        return section
    kinds = tuple(data.NOISES)[:1] if options.quick else tuple(data.NOISES)
    conditions = [(kind, snr) for kind in kinds for snr in SNRS_DB]
    jobs = [
        Job(d, "mitdb", name, kind, snr)
        for kind, snr in conditions
        for name in names
        for d in options.detectors
    ]
    with progress(section.title, len(jobs)) as bar:
        outcomes = run_all(jobs, bar, options.pool)
    results: dict[tuple[str, str, float], Score] = {}
    for d in options.detectors:
        for kind, snr in conditions:
            some = [
                o for o in outcomes if (o.job.detector, o.job.noise, o.job.snr_db) == (d, kind, snr)
            ]
            results[d, kind, snr] = gross(in_noise(o).score for o in some)
    for kind in kinds:
        section.tables.append(noise_table(kind, options.detectors, results, names))
    for snr, goal in GOALS_EM.items():
        figures = {d: results[d, "em", snr].f1 for d in options.detectors}
        what = f"QRS, em noise {snr:g} dB, F1 %"
        section.goals.append(judge(what, figures[OURS], goal, peer=best_peer(figures)))
    ours = [
        o for o in outcomes if o.job.detector == OURS and o.job.snr_db == 6 and o.job.noise == "em"
    ]
    section.strips += worst_strips(ours, LEARNING_S, most=4, compared=in_noise)
    return section


def noise_table(
    kind: str,
    detectors: Sequence[str],
    results: dict[tuple[str, str, float], Score],
    names: Sequence[str],
) -> Table:
    """Sensitivity, predictivity and F1 at each ratio."""
    rows = []
    for d in detectors:
        cells = [d]
        for snr in SNRS_DB:
            one = results[d, kind, snr]
            cells += [f"{one.sensitivity:.1f}", f"{one.positive_predictivity:.1f}", f"{one.f1:.2f}"]
        rows.append(tuple(cells))
    columns = ["detector"]
    for snr in SNRS_DB:
        columns += [f"{snr:g} dB: Se", "+P", "F1"]
    beats = results[detectors[0], kind, SNRS_DB[0]]
    return Table(
        f"{kind} noise, records {' '.join(names)}, noisy spans alone, {beats.tp + beats.fn} beats",
        tuple(columns),
        tuple(rows),
    )

"""How well a quality index tells clean ECG from noise: the area under the ROC curve, window by window."""

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gateway.signal.leads import QualityStream
from tools.signal_bench import data
from tools.signal_bench.beats import Options, best_peer
from tools.signal_bench.detectors import OURS, peer
from tools.signal_bench.noise import noisy_spans
from tools.signal_bench.progress import progress
from tools.signal_bench.records import Floats, Record
from tools.signal_bench.results import Section, Table, judge

WINDOW_S = 10
CONDITIONS = (("em", 6.0), ("em", 0.0), ("ma", 6.0), ("ma", 0.0))
EVERY = 3
"""The slow peer sees each third window."""
GOAL_AUC, GOAL_MS = 0.99, 0.3

Judge = Callable[[Record, NDArray[np.int64]], Floats]


def auc(clean: Floats, noisy: Floats) -> float:
    """How often a clean window has the greater index, ties half."""
    ordered = np.sort(noisy)
    below = np.searchsorted(ordered, clean, "left")
    equal = np.searchsorted(ordered, clean, "right") - below
    return float((below + 0.5 * equal).sum() / (len(clean) * len(noisy)))


def window_ends(record: Record) -> NDArray[np.int64]:
    """Sample numbers at which the windows end that lie in noise by the protocol, whole seconds."""
    ends = [
        np.arange(begin + WINDOW_S, end + 0.5, WINDOW_S)
        for begin, end in noisy_spans(record.seconds)
    ]
    return np.asarray(np.concatenate(ends) * record.rate_hz, np.int64)


def ours(record: Record, ends: NDArray[np.int64]) -> Floats:
    """The stream over the whole record, read where the windows end."""
    seconds = QualityStream(record.rate_hz).process(record.counts)
    at = np.searchsorted(seconds.at, ends)
    return np.asarray(np.nan_to_num(seconds.index[at, 0]), np.float64)


def kurtosis_of(x: Floats, rate_hz: float) -> float:
    """Fourth moment over the square of the second: beats are rare and high, noise is not."""
    del rate_hz
    return float(peer("scipy.stats").kurtosis(x))


def template_of(x: Floats, rate_hz: float) -> float:
    """NeuroKit2's templatematch, the mean over the window; 0 where it breaks down, as in noise without beats."""
    package = peer("neurokit2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            clean = package.ecg_clean(x, sampling_rate=rate_hz)
            values = package.ecg_quality(clean, sampling_rate=rate_hz, method="templatematch")
        except (ValueError, IndexError, ZeroDivisionError, KeyError, TypeError):
            return 0.0
    return float(np.nan_to_num(np.nanmean(np.asarray(values, np.float64))))


def of_windows(one: Callable[[Floats, float], float], every: int) -> Judge:
    """A judge out of a function of one window's samples in mV and their rate."""

    def judged(record: Record, ends: NDArray[np.int64]) -> Floats:
        long = round(WINDOW_S * record.rate_hz)
        millivolts = record.millivolts
        some = ends[::every].tolist()
        return np.array([one(millivolts[end - long : end], record.rate_hz) for end in some])

    return judged


JUDGES: dict[str, tuple[str, Judge]] = {
    OURS: ("wardlink", ours),
    "kurtosis": ("scipy", of_windows(kurtosis_of, 1)),
    "nk templatematch": ("neurokit2", of_windows(template_of, EVERY)),
}
"""By the name in the table: package, and what judges windows."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """One record by one judge: indices of the clean windows, and of the same ones under each kind of noise."""

    judge: str
    clean: Floats
    noisy: tuple[Floats, ...]


def measure(name: str, judges: tuple[str, ...]) -> list[Judged]:
    """One record through all judges."""
    record = data.load("mitdb", name)
    noisy = [data.load_noisy(name, kind, snr) for kind, snr in CONDITIONS]
    ends = window_ends(record)
    return [
        Judged(j, JUDGES[j][1](record, ends), tuple(JUDGES[j][1](r, ends) for r in noisy))
        for j in judges
    ]


def row(
    name: str, results: Sequence[Judged], milliseconds: float
) -> tuple[tuple[str, ...], list[float]]:
    """One line, and its four areas."""
    clean = np.concatenate([r.clean for r in results])
    areas = [
        auc(clean, np.concatenate([r.noisy[k] for r in results])) for k in range(len(CONDITIONS))
    ]
    return (name, str(len(clean)), *(f"{area:.4f}" for area in areas), f"{milliseconds:.3f}"), areas


def milliseconds_of(name: str) -> float:
    """For 10 s of one lead at 360 Hz, the median of windows of the packaged record, processor time."""
    record = data.packaged_ecg()
    long = round(WINDOW_S * record.rate_hz)
    ends = np.arange(long, len(record.counts) + 1, long)
    took = []
    if name == OURS:
        stream = QualityStream(record.rate_hz)
        for end in ends.tolist():
            begin = time.process_time()
            stream.process(record.counts[end - long : end])
            took.append(time.process_time() - begin)
    else:
        one = {"kurtosis": kurtosis_of, "nk templatematch": template_of}[name]
        for end in ends.tolist():
            x = record.millivolts[end - long : end]
            begin = time.process_time()
            one(x, record.rate_hz)
            took.append(time.process_time() - begin)
    return float(np.median(took)) * 1000


def quality(options: Options) -> Section:
    """Clean windows against the same windows with noise added."""
    section = Section("quality", "ECG quality index, clean against noise")
    names = options.some(data.stressed())
    judges = tuple(n for n, (package, _) in JUDGES.items() if package in options.packages)
    costs = {name: milliseconds_of(name) for name in judges}
    peer_cost = best_peer(costs, "{:.2f}", most=False)
    cost = judge("quality index, ms for 10 s", costs[OURS], GOAL_MS, least=False, peer=peer_cost)
    areas: dict[str, list[float]] = {}
    if names:
        others = [name for name in data.mitdb() if name not in names and not options.quick]
        with progress(section.title, len(names) + len(others)) as bar:
            futures = {options.pool.submit(measure, name, judges): True for name in names}
            futures |= {options.pool.submit(measure, name, (OURS,)): False for name in others}
            results: list[Judged] = []
            rest: list[Judged] = []
            for future in as_completed(futures):
                (results if futures[future] else rest).extend(future.result())
                bar.step()
        rows = []
        for name in judges:
            cells, areas[name] = row(name, [r for r in results if r.judge == name], costs[name])
            rows.append(cells)
        every = [r for r in (*results, *rest) if r.judge == OURS]
        if others:
            rows.append(row(f"{OURS}, all {len(every)} records", every, costs[OURS])[0])
        columns = ["index", "windows", *(f"{kind} {snr:g} dB" for kind, snr in CONDITIONS)]
        title = f"Area under the ROC curve, records {' '.join(names)}, windows of {WINDOW_S} s"
        note = "Not all of the other records' windows are clean before noise is added."
        section.tables.append(Table(title, (*columns, "ms for 10 s"), tuple(rows), note))
    else:
        section.remarks.append(data.absent("ecg/noise with the MIT-BIH records"))
    for k, (kind, snr) in enumerate(CONDITIONS):
        figures = {name: some[k] for name, some in areas.items()}
        what = f"quality index, AUC clean against {kind} {snr:g} dB"
        best = best_peer(figures, "{:.4f}")
        section.goals.append(judge(what, figures.get(OURS), GOAL_AUC, text="{:.4f}", peer=best))
    section.goals.append(cost)
    return section

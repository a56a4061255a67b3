"""Beats of a pulse wave, and the pulse rate: against the ECG and the monitor of the same recordings (BIDMC).

Nobody marked the pulse waves. The reference are R peaks in the seconds where two ECG detectors of others agree, moved by
one constant for each record and detector: what lies between heart and finger.
"""

import time
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gateway.signal import ppg_seconds
from gateway.signal.pleth import PlethMonitor, PlethStream
from tools.ec57 import Comparison, Score, average, compare, gross, match
from tools.signal_bench import data
from tools.signal_bench.beats import Options, best_peer
from tools.signal_bench.detectors import DETECTORS, OURS, Samples, peer
from tools.signal_bench.progress import progress
from tools.signal_bench.records import Floats, Record, Spans
from tools.signal_bench.results import Section, Strip, Table, judge
from tools.signal_bench.speed import cost_ns
from tools.signal_bench.strips import STRIP_S, clock, why, worst_places

Find = Callable[[Samples, float], Floats]

FULL_SCALE = 4095.0
AGREE_S = 0.075
AROUND_S = 2
"""Seconds on each side of a disagreement that do not count."""
LAGS_S = np.arange(-0.2, 1.3, 0.01)
EDGE_S = 0.2
RATE_FROM_S = 10
RATE_S, FADE_S = ppg_seconds.RATE_S, ppg_seconds.FADE_S
RATE_APART, RATE_LEAST = ppg_seconds.RATE_APART, ppg_seconds.RATE_LEAST
NEAR_BPM = 3.0
STRIPS = 4
GOAL_F1, GOAL_RATE, GOAL_NS = 99.0, 90.0, 10.0


def ours(x: Samples, rate_hz: float) -> Floats:
    """The whole record in one call."""
    stream = PlethStream(rate_hz)
    return np.concatenate([stream.process(x).index, stream.flush().index])


def biosppy(x: Samples, rate_hz: float) -> Floats:
    """The filter and the detector that `biosppy.signals.ppg.ppg` calls."""
    filtered, _, _ = peer("biosppy.signals.tools").filter_signal(
        signal=x, ftype="butter", band="bandpass", order=4, frequency=[1, 8], sampling_rate=rate_hz
    )
    found = peer("biosppy.signals.ppg").find_onsets_elgendi2013(
        signal=filtered, sampling_rate=rate_hz
    )
    return np.asarray(found[0], np.float64)


def neurokit(x: Samples, rate_hz: float) -> Floats:
    """NeuroKit2's cleaning and detection, both by its default method."""
    package = peer("neurokit2")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clean = package.ppg_clean(x, sampling_rate=rate_hz, method="elgendi")
        info = package.ppg_findpeaks(clean, sampling_rate=rate_hz, method="elgendi")
    return np.asarray(info["PPG_Peaks"], np.float64)


FINDERS: dict[str, tuple[str, Find]] = {
    OURS: ("wardlink", ours),
    "biosppy elgendi2013": ("biosppy", biosppy),
    "nk elgendi": ("neurokit2", neurokit),
}
"""By the name in the table: package, and what finds the waves."""


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """One recording: its R peaks, and the seconds in which they can be believed."""

    beats_s: Floats
    agreed: NDArray[np.bool_]
    seconds: float

    def spans(self, lag_s: float) -> Spans:
        """The believed seconds, less what the recording does not hold of waves that come `lag_s` later."""
        edges = np.flatnonzero(np.diff(np.concatenate(([False], self.agreed, [False]))))
        least = max(self.beats_s[0] - EDGE_S, EDGE_S - lag_s)
        most = self.seconds - EDGE_S - lag_s
        spans = [(max(float(a), least), min(float(b), most)) for a, b in edges.reshape(-1, 2)]
        return tuple((a, b) for a, b in spans if a < b)


def best_lag(reference_s: Floats, found_s: Floats) -> float:
    """The shift under which most beats have one within the window; the median of theirs."""
    if not len(found_s):
        return 0.0
    differences = np.sort((found_s[None, :] - reference_s[:, None]).ravel())
    inside = np.searchsorted(differences, LAGS_S + 0.15) - np.searchsorted(
        differences, LAGS_S - 0.15
    )
    lag = float(LAGS_S[np.argmax(inside)])
    pairs = match(reference_s, found_s - lag, 0.15)
    return float(np.median([found_s[j] - reference_s[i] for i, j in pairs])) if pairs else lag


def reference_of(file: Path) -> Reference:
    """Sleepecg against the one of two others that agrees more with it."""
    with np.load(file) as content:
        ecg, rate_hz = content["ecg_ii"].astype(np.float64), float(content["fs_hz"])
    record = Record(file.stem, rate_hz, ecg, FULL_SCALE, 0.0, np.empty(0), (), ())
    names = ("sleepecg", "nk pantompkins1985", "wfdb gqrs")
    found = [DETECTORS[n].find(DETECTORS[n].prepare(record), rate_hz) / rate_hz for n in names]
    first, second = found[:2]
    pairs: list[tuple[int, int]] = []
    for other in found[1:]:
        shifted = other - best_lag(first, other)
        both = match(first, shifted, AGREE_S)
        if len(both) > len(pairs):
            pairs, second = both, shifted
    alone = np.concatenate(
        [np.delete(first, [i for i, _ in pairs]), np.delete(second, [j for _, j in pairs])]
    )
    agreed = np.ones(int(len(ecg) / rate_hz), np.bool_)
    for at in alone.tolist():
        agreed[max(0, int(at) - AROUND_S) : int(at) + AROUND_S + 1] = False
    return Reference(first, agreed, len(ecg) / rate_hz)


def compared(reference: Reference, found_s: Floats, lag_s: float) -> Comparison:
    """Beat by beat where both detectors agree; times are those of the pulse wave."""
    late = reference.beats_s + lag_s
    whole = compare(late, found_s, start_s=-np.inf)
    return whole.within((a + lag_s, b + lag_s) for a, b in reference.spans(lag_s))


def own_seconds(x: Floats, rate_hz: float) -> tuple[Floats, Floats]:
    """What our monitor says of each second: quality and pulse rate, NaN where it is unknown. Number n ends at n + 1 s."""
    monitor = PlethMonitor(rate_hz)
    _, first = monitor.process(x)
    _, rest = monitor.flush()
    quality = np.concatenate([first.quality, rest.quality])
    return quality, np.concatenate([first.rate_bpm, rest.rate_bpm])


def peer_rates(found_s: Floats, seconds: int) -> Floats:
    """The same for a peer, by the same rule on its beats: 60 s over the weighted mean of the intervals of the last 18 s.

    Intervals that depart from their median by more than 0.4 of it are left out; fewer than 3 are too few. Peers say
    nothing of a beat's quality, so all beats are good.
    """
    rates = np.full(seconds, np.nan)
    intervals_s, ends_s = np.diff(found_s), found_s[1:]
    for second in range(seconds):
        weights = np.minimum(
            1, np.minimum(second + 1 - ends_s, ends_s - (second + 1 - RATE_S)) / FADE_S
        )
        near = weights > 0
        if near.any():
            median = np.median(intervals_s[near])
            near &= np.abs(intervals_s - median) <= RATE_APART * median
        if near.sum() >= RATE_LEAST:
            rates[second] = 60 / np.average(intervals_s[near], weights=weights[near])
    return rates


def near_monitor(rates_bpm: Floats, monitor: dict[int, float]) -> tuple[int, int, int]:
    """Of the seconds that the monitor has a rate for: in how many ours is within 3 bpm, is unknown, and all."""
    near = unknown = 0
    for second, pulse_bpm in monitor.items():
        known = 0 < second <= len(rates_bpm) and np.isfinite(rates_bpm[second - 1])
        unknown += not known
        near += bool(known and abs(rates_bpm[second - 1] - pulse_bpm) <= NEAR_BPM)
    return near, unknown, len(monitor)


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """One detector on one recording. `reference_s` is already late by the lag, as `comparison` is."""

    finder: str
    file: Path
    comparison: Comparison
    reference_s: Floats
    found_s: Floats
    near: int
    unknown: int
    monitored: int
    cpu_s: float
    samples: int

    @property
    def name(self) -> str:
        """Of the recording."""
        return self.file.stem

    @property
    def score(self) -> Score:
        """The counts."""
        return self.comparison.score


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """The pulse wave of one file in its counts, and the monitor's pulse rate by the second."""

    wave: Floats
    rate_hz: float
    monitor_bpm: dict[int, float]


def recording_of(file: Path) -> Recording:
    """Reads one; seconds without a rate, and the first ones, are left out."""
    with np.load(file) as content:
        wave, rate_hz = content["pleth"].astype(np.float64), float(content["fs_hz"])
        numerics, names = content["numerics"], [str(name) for name in content["numerics_columns"]]
    columns = numerics[:, 0].tolist(), numerics[:, names.index("PULSE")].tolist()
    monitor_bpm = {
        round(at): bpm
        for at, bpm in zip(*columns, strict=True)
        if np.isfinite(bpm) and bpm > 0 and at >= RATE_FROM_S
    }
    return Recording(wave, rate_hz, monitor_bpm)


def measure(file: Path, finders: tuple[str, ...]) -> tuple[int, list[Result]]:
    """Agreed seconds, and what each detector makes of a recording."""
    reference = reference_of(file)
    recording = recording_of(file)
    wave, rate_hz = recording.wave, recording.rate_hz
    results = []
    for name in finders:
        find = FINDERS[name][1]
        find(wave[: round(20 * rate_hz)], rate_hz)  # the first call imports and compiles
        begin = time.process_time()
        found_s = np.sort(find(wave, rate_hz)) / rate_hz
        busy = time.process_time() - begin
        if name == OURS:
            rates = own_seconds(wave, rate_hz)[1]
        else:
            rates = peer_rates(found_s, int(reference.seconds))
        lag = best_lag(reference.beats_s, found_s)
        results.append(
            Result(
                name,
                file,
                compared(reference, found_s, lag),
                reference.beats_s + lag,
                found_s,
                *near_monitor(rates, recording.monitor_bpm),
                busy,
                len(wave),
            )
        )
    return int(reference.agreed.sum()), results


def worst(results: Sequence[Result]) -> list[Strip]:
    """Cut out of our results."""
    places = worst_places([(r.name, r.comparison) for r in results], STRIPS)
    return [strip(results[k], begin) for k, begin in places]


def strip(result: Result, begin: float) -> Strip:
    """One stretch. R stands for the R peak of the ECG, as late as the wave is."""
    recording = recording_of(result.file)
    quality, _ = own_seconds(recording.wave, recording.rate_hz)
    ends = np.arange(1.0, len(quality) + 1)
    end = begin + STRIP_S
    near = (ends > begin) & (ends < end + 1)
    first, last = (round(at * recording.rate_hz) for at in (begin, end))

    def inside(at: Floats) -> Floats:
        return at[(at >= begin) & (at <= end)]

    extras, misses = inside(result.comparison.extras), inside(result.comparison.misses)
    beats = inside(result.reference_s)
    return Strip(
        title=f"{result.name} from {clock(begin)}",
        why=why(extras, misses),
        begin_s=begin,
        rate_hz=recording.rate_hz,
        values=recording.wave[first:last],
        unit="counts",
        reference_s=beats,
        codes=("R",) * len(beats),
        found_s=inside(result.found_s),
        extras_s=extras,
        misses_s=misses,
        quality_s=ends[near],
        quality=quality[near],
        status=("",) * int(near.sum()),
    )


def row(name: str, results: Sequence[Result]) -> tuple[str, ...]:
    """One detector's line."""
    whole = gross(r.score for r in results)
    last = sorted(results, key=lambda r: r.score.f1)[:3]
    monitored, unknown = sum(r.monitored for r in results), sum(r.unknown for r in results)
    near = sum(r.near for r in results)
    return (
        name,
        f"{whole.sensitivity:.2f}",
        f"{whole.positive_predictivity:.2f}",
        f"{whole.f1:.2f}",
        f"{average(r.score.f1 for r in results):.2f}",
        " ".join(f"{r.name.removeprefix('bidmc_')}:{r.score.f1:.1f}" for r in last),
        f"{100 * near / monitored:.1f}",
        f"{100 * unknown / monitored:.1f}",
        f"{100 * near / max(1, monitored - unknown):.1f}",
        f"{sum(r.cpu_s for r in results) / sum(r.samples for r in results) * 1e9:.0f}",
    )


def own_cost_ns(file: Path, rounds: int) -> float:
    """Of all that the hub does with a pulse wave (waves, seconds and rate) in one call, nanoseconds a sample."""
    with np.load(file) as content:
        wave, rate_hz = content["pleth"].astype(np.float64), float(content["fs_hz"])
    return cost_ns({OURS: (lambda: own_seconds(wave, rate_hz), len(wave))}, rounds)[OURS]


def pulse(options: Options) -> Section:
    """BIDMC, all recordings that are there."""
    section = Section("pulse", "Pulse waves and pulse rate, BIDMC development records")
    files = data.bidmc()[: 4 if options.quick else None]
    what = ("pulse waves, F1 %", "pulse rate within 3 bpm of the monitor, % of seconds")
    if not files:
        section.remarks.append(data.absent("ppg/bidmc_*.npz"))
        section.goals += [judge(what[0], None, GOAL_F1), judge(what[1], None, GOAL_RATE)]
        return section
    finders = tuple(n for n, (package, _) in FINDERS.items() if package in options.packages)
    agreed = 0
    results: list[Result] = []
    with progress(section.title, len(files)) as bar:
        futures = [options.pool.submit(measure, file, finders) for file in files]
        for future in as_completed(futures):
            seconds, some = future.result()
            agreed += seconds
            results += some
            bar.step()
    by_finder = {n: [r for r in results if r.finder == n] for n in finders}
    columns = ["detector", "Se %", "+P %", "F1 %", "average F1 %", "worst three"]
    columns += ["rate near %", "unknown %", "near of known %", "ns/sample"]
    title = f"{len(files)} records, {agreed / 60:.0f} min in which two ECG detectors agree, window 150 ms about one lag"
    note = (
        f"Rate: each second from {RATE_FROM_S} s on, within {NEAR_BPM:g} bpm of the monitor's; an unknown one is not near."
        " The peers' is made from their beats by the rule that ours has."
    )
    rows = tuple(row(n, by_finder[n]) for n in finders)
    section.tables.append(Table(title, tuple(columns), rows, note))
    section.strips += worst(sorted(by_finder[OURS], key=lambda r: r.name))
    f1 = {n: gross(r.score for r in by_finder[n]).f1 for n in finders}
    near = {
        n: 100 * sum(r.near for r in by_finder[n]) / sum(r.monitored for r in by_finder[n])
        for n in finders
    }
    section.goals.append(judge(what[0], f1[OURS], GOAL_F1, peer=best_peer(f1)))
    peer_rate = best_peer(near, "{:.1f}")
    section.goals.append(judge(what[1], near[OURS], GOAL_RATE, text="{:.1f}", peer=peer_rate))
    costs = {
        n: sum(r.cpu_s for r in some) / sum(r.samples for r in some) * 1e9
        for n, some in by_finder.items()
    }
    peer_cost = best_peer(costs, "{:.0f}", most=False)
    cost = own_cost_ns(files[0], 9)
    section.goals.append(
        judge(
            "pulse waves and rate, ns a sample",
            cost,
            GOAL_NS,
            least=False,
            text="{:.1f}",
            peer=peer_cost,
        )
    )
    return section

"""Heart rates as a receiver gets them: how many there are, and how many of them are wrong."""

from collections import Counter
from concurrent.futures import as_completed

import numpy as np

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quantity, SampleArray, Validity
from gateway.conditioner import Conditioner
from tools.signal_bench import data
from tools.signal_bench.beats import SNRS_DB, Options
from tools.signal_bench.noise import noisy_spans
from tools.signal_bench.progress import progress
from tools.signal_bench.records import Record, Spans
from tools.signal_bench.results import Section, Table

PERIOD_NS = round(1e9 / data.MITDB_HZ)
INTERVALS = 8
WRONG_BPM = 5.0
FIRST_S = 20.0
"""Before it no eight intervals are known."""
SETTLE_S = 1.0
"""A rate so soon after noise began is of beats before it."""
FLUTTER_S = 20.0
"""So long after ventricular flutter, which has no beats to count, nothing is scored."""

VALID, QUESTIONABLE = Validity.VALID.value, Validity.QUESTIONABLE.value
SECONDS = "seconds"


def rates(record: Record) -> list[tuple[float, float, str]]:
    """(seconds since the start, beats a minute, validity) of each rate that is a number, through the conditioner."""
    conditioner, step = Conditioner(), round(record.rate_hz)
    counts = np.rint(np.nan_to_num(record.counts)).astype(int).tolist()
    found = []
    for first in range(0, len(counts), step):
        samples = SampleArray.of(counts[first : first + step], period_ns=PERIOD_NS, unit=Unit.NOS)
        wave = Observation(Code.ECG_ELEC_POTL_II, samples, first * PERIOD_NS)
        found += [
            (one.determined_at_ns / 1e9, float(one.value.value), one.quality.validity.value)
            for one in conditioner.process("board", wave)
            if isinstance(one, Observation)
            and one.code is Code.ECG_HEART_RATE
            and isinstance(one.value, Quantity)
            and one.quality.validity is not Validity.INVALID
        ]
    return found


def counted_spans(record: Record, *, noisy: bool) -> Spans:
    """Where rates are scored."""
    if not noisy:
        return ((FIRST_S, record.seconds),)
    return tuple((begin + SETTLE_S, end) for begin, end in noisy_spans(record.seconds))


def measure(name: str, kind: str, snr_db: float) -> Counter[str]:
    """Of one record: seconds with a beat, rates by validity, and how many of these are wrong."""
    record = data.load_noisy(name, kind, snr_db) if kind else data.load("mitdb", name)
    beats_s = record.beats_s

    def counts(at_s: float) -> bool:
        inside = any(begin <= at_s < end for begin, end in counted_spans(record, noisy=bool(kind)))
        return inside and not any(b <= at_s < e + FLUTTER_S for b, e in record.flutter_s)

    total = Counter({SECONDS: len({int(at) for at in beats_s.tolist() if counts(at)})})
    for at_s, bpm, validity in rates(record):
        if not counts(at_s):
            continue
        seen = int(np.searchsorted(beats_s, at_s + 0.1))
        truth = 60 / float(np.median(np.diff(beats_s[max(0, seen - INTERVALS - 1) : seen])))
        total[validity] += 1
        total[validity + " wrong"] += abs(bpm - truth) > WRONG_BPM
    return total


def share(part: int, whole: int, digits: int) -> str:
    """In percent."""
    return f"{100 * part / whole:.{digits}f}" if whole else "-"


def row(name: str, total: Counter[str]) -> tuple[str, ...]:
    """One condition's line."""
    cells = [name, str(total[SECONDS])]
    for validity in (VALID, QUESTIONABLE):
        given = total[validity]
        cells += [
            share(given, total[SECONDS], 1),
            share(total[validity + " wrong"], given, 2),
        ]
    return tuple(cells)


def heart_rates(options: Options) -> Section:
    """Clean and under both kinds of noise, the noisy spans alone."""
    section = Section("rates", "Heart rates that obey the quality index")
    names = options.some(data.mitdb() if data.stressed() else [])
    if not names:
        section.remarks.append(data.absent("ecg/noise with the MIT-BIH records"))
        return section
    conditions = [("", 0.0), *((kind, snr) for kind in data.NOISES for snr in SNRS_DB)]
    totals = {condition: Counter[str]() for condition in conditions}
    with progress(section.title, len(names) * len(conditions)) as bar:
        futures = {options.pool.submit(measure, name, *c): c for c in conditions for name in names}
        for future in as_completed(futures):
            totals[futures[future]] += future.result()
            bar.step()
    rows = tuple(
        row(f"{kind} {snr:g} dB" if kind else "none added", total)
        for (kind, snr), total in totals.items()
    )
    columns = ("noise", "seconds", "valid %", "wrong %", "questionable %", "wrong %")
    note = (
        f"Of the seconds with a beat those with a rate, and of these rates those more than {WRONG_BPM:g} /min"
        f" from 60 s over the median of the last {INTERVALS} reference intervals. The rest is unknown."
    )
    title = f"{len(names)} MIT-BIH records through the conditioner, noisy spans alone"
    section.tables.append(Table(title, columns, rows, note))
    return section

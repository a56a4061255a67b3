"""The stretches in which most goes wrong."""

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np

from gateway.signal.leads import LeadStatus, QualityStream
from tools.ec57 import Comparison
from tools.signal_bench.jobs import Job, Outcome
from tools.signal_bench.records import Floats
from tools.signal_bench.results import Strip

STRIP_S = 10.0
MOST = 10
EACH = 2
"""Most strips of one record: a single bad minute must not hide all the others."""

Compare = Callable[[Outcome], Comparison]


def worst_strips(
    outcomes: Sequence[Outcome], start_s: float, most: int = MOST, compared: Compare | None = None
) -> list[Strip]:
    """The stretches of `STRIP_S` with the most errors, worst first, apart from each other."""
    candidates: list[tuple[int, float, Outcome, Comparison]] = []
    for outcome in outcomes:
        comparison = compared(outcome) if compared else outcome.comparison(start_s)
        errors = np.sort(np.concatenate([comparison.extras, comparison.misses]))
        for at in errors.tolist():
            inside = errors[(errors >= at) & (errors < at + STRIP_S - 1)]
            middle = (inside[0] + inside[-1]) / 2 - STRIP_S / 2
            candidates.append((len(inside), max(0.0, float(middle)), outcome, comparison))
    candidates.sort(key=lambda one: (-one[0], one[2].job.name, one[1]))
    chosen: list[Strip] = []
    taken: dict[str, list[float]] = {}
    for errors_inside, begin, outcome, comparison in candidates:
        others = taken.setdefault(outcome.job.name, [])
        if len(others) < EACH and all(abs(begin - other) >= STRIP_S for other in others):
            others.append(begin)
            chosen.append(make(outcome, comparison, begin, errors_inside))
        if len(chosen) == most:
            break
    return chosen


SAID_NOTHING = (LeadStatus.GOOD, LeadStatus.UNKNOWN)


@cache
def judged(job: Job) -> tuple[Floats, Floats, tuple[str, ...]]:
    """When each second of a record ends, the quality index there (unknown is drawn as 0), and what is wrong with it."""
    record = job.record()
    seconds = QualityStream(record.rate_hz).process(record.counts)
    states = [LeadStatus(value) for value in seconds.status[:, 0].tolist()]
    said = tuple("" if state in SAID_NOTHING else state.name.lower() for state in states)
    return seconds.at / record.rate_hz, np.nan_to_num(seconds.index[:, 0]), said


def make(outcome: Outcome, comparison: Comparison, begin: float, errors: int) -> Strip:
    """Cuts one out."""
    record = outcome.job.record()
    first, last = (round((begin + shift) * record.rate_hz) for shift in (0.0, STRIP_S))
    millivolts = record.millivolts[first:last]
    end = begin + STRIP_S
    quality_s, quality, said_of = judged(outcome.job)
    near = (quality_s > begin) & (quality_s < end + 1)

    def inside(at: Floats) -> Floats:
        return at[(at >= begin) & (at <= end)]

    shown = (record.beats_s >= begin) & (record.beats_s <= end)
    extras, misses = inside(comparison.extras), inside(comparison.misses)
    said = [
        f"{len(part)} {name}" for part, name in ((extras, "extra"), (misses, "missed")) if len(part)
    ]
    return Strip(
        title=f"{record.name} from {clock(begin)}",
        why=", ".join(said) or f"{errors} errors",
        begin_s=begin,
        rate_hz=record.rate_hz,
        values=millivolts,
        unit="mV",
        reference_s=record.beats_s[shown],
        codes=tuple(code for code, is_in in zip(record.codes, shown, strict=True) if is_in),
        found_s=inside(outcome.found_s),
        extras_s=extras,
        misses_s=misses,
        quality_s=quality_s[near],
        quality=quality[near],
        status=tuple(said_of[k] for k in np.flatnonzero(near)),
        excluded_s=record.flutter_s,
    )


def clock(seconds: float) -> str:
    """As minutes and seconds: 12:34.5."""
    tenths = round(seconds * 10)
    return f"{tenths // 600}:{tenths % 600 / 10:04.1f}"

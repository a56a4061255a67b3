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


def worst_places(
    comparisons: Sequence[tuple[str, Comparison]], most: int = MOST
) -> list[tuple[int, float]]:
    """Where the stretches of `STRIP_S` with the most errors begin, worst first, apart from each other.

    Takes records by name, and gives the number of each among them with a time in seconds.
    """
    candidates: list[tuple[int, str, float, int]] = []
    for number, (name, comparison) in enumerate(comparisons):
        errors = np.sort(np.concatenate([comparison.extras, comparison.misses]))
        for at in errors.tolist():
            inside = errors[(errors >= at) & (errors < at + STRIP_S - 1)]
            middle = (inside[0] + inside[-1]) / 2 - STRIP_S / 2
            candidates.append((-len(inside), name, max(0.0, float(middle)), number))
    chosen: list[tuple[int, float]] = []
    for _, _, begin, number in sorted(candidates):
        others = [at for record, at in chosen if record == number]
        if len(others) < EACH and all(abs(begin - other) >= STRIP_S for other in others):
            chosen.append((number, begin))
        if len(chosen) == most:
            break
    return chosen


def worst_strips(
    outcomes: Sequence[Outcome], start_s: float, most: int = MOST, compared: Compare | None = None
) -> list[Strip]:
    """The worst of one detector's records, cut out."""
    comparisons = [compared(o) if compared else o.comparison(start_s) for o in outcomes]
    names = [o.job.name for o in outcomes]
    places = worst_places(list(zip(names, comparisons, strict=True)), most)
    return [make(outcomes[k], comparisons[k], begin) for k, begin in places]


def why(extras: Floats, misses: Floats) -> str:
    """Counts in words."""
    parts = ((extras, "extra"), (misses, "missed"))
    return ", ".join(f"{len(part)} {name}" for part, name in parts if len(part))


SAID_NOTHING = (LeadStatus.GOOD, LeadStatus.UNKNOWN)


@cache
def judged(job: Job) -> tuple[Floats, Floats, tuple[str, ...]]:
    """When each second of a record ends, the quality index there (unknown is drawn as 0), and what is wrong with it."""
    record = job.record()
    seconds = QualityStream(record.rate_hz).process(record.counts)
    states = [LeadStatus(value) for value in seconds.status[:, 0].tolist()]
    said = tuple("" if state in SAID_NOTHING else state.name.lower() for state in states)
    return seconds.at / record.rate_hz, np.nan_to_num(seconds.index[:, 0]), said


def make(outcome: Outcome, comparison: Comparison, begin: float) -> Strip:
    """Cuts one out."""
    record = outcome.job.record()
    first, last = (round((begin + shift) * record.rate_hz) for shift in (0.0, STRIP_S))
    end = begin + STRIP_S
    quality_s, quality, said_of = judged(outcome.job)
    near = (quality_s > begin) & (quality_s < end + 1)

    def inside(at: Floats) -> Floats:
        return at[(at >= begin) & (at <= end)]

    shown = (record.beats_s >= begin) & (record.beats_s <= end)
    extras, misses = inside(comparison.extras), inside(comparison.misses)
    return Strip(
        title=f"{record.name} from {clock(begin)}",
        why=why(extras, misses),
        begin_s=begin,
        rate_hz=record.rate_hz,
        values=record.millivolts[first:last],
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

#!/usr/bin/env python3
"""Scores beats against a reference, beat by beat, as ANSI/AAMI EC57 prescribes.

    python -m tools.ec57 RECORD... [--detector NAME | --annotations EXT] [--channel N] [--json]

A window of 150 ms; the first five minutes are learning time; episodes of ventricular flutter and fibrillation do not
count; figures for each record, gross (all beats of all records together) and average (of the records' figures).

The pairing is that of WFDB's bxb, in one pass in order of time: of the two next beats, reference and found, the
earlier one is paired with the later one if they are within the window and the later one is nearer to it than to its own
successor; otherwise it stays alone. Each beat is in one pair at most. Where the beats of either side are 300 ms apart
or more no other pairing has more pairs.
"""

import argparse
import dataclasses
import json
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

WINDOW_S = 0.15
LEARNING_S = 300.0
ROUNDING_S = 1e-6
"""Times that were sample numbers once: 54 samples at 360 Hz are 0.15 s, whatever the last bit of a quotient says."""


@dataclass(frozen=True, slots=True)
class Score:
    """Counts of true positive, false positive and false negative beats. Scores add up to gross figures."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: "Score") -> "Score":
        return Score(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def sensitivity(self) -> float:
        """Percent of the reference beats that were found; NaN without any."""
        return _percent(self.tp, self.tp + self.fn)

    @property
    def positive_predictivity(self) -> float:
        """Percent of the found beats that are real; NaN without any."""
        return _percent(self.tp, self.tp + self.fp)

    @property
    def f1(self) -> float:
        """The harmonic mean of both in percent; NaN without any beat."""
        return _percent(2 * self.tp, 2 * self.tp + self.fp + self.fn)


@dataclass(frozen=True, slots=True, eq=False)
class Comparison:
    """Every beat that counts, by what became of it. Times in seconds, in order.

    Attributes:
        hits: times of reference beats that were found.
        extras: times of found beats that are none.
        misses: times of reference beats that were not found.
    """

    hits: Times
    extras: Times
    misses: Times

    def within(self, spans_s: Iterable[tuple[float, float]]) -> "Comparison":
        """What lies inside of the spans, which do not touch each other."""
        spans = tuple(spans_s)

        def inside(at: Times) -> Times:
            return np.concatenate([at[:0], *(at[(at >= a) & (at < b)] for a, b in spans)])

        return Comparison(inside(self.hits), inside(self.extras), inside(self.misses))

    @property
    def score(self) -> Score:
        """The counts."""
        return Score(len(self.hits), len(self.extras), len(self.misses))


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")


def match(reference: Times, found: Times, window: float) -> list[tuple[int, int]]:
    """Pairs of indices whose times differ by `window` at most, each beat in one pair, as bxb pairs them.

    Both in order of time. A beat that is as near to its rival's successor is left for that one.
    """
    pairs = []
    i, j = 0, 0
    while i < len(reference) and j < len(found):
        late = found[j] - reference[i]
        if late < 0 and (late < -window or _taken(found, j + 1, reference[i], -late)):
            j += 1
        elif late >= 0 and (late > window or _taken(reference, i + 1, found[j], late)):
            i += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs


def _taken(times: Times, k: int, by: float, than: float) -> bool:
    return k < len(times) and bool(abs(times[k] - by) <= than)


def compare(
    reference_s: Sequence[float] | Times,
    found_s: Sequence[float] | Times,
    start_s: float = LEARNING_S,
    excluded_s: Iterable[tuple[float, float]] = (),
    window_s: float = WINDOW_S,
) -> Comparison:
    """Sorts what lies from `start_s` on and outside the excluded spans (ventricular flutter and fibrillation).

    A pair counts where its reference beat lies. Reference beats in an excluded span do not exist. Times in seconds,
    ascending.
    """
    reference = np.asarray(reference_s, dtype=np.float64)
    found = np.asarray(found_s, dtype=np.float64)
    alone = found >= start_s
    for begin, end in excluded_s:
        reference = reference[(reference < begin) | (reference > end)]
        alone &= (found < begin) | (found > end)
    pairs = match(reference, found, window_s + ROUNDING_S)
    hit = np.zeros(len(reference), np.bool_)
    for i, j in pairs:
        hit[i] = True
        alone[j] = False
    counts = reference >= start_s
    return Comparison(reference[counts & hit], found[alone], reference[counts & ~hit])


def score(
    reference_s: Sequence[float] | Times,
    found_s: Sequence[float] | Times,
    start_s: float = LEARNING_S,
    excluded_s: Iterable[tuple[float, float]] = (),
    window_s: float = WINDOW_S,
) -> Score:
    """The counts of `compare`."""
    return compare(reference_s, found_s, start_s, excluded_s, window_s).score


def gross(scores: Iterable[Score]) -> Score:
    """All beats of all records together."""
    return sum(scores, Score(0, 0, 0))


def average(values: Iterable[float]) -> float:
    """Of the records that have a figure; NaN when none has."""
    known = [value for value in values if not math.isnan(value)]
    return sum(known) / len(known) if known else float("nan")


# --- The command -------------------------------------------------------------------------------------


def score_record(name: Path, options: argparse.Namespace) -> Score:
    """Reads a record, finds its beats or reads them, and scores.

    Raises:
        RecordError, NotInstalledError: as they say.
    """
    # Here, because most users of this file want the arithmetic alone.
    from tools.signal_bench.detectors import DETECTORS  # noqa: PLC0415
    from tools.signal_bench.records import BEATS, RecordError, annotations, read_record  # noqa: PLC0415

    record = read_record(name, options.channel, options.reference)
    if options.annotations is not None:
        times_s, codes = annotations(name, options.annotations, record.rate_hz)
        found_s = times_s[[k for k, code in enumerate(codes) if code in BEATS]]
    else:
        detector = DETECTORS[options.detector]
        try:
            found = detector.find(detector.prepare(record), record.rate_hz)
        except ValueError as fault:
            raise RecordError(
                f"{name}: {options.detector} refuses it: {fault}; choose another detector or resample the record"
            ) from fault
        found_s = np.asarray(found, np.float64) / record.rate_hz
    result = score(record.beats_s, found_s, options.start, record.flutter_s, options.window)
    if not result.tp + result.fn:
        raise RecordError(
            f"{name}: got no reference beat after {options.start:g} s, expected some; --start 0 counts from the beginning"
        )
    return result


def table(scores: dict[str, Score]) -> str:
    """A line for each record, then gross and average."""
    wide = max(map(len, (*scores, "average")))
    lines = [
        f"{'record':{wide}}{'beats':>8}{'TP':>8}{'FP':>6}{'FN':>6}{'Se %':>9}{'+P %':>9}{'F1 %':>9}"
    ]
    for name, one in (*scores.items(), ("gross", gross(scores.values()))):
        lines.append(
            f"{name:{wide}}{one.tp + one.fn:8d}{one.tp:8d}{one.fp:6d}{one.fn:6d}"
            f"{one.sensitivity:9.3f}{one.positive_predictivity:9.3f}{one.f1:9.3f}"
        )
    mean = averages(scores)
    lines.append(f"{'average':{wide}}{'':28}" + "".join(f"{mean[key]:9.3f}" for key in FIGURES))
    return "\n".join(lines)


FIGURES = ("sensitivity", "positive_predictivity", "f1")


def averages(scores: dict[str, Score]) -> dict[str, float]:
    """The mean of the records' figures."""
    return {key: average(getattr(one, key) for one in scores.values()) for key in FIGURES}


def as_json(scores: dict[str, Score]) -> str:
    """The same for programs; what has no figure is null."""

    def figures(one: Score) -> dict[str, object]:
        return dataclasses.asdict(one) | known({key: getattr(one, key) for key in FIGURES})

    def known(values: dict[str, float]) -> dict[str, object]:
        return {key: None if math.isnan(value) else value for key, value in values.items()}

    content = {
        "records": {name: figures(one) for name, one in scores.items()},
        "gross": figures(gross(scores.values())),
        "average": known(averages(scores)),
    }
    return json.dumps(content, indent=2, allow_nan=False)


def parser() -> argparse.ArgumentParser:
    """The options."""
    from tools.signal_bench.detectors import DETECTORS, OURS  # noqa: PLC0415 - as above

    made = argparse.ArgumentParser(prog="python -m tools.ec57", description=__doc__.splitlines()[0])
    made.add_argument(
        "records", nargs="+", type=Path, metavar="RECORD", help="WFDB record, or a folder of them"
    )
    beats = made.add_mutually_exclusive_group()
    beats.add_argument(
        "--detector", choices=DETECTORS, default=OURS, help="finds the beats (%(default)s)"
    )
    beats.add_argument(
        "--annotations", metavar="EXT", help="takes the beats from RECORD.EXT instead"
    )
    made.add_argument(
        "--reference", metavar="EXT", default="atr", help="the true beats (%(default)s)"
    )
    made.add_argument("--channel", type=int, default=0, help="lead, from 0 (%(default)s)")
    made.add_argument(
        "--start", type=float, default=LEARNING_S, help="seconds of learning time (%(default)g)"
    )
    made.add_argument(
        "--window", type=float, default=WINDOW_S, help="seconds between two beats that match"
    )
    made.add_argument("--json", action="store_true", help="for programs")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the table. Exit status 1 when a record could not be scored, with the reason."""
    from tools.signal_bench.detectors import NotInstalledError  # noqa: PLC0415 - as above
    from tools.signal_bench.records import RecordError, records_of  # noqa: PLC0415

    options = parser().parse_args(arguments)
    try:
        scores = {str(name): score_record(name, options) for name in records_of(options.records)}
    except (RecordError, NotInstalledError) as fault:
        sys.stderr.write(f"{fault}\n")
        return 1
    short = {Path(name).name: one for name, one in scores.items()}
    if len(short) == len(scores):
        scores = short
    sys.stdout.write((as_json(scores) if options.json else table(scores)) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())

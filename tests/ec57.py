"""Beat-by-beat comparison with a reference, as ANSI/AAMI EC57 prescribes: 150 ms, the first five minutes left out."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.float64]

WINDOW_S = 0.15
LEARNING_S = 300.0


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


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else float("nan")


def match(reference: Times, found: Times, window: float) -> list[tuple[int, int]]:
    """Pairs of indices whose times differ by `window` at most, each beat in one pair; of two rivals the nearer wins.

    Both in order of time.
    """
    pairs = []
    i, j = 0, 0
    while i < len(reference) and j < len(found):
        late = found[j] - reference[i]
        if late < -window or (late < 0 and _nearer(found, j + 1, reference[i], -late)):
            j += 1
        elif late > window or (late > 0 and _nearer(reference, i + 1, found[j], late)):
            i += 1
        else:
            pairs.append((i, j))
            i, j = i + 1, j + 1
    return pairs


def _nearer(times: Times, k: int, to: float, than: float) -> bool:
    return k < len(times) and abs(times[k] - to) < than


def score(
    reference_s: Sequence[float] | Times,
    found_s: Sequence[float] | Times,
    start_s: float = LEARNING_S,
    excluded_s: Iterable[tuple[float, float]] = (),
    window_s: float = WINDOW_S,
) -> Score:
    """Counts what lies from `start_s` on and outside the excluded spans (ventricular flutter and fibrillation).

    A pair counts where its reference beat lies. Times in seconds, ascending.
    """
    reference = np.asarray(reference_s, dtype=np.float64)
    found = np.asarray(found_s, dtype=np.float64)
    pairs = match(reference, found, window_s)
    counts = reference >= start_s
    alone = found >= start_s
    for begin, end in excluded_s:
        counts &= (reference < begin) | (reference > end)
        alone &= (found < begin) | (found > end)
    for _, j in pairs:
        alone[j] = False
    tp = sum(bool(counts[i]) for i, _ in pairs)
    return Score(tp=tp, fp=int(alone.sum()), fn=int(counts.sum()) - tp)

"""Whether beats look like beats that were there before: the last guard against artefacts between quiet stretches."""

from collections import deque

import numpy as np
from numpy.typing import NDArray

from gateway.conditioner.stretch import Samples

KEPT = 8
"""Beats that one is compared with."""
COUNTED = 12
REACH_S = 0.08
"""A shape is so much of the signal before the R peak and after it."""
SHIFT_S = 0.008
"""Shapes are moved against each other by so much at most, since the R peak of a few samples has no better place."""
ALIKE = 0.9
"""2 ab / (a^2 + b^2) of two shapes, each without its mean: 1 for equal ones, 0.9 for one 1.6 times as high as the other."""
LIKE_LEAST = 2
UNLIKE_MOST = 4
"""So many of twelve beats may have less than two like them among the eight before. Ectopic beats resemble each other, jumps of an electrode do not:
of the rates that made-up jumps made wrong, up to four a second, 93 to 98 in 100 were found out; of those of 21 real
records without added noise 5 in 100 are doubted too (26 in 100 of MIT-BIH 203, whose ectopic beats have many shapes)."""

Shape = NDArray[np.float64]


class Shapes:
    """The shapes of the last beats of a run."""

    def __init__(self, rate_hz: float) -> None:
        self._reach = round(REACH_S * rate_hz)
        self._shift = max(1, round(SHIFT_S * rate_hz))
        self._shapes: deque[Shape] = deque(maxlen=KEPT)
        self._alike: deque[bool] = deque(maxlen=COUNTED)

    @property
    def unlike(self) -> int:
        """How many of the last twelve beats have not their like."""
        return self._alike.count(False)

    @property
    def trusted(self) -> bool:
        """Whether most of the last twelve beats have their like."""
        return self.unlike <= UNLIKE_MOST

    def forget(self) -> None:
        """What comes next may be of another shape."""
        self._alike.clear()

    def beat(self, samples: Samples, at: int) -> None:
        """The next beat: its R peak is at number `at` of these samples. What is not whole in them is passed over."""
        first, size = at - self._reach - self._shift, 2 * self._reach + 1
        end = first + size + 2 * self._shift
        if first < 0 or end > len(samples):
            return
        windows = np.lib.stride_tricks.sliding_window_view(
            samples[first:end].astype(np.float64), size
        )
        shapes = windows - windows.mean(axis=1, keepdims=True)
        self._alike.append(self._resembles(shapes))
        self._shapes.append(shapes[self._shift])

    def _resembles(self, shapes: Shape) -> bool:
        if len(self._shapes) < LIKE_LEAST:
            return False
        known = np.stack(self._shapes)
        powers = (shapes**2).sum(axis=1)[:, None] + (known**2).sum(axis=1)[None, :]
        alike = 2 * shapes @ known.T >= ALIKE * np.maximum(powers, 1.0)
        return int(alike.any(axis=0).sum()) >= LIKE_LEAST

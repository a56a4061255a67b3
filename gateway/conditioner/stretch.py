"""One signal between two gaps: when each of its samples was."""

from collections import deque
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from drivers.model import Observation, Record, SampleArray

NS_PER_S = 1_000_000_000
JUMP_NS = 100_000_000
"""Sample times of one run drift against each other by less than this; more is a hole."""
BLOCKS_KEPT = 64
"""Blocks whose times are kept for what is found late: more than ten seconds of fifths of a second."""

Samples = NDArray[np.int32]


class Stretch:
    """The time line of a run: sample numbers on one side, the hub's time on the other."""

    def __init__(self, period_ns: int) -> None:
        self.period_ns = period_ns
        self.count = 0
        self._expected_ns: int | None = None
        self._starts: deque[tuple[int, int]] = deque(maxlen=BLOCKS_KEPT)

    @property
    def rate_hz(self) -> float:
        """Samples a second."""
        return NS_PER_S / self.period_ns

    def continues(self, record: Observation, samples: SampleArray) -> bool:
        """Whether these samples follow without a hole."""
        if self._expected_ns is None:
            return True
        jumped = abs(record.determined_at_ns - self._expected_ns) > JUMP_NS
        return not jumped and self.period_ns == samples.period_ns

    def add(self, record: Observation, samples: SampleArray) -> Samples:
        """Goes on by a block, and returns its samples."""
        self._starts.append((self.count, record.determined_at_ns))
        self._expected_ns = record.ends_ns
        self.count += len(samples)
        return np.asarray(samples.samples())

    def time_ns(self, index: float) -> int:
        """Hub time of a sample number; it may have a fraction."""
        start, start_ns = self._starts[0]
        for begin, begin_ns in reversed(self._starts):
            if begin <= index:
                start, start_ns = begin, begin_ns
                break
        return start_ns + round((index - start) * self.period_ns)


class Run(Protocol):
    """What a signal is turned into, from one gap to the next."""

    @property
    def sqi(self) -> float | None:
        """The index of the last whole seconds; None while it is not known."""
        ...

    @property
    def worst(self) -> float | None:
        """The index that what was determined of late stands on; None while it is not known."""
        ...

    def take(self, samples: Samples) -> Iterable[Record]:
        """Samples that the stretch was already told of."""
        ...

    def end(self) -> Iterable[Record]:
        """What still waited for a decision."""
        ...

"""What a simulated device produced, and what of it went out whole: the truth that a proof compares with."""

from collections import deque

import numpy as np
from numpy.typing import NDArray


class Ledger:
    """Every sample by its number, in a ring of `capacity`.

    A frame counts as delivered once all its bytes have been taken by the wire unhurt, in order and without a
    stranger between them. What the hub's kernel then discards (at opening and closing a port) is not known here.
    """

    def __init__(
        self, payload: np.dtype[np.void], frame_bytes: int, period_ns: float, capacity: int
    ) -> None:
        self.start_ns = 0
        self.period_ns = period_ns
        self.produced = 0
        self.delivered_count = 0
        self._frame_bytes = frame_bytes
        self._ring = np.zeros(capacity, payload)
        self._tail: NDArray[np.int64] = np.empty(0, np.int64)
        self._delivered: deque[NDArray[np.int64]] = deque()
        self._kept = 0

    def due(self, now_ns: int) -> int:
        """How many samples have been taken by `now_ns`; sample n is taken at `time_ns(n)`."""
        return max(0, int((now_ns - self.start_ns) / self.period_ns) + 1)

    def time_ns(self, number: NDArray[np.int64]) -> NDArray[np.int64]:
        """CLOCK_BOOTTIME of samples."""
        times: NDArray[np.int64] = self.start_ns + np.rint(number * self.period_ns).astype(np.int64)
        return times

    def append(self, payload: NDArray[np.void]) -> None:
        """The next samples, as they stand in their frames."""
        numbers = np.arange(self.produced, self.produced + len(payload))[-len(self._ring) :]
        self._ring[numbers % len(self._ring)] = payload[len(payload) - len(numbers) :]
        self.produced += len(payload)

    def values(self, number: NDArray[np.int64]) -> NDArray[np.void]:
        """Payloads of samples. Raises IndexError for one not produced yet, or no longer kept."""
        oldest = max(0, self.produced - len(self._ring))
        if len(number) and not oldest <= number.min() <= number.max() < self.produced:
            raise IndexError(
                f"got samples {number.min()} to {number.max()}, kept are {oldest} to {self.produced - 1}"
            )
        return self._ring[number % len(self._ring)]

    def on_wire(self, origin: NDArray[np.int64]) -> None:
        """Bytes that the wire took: each one's number in the stream of whole frames, or below 0."""
        size = self._frame_bytes
        stream = np.concatenate([self._tail, origin])
        breaks = np.concatenate([[0], np.cumsum(np.diff(stream) != 1)])
        begins = np.flatnonzero((stream >= 0) & (stream % size == 0))
        begins = begins[begins <= len(stream) - size]
        whole = begins[breaks[begins + size - 1] == breaks[begins]]
        # Too short for a whole frame, so no frame is counted twice.
        self._tail = stream[max(0, len(stream) - size + 1) :]
        if len(whole):
            self._delivered.append(stream[whole] // size)
            self.delivered_count += len(whole)
            self._kept += len(whole)
        while self._delivered and self._kept - len(self._delivered[0]) >= len(self._ring):
            self._kept -= len(self._delivered.popleft())

    def delivered(self) -> NDArray[np.int64]:
        """Numbers of the samples whose frames went out whole, in the order of the wire; repeats stand twice."""
        return np.concatenate([np.empty(0, np.int64), *self._delivered])

    def lost(self) -> NDArray[np.int64]:
        """Numbers of kept samples of which no whole frame went out (so far: the last may still be on its way)."""
        oldest = max(0, self.produced - len(self._ring))
        return np.setdiff1d(np.arange(oldest, self.produced), self.delivered())

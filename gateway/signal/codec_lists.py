"""Samples that take few of the values in their range, as after scaling: coded as places in lists of these values.

A list belongs to a channel, is sorted, and grows: the values that a packet is the first to have stand at its beginning.
The model sees places, so the steps between neighbours are 1 whatever the scale was.
"""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.codec_errors import DamagedError, varint, varint_of
from gateway.signal.codec_model import Model, Samples

VALUES_MOST: Final = 4096
"""Of a list."""
PLACE_BITS: Final = 16
LISTED_BITS: Final = 3
"""What a value in a list takes beyond the bits of the step to it."""

Values = list[NDArray[np.int32]]


class Tally:
    """How often each channel takes which values, to tell whether lists are worth it. Gives up at VALUES_MOST."""

    def __init__(self, channels: int) -> None:
        self._values: Values | None = [np.empty(0, np.int32)] * channels
        self._counts: list[NDArray[np.int64]] = [np.empty(0, np.int64)] * channels

    def add(self, samples: Samples) -> None:
        """Counts more rows."""
        if self._values is None or (grown := merged(self._values, samples)) is None:
            self._values = None
            return
        for c, values in enumerate(grown):
            counts = np.bincount(np.searchsorted(values, samples[:, c]), minlength=len(values))
            counts[np.searchsorted(values, self._values[c])] += self._counts[c]
            self._counts[c] = counts
        self._values = grown

    def worth(self) -> bool:
        """Whether places would save more bits than the lists take, roughly: log2 of the step to the next value."""
        if self._values is None:
            return False
        won = 0
        for values, counts in zip(self._values, self._counts, strict=True):
            bits = np.frexp(np.diff(values, append=2 * values[-1:] - values[-2:-1]))[1]
            won += int((counts * (bits - 1) - bits - LISTED_BITS).sum())
        return won > 0


def merged(lists: Values, samples: Samples) -> Values | None:
    """The lists with the values of more samples; None where one would grow too long."""
    grown = [np.union1d(values, samples[:, c]) for c, values in enumerate(lists)]
    return grown if max(map(len, grown)) <= VALUES_MOST else None


class ListedModel:
    """A model of places, with the lists: at most 16 kB a channel more. To be used as `Model` is."""

    def __init__(self, channels: int, width: int) -> None:
        self.channels = channels
        self.width = width
        self._model = Model(channels, PLACE_BITS)
        self._lists: Values = [np.empty(0, np.int32)] * channels

    def encode(self, samples: Samples, limit_bytes: int) -> bytes | None:
        """Returns the payload, or None, and is then of no more use, where it does not fit or a list grows too long."""
        grown = merged(self._lists, samples)
        if grown is None:
            return None
        fresh = [
            np.setdiff1d(more, values, assume_unique=True)
            for more, values in zip(grown, self._lists, strict=True)
        ]
        head = _written(fresh, self.width)
        head = varint(len(head)) + head
        self._take(grown)
        places = [np.searchsorted(values, samples[:, c]) for c, values in enumerate(grown)]
        body = self._model.encode(
            np.stack(places, 1).astype(np.int32), max(0, limit_bytes - len(head))
        )
        return None if body is None else head + body

    def decode(self, payload: bytes, rows: int) -> Samples:
        """Returns the samples of a payload. Raises DamagedError where it can be none."""
        size, at = varint_of(payload, 0)
        if size > len(payload) - at:
            raise DamagedError(f"lists: got {len(payload) - at} bytes, expected {size}")
        fresh = _read(payload[at : at + size], self.channels, rows, self.width)
        grown = [
            np.union1d(values, more).astype(np.int32)
            for values, more in zip(self._lists, fresh, strict=True)
        ]
        if not 1 <= min(map(len, grown)) <= max(map(len, grown)) <= VALUES_MOST:
            raise DamagedError(
                f"lists: got {[len(values) for values in grown]} values, expected 1 to {VALUES_MOST}"
            )
        self._take(grown)
        places = self._model.decode(payload[at + size :], rows)
        most = np.array([len(values) for values in grown])
        if places.min() < 0 or (places >= most).any():
            raise DamagedError("samples: got a place outside of its list, expected one within")
        return np.stack([values[places[:, c]] for c, values in enumerate(grown)], 1)

    def _take(self, grown: Values) -> None:
        self._model.relabel(
            [np.searchsorted(more, old) for more, old in zip(grown, self._lists, strict=True)]
        )
        self._lists = grown


def _written(fresh: Values, width: int) -> bytes:
    """How many values each channel gets, and then these: the first of each channel, and the steps to the others."""
    if not any(map(len, fresh)):
        return b""
    counts = b"".join(varint(len(values)) for values in fresh)
    steps = np.concatenate([np.diff(values, prepend=0) for values in fresh]).astype(np.int32)
    coded = Model(1, width + 2).encode(steps[:, None], 8 + 8 * len(steps))
    if coded is None:
        raise AssertionError("a step takes 8 bytes at most")
    return counts + coded


def _read(part: bytes, channels: int, rows: int, width: int) -> Values:
    """The new values of each channel."""
    if not part:
        return [np.empty(0, np.int32)] * channels
    counts, at = [], 0
    for _ in range(channels):
        count, at = varint_of(part, at)
        if count > min(rows, VALUES_MOST):
            raise DamagedError(f"lists: got {count} new values in {rows} rows, expected no more")
        counts.append(count)
    steps = Model(1, width + 2).decode(part[at:], sum(counts))[:, 0]
    fresh = []
    for values in np.split(steps, np.cumsum(counts)[:-1]):
        if len(values) and values[1:].min(initial=1) < 1:
            raise DamagedError("lists: got a value not above the one before, expected them sorted")
        fresh.append(np.cumsum(values, dtype=np.int64))
    reach = 1 << (width - 1)
    if any(len(values) and not -reach <= values[0] <= values[-1] < reach for values in fresh):
        raise DamagedError(f"lists: got a value outside of {width} bits, expected one within")
    return [values.astype(np.int32) for values in fresh]

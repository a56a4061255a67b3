"""What encoder and decoder of the waveform codec know of a run of samples: the kernels with their memory."""

import numpy as np
from numpy.typing import NDArray

from gateway.signal import codec_kernels as kernels
from gateway.signal import codec_start

Samples = NDArray[np.int32]


class Model:
    """What encoder and decoder know of a run: 0.2 MB for the tables and 3.6 kB a channel. It never grows."""

    def __init__(self, channels: int, width: int, start: codec_start.Start | None = None) -> None:
        self.channels = channels
        self.width = width
        start = start or codec_start.trained()
        self._slots = start.slots.copy()
        self._net = np.concatenate((codec_start.tables(), start.mixers.reshape(-1)))
        kinds = [0] if channels == 1 else [1] + [2] * (channels - 1)
        rows = [*kinds, *range(kernels.KINDS)]  # the channels', and after them the starts
        self._fit = np.zeros((len(rows), kernels.FIT, kernels.TAPS))
        self._fit[:, : kernels.TAPS] = start.spread[rows]
        self._fit[:, kernels.WEIGHT] = start.weights[rows]
        self._stats = np.zeros((channels, kernels.STATS))
        self._stats[:, : kernels.V_SLOW + 1] = kernels.VARIANCE_START
        self._at = np.zeros(kernels.PLACES, np.int64)
        self._tail = np.zeros((kernels.HISTORY, channels), np.int32)

    @property
    def state_bytes(self) -> int:
        """What is remembered from one packet to the next."""
        arrays = (self._slots, self._net, self._fit, self._stats, self._at, self._tail)
        return sum(array.nbytes for array in arrays)

    def encode(self, samples: Samples, limit_bytes: int) -> bytes | None:
        """Returns the payload, or None where it would take more than the limit. Learns from the samples in any case."""
        out = np.empty(limit_bytes, np.uint8)
        size = self._run(samples, out, decode=0)
        low, high = int(self._at[kernels.LOW]), int(self._at[kernels.HIGH])
        # The fewest bytes that lie in the interval when zeros follow them.
        more = next(n for n in range(5) if high >> (32 - 8 * n) << (32 - 8 * n) >= low)
        tail = high.to_bytes(4, "big")[:more]
        return out[:size].tobytes() + tail if size + len(tail) <= limit_bytes else None

    def decode(self, payload: bytes, rows: int) -> Samples:
        """Returns the samples of a payload; of any other bytes, any samples."""
        data = np.frombuffer(bytearray(payload), np.uint8)
        samples = np.zeros((rows, self.channels), np.int32)
        self._run(samples, data, decode=1)
        return samples

    def relabel(self, places: list[NDArray[np.intp]]) -> None:
        """Puts another number in the place of each sample that is remembered: that which `places` has for it."""
        for c, place in enumerate(places):
            if place.size:
                self._tail[:, c] = place[self._tail[:, c]]

    def _run(self, samples: Samples, data: NDArray[np.uint8], decode: int) -> int:
        buffer = np.concatenate((self._tail, samples))
        end = kernels.codec_run(
            decode,
            self.width,
            buffer,
            self._fit,
            self._stats,
            self._at,
            self._slots,
            self._net,
            data,
        )
        samples[:] = buffer[kernels.HISTORY :]
        self._tail = buffer[-kernels.HISTORY :].copy()
        return end

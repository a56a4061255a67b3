"""RR intervals and heart rate from beat positions of one run without a gap."""

from typing import Final

import numpy as np
from numpy.typing import NDArray

from gateway.signal.jit import kernel

NS_PER_S: Final = 1_000_000_000
NS_PER_MINUTE: Final = 60 * NS_PER_S

RATE_INTERVALS: Final = 8
"""The heart rate is 60 s over the median of so many last intervals: one missed or false beat does not move it."""
RATE_LEAST_INTERVALS: Final = 4
"""With fewer the heart rate is unknown."""
RATE_SILENCE_NS: Final = 4 * NS_PER_S
"""So long after the last beat the heart rate is unknown: what comes next is a pause or a lost electrode, and a
number from before it must not stand for it."""


def rr_intervals_ns(
    index: NDArray[np.float64], rate_hz: float, last_index: float | None = None
) -> NDArray[np.int64]:
    """The times between neighbouring beats in ns, rounded to the nearest.

    Args:
        index: beat positions in samples, ascending, all of one run.
        rate_hz: sample rate.
        last_index: the last beat before them in the same run, None at the start of a run.
    """
    ahead = index if last_index is None else np.concatenate(([last_index], index))
    intervals: NDArray[np.int64] = np.rint(np.diff(ahead) * (NS_PER_S / rate_hz)).astype(np.int64)
    return intervals


@kernel("float64(int64[::1])")
def median_rate(rr_ns: NDArray[np.int64]) -> float:
    """Beats per minute of the median of all intervals, which are at most RATE_INTERVALS; NaN when there are none."""
    count = min(rr_ns.size, RATE_INTERVALS)
    if count == 0:
        return np.nan
    ordered = np.sort(rr_ns[rr_ns.size - count :])
    twice = ordered[(count - 1) // 2] + ordered[count // 2]
    return 2.0 * NS_PER_MINUTE / twice if twice > 0 else np.nan


def heart_rate_bpm(rr_ns: NDArray[np.int64], silence_ns: int = 0) -> float | None:
    """60 s over the median of the last 8 RR intervals; None (unknown) with fewer than 4, or after 4 s of silence.

    Args:
        rr_ns: intervals of one run in order of time; what lies before a gap must not be among them.
        silence_ns: time since the last beat.
    """
    if rr_ns.size < RATE_LEAST_INTERVALS or silence_ns > RATE_SILENCE_NS:
        return None
    return median_rate(np.ascontiguousarray(rr_ns))

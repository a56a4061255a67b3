"""Respiration rate from the beats of an ECG or of a pulse wave: the respiration kernels with their memory."""

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gateway.signal import respiration

Floats = NDArray[np.float64]

BLOCK: Final = 256
"""Beats of one kernel call: bounds the output buffer."""


@dataclass(frozen=True, slots=True, eq=False)
class Breaths:
    """Respiration rates in order of time, one each 4 s: arrays of one length.

    Attributes:
        time_s: end of the 32 s that a value tells of.
        rate_bpm: breaths a minute; NaN is unknown.
        quality: the part of the spectrum's power that its peak holds, 0 to 1.
    """

    time_s: Floats
    rate_bpm: Floats
    quality: Floats

    def __len__(self) -> int:
        return len(self.time_s)


class RespirationStream:
    """Follows the breathing in a series of beats. Any cutting of the series gives the same, bit for bit."""

    def __init__(self, leads: int) -> None:
        """`leads`: the modulation that counts most: `respiration.BASELINE` of a pulse wave, `AMPLITUDE` of an ECG."""
        if leads not in {respiration.BASELINE, respiration.AMPLITUDE, respiration.INTERVAL}:
            raise ValueError(f"leading modulation {leads}: expected 0, 1 or 2")
        self._leads = leads
        self._state = np.empty(respiration.STATE_SIZE)
        most = respiration.GAP_S * respiration.GRID_HZ / respiration.STEP + 1
        self._rows = np.empty((int(BLOCK * most) + 1, respiration.COLUMNS))
        self.reset()

    @property
    def state_bytes(self) -> int:
        """What is remembered from one call to the next. It never grows."""
        return self._state.nbytes

    def reset(self) -> None:
        """Forgets everything: a new run."""
        self._state[:] = 0.0
        self._state[respiration.LEADS] = self._leads
        self._state[respiration.LAST] = -math.inf

    def process(
        self, time_s: ArrayLike, baseline: ArrayLike, amplitude: ArrayLike, interval_s: ArrayLike
    ) -> Breaths:
        """Takes the next beats of the run, and returns the values that they complete.

        Args:
            time_s: when each beat was, ascending. Beats of bad quality are left out before.
            baseline: level of the signal at the beat: `Pulses.level`; zeros where there is none.
            amplitude: height of the beat: `Pulses.height`, or of the R peak.
            interval_s: time since the beat before. A beat with a NaN among its values is passed over.
        """
        columns = [np.asarray(one, np.float64) for one in (time_s, baseline, amplitude, interval_s)]
        if len({column.shape for column in columns}) != 1:
            raise ValueError(
                f"columns of {[column.size for column in columns]} beats: expected as many in each"
            )
        beats = np.ascontiguousarray(np.stack(columns, axis=1))
        parts = []
        for at in range(0, max(1, len(beats)), BLOCK):
            count = respiration.resp_process(beats[at : at + BLOCK], self._state, self._rows)
            parts.append(self._rows[:count].copy())
        return Breaths(*np.concatenate(parts).T.copy())

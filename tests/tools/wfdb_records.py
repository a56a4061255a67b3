"""WFDB records with known beats, written where a test wants them."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tests.gateway.signal.synthetic import ecg
from tools.signal_bench.records import wfdb

RATE_HZ = 250


def write_record(
    folder: Path,
    name: str,
    beats_s: NDArray[np.float64],
    seconds: float,
    *,
    spans_s: Sequence[tuple[float, float]] = (),
    extension: str = "atr",
) -> Path:
    """Two leads, the second upside down, with a reference of N beats and of flutter episodes."""
    x = np.rint(ecg(beats_s, seconds, RATE_HZ)).astype(np.int64)
    wfdb().wrsamp(
        name,
        fs=RATE_HZ,
        units=["mV", "mV"],
        sig_name=["I", "II"],
        d_signal=np.stack([x, -x], axis=1),
        fmt=["16", "16"],
        adc_gain=[1000.0, 1000.0],
        baseline=[0, 0],
        write_dir=str(folder),
    )
    marks = [(round(at * RATE_HZ), "N") for at in beats_s.tolist()]
    for begin, end in spans_s:
        marks += [(round(begin * RATE_HZ), "["), (round(end * RATE_HZ), "]")]
    write_annotations(folder / name, marks, extension)
    return folder / name


def write_annotations(name: Path, marks: list[tuple[int, str]], extension: str) -> None:
    """Marks as (sample number, code)."""
    marks = sorted(marks)
    wfdb().wrann(
        name.name,
        extension,
        sample=np.array([at for at, _ in marks]),
        symbol=[code for _, code in marks],
        fs=RATE_HZ,
        write_dir=str(name.parent),
    )

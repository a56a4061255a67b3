"""QRS detectors under one roof: ours as a stream, the peers as their documentation has them, on the whole record."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.signal.ecg import EcgStream
from tools.signal_bench.records import Floats, Record, wfdb

OURS = "wardlink"
PIECE_S = 10

Samples = NDArray[Any]


class NotInstalledError(Exception):
    """A peer's package is absent. Says which, and how to get it."""


@dataclass(frozen=True, slots=True)
class Detector:
    """One detector. What `prepare` returns is what `find` gets: conversions stay outside the time.

    `find` takes samples and their rate in Hz, and returns beats in samples.
    """

    package: str
    prepare: Callable[[Record], Samples]
    find: Callable[[Samples, float], Floats]


def peer(module: str) -> Any:
    """A peer's module, imported when it is first needed: some take seconds.

    Raises:
        NotInstalledError: absent.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return import_module(module)
    except ModuleNotFoundError as fault:
        raise NotInstalledError(
            f"{module}: package {fault.name} is not installed, expected the group `bench`; run it as `make bench` does"
        ) from fault


def counts(record: Record) -> Samples:
    """As a device sends them."""
    return record.counts


def millivolts(record: Record) -> Samples:
    """As the peers expect them."""
    return record.millivolts


def ours(x: Samples, rate_hz: float) -> Floats:
    """The whole record in one call."""
    stream = EcgStream(rate_hz)
    return np.concatenate([stream.process(x).index, stream.flush().index])


def sleepecg(x: Samples, rate_hz: float) -> Floats:
    """The backend of sleepecg."""
    found = peer("sleepecg").detect_heartbeats(x, rate_hz, backend="c")
    return np.asarray(found, np.float64)


def neurokit(method: str) -> Callable[[Samples, float], Floats]:
    """NeuroKit2: its own cleaning for the method, then its own detection, as in `ecg_process`."""

    def find(x: Samples, rate_hz: float) -> Floats:
        package = peer("neurokit2")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            clean = package.ecg_clean(x, sampling_rate=rate_hz, method=method)
            info = package.ecg_findpeaks(clean, sampling_rate=rate_hz, method=method)
        return np.asarray(info["ECG_R_Peaks"], np.float64)

    return find


def gqrs(x: Samples, rate_hz: float) -> Floats:
    """The gqrs of wfdb, with the constants of its default configuration for this rate."""
    found = wfdb("wfdb.processing").gqrs_detect(sig=x, fs=rate_hz)
    return np.asarray(found, np.float64)


def xqrs(x: Samples, rate_hz: float) -> Floats:
    """The xqrs of wfdb."""
    found = wfdb("wfdb.processing").xqrs_detect(sig=x, fs=rate_hz, verbose=False)
    return np.asarray(found, np.float64)


def fast_qrs(x: Samples, rate_hz: float) -> Floats:
    """fast-qrs-detector."""
    found = peer("fast_qrs_detector").qrs_detector(x, rate_hz)
    return np.asarray(found, np.float64)


def in_pieces(find: Callable[[Samples, float], Floats]) -> Callable[[Samples, float], Floats]:
    """A peer as one would have to use it on a stream: piece by piece, of 10 s each, the last one longer."""

    def pieces(x: Samples, rate_hz: float) -> Floats:
        step = round(PIECE_S * rate_hz)
        starts = range(0, max(1, len(x) - step + 1), step)
        parts = [
            find(x[at : at + step] if at + 2 * step <= len(x) else x[at:], rate_hz) + at
            for at in starts
        ]
        return np.concatenate(parts)

    return pieces


DETECTORS: dict[str, Detector] = {
    OURS: Detector("wardlink", counts, ours),
    "sleepecg": Detector("sleepecg", millivolts, sleepecg),
    "sleepecg, 10 s pieces": Detector("sleepecg", millivolts, in_pieces(sleepecg)),
    "nk pantompkins1985": Detector("neurokit2", millivolts, neurokit("pantompkins1985")),
    "nk kalidas2017": Detector("neurokit2", millivolts, neurokit("kalidas2017")),
    "wfdb gqrs": Detector("wfdb", millivolts, gqrs),
    "wfdb xqrs": Detector("wfdb", millivolts, xqrs),
    "fast-qrs": Detector("fast-qrs-detector", millivolts, fast_qrs),
}
"""By the name in the tables."""

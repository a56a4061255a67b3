"""Runs every stream on made-up signals, and notes what each kernel was given and what it gave: a program.

Started once for each way of running the kernels (tests/gateway/signal/test_ways.py), it prints what it noted; equal
notes are equal bits. `--mdwe` first forbids this process, as a unit of systemd does, ever to make memory executable
that it could write to. A new stream gets a function and a row of SCENARIOS.
"""

import ctypes
import errno
import hashlib
import importlib
import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.gateway.signal import synthetic_ppg
from tests.gateway.signal.synthetic import ecg, noisy, rhythm

Floats = NDArray[np.float64]

PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN = 65, 1


def pieces(x: Floats, rng: np.random.Generator) -> list[Floats]:
    """A signal cut as packets cut it: none, a few, or many samples at a time."""
    return np.split(x, np.sort(rng.integers(0, x.size, x.size // 50)))


def ecg_stream() -> None:
    from gateway.signal.ecg import EcgLeads, EcgStream

    rng = np.random.default_rng(1)
    for rate_hz in (60.0, 125.0, 360.0, 1000.0):
        signal = noisy(ecg(rhythm(60, 0.8, rng, 0.2), 60, rate_hz), 30, rate_hz, rng)
        signal[rng.integers(0, signal.size, 5)] = np.nan, np.inf, -np.inf, 1e300, -(2.0**41)
        signal[signal.size // 3 : signal.size // 2] = rng.normal(
            0, 300, signal.size // 2 - signal.size // 3
        )
        signal[-signal.size // 6 :] = np.clip(signal[-signal.size // 6 :], -100, 100)
        stream = EcgStream(rate_hz)
        for piece in (*pieces(signal, rng), np.zeros(round(8 * rate_hz)), signal):
            stream.process(piece)
        stream.flush()
        stream.flush()
        together = EcgLeads(rate_hz, 2)
        together.process(np.stack([signal, signal[::-1]], 1))
        together.flush()


def lead_streams() -> None:
    from gateway.signal.leads import CleanStream, QualityStream

    rng = np.random.default_rng(3)
    for rate_hz, limits in (
        (60.0, None),
        (125.0, (-2000.0, 2000.0)),
        (360.0, None),
        (1000.0, None),
    ):
        signal = noisy(ecg(rhythm(30, 0.8, rng, 0.2), 30, rate_hz), 60, rate_hz, rng)
        signal[rng.integers(0, signal.size, 5)] = np.nan, np.inf, -np.inf, 1e300, -(2.0**41)
        signal[signal.size // 2 :] = np.clip(signal[signal.size // 2 :], -700, 700)
        signal[-round(3 * rate_hz) :] = 0.0
        leads = np.stack([signal, signal[::-1]], 1)
        for stream in (CleanStream(rate_hz, 2), QualityStream(rate_hz, 2, limits)):
            for first in range(0, len(leads), round(0.3 * rate_hz)):
                stream.process(leads[first : first + round(0.3 * rate_hz)])
            stream.process(leads)


def pulse(rate_hz: float, rng: np.random.Generator) -> Floats:
    """Two minutes of a pulse wave: whole, and with what no converter should send, noise, limits and a flat line."""
    truth = synthetic_ppg.rhythm(60, 0.8, rng, 0.2)
    wave = synthetic_ppg.noisy(synthetic_ppg.pleth(truth, 60, rate_hz), 5, rate_hz, rng)
    broken, third = wave.copy(), wave.size // 3
    broken[rng.integers(0, wave.size, 5)] = np.nan, np.inf, -np.inf, 1e300, -(2.0**41)
    broken[third : third + third // 2] += rng.normal(0, 300, third // 2)
    broken[-third:] = np.clip(broken[-third:], -100, 100)
    return np.concatenate([wave, broken, np.zeros(round(8 * rate_hz)), wave])


def pleth_streams() -> None:
    from gateway.signal.pleth import PlethMonitor, PlethStream

    rng = np.random.default_rng(5)
    for rate_hz, inverted in ((25.0, False), (125.0, True), (1000.0, False)):
        wave = pulse(rate_hz, rng)
        for stream in (
            PlethStream(rate_hz, inverted=inverted),
            PlethMonitor(rate_hz, inverted=inverted, rails=(-2000.0, 2000.0)),
        ):
            for piece in pieces(wave, rng):
                stream.process(-piece if inverted else piece)
            stream.flush()
            stream.flush()


def red_infrared() -> None:
    from gateway.signal.oximetry import RedInfrared

    rng = np.random.default_rng(6)
    for rate_hz in (25.0, 125.0, 1000.0):
        wave = pulse(rate_hz, rng)
        stream = RedInfrared(rate_hz, rails=(0.0, 2.0**22))
        for piece in pieces(wave, rng):
            stream.process(60_000 - 0.6 * piece, 80_000 - piece)


def desaturations() -> None:
    from gateway.signal.oximetry import Desaturations

    finder = Desaturations()
    for second in range(300):
        finder.process(float(second), 97.0 if second < 200 else 90.0)
    finder.flush()


def breathing() -> None:
    from gateway.signal import respiration
    from gateway.signal.breathing import RespirationStream

    rng = np.random.default_rng(7)
    for leads in (respiration.BASELINE, respiration.AMPLITUDE, respiration.INTERVAL):
        stream = RespirationStream(leads)
        interval_s = rng.uniform(0.6, 1.0, 300)
        time_s = np.cumsum(interval_s)
        breath = np.sin(2 * np.pi * 0.25 * time_s)
        interval_s[50], time_s[200:] = np.nan, time_s[200:] + 30
        beats = np.stack([time_s, 50 * breath, 1000 + 80 * breath, interval_s], axis=1)
        for piece in np.split(beats, (0, 1, 7, 40, 160)):
            stream.process(*piece.T)


def heart_rate() -> None:
    from gateway.signal.rate import heart_rate_bpm, rr_intervals_ns

    rng = np.random.default_rng(2)
    for size in range(40):
        heart_rate_bpm(rr_intervals_ns(np.cumsum(rng.uniform(0, 300, size)), 125.0))
    for size in (4, 8):
        heart_rate_bpm(np.zeros(size, np.int64))


def codec() -> None:
    from gateway.signal import codec
    from tests.gateway.signal import codec_signals as signals

    for width, samples in (
        (16, signals.beats(720, 1)),
        (16, signals.limb_leads(150)),
        (16, signals.scaled(600, 2, 1)),
        (16, signals.noise(100, 2, 1)),
        (24, signals.edges(500, 3, 1, 24)),
    ):
        codec.decode_block(codec.encode_block(samples, width))
        encoder, decoder = codec.Encoder(samples.shape[1], width, 5), codec.Decoder()
        for piece in np.array_split(samples, 12):
            decoder.decode(encoder.encode(piece))
    model = codec.Model(2, 16)
    model._fit[:2] = np.nan
    model.encode(signals.beats(50, 2), 1000)


SCENARIOS: dict[str, Callable[[], None]] = {
    "gateway.signal.codec": codec,
    "gateway.signal.ecg.EcgLeads": ecg_stream,
    "gateway.signal.ecg.EcgStream": ecg_stream,
    "gateway.signal.leads.CleanStream": lead_streams,
    "gateway.signal.leads.QualityStream": lead_streams,
    "gateway.signal.breathing.RespirationStream": breathing,
    "gateway.signal.oximetry.Desaturations": desaturations,
    "gateway.signal.oximetry.RedInfrared": red_infrared,
    "gateway.signal.pleth.PlethMonitor": pleth_streams,
    "gateway.signal.pleth.PlethStream": pleth_streams,
    "gateway.signal.rate": heart_rate,
}
"""What stands in for every stream (a class with a method `process`), and for kernels without one."""


class Notes:
    """What went into each kernel and what came out, as one hash for each."""

    def __init__(self) -> None:
        self.calls: dict[str, int] = {}
        self._hashes: dict[str, Any] = {}

    def watch(self, kernels: dict[str, Any]) -> None:
        """Puts itself before each kernel, wherever a module of ours has a name for it."""
        by_identity = {id(kernel.run): name for name, kernel in kernels.items()}
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith("gateway."):
                for attribute, value in list(vars(module).items()):
                    if id(value) in by_identity:
                        setattr(module, attribute, self._noting(by_identity[id(value)], value))

    def _noting(self, name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*values: Any) -> Any:
            self._note(name, values)
            result = run(*values)
            self._note(name, (*values, result))
            self.calls[name] = self.calls.get(name, 0) + 1
            return result

        return noted

    def _note(self, name: str, values: tuple[Any, ...]) -> None:
        total = self._hashes.setdefault(name, hashlib.sha256())
        for value in values:
            if value is None:
                continue
            array = np.asarray(value)
            total.update(f"{array.dtype}{array.shape}".encode() + array.tobytes())

    def digests(self) -> dict[str, str]:
        """The hash of each kernel that was called."""
        return {name: total.hexdigest() for name, total in sorted(self._hashes.items())}


def forbid_new_code() -> bool:
    """False where the kernel (before 6.3) knows no such thing."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0:
        return True
    number = ctypes.get_errno()
    if number != errno.EINVAL:
        raise OSError(number, "prctl(PR_SET_MDWE)")
    return False


def compilations() -> Callable[[], int]:
    """Counts from now on what numba compiles; 0 where there is no numba."""
    if "numba" not in sys.modules:
        return lambda: 0
    event = importlib.import_module("numba.core.event")
    listener = event.RecordingListener()
    event.register("numba:compile", listener)
    return lambda: len(listener.buffer)


def main() -> int:
    mdwe = "--mdwe" in sys.argv and forbid_new_code()
    from gateway.signal import jit

    kernels = dict(jit.all_kernels())
    # What a kernel leaves alone of a buffer is noted too: it must be the same everywhere. Not before they are compiled:
    # numba would build its np.zeros of what it finds here, and keep kernels in its cache whose zeros are not zero.
    vars(np).update(empty=np.zeros, empty_like=np.zeros_like)
    notes = Notes()
    notes.watch(kernels)
    count = compilations()
    for run in dict.fromkeys(SCENARIOS.values()):
        run()
    print(
        json.dumps(
            {
                "implementation": jit.IMPLEMENTATION,
                "place": str(jit.HERE),
                "mdwe": mdwe,
                "numba": "numba" in sys.modules,
                "compiled_late": count(),
                "calls": notes.calls,
                "digests": notes.digests(),
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Second-order sections in closed form (bilinear transform with pre-warping, Butterworth damping).

Coefficients are (b0, b1, b2, a1, a2) of

    y[n] = b0 x[n] + b1 x[n-1] + b2 x[n-2] - a1 y[n-1] - a2 y[n-2]

run in direct form I: its only feedback is two products long, and it holds no hidden scale.
"""

import math

Section = tuple[float, float, float, float, float]

BUTTERWORTH_Q = math.sqrt(0.5)


def low_pass(cut_hz: float, rate_hz: float) -> Section:
    """Butterworth low-pass: gain 1 at 0 Hz, -3 dB at `cut_hz`."""
    cosine, alpha = _prototype(cut_hz, rate_hz)
    return _normalise((1 - cosine) / 2, 1 - cosine, cosine, alpha)


def high_pass(cut_hz: float, rate_hz: float) -> Section:
    """Butterworth high-pass: gain 0 at 0 Hz, 1 at half the rate, -3 dB at `cut_hz`."""
    cosine, alpha = _prototype(cut_hz, rate_hz)
    return _normalise((1 + cosine) / 2, -(1 + cosine), cosine, alpha)


def notch(at_hz: float, q: float, rate_hz: float) -> Section:
    """Gain 0 at `at_hz`, 1 far from it, -3 dB at a distance of `at_hz` / (2 q)."""
    cosine, alpha = _prototype(at_hz, rate_hz, q)
    return _normalise(1.0, -2 * cosine, cosine, alpha)


def low_pass_delay_s(cut_hz: float) -> float:
    """How late the low-pass gives slow shapes: its group delay at 0 Hz, 1 / (Q omega)."""
    return 1 / (BUTTERWORTH_Q * 2 * math.pi * cut_hz)


def _prototype(cut_hz: float, rate_hz: float, q: float = BUTTERWORTH_Q) -> tuple[float, float]:
    if not 0 < cut_hz < rate_hz / 2:
        raise ValueError(
            f"cut-off {cut_hz} Hz: expected above 0 and below half of {rate_hz} samples/s"
        )
    omega = 2 * math.pi * cut_hz / rate_hz
    return math.cos(omega), math.sin(omega) / (2 * q)


def _normalise(outer: float, middle: float, cosine: float, alpha: float) -> Section:
    scale = 1 / (1 + alpha)
    return (
        outer * scale,
        middle * scale,
        outer * scale,
        -2 * cosine * scale,
        (1 - alpha) * scale,
    )

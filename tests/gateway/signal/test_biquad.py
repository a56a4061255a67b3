import cmath
import math

import numpy as np
import pytest

from gateway.signal.biquad import Section, high_pass, low_pass, low_pass_delay_s
from tests.naive.qrs import section


def gain(coefficients: Section, frequency_hz: float, rate_hz: float) -> float:
    b0, b1, b2, a1, a2 = coefficients
    z = cmath.exp(-2j * math.pi * frequency_hz / rate_hz)
    return abs((b0 + b1 * z + b2 * z * z) / (1 + a1 * z + a2 * z * z))


@pytest.mark.parametrize("rate_hz", [60.0, 125.0, 1000.0])
@pytest.mark.parametrize("cut_hz", [0.5, 8.0, 20.0])
def test_gains_at_the_ends_and_at_the_cut_off(cut_hz: float, rate_hz: float) -> None:
    low, high = low_pass(cut_hz, rate_hz), high_pass(cut_hz, rate_hz)
    assert gain(low, 0, rate_hz) == pytest.approx(1)
    assert gain(high, rate_hz / 2, rate_hz) == pytest.approx(1)
    assert gain(low, rate_hz / 2, rate_hz) == pytest.approx(0, abs=1e-9)
    assert gain(high, 0, rate_hz) == pytest.approx(0, abs=1e-6)
    assert gain(low, cut_hz, rate_hz) == pytest.approx(math.sqrt(0.5))
    assert gain(high, cut_hz, rate_hz) == pytest.approx(math.sqrt(0.5))


def test_known_coefficients() -> None:
    """Butterworth, order 2, cut-off at a quarter of the rate: the textbook (1 + z)^2 / (3.414 + 0.586 z^2)."""
    expected = (1 / (2 + math.sqrt(2)), 2 / (2 + math.sqrt(2)), 1 / (2 + math.sqrt(2)))
    np.testing.assert_allclose(low_pass(25, 100)[:3], expected, rtol=1e-12)
    np.testing.assert_allclose(low_pass(25, 100)[3:], (0, 3 - 2 * math.sqrt(2)), atol=1e-12)


def test_the_delay_of_a_slow_ramp() -> None:
    rate_hz = 500.0
    ramp = np.arange(1000.0)
    late = (ramp - section(low_pass(20, rate_hz), ramp))[-1] / rate_hz
    assert late == pytest.approx(low_pass_delay_s(20), rel=0.01)


@pytest.mark.parametrize("cut_hz", [0, -1, 50, 60, float("nan")])
def test_refuses_a_cut_off_out_of_range(cut_hz: float) -> None:
    with pytest.raises(ValueError, match="below half of 100"):
        low_pass(cut_hz, 100)

"""The noise stress test against its definition: what is added, when, how much, and without a step."""

import math

import numpy as np
import pytest

from tools.signal_bench.noise import gain, noise_size, noise_test, noisy_spans, qrs_size
from tools.signal_bench.records import Floats, Record

RATE_HZ = 100.0


def record(seconds: float, *, size: float = 80.0, codes: str = "N") -> Record:
    """A triangle of `size` counts each second, on a baseline of 1000 counts."""
    x = np.full(round(seconds * RATE_HZ), 1000.0)
    beats = np.arange(1, int(seconds) - 1, dtype=np.float64)
    for k in (beats * RATE_HZ).astype(int):
        x[k - 3 : k + 4] += size * np.array([0.25, 0.5, 0.75, 1.0, 0.75, 0.5, 0.25])
    named = tuple(codes[k % len(codes)] for k in range(len(beats)))
    return Record("made", RATE_HZ, x, 200.0, 1000.0, beats, named, ())


def hum(seconds: float, rms: float) -> Floats:
    """Ten hertz: whole periods in each second."""
    t = np.arange(round(seconds * RATE_HZ)) / RATE_HZ
    return np.asarray(rms * math.sqrt(2) * np.sin(2 * np.pi * 10 * t + 0.3))


def test_five_minutes_clean_then_two_and_two() -> None:
    assert noisy_spans(1000) == ((300, 420), (540, 660), (780, 900))
    assert noisy_spans(350) == ((300, 350),)
    assert noisy_spans(300) == ()


def test_the_two_sizes() -> None:
    assert qrs_size(record(400)) == 80
    assert noise_size(hum(400, 7.0), RATE_HZ) == pytest.approx(7.0)


def test_a_twentieth_at_either_end_counts_for_nothing() -> None:
    """Each twentieth beat is ten times as high, each twentieth second ten times as loud: no size changes."""
    made = record(400)
    for k in (made.beats_s[::20] * RATE_HZ).astype(int):
        made.counts[k] += 10_000
    assert qrs_size(made) == pytest.approx(80)
    noise = hum(400, 7.0)
    for second in range(0, 400, 20):
        noise[second * 100 : second * 100 + 100] *= 10
    assert noise_size(noise, RATE_HZ) == pytest.approx(7.0)


def test_ectopic_beats_do_not_set_the_size() -> None:
    made = record(400, codes="VN")
    for k in (made.beats_s[::2] * RATE_HZ).astype(int):
        made.counts[k] += 500
    assert qrs_size(made) == 80
    with pytest.raises(ValueError, match="got no normal beat"):
        qrs_size(record(400, codes="V"))


@pytest.mark.parametrize("snr_db", [12.0, 6.0, 0.0, -6.0])
def test_the_ratio_is_that_of_the_definition(snr_db: float) -> None:
    """By hand: a complex of 80 counts has a power of 80 * 80 / 8 = 800; the noise's power is 49."""
    made, noise = record(400), hum(400, 7.0)
    added = gain(made, noise, snr_db) * 7.0
    assert 10 * math.log10(800 / added**2) == pytest.approx(snr_db)


def test_noise_is_where_the_protocol_has_it_and_comes_without_a_step() -> None:
    """The noise has an offset that is far greater than itself: it must not show."""
    made, noise = record(700), 5000 + hum(700, 20.0)
    added = noise_test(made, noise, 6.0) - made.counts
    on = np.zeros(len(added), np.bool_)
    for begin, end in noisy_spans(700):
        on[round(begin * RATE_HZ) : round(end * RATE_HZ)] = True
    scale = gain(made, noise, 6.0)
    assert not added[: 300 * 100].any()
    edges = np.flatnonzero(np.diff(on)) + 1
    for begin, end in zip([0, *edges], [*edges, len(on)], strict=True):
        spread = added[begin:end].std()
        assert spread == pytest.approx(scale * 20 if on[begin] else 0, abs=0.5)
    wanted = np.where(on[1:], np.diff(scale * noise), 0.0)
    np.testing.assert_allclose(np.diff(added), wanted, atol=1.0)  # both ends are rounded
    assert np.abs(wanted[edges[on[edges]] - 1]).max() > 2


def test_noise_that_is_shorter_than_the_record_begins_again() -> None:
    made = record(700)
    assert np.array_equal(
        noise_test(made, hum(100, 9.0), 6.0), noise_test(made, np.tile(hum(100, 9.0), 7), 6.0)
    )

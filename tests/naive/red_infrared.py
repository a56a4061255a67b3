"""The ratio of ratios again, over a whole recording at once, from the definition of a regression."""

import math

import numpy as np
from numpy.typing import NDArray

from gateway.signal import biquad
from gateway.signal import red_infrared as kernel
from tests.naive.qrs import section

Floats = NDArray[np.float64]


def pulsation(light: Floats, rate_hz: float) -> Floats:
    low = section(biquad.low_pass(kernel.LOW_HZ, rate_hz), light - light[0])
    return section(biquad.high_pass(kernel.HIGH_HZ, rate_hz), low)


def ratios(
    red: Floats,
    infrared: Floats,
    rate_hz: float,
    rails: tuple[float, float] = (-math.inf, math.inf),
) -> list[tuple[float, ...]]:
    """(second, R, correlation, red %, infrared %) of each whole second. Samples that are no numbers are left out."""
    stride = max(1, round(rate_hz / kernel.INNER_HZ))
    usable = np.array(
        [abs(a) < 2.0**40 and abs(b) < 2.0**40 for a, b in zip(red, infrared, strict=True)]
    )
    at_rail = usable & (
        (np.minimum(red, infrared) <= rails[0]) | (np.maximum(red, infrared) >= rails[1])
    )
    good = np.flatnonzero(usable)
    places = good[: len(good) // stride * stride].reshape(-1, stride)
    known = places[:, -1]  # an inner sample belongs to the second in which its last part came
    means = [light[places].mean(axis=1) for light in (red, infrared)]
    first = good[0]
    waves = [
        pulsation(np.concatenate(([light[first]], mean)), rate_hz / stride)[1:]
        for light, mean in zip((red, infrared), means, strict=True)
    ]
    rows: list[tuple[float, ...]] = []
    settling = kernel.SETTLE
    held: list[NDArray[np.bool_]] = []
    for second in range(math.floor(len(red) / rate_hz)):
        begin, end = math.ceil(second * rate_hz), math.ceil((second + 1) * rate_hz)
        if (~usable[begin:end] | at_rail[begin:end]).any():
            settling, held = kernel.SETTLE, []
        elif settling:
            settling -= 1
        else:
            held = [*held, (known >= begin) & (known < end)][-kernel.WINDOW :]
        rows.append((second, *window(held, means, waves)))
    return rows


def window(held: list[NDArray[np.bool_]], means: list[Floats], waves: list[Floats]) -> list[float]:
    if len(held) < kernel.WINDOW:
        return [math.nan] * 4
    inside = np.logical_or.reduce(held)
    red, infrared = (wave[inside] for wave in waves)
    level_red, level_infrared = (mean[inside].mean() for mean in means)
    squares = (red @ red, infrared @ infrared)
    if min(*squares, level_red, level_infrared) <= 0:
        return [math.nan] * 4
    slope = (red @ infrared) / squares[1]
    return [
        slope / (level_red / level_infrared),
        (red @ infrared) / math.sqrt(squares[0] * squares[1]),
        100 * math.sqrt(squares[0] / len(red)) / level_red,
        100 * math.sqrt(squares[1] / len(red)) / level_infrared,
    ]

"""Signals made of integers alone, so that they are the same everywhere and for ever."""

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[np.int32]


class Dice:
    """A linear congruential generator (the constants of Knuth's MMIX)."""

    def __init__(self, seed: int) -> None:
        self._state = seed

    def below(self, count: int) -> int:
        self._state = (self._state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self._state >> 33) % count


def beats(rows: int, channels: int, seed: int = 1, scale: int = 1) -> Samples:
    """Something like an ECG: steep triangles over a slow wave, a little noise; the channels differ in size."""
    dice = Dice(seed)
    out = np.zeros((rows, channels), np.int32)
    for t in range(rows):
        phase = t % 250
        spike = 60 * max(0, 8 - abs(phase - 60)) - 15 * max(0, 8 - abs(phase - 72))
        wave = 4 * max(0, 30 - abs(phase - 140)) + (t % 900) // 30
        for c in range(channels):
            noise = dice.below(7) + dice.below(7) - 6
            out[t, c] = scale * (((spike + wave) * (4 - c % 4)) // 4 + noise)
    return out


def noise(rows: int, channels: int, seed: int, width: int = 16) -> Samples:
    """White over the whole range."""
    dice = Dice(seed)
    values = [dice.below(1 << width) - (1 << (width - 1)) for _ in range(rows * channels)]
    return np.array(values, np.int32).reshape(rows, channels)


def edges(rows: int, channels: int, seed: int, width: int = 16) -> Samples:
    """Flat, jumps between the ends of the range, saturation, steps."""
    dice = Dice(seed)
    least, most = -(1 << (width - 1)), (1 << (width - 1)) - 1
    out = np.zeros((rows, channels), np.int32)
    for c in range(channels):
        value = 0
        for t in range(rows):
            if dice.below(12) == 0:
                value = (least, most, 0, value // 2, dice.below(100))[dice.below(5)]
            out[t, c] = value
    return out


def limb_leads(rows: int) -> Samples:
    """Six limb leads, of which four follow from two, and six others."""
    first, second = beats(rows, 2, 5).T
    derived = [second - first, -(first + second) // 2, first - second // 2, second - first // 2]
    others = beats(rows, 6, 9).T
    return np.stack([first, second, *derived, *others], 1).astype(np.int32)


def scaled(rows: int, channels: int, seed: int, step: int = 37) -> Samples:
    """Few values of many: made larger after it was digitised, with an offset."""
    return (beats(rows, channels, seed) * step - 11).astype(np.int32)

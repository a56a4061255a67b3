"""The QRS detector again, over a whole recording at once.

Filters by their definition, sums added up afresh, the decisions as a list of candidates that is walked through.
Its constants are those of the kernel.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.signal import biquad, qrs

Floats = NDArray[np.float64]


def section(coefficients: biquad.Section, x: Floats) -> Floats:
    """y[n] = b0 x[n] + b1 x[n-1] + b2 x[n-2] - a1 y[n-1] - a2 y[n-2], at rest before the first sample."""
    b0, b1, b2, a1, a2 = coefficients
    y = [0.0, 0.0]
    padded = [0.0, 0.0, *x.tolist()]
    for n in range(2, len(padded)):
        feed = b0 * padded[n] + b1 * padded[n - 1] + b2 * padded[n - 2]
        y.append(feed - a2 * y[n - 2] - a1 * y[n - 1])
    return np.array(y[2:])


def moving_sum(x: Floats, length: int) -> Floats:
    """Each the sum of the last `length` values, zeros before the first."""
    padded = np.concatenate((np.zeros(length - 1), x))
    return np.array([math.fsum(padded[n : n + length]) for n in range(len(x))])


def clean(samples: Floats) -> Floats:
    """What is no number or out of range repeats the sample before it; the first good sample becomes zero."""
    if not len(samples):
        return samples
    base = samples[0] if abs(samples[0]) <= qrs.SAMPLE_LIMIT else 0.0
    out: list[float] = []
    for sample in samples - base:
        good = abs(sample) <= qrs.SAMPLE_LIMIT
        out.append(float(sample) if good else (out[-1] if out else 0.0))
    return np.array(out)


def energy_maxima(energy: Floats, separation: int, floor: float) -> list[tuple[int, int]]:
    """(place, when it is known) of each maximum that stays the greatest for `separation` samples.

    The last may still be open: it is known at the end.
    """
    found = []
    top, top_at = floor, None
    for n in range(len(energy)):
        rising = energy[n] > (energy[n - 1] if n else 0.0)
        if rising and energy[n] > top:
            top, top_at = energy[n], n
        elif top_at is not None and n - top_at >= separation:
            found.append((top_at, n))
            top, top_at = floor, None
    if top_at is not None:
        found.append((top_at, len(energy)))
    return found


def r_peak(u: Floats, energy_at: int, known: int, rate_hz: float, window: int) -> float:
    """The turning point of u with the greatest departure from the mean around, refined by a parabola."""
    first = max(1, energy_at - window - int(qrs.BEFORE_S * rate_hz))
    last = min(known - 1, len(u) - 2, energy_at + int(qrs.AFTER_S * rate_hz))
    size = np.abs(u - u[first : last + 1].mean())
    inside = range(first, last + 1)
    turning = [i for i in inside if size[i - 1] <= size[i] >= size[i + 1]]
    at = max(turning or inside, key=lambda i: size[i])
    shift = 0.0
    left, peak, right = size[at - 1], size[at], size[at + 1]
    if turning and left - 2 * peak + right < 0:
        shift = (left - right) / 2 / (left - 2 * peak + right)
    return max(0.0, float(at + shift - biquad.low_pass_delay_s(qrs.HIGH_HZ) * rate_hz))


@dataclass
class Decisions:
    """Levels, waiting candidates and the beats so far."""

    rate_hz: float
    separation: int
    signal: float = 0.0
    noise: float = 0.0
    last: float | None = None
    rr: float = 0.0
    due: float = 0.0
    waiting: list[tuple[float, float]] = field(default_factory=list)
    beats: list[tuple[float, float, bool]] = field(default_factory=list)

    def threshold(self) -> float:
        return self.noise + qrs.THRESHOLD * self.signal

    def t_wave(self) -> float:
        return min(qrs.T_MOST_S * self.rate_hz, qrs.T_SHARE * self.rr)

    def beat(self, at: float, amplitude: float, *, late: bool) -> None:
        self.beats.append((at, self.noise / self.signal, late))
        if self.last is not None:
            rr = float(
                np.clip(at - self.last, qrs.RR_LEAST_S * self.rate_hz, qrs.RR_MOST_S * self.rate_hz)
            )
            self.rr += qrs.RR_GAIN * (rr - self.rr)
        clipped = min(amplitude, qrs.CLIP * self.signal)
        self.signal += qrs.SIGNAL_GAIN * (clipped - self.signal)
        self.last = at
        self.due = at + qrs.MISSED * self.rr + 2 * self.separation

    def judge(self, at: float, amplitude: float) -> None:
        if self.signal > 0:
            since = math.inf if self.last is None else at - self.last
            raised = 1 + qrs.T_RAISE * max(0.0, 1 - since / self.t_wave())
            if since > self.separation / 2 and amplitude > self.threshold() * raised:
                self.beat(at, amplitude, late=False)
                self.waiting.clear()
                return
            self.noise += qrs.NOISE_GAIN * (min(amplitude, self.signal) - self.noise)
        self.waiting = [*self.waiting, (at, amplitude)][-qrs.QUEUE :]

    def replay(self, candidates: list[tuple[float, float]]) -> None:
        self.waiting = []
        for at, amplitude in candidates:
            self.judge(at, amplitude)

    def search_back(self) -> bool:
        assert self.last is not None
        after = self.last + self.t_wave()
        least = qrs.LENIENT * self.threshold()
        fit = [k for k, (at, amp) in enumerate(self.waiting) if at > after and amp > least]
        if not fit:
            return False
        best = max(fit, key=lambda k: self.waiting[k][1])
        at, amplitude = self.waiting[best]
        rest = self.waiting[best + 1 :]
        self.beat(at, amplitude, late=True)
        self.replay(rest)
        return True

    def learn(self, now: float) -> None:
        self.due = now + qrs.LEARN_S * self.rate_hz / 2
        amplitudes = sorted(amplitude for _, amplitude in self.waiting)
        if len(amplitudes) < 2:
            return
        self.signal = max(amplitudes[-2], qrs.ALONE * amplitudes[-1], qrs.FALL * self.signal)
        self.noise = qrs.FALL * self.signal
        self.last, self.rr = None, qrs.RR_START_S * self.rate_hz
        self.replay(self.waiting)

    def late_by(self, now: float) -> bool:
        return self.last is not None and now - self.last > qrs.MISSED * self.rr

    def look_back(self, now: float) -> None:
        if self.last is not None:
            lost_at = self.last + qrs.LOST_S * self.rate_hz
            if self.search_back():
                return
            if now < lost_at:
                self.due = lost_at
                return
        self.learn(now)

    def candidate(self, at: float, amplitude: float) -> None:
        while self.late_by(at) and self.search_back():
            pass
        self.judge(at, amplitude)


def detect(samples: Floats, rate_hz: float, floor: float = 1.0) -> list[tuple[float, float, bool]]:
    """(position in samples, noise over signal level, found late) of each beat of a whole recording."""
    window = round(qrs.ENERGY_S * rate_hz)
    separation = round(qrs.SEPARATION_S * rate_hz)
    u = section(biquad.low_pass(qrs.HIGH_HZ, rate_hz), clean(samples))
    energy = moving_sum(section(biquad.high_pass(qrs.LOW_HZ, rate_hz), u) ** 2, window)
    least = floor**2 * window
    maxima = energy_maxima(energy, separation, least)
    decisions = Decisions(rate_hz, separation, rr=qrs.RR_START_S * rate_hz)
    decisions.due = qrs.LEARN_S * rate_hz
    for now in range(len(samples)):
        if maxima and maxima[0][1] == now:
            at, known = maxima.pop(0)
            position = r_peak(u, at, known, rate_hz, window)
            decisions.candidate(position, math.sqrt(energy[at] / window))
        if now + 1 >= decisions.due:
            decisions.look_back(now + 1)
    for at, known in maxima:
        position = r_peak(u, at, known, rate_hz, window)
        decisions.candidate(position, math.sqrt(energy[at] / window))
    if decisions.signal == 0:
        decisions.learn(len(samples))
    elif decisions.late_by(len(samples)):
        decisions.search_back()
    return decisions.beats

"""The pulse-wave detector again, over a whole recording at once.

Filters by their definition, upstrokes as slices of the filtered signal, the decisions as a list that is walked through.
Its constants are those of the kernel.
"""

import math
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.signal import biquad, ppg
from tests.naive.qrs import section

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Wave:
    """A candidate. Places in inner samples of the filtered signal."""

    at: float
    foot: float
    peak: float
    height: float
    level: float
    strength: float


@dataclass(frozen=True)
class Upstroke:
    """From sample `foot` to sample `peak` the signal rises, most from `steep` - 1 to `steep`."""

    foot: int
    steep: int
    peak: int
    strength: float


def clean(samples: Floats) -> tuple[Floats, float]:
    """(samples less the first good one, that one). What is no number or out of range repeats the sample before it."""
    base = next((float(one) for one in samples if abs(one) <= ppg.SAMPLE_LIMIT), 0.0)
    out: list[float] = []
    for sample in samples - base:
        good = abs(sample) <= ppg.SAMPLE_LIMIT
        out.append(float(sample) if good else (out[-1] if out else 0.0))
    return np.array(out), base


def upstrokes(u: Floats, rate: float) -> list[Upstroke]:
    """Each run of rising samples that has ended. The signal was 0 before the first sample."""
    padded = [0.0, *u.tolist()]
    means = [0.0]
    for k, one in enumerate(u.tolist()):
        gain = max(2 * math.pi * ppg.MEAN_HZ / rate, 1 / (k + 1))
        means.append(means[-1] + gain * (one - means[-1]))
    found, n = [], 1
    while n < len(padded):
        if padded[n] <= padded[n - 1]:
            n += 1
            continue
        foot = n - 1
        while n < len(padded) and padded[n] > padded[n - 1]:
            n += 1
        if n == len(padded):
            break
        slopes = [padded[k] - padded[k - 1] for k in range(foot + 1, n)]
        steep = foot + 1 + int(np.argmax(slopes))
        height = padded[n - 1] - padded[foot]
        above = np.clip(padded[n - 1] - means[n], ppg.ABOVE_LEAST * height, height)
        strength = math.sqrt(above * max(slopes) * rate)
        found.append(Upstroke(foot - 1, steep - 1, n - 2, strength))
    return found


def busy(u: Floats, n: int, rate: float) -> bool:
    """Whether sample `n` belongs to an upstroke that may still be a pulse."""
    foot = n
    while foot >= 0 and at(u, foot) > at(u, foot - 1):
        foot -= 1
    return foot < n < foot + int(ppg.UPSTROKE_MOST_S * rate)


def at(u: Floats, n: int) -> float:
    return float(u[n]) if n >= 0 else 0.0


def height(u: Floats, stroke: Upstroke) -> float:
    return at(u, stroke.peak) - at(u, stroke.foot)


def vertex(left: float, middle: float, right: float) -> float:
    bend = left - 2 * middle + right
    return (left - right) / 2 / bend if bend < 0 else 0.0


def wave(u: Floats, stroke: Upstroke) -> Wave:
    """The candidate with its places between the samples."""
    slope = [at(u, stroke.steep + k) - at(u, stroke.steep + k - 1) for k in (-1, 0, 1)]
    middle = (at(u, stroke.steep) + at(u, stroke.steep - 1)) / 2
    foot = stroke.steep - 0.5 - (middle - at(u, stroke.foot)) / slope[1]
    peak = stroke.peak + vertex(*(at(u, stroke.peak + k) for k in (-1, 0, 1)))
    return Wave(
        stroke.steep - 0.5 + vertex(*slope),
        foot,
        peak,
        height(u, stroke),
        at(u, stroke.foot),
        stroke.strength,
    )


@dataclass
class Decisions:
    """Levels, waiting candidates and the beats so far."""

    rate: float
    separation: int
    signal: float = 0.0
    noise: float = 0.0
    last: float | None = None
    level: float = 0.0
    interval: float = 0.0
    due: float = 0.0
    waiting: list[Wave] = field(default_factory=list)
    beats: list[Wave] = field(default_factory=list)

    def dicrotic(self) -> float:
        return min(ppg.T_MOST_S * self.rate, ppg.T_SHARE * self.interval)

    def threshold(self) -> float:
        return self.noise + ppg.THRESHOLD * self.signal

    def raised(self, candidate: Wave) -> float:
        since = math.inf if self.last is None else candidate.at - self.last
        if since >= self.dicrotic():
            return self.threshold()
        raised = self.threshold() * (1 + ppg.T_RAISE * (1 - since / self.dicrotic()))
        parts = [self.threshold(), min(raised, ppg.T_CAP * self.signal)]
        if candidate.level < self.level:
            parts.append(ppg.T_REBOUND * self.signal)
        return max(parts)

    def beat(self, candidate: Wave) -> None:
        self.beats.append(candidate)
        if self.last is not None:
            least, most = ppg.INTERVAL_LEAST_S * self.rate, ppg.INTERVAL_MOST_S * self.rate
            interval = float(np.clip(candidate.at - self.last, least, most))
            self.interval += ppg.INTERVAL_GAIN * (interval - self.interval)
        clipped = min(candidate.strength, ppg.CLIP * self.signal)
        self.signal += ppg.SIGNAL_GAIN * (clipped - self.signal)
        self.last, self.level = candidate.at, candidate.level
        self.due = candidate.at + ppg.MISSED * self.interval + 2 * self.separation

    def judge(self, candidate: Wave) -> None:
        if self.signal > 0:
            apart = self.last is None or candidate.at - self.last > self.separation / 2
            if apart and candidate.strength > self.raised(candidate):
                self.beat(candidate)
                self.waiting.clear()
                return
            strength = min(candidate.strength, self.signal)
            self.noise += ppg.NOISE_GAIN * (strength - self.noise)
        self.waiting = [*self.waiting, candidate][-ppg.QUEUE :]

    def replay(self, candidates: list[Wave]) -> None:
        self.waiting = []
        for candidate in candidates:
            self.judge(candidate)

    def search_back(self) -> bool:
        assert self.last is not None
        after, least = self.last + self.dicrotic(), ppg.LENIENT * self.threshold()
        fit = [k for k, one in enumerate(self.waiting) if one.at > after and one.strength > least]
        if not fit:
            return False
        best = max(fit, key=lambda k: self.waiting[k].strength)
        rest = self.waiting[best + 1 :]
        self.beat(self.waiting[best])
        self.replay(rest)
        return True

    def learn(self, now: float) -> None:
        self.due = now + ppg.LEARN_S * self.rate / 2
        strengths = sorted(one.strength for one in self.waiting)
        if len(strengths) < 2:
            return
        self.signal = max(strengths[-2], ppg.ALONE * strengths[-1], ppg.FALL * self.signal)
        self.noise = ppg.FALL * self.signal
        self.last, self.interval = None, ppg.INTERVAL_START_S * self.rate
        strong = [one.at for one in self.waiting if one.strength >= ppg.STRONG * self.signal]
        if len(strong) > 2:
            least = ppg.INTERVAL_LEAST_S * self.rate
            self.interval = float(np.clip(np.diff(strong).mean(), least, self.interval))
        self.replay(self.waiting)

    def late_by(self, now: float) -> bool:
        return self.last is not None and now - self.last > ppg.MISSED * self.interval

    def look_back(self, now: float) -> None:
        if self.last is not None:
            lost_at = self.last + ppg.LOST_S * self.rate
            if self.search_back():
                return
            if now < lost_at:
                self.due = lost_at
                return
        self.learn(now)

    def candidate(self, candidate: Wave) -> None:
        while self.late_by(candidate.at) and self.search_back():
            pass
        self.judge(candidate)


@dataclass
class Shapes:
    """The mean of the waves so far, newer ones counting more."""

    u: Floats
    rate: float
    mean: Floats = field(default_factory=lambda: np.zeros(ppg.SHAPE))
    learnt: int = 0

    def quality(self, place: float, seen: int) -> float:
        """How far the wave at `place` resembles the mean, when `seen` samples are there; and learns from it."""
        begin = place - ppg.BEFORE_S * self.rate
        if begin < max(0, seen + 1 - ppg.RING):
            return 0.0
        points = np.linspace(begin, place + ppg.AFTER_S * self.rate, ppg.SHAPE)
        own = np.interp(points, np.arange(seen), self.u[:seen])
        own -= own.mean()
        if not own.any():
            return 0.0
        own /= np.linalg.norm(own)
        size = np.linalg.norm(self.mean)
        alike = float(own @ self.mean / size) if size > 0 else 0.0
        gain = max(ppg.SHAPE_GAIN, 1 / (1 + self.learnt))
        self.learnt += 1
        self.mean = self.mean + gain * (own - self.mean)
        return float(np.clip((alike - ppg.ALIKE) / (1 - ppg.ALIKE), 0, 1))


def detect(
    samples: Floats, rate_hz: float, *, inverted: bool = False, floor: float = 1.0
) -> list[tuple[float, ...]]:
    """(index, foot, peak, height, level, quality, known) of each beat of a whole recording."""
    stride = max(1, round(rate_hz / ppg.INNER_HZ))
    rate = rate_hz / stride
    x, base = clean(samples)
    sign = -1.0 if inverted else 1.0
    inner = sign * x[: len(x) // stride * stride].reshape(-1, stride).mean(axis=1)
    u = section(biquad.low_pass(ppg.LOW_PASS_HZ, rate), inner)
    separation = round(ppg.SEPARATION_S * rate)
    ended = {stroke.peak + 1: stroke for stroke in upstrokes(u, rate)}
    top: Upstroke | None = None
    decisions = Decisions(rate, separation, interval=ppg.INTERVAL_START_S * rate)
    decisions.due = ppg.LEARN_S * rate
    shapes = Shapes(u, rate)
    out: list[tuple[float, ...]] = []
    delay = biquad.low_pass_delay_s(ppg.LOW_PASS_HZ) * rate
    after = math.ceil(ppg.AFTER_S * rate) + 1

    def give(seen: int, known: int, *, ending: bool = False) -> None:
        while len(out) < len(decisions.beats):
            one = decisions.beats[len(out)]
            if not ending and seen <= one.at + after:
                return
            places = [
                max(0.0, (place - delay) * stride + (stride - 1) / 2)
                for place in (one.at, one.foot, one.peak)
            ]
            level = base + sign * one.level
            out.append((*places, one.height, level, shapes.quality(one.at, seen), known))

    for seen in range(1, len(u) + 1):
        if busy(u, seen - 1, rate):
            continue  # all waits for the end of the upstroke
        if seen - 1 in ended:
            stroke = ended[seen - 1]
            if top and stroke.steep - top.steep > max(separation, ppg.SHORT * decisions.interval):
                decisions.candidate(wave(u, top))
                top = None
            pulse = stroke.peak - stroke.foot <= int(ppg.UPSTROKE_MOST_S * rate)
            if (
                pulse
                and height(u, stroke) > floor
                and stroke.strength > (top.strength if top else 0)
            ):
                top = stroke
        if top and seen > top.steep + separation:
            decisions.candidate(wave(u, top))
            top = None
        if seen >= decisions.due:
            decisions.look_back(seen)
        give(seen, seen * stride)
    if top:
        decisions.candidate(wave(u, top))
    if decisions.signal == 0:
        decisions.learn(len(u))
    give(len(u), len(u) * stride, ending=True)
    return out

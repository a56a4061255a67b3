"""The QRS detector again, over a whole recording at once.

Filters by their definition, sums added up afresh, candidates as objects in a list, shapes as arrays.
Its constants are those of the kernel.
"""

import math
import statistics
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from gateway.signal import biquad, ecg, qrs

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


def unscaled(coefficients: biquad.Section) -> biquad.Section:
    """The section without its gain: nothing but ratios of amplitudes counts."""
    b0, b1, b2, a1, a2 = coefficients
    return 1.0, b1 / b0, b2 / b0, a1, a2


@dataclass
class Bands:
    """What the filters give at the rate that is enough."""

    rate_hz: float
    factor: int
    floor: float
    u: Floats
    h: Floats
    low: Floats
    high: Floats

    @property
    def window(self) -> int:
        return round(ecg.ENERGY_S * self.rate_hz)


def bands(samples: Floats, rate_hz: float, floor: float) -> Bands:
    factor = math.ceil(rate_hz / ecg.RATE_ENOUGH_HZ)
    rate = rate_hz / factor
    x = clean(samples)
    x = x[: len(x) // factor * factor].reshape(-1, factor).mean(1)
    most = ecg.HIGHEST * rate
    low_pass = biquad.low_pass(ecg.LOW_HZ[1], rate)
    high_pass = biquad.high_pass(ecg.LOW_HZ[0], rate)
    steep = unscaled(biquad.high_pass(min(ecg.HIGH_HZ[0], most), rate))
    u = section(unscaled(low_pass), x)
    y = section(unscaled(high_pass), u)
    g = section(unscaled(biquad.low_pass(min(ecg.HIGH_HZ[1], most), rate)), x)
    h = section(steep, section(steep, g))
    window = round(ecg.ENERGY_S * rate)
    gain = low_pass[0] * high_pass[0]
    low, high = moving_sum(y**2, window), moving_sum(h**2, window)
    return Bands(rate, factor, (floor / gain) ** 2 * window, u, h, low, high)


def r_peak(band: Bands, energy_at: int, known: int) -> float:
    """The turning point of u with the greatest departure from the mean around, refined by a parabola."""
    u = band.u
    first = max(1, energy_at - band.window - int(qrs.BEFORE_S * band.rate_hz))
    last = min(known - 2, energy_at + int(qrs.AFTER_S * band.rate_hz))
    size = np.abs(u - u[first : last + 1].mean())
    inside = range(first, last + 1)
    turning = [i for i in inside if size[i - 1] <= size[i] >= size[i + 1]]
    at = max(turning or inside, key=lambda i: size[i])
    left, peak, right = size[at - 1], size[at], size[at + 1]
    if turning and left - 2 * peak + right < 0:
        return float(at + (left - right) / 2 / (left - 2 * peak + right))
    return float(at)


def shapes(band: Bands, at: int, known: int, lags: int) -> list[Floats]:
    """What h is around `at`, and so many steps earlier and later, each of length 1."""
    step = max(1, round(ecg.STEP_S * band.rate_hz))
    half = round(ecg.SHAPE_S * band.rate_hz / step)
    found = []
    for lag in range(-lags, lags + 1):
        places = at + step * (np.arange(-half, half + 1) + lag)
        shape = np.where(
            (places >= 0) & (places < known), band.h[np.clip(places, 0, known - 1)], 0.0
        )
        length = math.sqrt(math.fsum(shape**2))
        found.append(shape / length if length else shape)
    return found


@dataclass
class Candidate:
    """A place with the amplitudes in both bands and the likeness to the mean beat."""

    at: float
    low: float
    high: float
    likeness: float


def moved(level: float, amplitude: float, trust: float) -> float:
    """A signal level after one more beat: a geometric mean that forgets."""
    share = qrs.SIGNAL_GAIN * trust
    return float(level ** (1 - share) * amplitude**share)


@dataclass
class Levels:
    """The amplitudes of beats and of the rest in both bands."""

    low: float
    high: float
    noise_low: float
    noise_high: float

    @property
    def weight(self) -> float:
        worth = (self.noise_low / self.low) ** 2 / (
            (self.noise_high / self.high) ** 2 + qrs.WEIGHT_CLEAN
        )
        return qrs.WEIGHT * (worth * self.low / self.high) ** 2

    def amplitude(self, low: float, high: float) -> float:
        return math.sqrt(low**2 + self.weight * high**2)

    @property
    def signal(self) -> float:
        return self.amplitude(self.low, self.high)

    @property
    def noise(self) -> float:
        return self.amplitude(self.noise_low, self.noise_high) / self.signal

    @property
    def trust(self) -> float:
        return max(qrs.TRUST_LEAST, 1 - qrs.DISTRUST * self.noise)

    def learn_noise(self, low: float, high: float) -> None:
        share = min(1.0, self.signal / self.amplitude(low, high))
        self.noise_low += qrs.NOISE_GAIN * (share * low - self.noise_low)
        self.noise_high += qrs.NOISE_GAIN * (share * high - self.noise_high)

    def learn_signal(self, low: float, high: float) -> None:
        trust = self.trust
        self.low = moved(self.low, low, trust)
        self.high = moved(self.high, high, trust)


@dataclass
class Decisions:
    """Levels, rhythm, the mean beat, waiting candidates and the beats so far."""

    rate_hz: float
    factor: int
    separation: int
    levels: Levels | None = None
    last: float | None = None
    rr: float = 0.0
    change: float = 1.0
    mean: Floats | None = None
    taught: int = 0
    due: float = 0.0
    waiting: list[Candidate] = field(default_factory=list)
    beats: list[tuple[float, float, bool, float]] = field(default_factory=list)

    def t_wave(self) -> float:
        return min(qrs.T_MOST_S * self.rate_hz, qrs.T_SHARE * self.rr)

    def share(self, candidate: Candidate) -> float:
        levels = self.levels
        assert levels is not None
        since = math.inf if self.last is None else candidate.at - self.last
        noise = levels.noise
        doubt = float(np.clip(qrs.DOUBT_SLOPE * (noise - qrs.DOUBT_FROM), 0, 1))
        unlike = 1 + doubt * (qrs.LIKE - candidate.likeness)
        sharp = (
            levels.noise_high < qrs.SHARP_QUIET * levels.high
            and candidate.high > levels.noise_high + qrs.SHARP * levels.high
            and candidate.likeness > qrs.SHARP_LIKE
            and since > qrs.SHARP_FROM_S * self.rate_hz
        )
        raised = 1 + qrs.T_RAISE * max(0.0, 1 - since / self.t_wave())
        early = max(0.0, 1 - since / (qrs.EARLY_SHARE * self.rr))
        regular = max(0.0, 1 - qrs.IRREGULAR * self.change)
        threshold = levels.signal * (qrs.THRESHOLD + noise) * unlike
        threshold *= qrs.LENIENT if sharp else raised
        threshold *= 1 + qrs.EARLY * doubt * regular * early
        return levels.amplitude(candidate.low, candidate.high) / threshold

    def beat(self, candidate: Candidate, now: int, *, late: bool) -> None:
        levels = self.levels
        assert levels is not None
        behind = biquad.low_pass_delay_s(ecg.LOW_HZ[1]) * self.rate_hz
        index = max(0.0, (candidate.at - behind + 0.5) * self.factor - 0.5)
        waited = now / self.rate_hz - index / (self.rate_hz * self.factor)
        self.beats.append((index, levels.noise, late, waited))
        if self.last is not None:
            shortest, longest = qrs.RR_LEAST_S * self.rate_hz, qrs.RR_MOST_S * self.rate_hz
            rr = float(np.clip(candidate.at - self.last, shortest, longest))
            gain = qrs.RR_GAIN * levels.trust
            self.change += gain * (abs(rr / self.rr - 1) - self.change)
            self.rr += gain * (rr - self.rr)
        levels.learn_signal(candidate.low, candidate.high)
        self.last = candidate.at
        self.due = candidate.at + qrs.MISSED * self.rr + 2 * self.separation

    def judge(self, candidate: Candidate, now: int) -> bool:
        if self.levels is not None:
            apart = self.last is None or candidate.at - self.last > self.separation / 2
            if apart and self.share(candidate) > 1:
                self.waiting.clear()
                self.beat(candidate, now, late=False)
                return True
            self.levels.learn_noise(candidate.low, candidate.high)
        self.waiting.append(candidate)
        return False

    def replay(self, candidates: list[Candidate], now: int) -> None:
        self.waiting = []
        for candidate in candidates:
            self.judge(candidate, now)

    def search_back(self, now: int) -> bool:
        assert self.last is not None
        after = self.last + self.t_wave()
        shares = [self.share(c) if c.at > after else 0.0 for c in self.waiting]
        if not shares or max(shares) <= qrs.LENIENT:
            return False
        best = shares.index(max(shares))
        chosen, rest = self.waiting[best], self.waiting[best + 1 :]
        self.beat(chosen, now, late=True)
        self.replay(rest, now)
        return True

    def learn(self, now: int) -> None:
        self.due = now + qrs.LEARN_S * self.rate_hz / 2
        amplitudes = sorted(c.low for c in self.waiting)
        if len(amplitudes) < 2:
            return
        greatest = amplitudes[-1]
        least = qrs.STRONG * max(amplitudes[-2], qrs.ALONE * greatest)
        if not any(qrs.CLEAR <= a / greatest < qrs.WEAK for a in amplitudes):
            least = min(least, qrs.WEAK * greatest)
        strong = [c for c in self.waiting if c.low >= least]
        low = statistics.geometric_mean(c.low for c in strong)
        high = statistics.geometric_mean(c.high for c in strong)
        self.rr = qrs.RR_START_S * self.rate_hz
        if self.levels is None:
            if len(strong) > 2:
                mean = (strong[-1].at - strong[0].at) / (len(strong) - 1)
                self.rr = min(self.rr, max(qrs.RR_FIRST_S * self.rate_hz, mean))
        else:
            rise = max(1.0, qrs.FALL * self.levels.low / low)
            low, high = low * rise, high * rise
        self.levels = Levels(low, high, qrs.FALL * low, qrs.FALL * high)
        self.last, self.change, self.mean, self.taught = None, 1.0, None, 0
        self.replay(self.waiting, now)

    def late_by(self, now: float) -> bool:
        return self.last is not None and now - self.last > qrs.MISSED * self.rr

    def look_back(self, now: int) -> None:
        if self.last is not None:
            lost_at = self.last + qrs.LOST_S * self.rate_hz
            if self.search_back(now):
                return
            self.due = lost_at
            if now < lost_at:
                return
        self.learn(now)

    def candidate(self, band: Bands, top: int, now: int) -> None:
        at = r_peak(band, top, now)
        around = shapes(band, int(at + 0.5), now, qrs.LAGS if self.taught else 0)
        likenesses = [qrs.LIKE if self.mean is None else float(s @ self.mean) for s in around]
        likeness, shape = max(likenesses), around[likenesses.index(max(likenesses))]
        while self.late_by(at) and self.search_back(now):
            pass
        del self.waiting[: max(0, len(self.waiting) - qrs.QUEUE + 2)]
        low = math.sqrt(band.low[top] / band.window)
        high = max(math.sqrt(band.high[top] / band.window), low / 1000)
        if self.judge(Candidate(at, low, high, likeness), now):
            assert self.levels is not None
            self.taught += 1
            gain = self.levels.trust * max(qrs.SIGNAL_GAIN, 1 / self.taught)
            mean = np.zeros_like(shape) if self.mean is None else self.mean
            mean = mean + gain * (shape - mean)
            length = math.sqrt(math.fsum(mean**2))
            self.mean = mean / length if length else mean


def detect(
    samples: Floats, rate_hz: float, floor: float = 1.0
) -> list[tuple[float, float, bool, float]]:
    """(position in samples, noise over signal level, found late, decided after s) of each beat of a recording."""
    band = bands(samples, rate_hz, floor)
    separation = round(ecg.SEPARATION_S * band.rate_hz)
    decisions = Decisions(band.rate_hz, band.factor, separation, rr=qrs.RR_START_S * band.rate_hz)
    decisions.due = qrs.LEARN_S * band.rate_hz
    top, top_at, before = band.floor, None, 0.0
    for n, (low, high) in enumerate(zip(band.low, band.high, strict=True)):
        energy = low + (decisions.levels.weight if decisions.levels else 0.0) * high
        if energy > max(top, before) and low > band.floor:
            top, top_at = energy, n
        elif top_at is not None and n - top_at >= separation:
            decisions.candidate(band, top_at, n + 1)
            top, top_at = band.floor, None
        if n + 1 >= decisions.due:
            decisions.look_back(n + 1)
        before = energy
    size = len(band.u)
    if top_at is not None:
        decisions.candidate(band, top_at, size)
    if decisions.levels is None:
        decisions.learn(size)
    elif decisions.late_by(size):
        decisions.search_back(size)
    return decisions.beats

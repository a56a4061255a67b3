"""A synthetic patient of whom everything is known: each beat, each oxygen value, each artefact.

Signals are evaluated from formulas at exact sample times, never filtered from sample to sample, in blocks of
`BLOCK` samples aligned to sample 0. So a stretch comes out bit for bit the same however it is cut, and from
wherever one starts.
"""

import math
from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Span = tuple[float, float]
"""From and until, in seconds."""

BLOCK = 256
PAGE_S = 60.0
"""Motion episodes are drawn for each minute by itself, so that any minute can be looked up."""


@dataclass(frozen=True, slots=True)
class Vitals:
    """What a board's own algorithms would show at one moment; None where nobody knows."""

    heart_rate: float | None = None
    resp_rate: float | None = None
    spo2: float | None = None
    temp_c: float | None = None
    leads_on: bool = True
    finger_on: bool = True


class Source(Protocol):
    """Signals with their truth, at one sample rate. Times are seconds since sample 0.

    Channels: `ecg` in mV, `resp` as impedance change (about -1 to 1), `infrared` and `red` as received light
    (0 to 1 of full scale, which falls while blood comes in).
    """

    @property
    def rate_hz(self) -> float:
        """Samples a second of every channel."""
        ...

    @property
    def channels(self) -> frozenset[str]:
        """What `samples` gives."""
        ...

    def samples(self, start: int, count: int) -> dict[str, Array]:
        """The samples from number `start`; fewer than `count`, at last none, where the source ends."""
        ...

    def beats(self, until_s: float) -> Array:
        """Every R peak before `until_s`, in order. Empty when the source has no annotations: see `annotated`."""
        ...

    @property
    def annotated(self) -> bool:
        """Whether the beats are known."""
        ...

    def vitals(self, at_s: float) -> Vitals:
        """The true numbers at `at_s`."""
        ...

    def artefacts(self, until_s: float) -> tuple[Span, ...]:
        """Spans that begin before `until_s` in which the signal is known to be disturbed."""
        ...


@dataclass(frozen=True, slots=True)
class Desaturation:
    """SpO2 falls by `depth` percent and comes back, as a raised cosine of `length_s`."""

    start_s: float
    length_s: float
    depth: float


@dataclass(frozen=True, slots=True)
class Plan:
    """What the patient is to be like.

    Attributes:
        rsa: respiratory sinus arrhythmia, as a share of the RR interval; `drift` and `jitter` likewise.
        ectopic: probability that a beat is a premature ventricular one; `pause`: that the next one drops out.
        perfusion: AC share of the infrared light.
        motion_per_min: motion episodes a minute, of about `motion_s` each.
    """

    seed: int = 1
    heart_rate: float = 72.0
    resp_rate: float = 15.0
    temp_c: float = 36.8
    spo2: float = 97.0
    rsa: float = 0.04
    drift: float = 0.03
    jitter: float = 0.008
    ectopic: float = 0.0
    pause: float = 0.0
    wander_mv: float = 0.05
    mains_mv: float = 0.01
    mains_hz: float = 50.0
    muscle_mv: float = 0.01
    ppg_noise: float = 0.00005
    perfusion: float = 0.02
    motion_per_min: float = 0.0
    motion_s: float = 5.0
    desaturations: tuple[Desaturation, ...] = ()
    leads_off: tuple[Span, ...] = ()
    finger_off: tuple[Span, ...] = ()

    def quiet(self) -> "Plan":
        """The same patient without any noise."""
        return replace(
            self,
            wander_mv=0.0,
            mains_mv=0.0,
            muscle_mv=0.0,
            ppg_noise=0.0,
            motion_per_min=0.0,
        )


# Waves of one beat: seconds from the R peak, mV, width (standard deviation) in seconds.
NORMAL = (
    (-0.170, 0.12, 0.022),
    (-0.030, -0.10, 0.008),
    (0.0, 1.0, 0.010),
    (0.032, -0.20, 0.009),
    (0.280, 0.30, 0.045),
)
VENTRICULAR = ((0.0, 1.2, 0.030), (0.120, -0.40, 0.030), (0.330, -0.35, 0.055))
QRS_REACHES_S = 0.15
"""Waves nearer to the R peak keep their place; those further out move with the square root of the RR interval."""
PULSE = ((0.32, 1.0, 0.070), (0.56, 0.35, 0.090))
"""The pulse at the finger: seconds after the R peak (transit time included), height, width."""
ECTOPIC_PULSE = 0.5
BEAT_REACHES_S = 1.2
"""Beyond this a beat adds nothing that a double could tell from 0 beside 1e-9."""

DC_INFRARED, DC_RED, DARK = 0.50, 0.40, 0.002
MOTION_MV, MOTION_LIGHT = 0.8, 0.06


def ratio_of_ratios(spo2: Array | float) -> Array:
    """R = (AC/DC red) / (AC/DC infrared) by the usual linear calibration SpO2 = 110 - 25 R."""
    return (110.0 - np.asarray(spo2, np.float64)) / 25.0


class Patient:
    """A source without end that follows a plan."""

    channels = frozenset({"ecg", "resp", "infrared", "red"})
    annotated = True

    def __init__(self, plan: Plan, rate_hz: float) -> None:
        """Raises ValueError for a rate outside 60 to 1000 Hz: below, a QRS complex falls between samples."""
        if not 60 <= rate_hz <= 1000:
            raise ValueError(f"rate_hz: got {rate_hz}, expected 60 to 1000")
        self.plan = plan
        self.rate_hz = float(rate_hz)
        self._phases = np.random.default_rng((plan.seed, 0)).uniform(0, 2 * math.pi, 8)
        self._heart = np.random.default_rng((plan.seed, 1))
        self._times: list[float] = [0.4]
        self._rr: list[float] = [60.0 / plan.heart_rate]
        self._ectopic: list[bool] = [False]
        self._block: tuple[int, dict[str, Array]] | None = None

    def samples(self, start: int, count: int) -> dict[str, Array]:
        """Exactly `count` samples of each channel."""
        parts: dict[str, list[Array]] = {name: [np.empty(0)] for name in self.channels}
        at, end = start, start + count
        while at < end:
            number, offset = divmod(at, BLOCK)
            size = min(end - at, BLOCK - offset)
            for name, values in self._cached(number).items():
                parts[name].append(values[offset : offset + size])
            at += size
        return {name: np.concatenate(pieces) for name, pieces in parts.items()}

    def beats(self, until_s: float) -> Array:
        """The R peaks of all beats before `until_s`."""
        self._extend(until_s)
        return np.array(self._times[: bisect_left(self._times, until_s)])

    def ectopic(self, until_s: float) -> NDArray[np.bool_]:
        """For each of `beats(until_s)` whether it is a premature ventricular beat."""
        return np.array(self._ectopic[: len(self.beats(until_s))])

    def spo2(self, at_s: Array) -> Array:
        """Arterial oxygen saturation in percent."""
        value = np.full_like(at_s, self.plan.spo2)
        for fall in self.plan.desaturations:
            x = np.clip((at_s - fall.start_s) / fall.length_s, 0.0, 1.0)
            value -= fall.depth * (1 - np.cos(2 * math.pi * x)) / 2
        return value

    def vitals(self, at_s: float) -> Vitals:
        """Heart rate over the last eight intervals, the rest as it is at `at_s`."""
        leads_on, finger_on = (
            not _within(self.plan.leads_off, at_s),
            not _within(self.plan.finger_off, at_s),
        )
        self._extend(at_s)
        seen = bisect_right(self._times, at_s)
        intervals = np.diff(self._times[max(0, seen - 9) : seen])
        known = leads_on and len(intervals) > 0
        return Vitals(
            heart_rate=60.0 / float(intervals.mean()) if known else None,
            resp_rate=self.plan.resp_rate if leads_on else None,
            spo2=float(self.spo2(np.array([at_s]))[0]) if finger_on else None,
            temp_c=self.plan.temp_c,
            leads_on=leads_on,
            finger_on=finger_on,
        )

    def artefacts(self, until_s: float) -> tuple[Span, ...]:
        """Motion episodes that begin before `until_s`, in order; sensors that are off are told by `vitals`."""
        pages = range(math.ceil(until_s / PAGE_S))
        spans = sorted(episode[0] for page in pages for episode in self._motion(page))
        return tuple(span for span in spans if span[0] < until_s)

    def _extend(self, until_s: float) -> None:
        plan, times = self.plan, self._times
        while times[-1] < until_s + BEAT_REACHES_S:
            at = times[-1]
            breath = math.sin(2 * math.pi * plan.resp_rate / 60 * at + self._phases[0])
            slow = math.sin(2 * math.pi * at / 97.0 + self._phases[1])
            # Three draws a beat, used or not: the same seed gives the same heart whatever the plan says.
            noise, chance, drop = self._heart.normal(), self._heart.random(), self._heart.random()
            rr = 60.0 / plan.heart_rate
            rr *= 1 + plan.rsa * breath + plan.drift * slow + plan.jitter * noise
            early = chance < plan.ectopic and not self._ectopic[-1]
            if self._ectopic[-1]:
                rr *= 1.35  # compensatory pause
            elif early:
                rr *= 0.65
            elif drop < plan.pause:
                rr *= 2.0
            rr = max(rr, 0.25)
            times.append(at + rr)
            self._rr.append(rr)
            self._ectopic.append(early)

    def _cached(self, number: int) -> dict[str, Array]:
        if self._block is None or self._block[0] != number:
            self._block = number, self._evaluate(number)
        return self._block[1]

    def _evaluate(self, number: int) -> dict[str, Array]:
        plan = self.plan
        t = np.arange(number * BLOCK, (number + 1) * BLOCK) / self.rate_hz
        rng = np.random.default_rng((plan.seed, 2, number))
        resp = np.sin(2 * math.pi * plan.resp_rate / 60 * t + self._phases[0])
        ecg, pulse = self._beats_at(t)
        ecg += plan.wander_mv * (
            0.6 * resp + 0.4 * np.sin(2 * math.pi * 0.07 * t + self._phases[2])
        )
        ecg += plan.mains_mv * np.sin(2 * math.pi * plan.mains_hz * t + self._phases[3])
        ecg += plan.muscle_mv * rng.standard_normal(BLOCK)
        motion = self._motion_at(t)
        ecg += MOTION_MV * motion
        light = (1 + 0.004 * resp) * (1 + MOTION_LIGHT * motion)
        infrared = DC_INFRARED * light * (1 - plan.perfusion * pulse)
        red = DC_RED * light * (1 - plan.perfusion * ratio_of_ratios(self.spo2(t)) * pulse)
        for off in plan.leads_off:
            ecg[(t >= off[0]) & (t < off[1])] = 0.0
            resp[(t >= off[0]) & (t < off[1])] = 0.0
        for off in plan.finger_off:
            infrared[(t >= off[0]) & (t < off[1])] = DARK
            red[(t >= off[0]) & (t < off[1])] = DARK
        infrared += plan.ppg_noise * rng.standard_normal(BLOCK)
        red += plan.ppg_noise * rng.standard_normal(BLOCK)
        return {"ecg": ecg, "resp": resp, "infrared": infrared, "red": red}

    def _beats_at(self, t: Array) -> tuple[Array, Array]:
        """ECG in mV and pulse (0 to about 1) of all beats within reach of `t`."""
        self._extend(float(t[-1]))
        ecg, pulse = np.zeros_like(t), np.zeros_like(t)
        first = bisect_left(self._times, float(t[0]) - BEAT_REACHES_S)
        last = bisect_right(self._times, float(t[-1]) + BEAT_REACHES_S)
        for beat in range(first, last):
            x = t - self._times[beat]
            ectopic = self._ectopic[beat]
            stretch = min(max(math.sqrt(self._rr[beat] / 0.83), 0.7), 1.1)
            for at, height, width in VENTRICULAR if ectopic else NORMAL:
                centre = at if abs(at) < QRS_REACHES_S else at * stretch
                ecg += height * np.exp(-0.5 * ((x - centre) / width) ** 2)
            for at, height, width in PULSE:
                strength = height * (ECTOPIC_PULSE if ectopic else 1.0)
                pulse += strength * np.exp(-0.5 * ((x - at) / width) ** 2)
        return ecg, pulse

    def _motion(self, page: int) -> list[tuple[Span, Array]]:
        """Episodes that begin in this minute, each with its frequencies in Hz and phases."""
        if page < 0 or self.plan.motion_per_min <= 0:
            return []
        rng = np.random.default_rng((self.plan.seed, 3, page))
        episodes = []
        for _ in range(rng.poisson(self.plan.motion_per_min)):
            start = (page + rng.random()) * PAGE_S
            length = min(rng.uniform(0.5, 1.5) * self.plan.motion_s, PAGE_S)
            waves = np.array([rng.uniform(0.7, 6.0, 3), rng.uniform(0, 2 * math.pi, 3)])
            episodes.append(((float(start), float(start + length)), waves))
        return episodes

    def _motion_at(self, t: Array) -> Array:
        total = np.zeros_like(t)
        for page in range(int(t[0] // PAGE_S) - 1, int(t[-1] // PAGE_S) + 1):
            for (start, end), (rates, phases) in self._motion(page):
                inside = (t >= start) & (t < end)
                x = t[inside] - start
                swell = np.sin(math.pi * x / (end - start)) ** 2
                waves = [
                    np.sin(2 * math.pi * f * x + p) for f, p in zip(rates, phases, strict=True)
                ]
                total[inside] += swell * sum(waves)
        return total


def _within(spans: tuple[Span, ...], at_s: float) -> bool:
    return any(start <= at_s < end for start, end in spans)

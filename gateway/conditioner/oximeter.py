"""Red and infrared light of one sensor: the ratio R, and a saturation where that sensor's own curve is configured."""

import math
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quality, Quantity, SampleArray, Special, Validity
from gateway.conditioner.grade import REASON, derived, is_bad, quality
from gateway.conditioner.stretch import Samples, Stretch
from gateway.config.signals import Spo2Curve
from gateway.signal.oximetry import (
    CORRELATION_LEAST,
    PULSATION_LEAST_PERCENT,
    RATE_LEAST_HZ,
    RATE_MOST_HZ,
    Calibration,
    RedInfrared,
    spo2_percent,
)

CURVE = "spo2_curve"
"""In the reason of each saturation that the hub computed, before the name of the sensor."""


class Oximeter:
    """Joins the blocks of both lights. A block that comes without its partner begins a new run."""

    def __init__(self, limits: tuple[int, int] | None, curve: Spo2Curve | None) -> None:
        """Takes what is configured of the sensor: its converter's limits, and its curve. Without it there is R alone."""
        self._rails = (-math.inf, math.inf) if limits is None else limits
        self._calibration = None if curve is None else _calibration(curve)
        self._infrared: tuple[Observation, Samples] | None = None
        self._run: tuple[Stretch, RedInfrared] | None = None
        self._known = False

    def end(self) -> None:
        """There is a gap."""
        self._infrared = self._run = None

    def infrared(self, record: Observation, samples: Samples) -> None:
        """A block of infrared light; that of red light follows."""
        if self._infrared is not None:
            self.end()
        self._infrared = record, samples

    def red(
        self, record: Observation, samples: SampleArray, index: float | None
    ) -> Iterator[Observation]:
        """A block of red light; `index` is the quality of the pulse in the infrared light of the last seconds."""
        held, self._infrared = self._infrared, None
        if held is None or not self._fits(held, record, samples):
            self.end()
            return
        if self._run is None or not self._run[0].continues(record, samples):
            stretch = Stretch(samples.period_ns)
            self._run = stretch, RedInfrared(stretch.rate_hz, self._rails)
        stretch, run = self._run
        ratios = run.process(stretch.add(record, samples), held[1])
        for second, ratio, correlation, pulsation in zip(
            ratios.second.tolist(),
            ratios.ratio.tolist(),
            ratios.correlation.tolist(),
            ratios.infrared_percent.tolist(),
            strict=True,
        ):
            at_ns = stretch.time_ns((second + 1) * stretch.rate_hz)
            yield from self._ratio(ratio, correlation, pulsation, index, at_ns)

    @staticmethod
    def _fits(held: tuple[Observation, Samples], record: Observation, red: SampleArray) -> bool:
        infrared = held[0]
        return (
            infrared.determined_at_ns == record.determined_at_ns
            and infrared.ends_ns == record.ends_ns
            and len(held[1]) == len(red)
            and RATE_LEAST_HZ <= Stretch(red.period_ns).rate_hz <= RATE_MOST_HZ
            and Validity.INVALID not in {infrared.quality.validity, record.quality.validity}
        )

    def _ratio(
        self, ratio: float, correlation: float, pulsation: float, index: float | None, at_ns: int
    ) -> Iterator[Observation]:
        pulses = correlation >= CORRELATION_LEAST and pulsation >= PULSATION_LEAST_PERCENT
        if not math.isfinite(ratio) or not pulses or is_bad(index):
            yield from self._unknown(at_ns, index)
            return
        how_well = quality(index)
        value = Quantity(Decimal(f"{ratio:.3f}"), Unit.DIMLESS)
        yield derived(Code.WARDLINK_PPG_RATIO, value, at_ns, how_well)
        if self._calibration is None:
            return
        percent = spo2_percent(self._calibration, ratio, correlation, pulsation)
        if percent is None:
            yield from self._unknown(at_ns, index)
            return
        self._known = True
        saturation = Quantity(Decimal(f"{percent:.1f}"), Unit.PERCENT)
        yield derived(Code.PULS_OXIM_SAT_O2, saturation, at_ns, self._said(how_well))

    def _unknown(self, at_ns: int, index: float | None) -> Iterator[Observation]:
        """That the saturation is not known any more is said once."""
        if self._known:
            self._known = False
            why = Quality(Validity.INVALID, sqi=quality(index).sqi, reason=REASON)
            unknown = Quantity(Special.UNKNOWN, Unit.PERCENT)
            yield derived(Code.PULS_OXIM_SAT_O2, unknown, at_ns, self._said(why))

    def _said(self, how_well: Quality) -> Quality:
        """With the sensor whose curve was used: the value stands and falls with it."""
        words = [how_well.reason, CURVE, self._calibration.sensor if self._calibration else None]
        return replace(how_well, reason=" ".join(word for word in words if word))


def _calibration(curve: Spo2Curve) -> Calibration:
    return Calibration(curve.sensor, curve.coefficients, *curve.ratio)

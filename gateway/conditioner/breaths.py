"""Respiration rate from what breathing does to beats."""

import math
from collections.abc import Iterator
from decimal import Decimal

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quality, Quantity, Special, Validity
from gateway.conditioner.grade import REASON, derived, rounded
from gateway.conditioner.stretch import Stretch
from gateway.signal.breathing import RespirationStream
from gateway.signal.respiration import ALONE

UNKNOWN = Quality(Validity.INVALID, reason="no_breaths")


class Breathing:
    """Follows the beats of one signal. Only good ones are brought here: others leave a hole, after which it is unknown."""

    def __init__(self, stretch: Stretch, code: Code, leads: int) -> None:
        """Takes where beats come from, what the rate is called, and which modulation leads."""
        self._stretch = stretch
        self._code = code
        self._stream = RespirationStream(leads)
        self._known = False

    def beat(
        self, index: float, level: float, height: float, interval: float
    ) -> Iterator[Observation]:
        """The next beat: place and interval in samples, level and height in any unit."""
        rate_hz = self._stretch.rate_hz
        breaths = self._stream.process([index / rate_hz], [level], [height], [interval / rate_hz])
        for time_s, bpm, share in zip(
            breaths.time_s.tolist(),
            breaths.rate_bpm.tolist(),
            breaths.quality.tolist(),
            strict=True,
        ):
            yield from self._rate(bpm, share, self._stretch.time_ns(time_s * rate_hz))

    def _rate(self, bpm: float, share: float, at_ns: int) -> Iterator[Observation]:
        if math.isfinite(bpm):
            self._known = True
            clear = share >= ALONE
            how_well = Quality(
                Validity.VALID if clear else Validity.QUESTIONABLE,
                sqi=rounded(share),
                reason=None if clear else REASON,
            )
            yield derived(
                self._code, Quantity(Decimal(round(bpm)), Unit.RESP_PER_MIN), at_ns, how_well
            )
        elif self._known:
            # That it is not known any more is said once.
            self._known = False
            yield derived(self._code, Quantity(Special.UNKNOWN, Unit.RESP_PER_MIN), at_ns, UNKNOWN)

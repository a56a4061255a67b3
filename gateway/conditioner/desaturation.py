"""Falls of SpO2, as events of the vitals stream. This interprets, so it is off unless a device is configured for it.

It raises no alarm and changes no value: who receives the events decides what they mean.
"""

from collections.abc import Iterable, Iterator
from decimal import Decimal
from typing import Final

from drivers.assigned import Code, Unit
from drivers.model import Event, EventKind, Observation, Origin, Quantity, Record, Validity
from gateway.signal.oximetry import Desaturation, Desaturations

REASON: Final = "desaturation"
SECOND_NS: Final = 1_000_000_000


class Falls:
    """Those of one device: in what it says itself, and apart from that in what the hub computes of its light."""

    def __init__(self, drop_percent: float) -> None:
        """`drop_percent`: below the baseline, as `Desaturations` takes it."""
        self._series = {origin: _Series(origin, drop_percent) for origin in Origin}

    def follow(self, records: Iterable[Record]) -> Iterator[Record]:
        """The records, and after each what it says of a fall."""
        for record in records:
            yield record
            match record:
                case Observation(code=Code.PULS_OXIM_SAT_O2):
                    at_ns, percent = record.determined_at_ns, _percent(record)
                    yield from self._series[record.origin].take(at_ns, percent)
                case Event(kind=EventKind.GAP, at_ns=at_ns):
                    for series in self._series.values():
                        yield from series.take(at_ns, None)
                case Event(kind=EventKind.LOST | EventKind.CONNECTED, at_ns=at_ns):
                    for series in self._series.values():
                        yield from series.end(at_ns)
                case _:
                    pass


class _Series:
    """Values of one origin. Total: whatever the times are, it never raises."""

    def __init__(self, origin: Origin, drop_percent: float) -> None:
        self._origin = origin
        self._finder = Desaturations(drop_percent)
        self._first_ns = 0
        self._last_ns: int | None = None

    def take(self, at_ns: int, percent: float | None) -> Iterator[Event]:
        """The next value, None when it is unknown. Of several in a second the first counts; of what is unknown, all."""
        last_ns = self._last_ns
        if last_ns is not None:
            if at_ns < last_ns:
                yield from self.end(at_ns)
            elif percent is not None and at_ns // SECOND_NS == last_ns // SECOND_NS:
                return
        if self._last_ns is None:
            # Counted from here a float keeps nanoseconds apart for months.
            self._first_ns = at_ns
        if percent is not None:
            self._last_ns = at_ns
        fall = self._finder.process((at_ns - self._first_ns) / SECOND_NS, percent)
        if fall is not None:
            yield self._event(fall, at_ns)

    def end(self, at_ns: int) -> Iterator[Event]:
        """A new run begins, without a baseline."""
        self._last_ns = None
        fall = self._finder.flush()
        if fall is not None:
            yield self._event(fall, at_ns)

    def _event(self, fall: Desaturation, at_ns: int) -> Event:
        how = "recovered" if fall.recovered else "no valid value"
        text = (
            f"SpO2 of the {self._origin}: baseline {fall.baseline_percent:.1f} %,"
            f" lowest {fall.lowest_percent:.1f} %, {'lasts' if fall.end_s is None else how}"
        )
        return Event(
            EventKind.SIGNAL,
            at_ns,
            REASON,
            text,
            code=Code.PULS_OXIM_SAT_O2,
            from_ns=self._ns(fall.begin_s),
            until_ns=None if fall.end_s is None else self._ns(fall.end_s),
        )

    def _ns(self, time_s: float) -> int:
        return self._first_ns + round(time_s * SECOND_NS)


def _percent(record: Observation) -> float | None:
    """None where it is not a valid saturation."""
    match record.value:
        case Quantity(value=Decimal() as value, unit=Unit.PERCENT):
            known = record.quality.validity is Validity.VALID
            return float(value) if known and value.is_finite() and 0 <= value <= 100 else None
        case _:
            return None

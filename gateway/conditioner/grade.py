"""What a signal-quality index allows to be said: the one place where it becomes a validity."""

from typing import Final

from drivers.assigned import Code
from drivers.model import Observation, Origin, Quality, Quantity, Validity

CONFIDENT: Final = 0.5
"""From here on a value is valid. Where the index of an ECG is lower, more than 1 in 20 heart rates is wrong."""
USABLE: Final = 0.3
"""Below this there is no value: it is unknown. Of the heart rates of an ECG 1 in 5 would be wrong."""

REASON: Final = "signal_quality"
NOT_JUDGED: Final = "signal_quality_unknown"


def grade(index: float, recent: float) -> float | None:
    """The worse of both indices; None where they are not known (NaN)."""
    worst = min(index, recent)
    return worst if index == index and recent == recent else None  # noqa: PLR0124 - NaN alone differs from itself


def is_bad(index: float | None) -> bool:
    """Whether nothing may be said."""
    return index is not None and index < USABLE


def quality(index: float | None) -> Quality:
    """The quality of what was determined from samples of this index; None: nobody has judged them yet."""
    if index is None:
        return Quality(Validity.QUESTIONABLE, reason=NOT_JUDGED)
    sqi = rounded(index)
    if index >= CONFIDENT:
        return Quality(sqi=sqi)
    validity = Validity.QUESTIONABLE if index >= USABLE else Validity.INVALID
    return Quality(validity, sqi=sqi, reason=REASON)


def derived(code: Code, value: Quantity, at_ns: int, how_well: Quality) -> Observation:
    """What the hub determined."""
    return Observation(code, value, at_ns, how_well, Origin.HUB)


def rounded(index: float) -> float:
    """As it stands in records: two places are more than it is worth."""
    return round(index, 2)

"""What is live gathers to leave together where each message costs. Pure: no clock."""

from dataclasses import dataclass

LONG_AGO_NS = -(1 << 62)
"""CLOCK_BOOTTIME begins with the machine: 0 is not long ago where that was switched on just now."""


@dataclass(slots=True)
class Gathering:
    """Of one stream.

    Attributes:
        until_ns: what is live leaves then, unless something makes it leave before.
    """

    until_ns: int = LONG_AGO_NS
    _has_left: bool = False

    def holds(self, now_ns: int) -> bool:
        """Whether what is live waits for more."""
        return now_ns < self.until_ns

    def left(self) -> None:
        """Something live did."""
        self._has_left = True

    def caught_up(self, until_ns: int) -> None:
        """Nothing is live any more: what comes next gathers until then, if something left since the last time."""
        if self._has_left:
            self._has_left, self.until_ns = False, until_ns

    def hurry(self) -> None:
        """What has gathered leaves now."""
        self.until_ns = LONG_AGO_NS

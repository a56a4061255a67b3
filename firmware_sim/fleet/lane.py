"""One stream of a simulated hub on its way out: by whose word it is given free, and when the receiver is asked. Pure."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from firmware_sim.fleet.messages import Mark

PROBE_FIRST_S, PROBE_AGAIN_S, PROBE_MOST_S = 10.0, 2.0, 600.0
"""Without a receipt for so long, or for the second after a new connection, the oldest entry is sent again, alone."""


@dataclass(slots=True)
class Lane:
    """One stream on its way out.

    Attributes:
        acknowledged: up to here the broker has it.
        since_s: since when something is without a receipt.
        probe: the entry that was sent again, and how far the stream had been sent by then.
    """

    mark: Mark = field(default_factory=Mark)
    sent: int = 0
    acknowledged: int = 0
    since_s: float | None = None
    patience_s: float = PROBE_FIRST_S
    probe: tuple[int, int] | None = None

    def connected(self) -> None:
        """What has no PUBACK is sent again. What the broker has forgotten, a probe will tell."""
        self.sent = self.acknowledged
        self.since_s, self.patience_s, self.probe = None, PROBE_AGAIN_S, None

    def received(self, mark: int, now_s: float) -> None:
        """A receipt came. One that has the probe and not what was sent before it proves a loss: all that is sent again."""
        mark = min(mark, self.mark.high_water)
        moved = mark > self.mark.released
        if moved:
            self.mark.released = mark
            self.patience_s = PROBE_FIRST_S
            self.since_s = now_s if mark < self.sent else None
        if self.probe is None or mark < self.probe[0]:
            return
        if moved and self.probe[0] < mark < self.probe[1]:
            return  # it may be reading what waited for it, with the probe still behind
        if mark < self.probe[1]:
            self.sent = self.acknowledged = mark
        self.probe = None


def probe_due_s(lanes: Iterable[Lane], now_s: float) -> float:
    """When the receiver is to be asked, or something far away."""
    waits = [lane.since_s + lane.patience_s for lane in lanes if lane.since_s is not None]
    return min(waits, default=now_s + PROBE_MOST_S)

"""What the fleet counts while it runs."""

import math
from collections import Counter
from dataclasses import dataclass, field

MONTH_S = 30 * 24 * 3600
STEP = 1.05
"""The width of a class of times: what is read back is right to 5 %."""
LEAST_S = 1e-5


class Times:
    """Durations in classes, so that a long run takes no more memory than a short one."""

    def __init__(self) -> None:
        self._classes: Counter[int] = Counter()
        self.count = 0

    def add(self, seconds: float) -> None:
        """One more."""
        self._classes[math.ceil(math.log(max(seconds, LEAST_S) / LEAST_S, STEP))] += 1
        self.count += 1

    def quantile_s(self, part: float) -> float | None:
        """Not more than this took `part` of them; None when there are none."""
        rest = part * self.count
        for number in sorted(self._classes):
            rest -= self._classes[number]
            if rest <= 1e-9:
                return LEAST_S * STEP**number
        return None


@dataclass(slots=True)
class Measures:
    """Counts of the whole fleet. Bytes are those of MQTT; TLS, TCP and IP come on top.

    Attributes:
        tries: connection attempts by the second in which they began.
        connects: accepted ones by the second of their CONNACK.
        connected: hubs that are connected now.
    """

    tries: Counter[int] = field(default_factory=Counter)
    connects: Counter[int] = field(default_factory=Counter)
    connected: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    publishes: int = 0
    refused: int = 0
    entries_sent: int = 0
    receipts: int = 0
    probes: int = 0
    bytes_sent: int = 0
    bytes_received: int = 0
    puback: Times = field(default_factory=Times)
    connack: Times = field(default_factory=Times)

    @property
    def acknowledged(self) -> int:
        """Publishes with a PUBACK."""
        return self.puback.count


def per_month(sent_bytes: int, hubs: int, seconds: float) -> float:
    """Of one hub, in 30 days, if it goes on like this."""
    return sent_bytes / hubs / seconds * MONTH_S if seconds else 0.0

"""When a stream's entries are given free: on the broker's word, or on the receiver's. Pure: no I/O and no clock.

With `ack = "receiver"` a PUBACK only makes room in the window. Should no receipt follow, the oldest entry without one
is sent again as a probe. A broker keeps the order of a topic, so a receipt that has the probe and not what was sent
before it proves that the broker lost that, and it is sent again; while the receiver is merely away, nothing else is.
"""

from dataclasses import dataclass

from gateway.uplink.patience import NS_PER_S

PROBE_FIRST_NS = 10 * NS_PER_S
PROBE_AGAIN_NS = 2 * NS_PER_S
"""After a new connection: the broker may have forgotten everything."""
PROBE_MOST_NS = 600 * NS_PER_S


@dataclass(frozen=True, slots=True)
class Probe:
    """Sent again: entries up to `last`, when everything up to `covers` had been acknowledged by the broker."""

    last: int
    covers: int


class Release:
    """What the receiver has of one stream, and whether it must be asked.

    Attributes:
        mark: everything up to here that still exists is on the receiver's disk.
    """

    def __init__(self, mark: int) -> None:
        self.mark = mark
        self._patience_ns = PROBE_FIRST_NS
        self._since_ns: int | None = None
        self._probe: Probe | None = None

    def connected(self) -> None:
        """A new connection: what the broker had acknowledged may be lost."""
        self._patience_ns = PROBE_AGAIN_NS
        self._since_ns = None
        self._probe = None

    def due_ns(self, sent: int, now_ns: int) -> int | None:
        """When to probe; None while everything that the broker has (up to `sent`) has a receipt."""
        if sent <= self.mark:
            self._since_ns = None
            return None
        if self._since_ns is None:
            self._since_ns = now_ns
        return self._since_ns + self._patience_ns

    def probed(self, last: int, covers: int, now_ns: int) -> None:
        """A probe left; the next one has more patience."""
        self._probe = Probe(last, covers)
        self._since_ns = now_ns
        self._patience_ns = min(2 * self._patience_ns, PROBE_MOST_NS)

    def gone(self, mark: int) -> None:
        """Up to here nothing is left that could be delivered."""
        self.mark = max(self.mark, mark)

    def receipt(self, mark: int, now_ns: int) -> int | None:
        """A receipt came. Returns from where to send again what the broker lost; None when it lost nothing."""
        moved = mark > self.mark
        if moved:
            self.mark = mark
            self._since_ns = now_ns
            self._patience_ns = PROBE_FIRST_NS
        probe = self._probe
        if probe is None or mark < probe.last:
            return None
        if moved and probe.last < mark < probe.covers:
            # It may be reading what waited for it, with the probe still behind: a loss is where it stops.
            return None
        self._probe = None
        return self.mark if self.mark < probe.covers else None

"""When the receiver is asked whether it has what the broker has. Pure: no I/O and no clock.

With `ack = "receiver"` a PUBACK only makes room in the window. A receipt shows what was lost before the last that it
holds (see `Outbound`). When nothing follows that could show it, the entry that was sent last is sent again as a probe: a
receipt that has it, from either time, proves that what was sent before it and is not held is lost. While the
receiver is merely away, nothing else is sent twice.
"""

from gateway.uplink.patience import NS_PER_S

PROBE_FIRST_NS = 10 * NS_PER_S
PROBE_AGAIN_NS = 2 * NS_PER_S
"""After a new connection: the broker may have forgotten everything."""
PROBE_MOST_NS = 600 * NS_PER_S
REORDER_NS = 2 * NS_PER_S
"""Receivers that share the work are not further apart: each commits what it took within the second of its receipts."""


class Release:
    """The patience of one stream with its receiver."""

    def __init__(self) -> None:
        self._patience_ns = PROBE_FIRST_NS
        self._since_ns: int | None = None

    def connected(self) -> None:
        """A new connection: what the broker had acknowledged may be lost."""
        self._patience_ns = PROBE_AGAIN_NS
        self._since_ns = None

    def due_ns(self, now_ns: int, *, waits: bool) -> int | None:
        """When to probe; None while everything that the broker has has a receipt."""
        if not waits:
            self._since_ns = None
            return None
        if self._since_ns is None:
            self._since_ns = now_ns
        return self._since_ns + self._patience_ns

    def sent(self, now_ns: int) -> None:
        """Something left that asks as well as a probe."""
        if self._since_ns is not None:
            self._since_ns = now_ns

    def probed(self, now_ns: int) -> None:
        """A probe left; the next one has more patience."""
        self._since_ns = now_ns
        self._patience_ns = min(2 * self._patience_ns, PROBE_MOST_NS)

    def moved(self, now_ns: int) -> None:
        """A receipt brought news."""
        self._since_ns = now_ns
        self._patience_ns = PROBE_FIRST_NS

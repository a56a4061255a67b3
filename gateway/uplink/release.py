"""When the receiver is asked whether it has what the broker has. Pure: no I/O and no clock.

With `ack = "receiver"` a PUBACK only makes room in the window. A receipt shows what was lost before the last that it
holds (see `Outbound`). When nothing follows that could show it, the entry that was sent last is sent again as a probe: a
receipt that has it, from either time, proves that what was sent before it and is not held is lost. While the
receiver is merely away, nothing else is sent twice.
"""

from collections.abc import Iterator

from gateway.uplink.patience import NS_PER_S
from gateway.uplink.spans import Spans

PROBE_FIRST_NS = 10 * NS_PER_S
PROBE_AGAIN_NS = 2 * NS_PER_S
"""After a new connection: the broker may have forgotten everything."""
PROBE_MOST_NS = 600 * NS_PER_S
REORDER_NS = 2 * NS_PER_S
"""Receivers that share the work are not further apart: each commits what it took within the second of its receipts."""
ASK_AGAIN_NS = NS_PER_S
"""What left so lately is asked about already."""
DOUBT_NS = 6 * NS_PER_S
"""What a stream lost waits no longer for those before it: time for a probe, its receipt, and `REORDER_NS` more."""


class Suspicion:
    """What receipts of one stream showed to be lost, and since when."""

    def __init__(self) -> None:
        self._older, self._newer = Spans(), Spans()
        self._older_ns = 0
        """The older was shown then at the latest, the newer after it."""

    def __iter__(self) -> Iterator[Spans]:
        return iter((self._older, self._newer))

    def add(self, first: int, last: int) -> None:
        """A receipt showed it."""
        for a, b in self._older.outside(first, last):
            self._newer.add(a, b)

    def take(self, now_ns: int, *, may_resend: bool) -> Spans:
        """What was shown so long ago that it is no more a matter of order, if it may. Call it with each receipt."""
        if self._older and not (may_resend and now_ns - self._older_ns >= REORDER_NS):
            return Spans()
        taken, self._older, self._newer = self._older, self._newer, Spans()
        self._older_ns = now_ns
        return taken


class Release:
    """The patience of one stream with its receiver."""

    def __init__(self) -> None:
        self._patience_ns = PROBE_FIRST_NS
        self._since_ns: int | None = None
        self._asked: tuple[int, int] | None = None

    def connected(self) -> None:
        """A new connection: what the broker had acknowledged may be lost."""
        self._patience_ns = PROBE_AGAIN_NS
        self._since_ns = self._asked = None

    def due_ns(self, now_ns: int, *, waits: bool) -> int | None:
        """When to probe; None while everything that the broker has has a receipt."""
        if not waits:
            self._since_ns = None
            return None
        if self._since_ns is None:
            self._since_ns = now_ns
        return self._since_ns + self._patience_ns

    def ask(self, now_ns: int, mark: int) -> None:
        """A stream behind it in the order lost something: so of what left up to `mark` this one may have as well."""
        if self._asked is None:
            self._asked = now_ns, mark
            if self._since_ns is None or now_ns - self._since_ns >= ASK_AGAIN_NS:
                self._since_ns = now_ns - self._patience_ns

    def reassure(self) -> None:
        """No stream behind it misses anything any more."""
        self._asked = None

    def asked_for(self, now_ns: int) -> int | None:
        """Up to where it was asked; None where it was not, or too long ago to hold up others."""
        if self._asked is None or now_ns - self._asked[0] >= DOUBT_NS:
            return None
        return self._asked[1]

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

"""Which link the next connection takes, and when to go back to a better one. Pure: no I/O, no clock, no event loop.

What the kernel says is a condition; the truth is the acknowledgement. A link whose connection went silent is suspect
until a probe or an acknowledgement proves it, and while another delivers it is looked at ever less often.

    what happened in use       | the link             | the next connection
    ---------------------------|----------------------|--------------------------------------------------------
    no carrier or no address   | out, until it is back| over the next one at once
    silence, or no way there   | suspect, rests       | over another one within `SWITCH_S`; with none, after back-off
    the other end said no      | rests                | over the same one after back-off: a broker that restarts is no
      the third time in a row  |   and is suspect     |   reason to move a thousand hubs to 4G; then over another one
    an acknowledgement         | proven               | -

    of a better link, while another delivers: once it is fit, `HOLD_S` later and doubled by each time that it failed
    lately, a probe; when that gets through, the connection moves.
"""

import random
from dataclasses import dataclass, field
from enum import StrEnum

from gateway.uplink.links.netlink import Facts
from gateway.uplink.patience import Backoff, to_ns
from gateway.uplink.wire import Reason

SWITCH_S = 0.3
"""Jitter before another link is taken because of silence: a broker that hangs must not get all hubs back at once."""
HOLD_S = 5.0
HOLD_MOST_S = 900.0
PROVEN_S = 60.0
"""A link that delivered for so long has no past."""
PATIENT = 3
"""Refusals in a row that are the broker's fault, not the link's."""
LINK_REASONS = frozenset({Reason.TIMEOUT, Reason.UNREACHABLE, Reason.DNS})
"""Nobody answered. All other reasons were said by somebody at the other end."""


class LinkState(StrEnum):
    """How a link stands. Stable tokens for `wardlink status`."""

    ABSENT = "absent"
    NO_CARRIER = "no_carrier"
    NO_ADDRESS = "no_address"
    USABLE = "usable"
    SUSPECT = "suspect"
    RESTING = "resting"


@dataclass(slots=True)
class _Row:
    facts: Facts
    suspect: bool = False
    failures: int = 0
    """In a row, without a batch taken over between them."""
    flaps: int = 0
    """Failures lately: an acknowledgement alone does not clear them, `PROVEN_S` of them do."""
    rest_ns: int = 0
    """When it may be tried again while nothing delivers."""
    back_ns: int = 0
    """When it may be looked at again while another one delivers."""


@dataclass(slots=True)
class Selector:
    """The links by their place in the configuration, 0 the best. The uplink has one connection or none."""

    count: int
    backoff: Backoff
    rng: random.Random
    current: int | None = None
    """The link of the connection that there is or that is being made."""
    _rows: list[_Row] = field(init=False)
    _pause_ns: int = 0
    _since_ns: int | None = None
    """The first acknowledgement over this connection."""

    def __post_init__(self) -> None:
        self._rows = [_Row(Facts()) for _ in range(self.count)]

    # --- What happened ---------------------------------------------------------------------------------

    def learn(self, link: int, facts: Facts, now_ns: int) -> bool:
        """The kernel's word. Returns whether the connection is lost by it."""
        row = self._rows[link]
        was_fit, row.facts = row.facts.fit, facts
        if facts.fit and not was_fit:
            self.stirred(link, now_ns)
        return link == self.current and not facts.fit

    def stirred(self, link: int, now_ns: int) -> None:
        """Something is new about it, a route say: worth a try before its rest is over, but not a move yet."""
        row = self._rows[link]
        row.suspect, self._pause_ns = False, 0
        row.rest_ns = min(row.rest_ns, now_ns)
        if self.current is not None:
            row.back_ns = max(row.back_ns, now_ns + self._hold_ns(row))

    def begin(self, now_ns: int) -> int | None:
        """The link to connect over now, which becomes `current`; None while all rest or none is fit."""
        self.current = self._choice(now_ns)
        self._since_ns = None
        return self.current

    def answered(self, now_ns: int, *, accepted: bool) -> None:
        """An acknowledgement came over the current link; `accepted` when it took a batch over."""
        if self.current is None:
            return
        row = self._rows[self.current]
        row.suspect = False
        if accepted:
            row.failures = 0
        if self._since_ns is None:
            self._since_ns = now_ns

    def failed(self, reason: Reason, now_ns: int) -> None:
        """The connection is gone, or could not be had. Where the link is not fit any more, that is the reason."""
        if self.current is None:
            return
        row, self.current = self._rows[self.current], None
        if self._since_ns is not None and now_ns - self._since_ns >= to_ns(PROVEN_S):
            row.flaps = row.failures = 0
        row.failures += 1
        row.flaps += 1
        row.back_ns = now_ns + self._hold_ns(row)
        if not row.facts.fit:
            row.rest_ns = now_ns
            return
        row.rest_ns = now_ns + self.backoff.delay_ns(row.failures)
        if reason in LINK_REASONS or row.failures >= PATIENT:
            row.suspect = True
            self._pause_ns = now_ns + to_ns(self.rng.uniform(0.0, SWITCH_S))
        else:
            self._pause_ns = row.rest_ns

    def probed(self, link: int, now_ns: int, *, through: bool) -> None:
        """A probe over a better link got an answer or none. If it did, `move` follows."""
        row = self._rows[link]
        row.suspect = not through
        if through:
            row.rest_ns = now_ns
        else:
            row.flaps += 1
        row.back_ns = now_ns + self._hold_ns(row)

    def move(self) -> None:
        """The connection was ended to take the better link: no fault of the one that it used."""
        self.current, self._pause_ns = None, 0

    # --- What to do ------------------------------------------------------------------------------------

    def retry_ns(self, now_ns: int) -> int | None:
        """When `begin` will have a link, `now_ns` at the earliest; None until something changes."""
        rests = [row.rest_ns for row in self._rows if row.facts.fit]
        return max(now_ns, self._pause_ns, min(rests)) if rests else None

    def probe(self, now_ns: int) -> tuple[int, int] | None:
        """A better link that is fit, and when to look at it; None where there is none, or nothing delivers yet."""
        if self.current is None or self._since_ns is None:
            return None
        better = (
            (max(now_ns, r.back_ns), n)
            for n, r in enumerate(self._rows[: self.current])
            if r.facts.fit
        )
        found = min(better, default=None)
        return None if found is None else (found[1], found[0])

    def has_other(self, now_ns: int) -> bool:
        """Whether another link would take over at once: then silence need not be borne for long."""
        return any(
            row.facts.fit and not row.suspect and row.rest_ns <= now_ns
            for n, row in enumerate(self._rows)
            if n != self.current
        )

    def state(self, link: int, now_ns: int) -> LinkState:
        """How it stands."""
        row = self._rows[link]
        if not row.facts.present:
            return LinkState.ABSENT
        if not row.facts.carrier:
            return LinkState.NO_CARRIER
        if not row.facts.address:
            return LinkState.NO_ADDRESS
        if link != self.current and now_ns < row.rest_ns:
            return LinkState.RESTING
        return LinkState.SUSPECT if row.suspect else LinkState.USABLE

    def _choice(self, now_ns: int) -> int | None:
        """The best that is not suspect; else of the suspects the one that rested longest."""
        if now_ns < self._pause_ns:
            return None
        ready = [n for n, r in enumerate(self._rows) if r.facts.fit and r.rest_ns <= now_ns]
        return min(
            ready,
            key=lambda n: (
                self._rows[n].suspect,
                self._rows[n].rest_ns if self._rows[n].suspect else 0,
                n,
            ),
            default=None,
        )

    def _hold_ns(self, row: _Row) -> int:
        return to_ns(min(HOLD_S * 2.0 ** min(max(row.flaps - 1, 0), 16), HOLD_MOST_S))

"""How long a connection over a link may be silent, and when and where the next is tried. No I/O lives here."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.uplink.links.selector import Selector
from gateway.uplink.patience import Patience, Timing
from gateway.uplink.wire import UplinkError

QUICK_S = 2.0
"""Without any acknowledgement for so long and twice the round trip, a connection is dead while another link would do.
With no other it keeps the patience of `Timing.answer`: there is nothing to be gained by a hurry."""
DOUBT_S = 0.15
"""After so much silence and twice the round trip, the kernel is asked whether the link still has its carrier: it knows at
once, but tells by itself up to a second later (it spaces such events, net/core/link_watch.c)."""


@dataclass(slots=True)
class LinkPace:
    """The uplink's pace where there are links: patience is a matter of the link, back-off too.

    Attributes:
        last_answer_ns: when the last acknowledgement came; None before the first.
        silent_since_ns: the same, or the start.
        answered_ns: the same for each link.
        moving: the connection is being ended to take a better link.
        trouble: how the last connection failed; empty when it was moved.
    """

    selector: Selector
    timing: Timing
    clock_ns: Callable[[], int]
    delivers: Callable[[], None]
    """Called at the first acknowledgement of a connection."""
    doubts: Callable[[], None] = lambda: None
    """Called once in a silence while another link would do."""
    last_answer_ns: int | None = None
    moving: bool = False
    trouble: str = ""
    silent_since_ns: int = field(init=False)
    answered_ns: list[int | None] = field(init=False)
    _patience: list[Patience] = field(init=False)
    _heard_ns: int | None = None
    _doubted_ns: int = 0
    _last: int = 0

    def __post_init__(self) -> None:
        self.silent_since_ns = self.clock_ns()
        self.answered_ns = [None] * self.selector.count
        self._patience = [Patience(self.timing) for _ in self.answered_ns]

    @property
    def round_trip_ns(self) -> int:
        """Smoothed, of the link in use or last used; 0 before its first answer."""
        return self._patience[self._last].round_trip_ns

    def round_trip_of(self, link: int) -> int:
        """Smoothed; 0 before its first answer."""
        return self._patience[link].round_trip_ns

    def connected(self, _now_ns: int) -> None:
        """There is a connection over the selector's current link."""
        self._heard_ns = None
        if self.selector.current is not None:
            self._last = self.selector.current

    def answered(self, sent_ns: int, now_ns: int, *, accepted: bool) -> None:
        """An acknowledgement came."""
        link = self.selector.current
        if link is None:
            return
        self._patience[link].answered(sent_ns, now_ns)
        self.answered_ns[link] = self.last_answer_ns = self.silent_since_ns = now_ns
        first, self._heard_ns = self._heard_ns is None, now_ns
        self.selector.answered(now_ns, accepted=accepted)
        if first:
            self.delivers()

    def due_ns(self, oldest_ns: int) -> int:
        """When to look again at a connection whose oldest unanswered message left then."""
        doubt_ns = self._doubt_ns(oldest_ns)
        due_ns = self._due_ns(oldest_ns)
        return due_ns if doubt_ns is None else min(due_ns, doubt_ns)

    def is_dead(self, oldest_ns: int, now_ns: int) -> bool:
        """Whether it was silent for too long; on the way there the kernel is asked."""
        dead = now_ns >= self._due_ns(oldest_ns)
        doubt_ns = self._doubt_ns(oldest_ns)
        if dead:
            self._patience[self._last].ran_out()
        elif doubt_ns is not None and now_ns >= doubt_ns:
            self._doubted_ns = doubt_ns
            self.doubts()
        return dead

    def _due_ns(self, oldest_ns: int) -> int:
        patience = self._patience[self._last]
        due = oldest_ns + patience.limit_ns
        if not self.selector.has_other(self.clock_ns()):
            return due
        return min(due, self._silent_ns(oldest_ns) + patience.limit_of(QUICK_S))

    def _doubt_ns(self, oldest_ns: int) -> int | None:
        """None when this silence was doubted already, or there is nowhere to go."""
        if not self.selector.has_other(self.clock_ns()):
            return None
        at_ns = self._silent_ns(oldest_ns) + self._patience[self._last].limit_of(DOUBT_S)
        return at_ns if at_ns > self._doubted_ns else None

    def _silent_ns(self, oldest_ns: int) -> int:
        """Not the age of the oldest message alone: on a link that fills up, answers come late but they come."""
        return max(oldest_ns, self._heard_ns or 0)

    def ended(self, error: UplinkError, now_ns: int) -> None:
        """The connection is gone, or could not be had."""
        if self.moving:
            self.moving, self.trouble = False, ""
            self.selector.move()
        else:
            self.trouble = error.text
            self.selector.failed(error.reason, now_ns)

    def retry_ns(self, now_ns: int) -> int | None:
        """When the next is tried; None while no link is fit."""
        return self.selector.retry_ns(now_ns)

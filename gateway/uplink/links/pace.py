"""How long a connection over a link may be silent, and when and where the next is tried. No I/O lives here."""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.uplink.links.selector import Selector
from gateway.uplink.patience import Patience, Timing
from gateway.uplink.wire import UplinkError

QUICK_S = 2.0
"""Without any acknowledgement for so long and twice the round trip, a connection is dead while another link would do.
With no other it keeps the patience of `Timing.answer`: there is nothing to be gained by a hurry."""


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
    last_answer_ns: int | None = None
    moving: bool = False
    trouble: str = ""
    silent_since_ns: int = field(init=False)
    answered_ns: list[int | None] = field(init=False)
    _patience: list[Patience] = field(init=False)
    _heard_ns: int | None = None
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
        """When a connection is dead whose oldest unanswered message left then."""
        patience = self._patience[self._last]
        due = oldest_ns + patience.limit_ns
        if not self.selector.has_other(self.clock_ns()):
            return due
        # Not the age of the oldest message alone: on a link that fills up, answers come late but they come.
        return min(due, max(oldest_ns, self._heard_ns or 0) + patience.limit_of(QUICK_S))

    def ran_out(self) -> None:
        """That moment has come."""
        self._patience[self._last].ran_out()

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

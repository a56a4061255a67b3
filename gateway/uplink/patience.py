"""How long to wait: before the next attempt, and for an answer. Pure: no clock, and randomness is handed in."""

import random
from dataclasses import dataclass
from typing import Protocol

from gateway.config.broker import Broker
from gateway.uplink.wire import UplinkError

NS_PER_S = 1_000_000_000


def to_ns(seconds: float) -> int:
    """Whole nanoseconds."""
    return int(seconds * NS_PER_S)


@dataclass(frozen=True, slots=True)
class Timing:
    """The uplink's clockwork, in seconds.

    Attributes:
        cursor: at most one durable cursor write per stream in this time. What a crash makes be sent again in it, the
            receiver drops; what more writes would wear is a memory card.
        answer: without an answer for this long and twice the measured round trip, the connection counts as dead.
        backoff_first, backoff_most: the ceiling of the back-off, doubling from the first to the last.
    """

    heartbeat: float = 10.0
    cursor: float = 30.0
    answer: float = 10.0
    backoff_first: float = 1.0
    backoff_most: float = 120.0


def timing_of(broker: Broker) -> Timing:
    """As its configuration wants it."""
    return Timing(backoff_first=broker.backoff_first_s, backoff_most=broker.backoff_most_s)


class Backoff:
    """Full jitter: anywhere between 0 and a ceiling that doubles, so that a thousand hubs do not return at once."""

    def __init__(self, timing: Timing, rng: random.Random) -> None:
        self._timing = timing
        self._rng = rng

    def delay_ns(self, attempt: int) -> int:
        """Before try `attempt`, counted from 1."""
        ceiling = self._timing.backoff_first * 2.0 ** min(attempt - 1, 16)
        return to_ns(self._rng.uniform(0.0, min(ceiling, self._timing.backoff_most)))


class Patience:
    """How long an answer may take, from the round trips measured.

    Attributes:
        round_trip_ns: smoothed; 0 before the first answer.
        last_answer_ns: when the last one came; None before the first.
    """

    def __init__(self, timing: Timing) -> None:
        self._timing = timing
        self._deaths = 0
        self.round_trip_ns = 0
        self.last_answer_ns: int | None = None

    def answered(self, sent_ns: int, now_ns: int) -> None:
        """An answer came."""
        round_trip_ns = now_ns - sent_ns
        previous = self.round_trip_ns or round_trip_ns
        self.round_trip_ns = (7 * previous + round_trip_ns) // 8
        self.last_answer_ns = now_ns
        self._deaths = 0

    def ran_out(self) -> None:
        """A connection died of it: the next may take twice as long, so that a slow link gets through in the end."""
        self._deaths = min(self._deaths + 1, 8)

    @property
    def limit_ns(self) -> int:
        """For one message, from leaving to its answer."""
        return self.limit_of(self._timing.answer)

    def limit_of(self, answer_s: float) -> int:
        """The same with another least time: the round trips and the deaths count in any case."""
        seconds = min(answer_s * 2**self._deaths, self._timing.backoff_most)
        return 2 * self.round_trip_ns + to_ns(seconds)


class Pace(Protocol):
    """How long a connection may be silent, and when the next one is tried."""

    @property
    def round_trip_ns(self) -> int:
        """Smoothed; 0 before the first answer."""
        ...

    @property
    def last_answer_ns(self) -> int | None:
        """When the last acknowledgement came; None before the first."""
        ...

    def connected(self, now_ns: int) -> None:
        """There is a connection."""
        ...

    def answered(self, sent_ns: int, now_ns: int, *, accepted: bool) -> None:
        """An acknowledgement came; `accepted` when it took a batch over."""
        ...

    def due_ns(self, oldest_ns: int) -> int:
        """When to ask `is_dead` of a connection whose oldest unanswered message left then."""
        ...

    def is_dead(self, oldest_ns: int, now_ns: int) -> bool:
        """Whether it was silent for too long."""
        ...

    def ended(self, error: UplinkError, now_ns: int) -> None:
        """The connection is gone, or could not be had."""
        ...

    def retry_ns(self, now_ns: int) -> int | None:
        """When the next is tried; None while there is no way at all. Asked anew whenever the uplink wakes."""
        ...


class OnePath:
    """The pace of a hub with one way to the broker: patience, and back-off between connections."""

    def __init__(self, timing: Timing, backoff: Backoff) -> None:
        self._patience = Patience(timing)
        self._backoff = backoff
        self._proven_ns = to_ns(timing.backoff_most)
        self._since_ns: int | None = None
        self._failures = 0
        self._retry_ns = 0

    @property
    def round_trip_ns(self) -> int:
        """Smoothed; 0 before the first answer."""
        return self._patience.round_trip_ns

    @property
    def last_answer_ns(self) -> int | None:
        """When the last acknowledgement came; None before the first."""
        return self._patience.last_answer_ns

    def connected(self, now_ns: int) -> None:
        """There is a connection."""
        self._since_ns = now_ns

    def answered(self, sent_ns: int, now_ns: int, *, accepted: bool) -> None:
        """An acknowledgement came."""
        self._patience.answered(sent_ns, now_ns)
        if accepted:
            self._failures = 0

    def due_ns(self, oldest_ns: int) -> int:
        """When a connection is dead whose oldest unanswered message left then."""
        return oldest_ns + self._patience.limit_ns

    def is_dead(self, oldest_ns: int, now_ns: int) -> bool:
        """Whether it was silent for too long."""
        dead = now_ns >= self.due_ns(oldest_ns)
        if dead:
            self._patience.ran_out()
        return dead

    def ended(self, _error: UplinkError, now_ns: int) -> None:
        """The next rest is longer, unless this connection lasted."""
        if self._since_ns is not None and now_ns - self._since_ns > self._proven_ns:
            self._failures = 0
        self._since_ns = None
        self._failures += 1
        self._retry_ns = now_ns + self._backoff.delay_ns(self._failures)

    def retry_ns(self, _now_ns: int) -> int:
        """When the next is tried."""
        return self._retry_ns

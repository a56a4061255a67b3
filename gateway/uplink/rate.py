"""How many messages a second a provider takes, as its broker counts them. Pure: no clock and no I/O."""

from collections import deque

from gateway.uplink.patience import NS_PER_S

SPARE = 5
"""A fifth of the rate is kept for what is urgent: an alarm does not wait until a backlog has made room."""


class Rate:
    """Of one connection. A message counts from its leaving until a second after its answer.

    It reached the broker somewhere between, so whatever the network delays and delivers at once, no second at the
    broker ever holds more than the limit.
    """

    def __init__(self, per_s: int | None) -> None:
        """None is no limit."""
        self._per_s = per_s
        self._answered_ns: deque[int] = deque()
        """Of the last second; never more than the limit."""

    def answered(self, now_ns: int) -> None:
        """An answer came."""
        if self._per_s is not None:
            self._answered_ns.append(now_ns)

    def has_room(self, in_flight: int, now_ns: int, *, urgent: bool = True) -> bool:
        """Whether one more message may leave while `in_flight` have no answer yet."""
        if self._per_s is None:
            return True
        self._forget(now_ns)
        limit = self._per_s if urgent else self._per_s - self._per_s // SPARE
        return in_flight + len(self._answered_ns) < limit

    def due_ns(self, now_ns: int) -> int | None:
        """When the next message stops to count; None where none counts but those without an answer."""
        self._forget(now_ns)
        return self._answered_ns[0] + NS_PER_S if self._answered_ns else None

    def _forget(self, now_ns: int) -> None:
        while self._answered_ns and now_ns - self._answered_ns[0] >= NS_PER_S:
            self._answered_ns.popleft()

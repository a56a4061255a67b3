"""What goes first, what may go now, and what somebody wants whatever that says. No I/O lives here.

Alarms go at once, in their order, and nobody is asked. Then, by `ORDER`: what became durable just now, what was asked
for, and what waits, newest day first. What the link may carry of that is the policy's word.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol

from gateway.journal.entry import Stream


class Age(StrEnum):
    """Why an entry would go now."""

    LIVE = "live"
    """It became durable since the stream was last caught up with, and that was within `LIVE_NS`."""
    ASKED = "asked"
    """An `Ask` covers it."""
    BACKLOG = "backlog"
    """It waited longer: for a network, or for the policy."""


class Policy(Protocol):
    """What the present link may carry. Called on the event loop, before each message: it answers at once.

    Alarms and what an `Ask` covers go whatever it would say: it is told of them by `sent`, and not asked before. When its
    mind changes by itself (a quiet hour ends, a budget fills) `next_change_ns` says when; when something else changes
    it (another link), wake the uplink with `Uplink.wake`.
    """

    def may_send(self, stream: Stream, age: Age, size_bytes: int, now_ns: int) -> bool:
        """Whether a message may leave now.

        Args:
            stream: what is in it; never the alarms.
            age: LIVE or BACKLOG.
            size_bytes: its payload. Topic, packet head and TLS come to less than 200 bytes more.
            now_ns: CLOCK_BOOTTIME.
        """
        ...

    def sent(self, stream: Stream, age: Age, size_bytes: int) -> None:
        """A message was handed to the link: to be charged, whoever let it go. One that is sent again is told again."""
        ...

    def next_change_ns(self, now_ns: int) -> int | None:
        """CLOCK_BOOTTIME, after `now_ns`, at which an answer may change by itself; None when none will."""
        ...

    def gather_ns(self) -> int:
        """How long what is live gathers to leave together. Alarms do not, and take along what has gathered."""
        ...

    def heartbeat_ns(self) -> int | None:
        """The time between two heartbeats; None for the usual."""
        ...


class Unmetered:
    """The policy of a link that costs nothing: everything may go, at once."""

    def may_send(self, _stream: Stream, _age: Age, _size_bytes: int, _now_ns: int) -> bool:
        """Yes."""
        return True

    def sent(self, stream: Stream, age: Age, size_bytes: int) -> None:
        """Charges nothing."""

    def next_change_ns(self, _now_ns: int) -> int | None:
        """Never."""
        return None

    def gather_ns(self) -> int:
        """Not at all."""
        return 0

    def heartbeat_ns(self) -> int | None:
        """As usual."""
        return None


@dataclass(frozen=True, slots=True)
class Ask:
    """A time range of a stream that somebody wants now, whatever the policy says.

    Attributes:
        name: who asks, so to speak: a second ask of the same name takes the place of the first.
        from_wall_ns, until_wall_ns: UTC in ns since 1970, by the hub's clock. The end may lie ahead: then what becomes
            durable until that moment is a part of it. Whole batches go, so a second or so before and behind does too.
    """

    name: str
    stream: Stream
    from_wall_ns: int
    until_wall_ns: int

    def __post_init__(self) -> None:
        if self.from_wall_ns >= self.until_wall_ns:
            raise ValueError(f"ask {self.name}: got an end that is not after its begin")


@dataclass(frozen=True, slots=True)
class AskProgress:
    """How an ask stands.

    Attributes:
        sent: entries that left on its account. What had left before is not sent again.
        waiting: entries known to be covered that have not arrived yet.
        is_done: its end has passed, and nothing of it is left to deliver. It stays listed until it is withdrawn.
    """

    ask: Ask
    sent: int
    waiting: int
    is_done: bool


COMMIT_NS = 2_000_000_000
"""What happened is durable at the latest so much later."""
MOST_ASKS = 16
"""Asks at a time, done ones not counted."""
LIVE_NS = 60_000_000_000
"""A stream that could not be caught up with for so long goes on with what becomes durable now; the rest waits."""
MOST_SPANS = 64
"""Spans of a stream that may wait apart from each other. Where one more would come to be, the smallest goes first."""
RANK: Mapping[Stream, int] = MappingProxyType(
    {Stream.ALARM: 0, Stream.VITALS: 1, Stream.AUDIT: 2, Stream.WAVEFORM: 3}
)
"""The streams of one age among themselves. An audit entry is small and rare, and says why the others are as they are."""
ORDER = tuple(
    (stream, age)
    for age in Age
    for stream in sorted(Stream, key=RANK.__getitem__)
    if stream is not Stream.ALARM
)
"""In which everything but the alarms is sent."""

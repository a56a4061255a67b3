"""What may go over the link in use: the configuration's word for each class, the month's budget, the quiet hours.

Alarms and what somebody asked for are not decided here: they go. The clock is asked only for quiet hours and months,
and where it is not to be trusted there are no quiet hours and no new month.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from gateway.clock import Clock, ClockReading, ClockState
from gateway.config.links import Allow, Link, Quiet
from gateway.journal.entry import Stream
from gateway.uplink.links.usage import Usage, month_of
from gateway.uplink.order import Age
from gateway.uplink.patience import NS_PER_S

OVERHEAD_BYTES = 200
"""Topic, packet head, signature, TLS record and acknowledgement beside a payload; and one part in 20 for TCP and IP."""
MINUTE_NS = 60 * NS_PER_S


def cost_bytes(size_bytes: int) -> int:
    """What a message costs on the air, about: retransmissions and keep-alives are not in it."""
    return size_bytes + size_bytes // 20 + OVERHEAD_BYTES


def minute_of_day(reading: ClockReading, quiet: Quiet) -> int | None:
    """By the clock that the span is told in; None while nobody has set it."""
    if reading.state is ClockState.UNSET:
        return None
    broken_down = time.gmtime if quiet.utc else time.localtime
    moment = broken_down(reading.wall_ns / NS_PER_S)
    return moment.tm_hour * 60 + moment.tm_min


@dataclass(frozen=True, slots=True)
class LinkPolicy:
    """The policy of whichever link is in use. Before there is one, nothing is held back: nothing can be sent."""

    clock: Clock
    usage: Usage
    current: Callable[[], tuple[Link, bool] | None]
    """The link in use, and whether its bytes cost money."""

    def may_send(self, stream: Stream, age: Age, size_bytes: int, _now_ns: int) -> bool:
        """Whether a message may leave now."""
        found = self.current()
        if found is None or stream is Stream.ALARM or age is Age.ASKED:
            return True
        link, metered = found
        if allowed(link, stream, metered=metered) is not Allow.ALWAYS:
            return False
        live_vitals = stream is Stream.VITALS and age is Age.LIVE
        reading = self.clock.read()
        if link.quiet is not None and not live_vitals:
            minute = minute_of_day(reading, link.quiet)
            if minute is not None and link.quiet.holds(minute):
                return False
        if stream is Stream.WAVEFORM and link.waveform_bytes_month is not None:
            self.usage.turn(month_of(reading))
            used = self.usage.of(link.name).used.waveform_bytes
            return used + cost_bytes(size_bytes) <= link.waveform_bytes_month
        return True

    def sent(self, stream: Stream, _age: Age, size_bytes: int) -> None:
        """A message was handed to the link."""
        found = self.current()
        if found is not None:
            self.usage.turn(month_of(self.clock.read()))
            waveform = stream is Stream.WAVEFORM
            self.usage.add(found[0].name, cost_bytes(size_bytes), waveform=waveform)

    def next_change_ns(self, now_ns: int) -> int | None:
        """The next minute while a quiet span or a month may begin or end: a clock that is set moves both."""
        found = self.current()
        if found is None:
            return None
        link, _ = found
        return (
            None if link.quiet is None and link.waveform_bytes_month is None else now_ns + MINUTE_NS
        )

    def gather_ns(self) -> int:
        """How long what is live gathers on the link in use."""
        found = self.current()
        return 0 if found is None else found[0].gather_s * NS_PER_S

    def heartbeat_ns(self) -> int | None:
        """The time between two heartbeats on the link in use."""
        found = self.current()
        return None if found is None else found[0].heartbeat_s * NS_PER_S


def allowed(link: Link, stream: Stream, *, metered: bool) -> Allow:
    """The configuration's word, or what stands for it."""
    match stream:
        case Stream.ALARM:
            return Allow.ALWAYS
        case Stream.VITALS:
            return link.vitals
        case Stream.AUDIT:
            return link.audit
        case Stream.WAVEFORM:
            return link.waveform or (Allow.REQUEST if metered else Allow.ALWAYS)


def wants_strips(link: Link, *, metered: bool) -> bool:
    """Whether the waveform around an alarm has to be asked for, since waveform does not go by itself."""
    may = allowed(link, Stream.WAVEFORM, metered=metered)
    return may is Allow.REQUEST or (may is Allow.ALWAYS and link.waveform_bytes_month is not None)

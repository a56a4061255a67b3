"""Where each entry of one stream is: waiting, under way, with the broker, or delivered. Pure: no I/O and no clock.

Entries leave in any order; what was delivered is a set of spans, and the cursor stands before its first hole. On the
receiver's word an answer of the broker's delivers nothing yet. But a broker keeps the order of a topic: a receipt that
holds something shows that what was sent before it, and is not held, was lost. Where several receivers share the work
the order is kept only roughly; so what a later receipt still shows, `REORDER_NS` after the first, is sent again.
"""

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from gateway.uplink.receipt import Held
from gateway.uplink.release import Suspicion
from gateway.uplink.spans import Spans


@dataclass(frozen=True, slots=True)
class Flight:
    """One message on its way: its sequence numbers, its size, when it left, and the how manieth of its stream it is."""

    first: int
    last: int
    size_bytes: int
    sent_ns: int
    number: int = 0


@dataclass(slots=True)
class _Run:
    """Messages that left one after the other, each beginning where the one before ended: in the order of sequence."""

    number: int
    last_number: int
    first: int
    last: int


class Outbound:
    """One stream. Every entry up to `high` is in one place.

    Attributes:
        cursor: everything up to here is delivered, or gone from the journal.
        delivered: what of the rest is, too.
        pending: what is to be sent; the rest is under way, with the broker, or set aside.
        aside: what no message of this connection can carry; the next connection tries it again.
        high: the last sequence number known.
        sent: the highest that ever left.
        is_suspected: the last receipt left something of which one showed that it is lost, and which is not sent again yet.
    """

    def __init__(
        self, cursor: int, delivered: Iterable[tuple[int, int]] = (), *, by_receipt: bool = False
    ) -> None:
        """With `by_receipt` the receiver's word delivers, otherwise the broker's."""
        self._by_receipt = by_receipt
        self.cursor = self.high = self.sent = cursor
        self.delivered = Spans(delivered)
        self.delivered.remove(0, cursor)
        self.pending = Spans()
        self.aside = Spans()
        self._flights: dict[int, Flight] = {}
        self._runs: list[_Run] = []
        """With the broker, without a receipt, in the order of sending."""
        self._number = 0
        self._suspicion = Suspicion()
        self.is_suspected = False
        self._advance()

    # --- What it says ----------------------------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        """Messages without an answer."""
        return len(self._flights)

    @property
    def in_flight_bytes(self) -> int:
        """Their payload bytes."""
        return sum(flight.size_bytes for flight in self._flights.values())

    @property
    def oldest_ns(self) -> int | None:
        """When the oldest of them left; None when there is none."""
        return min((flight.sent_ns for flight in self._flights.values()), default=None)

    @property
    def unreceipted(self) -> int:
        """Entries that the broker has and the receiver did not say to have."""
        return sum(run.last - run.first + 1 for run in self._runs)

    @property
    def last_unreceipted(self) -> int | None:
        """Of these the one that was sent last; None when there is none."""
        return self._runs[-1].last if self._runs else None

    def is_clear(self, mark: int) -> bool:
        """The receiver said of everything up to `mark` that left whether it has it."""
        return all(run.first > mark for run in self._runs)

    def undelivered(self) -> Iterator[tuple[int, int]]:
        """Everything that is still to come."""
        return self.delivered.outside(self.cursor + 1, self.high)

    # --- What happens ----------------------------------------------------------------------------------

    def extend(self, high: int) -> None:
        """Everything up to `high` is durable."""
        if high > self.high:
            for first, last in self.delivered.outside(max(self.high, self.cursor) + 1, high):
                self.pending.add(first, last)
            self.high = high

    def launch(self, message_id: int, first: int, last: int, size_bytes: int, now_ns: int) -> None:
        """A message left with what was pending."""
        self._number += 1
        self._flights[message_id] = Flight(first, last, size_bytes, now_ns, self._number)
        self.pending.remove(first, last)
        self.sent = max(self.sent, last)

    def land(self, message_id: int, *, accepted: bool) -> Flight | None:
        """An answer came. Returns its flight, or None for an answer to nothing in flight."""
        flight = self._flights.pop(message_id, None)
        if flight is None:
            return None
        if accepted and not self._by_receipt:
            self._deliver(flight.first, flight.last)
            return flight
        for first, last in self._missing(flight.first, flight.last):
            if accepted:
                _entrust(self._runs, _Run(flight.number, flight.number, first, last))
            else:
                self.pending.add(first, last)
        return flight

    def disconnected(self) -> None:
        """What has no answer is to be sent again, and what was set aside is tried again."""
        for message_id in list(self._flights):
            self.land(message_id, accepted=False)
        aside, self.aside = self.aside, Spans()
        for span in aside:
            for first, last in self._missing(*span):
                self.pending.add(first, last)

    def gone(self, first: int, last: int) -> int:
        """The journal has nothing there any more. Returns how many entries were waiting for it."""
        waiting = sum(b - a + 1 for a, b in self.pending.within(first, last))
        for a, b in [*self.pending.within(first, last)]:
            self._deliver(a, b)
        for run in self._runs:
            self._deliver(max(first, run.first), min(last, run.last))
        self._tidy()
        return waiting

    def receipt(self, held: Held, now_ns: int, *, may_resend: bool = True) -> bool:
        """The receiver says what it holds. Returns whether that is more than before.

        Args:
            may_resend: False where what was lost waits for other streams, and so for a later receipt.
        """
        holes = Spans(held.holes)
        mark = min(held.high, self.high)
        before = self.cursor, self.delivered.count
        for span in self._lost(holes, mark):
            self._suspicion.add(*span)
        for first, last in [*holes.outside(self.cursor + 1, mark)]:
            self._deliver(first, last)
        lost = self._suspicion.take(now_ns, may_resend=may_resend)
        for first, last in self._without_receipt(lost):
            self.pending.add(first, last)
        self._tidy()
        self.is_suspected = any(self._without_receipt(found) for found in self._suspicion)
        return (self.cursor, self.delivered.count) != before

    # --- How -------------------------------------------------------------------------------------------

    def _without_receipt(self, spans: Spans) -> list[tuple[int, int]]:
        """What of these the broker has, and the receiver did not say to have."""
        return [
            span
            for run in self._runs
            for first, last in self._missing(run.first, run.last)
            for span in spans.within(first, last)
        ]

    def _lost(self, holes: Spans, mark: int) -> list[tuple[int, int]]:
        """What was sent before something that is held, and is not held itself."""

        def held_to(first: int, last: int) -> int:
            return max((b for _, b in holes.outside(first, min(last, mark))), default=0)

        proof = max(
            (f.number for f in self._flights.values() if held_to(f.first, f.last)), default=0
        )
        lost: list[tuple[int, int]] = []
        for run in reversed(self._runs):
            proved_to = run.last if run.last_number < proof else held_to(run.first, run.last)
            if proved_to:
                proof = max(proof, run.last_number + 1)
                lost += holes.within(run.first, min(proved_to, mark))
                lost += [
                    span for span in ((max(run.first, mark + 1), proved_to),) if span[0] <= span[1]
                ]
        return lost

    def _tidy(self) -> None:
        """Takes out of the runs what is delivered, or pending again."""
        runs: list[_Run] = []
        for run in self._runs:
            for a, b in self._missing(run.first, run.last):
                for first, last in self.pending.outside(a, b):
                    runs.append(_Run(run.number, run.last_number, first, last))
        self._runs = runs

    def _missing(self, first: int, last: int) -> list[tuple[int, int]]:
        return [*self.delivered.outside(max(first, self.cursor + 1), last)]

    def _deliver(self, first: int, last: int) -> None:
        self.pending.remove(first, last)
        self.delivered.add(max(first, self.cursor + 1), last)
        self._advance()

    def _advance(self) -> None:
        following = self.delivered.behind(self.cursor)
        if following and following[0] == self.cursor + 1:
            self.cursor = following[1]
            self.delivered.remove(*following)
            self.high = max(self.high, self.cursor)


def _entrust(runs: list[_Run], run: _Run) -> None:
    """The broker has it: in its place in the order of sending, as a part of the run before it where it follows on that."""
    at = bisect_left(runs, run.number, key=lambda other: other.last_number)
    before = runs[at - 1] if at else None
    if before and (before.last_number + 1, before.last + 1) == (run.number, run.first):
        before.last_number, before.last = run.number, run.last
    else:
        runs.insert(at, run)

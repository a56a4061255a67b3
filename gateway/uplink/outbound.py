"""What one stream has sent and what came back. Pure: no I/O, no clock, no event loop.

Acknowledgements may come in any order; the cursor moves over the contiguous prefix alone, so that whatever lies
behind it was acknowledged without a hole.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Flight:
    """One message on its way: its sequence numbers, its size, and when it left."""

    first: int
    last: int
    size_bytes: int
    sent_ns: int


class Outbound:
    """The sending state of one stream, from the durable cursor on.

    Attributes:
        cursor: everything up to this sequence number is acknowledged.
        sent: everything up to this sequence number was handed to the wire.
    """

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.sent = cursor
        self._flights: dict[int, Flight] = {}
        self._done: dict[int, int] = {}
        """First to last of each range behind the cursor's next hole that is acknowledged already."""

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

    def launch(self, message_id: int, flight: Flight) -> None:
        """A message left. It begins right behind the one before."""
        self._flights[message_id] = flight
        self.sent = flight.last

    def skip(self, last: int) -> None:
        """Everything from `sent` to `last` no longer exists in the journal: nothing to wait for."""
        self._done[self.sent + 1] = last
        self.sent = last
        self._advance()

    def land(self, message_id: int, *, accepted: bool) -> Flight | None:
        """An answer came. Returns its flight, or None for an answer to nothing in flight."""
        flight = self._flights.pop(message_id, None)
        if flight is not None and accepted:
            self._done[flight.first] = flight.last
            self._advance()
        return flight

    def rewind(self, to: int | None = None) -> None:
        """Forget what was sent behind the cursor, or behind `to` before it, so that it is sent again."""
        self._flights.clear()
        self._done.clear()
        self.cursor = self.cursor if to is None else min(to, self.cursor)
        self.sent = self.cursor

    def _advance(self) -> None:
        while (last := self._done.pop(self.cursor + 1, None)) is not None:
            self.cursor = last

"""What the uplink needs of the journal."""

from collections.abc import Iterable
from typing import Protocol

from gateway.clock import ClockReading
from gateway.journal.entry import Batch, Stream

Span = tuple[int, int]


class Source(Protocol):
    """A journal's reading end.

    `epoch`, `acknowledged`, `remembered` and `high_water` are for the event loop; the rest is called in a worker thread,
    one at a time.
    """

    @property
    def epoch(self) -> str:
        """Names the life of the journal."""
        ...

    def acknowledged(self, stream: Stream) -> int:
        """The durable cursor."""
        ...

    def remembered(self, stream: Stream) -> Iterable[Span]:
        """What `acknowledge` was told last to be delivered behind the cursor; less where that was lost."""
        ...

    def high_water(self, stream: Stream) -> int:
        """The last durable sequence number; 0 when there is none."""
        ...

    def read(self, stream: Stream, after: int) -> Batch | None:
        """The durable batch with entry `after + 1`, or the next one that still exists."""
        ...

    def read_packed(
        self, stream: Stream, after: int, until: int, most_bytes: int
    ) -> tuple[Batch, ...]:
        """As `read`, but many of one kind without a hole between them, up to `until`, with their records undecoded."""
        ...

    def day_begin(self, stream: Stream, sequence: int) -> int:
        """Where the day of an entry begins, as far as it is known, and to the segment: `sequence` itself or before it."""
        ...

    def during(
        self, stream: Stream, from_wall_ns: int, until_wall_ns: int, boot_id: str, now: ClockReading
    ) -> tuple[tuple[Span, ...], bool]:
        """Where the entries lie that were committed in a time, by the best clock of their boot.

        Returns:
            The spans, and whether that is all: else it is to be asked again, and gives more.
        """
        ...

    def acknowledge(self, stream: Stream, sequence: int, beyond: Iterable[Span] = ()) -> None:
        """Durable: everything up to `sequence` may be recycled, and `beyond` need not be sent again."""
        ...

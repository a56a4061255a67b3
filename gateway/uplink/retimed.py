"""The journal as it is sent: with the best time that is known now, which the moment of the commit did not have.

Stored bytes are never rewritten. What is sealed goes as it lies there; the receiver has the same rules.
"""

from collections.abc import Iterable
from dataclasses import replace

from gateway.clock import Clock, ClockReading
from gateway.journal.entry import Batch, SealedBatch, Stream
from gateway.timeline import Boot, agree
from gateway.uplink.source import Source, Span


class Retimed:
    """Satisfies `Source` by another one. Batches of the running boot leave with the clock as it is known now."""

    def __init__(self, source: Source, clock: Clock) -> None:
        self._source = source
        self._clock = clock
        self._boot = Boot(clock.boot_id)

    @property
    def epoch(self) -> str:
        """As the journal's."""
        return self._source.epoch

    def read(self, stream: Stream, after: int) -> Batch | None:
        """As the journal's, but for `clock`; `stamped` says what the commit had, where that was another time."""
        batch = self._source.read(stream, after)
        return None if batch is None else self._best(batch)

    def read_packed(
        self, stream: Stream, after: int, until: int, most_bytes: int
    ) -> tuple[Batch, ...]:
        """As `read`, of each."""
        batches = self._source.read_packed(stream, after, until, most_bytes)
        return tuple(self._best(batch) for batch in batches)

    def _best(self, batch: Batch) -> Batch:
        if isinstance(batch, SealedBatch) or batch.boot_id != self._boot.boot_id:
            return batch
        stored = batch.clock
        self._boot = self._boot.observe(stored).observe(self._clock.read())
        best = self._boot.reading_at(stored)
        is_same = best.state is stored.state and agree(best, stored)
        return replace(batch, clock=best, stamped=None if is_same else stored)

    def day_begin(self, stream: Stream, sequence: int) -> int:
        """As the journal's."""
        return self._source.day_begin(stream, sequence)

    def during(
        self, stream: Stream, from_wall_ns: int, until_wall_ns: int, boot_id: str, now: ClockReading
    ) -> tuple[tuple[Span, ...], bool]:
        """As the journal's."""
        return self._source.during(stream, from_wall_ns, until_wall_ns, boot_id, now)

    def acknowledge(self, stream: Stream, sequence: int, beyond: Iterable[Span] = ()) -> None:
        """As the journal's."""
        self._source.acknowledge(stream, sequence, beyond)

    def remembered(self, stream: Stream) -> Iterable[Span]:
        """As the journal's."""
        return self._source.remembered(stream)

    def acknowledged(self, stream: Stream) -> int:
        """As the journal's."""
        return self._source.acknowledged(stream)

    def high_water(self, stream: Stream) -> int:
        """As the journal's."""
        return self._source.high_water(stream)

"""From the ring of decided commands into the audit stream of the journal: each decision once, whatever crashes.

The number that a record is going to have in the journal is noted durably before the journal takes it. So a start knows
whether the last one arrived: its number is in the journal, or it is not. No key is needed for that, so it holds for a
sealed journal as well.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

from drivers.model import Event, EventKind
from gateway.clock import Clock
from gateway.intake import Intake
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.scan import Damage
from gateway.journal.slots import Slots
from gateway.journal.storage import DISK, Storage
from gateway.journal.watch import Watch
from gateway.spool import ACCEPTED, BLOCKS, DAMAGED, MARK, RING, Block, Mark, make_ring, read_ring
from gateway.verbosity import Verbosity

log = logging.getLogger(__name__)

AGAIN_S = 60.0
"""After a fault of the disk."""
Keep = Callable[[Event, Callable[[int], None]], Awaitable[int]]
"""What the intake does with an event: see `Intake.keep_noted`."""


class Audit:
    """The reading end of the ring. Built when the journal is open and nothing was appended to it yet."""

    def __init__(
        self,
        directory: Path,
        clock: Clock,
        *,
        epoch: str,
        high_water: int,
        damage: tuple[Damage, ...],
        storage: Storage = DISK,
    ) -> None:
        """Finds out whether the record that was being written arrived.

        Args:
            directory: the state directory.
            clock: for what has no time of its own.
            epoch: the journal's.
            high_water: of its audit stream, as this start found it.
            damage: what this start found unreadable in the journal.
            storage: the disk.

        Raises:
            JournalError: the disk cannot be used.
        """
        self._directory = directory
        self._clock = clock
        self._epoch = epoch
        self._storage = storage
        self._slots = Slots(directory / MARK, storage)
        try:
            names = storage.list(directory)
            self._mark = Mark.load(self._slots) or Mark()
            if self._mark.next is not None:
                number, noted_epoch, sequence = self._mark.next
                arrived = noted_epoch == epoch and sequence <= high_water
                lost = any(
                    found.stream is Stream.AUDIT
                    and found.first_sequence <= sequence <= found.last_sequence
                    for found in damage
                )
                done = number if arrived and not lost else self._mark.done
                # Durable before anything is appended: another record may get that sequence number now.
                self._write(Mark(self._mark.life, done))
        except OSError as error:
            raise JournalError(f"{directory / MARK}: cannot be used: {error}") from error
        self.is_there = RING in names
        """Whether a ring was there at the start: its decisions are taken up even where nobody may ask any more."""

    async def run(self, intake: Intake, verbosity: Verbosity) -> None:
        """Takes up what is decided until cancelled; woken by the write of the other half."""
        while True:
            try:
                watch = Watch(make_ring(self._storage, self._directory))
            except OSError as error:
                log.warning("audit: the ring of commands cannot be watched: %s", error)
                await asyncio.sleep(AGAIN_S)
                continue
            try:
                while True:
                    await self.take_up(intake.keep_noted, verbosity)
                    await watch.changed()
            except OSError as error:
                log.warning("audit: decided commands wait: %s", error)
                await asyncio.sleep(AGAIN_S)
            finally:
                watch.close()

    async def take_up(self, keep: Keep, verbosity: Verbosity) -> None:
        """Everything that is decided and not yet in the journal. Raises OSError; then it is tried again."""
        ring = await asyncio.to_thread(read_ring, self._storage, self._directory / RING)
        newest = ring.newest
        if newest is None:
            return
        if newest.life != self._mark.life:
            await self._begin_life(newest.life, keep)
        first = max(self._mark.done, newest.number - BLOCKS) + 1
        missing = list(range(self._mark.done + 1, first))
        for number in range(first, newest.number + 1):
            block = ring.blocks.get(number)
            if block is None:
                missing.append(number)
                continue
            if missing:
                await self._keep(missing[-1], self._damaged(missing[0], missing[-1]), keep)
                missing = []
            await self._keep(number, self._event(block), keep)
            self._apply(block, verbosity)

    async def _begin_life(self, life: bytes, keep: Keep) -> None:
        """A ring that was made anew. Of the one before it nobody knows how far it went."""
        if self._mark.done or self._mark.next:
            text = f"the ring of commands was made anew; what it held behind number {self._mark.done} is unknown"
            await self._keep(self._mark.done, self._note(DAMAGED, text), keep)
        await asyncio.to_thread(self._write, Mark(life))

    async def _keep(self, number: int, event: Event, keep: Keep) -> None:
        mark = self._mark

        def note(sequence: int) -> None:
            self._write(Mark(mark.life, mark.done, (number, self._epoch, sequence)))

        await keep(event, note)
        # Even if the mark cannot be written: what is in the journal is not put there again.
        self._mark = Mark(mark.life, number)
        await asyncio.to_thread(self._write, self._mark)

    def _write(self, mark: Mark) -> None:
        self._slots.write(mark.pack())
        self._mark = mark

    def _apply(self, block: Block, verbosity: Verbosity) -> None:
        """What this half has to do itself: nothing but the log level, while its time lasts."""
        decision = block.decision
        if decision.outcome == ACCEPTED and decision.boot_id == self._clock.boot_id:
            verbosity.raise_until(decision.log_level, decision.log_until_ns)

    def _event(self, block: Block) -> Event:
        decision = block.decision
        parts = [f"{decision.operator or 'somebody'}: {decision.kind or 'unknown'}", decision.text]
        is_this_boot = decision.boot_id == self._clock.boot_id
        if not is_this_boot:
            parts.append(f"in boot {decision.boot_id}")
        if decision.unrecorded:
            parts.append(f"{decision.unrecorded} refusals before it were not written down")
        at_ns = decision.clock.boottime_ns if is_this_boot else self._clock.boottime_ns()
        text = "; ".join(part for part in parts if part)
        return Event(EventKind.COMMAND, at_ns, decision.outcome, text, decision.command_id)

    def _damaged(self, first: int, last: int) -> Event:
        text = f"records {first} to {last} of decided commands cannot be read; what they said is unknown"
        return self._note(DAMAGED, text, last - first + 1)

    def _note(self, reason: str, text: str, lost: int | None = None) -> Event:
        return Event(EventKind.COMMAND, self._clock.boottime_ns(), reason, text, lost=lost)

"""Where a receiver keeps what came: a protocol that any storage can speak, and its half for one process alone.

A store has two kinds of things: lines (see docs/messages.md, "What the receiver writes"), and the ledger that says what
came already. Both change in one transaction, so that no crash can make one know more than the other.
"""

from collections.abc import Collection, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Protocol

from gateway.clock import Clock
from gateway.journal.entry import Stream
from gateway.receiver.ledger import Key, Ledger
from gateway.uplink.fields import Json
from gateway.uplink.receipt import Held

Line = Mapping[str, Json]
"""One thing to be kept: `type` is entry, gap, gap_closed, clock, heartbeat, status or rejected."""


class StoreError(Exception):
    """The store cannot be used now: away, locked, full. The text names no patient's data."""


class RefusedError(StoreError):
    """The store will never take these lines, whatever the time: something in them does not fit."""


@dataclass(frozen=True, slots=True)
class Totals:
    """`open_gaps`: named and not closed. `missing`: entries that should be here, named or not."""

    open_gaps: int = 0
    missing: int = 0


class Store(Protocol):
    """What `Intake` writes to. Each method may raise StoreError; the caller tries again later."""

    def begin(self, keys: Collection[Key], hubs: Collection[str]) -> tuple[Ledger, int]:
        """Opens a transaction.

        Returns:
            A ledger to work on, with the tracks of `keys` and the notices of `hubs` as they are stored, and nobody
            else changes them before the end; and the time now in ns, on the one clock that dates this store's holes.
        """
        ...

    def commit(self, lines: Sequence[Line]) -> None:
        """Keeps these lines and the ledger that `begin` gave, both or neither. The end of the process loses neither.

        Raises:
            RefusedError: it will never take these.
        """
        ...

    def rollback(self) -> None:
        """Ends the transaction without a trace. Safe to call when there is none."""
        ...

    def due(self, grace_ns: int) -> Collection[Key]:
        """The tracks with a hole that should have come `grace_ns` ago and was not named yet."""
        ...

    def held(self, hub: str, epoch: str) -> Mapping[Stream, Held]:
        """What is kept of a journal, for its receipt."""
        ...

    def totals(self) -> Totals:
        """Over all tracks."""
        ...

    @property
    def unsynced(self) -> bool:
        """Whether a power cut may lose something committed: then no receipt is given before `sync`."""
        ...

    def sync(self) -> None:
        """All that was committed is on the disk when it returns."""
        ...

    def close(self) -> None:
        """Gives back what it holds. Safe to call twice."""
        ...


class SoleStore:
    """The ledger in memory, for a store that one process writes. A subclass says in `write` how things are kept.

    docs/library.md has one of 30 lines.
    """

    def __init__(self, clock: Clock, ledger: Ledger | None = None) -> None:
        """Takes the ledger as it was when the process ended."""
        self.ledger = ledger or Ledger()
        self._clock = clock
        self._work = Ledger()

    def write(self, lines: Sequence[Line], changed: Ledger) -> None:
        """Keeps these lines and what changed in the ledger, all or nothing: for `state.documents` and `read_documents`.

        Raises:
            StoreError: nothing was kept; the same comes again.
            RefusedError: these lines will never be kept.
        """
        raise NotImplementedError

    def begin(self, keys: Collection[Key], hubs: Collection[str]) -> tuple[Ledger, int]:
        """Works on copies, so that a transaction that fails leaves no trace."""
        ledger, work = self.ledger, Ledger()
        for key in keys:
            if key in ledger.tracks:
                work.put(key, deepcopy(ledger.tracks[key]))
            journal = key.hub, key.epoch
            if journal in ledger.timelines:
                work.timelines[journal] = ledger.timelines[journal].copy()
        for hub in hubs:
            if hub in ledger.beats:
                work.beats[hub] = ledger.beats[hub]
            if hub in ledger.statuses:
                work.statuses[hub] = ledger.statuses[hub]
        self._work = work
        return work, self._clock.boottime_ns()

    def commit(self, lines: Sequence[Line]) -> None:
        """The lines, then the ledger."""
        self.write(lines, self._work)
        for key, track in self._work.tracks.items():
            self.ledger.put(key, track)  # a new one may push out the oldest of too many
        self.ledger.beats |= self._work.beats
        self.ledger.statuses |= self._work.statuses
        for journal, timeline in self._work.timelines.items():
            self.ledger.timeline(*journal)
            self.ledger.timelines[journal] = timeline
        self._work = Ledger()

    def rollback(self) -> None:
        """Forgets the copies."""
        self._work = Ledger()

    def due(self, grace_ns: int) -> Collection[Key]:
        """By the boot's clock."""
        now_ns = self._clock.boottime_ns()
        return [
            key
            for key, track in self.ledger.tracks.items()
            if any(hole.is_due(now_ns, grace_ns) for hole in track.holes)
        ]

    @property
    def unsynced(self) -> bool:
        """False where `write` is durable."""
        return False

    def held(self, hub: str, epoch: str) -> Mapping[Stream, Held]:
        """From memory."""
        return self.ledger.held(hub, epoch)

    def totals(self) -> Totals:
        """From memory."""
        return Totals(len(self.ledger.open_gaps()), self.ledger.missing())

    def sync(self) -> None:
        """Nothing to do where `write` is durable."""

    def close(self) -> None:
        """Nothing to give back."""

"""How far each stream has been acknowledged: one file, one writer at a time, any number of readers.

It is the only word that the process which delivers says to the one which writes: what may be used again, and what it
found unreadable on its way.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cbor2

from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.scan import Damage
from gateway.journal.slots import Slots
from gateway.journal.storage import File, Storage

BEYOND_KEPT = 40
"""Spans of one stream: with four streams they fit into a slot, whatever their numbers."""
DAMAGE_KEPT = 64
"""Ranges in the file. What stood there longest goes first: the writer of the log looks at each commit."""

Span = tuple[int, int]


class Cursor:
    """The cursor file of a journal. Whoever writes it holds its lock."""

    def __init__(self, directory: Path, storage: Storage, epoch: bytes = b"") -> None:
        self._path = directory / "cursor"
        self._storage = storage
        self._slots = Slots(self._path, storage)
        self._beyond_slots = Slots(directory / "delivered", storage)
        self.epoch = epoch
        """The life of the journal that it counts in; a reader learns it late."""
        self._lock_file: File | None = None
        self.acknowledged: dict[Stream, int] = dict.fromkeys(Stream, 0)
        """The last acknowledged sequence number of each stream, durable."""
        self.passed: dict[Stream, int] = dict.fromkeys(Stream, 0)
        """Where it stood at the start, or where this process moved it: damage up to there is no news."""
        self.damage: tuple[Damage, ...] = ()
        """What its writer found unreadable, the newest last."""
        self.beyond: dict[Stream, tuple[Span, ...]] = dict.fromkeys(Stream, ())
        """What was delivered behind it, as far as that is known: a hint that saves repeats."""

    @property
    def is_ours(self) -> bool:
        """Whether this process is the one that writes it."""
        return self._lock_file is not None

    def load(self) -> bool:
        """Whether there is a whole cursor of this epoch; if not, nothing changes."""
        self._load_beyond()
        return self._take_up(self._slots.load())

    def follow(self) -> bool:
        """Whether its writer has moved it since the last look. What was delivered behind it, no one but he wants to know."""
        return self._take_up(self._slots.news())

    def _take_up(self, payload: bytes | None) -> bool:
        match cbor2.loads(payload) if payload else None:
            case [bytes() as epoch, [*numbers], *damage] if epoch == self.epoch:
                self.acknowledged = dict(zip(Stream, numbers, strict=True))
                self.damage = _damage(damage)
                return True
            case _:
                return False

    def _load_beyond(self) -> None:
        payload = self._beyond_slots.load()
        match cbor2.loads(payload) if payload else None:
            case [bytes() as epoch, [*rows]] if epoch == self.epoch:
                spans = (tuple((first, last) for first, last in row) for row in rows)
                self.beyond = dict(zip(Stream, spans, strict=True))
            case _:
                pass

    def reached(self, stream: Stream) -> int:
        """A sequence number that was given away, so that it must not be given again."""
        return max([self.acknowledged[stream], *(last for _, last in self.beyond[stream])])

    def write_beyond(self, stream: Stream, spans: Iterable[Span]) -> None:
        """Keeps the largest of these spans. Durable on return; may raise OSError, and then the old ones stand."""
        largest = sorted(spans, key=lambda span: span[0] - span[1])[:BEYOND_KEPT]
        beyond = self.beyond | {stream: tuple(sorted(largest))}
        if beyond != self.beyond:
            rows = [[list(span) for span in beyond[each]] for each in Stream]
            self._beyond_slots.write(cbor2.dumps([self.epoch, rows]))
            self.beyond = beyond

    def begin(self, acknowledged: dict[Stream, int]) -> None:
        """Starts there unless there is a cursor. Left to the process that writes it, if there is one. May raise OSError."""
        lock_file = None if self.is_ours else self._storage.lock(self._lock_path)
        try:
            if not self.load():
                self.acknowledged = acknowledged
                if lock_file or self.is_ours:
                    self.write(acknowledged)
        finally:
            if lock_file:
                lock_file.close()
        self.passed = self.acknowledged

    def take(self) -> None:
        """Makes this process the one that writes it, until `release`.

        Raises:
            JournalError: another process is.
        """
        if self.is_ours:
            return
        lock_file = self._storage.lock(self._lock_path)
        if lock_file is None:
            raise JournalError(
                f"journal {self._path.parent}: another process acknowledges; expected one uplink"
                " for a journal, stop the other"
            )
        self._lock_file = lock_file
        self.load()

    def release(self) -> None:
        """Lets another process write it."""
        if self._lock_file:
            self._lock_file.close()
            self._lock_file = None

    def write(self, acknowledged: dict[Stream, int], damage: tuple[Damage, ...] = ()) -> None:
        """Durable on return. Raises OSError; then the old cursor stands."""
        kept = (*self.damage, *damage)[-DAMAGE_KEPT:]
        numbers = [acknowledged[stream] for stream in Stream]
        found = [[d.stream.value, d.first_sequence, d.last_sequence, d.reason] for d in kept]
        self._slots.write(cbor2.dumps([self.epoch, numbers, found]))
        self.acknowledged, self.damage = acknowledged, kept
        self.passed = acknowledged

    @property
    def _lock_path(self) -> Path:
        return self._path.with_suffix(".lock")


def _damage(rest: list[Any]) -> tuple[Damage, ...]:
    """A cursor of an earlier version carries none."""
    match rest:
        case [[*rows]]:
            return tuple(
                Damage(Stream(stream), first, last, reason) for stream, first, last, reason in rows
            )
        case _:
            return ()

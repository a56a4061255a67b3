"""How many bytes went over each link this month: durable, and on the safe side where the clock or the disk is not.

A month is a calendar month in UTC, known only while the clock is synchronised. What is counted before belongs to the
latest month known; a clock that was wrong for a while makes nothing be forgotten and nothing be counted twice, since
what stands under a later month belongs to this one too.
"""

import logging
import time
from dataclasses import dataclass
from pathlib import Path

import cbor2

from gateway.clock import ClockReading, ClockState
from gateway.journal.slots import Slots
from gateway.journal.storage import Storage

log = logging.getLogger(__name__)

RESERVE_BYTES = 262_144
"""Written ahead of what is used: a crash then counts too much and never too little, and the card is written rarely."""
UNKNOWN = 0
"""The month while nobody knows it."""
MONTHS_KEPT = 3
ALL = 1 << 62
"""Used, when the file is damaged: nobody knows how much, so nothing is left until the month ends."""


def month_of(reading: ClockReading) -> int:
    """Months since year 0, in UTC; UNKNOWN unless the clock is synchronised."""
    if reading.state is not ClockState.SYNCHRONISED:
        return UNKNOWN
    date = time.gmtime(reading.wall_ns / 1e9)
    return date.tm_year * 12 + date.tm_mon - 1


def month_text(month: int) -> str:
    """As in "2026-11"."""
    return "unknown" if month == UNKNOWN else f"{month // 12}-{month % 12 + 1:02d}"


@dataclass(slots=True)
class Used:
    """Bytes of one link in one month."""

    total_bytes: int = 0
    waveform_bytes: int = 0


class Months:
    """The counts of one link by month. Pure.

    Attributes:
        month: the one that is counted in now.
    """

    def __init__(self, rows: dict[int, Used] | None = None) -> None:
        self.rows = rows or {}
        self.month = max(self.rows, default=UNKNOWN)
        self._fell_from: int | None = None

    def turn(self, month: int) -> None:
        """What month it is, as far as anybody knows."""
        if month in {UNKNOWN, self.month}:
            return
        if month < self.month:
            log.warning(
                "links: the clock went from %s back to %s; both count as this month",
                month_text(self.month),
                month_text(month),
            )
        # What was counted in an unknown month, or in one that has not come yet, is at worst of this one; and so is all
        # that was counted since the clock fell out of this very month.
        returned = month == self._fell_from
        self._fell_from = self.month if month < self.month else None
        merged = self.rows.setdefault(month, Used())
        for other in list(self.rows):
            if other == UNKNOWN or other > month or (returned and other == self.month):
                used = self.rows.pop(other)
                merged.total_bytes += used.total_bytes
                merged.waveform_bytes += used.waveform_bytes
        for old in sorted(self.rows)[:-MONTHS_KEPT]:
            del self.rows[old]
        self.month = month

    @property
    def used(self) -> Used:
        """Of this month."""
        return self.rows.setdefault(self.month, Used())


class Usage:
    """The counts of all links, by name, in a file of two checksummed slots that one process writes."""

    def __init__(self, path: Path, storage: Storage, names: tuple[str, ...]) -> None:
        """Reads the file. One that is there and cannot be read counts as a budget used up."""
        self._slots = Slots(path, storage)
        payload = self._slots.load()
        there = path.name in storage.list(path.parent)
        self.damaged = payload is None and there
        found = _parse(payload) if payload else {}
        if found is None:
            self.damaged, found = True, {}
        if self.damaged:
            log.warning(
                "links: %s is damaged: how much was used is unknown, so the budgets of this month count as used up",
                path,
            )
            found = {name: Months({UNKNOWN: Used(ALL, ALL)}) for name in names}
        self._links = {**found, **{name: found.get(name) or Months() for name in names}}
        self._written = {name: months.used.total_bytes for name, months in self._links.items()}

    def turn(self, month: int) -> None:
        """What month it is, as far as anybody knows."""
        for name, months in self._links.items():
            before = months.month
            months.turn(month)
            if months.month != before:
                self._written[name] = 0

    def add(self, name: str, size_bytes: int, *, waveform: bool) -> None:
        """Bytes left over this link."""
        used = self._links[name].used
        used.total_bytes += size_bytes
        used.waveform_bytes += size_bytes if waveform else 0

    def of(self, name: str) -> Months:
        """The counts of a link."""
        return self._links[name]

    @property
    def is_due(self) -> bool:
        """Whether the file says less than what was used."""
        return any(m.used.total_bytes > self._written[name] for name, m in self._links.items())

    def payload(self, reserve_bytes: int = RESERVE_BYTES) -> bytes:
        """What `write` makes durable: a reserve ahead of what is used; none at the end of the process."""
        rows = {}
        for name, months in self._links.items():
            self._written[name] = months.used.total_bytes + reserve_bytes
            ahead = {months.month: reserve_bytes if months.used.total_bytes else 0}
            rows[name] = {
                month: [
                    used.total_bytes + ahead.get(month, 0),
                    used.waveform_bytes + ahead.get(month, 0),
                ]
                for month, used in months.rows.items()
            }
        return cbor2.dumps([1, rows])

    def write(self, payload: bytes) -> None:
        """Durable on return, unless the disk will not: then the next `RESERVE_BYTES` try again. For a worker thread."""
        try:
            self._slots.write(payload)
        except OSError as error:
            log.warning("links: cannot write how much was used: %s", error)


def _parse(payload: bytes) -> dict[str, Months] | None:
    match cbor2.loads(payload):
        case [1, dict(rows)]:
            return {
                name: Months({month: Used(*used) for month, used in months.items()})
                for name, months in rows.items()
            }
        case _:
            return None

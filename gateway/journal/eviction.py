"""What gives way when the budget is used up, and that each eviction is named once. No I/O of its own."""

from collections.abc import Mapping
from datetime import UTC, datetime
from threading import Lock

from drivers.model import Event, EventKind
from gateway.clock import Clock, ClockReading
from gateway.journal.entry import Stream
from gateway.journal.log import StreamLog
from gateway.journal.state import Evicted

EVICTABLE = (Stream.WAVEFORM, Stream.VITALS)
"""Lowest class first. Alarms and audit never give way."""


def eviction_event(evicted: Evicted, clock: Clock) -> Event:
    """The record that names an eviction. Its span stands only where it belongs to this boot; the text has wall time."""
    first, last, boot_id = evicted.first_sequence, evicted.last_sequence, evicted.boot_id
    begins, ends = evicted.begins, evicted.ends
    text = f"{evicted.stream} {first} to {last}: disk budget"
    from_ns = until_ns = None
    if begins is not None and ends is not None:
        text += f", kept {_wall(begins)} to {_wall(ends)}, boot {boot_id}"
        if boot_id == clock.boot_id:
            from_ns, until_ns = begins.boottime_ns, ends.boottime_ns
    return Event(
        EventKind.EVICTED,
        clock.boottime_ns(),
        "budget",
        text,
        from_ns=from_ns,
        until_ns=until_ns,
        lost=last - first + 1,
    )


def _wall(reading: ClockReading) -> str:
    moment = datetime.fromtimestamp(reading.wall_ns // 1_000_000_000, UTC)
    return f"{moment.isoformat().replace('+00:00', 'Z')} ({reading.state})"


class Evictions:
    """Decides, and keeps what has not been named durably yet.

    A stream above its quota gives way first. When none is, a stream gives way for itself or for a higher class, never
    for a lower one: so waveform can never push vitals below what is promised of them.
    """

    def __init__(
        self,
        logs: Mapping[Stream, StreamLog],
        lock: Lock,
        quota_segments: Mapping[Stream, int],
        named: Mapping[Stream, int] | None,
    ) -> None:
        """Takes the segments that are promised to streams, and what an earlier process has named."""
        self._logs = logs
        self._lock = lock
        self._quota = quota_segments
        self._found: list[Evicted] = []
        self._told: dict[Stream, int] = {}
        self.named: dict[Stream, int] = dict(named) if named else dict.fromkeys(Stream, 0)
        """Up to which sequence number of each stream the evictions are in the alarm stream, durable."""

    def recover(self, stream: Stream, acknowledged: int) -> None:
        """What is neither on disk nor acknowledged was evicted; it is found again only if nobody has named it."""
        first = max(acknowledged, self.named[stream]) + 1
        last = self._logs[stream].first_sequence - 1
        if first <= last:
            self._found.append(Evicted(stream, first, last))

    def make_room(self, asker: Stream, acknowledged: Mapping[Stream, int]) -> bool:
        """Gives one segment up for the stream that asks; False when nothing may be given up."""
        over = [s for s in EVICTABLE if len(self._logs[s].numbers) > self._quota.get(s, 0)]
        lower = EVICTABLE[: EVICTABLE.index(asker) + 1] if asker in EVICTABLE else EVICTABLE
        for stream in (*over, *lower):
            evicted = self._logs[stream].evict(acknowledged[stream])
            if evicted is None:
                continue
            if evicted.first_sequence <= evicted.last_sequence:
                with self._lock:
                    self._found.append(evicted)
            return True
        return False

    def take(self) -> list[Evicted]:
        """What was given up since the last call."""
        with self._lock:
            taken, self._found = self._found, []
        return taken

    def told(self, evicted: Evicted) -> None:
        """Its record is appended, and durable after the next commit."""
        with self._lock:
            self._told[evicted.stream] = evicted.last_sequence

    def take_told(self) -> dict[Stream, int]:
        """What was told since the last call: it belongs into `named` when the commit that follows has succeeded."""
        with self._lock:
            told, self._told = self._told, {}
        return told

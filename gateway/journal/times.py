"""When each segment of a stream was begun, from its header alone: a few words of memory for a segment, and no key."""

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterator

from gateway.clock import ClockReading
from gateway.journal.files import Place, Places
from gateway.journal.segment import FrameHeader, SegmentHeader
from gateway.timeline import Boot

DAY_NS = 86_400_000_000_000
HEADERS = 256
"""Headers read at a time: some milliseconds on a memory card."""
FORGET = 4096
"""Segments that are gone and still take their words."""
UNKNOWN = -1


class SegmentTimes:
    """The index of one stream. It fills from the newest segment on, and what it does not know yet it does not claim.

    A time is the boot's own clock, turned into wall time by what is known of that boot: so what was written before the
    clock was set is found where it belongs.
    """

    def __init__(self, header: Callable[[Place], SegmentHeader | None]) -> None:
        """Takes what reads a header; None where that is damaged."""
        self._header = header
        self._base = self._low = self._end = 0
        """The segment number of the first word; what is known begins at `_low` and ends before `_end`."""
        self._boots = array("i")
        self._boottimes_ns = array("q")
        self._names: dict[str, int] = {}
        self._known: list[Boot] = []

    def update(self, places: Places, most: int = HEADERS) -> bool:
        """Reads what is new, the newest first, in at most so many headers. Returns whether all is known."""
        if not len(places):
            return True
        if not self._end:
            self._base, self._low = places[0].number, places[-1].number + 1
            self._end = self._low
        if places[0].number - self._base > FORGET:
            gone = places[0].number - self._base
            self._boots, self._boottimes_ns = self._boots[gone:], self._boottimes_ns[gone:]
            self._base = places[0].number
        more = places[-1].number + 1 - self._base - len(self._boots)
        self._boots.extend([UNKNOWN] * more)
        self._boottimes_ns.extend([0] * more)
        newer = bisect_left(places.numbers, self._end)
        older = bisect_left(places.numbers, self._low) - 1
        while most and newer < len(places):
            self._learn(places[newer])
            self._end = places[newer].number + 1
            newer, most = newer + 1, most - 1
        while most and older >= 0:
            self._learn(places[older])
            self._low = places[older].number
            older, most = older - 1, most - 1
        return newer == len(places) and older < 0

    def _learn(self, place: Place) -> None:
        header = self._header(place)
        if header is not None:
            at = place.number - self._base
            self._boots[at] = self.note(header.boot_id, header.clock)
            self._boottimes_ns[at] = header.clock.boottime_ns

    def note(self, boot_id: str, reading: ClockReading) -> int:
        """Both clocks of a boot at a moment. Returns its number."""
        at = self._names.setdefault(boot_id, len(self._known))
        if at == len(self._known):
            self._known.append(Boot(boot_id))
        self._known[at] = self._known[at].observe(reading)
        return at

    def day_begin(self, places: Places, sequence: int) -> int:
        """The first sequence number of the row of segments of one day that holds an entry; at most that entry's own."""
        if not len(places):
            return sequence
        at = places.at(sequence)
        day = self._day(places[at])
        while at and day is not None and self._day(places[at - 1]) == day:
            at -= 1
        return min(places[at].first_sequence, sequence)

    def during(
        self, places: Places, from_wall_ns: int, until_wall_ns: int
    ) -> Iterator[tuple[int, int]]:
        """The first and the last place of each row of segments that have something of a time, the newest row first."""
        row: tuple[int, int] | None = None
        ends_ns: int | None = None
        for at in range(len(places) - 1, -1, -1):
            if places[at].number < self._low:
                break
            begins_ns = self._wall_ns(places[at])
            if begins_ns is None:
                continue
            ends_before = ends_ns is not None and ends_ns < from_wall_ns
            ends_ns = begins_ns
            if begins_ns <= until_wall_ns and not ends_before:
                row = (at, row[1] if row else at)
            elif row:
                yield row
                row = None
        if row:
            yield row

    def frame_wall_ns(self, frame: FrameHeader) -> int:
        """When a frame was committed."""
        boot = self._known[self.note(frame.boot_id, frame.clock)]
        return boot.reading_at(frame.clock).wall_ns

    def _wall_ns(self, place: Place) -> int | None:
        at = place.number - self._base
        relation = None if self._boots[at] == UNKNOWN else self._known[self._boots[at]].relation
        return None if relation is None else relation.wall_of(self._boottimes_ns[at])

    def _day(self, place: Place) -> int | None:
        wall_ns = self._wall_ns(place)
        return None if wall_ns is None else wall_ns // DAY_NS

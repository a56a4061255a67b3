"""What is wrong with a signal, as an event each time that it changes."""

from collections.abc import Iterator

from drivers.assigned import Code
from drivers.model import Event, EventKind
from gateway.signal.leads import LeadStatus

SETTLED = 2
"""Seconds in a row that a status needs: a single one comes and goes with every movement."""

UNKNOWN = "unknown"

LEADS = {
    LeadStatus.UNKNOWN: UNKNOWN,
    LeadStatus.GOOD: "good",
    LeadStatus.OFF: "lead_off",
    LeadStatus.FLAT: "flat",
    LeadStatus.SATURATED: "saturated",
    LeadStatus.MAINS: "mains",
    LeadStatus.MOTION: "motion",
    LeadStatus.SILENT: "silent",
}
"""What an event calls the status of an ECG lead. Other signals use the words that fit them."""


class StatusLine:
    """Remembers what was said last of one signal."""

    def __init__(self, code: Code) -> None:
        self._code = code
        self._said = self._seen = UNKNOWN
        self._since_ns = 0
        self._seconds = 0

    def see(self, status: str, from_ns: int, until_ns: int) -> Iterator[Event]:
        """A second is over: says its status when it is another one than before, and holds."""
        if status != self._seen:
            self._seen, self._since_ns, self._seconds = status, from_ns, 0
        self._seconds += 1
        if status == self._said or self._seconds < SETTLED:
            return
        self._said = status
        yield Event(EventKind.SIGNAL, until_ns, status, code=self._code, from_ns=self._since_ns)

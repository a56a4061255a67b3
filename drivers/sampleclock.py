"""When a sample was taken, for devices that send samples but no time.

Bytes arrive late by a varying amount, never early. So the true time line is the lower envelope of
(arrival - n * period): the least delay seen, which leaks upwards slowly to follow a device whose crystal runs slow.
"""

LEAK_PER_MILLE = 50
"""How fast the envelope may rise: 5 %, above the 3 % of the worst crystal specified here (Contec, 60 +-2 Hz)."""

WINDOW_NS = 1_000_000_000
SLIP_NS = 100_000_000
"""Samples that all stay later than this for a whole window were not late: some before them are missing. So a loss
that leaves no broken frame behind is noticed from about 0.2 s upwards; a device that numbers its packets is better."""


class SampleClock:
    """The time line of one run of samples. All channels of one device share one clock."""

    def __init__(self, period_ns: int) -> None:
        self._period_ns = period_ns
        self.restart()

    def restart(self) -> None:
        """The next sample starts a new time line: what came before it is not connected with it."""
        self._count = 0
        self._origin_ns = 0
        self._seen_ns = 0
        self._window_from_ns = 0
        self._least_late_ns = 0

    def next(self, arrival_ns: int) -> int:
        """The time of the next sample, which arrived at `arrival_ns`. Never later than its arrival."""
        implied_ns = arrival_ns - self._count * self._period_ns
        if self._count == 0:
            self._origin_ns, self._window_from_ns = implied_ns, arrival_ns
        else:
            leak_ns = max(0, arrival_ns - self._seen_ns) * LEAK_PER_MILLE // 1000
            self._origin_ns = min(self._origin_ns + leak_ns, implied_ns)
        self._seen_ns = arrival_ns
        self._least_late_ns = min(self._least_late_ns, implied_ns - self._origin_ns)
        taken_ns = self._origin_ns + self._count * self._period_ns
        self._count += 1
        return taken_ns

    def slipped(self) -> int:
        """How many samples went missing in the window that just ended; 0 while none did.

        After any other number than 0 the caller must `restart`.
        """
        if self._seen_ns - self._window_from_ns < WINDOW_NS:
            return 0
        least_ns = self._least_late_ns
        self._window_from_ns, self._least_late_ns = self._seen_ns, 1 << 62
        return 0 if least_ns < SLIP_NS or least_ns == 1 << 62 else least_ns // self._period_ns

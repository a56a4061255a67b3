"""Compares what the devices produced with what reached the far end. Pure: ledgers and received lines in, verdict out.

The devices' ledgers are the truth. A sample counts as received only where its values on every channel stand in a
received block; a block that stands nowhere in what was produced counts as invented.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from drivers.assigned import Code
from firmware_sim.demo.received import Block, Gap, Number, Received
from firmware_sim.heart_rate_strap import Measured
from firmware_sim.ledger import Ledger

NS_PER_S = 1_000_000_000
BEAT_WINDOW_S = 0.150
"""A detected beat is the annotated one within 150 ms of it (ANSI/AAMI EC57)."""
DECIDED_S = 1.5
"""The hub decides on a beat up to 0.4 s after it, and tells it at the end of the next second, when that is judged. Where it
was killed sooner, nobody was told of the beat."""
SEARCH_SAMPLES = 256
"""How far from where its time puts it a block is looked for."""
GAP_SLACK_NS = NS_PER_S // 4
"""The hub knows when bytes arrived, not when they were sampled: so exact are the ends of its gaps."""
TICKS_PER_S = 1024


@dataclass(slots=True)
class Tally:
    """One device: what became of what it produced, in samples or notifications.

    Attributes:
        unheard: produced before the hub first listened.
        in_gaps: not received, and named as a gap by the hub.
        missing: not received, and not named: the one thing that must not be.
        repeated, invented: received twice; received and never produced.
    """

    produced: int = 0
    unheard: int = 0
    received: int = 0
    in_gaps: int = 0
    missing: int = 0
    repeated: int = 0
    invented: int = 0


@dataclass(frozen=True, slots=True)
class Beats:
    """Beats that the hub found in the samples, against the truth; None where nobody annotated it."""

    truth: int
    found: int
    missed: int
    false: int

    @property
    def within(self) -> float:
        """Wrong beats, missed and false together, as a share of the truth."""
        return (self.missed + self.false) / self.truth if self.truth else 0.0


@dataclass(frozen=True, slots=True)
class Drained:
    """What of one stream waited for the broker, and when its first and its last came, after the first of any stream."""

    stream: str
    waited: int
    first_s: float
    last_s: float


def drained(
    waited: Mapping[str, Collection[int]], came_ns: Mapping[tuple[str, int], int]
) -> list[Drained]:
    """In the order in which the streams were caught up with. What never came is the business of the rest of the proof."""
    times = {
        stream: [came_ns[stream, n] for n in numbers if (stream, n) in came_ns]
        for stream, numbers in waited.items()
    }
    began_ns = min((min(at_ns) for at_ns in times.values() if at_ns), default=0)
    rows = [
        Drained(stream, len(at_ns), (min(at_ns) - began_ns) / 1e9, (max(at_ns) - began_ns) / 1e9)
        for stream, at_ns in times.items()
        if at_ns
    ]
    return sorted(rows, key=lambda row: row.last_s)


@dataclass(slots=True)
class Proof:
    """The verdict."""

    board: Tally
    strap: Tally
    beats: Beats | None
    found_beats: int
    delays_ms: tuple[float, float] | None
    entries: int
    journalled: int
    sequence_holes: int
    sequence_repeats: int
    gaps: list[Gap] = field(default_factory=list)
    rejected: list[str] = field(default_factory=list)
    tolerance: float = 0.01
    drained: list[Drained] = field(default_factory=list)

    def faults(self) -> list[str]:
        """What is wrong, in words; empty when the proof holds."""
        found = []
        for name, tally in (("board", self.board), ("strap", self.strap)):
            if tally.received == 0:
                found.append(f"{name}: nothing was received")
            found.extend(
                f"{name}: {getattr(tally, what)} {what}"
                for what in ("missing", "repeated", "invented")
                if getattr(tally, what)
            )
        if self.sequence_holes:
            found.append(f"{self.sequence_holes} journalled records did not arrive")
        if self.sequence_repeats:
            found.append(f"{self.sequence_repeats} records were written twice")
        if self.rejected:
            found.append(f"{len(self.rejected)} messages were refused: {self.rejected[0]}")
        last_s = {row.stream: row.last_s for row in self.drained}
        if last_s.get("vitals", 0.0) > last_s.get("waveform", float("inf")):
            found.append("what waited: the vitals came after the waveform")
        if self.beats is not None and (not self.beats.truth or self.beats.within > self.tolerance):
            found.append(
                f"beats: {self.beats.missed} missed and {self.beats.false} false of {self.beats.truth}"
            )
        return found


@dataclass(frozen=True, slots=True)
class _Placed:
    """A received block and the number of its first sample in what was produced."""

    first_ns: int
    number: int
    count: int
    received_ns: int


def _named(gaps: Iterable[Gap], at_ns: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Which moments lie in a gap that the hub named."""
    inside = np.zeros(len(at_ns), bool)
    for gap in gaps:
        after = at_ns >= (gap.from_ns - GAP_SLACK_NS if gap.from_ns is not None else -(1 << 62))
        before = at_ns <= (gap.until_ns + GAP_SLACK_NS if gap.until_ns is not None else 1 << 62)
        inside |= after & before
    return inside


def _place(block: Block, ledger: Ledger, after: int) -> int | None:
    """Where a block stands in what was produced: nearest to its time, not before `after`."""
    expected = round((block.first_ns - ledger.start_ns) / ledger.period_ns)
    count = len(next(iter(block.channels.values())))
    low = max(0, after, expected - SEARCH_SAMPLES)
    high = min(ledger.produced - count, expected + SEARCH_SAMPLES)
    if high < low:
        return None
    produced = ledger.values(np.arange(low, high + count))
    windows = np.ones(high - low + 1, bool)
    for name, samples in block.channels.items():
        column = produced[name].astype(np.int64)
        windows &= (np.lib.stride_tricks.sliding_window_view(column, count) == samples).all(axis=1)
    matches = np.flatnonzero(windows) + low
    return int(matches[np.abs(matches - expected).argmin()]) if len(matches) else None


def board_tally(
    ledger: Ledger, blocks: Iterable[Block], gaps: Sequence[Gap]
) -> tuple[Tally, list[_Placed]]:
    """Every sample of the board accounted for."""
    tally = Tally(produced=ledger.produced)
    times = np.zeros(ledger.produced, np.int64)
    placed: list[_Placed] = []
    after = 0
    for block in sorted(blocks, key=lambda b: b.first_ns):
        number = _place(block, ledger, after)
        if number is None:
            again = _place(block, ledger, 0)
            count = len(next(iter(block.channels.values())))
            tally.repeated += count if again is not None else 0
            tally.invented += count if again is None else 0
            continue
        count = len(next(iter(block.channels.values())))
        times[number : number + count] += 1
        after = number + count
        placed.append(_Placed(block.first_ns, number, count, block.received_ns))
    if not placed:
        tally.missing = tally.produced
        return tally, placed
    tally.unheard = placed[0].number
    tally.received = int(np.count_nonzero(times))
    absent = np.flatnonzero(times[tally.unheard :] == 0) + tally.unheard
    named = _named(gaps, ledger.time_ns(absent))
    tally.in_gaps = int(np.count_nonzero(named))
    tally.missing = len(absent) - tally.in_gaps
    return tally, placed


def strap_tally(
    ledger: Sequence[Measured], numbers: Sequence[Number], gaps: Sequence[Gap]
) -> Tally:
    """Every notification that the strap's link took accounted for."""
    heard = [line for line in ledger if line.fate.value == "delivered"]
    tally = Tally(produced=len(ledger), unheard=len(ledger) - len(heard))
    arrived: list[tuple[int, int, tuple[int, ...]]] = []
    for number in numbers:
        if number.by_hub:
            continue
        if number.code == Code.ECG_HEART_RATE:
            # A strap without a signal sends 0; the hub says unknown.
            arrived.append((number.at_ns, round(number.value or 0), ()))
        elif number.code == Code.ECG_TIME_PD_RR_GL and number.value is not None and arrived:
            at_ns, rate, intervals = arrived[-1]
            ticks = round(number.value * TICKS_PER_S / 1000)
            arrived[-1] = (at_ns, rate, (*intervals, ticks))
    taken = [False] * len(heard)
    for at_ns, rate, intervals in arrived:
        near = [
            n
            for n, line in enumerate(heard)
            if (line.rate, line.intervals) == (rate, intervals)
            and abs(line.at_ns - at_ns) < NS_PER_S
        ]
        free = [n for n in near if not taken[n]]
        if free:
            taken[min(free, key=lambda n: abs(heard[n].at_ns - at_ns))] = True
            tally.received += 1
        elif near:
            tally.repeated += 1
        else:
            tally.invented += 1
    absent = np.array(
        [line.at_ns for line, got in zip(heard, taken, strict=True) if not got], np.int64
    )
    tally.in_gaps = int(np.count_nonzero(_named(gaps, absent)))
    tally.missing = len(absent) - tally.in_gaps
    return tally


def delays_ms(ledger: Ledger, placed: Sequence[_Placed]) -> tuple[float, float] | None:
    """Median and 99th percentile of the time from a sample to its line at the receiver."""
    if not placed:
        return None
    all_ns = [
        block.received_ns - ledger.time_ns(np.arange(block.number, block.number + block.count))
        for block in placed
    ]
    p50, p99 = np.percentile(np.concatenate(all_ns) / 1e6, (50, 99))
    return float(p50), float(p99)


def found_beats(
    numbers: Iterable[Number], placed: Sequence[_Placed], period_ns: float
) -> NDArray[np.float64]:
    """The hub's beats as sample numbers. An interval names two beats: where it ends and where it begins."""
    starts = [block.first_ns for block in placed]
    beats: list[float] = []
    for number in numbers:
        if not number.by_hub or number.code != Code.ECG_TIME_PD_RR_GL or number.value is None:
            continue
        at = bisect_right(starts, number.at_ns) - 1
        if at < 0:
            continue
        block = placed[at]
        end = block.number + (number.at_ns - block.first_ns) / period_ns
        begin = end - number.value * 1e6 / period_ns
        if not beats or abs(begin - beats[-1]) * period_ns > BEAT_WINDOW_S * NS_PER_S:
            beats.append(begin)
        beats.append(end)
    return np.array(sorted(beats))


def compare_beats(
    truth: NDArray[np.float64],
    found: NDArray[np.float64],
    covered: NDArray[np.bool_],
    rate_hz: float,
) -> Beats:
    """Pairs beats within 150 ms, where all samples around were received. Both in sample numbers."""
    window, decided = BEAT_WINDOW_S * rate_hz, DECIDED_S * rate_hz

    def inside(beats: NDArray[np.float64]) -> NDArray[np.float64]:
        edges = np.concatenate(([0], np.cumsum(covered)))
        low = np.clip(np.floor(beats - window).astype(int), 0, len(covered))
        high = np.clip(np.ceil(beats + decided).astype(int), 0, len(covered))
        whole = (edges[high] - edges[low] == high - low) & (beats >= window)
        kept: NDArray[np.float64] = beats[whole & (beats <= len(covered) - window)]
        return kept

    expected = inside(truth)
    unmatched = list(found)
    missed = 0
    for beat in expected:
        near = [other for other in unmatched if abs(other - beat) <= window]
        if near:
            unmatched.remove(min(near, key=lambda other: abs(other - beat)))
        else:
            missed += 1
    # A found beat beside an annotated one that the edge excluded is not false.
    rest = inside(np.array(unmatched)) if unmatched else np.empty(0)
    false = sum(1 for beat in rest if np.abs(truth - beat).min(initial=np.inf) > window)
    return Beats(len(expected), len(expected) - missed + false, missed, false)


def prove(
    ledger: Ledger,
    strap: Sequence[Measured],
    truth_beats: NDArray[np.float64] | None,
    rate_hz: float,
    received: Received,
) -> Proof:
    """The whole proof. `truth_beats` in samples; None where nobody annotated the recording."""
    blocks = [
        block
        for block in received.blocks["board"].values()
        if len(set(map(len, block.channels.values()))) == 1
    ]
    tally, placed = board_tally(ledger, blocks, [g for g in received.gaps if g.device == "board"])
    by_device = [n for n in received.numbers if n.device == "strap"]
    strap_result = strap_tally(strap, by_device, [g for g in received.gaps if g.device == "strap"])
    found = found_beats(
        [n for n in received.numbers if n.device == "board"], placed, ledger.period_ns
    )
    covered = np.zeros(ledger.produced, bool)
    for block in placed:
        covered[block.number : block.number + block.count] = True
    beats = None if truth_beats is None else compare_beats(truth_beats, found, covered, rate_hz)
    holes = repeats = entries = journalled = 0
    for key, numbers in received.sequences.items():
        distinct = set(numbers)
        last = max(received.high_water.get(key, 0), *distinct)
        entries += len(distinct)
        journalled += last
        holes += last - len(distinct)
        repeats += len(numbers) - len(distinct)
    return Proof(
        tally,
        strap_result,
        beats,
        len(found),
        delays_ms(ledger, placed),
        entries,
        journalled,
        holes,
        repeats,
        received.gaps,
        received.rejected,
    )

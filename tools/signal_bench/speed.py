"""What beats cost, and how long they take to be known."""

import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial

import numpy as np

from gateway.signal.ecg import EcgLeads, EcgStream
from gateway.signal.leads import QualityStream
from tools.signal_bench import data
from tools.signal_bench.beats import Options, best_peer
from tools.signal_bench.detectors import DETECTORS, OURS
from tools.signal_bench.jobs import SLOW
from tools.signal_bench.records import Floats
from tools.signal_bench.results import Section, Table, judge

ROUNDS = 9
PACKET_S = 0.1
LEADS = 8
REPEATS = 5
"""Of the fast ones in a round: a single pass is over in a millisecond."""
START_S = 3.0
"""The detector's first seconds are judged together: stated apart."""
FOLLOWED_S = 120
DELAY_S = 0.4


def cost_ns(ways: dict[str, tuple[Callable[[], object], int]], rounds: int) -> dict[str, float]:
    """Nanoseconds of processor time a sample, the median of interleaved rounds.

    Args:
        ways: by name, what is measured and how many samples it goes through.
        rounds: that count; one more before them warms up.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, (work, samples) in ways.items():
            begin = time.process_time_ns()
            work()
            took = time.process_time_ns() - begin
            if turn:
                times[name].append(took / samples)
    return {name: statistics.median(each) for name, each in times.items()}


def repeated(work: Callable[[], object]) -> Callable[[], None]:
    """The same several times."""

    def run() -> None:
        for _ in range(REPEATS):
            work()

    return run


def speed(options: Options) -> Section:
    """One lead of five minutes, in one call and in packets; the peers take the whole."""
    section = Section("speed", "Speed of the beats")
    record = data.packaged_ecg()
    x = np.ascontiguousarray(record.counts)
    step = round(PACKET_S * record.rate_hz)
    packets = [x[at : at + step] for at in range(0, len(x), step)]
    # As many leads, each a different part of the record: leads do not beat at the same sample.
    each = len(x) // LEADS
    together = np.ascontiguousarray(x[: each * LEADS].reshape(LEADS, each).T)
    wide = [together[at : at + step] for at in range(0, each, step)]

    def whole() -> None:
        EcgStream(record.rate_hz).process(x)

    def cut() -> None:
        stream = EcgStream(record.rate_hz)
        for packet in packets:
            stream.process(packet)

    def cut_leads() -> None:
        stream = EcgLeads(record.rate_hz, LEADS)
        for packet in wide:
            stream.process(packet)

    def whole_quality() -> None:
        QualityStream(record.rate_hz).process(x)

    def cut_quality() -> None:
        stream = QualityStream(record.rate_hz)
        for packet in packets:
            stream.process(packet)

    works = {
        "one call": whole,
        "packets of 100 ms": cut,
        f"{LEADS} leads, packets of 100 ms, a sample of a lead": cut_leads,
        "cleaning and quality index, one call": whole_quality,
        "cleaning and quality index, packets of 100 ms": cut_quality,
    }
    ways: dict[str, tuple[Callable[[], object], int]] = {
        f"{OURS}, {name}": (repeated(work), REPEATS * len(x)) for name, work in works.items()
    }
    for name in options.detectors:
        if name == OURS or name in SLOW:
            continue
        detector = DETECTORS[name]
        find = partial(detector.find, detector.prepare(record), record.rate_hz)
        ways[name] = (find, len(x))
    costs = cost_ns(ways, 3 if options.quick else ROUNDS)
    fastest = costs[f"{OURS}, one call"]
    rows = tuple((name, f"{ns:.1f}", f"{ns / fastest:.1f}x") for name, ns in costs.items())
    note = "Processor time, interleaved rounds, median; the peers take the whole. gqrs and xqrs stand in the table of MIT-BIH."
    title = f"{len(x)} samples at {record.rate_hz:g} Hz, one lead"
    section.tables.append(Table(title, ("", "ns/sample", "of ours"), rows, note))
    # What comes in packets is compared with what a peer costs when it may not wait for the end.
    pieces = {name: ns for name, ns in costs.items() if name.endswith("pieces")}
    for way, goal, others in (("one call", 12.0, costs), ("packets of 100 ms", 30.0, pieces)):
        got = costs[f"{OURS}, {way}"]
        what = f"beats, {way}, ns a sample"
        peer = best_peer(others, "{:.1f}", most=False)
        section.goals.append(judge(what, got, goal, least=False, text="{:.1f}", peer=peer))
    return section


def delays_of(x: Floats, rate_hz: float) -> tuple[Floats, Floats, float]:
    """Seconds from each beat to the sample that decided it: the usual ones, those of search-back.

    And by how much what a beat states of itself is wrong at most. Samples go in one by one. What happened in the first
    seconds is left out.
    """
    stream = EcgStream(rate_hz)
    usual: list[float] = []
    late: list[float] = []
    wrong = 0.0
    for n in range(len(x)):
        found = stream.process(x[n : n + 1])
        for at, is_late, stated in zip(found.index, found.late, found.delay_s, strict=True):
            if at >= START_S * rate_hz:
                took = (n - at) / rate_hz
                (late if is_late else usual).append(float(took))
                wrong = max(wrong, abs(float(stated - took)))
    return np.array(usual), np.array(late), wrong


def delay(options: Options) -> Section:
    """How long after it happened a beat is given out."""
    section = Section("delay", "Decision delay")
    names = options.some(data.mitdb())
    records = [data.load("mitdb", name) for name in names] or [data.packaged_ecg()]
    parts = [
        delays_of(np.ascontiguousarray(r.counts[: round(FOLLOWED_S * r.rate_hz)]), r.rate_hz)
        for r in records
    ]
    usual, late = (np.concatenate([part[side] for part in parts]) for side in (0, 1))
    beats = len(usual) + len(late)
    rows = (line("as they come", usual, beats), line("by search-back", late, beats))
    title = (
        f"The first {FOLLOWED_S} s of {len(records)} records sample by sample, after {START_S:g} s"
    )
    columns = ("beats", "number", "share %", "median s", "99 % s", "most s")
    wrong_ms = max(part[2] for part in parts) * 1000
    note = (
        f"Each beat states its delay: by {wrong_ms:.1f} ms at most another one than was measured here."
        " The peers need the whole record: none of them gives out a beat before its end."
    )
    section.tables.append(Table(title, columns, rows, note))
    most = float(usual.max()) if len(usual) else None
    what = "decision delay, search-back apart, most, s"
    section.goals.append(judge(what, most, DELAY_S, least=False, peer="the whole record"))
    return section


def line(name: str, delays: Sequence[float] | Floats, beats: int) -> tuple[str, ...]:
    """One kind of beats."""
    if not len(delays):
        return (name, "0", "0.00", "-", "-", "-")
    values = np.asarray(delays)
    cells = (np.median(values), np.quantile(values, 0.99), values.max())
    return (
        name,
        str(len(values)),
        f"{100 * len(values) / beats:.2f}",
        *(f"{v:.3f}" for v in cells),
    )

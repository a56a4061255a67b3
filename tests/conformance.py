"""What every driver must keep, whatever the device: the kit that a new driver gets for free.

A driver brings a `Case`: its options and a handful of distinct packets. From the packets alone the kit knows the
truth: the facts that each packet yields when it is fed by itself.
"""

import gc
import random
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from itertools import groupby

from drivers.contract import Driver, Integrity, Malformed, Output, Resume, SerialLink, Session
from drivers.model import Event, Observation, Record, SampleArray

NOW_NS = 5_000_000_000
Fact = tuple[object, ...]


@dataclass(frozen=True)
class Case:
    """Packets of one driver, each different from the others, in the order in which the device would send them."""

    driver: Driver
    packets: tuple[bytes, ...]
    source: str = ""
    options: Mapping[str, object] = field(default_factory=dict)

    @property
    def is_stream(self) -> bool:
        """Packets travel as a stream of bytes that may be cut anywhere, not as whole values."""
        return isinstance(self.driver.link, SerialLink)

    def session(self) -> Session:
        session = self.driver.session(self.options)
        list(session.start(NOW_NS, Resume()))
        return session


def feed(
    session: Session, source: str, pieces: Iterable[bytes], *, flush: bool = True
) -> list[Output]:
    """All outputs for pieces of bytes; a raised Malformed counts as emitted, any other exception goes through."""
    outputs: list[Output] = []
    for piece in pieces:
        try:
            outputs.extend(session.receive(source, piece, NOW_NS))
        except Malformed as malformed:
            outputs.append(malformed)
    if flush:
        outputs.extend(session.timeout(NOW_NS))
    return outputs


def comparable(outputs: Iterable[Output]) -> list[object]:
    """Outputs in a form that can be compared: exceptions by what they carry."""
    return [(o.reason, o.data, o.text) if isinstance(o, Malformed) else o for o in outputs]


def facts(outputs: Iterable[Output]) -> list[Fact]:
    """What was stated, packet by packet: sample arrays of one block become rows across all their signals."""
    observations = [output for output in outputs if isinstance(output, Observation)]
    stated: list[Fact] = []
    for is_wave, group in groupby(observations, lambda o: isinstance(o.value, SampleArray)):
        if not is_wave:
            stated.extend((o.code, o.value, o.quality) for o in group)
            continue
        for _, block in groupby(group, lambda o: o.determined_at_ns):
            stated.extend(_rows(list(block)))
    return stated


def _rows(block: list[Observation]) -> Iterator[Fact]:
    """One row per sample: (code, quality, value) of every signal; several blocks of equal time follow one another."""
    codes = list(dict.fromkeys(o.code for o in block))
    for start in range(0, len(block), len(codes)):
        part = block[start : start + len(codes)]
        columns = [o.value.samples() for o in part if isinstance(o.value, SampleArray)]
        for row in zip(*columns, strict=True):
            yield tuple(zip((o.code for o in part), (o.quality for o in part), row, strict=True))


def truth(case: Case) -> list[set[Fact]]:
    """The facts of each packet, learnt by feeding it alone."""
    return [set(facts(feed(case.session(), case.source, [packet]))) for packet in case.packets]


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """The same bytes in random pieces."""
    pieces = []
    while data:
        size = rng.choice((1, 2, 3, 7, 25, 64, 300, 4096))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


def check_codes(case: Case) -> None:
    """A driver emits only codes that its row announces, and every packet states something."""
    outputs = feed(case.session(), case.source, case.packets)
    for output in outputs:
        if isinstance(output, Observation):
            assert output.code in case.driver.codes, output.code
    assert all(truth(case)), "a packet of the case states nothing"


def check_cutting(case: Case, seed: int) -> None:
    """The whole stream, random pieces of it and single bytes give the same outputs."""
    stream = b"".join(case.packets)
    whole = comparable(feed(case.session(), case.source, [stream]))
    pieces = comparable(feed(case.session(), case.source, cut(stream, random.Random(seed))))
    single = comparable(feed(case.session(), case.source, [bytes([b]) for b in stream]))
    assert whole == pieces == single


def check_any_bytes(case: Case, sources: Iterable[str], data: bytes) -> None:
    """Any bytes from any source give records, commands or Malformed: never another exception."""
    for source in sources:
        session = case.session()
        for output in feed(session, source, [data, data[::-1]]):
            assert isinstance(output, Record | Malformed)


def check_resync(case: Case, junk: bytes) -> None:
    """After junk, every packet but at most the first is decoded, and the junk is reported with its bytes."""
    outputs = feed(case.session(), case.source, [junk, *case.packets])
    stated = set(facts(outputs))
    for packet in truth(case)[1:]:
        assert packet & stated, "a packet after junk was lost"
    assert not junk or any(isinstance(output, Malformed) for output in outputs)


def check_lost_run(case: Case, start: int, length: int) -> None:
    """Bytes missing from the stream never make facts out of two packets, cost few packets, and are noticed."""
    stream = b"".join(case.packets)
    size = len(stream) // len(case.packets)
    start %= len(stream) - 2 * size
    length = min(length, len(stream) - start - 2 * size)
    boundary = start % size == 0 and length % size == 0
    if case.driver.integrity is Integrity.FRAMING and length % size == 0 and not boundary:
        # Whole packets' worth of bytes lost in mid-packet joins two halves at the right length. Without a checksum
        # in the protocol nobody can tell; the row says so (integrity "framing").
        length += 1
    outputs = feed(case.session(), case.source, [stream[:start], stream[start + length :]])
    known: set[Fact] = set().union(*truth(case))
    wrong = [fact for fact in facts(outputs) if fact not in known]
    assert not wrong, f"stated what no packet said: {wrong[:2]}"
    expected = len(case.packets) - (length + size - 1) // size - 2
    rows = [fact for fact in facts(outputs) if isinstance(fact[0], tuple)]
    assert not rows or len(rows) >= expected
    if not boundary:
        assert any(isinstance(output, Malformed | Event) for output in outputs), (
            "the loss was not noticed"
        )


def check_bounded(case: Case, sources: Iterable[str], data: bytes) -> None:
    """Whatever comes, a session keeps no more than its row allows."""
    for source in sources:
        session = case.session()
        at_first = _size(session)
        for _ in range(24):
            feed(session, source, [data], flush=False)
            for packet in case.packets:
                feed(session, source, [packet[: len(packet) // 2], data[:5]], flush=False)
        assert _size(session) - at_first <= case.driver.buffer_bytes


def _size(root: object) -> int:
    """Bytes of everything that only an object's own attributes lead to."""
    seen: set[int] = set()
    total = 0
    todo = [root]
    while todo:
        item = todo.pop()
        if id(item) in seen or isinstance(item, type | Enum) or callable(item):
            continue
        seen.add(id(item))
        total += sys.getsizeof(item)
        if not isinstance(item, str | bytes | bytearray | int | float):
            todo.extend(gc.get_referents(item))
    return total

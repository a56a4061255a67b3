"""The chain of frames at the receiver: one history in whatever order it comes, and two of them never for one."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.journal.entry import Stream
from gateway.receiver.ledger import Key, Ledger, Span
from gateway.receiver.state import documents, read_documents
from gateway.uplink.payload import FrameTags
from gateway.uplink.spans import Spans

KEY = Key("hub", Stream.VITALS, "e1")
NONE = bytes(16)


@dataclass(frozen=True)
class Frame:
    first: int
    last: int
    tags: FrameTags

    @property
    def numbers(self) -> range:
        return range(self.first, self.last + 1)


def frames(sizes: Iterable[int], name: str, before: list[Frame] | None = None) -> list[Frame]:
    """What a hub writes behind what it wrote before."""
    made = list(before or ())
    for size in sizes:
        first = made[-1].last + 1 if made else 1
        previous = made[-1].tags.own if made else NONE
        own = hashlib.sha256(f"{name} {first} {size}".encode() + previous).digest()[:16]
        made.append(Frame(first, first + size - 1, FrameTags(previous, own)))
    return made


@dataclass
class Twin:
    """Slow and obvious: who brought each number. A number that came without a frame is None's until one covers it."""

    whose: dict[int, Frame | None] = field(default_factory=lambda: {0: None})

    def known(self, at: int) -> bytes | None:
        """At an edge behind `at`, the tag that must be there; None where there is no edge, or nobody said."""
        left, right = at in self.whose, at + 1 in self.whose
        if left == right:
            return None
        if at == 0:
            return NONE
        frame = self.whose[at if left else at + 1]
        if frame is None:
            return None
        if left:
            return frame.tags.own if frame.last == at else None
        return frame.tags.previous if frame.first == at + 1 else None

    def take(self, frame: Frame) -> bool:
        ends = {frame.first - 1: frame.tags.previous, frame.last: frame.tags.own}
        edges = {at: self.known(at) for at in range(frame.first - 1, frame.last + 1)}
        for number in frame.numbers:
            if self.whose.get(number) is None:
                self.whose[number] = frame
        return all(tag is None or ends.get(at) == tag for at, tag in edges.items())

    def take_plain(self, numbers: range) -> None:
        for number in numbers:
            self.whose.setdefault(number, None)


@dataclass
class World:
    """A ledger and its twin, which get the same."""

    ledger: Ledger = field(default_factory=Ledger)
    twin: Twin = field(default_factory=Twin)
    misfits: int = 0

    def take(self, frame: Frame) -> None:
        span = Span(frame.first, frame.last)
        fits = self.ledger.fits(KEY, span, frame.tags)
        taken = self.ledger.receive(KEY, span)
        new = {n for part in taken.new for n in range(part.first, part.last + 1)}
        assert new == set(frame.numbers) - self.twin.whose.keys()
        assert fits == self.twin.take(frame)
        self.misfits += not fits
        self.check()

    def take_plain(self, numbers: range) -> None:
        """As JSON, or what does not open: there is no tag in it that proves anything."""
        self.ledger.receive(KEY, Span(numbers[0], numbers[-1]))
        self.twin.take_plain(numbers)
        self.check()

    def beat(self, high_water: int) -> None:
        self.ledger.heartbeat(KEY, high_water, Spans(), 0)
        self.check()

    def restart(self) -> None:
        self.ledger = read_documents(documents(self.ledger).values(), 0)

    def check(self) -> None:
        """A tag at each edge where somebody said one, and no other; so they are bounded as the holes are."""
        track = self.ledger.track(KEY)
        top = max(self.twin.whose)
        expected = {at: tag for at in range(top + 1) if (tag := self.twin.known(at)) is not None}
        assert track.chain.tags == expected
        assert len(track.chain.tags) <= 2 * len(track.holes) + 1


SIZES = st.lists(st.integers(1, 5), min_size=1, max_size=8)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["frame", "frame", "frame", "plain", "restart", "beat"]),
        st.integers(0, 15),
        st.integers(1, 4),
    ),
    max_size=40,
)


def play(world: World, known: list[Frame], steps: list[tuple[str, int, int]]) -> None:
    for step, at, count in steps:
        frame = known[at % len(known)]
        match step:
            case "frame":
                world.take(frame)
            case "plain":
                world.take_plain(range(frame.first, min(frame.last, frame.first + count) + 1))
            case "beat":
                world.beat(frame.last)
            case _:
                world.restart()


@settings(max_examples=100, deadline=None)
@given(SIZES, STEPS)
def test_one_history_fits_in_any_order_with_holes_repeats_and_restarts(
    sizes: list[int], steps: list[tuple[str, int, int]]
) -> None:
    world = World()
    play(world, frames(sizes, "a"), steps)
    assert world.misfits == 0


@settings(max_examples=150, deadline=None)
@given(shared=SIZES, kept=st.integers(0, 8), one=SIZES, other=SIZES, steps=STEPS)
def test_two_histories_are_told_where_they_meet_and_nowhere_else(
    shared: list[int],
    kept: int,
    one: list[int],
    other: list[int],
    steps: list[tuple[str, int, int]],
) -> None:
    """A journal was put back to an earlier state and went on: the same numbers, other frames. The twin says where."""
    common = frames(shared, "a")[:kept]
    a, b = frames(one, "a", common), frames(other, "b", common)
    play(World(), [*a, *b[len(common) :]], steps)


@settings(max_examples=100, deadline=None)
@given(SIZES, st.integers(0, 3), SIZES, SIZES, st.data())
def test_what_was_taken_of_two_histories_is_never_silent(
    shared: list[int], kept: int, one: list[int], other: list[int], data: st.DataObject
) -> None:
    common = frames(shared, "a")[:kept]
    a, b = frames(one, "a", common), frames(other, "b", common)
    world = World()
    for frame in data.draw(st.permutations([*a, *b[len(common) :]])):
        world.take(frame)
    came = set(world.twin.whose.values())
    if came & set(a[len(common) :]) and came & set(b[len(common) :]):
        assert world.misfits > 0


@settings(max_examples=60, deadline=None)
@given(SIZES, SIZES, st.data())
def test_what_was_dropped_or_moved_between_two_frames_is_told(
    sizes: list[int], others: list[int], data: st.DataObject
) -> None:
    """The hub's numbers are whole, its frames are not: one is left out, and those behind it moved up."""
    genuine = frames([*sizes, *others], "a")
    gone = data.draw(st.integers(0, len(genuine) - 2))
    size = len(genuine[gone].numbers)
    forged = [
        Frame(frame.first - size, frame.last - size, frame.tags) for frame in genuine[gone + 1 :]
    ]
    world = World()
    for frame in data.draw(st.permutations([*genuine[:gone], *forged])):
        world.take(frame)
    assert world.misfits == 1
    assert world.ledger.track(KEY).holes == []


def test_a_final_hole_takes_its_tags_along(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.receiver.ledger.MAX_HOLES", 4)
    ledger, known = Ledger(), frames([1] * 40, "a")
    for frame in known[1::2]:
        assert ledger.fits(KEY, Span(frame.first, frame.last), frame.tags)
        ledger.receive(KEY, Span(frame.first, frame.last))
    track = ledger.track(KEY)
    assert [hole.span.first for hole in track.holes] == [33, 35, 37, 39]
    assert sorted(track.chain.tags) == [32, 33, 34, 35, 36, 37, 38, 39, 40]


def test_a_ledger_from_before_there_were_tags_goes_on_and_watches_from_then_on() -> None:
    ledger, known = Ledger(), frames([2, 2, 2, 2], "a")
    ledger.receive(KEY, Span(1, 2))
    old = [text.replace(dumped_tags(ledger), "") for text in documents(ledger).values()]
    assert not any("tags" in text for text in old)
    ledger = read_documents(old, 0)
    wrong = frames([2], "b", known[:2])[-1]
    assert ledger.track(KEY).chain.tags == {}
    for frame, fits in ((known[1], True), (wrong, True), (known[3], False)):
        assert ledger.fits(KEY, Span(frame.first, frame.last), frame.tags) is fits
        ledger.receive(KEY, Span(frame.first, frame.last))


def dumped_tags(ledger: Ledger) -> str:
    (text,) = documents(ledger).values()
    return text[text.index(',"tags"') : text.rindex("}")]

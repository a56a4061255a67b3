"""Whether frames that came follow each other as their hub wrote them, whatever order they come in. Pure.

A sealed frame carries its own tag and that of the frame before it. What came is known by its numbers; so a tag is kept
only at its edges, the high-water mark and both sides of each hole, until what lies beyond an edge comes and must fit.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.journal.segment import TAG_BYTES
from gateway.uplink.payload import FrameTags


@dataclass(slots=True)
class Chain:
    """One track's.

    Attributes:
        tags: behind a number at an edge, the tag of the frame that ends with it: its own word, or that of the frame
            that begins behind it. An edge that is not here was made by what has no tags, or is not known: nothing
            is said of it.
    """

    tags: dict[int, bytes] = field(default_factory=dict)

    @classmethod
    def begin(cls) -> "Chain":
        """Of a stream of which nothing came: its first frame has none before it."""
        return cls({0: bytes(TAG_BYTES)})

    def takes(self, first: int, last: int, frame: FrameTags) -> bool:
        """A frame with these numbers came: keeps its tags. Call `settle` when the numbers are taken.

        Returns:
            False where it cannot stand in one history with what came: its neighbour is another one, or a frame that
            came ends within it.
        """
        ends = {first - 1: frame.previous, last: frame.own}
        found = {at: tag for at, tag in self.tags.items() if first - 1 <= at <= last}
        self.tags = ends | self.tags
        return all(ends.get(at) == tag for at, tag in found.items())

    def settle(self, first: int, last: int, has: Callable[[int], bool]) -> None:
        """The numbers are taken, or given up: forgets what is no edge any more."""
        within = [at for at in self.tags if first - 1 <= at <= last]
        for at in within:
            if has(at) and has(at + 1):
                del self.tags[at]

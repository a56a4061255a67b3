"""What was asked for, as far as it is known which entries that is. No I/O lives here."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.clock import Clock
from gateway.journal.entry import Stream
from gateway.uplink.order import COMMIT_NS, MOST_ASKS, Ask, AskProgress
from gateway.uplink.spans import Spans


class _Lane(Protocol):
    @property
    def high_water(self) -> int: ...
    def undelivered(self) -> Spans: ...


@dataclass(slots=True)
class _State:
    """An ask, and the entries that it covers.

    Attributes:
        stored: what was durable when it came, as far as it was found.
        after: behind it lies what becomes durable while the ask runs, up to `last`.
        searched: everything that was stored is found.
    """

    ask: Ask
    after: int
    last: int
    stored: Spans = field(default_factory=Spans)
    searched: bool = False
    sent: int = 0

    def covered(self, first: int, last: int) -> Iterable[tuple[int, int]]:
        """What of these entries it covers; the newest first."""
        if max(first, self.after + 1) <= min(last, self.last):
            yield max(first, self.after + 1), min(last, self.last)
        yield from reversed([*self.stored.within(first, min(last, self.after))])


class Asks:
    """The open asks, the oldest first."""

    def __init__(self, clock: Clock, wake: Callable[[], None]) -> None:
        self._clock = clock
        self._wake = wake
        self._lanes: Mapping[Stream, _Lane] = {}
        self._states: dict[str, _State] = {}

    def follow(self, lanes: Mapping[Stream, _Lane]) -> None:
        """Whose entries are asked for."""
        self._lanes = lanes

    # --- For who asks --------------------------------------------------------------------------------

    def add(self, ask: Ask) -> None:
        """Sends a time range whatever the policy says. Kept until it is withdrawn, or this process ends.

        Raises:
            ValueError: `MOST_ASKS` are open already.
        """
        wall_ns = self._clock.read().wall_ns
        others = sum(
            not self._is_done(state, wall_ns)
            for name, state in self._states.items()
            if name != ask.name
        )
        if others >= MOST_ASKS:
            raise ValueError(f"ask {ask.name}: {others} are open, expected fewer than {MOST_ASKS}")
        self.withdraw(ask.name)
        high_water = self._lanes[ask.stream].high_water
        self._states[ask.name] = _State(ask, high_water, high_water)
        self._wake()

    def withdraw(self, name: str) -> None:
        """Nobody wants it any more. Harmless when there is none of that name."""
        self._states.pop(name, None)

    def progress(self) -> tuple[AskProgress, ...]:
        """How each ask stands that was not withdrawn, the oldest first."""
        wall_ns = self._clock.read().wall_ns
        self.look(wall_ns)
        return tuple(
            AskProgress(s.ask, s.sent, self._waiting(s), self._is_done(s, wall_ns))
            for s in self._states.values()
        )

    # --- For the lanes ---------------------------------------------------------------------------------

    def look(self, wall_ns: int) -> None:
        """What became durable before an end that lies ahead, and behind a begin, is covered."""
        for state in self._states.values():
            ask, high_water = state.ask, self._lanes[state.ask.stream].high_water
            if wall_ns < ask.from_wall_ns:
                state.after = state.last = high_water
            elif wall_ns < ask.until_wall_ns + COMMIT_NS:
                state.last = high_water

    def unsearched(self) -> Ask | None:
        """One whose stored entries are to be looked for."""
        return next((s.ask for s in self._states.values() if not s.searched), None)

    def found(self, ask: Ask, spans: Iterable[tuple[int, int]], *, all_of_it: bool) -> None:
        """Where an ask's stored entries lie."""
        state = self._states.get(ask.name)
        if state is not None and state.ask == ask:
            for first, last in spans:
                state.stored.add(first, min(last, state.after))
            state.searched = all_of_it

    def front(self, stream: Stream, pending: Spans) -> tuple[int, int] | None:
        """What of the pending entries is to go next because somebody asked; None when there is none."""
        for state in self._states.values():
            if state.ask.stream is stream:
                for first, last in state.covered(1, state.last):
                    for span in pending.within(first, last):
                        return span
        return None

    def sent(self, stream: Stream, first: int, last: int) -> None:
        """Entries left on account of an ask."""
        for state in self._states.values():
            if state.ask.stream is stream:
                state.sent += sum(b - a + 1 for a, b in state.covered(first, last))

    def _waiting(self, state: _State) -> int:
        undelivered = self._lanes[state.ask.stream].undelivered()
        return sum(
            b - a + 1
            for first, last in state.covered(1, state.last)
            for a, b in undelivered.within(first, last)
        )

    def _is_done(self, state: _State, wall_ns: int) -> bool:
        over = wall_ns >= state.ask.until_wall_ns + COMMIT_NS
        return over and state.searched and not self._waiting(state)

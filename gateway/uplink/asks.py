"""What was asked for, as far as it is known which entries that is. No I/O lives here."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.clock import Clock
from gateway.journal.entry import Stream
from gateway.uplink.order import MOST_ASKS, Ask, AskProgress


class _Lane(Protocol):
    @property
    def released(self) -> int: ...
    @property
    def high_water(self) -> int: ...


@dataclass(slots=True)
class _State:
    """An ask, and the entries that it covers: from the first that was not delivered when it came to `last`."""

    ask: Ask
    first: int
    last: int
    sent: int = 0


class Asks:
    """The open asks. What is covered is everything undelivered up to the end: the begin is not looked at yet."""

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
        others = sum(
            not self._is_done(s, self._clock.read().wall_ns)
            for name, s in self._states.items()
            if name != ask.name
        )
        if others >= MOST_ASKS:
            raise ValueError(f"ask {ask.name}: {others} are open, expected fewer than {MOST_ASKS}")
        self.withdraw(ask.name)
        lane = self._lanes[ask.stream]
        self._states[ask.name] = _State(ask, lane.released + 1, lane.high_water)
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
        """What became durable before an end that lies ahead is covered."""
        for state in self._states.values():
            if wall_ns < state.ask.until_wall_ns:
                state.last = max(state.last, self._lanes[state.ask.stream].high_water)

    def covers(self, stream: Stream, sequence: int) -> bool:
        """Whether somebody asked for an entry."""
        return any(
            state.ask.stream is stream and state.first <= sequence <= state.last
            for state in self._states.values()
        )

    def sent(self, stream: Stream, first: int, last: int) -> None:
        """Entries left on account of an ask."""
        for state in self._states.values():
            if state.ask.stream is stream:
                state.sent += max(0, min(last, state.last) - max(first, state.first) + 1)

    def _waiting(self, state: _State) -> int:
        return max(0, state.last - max(state.first - 1, self._lanes[state.ask.stream].released))

    def _is_done(self, state: _State, wall_ns: int) -> bool:
        return wall_ns >= state.ask.until_wall_ns and not self._waiting(state)

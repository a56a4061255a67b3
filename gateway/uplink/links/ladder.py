"""What is done when acknowledgements stay away on all links: step by step, each with a reason, each counted. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from gateway.uplink.patience import to_ns


class Step(StrEnum):
    """The steps, the mildest first. Stable tokens for `wardlink status`."""

    RESOLVE = "resolve"
    """The broker's name is asked for again."""
    NEW_SOCKET = "new_socket"
    """A new connection over the same link."""
    OTHER_LINK = "other_link"
    """A new connection over another link."""
    REACTIVATE = "reactivate"
    """NetworkManager is asked to activate the link's connection anew."""
    MODEM_RESET = "modem_reset"
    """ModemManager is asked to reset the link's modem."""


@dataclass(frozen=True, slots=True)
class Rung:
    """After how long without an acknowledgement a step is taken, and how long it then has before it comes again."""

    step: Step
    wait_s: float
    again_s: float


LADDER = (
    # These three are what every new attempt does; how often is the back-off's business.
    Rung(Step.RESOLVE, 0, 0),
    Rung(Step.NEW_SOCKET, 0, 0),
    Rung(Step.OTHER_LINK, 0, 0),
    # NetworkManager tries again by itself after 5 minutes; a DHCP exchange and a WPA handshake take seconds.
    Rung(Step.REACTIVATE, 180, 900),
    # A modem takes a minute or two until it is registered again, and gets warm: a broker that is away all day must
    # not wear it out.
    Rung(Step.MODEM_RESET, 900, 6 * 3600),
)


class Ladder:
    """Counts the steps taken, and says which are due."""

    def __init__(self, rungs: tuple[Rung, ...] = LADDER) -> None:
        self._rungs = rungs
        self.taken: dict[Step, int] = dict.fromkeys(Step, 0)
        self._last_ns: dict[tuple[Step, int], int] = {}

    def took(self, step: Step, link: int, now_ns: int) -> None:
        """A step was taken, whatever came of it."""
        self.taken[step] += 1
        self._last_ns[step, link] = now_ns

    def due(
        self, links: Iterator[tuple[Step, int]], silent_since_ns: int
    ) -> Iterator[tuple[int, Step, int]]:
        """When each of these steps, with these links, is due; the steps of all attempts are not asked for.

        Yields:
            The time, the step, the link.
        """
        rungs = {rung.step: rung for rung in self._rungs}
        for step, link in links:
            at_ns = silent_since_ns + to_ns(rungs[step].wait_s)
            last_ns = self._last_ns.get((step, link))
            if last_ns is not None:
                at_ns = max(at_ns, last_ns + to_ns(rungs[step].again_s))
            yield at_ns, step, link

"""What the links say about themselves, for `wardlink status`. Plain data: `dataclasses.asdict` makes it a dict."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.config.links import Metered
from gateway.uplink.links.ladder import Step
from gateway.uplink.links.selector import LinkState


@dataclass(frozen=True, slots=True)
class LinkStatus:
    """One link.

    Attributes:
        metered: "auto" where nobody knows; it then counts as metered.
        month: the calendar month (UTC) that the bytes are of, such as "2026-11"; "unknown" until the clock was once
            synchronised.
        bytes_month: about what went over it, packets and all, on the safe side after a crash; None when the file that
            counts was damaged: then the budget counts as used up.
        says: what NetworkManager and ModemManager say of it.
    """

    name: str
    interface: str | None
    state: LinkState
    in_use: bool
    metered: Metered
    last_answer_age_s: float | None
    round_trip_s: float | None
    month: str
    bytes_month: int | None
    waveform_bytes_month: int | None
    waveform_budget_bytes: int | None
    says: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class LinksStatus:
    """All links, the best first, and how often each step of the ladder was taken since the start."""

    links: tuple[LinkStatus, ...]
    ladder: Mapping[Step, int]

"""What the uplink says about itself, for `wardlink status`. Plain data: `dataclasses.asdict` makes it a dict."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.journal.entry import Stream
from gateway.uplink.wire import Reason


class State(StrEnum):
    """Where the uplink is in its life."""

    CONNECTING = "connecting"
    CONNECTED = "connected"
    BACKING_OFF = "backing_off"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream. `acknowledged == high_water` means that all of it is delivered.

    Attributes:
        sent: the highest that ever left.
        acknowledged: everything up to here is delivered.
        waiting: entries that are still to come, wherever they lie.
        evicted: entries that the journal had to give up before they could be sent.
        refusals: how often in a row the broker refused this stream; it is kept and tried again.
        refusal: the broker's last reason; None when the last answer was good.
    """

    sent: int
    acknowledged: int
    high_water: int
    waiting: int
    messages: int
    evicted: int
    refusals: int
    refusal: str | None


@dataclass(frozen=True, slots=True)
class UplinkStatus:
    """The uplink. `reason`, `text` and `retry_in_s` say why there is no connection, and when it tries again."""

    state: State
    reason: Reason | None
    text: str | None
    retry_in_s: float | None
    in_flight_messages: int
    in_flight_bytes: int
    last_answer_age_s: float | None
    round_trip_s: float | None
    reconnects: int
    refusals: int
    streams: Mapping[Stream, StreamStatus]

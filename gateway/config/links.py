"""[[link]]: the ways to the broker, the best first, and what may go over each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.config.broker import Broker, is_loopback
from gateway.config.kinds import NAME, build
from gateway.tables import Key, Kind, Reader, integer, one_of, show, text


class Allow(StrEnum):
    """When a class may use a link."""

    ALWAYS = "always"
    REQUEST = "request"
    """What somebody asked for, and the strips around alarms."""
    NEVER = "never"


class Metered(StrEnum):
    """Whether bytes cost money there."""

    YES = "yes"
    NO = "no"
    AUTO = "auto"
    """As NetworkManager says; what it does not know counts as metered."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """A span of each day, in minutes from midnight; it may pass midnight."""

    begin: int
    end: int
    utc: bool

    def holds(self, minute: int) -> bool:
        """Whether this minute of the day lies in it."""
        if self.begin <= self.end:
            return self.begin <= minute < self.end
        return not self.end <= minute < self.begin


@dataclass(frozen=True, slots=True)
class Link:
    """A way to the broker.

    Attributes:
        interface: what connections over it are bound to; None is whatever the system's routes say.
        waveform: None where nothing stands: always where bytes cost nothing, on request where they do.
        waveform_bytes_month: what waveform nobody asked for may take of a calendar month (UTC).
        quiet: when all but alarms and live vitals waits.
        gather_s: how long what is not an alarm gathers to leave together.
        reactivate, modem_reset: whether the last steps of the ladder may be taken with it.
    """

    name: str
    interface: str | None
    metered: Metered = Metered.AUTO
    vitals: Allow = Allow.ALWAYS
    waveform: Allow | None = None
    audit: Allow = Allow.ALWAYS
    waveform_bytes_month: int | None = None
    quiet: Quiet | None = None
    gather_s: int = 0
    heartbeat_s: int = 10
    reactivate: bool = False
    modem_reset: bool = False


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError  # noqa: TRY004 - one kind of error for every wrong value
    return value


def _metered(value: object) -> Metered:
    if value == "auto":
        return Metered.AUTO
    return Metered.YES if _flag(value) else Metered.NO


_QUIET = r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d) (UTC|local)"


def _quiet(value: object) -> Quiet:
    match = re.fullmatch(_QUIET, value) if isinstance(value, str) else None
    if match is None:
        raise ValueError
    begin, end = int(match[1]) * 60 + int(match[2]), int(match[3]) * 60 + int(match[4])
    if begin == end:
        raise ValueError
    return Quiet(begin, end, match[5] == "UTC")


FLAG = Kind("true or false", _flag, {"type": "boolean"})
METERED = Kind('true, false or "auto"', _metered, {"enum": [True, False, "auto"]})
QUIET = Kind(
    'a span such as "22:00-06:00 local" or "22:00-06:00 UTC"',
    _quiet,
    {"type": "string", "pattern": f"^(?:{_QUIET})$"},
)
INTERFACE = text('a network interface such as "wlan0"', r"[^\s/:]{1,15}")
LINK_KEYS = (
    Key("name", NAME, "the link's name in status and logs", required=True),
    Key("interface", INTERFACE, "what its connections are bound to", required=True),
    Key(
        "metered",
        METERED,
        'whether bytes cost money there; "auto" asks NetworkManager, and what it does not know counts as metered',
        Metered.AUTO,
    ),
    Key("vitals", one_of(Allow), "when vitals may use it", Allow.ALWAYS),
    Key(
        "waveform",
        one_of(Allow),
        "when waveform may use it; without it: always where bytes cost nothing, on request where they do",
    ),
    Key("audit", one_of(Allow), "when the audit log may use it", Allow.ALWAYS),
    Key(
        "waveform_bytes_month",
        integer(0, 1 << 50, "bytes"),
        'most bytes of waveform in a calendar month (UTC), with waveform = "always"; beyond them on request',
    ),
    Key("quiet", QUIET, "when all but alarms and live vitals waits"),
    Key(
        "gather_s",
        integer(0, 30, "seconds"),
        'how long new vitals, waveform and audit gather to leave together, which spares bytes with payload = "cbor"'
        " and where the journal is sealed; an alarm goes at once, and takes along what has gathered",
        0,
    ),
    Key("heartbeat_s", integer(10, 600, "seconds"), "the time between two heartbeats", 10),
    Key(
        "reactivate",
        FLAG,
        "whether NetworkManager may be asked to activate its connection anew, when nothing else helps",
        default=False,
    ),
    Key(
        "modem_reset",
        FLAG,
        "whether ModemManager may be asked to reset its modem, when nothing else helps",
        default=False,
    ),
)


def read_links(
    reader: Reader, root: Mapping[str, object], broker: Broker | None
) -> tuple[Link, ...]:
    """The links; none is a hub that leaves it to the system's routes."""
    tables = root.get("link", [])
    if not isinstance(tables, list):
        reader.fault("link", show(tables), "an array of tables: [[link]]")
        return ()
    links = [_link(reader, table, f"link[{n}]") for n, table in enumerate(tables)]
    for key in ("name", "interface"):
        seen: dict[object, int] = {}
        for n, table in enumerate(tables):
            value = table.get(key) if isinstance(table, Mapping) else None
            first = n if value is None else seen.setdefault(show(value), n)
            if first != n:
                reader.fault(f"link[{n}].{key}", show(value), f"another than that of link[{first}]")
    if links and broker is not None and is_loopback(broker.host):
        reader.fault("link", f"a link to {broker.host}", "none: the broker is on this machine")
    return tuple(link for link in links if link is not None)


def _link(reader: Reader, value: object, at: str) -> Link | None:
    table = reader.table(value, at)
    if table is None:
        return None
    values = reader.values(table, at, LINK_KEYS)
    if "waveform_bytes_month" in table and values["waveform"] is not Allow.ALWAYS:
        reader.fault(
            f"{at}.waveform_bytes_month",
            f"a budget with waveform {show(table.get('waveform'))}",
            'waveform = "always": what is beyond the budget goes on request',
        )
    return build(Link, reader, values)

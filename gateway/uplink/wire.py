"""What a wire to the broker is: one connection, its limits, and how it tells what happened. No I/O lives here."""

import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

DEFAULT_RECEIVE_MAXIMUM = 65_535
"""MQTT 5.0, 3.2.2.3.3: what a server allows that does not say."""
MAX_PACKET_BYTES = 268_435_455


class Reason(StrEnum):
    """Why there is no connection. Stable tokens; `wardlink status` shows them with the text."""

    REFUSED = "refused"
    """Nobody listens there, or the broker sent a refusal."""
    UNREACHABLE = "unreachable"
    """No interface, no address or no route leads there: nobody was asked."""
    TLS = "tls"
    """The broker could not prove who it is, or would not take our certificate."""
    DNS = "dns"
    TIMEOUT = "timeout"
    """No answer, or no acknowledgement, within the limit."""
    NOT_AUTHORISED = "not_authorised"
    PROTOCOL = "protocol"
    """The other end does not speak the version of MQTT that is configured, or broke its rules."""
    LOST = "lost"
    """It was connected and is no more."""
    CONFIGURATION = "configuration"
    """Our own settings forbid or prevent it: nothing was sent."""


class UplinkError(Exception):
    """The connection cannot be had, or is gone."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{reason}: {text}")
        self.reason = reason
        self.text = text


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server, and its provider, allow on this connection."""

    receive_maximum: int = DEFAULT_RECEIVE_MAXIMUM
    maximum_packet_bytes: int = MAX_PACKET_BYTES
    publishes_per_s: int | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to send."""

    topic: str
    payload: bytes
    retain: bool = False


@dataclass(frozen=True, slots=True)
class Incoming:
    """A message that came, and the number to acknowledge it with."""

    message_id: int
    topic: str
    payload: bytes
    retain: bool


class Wire(Protocol):
    """One connection as the uplink sees it."""

    @property
    def limits(self) -> Limits:
        """The server's."""
        ...

    def publish(self, message: Outgoing) -> int:
        """Sends at QoS 1; returns the message id that the answer will carry. Raises UplinkError when gone."""
        ...

    def acknowledge(self, message_id: int) -> None:
        """Tells the broker that a message that `arrived` is safe here."""
        ...

    async def close(self) -> None:
        """Ends it in order: the broker does not publish the will."""
        ...

    def abort(self) -> None:
        """Ends it at once: the broker publishes the will."""
        ...


class Listener(Protocol):
    """Whom a wire tells, on the event loop."""

    def answered(self, message_id: int, refusal: str | None) -> None:
        """A PUBACK; `refusal` says why where its reason code is a failure."""
        ...

    def lost(self, error: UplinkError) -> None:
        """The connection is gone. Nothing follows."""
        ...

    def arrived(self, message: Incoming) -> None:
        """A message for a subscription."""
        ...


WireFactory = Callable[[Listener, Outgoing], Awaitable[Wire]]
"""Connects with this will message, or raises UplinkError."""
Dial = Callable[[str, int], Awaitable[socket.socket]]
"""Opens a TCP connection to host and port, or raises OSError."""


class LinkWireFactory(Protocol):
    """A wire factory that can be told which way to go."""

    def __call__(
        self,
        listener: Listener,
        will: Outgoing,
        /,
        *,
        dial: Dial | None = None,
        limit_s: float | None = None,
    ) -> Awaitable[Wire]:
        """Connects within this time, or raises UplinkError. Without `dial` over what the system's routes say."""
        ...


@dataclass(frozen=True, slots=True)
class Session:
    """How a client presents itself.

    Attributes:
        sign: signs what it sends, the will too; None for a client that sends nothing.
        subscribe: topic filters, taken at QoS 1 and acknowledged by hand; if one is refused there is no connection.
        may_subscribe: a topic filter that the broker may refuse: then the connection stands, and the log says so.
        echo: own topics, taken at QoS 0; if one is refused there is no connection.
        expiry_s: how long the broker keeps the session; 0 begins a clean one. MQTT 3.1.1 cannot say how long: there it
            is the broker's own setting.
        receive_maximum: how many messages the broker may send unacknowledged. MQTT 3.1.1 cannot say it.
    """

    client_id: str
    sign: Callable[[bytes], bytes] | None = None
    will: Outgoing | None = None
    subscribe: tuple[str, ...] = ()
    may_subscribe: str | None = None
    echo: tuple[str, ...] = ()
    expiry_s: int = 0
    receive_maximum: int = 64
    maximum_packet_bytes: int = 1_048_576

"""Under MQTT 3.1.1 on the broker's word: an acknowledgement counts once the broker has shown that it passes a topic on.

There a broker acknowledges a publish that it forbids like any other (MQTT 3.1.1, 3.3.5). So the hub subscribes to each
of its own topics. Until something that it sent on a topic comes back, acknowledgements for that topic are held here; then
they are handed on, and the subscription ends. One that stays away becomes a refusal, as MQTT 5 would give: that stream
rests and is tried again, the others go on.
"""

import asyncio
import hashlib
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.uplink.signature import unsigned
from gateway.uplink.wire import Incoming, Limits, Listener, Outgoing, Reason, UplinkError, Wire

ECHO_LIMIT_S = 5.0
"""From the acknowledgement. Less than the uplink waits for one; a later echo still counts for what is sent next."""
REMEMBERED = 64
"""Messages of one topic that may come back. It is refused long before that many were sent."""


@dataclass(slots=True)
class _Unproven:
    """A topic of which nothing came back yet.

    Attributes:
        sent: digests of what may come back.
        held: acknowledged by the broker, and not yet believed.
    """

    sent: deque[bytes] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    held: list[int] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class EchoWire:
    """A wire between the uplink and the one that it is given: both sides see what they would see of MQTT 5."""

    def __init__(self, listener: Listener, topics: tuple[str, ...]) -> None:
        """Believes nothing yet. `over` must be called before anything is published."""
        self._listener = listener
        self._unproven = {topic: _Unproven() for topic in topics}
        self._topics: dict[int, str] = {}
        """Message id to topic, of what was sent on unproven ones and is not acknowledged."""

    def over(self, wire: Wire, unsubscribe: Callable[[str], None]) -> None:
        """Takes the connection, whose listener this is and which is subscribed to the topics."""
        self._wire = wire
        self._unsubscribe = unsubscribe

    # --- A wire ----------------------------------------------------------------------------------------

    @property
    def limits(self) -> Limits:
        """The server's."""
        return self._wire.limits

    def publish(self, message: Outgoing) -> int:
        """As in Wire."""
        message_id = self._wire.publish(message)
        unproven = self._unproven.get(message.topic)
        if unproven is not None:
            unproven.sent.append(_digest(message.payload))
            self._topics[message_id] = message.topic
        return message_id

    def acknowledge(self, message_id: int) -> None:
        """As in Wire."""
        self._wire.acknowledge(message_id)

    async def close(self) -> None:
        """As in Wire."""
        self._forget()
        await self._wire.close()

    def abort(self) -> None:
        """As in Wire."""
        self._forget()
        self._wire.abort()

    # --- A listener --------------------------------------------------------------------------------------

    def answered(self, message_id: int, refusal: str | None) -> None:
        """Holds an acknowledgement for a topic that is not proven."""
        topic = self._topics.pop(message_id, "")
        unproven = self._unproven.get(topic)
        if unproven is None or refusal is not None:
            self._listener.answered(message_id, refusal)
            return
        unproven.held.append(message_id)
        if unproven.timer is None:
            loop = asyncio.get_running_loop()
            unproven.timer = loop.call_later(ECHO_LIMIT_S, self._refuse, topic, unproven)

    def arrived(self, message: Incoming) -> None:
        """An echo ends here; all else goes on."""
        unproven = self._unproven.get(message.topic)
        if unproven is None:
            self._listener.arrived(message)
            return
        # A retained one may be of an earlier connection, when it was allowed.
        payload = None if message.retain else unsigned(message.payload)
        if payload is not None and _digest(payload) in unproven.sent:
            del self._unproven[message.topic]
            self._unsubscribe(message.topic)
            self._hand_on(unproven, None)

    def lost(self, error: UplinkError) -> None:
        """The connection is gone."""
        self._forget()
        self._listener.lost(error)

    # --- Between -------------------------------------------------------------------------------------------

    def _refuse(self, topic: str, unproven: _Unproven) -> None:
        refusal = (
            f"{Reason.NOT_AUTHORISED}: {topic}: acknowledged, but did not come back within {ECHO_LIMIT_S:g} s;"
            " allow this hub to publish and to read it, or use MQTT 5, or delivery.ack = receiver"
        )
        self._hand_on(unproven, refusal)

    def _hand_on(self, unproven: _Unproven, refusal: str | None) -> None:
        if unproven.timer is not None:
            unproven.timer.cancel()
            unproven.timer = None
        held, unproven.held = unproven.held, []
        for message_id in held:
            self._listener.answered(message_id, refusal)

    def _forget(self) -> None:
        """What was held is sent again on the next connection, whose message ids are others."""
        for unproven in self._unproven.values():
            if unproven.timer is not None:
                unproven.timer.cancel()
            unproven.held.clear()
        self._unproven.clear()


def _digest(payload: bytes) -> bytes:
    return hashlib.sha256(payload).digest()

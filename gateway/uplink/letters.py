"""What is said beside the journal, once: the answers to commands. It outlives a connection, and not the process."""

import logging
from collections import deque
from collections.abc import Callable

from gateway.uplink.wire import Outgoing

log = logging.getLogger(__name__)

MOST = 64
"""Letters that may wait for a connection. The oldest gives way: who asked then has waited longest, and asks again."""


class Letters:
    """Small messages on their way out, in order. Sent again on the next connection unless they were answered."""

    def __init__(self, wake: Callable[[], None]) -> None:
        """`wake` is called when there is something to send."""
        self._wake = wake
        self._waiting: deque[tuple[Outgoing, ...]] = deque(maxlen=MOST)
        self._under_way: dict[int, Outgoing] = {}

    def post(self, message: Outgoing, *shorter: Outgoing) -> None:
        """Sends it, when there is a connection; or the first of `shorter` that the broker takes."""
        self._waiting.append((message, *shorter))
        self._wake()

    def connected(self) -> None:
        """A new connection knows nothing of what the last one sent."""
        room = MOST - len(self._waiting)
        again = list(self._under_way.values())[-room:] if room else []
        self._waiting.extendleft((message,) for message in reversed(again))
        self._under_way.clear()

    def next(self, limit_bytes: int) -> Outgoing | None:
        """The next one to send, which is then no longer waiting.

        What the broker would not take is not sent: it would end this connection, and every one after it.
        """
        while self._waiting:
            forms = self._waiting.popleft()
            for message in forms:
                if len(message.payload) <= limit_bytes:
                    return message
            sizes = len(forms[-1].payload), limit_bytes
            log.warning("uplink: answer not sent: got %d bytes, the broker takes %d", *sizes)
        return None

    def left(self, message_id: int, message: Outgoing) -> None:
        """It was handed to the wire."""
        self._under_way[message_id] = message

    def answered(self, message_id: int) -> None:
        """The broker has it, or will not have it. Harmless for any other message."""
        self._under_way.pop(message_id, None)

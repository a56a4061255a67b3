"""Telling systemd how the hub is: sd_notify(3) over its datagram socket."""

import os
import socket
from collections.abc import Mapping

USEC_PER_S = 1_000_000


class Notifier:
    """Sends states to the service manager; silent where there is none."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        """Reads NOTIFY_SOCKET and WATCHDOG_USEC as systemd sets them."""
        self._address = environment.get("NOTIFY_SOCKET", "")
        self._watchdog_usec = int(environment.get("WATCHDOG_USEC", "0") or 0)

    @property
    def watchdog_s(self) -> float | None:
        """How often the watchdog wants to hear from the hub: half its limit; None without a watchdog."""
        return self._watchdog_usec / USEC_PER_S / 2 if self._watchdog_usec else None

    def send(self, state: str) -> None:
        """Sends one line such as READY=1."""
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode("utf-8"), address)

"""The socket that the kernel tells of its interfaces: no polling, and no capability."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable
from types import TracebackType
from typing import Self

from gateway.uplink.links.netlink import GROUPS, Interfaces

log = logging.getLogger(__name__)

READ_BYTES = 65_536


class Watch:
    """Keeps the table of interfaces while the block lasts, and calls after every change.

    Attributes:
        interfaces: the table.
    """

    def __init__(self, changed: Callable[[], None]) -> None:
        self.interfaces = Interfaces()
        self._changed = changed
        self._socket: socket.socket | None = None

    async def __aenter__(self) -> Self:
        """The first table is whole on return.

        Raises:
            OSError: this process may open no AF_NETLINK socket.
        """
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        try:
            sock.settimeout(0)
            sock.bind((0, GROUPS))
            sock.send(self.interfaces.begin())
            while not self.interfaces.whole:
                data = await asyncio.get_running_loop().sock_recv(sock, READ_BYTES)
                self._feed(sock, data)
        except BaseException:
            sock.close()
            raise
        self._socket = sock
        asyncio.get_running_loop().add_reader(sock, self._read, sock)
        return self

    async def __aexit__(
        self,
        _kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        """Ends the watch."""
        if self._socket is not None:
            asyncio.get_running_loop().remove_reader(self._socket)
            self._socket.close()
            self._socket = None

    def ask(self) -> None:
        """Reads all interfaces anew, if that is not being done anyway; `changed` is called with what they say."""
        if self._socket is not None and self.interfaces.whole:
            self._socket.send(self.interfaces.begin())

    def _read(self, sock: socket.socket) -> None:
        try:
            data = sock.recv(READ_BYTES)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            log.info("links: the kernel had more to say than fits; reading all interfaces anew")
            sock.send(self.interfaces.begin())
            return
        self._feed(sock, data)
        if self.interfaces.whole:
            self._changed()

    def _feed(self, sock: socket.socket, data: bytes) -> None:
        if answer := self.interfaces.feed(data):
            sock.send(answer)

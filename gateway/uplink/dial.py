"""A TCP connection to the broker: its name resolved, both address families tried, bound to a link.

A socket bound with SO_BINDTODEVICE leaves through that interface, whatever the routes say; Linux 5.7 and newer ask no
capability for it. The name goes to the system's resolver, which asks over any interface: so a resolver behind a dead
link must not hold up a connection over a live one, and what it said last is kept for that.
"""

import asyncio
import contextlib
import errno
import socket
import threading
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

STAGGER_S = 0.25
"""RFC 8305, 5: how long an address has before the next is tried beside it."""
HURRY_S = 0.5
"""How long a resolver may take when an earlier answer is there to go on with."""
NO_WAY = frozenset(
    {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENODEV, errno.EADDRNOTAVAIL}
)
"""No interface, no address on it, or no route from it: the other end was not even asked."""

Address = tuple[socket.AddressFamily, Any]


class Dialler:
    """Opens connections; remembers what names last resolved to. For the event loop's thread."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], list[Address]] = {}
        self._asked: dict[tuple[str, int], asyncio.Future[list[Address]]] = {}

    async def dial(self, host: str, port: int, interface: str | None = None) -> socket.socket:
        """A connected, non-blocking socket; with an interface, bound to it. May take for ever.

        Raises:
            OSError: no address took it; socket.gaierror where there is none.
        """
        return await _race(await self._resolve(host, port), interface)

    async def _resolve(self, host: str, port: int) -> list[Address]:
        place = (host, port)
        known = self._known.get(place)
        asked = self._asked.get(place)
        if asked is None:
            asked = self._asked[place] = asyncio.get_running_loop().create_future()
            # Not the loop's pool: threads that wait for a dead resolver would leave none to read the journal.
            threading.Thread(target=self._ask, args=(place, asked), daemon=True).start()
        try:
            async with asyncio.timeout(None if known is None else HURRY_S):
                return await asyncio.shield(asked)
        except (TimeoutError, socket.gaierror):
            if known is None:
                raise
            return known

    def _ask(self, place: tuple[str, int], asked: "asyncio.Future[list[Address]]") -> None:
        found: list[Address] | OSError
        try:
            rows = socket.getaddrinfo(*place, type=socket.SOCK_STREAM)
            found = [(row[0], row[4]) for row in rows]
        except OSError as error:
            found = error
        # The loop may be closed when a dead resolver gives up at last.
        with contextlib.suppress(RuntimeError):
            asked.get_loop().call_soon_threadsafe(self._answered, place, asked, found)

    def _answered(
        self,
        place: tuple[str, int],
        asked: "asyncio.Future[list[Address]]",
        found: list[Address] | OSError,
    ) -> None:
        del self._asked[place]
        if isinstance(found, OSError):
            asked.set_exception(found)
            asked.exception()  # perhaps nobody waits any more
        else:
            self._known[place] = found
            asked.set_result(found)


def in_turn(addresses: Sequence[Address]) -> list[Address]:
    """The families in turn, beginning with the resolver's choice (RFC 8305, 4): one dead family costs `STAGGER_S`."""
    first = [row for row in addresses if row[0] == addresses[0][0]]
    others = [row for row in addresses if row[0] != addresses[0][0]]
    pairs = zip_longest(first, others)
    return [row for pair in pairs for row in pair if row is not None]


async def _race(addresses: Sequence[Address], interface: str | None) -> socket.socket:
    """The first that connects; raises the first one's error when none does."""
    waiting = in_turn(addresses)
    tasks: set[asyncio.Task[socket.socket]] = set()
    failure: OSError | None = None
    try:
        while waiting or tasks:
            if waiting:
                tasks.add(asyncio.create_task(_open(*waiting.pop(0), interface)))
            done, tasks = await asyncio.wait(
                tasks,
                timeout=STAGGER_S if waiting else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            won = [task for task in done if task.exception() is None]
            for late in won[1:]:
                late.result().close()
            if won:
                return won[0].result()
            errors = [task.exception() for task in done]
            failure = failure or next((e for e in errors if isinstance(e, OSError)), None)
    finally:
        for task in tasks:
            task.cancel()
        for outcome in await asyncio.gather(*tasks, return_exceptions=True):
            if isinstance(outcome, socket.socket):
                outcome.close()
    raise failure or OSError(errno.EADDRNOTAVAIL, "the name has no address")


async def _open(family: socket.AddressFamily, address: Any, interface: str | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(0)
        if interface is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock

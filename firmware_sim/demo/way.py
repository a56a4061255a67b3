"""The hub's way to the broker in the demo: a TCP forwarder on loopback that is narrow upwards, and shut when asked."""

import asyncio
import contextlib
from typing import Self

CHUNK_BYTES = 2_048
UP_BYTES_S = 64_000
"""Half a megabit: mobile data where reception is poor. What waited takes seconds, so one sees what goes first."""


class Way:
    """Open while the block lasts, but for the times between `shut` and `reopen`."""

    def __init__(self, target: int, up_bytes_s: float = UP_BYTES_S) -> None:
        """Leads to a port of this machine, from the port `port`."""
        self.port = 0
        self._target = target
        self._up_bytes_s = up_bytes_s
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Takes a free port."""
        await self.reopen()
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends what is open."""
        await self.shut()

    async def reopen(self) -> None:
        """Connections are taken (again), at the same port. Harmless where they are."""
        if self._server is None:
            self._server = await asyncio.start_server(
                self._serve, "127.0.0.1", self.port, limit=CHUNK_BYTES
            )
            self.port = self._server.sockets[0].getsockname()[1]

    async def shut(self) -> None:
        """Connections end, and new ones are refused. Harmless where they are."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server runs this in one
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                back, forth = await asyncio.open_connection("127.0.0.1", self._target)
                try:
                    async with asyncio.TaskGroup() as group:
                        group.create_task(_carry(reader, forth, self._up_bytes_s))
                        group.create_task(_carry(back, writer, None))
                except* OSError:
                    pass
                finally:
                    forth.transport.abort()
        finally:
            writer.transport.abort()
            self._connections.discard(task)


async def _carry(
    source: asyncio.StreamReader, target: asyncio.StreamWriter, bytes_s: float | None
) -> None:
    """Until the source ends, of which the target is told."""
    while data := await source.read(CHUNK_BYTES):
        target.write(data)
        await target.drain()
        if bytes_s is not None:
            await asyncio.sleep(len(data) / bytes_s)
    target.write_eof()

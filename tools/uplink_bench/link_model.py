#!/usr/bin/env python3
"""A modelled mobile link: a TCP proxy on loopback with a delay and a rate in each direction.

Bytes leave at the rate, and arrive the delay later; what waits for its turn is bounded like a modem's buffer, and then
the sender's socket fills. What it does not model: losses, and the congestion window of a connection over such a link.

On its standard output it writes one line of JSON each `SAMPLE_S`: seconds since the first byte, bytes up, bytes down.
"""

import argparse
import asyncio
import json
import socket
import sys
from collections import deque

SAMPLE_S = 0.05
CHUNK_BYTES = 4_096
BUFFER_BYTES = 65_536
"""Of the kernel on either side of the proxy; the least that Linux does not shrink under load."""


class Direction:
    """One way of one connection."""

    def __init__(self, delay_s: float, bytes_s: float, queue_bytes: int) -> None:
        self._delay_s = delay_s
        self._bytes_s = bytes_s
        self._queue_bytes = queue_bytes
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._filled = asyncio.Event()
        self._room = asyncio.Event()
        self._free_at = 0.0
        self._waiting_bytes = 0
        self.passed = 0
        """Bytes that arrived."""

    async def carry(self, source: socket.socket, target: socket.socket) -> None:
        """Until the source ends."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take(source))
            group.create_task(self._give(target))

    async def _take(self, source: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                data = await loop.sock_recv(source, CHUNK_BYTES)
            except OSError:
                data = b""
            begins = max(loop.time(), self._free_at)
            self._free_at = begins + len(data) / self._bytes_s
            self._waiting.append((self._free_at, data))
            self._waiting_bytes += len(data)
            self._filled.set()
            if not data:
                return
            while self._waiting_bytes > self._queue_bytes:
                self._room.clear()
                await self._room.wait()

    async def _give(self, target: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        flying: deque[tuple[float, bytes]] = deque()
        while True:
            while not self._waiting and not flying:
                self._filled.clear()
                await self._filled.wait()
            now = loop.time()
            while self._waiting and self._waiting[0][0] <= now:
                left_at, data = self._waiting.popleft()
                self._waiting_bytes -= len(data)
                self._room.set()
                flying.append((left_at + self._delay_s, data))
            while flying and flying[0][0] <= now:
                data = flying.popleft()[1]
                if not data:
                    target.shutdown(socket.SHUT_WR)
                    return
                await loop.sock_sendall(target, data)
                self.passed += len(data)
            moments = [queue[0][0] for queue in (self._waiting, flying) if queue]
            if moments:
                self._filled.clear()
                try:
                    async with asyncio.timeout_at(min(moments)):
                        await self._filled.wait()
                except TimeoutError:
                    pass


async def serve(options: argparse.Namespace) -> None:
    """Until it is ended from outside."""
    loop = asyncio.get_running_loop()
    listener = _small(socket.socket())
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", options.listen))
    listener.listen()
    listener.settimeout(0)
    directions: list[tuple[Direction, Direction]] = []
    first: float | None = None

    async def connection(client: socket.socket) -> None:
        server = _small(socket.socket())
        server.settimeout(0)
        await loop.sock_connect(server, ("127.0.0.1", options.target))
        bytes_s = options.mbit_s * 125_000
        one_way_s = options.round_trip_ms / 2_000
        up, down = (Direction(one_way_s, bytes_s, options.queue_bytes) for _ in range(2))
        directions.append((up, down))
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(up.carry(client, server))
                group.create_task(down.carry(server, client))
        except* OSError:
            pass
        finally:
            client.close()
            server.close()

    async def sample() -> None:
        nonlocal first
        while True:
            up, down = (sum(pair[way].passed for pair in directions) for way in (0, 1))
            if up and first is None:
                first = loop.time()
            since = 0.0 if first is None else loop.time() - first
            sys.stdout.write(json.dumps([round(since, 4), up, down]) + "\n")
            sys.stdout.flush()
            await asyncio.sleep(SAMPLE_S)

    async with asyncio.TaskGroup() as group:
        group.create_task(sample())
        while True:
            client, _ = await loop.sock_accept(listener)
            _small(client).setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            group.create_task(connection(client))


def _small(sock: socket.socket) -> socket.socket:
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, BUFFER_BYTES)
    return sock


def main() -> int:
    """Reads the options and serves."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("listen", type=int, help="port on 127.0.0.1")
    parser.add_argument("target", type=int, help="port on 127.0.0.1")
    parser.add_argument("--round-trip-ms", type=float, default=80.0)
    parser.add_argument("--mbit-s", type=float, default=5.0)
    parser.add_argument("--queue-bytes", type=int, default=65_536, help="the modem's buffer")
    asyncio.run(serve(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())

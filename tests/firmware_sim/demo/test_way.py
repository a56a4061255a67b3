"""The hub's way in the demo: bytes pass unchanged, upwards slowly; shut it refuses, and opens at the same port."""

import asyncio
import contextlib
import time

import pytest

from firmware_sim.demo.way import Way

SENT = bytes(range(256)) * 40


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(4096):
            writer.write(data)
    writer.close()


async def has_ended(reader: asyncio.StreamReader) -> bool:
    try:
        return await reader.read(1) == b""
    except ConnectionError:
        return True


async def there_and_back(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(sent)
    writer.write_eof()
    async with asyncio.timeout(20):
        got = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return got


def test_bytes_pass_at_the_rate_in_order_and_unchanged() -> None:
    async def main() -> float:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, Way(server.sockets[0].getsockname()[1], up_bytes_s=50_000) as way:
            began = time.monotonic()
            assert await there_and_back(way.port, SENT) == SENT
            return time.monotonic() - began

    assert asyncio.run(main()) > 0.9 * len(SENT) / 50_000


def test_shut_it_ends_what_is_open_and_refuses_and_it_opens_again_at_its_port() -> None:
    async def main() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        async with server, Way(server.sockets[0].getsockname()[1]) as way:
            port = way.port
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"x")
            assert await reader.read(1) == b"x"
            for _ in range(2):
                await way.shut()
            assert await has_ended(reader)
            writer.close()
            with pytest.raises(OSError, match="Connect"):
                await asyncio.open_connection("127.0.0.1", port)
            for _ in range(2):
                await way.reopen()
            assert way.port == port
            assert await there_and_back(port, b"y") == b"y"

    asyncio.run(main())


def test_where_nobody_listens_behind_it_a_connection_ends() -> None:
    async def main() -> None:
        async with Way(1) as way:
            reader, writer = await asyncio.open_connection("127.0.0.1", way.port)
            assert await has_ended(reader)
            writer.close()

    asyncio.run(main())

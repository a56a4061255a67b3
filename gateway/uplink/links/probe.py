"""Whether a link that is not in use leads to the broker: a connection, its certificate, and an end. Nothing is sent."""

import asyncio
import contextlib
import socket

from gateway.config.broker import Broker
from gateway.uplink.tls import tls_context
from gateway.uplink.wire import Dial

PROBE_LIMIT_S = 5.0


async def gets_through(broker: Broker, dial: Dial, limit_s: float = PROBE_LIMIT_S) -> str | None:
    """None when the broker itself answered there, otherwise why not. A captive portal has no certificate of its."""
    try:
        async with asyncio.timeout(limit_s):
            sock = await dial(broker.host, broker.port)
            try:
                await _greet(broker, sock)
            finally:
                sock.close()
    except TimeoutError:
        return f"no answer within {limit_s:g} s"
    except (OSError, ValueError) as error:
        return str(error)
    return None


async def _greet(broker: Broker, sock: socket.socket) -> None:
    if broker.tls is None:
        return
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_connection(
        asyncio.Protocol,
        sock=sock,
        ssl=tls_context(broker.tls),
        server_hostname=broker.host,
    )
    with contextlib.suppress(OSError):
        transport.abort()

"""The hub's state for whoever asks on its socket: one connection, one JSON document."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

NAME = "status.sock"
ASK_S = 5.0


class NoStatus(Exception):  # noqa: N818 - says what is so: no hub answers
    """No hub answers at this socket."""


@asynccontextmanager
async def serve(path: Path, snapshot: Callable[[], Mapping[str, object]]) -> AsyncIterator[None]:
    """Answers while the block lasts. Who may ask is decided by the directory's permissions."""

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(json.dumps(snapshot(), default=str).encode("utf-8"))
            await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_unix_server(answer, sock=_listen(path))
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _listen(path: Path) -> socket.socket:
    path.parent.mkdir(parents=True, exist_ok=True)
    _remove(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o660)
    return listener


def _remove(path: Path) -> None:
    """The hub holds the journal's lock, so a socket found here is left over from a hub that is no more."""
    path.unlink(missing_ok=True)


def fetch(path: Path) -> dict[str, object]:
    """The state of the hub that serves this socket.

    Raises:
        NoStatus: no hub answers there.
    """
    parts = []
    try:
        with socket.socket(socket.AF_UNIX) as asker:
            asker.settimeout(ASK_S)
            asker.connect(str(path))
            while part := asker.recv(65_536):
                parts.append(part)
        document = json.loads(b"".join(parts))
    except (OSError, ValueError) as error:
        raise NoStatus(f"{path}: no hub answers ({error}); is `wardlink run` running?") from error
    if not isinstance(document, dict):
        raise NoStatus(f"{path}: got {type(document).__name__}, expected an object")
    return document

"""The hub's state for whoever asks: each half has a socket; one connection, one JSON document."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

ACQUIRE, UPLINK = "acquire.sock", "uplink.sock"
HALVES = {ACQUIRE: "acquire", UPLINK: "uplink"}
ASK_S = 5.0


class NoStatus(OSError):  # noqa: N818 - says what is so: nobody answers
    """Nobody answers at this socket."""


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
    """Each half holds a lock of the journal, so a socket found here is left over from a process that is no more."""
    path.unlink(missing_ok=True)


def fetch_all(runtime_dir: Path) -> dict[str, object]:
    """Both halves as one document; `silent` says of each that does not answer why.

    Raises:
        NoStatus: neither answers.
    """
    found: dict[str, object] = {}
    silent: dict[str, str] = {}
    for name, half in HALVES.items():
        try:
            found = {**fetch(runtime_dir / name), **found}
        except NoStatus as error:
            silent[half] = str(error)
    if len(silent) == len(HALVES):
        raise NoStatus("; ".join(silent.values()) + "; is `wardlink run` running?")
    return {**found, "silent": silent}


def fetch(path: Path) -> dict[str, object]:
    """The state of the half that serves this socket.

    Raises:
        NoStatus: nobody answers there.
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
        raise NoStatus(f"{path}: nobody answers ({error})") from error
    if not isinstance(document, dict):
        raise NoStatus(f"{path}: got {type(document).__name__}, expected an object")
    return document

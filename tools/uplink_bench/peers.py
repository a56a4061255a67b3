"""The peers, as their documentation uses them; each is a process of its own: this file as a program."""

import asyncio
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from paho.mqtt import client as paho
from paho.mqtt.enums import CallbackAPIVersion


@dataclass(frozen=True, slots=True)
class Files:
    """Whom to trust, and who we are."""

    ca: Path
    certificate: Path
    key: Path


def peer_paho(port: int, files: Files | None, size: int, count: int) -> None:
    """As paho's documentation does: publish and let it queue."""
    client = paho.Client(CallbackAPIVersion.VERSION2, protocol=paho.MQTTv5)
    if files is not None:
        client.tls_set(str(files.ca), str(files.certificate), str(files.key))
    client.connect("127.0.0.1", port)
    client.loop_start()
    message = os.urandom(size // 2).hex().encode()
    infos = [client.publish("peer/data", message, qos=1) for _ in range(count)]
    for info in infos:
        info.wait_for_publish()
    client.disconnect()
    client.loop_stop()


def peer_aiomqtt(port: int, files: Files | None, size: int, count: int) -> None:
    """As the documentation of aiomqtt does: publish, one after the other."""
    import aiomqtt  # noqa: PLC0415 - only here

    async def run() -> None:
        tls = files and aiomqtt.TLSParameters(
            ca_certs=str(files.ca), certfile=str(files.certificate), keyfile=str(files.key)
        )
        message = os.urandom(size // 2).hex().encode()
        async with aiomqtt.Client("127.0.0.1", port, tls_params=tls or None) as client:
            for _ in range(count):
                await client.publish("peer/data", message, qos=1)

    asyncio.run(run())


PEERS: dict[str, Callable[[int, Files | None, int, int], None]] = {
    "paho": peer_paho,
    "aiomqtt": peer_aiomqtt,
}


def peer(name: str, port: int, files: Files | None, size: int, count: int) -> list[str]:
    """The command of a peer: this module as a program."""
    command = [sys.executable, "-m", __name__, name, str(port), str(size), str(count)]
    return (
        command
        if files is None
        else [*command, *map(str, (files.ca, files.certificate, files.key))]
    )


def main() -> None:
    """Prints how long it took, in seconds."""
    name, port, size, count, *paths = sys.argv[1:]
    files = Files(*map(Path, paths)) if paths else None
    begin = time.monotonic()
    PEERS[name](int(port), files, int(size), int(count))
    sys.stdout.write(f"{time.monotonic() - begin}\n")


if __name__ == "__main__":
    main()

"""A D-Bus daemon of one's own. Sets nothing globally: hand `address` on as DBUS_SYSTEM_BUS_ADDRESS."""

import asyncio
import shutil
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Self

CONFIG = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>custom</type>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"""
SOCKET_PATH_BYTES = 107
"""unix(7): sun_path holds 108 bytes with its terminator."""
START_S = 10.0
STOP_S = 5.0


def installed() -> bool:
    """Whether there is a dbus-daemon on this machine."""
    return shutil.which("dbus-daemon") is not None


class PrivateBus:
    """Runs a dbus-daemon while the block lasts. Only processes of the same user can connect.

    Attributes:
        address: what a client takes as bus address; empty outside the block.
    """

    def __init__(self, directory: Path) -> None:
        """Writes its configuration and its socket into `directory`, which must exist.

        Raises:
            ValueError: the directory's path is too long for a Unix socket.
        """
        self._config = directory / "bus.conf"
        self._socket = directory / "bus"
        if len(bytes(self._socket)) > SOCKET_PATH_BYTES:
            raise ValueError(
                f"bus socket path: got {len(bytes(self._socket))} bytes, "
                f"expected at most {SOCKET_PATH_BYTES}: use a shorter directory"
            )
        self._process: Process | None = None
        self.address = ""

    @property
    def pid(self) -> int:
        """The daemon's process, to stop or kill it as a fault.

        Raises:
            RuntimeError: it does not run.
        """
        if self._process is None:
            raise RuntimeError("dbus-daemon does not run: use this inside the block")
        return self._process.pid

    async def __aenter__(self) -> Self:
        """Returns once clients can connect.

        Raises:
            RuntimeError: dbus-daemon is not installed, or did not start.
        """
        self._config.write_text(CONFIG.format(socket=self._socket), encoding="utf-8")
        arguments = (f"--config-file={self._config}", "--nofork", "--nopidfile")
        try:
            self._process = await asyncio.create_subprocess_exec(
                "dbus-daemon", *arguments, "--print-address=1", stdout=PIPE
            )
        except FileNotFoundError as error:
            raise RuntimeError("dbus-daemon is not installed: install the dbus package") from error
        stdout = self._process.stdout
        if stdout is None:
            raise RuntimeError("dbus-daemon has no standard output to print its address to")
        try:
            async with asyncio.timeout(START_S):
                line = await stdout.readline()
        except BaseException:
            await self._end()
            raise
        self.address = line.decode("ascii").strip()
        if not self.address:
            await self._end()
            raise RuntimeError(f"dbus-daemon ended at once, see its message; used {self._config}")
        return self

    async def __aexit__(self, *_: object) -> None:
        """Ends the daemon; every connection to it is cut."""
        await self._end()

    async def _end(self) -> None:
        process, self._process, self.address = self._process, None, ""
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.terminate()
        try:
            async with asyncio.timeout(STOP_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()

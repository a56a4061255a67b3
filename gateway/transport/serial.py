"""A serial port: pyserial opens and configures it, the event loop drives its descriptor.

Nothing here knows a protocol. pyserial's own read and write are not used: they block, and they report one unplug
in four different ways. Reading stops while nobody takes the bytes; the kernel then holds what comes (4 KiB on a
UART), so the hub itself never throws any away and `Arrival.dropped` stays 0.
"""

import asyncio
import errno
import fcntl
import os
import termios
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import serial

from drivers.contract import SerialLink
from gateway.clock import Clock
from gateway.transport.base import Arrival, Reason, TransportError

READ_BYTES = 4096
"""The kernel's own buffer of one terminal line: no read can bring more."""
HELD_BYTES = 256 * 1024
"""The most memory that arrivals may take before reading stops: half a minute of a full line at 57600 baud."""
ARRIVAL_COST = 128
"""What an arrival takes beside its bytes, so that a line that comes byte by byte is bounded as well."""
OPEN_LIMIT_S = 5.0
CLOSE_LIMIT_S = 2.0
WRITE_LIMIT_S = 2.0
"""Commands are short: a port that has not taken one by then takes none."""

PORT_ERRORS = (OSError, termios.error)
"""What an unplugged port raises. SerialException is an OSError; termios.error is not."""

GONE = {errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.EIO}
TAKEN = {errno.EBUSY, errno.EAGAIN}
FORBIDDEN = {errno.EACCES, errno.EPERM}

T = TypeVar("T")


class SerialTransport:
    """One serial port, for one reader. Implements gateway.transport.base.Transport."""

    def __init__(self, port: Path, line: SerialLink, clock: Clock) -> None:
        self._path = port
        self._line = line
        self._clock = clock
        self._port: serial.Serial | None = None
        self._held: deque[Arrival] = deque()
        self._held_bytes = 0
        self._reading = False
        self._lost: str | None = None
        self._readable = asyncio.Event()
        self._writable: asyncio.Future[None] | None = None
        self._one_writer = asyncio.Lock()

    async def open(self) -> None:
        """Opens for this process alone, raw, without flow control; bytes from before are discarded."""
        if self._port is not None:
            raise TransportError(Reason.BUSY, f"{self._path}: this transport has it open already")
        try:
            port = await _in_thread(self._open_port, OPEN_LIMIT_S, undo=_close_port)
        except TimeoutError:
            text = f"{self._path}: opening took over {OPEN_LIMIT_S:g} s; unplug the device and plug it in again"
            raise TransportError(Reason.TIMEOUT, text) from None
        except (*PORT_ERRORS, ValueError) as error:
            raise self._cannot_open(error) from error
        self._port, self._lost = port, None
        self._held.clear()
        self._held_bytes = 0
        self._readable.clear()
        self._resume()

    async def receive(self) -> Arrival:
        """The next bytes, stamped when they could be read; after a loss first those that came before it."""
        while not self._held:
            if self._lost is not None:
                raise TransportError(Reason.LOST, self._lost)
            if self._port is None:
                raise TransportError(Reason.LOST, f"{self._path}: not open")
            self._readable.clear()
            await self._readable.wait()
        arrival = self._held.popleft()
        self._held_bytes -= len(arrival.data) + ARRIVAL_COST
        if not self._reading and self._lost is None and self._port is not None:
            self._resume()
        return arrival

    async def subscribe(self, characteristic: str) -> None:
        """A serial line has no characteristics: raises TransportError REFUSED."""
        raise self._no_characteristics(characteristic)

    async def read(self, characteristic: str) -> None:
        """A serial line has no characteristics: raises TransportError REFUSED."""
        raise self._no_characteristics(characteristic)

    async def write(self, characteristic: str, data: bytes) -> None:
        """Returns when the kernel has taken all bytes; never waits for them to leave the port.

        Raises:
            TransportError: LOST; TIMEOUT when the port takes no more, and part of `data` may then be on the line.
        """
        del characteristic
        async with self._one_writer:
            done = 0
            try:
                async with asyncio.timeout(WRITE_LIMIT_S):
                    while done < len(data):
                        done += await self._write_some(data[done:])
            except TimeoutError:
                text = f"{self._path}: took {done} of {len(data)} bytes in {WRITE_LIMIT_S:g} s"
                raise TransportError(Reason.TIMEOUT, text) from None

    async def close(self) -> None:
        """Gives the port back. What was written and has not left yet is discarded: waiting for it can hang."""
        port, self._port = self._port, None
        if port is None:
            return
        self._lose(port, f"{self._path}: closed by the hub")
        try:
            await _in_thread(lambda: _close_port(port), CLOSE_LIMIT_S)
        except TimeoutError:
            # The thread goes on closing; meanwhile opening again reports the port as busy, which is the truth.
            return

    def _open_port(self) -> serial.Serial:
        port = serial.Serial(
            str(self._path),
            baudrate=self._line.baud,
            bytesize=self._line.bytesize,
            parity=self._line.parity,
            stopbits=self._line.stopbits,
            timeout=0,
            write_timeout=0,
            # Sets VMIN to 1. With pyserial's usual 0 a read that finds nothing looks the same as an unplug.
            inter_byte_timeout=0,
            xonxoff=False,
            rtscts=False,
            dsrdtr=False,
            exclusive=True,
        )
        try:
            # The lock of `exclusive` binds only who asks for it too; this one binds everybody but root.
            fcntl.ioctl(port.fileno(), termios.TIOCEXCL)
        except OSError:
            port.close()
            raise
        return port

    def _cannot_open(self, error: Exception) -> TransportError:
        number = error.args[0] if error.args and isinstance(error.args[0], int) else None
        if number in GONE:
            what = "no device there; plug it in, or correct `port` in the configuration"
            return TransportError(Reason.NOT_FOUND, f"{self._path}: {what} ({error})")
        if number in TAKEN:
            what = "another program has it open; stop that program (ModemManager and brltty take ports)"
            return TransportError(Reason.BUSY, f"{self._path}: {what} ({error})")
        if number in FORBIDDEN:
            what = (
                "not allowed; add the hub's user to the group that owns the port, usually dialout"
            )
            return TransportError(Reason.DENIED, f"{self._path}: {what} ({error})")
        what = f"expected a serial port that takes {self._line}; correct `port` or `driver`"
        return TransportError(Reason.REFUSED, f"{self._path}: {what} ({error})")

    def _no_characteristics(self, characteristic: str) -> TransportError:
        text = (
            f"{self._path}: got characteristic {characteristic!r}, expected none on a serial line"
        )
        return TransportError(Reason.REFUSED, text)

    def _resume(self) -> None:
        if self._port is not None:
            asyncio.get_running_loop().add_reader(self._port.fileno(), self._on_readable)
            self._reading = True

    def _pause(self, port: serial.Serial) -> None:
        if self._reading:
            asyncio.get_running_loop().remove_reader(port.fileno())
            self._reading = False

    def _on_readable(self) -> None:
        at_ns = self._clock.boottime_ns()
        port = self._port
        if port is None:
            return
        try:
            data = os.read(port.fileno(), READ_BYTES)
        except BlockingIOError:
            return
        except PORT_ERRORS as error:
            self._lose(port, f"{self._path}: unplugged or failed ({error})")
            return
        if not data:
            # End of file. It would be readable for ever: without removing it the loop would spin.
            self._lose(port, f"{self._path}: unplugged (end of file)")
            return
        self._held.append(Arrival("", data, at_ns))
        self._held_bytes += len(data) + ARRIVAL_COST
        if self._held_bytes >= HELD_BYTES:
            self._pause(port)
        self._readable.set()

    async def _write_some(self, data: bytes) -> int:
        port = self._port
        if self._lost is not None:
            raise TransportError(Reason.LOST, self._lost)
        if port is None:
            raise TransportError(Reason.LOST, f"{self._path}: not open")
        try:
            return os.write(port.fileno(), data)
        except BlockingIOError:
            await self._until_writable(port)
            return 0
        except PORT_ERRORS as error:
            raise self._lose(port, f"{self._path}: unplugged or failed ({error})") from error

    async def _until_writable(self, port: serial.Serial) -> None:
        loop = asyncio.get_running_loop()
        descriptor = port.fileno()
        self._writable = writable = loop.create_future()
        loop.add_writer(descriptor, _settle, writable)
        try:
            await writable
        finally:
            self._writable = None
            # A loss removes it itself, before the descriptor is closed and its number is used for something else.
            if self._lost is None:
                loop.remove_writer(descriptor)

    def _lose(self, port: serial.Serial, text: str) -> TransportError:
        """Stops watching the descriptor at once and wakes whoever waits. The first cause stays."""
        if self._lost is None:
            self._pause(port)
            asyncio.get_running_loop().remove_writer(port.fileno())
            self._lost = text
            self._readable.set()
            if self._writable is not None:
                _settle(self._writable)
        return TransportError(Reason.LOST, self._lost)


def _settle(future: "asyncio.Future[None]") -> None:
    if not future.done():
        future.set_result(None)


def _close_port(port: serial.Serial) -> None:
    # An unplugged port has nothing to flush, and its descriptor is gone however close ends.
    with suppress(*PORT_ERRORS):
        # Unsent bytes would make close wait for them, up to half a minute with a usual driver.
        termios.tcflush(port.fileno(), termios.TCOFLUSH)
    with suppress(*PORT_ERRORS):
        port.close()


async def _in_thread(
    work: Callable[[], T], limit_s: float, undo: Callable[[T], None] | None = None
) -> T:
    """Runs `work` in a thread that may hang for ever without holding up the end of the process.

    Raises:
        TimeoutError: not done in time. When it gets done later, `undo` takes back its result.
    """
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def succeed(result: T) -> None:
        if not answer.done():
            answer.set_result(result)
        elif undo is not None:
            threading.Thread(target=undo, args=(result,), daemon=True).start()

    def fail(error: Exception) -> None:
        if not answer.done():
            answer.set_exception(error)

    def run() -> None:
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - carried over whole to the awaiting side
            with suppress(RuntimeError):  # the loop has ended meanwhile
                loop.call_soon_threadsafe(fail, error)
            return
        try:
            loop.call_soon_threadsafe(succeed, result)
        except RuntimeError:  # the loop has ended meanwhile
            if undo is not None:
                undo(result)

    threading.Thread(target=run, name="serial port", daemon=True).start()
    async with asyncio.timeout(limit_s):
        return await answer

"""The serial transport on real ptys: a pty that hangs up raises what an unplugged USB port raises."""

import asyncio
import errno
import fcntl
import os
import sys
import termios
import threading
import time
import tty
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import serial

from drivers.contract import SerialLink
from gateway.clock import SystemClock
from gateway.transport import serial as under_test
from gateway.transport.base import Reason, TransportError
from gateway.transport.serial import ARRIVAL_COST, HELD_BYTES, READ_BYTES, SerialTransport
from tests.gateway.fakes import open_files

LINE = SerialLink(115200)


class Wire:
    """A pty behind a path. The slave stays open here, so that only `hang_up` ends it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plug()

    def plug(self) -> None:
        self.master, slave = os.openpty()
        tty.setraw(slave)
        self.path.unlink(missing_ok=True)
        self.path.symlink_to(os.ttyname(slave))
        os.close(slave)
        os.set_blocking(self.master, False)

    def hang_up(self) -> None:
        os.close(self.master)
        self.master = -1
        self.path.unlink()

    def send(self, data: bytes) -> int:
        try:
            return os.write(self.master, data)
        except BlockingIOError:
            return 0


@pytest.fixture
def wire(tmp_path: Path) -> Iterator[Wire]:
    wire = Wire(tmp_path / "ttyWARD0")
    yield wire
    if wire.master >= 0:
        os.close(wire.master)


def transport_at(path: Path) -> SerialTransport:
    return SerialTransport(path, LINE, SystemClock())


def with_open(wire: Wire, use: Callable[[SerialTransport], Coroutine[Any, Any, None]]) -> None:
    async def main() -> None:
        transport = transport_at(wire.path)
        await transport.open()
        try:
            async with asyncio.timeout(20):
                await use(transport)
        finally:
            await transport.close()

    asyncio.run(main())


async def take(transport: SerialTransport, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += (await transport.receive()).data
    return data


def reason_of(error: pytest.ExceptionInfo[TransportError]) -> Reason:
    return error.value.reason


def test_every_byte_value_passes_in_order_and_unchanged(wire: Wire) -> None:
    sent = bytes(range(256)) * 4 + b"\x11\x13" * 50 + b"\x03\x04\x0a\x0d\x1a\x7f\xff" * 20

    async def use(transport: SerialTransport) -> None:
        for start in range(0, len(sent), 7):
            wire.send(sent[start : start + 7])
            await asyncio.sleep(0)
        assert await take(transport, len(sent)) == sent

    with_open(wire, use)


def test_line_is_raw_and_without_flow_control(wire: Wire) -> None:
    async def use(_: SerialTransport) -> None:
        iflag, _oflag, cflag, lflag, _, ospeed, cc = termios.tcgetattr(wire.master)
        assert not iflag & (termios.IXON | termios.IXOFF | termios.ICRNL)
        assert not cflag & termios.CRTSCTS
        assert not lflag & (termios.ICANON | termios.ECHO | termios.ISIG)
        assert ospeed == termios.B115200
        assert cc[termios.VMIN] in {1, b"\x01"}

    with_open(wire, use)


def test_odd_parity_reaches_the_line(wire: Wire) -> None:
    async def main() -> None:
        transport = SerialTransport(wire.path, SerialLink(19200, parity="O"), SystemClock())
        await transport.open()
        attributes = termios.tcgetattr(wire.master)
        assert attributes[2] & termios.PARODD
        assert attributes[5] == termios.B19200
        await transport.close()

    asyncio.run(main())


def test_arrival_carries_the_time_when_it_could_be_read(wire: Wire) -> None:
    async def use(transport: SerialTransport) -> None:
        clock = SystemClock()
        before_ns = clock.boottime_ns()
        wire.send(b"abc")
        await asyncio.sleep(0.05)
        after_ns = clock.boottime_ns()
        await asyncio.sleep(0.05)
        arrival = await transport.receive()
        assert (arrival.source, arrival.data, arrival.dropped) == ("", b"abc", 0)
        assert before_ns <= arrival.at_ns <= after_ns

    with_open(wire, use)


def test_what_came_before_opening_is_not_delivered(wire: Wire) -> None:
    wire.send(b"stale")

    async def use(transport: SerialTransport) -> None:
        wire.send(b"fresh")
        assert (await transport.receive()).data == b"fresh"

    with_open(wire, use)


def test_unplug_ends_in_lost_after_what_had_arrived_and_replug_opens_again(wire: Wire) -> None:
    async def main() -> None:
        transport = transport_at(wire.path)
        await transport.open()
        wire.send(b"last words")
        await asyncio.sleep(0.02)
        wire.hang_up()
        await asyncio.sleep(0.02)
        assert (await transport.receive()).data == b"last words"
        for _ in range(2):
            with pytest.raises(TransportError) as caught:
                await transport.receive()
            assert reason_of(caught) is Reason.LOST
        with pytest.raises(TransportError) as caught:
            await transport.write("", b"x")
        assert reason_of(caught) is Reason.LOST
        await transport.close()
        with pytest.raises(TransportError) as caught:
            await transport.open()
        assert reason_of(caught) is Reason.NOT_FOUND
        wire.plug()
        await transport.open()
        wire.send(b"again")
        assert (await transport.receive()).data == b"again"
        await transport.close()

    asyncio.run(main())


def test_unplug_wakes_a_waiting_receive_and_the_loop_does_not_spin(wire: Wire) -> None:
    async def use(transport: SerialTransport) -> None:
        asyncio.get_running_loop().call_later(0.02, wire.hang_up)
        with pytest.raises(TransportError) as caught:
            await transport.receive()
        assert reason_of(caught) is Reason.LOST
        cpu_s = time.process_time()
        await asyncio.sleep(0.3)
        assert time.process_time() - cpu_s < 0.1

    with_open(wire, use)


@pytest.mark.parametrize(
    "failure",
    [
        OSError(errno.EIO, "Input/output error"),
        OSError(errno.ENXIO, "No such device or address"),
        OSError(errno.ENODEV, "No such device"),
        serial.SerialException("device reports readiness to read but returned no data"),
        termios.error(5, "Input/output error"),
        b"",
    ],
    ids=["EIO", "ENXIO", "ENODEV", "SerialException", "termios.error", "empty"],
)
def test_every_face_of_an_unplug_is_lost_and_read_once(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, failure: Exception | bytes
) -> None:
    reads = 0

    def read(_descriptor: int, _count: int) -> bytes:
        nonlocal reads
        reads += 1
        if isinstance(failure, Exception):
            raise failure
        return failure

    async def use(transport: SerialTransport) -> None:
        monkeypatch.setattr(os, "read", read)
        wire.send(b"x")  # stays readable for ever: only removing the reader ends it
        with pytest.raises(TransportError) as caught:
            await transport.receive()
        assert reason_of(caught) is Reason.LOST
        await asyncio.sleep(0.05)
        monkeypatch.undo()
        assert reads == 1

    with_open(wire, use)


def test_hang_up_while_opening_is_a_transport_error(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    flush = serial.Serial._reset_input_buffer  # type: ignore[attr-defined]
    seen: list[Exception] = []

    def hang_up_first(port: serial.Serial) -> None:
        wire.hang_up()
        try:
            flush(port)
        except Exception as error:
            seen.append(error)
            raise

    monkeypatch.setattr(serial.Serial, "_reset_input_buffer", hang_up_first)

    async def main() -> None:
        with pytest.raises(TransportError) as caught:
            await transport_at(wire.path).open()
        assert reason_of(caught) is Reason.NOT_FOUND

    asyncio.run(main())
    assert isinstance(seen[0], termios.error)
    assert not isinstance(seen[0], OSError)


def test_missing_port_is_not_found(tmp_path: Path) -> None:
    async def main() -> None:
        with pytest.raises(TransportError, match="plug it in") as caught:
            await transport_at(tmp_path / "ttyNONE").open()
        assert reason_of(caught) is Reason.NOT_FOUND

    asyncio.run(main())


def test_second_hub_is_told_that_the_port_is_busy(wire: Wire) -> None:
    async def use(_: SerialTransport) -> None:
        second = transport_at(wire.path)
        with pytest.raises(TransportError, match="another program has it open") as caught:
            await second.open()
        assert reason_of(caught) is Reason.BUSY
        await second.close()

    with_open(wire, use)


def test_program_that_asks_for_no_lock_is_kept_out_unless_it_is_root(wire: Wire) -> None:
    program = (
        "import os, sys\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "try: os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)\n"
        "except OSError as error: print(error.errno)\n"
    )

    async def use(_: SerialTransport) -> None:
        port = wire.path.resolve()
        port.chmod(0o666)
        done = await asyncio.create_subprocess_exec(
            sys.executable, "-c", program, port, stdout=asyncio.subprocess.PIPE
        )
        answer, _stderr = await done.communicate()
        assert int(answer) == errno.EBUSY

    with_open(wire, use)


@pytest.mark.parametrize(
    ("number", "reason", "advice"),
    [
        (errno.EACCES, Reason.DENIED, "dialout"),
        (errno.EPERM, Reason.DENIED, "dialout"),
        (errno.EBUSY, Reason.BUSY, "another program"),
        (errno.EAGAIN, Reason.BUSY, "another program"),
        (errno.ENXIO, Reason.NOT_FOUND, "plug it in"),
        (errno.ENODEV, Reason.NOT_FOUND, "plug it in"),
        (errno.EINVAL, Reason.REFUSED, "correct `port`"),
    ],
)
def test_each_open_error_has_its_reason_and_says_what_to_do(
    wire: Wire, monkeypatch: pytest.MonkeyPatch, number: int, reason: Reason, advice: str
) -> None:
    def fail(*_: object) -> None:
        raise serial.SerialException(number, os.strerror(number))

    monkeypatch.setattr(serial.Serial, "open", fail)

    async def main() -> None:
        with pytest.raises(TransportError, match=advice) as caught:
            await transport_at(wire.path).open()
        assert reason_of(caught) is reason

    asyncio.run(main())


def test_file_that_is_no_port_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.touch()

    async def main() -> None:
        with pytest.raises(TransportError, match="expected a serial port") as caught:
            await transport_at(path).open()
        assert reason_of(caught) is Reason.REFUSED

    asyncio.run(main())


def test_open_that_hangs_is_given_up_and_taken_back_when_it_succeeds_late(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    open_port = serial.Serial.open
    late: list[serial.Serial] = []  # held, so that nobody but the transport closes it

    def hang(port: serial.Serial) -> None:
        release.wait(10)
        open_port(port)
        late.append(port)

    async def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(under_test, "OPEN_LIMIT_S", 0.1)
            patch.setattr(serial.Serial, "open", hang)
            transport = transport_at(wire.path)
            with pytest.raises(TransportError) as caught:
                await transport.open()
            assert reason_of(caught) is Reason.TIMEOUT
            release.set()
            await asyncio.sleep(0.1)
        for _ in range(50):  # the late port is closed by a thread
            try:
                await transport.open()
            except TransportError:
                await asyncio.sleep(0.02)
            else:
                break
        wire.send(b"x")
        assert (await transport.receive()).data == b"x"
        await transport.close()

    asyncio.run(main())


def test_reader_that_stops_taking_loses_nothing(wire: Wire) -> None:
    total = HELD_BYTES + 40_000
    sent = b"".join(n.to_bytes(4, "little") for n in range(total // 4))

    async def use(transport: SerialTransport) -> None:
        at = 0
        # Nobody takes: at last neither the hub nor the kernel has room. What moves the bytes is a worker of the kernel.
        while transport._reading:
            at += wire.send(sent[at : at + 1024])
            await asyncio.sleep(0)
        assert at < len(sent)
        assert not transport._reading
        assert transport._held_bytes < HELD_BYTES + READ_BYTES + ARRIVAL_COST
        received = b""
        while len(received) < len(sent):
            at += wire.send(sent[at : at + 1024])
            arrival = await transport.receive()
            assert arrival.dropped == 0
            received += arrival.data
        assert received == sent
        assert transport._reading

    with_open(wire, use)


def test_line_that_comes_byte_by_byte_is_bounded_too(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "READ_BYTES", 1)
    monkeypatch.setattr(under_test, "HELD_BYTES", 10 * (ARRIVAL_COST + 1))

    async def use(transport: SerialTransport) -> None:
        wire.send(b"0123456789abcdef")
        await asyncio.sleep(0.05)
        assert len(transport._held) == 10
        assert not transport._reading
        assert await take(transport, 16) == b"0123456789abcdef"

    with_open(wire, use)


def test_write_larger_than_the_port_takes_arrives_whole(wire: Wire) -> None:
    data = os.urandom(60_000)

    async def use(transport: SerialTransport) -> None:
        writing = asyncio.create_task(transport.write("", data))
        received = b""
        while len(received) < len(data):
            await asyncio.sleep(0)
            try:
                received += os.read(wire.master, 4096)
            except BlockingIOError:
                await asyncio.sleep(0.001)
        await writing
        assert received == data

    with_open(wire, use)


def test_write_to_a_stuck_port_times_out_and_says_how_far_it_came(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(under_test, "WRITE_LIMIT_S", 0.1)

    async def use(transport: SerialTransport) -> None:
        with pytest.raises(TransportError, match=r"took [1-9]\d* of 100000 bytes") as caught:
            await transport.write("", bytes(100_000))
        assert reason_of(caught) is Reason.TIMEOUT

    with_open(wire, use)


def test_unplug_ends_a_waiting_write(wire: Wire) -> None:
    async def use(transport: SerialTransport) -> None:
        asyncio.get_running_loop().call_later(0.05, wire.hang_up)
        with pytest.raises(TransportError) as caught:
            await transport.write("", bytes(100_000))
        assert reason_of(caught) is Reason.LOST

    with_open(wire, use)


def test_characteristics_are_refused(wire: Wire) -> None:
    async def use(transport: SerialTransport) -> None:
        for call in (transport.subscribe, transport.read):
            with pytest.raises(TransportError) as caught:
                await call("2a37")
            assert reason_of(caught) is Reason.REFUSED

    with_open(wire, use)


def test_close_is_harmless_whenever_and_frees_port_and_descriptors(wire: Wire) -> None:
    async def main() -> None:
        transport = transport_at(wire.path)
        await transport.close()
        before = open_files()
        for _ in range(3):
            await transport.open()
            assert str(wire.path.resolve()) in open_files() - before
            await transport.close()
            await transport.close()
        assert open_files() - before == set()
        with pytest.raises(TransportError) as caught:
            await transport.receive()
        assert reason_of(caught) is Reason.LOST

    asyncio.run(main())


def test_close_wakes_a_waiting_receive(wire: Wire) -> None:
    async def use(transport: SerialTransport) -> None:
        waiting = asyncio.create_task(transport.receive())
        await asyncio.sleep(0.01)
        await transport.close()
        with pytest.raises(TransportError) as caught:
            await waiting
        assert reason_of(caught) is Reason.LOST

    with_open(wire, use)


def test_opening_twice_is_busy_and_keeps_the_first(wire: Wire) -> None:
    async def use(transport: SerialTransport) -> None:
        with pytest.raises(TransportError) as caught:
            await transport.open()
        assert reason_of(caught) is Reason.BUSY
        wire.send(b"x")
        assert (await transport.receive()).data == b"x"

    with_open(wire, use)


def test_lock_is_taken(wire: Wire) -> None:
    async def use(_: SerialTransport) -> None:
        other = (
            os.open(wire.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK) if not os.getuid() else None
        )
        if other is None:
            pytest.skip("only root gets past TIOCEXCL to try the lock")
        try:
            with pytest.raises(BlockingIOError):
                fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        finally:
            os.close(other)

    with_open(wire, use)

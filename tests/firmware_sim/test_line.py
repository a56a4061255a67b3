import fcntl
import os
import select
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path

import pytest

from firmware_sim.line import PtyLine


@pytest.fixture
def line(tmp_path: Path) -> Iterator[PtyLine]:
    line = PtyLine(tmp_path / "ttyWARD0")
    yield line
    line.close()


def open_port(line: PtyLine) -> int:
    return os.open(line.path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)


def is_open(line: PtyLine) -> bool:
    return line.opened


def readable(port: int) -> bool:
    return bool(select.select([port], [], [], 0.2)[0])


def test_raw_bytes_both_ways(line: PtyLine) -> None:
    port = open_port(line)
    sent = bytes(range(256))
    assert line.write(sent) == 256
    assert readable(port)
    assert os.read(port, 4096) == sent
    os.write(port, b"\x03\r\n\x11")
    assert readable(line._master or -1)
    assert line.read() == b"\x03\r\n\x11"
    assert line.read() == b""
    os.close(port)


def test_nothing_is_kept_while_nobody_has_the_port_open(line: PtyLine) -> None:
    assert not is_open(line)
    assert line.write(b"into the void") == 0
    port = open_port(line)
    assert is_open(line)
    line.write(b"live")
    assert readable(port)
    assert os.read(port, 4096) == b"live"
    assert line.counts.lost_closed == len(b"into the void")
    os.close(port)


def test_what_was_left_unread_at_closing_is_gone(line: PtyLine) -> None:
    port = open_port(line)
    line.write(b"unread" * 500)
    os.close(port)
    assert line.write(b"closed") == 0
    port = open_port(line)
    line.write(b"new")
    assert readable(port)
    assert os.read(port, 4096) == b"new"
    assert line.counts.closings == 1
    os.close(port)


def test_path_stays_while_the_port_behind_it_is_renewed(line: PtyLine) -> None:
    for turn in range(1, 4):
        port = open_port(line)
        assert is_open(line)
        os.close(port)
        assert not is_open(line)
        assert line.path.is_symlink()
        assert line.counts.closings == turn
    assert [entry.name for entry in line.path.parent.iterdir()] == ["ttyWARD0"]


def test_port_that_was_made_exclusive_can_be_opened_again(line: PtyLine) -> None:
    # The kernel keeps a pty exclusive until both ends are closed, and lets only root past that.
    program = (
        "import os, sys\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY)\n"
    )
    port = open_port(line)
    fcntl.ioctl(port, termios.TIOCEXCL)
    assert is_open(line)
    os.close(port)
    assert not is_open(line)
    behind = line.path.resolve()
    behind.chmod(0o666)
    subprocess.run([sys.executable, "-c", program, behind], check=True)


def test_what_does_not_fit_is_lost_and_counted(line: PtyLine) -> None:
    port = open_port(line)
    sent = taken = 0
    for _ in range(100):
        taken += line.write(bytes(1000))
        sent += 1000
    assert 0 < taken < sent
    assert line.counts.taken == taken
    assert line.counts.lost_full == sent - taken
    os.close(port)


def test_unplug_is_an_end_of_file_and_replug_a_fresh_port(line: PtyLine) -> None:
    port = open_port(line)
    line.unplug()
    line.unplug()
    assert line.path.exists() is False
    assert not line.path.is_symlink()
    assert readable(port)
    assert os.read(port, 4096) == b""
    assert line.write(b"abc") == 0
    assert line.read() == b""
    assert line.counts.lost_unplugged == 3
    os.close(port)
    line.replug()
    port = open_port(line)
    assert line.write(b"again") == 5
    os.close(port)

"""The wire between a simulated device and the hub: a pty behind a stable path.

It behaves as a UART behind a kernel port: while nobody has the port open nothing is kept, and what does not fit is
gone. A pty by itself keeps such bytes for whoever opens it next, and stays exclusive for ever once an opener made
it so; so after a closing the line puts a fresh pty behind its path. It looks for one at each write: a port that is
closed and opened again in between is the same port. Baud rate and modem lines have no effect.
"""

import os
import select
import tty
from dataclasses import dataclass
from pathlib import Path


@dataclass(slots=True)
class LineCounts:
    """What became of the bytes. What the kernel took may still be discarded when the hub opens or closes."""

    taken: int = 0
    lost_unplugged: int = 0
    lost_closed: int = 0
    lost_full: int = 0
    closings: int = 0


class PtyLine:
    """One port at `path`. Never blocks."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts = LineCounts()
        self._master: int | None = None
        self._was_open = False
        self.replug()

    @property
    def plugged(self) -> bool:
        """Whether the port exists."""
        return self._master is not None

    @property
    def opened(self) -> bool:
        """Whether somebody has the port open now. Notices a closing, and cleans up after it."""
        if self._master is None:
            return False
        # No slave is held open here, so the kernel reports a hang-up exactly while nobody has the port open.
        poll = select.poll()
        poll.register(self._master, 0)
        if not poll.poll(0):
            self._was_open = True
        elif self._was_open:
            self.counts.closings += 1
            self._connect(self._take_master())
        return self._was_open

    def write(self, data: bytes) -> int:
        """How many bytes, from the front, the port has taken. The others are lost, and counted."""
        if self._master is None:
            self.counts.lost_unplugged += len(data)
            return 0
        if not self.opened:
            self.counts.lost_closed += len(data)
            return 0
        try:
            taken = os.write(self._master, data)
        except BlockingIOError:
            taken = 0
        self.counts.taken += taken
        self.counts.lost_full += len(data) - taken
        return taken

    def read(self) -> bytes:
        """What the hub has sent since the last call; b"" when nothing."""
        if self._master is None:
            return b""
        try:
            return os.read(self._master, 4096)
        except BlockingIOError:
            return b""
        except OSError:  # EIO: nobody has the port open
            return b""

    def unplug(self) -> None:
        """The port vanishes, as with a pulled USB plug: whoever has it open gets an end of file."""
        if self._master is None:
            return
        self.path.unlink(missing_ok=True)
        os.close(self._take_master())

    def replug(self) -> None:
        """The port is there (again), empty."""
        if self._master is None:
            self._connect(None)

    close = unplug

    def _take_master(self) -> int:
        master = self._master
        if master is None:
            raise ValueError(f"{self.path}: got an unplugged line, expected a plugged one")
        self._master = None
        return master

    def _connect(self, old: int | None) -> None:
        master, slave = os.openpty()
        tty.setraw(slave)  # a fresh pty echoes and translates
        os.set_blocking(master, False)
        beside = self.path.with_name(f".{self.path.name}.new")
        beside.unlink(missing_ok=True)
        beside.symlink_to(os.ttyname(slave))
        beside.replace(self.path)
        os.close(slave)
        if old is not None:
            os.close(old)
        self._master, self._was_open = master, False

"""Being woken when another process writes a file: inotify(7). No polling, and the writer knows nothing of it."""

import asyncio
import ctypes
import errno
import os
from pathlib import Path

IN_MODIFY = 0x00000002
IN_MOVE_SELF = 0x00000800
IN_DELETE_SELF = 0x00000400
EVENTS_BYTES = 4096


class Watch:
    """One file, from now on. Equal events that nobody has fetched are one event, so the kernel's queue is bounded."""

    def __init__(self, path: Path) -> None:
        """Raises OSError when the file is not there, or the machine has no inotify left."""
        libc = ctypes.CDLL(None, use_errno=True)
        self._fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _error(path)
        mask = IN_MODIFY | IN_MOVE_SELF | IN_DELETE_SELF
        if libc.inotify_add_watch(self._fd, os.fsencode(path), mask) < 0:
            error = _error(path)
            os.close(self._fd)
            raise error

    async def changed(self) -> None:
        """Returns when the file was written since the last return."""
        loop = asyncio.get_running_loop()
        ready = asyncio.Event()
        loop.add_reader(self._fd, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(self._fd)
        os.read(self._fd, EVENTS_BYTES)

    def close(self) -> None:
        """Lets go of it."""
        os.close(self._fd)


def _error(path: Path) -> OSError:
    number = ctypes.get_errno()
    hint = "; raise fs.inotify" if number in {errno.EMFILE, errno.ENOSPC} else ""
    return OSError(number, f"cannot watch: {os.strerror(number)}{hint}", str(path))

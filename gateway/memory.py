"""Keeping a small process small: what glibc and the kernel hold on to after a start, given back once."""

import ctypes
from pathlib import Path

M_ARENA_MAX = -8
MADV_DONTNEED = 4


def settle(maps: Path = Path("/proc/self/maps")) -> None:
    """Called once after the imports, before threads.

    One heap serves all threads: a heap for each costs 5 MB, and here they take turns. Pages of code that only the start
    needed go back to the page cache, 5 MB; what is needed again is mapped again from there (madvise(2), MADV_DONTNEED
    on private pages of a file that nobody has written to: code is never writable here).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in maps.read_text(encoding="utf-8").splitlines():
        span, rights, _, _, inode, *_ = line.split(maxsplit=5)
        if rights == "r-xp" and inode != "0":
            first, last = (int(end, 16) for end in span.split("-"))
            libc.madvise(first, last - first, MADV_DONTNEED)

"""Keeping a small process small: a module that nobody needs stays out, and what a start left behind is given back.

For `wardlink uplink`, which may take 35 MB; without this it takes 45.
"""

import ctypes
import importlib
import sys
from pathlib import Path
from types import ModuleType

M_MMAP_THRESHOLD = -3
M_ARENA_MAX = -8
LARGE_BYTES = 131_072
MADV_DONTNEED = 4


class _Later(ModuleType):
    """Stands for a module until somebody asks it for something."""

    def __getattr__(self, name: str) -> object:
        sys.modules.pop(self.__name__, None)
        return getattr(importlib.import_module(self.__name__), name)


def postpone(package: str, name: str) -> None:
    """Puts the import of `package.name` off to its first use: for one that others import and hardly ever use."""
    full = f"{package}.{name}"
    parent = importlib.import_module(package)
    if full not in sys.modules:
        sys.modules[full] = _Later(full)
        setattr(parent, name, sys.modules[full])  # as its import would have done


def settle(maps: Path = Path("/proc/self/maps")) -> None:
    """Called once after the imports, before threads.

    One heap serves all threads: a heap for each costs 5 MB, and here they take turns. A large buffer, such as a segment
    that is read, goes back to the kernel when it is done with, and never becomes part of the heap. Pages of code that only the start
    needed go back to the page cache, 5 MB; what is needed again is mapped again from there (madvise(2), MADV_DONTNEED
    on private pages of a file that nobody has written to: code is never writable here).
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for line in maps.read_text(encoding="utf-8").splitlines():
        span, rights, _, _, inode, *_ = line.split(maxsplit=5)
        if rights == "r-xp" and inode != "0":
            first, last = (int(end, 16) for end in span.split("-"))
            libc.madvise(first, last - first, MADV_DONTNEED)

"""Keeping a small process small: a module that nobody needs stays out, and what a start left behind is given back.

For `wardlink uplink`, which may take 35 MB; without this it takes 45.
"""

import ctypes
import gc
import importlib
import sys
from collections.abc import Callable
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


def settle(smaps: Path = Path("/proc/self/smaps")) -> Callable[[], None]:
    """Called once after the imports, before threads.

    One heap serves all threads: a heap for each costs 5 MB, and here they take turns. A large buffer, such as a segment
    that is read, goes back to the kernel when it is done with, and never becomes part of the heap. So does what the start
    left free in the heap. Pages of code and constants that only the start needed go back to the page cache, 9 MB; what is
    needed again is mapped again from there (madvise(2), MADV_DONTNEED on private pages of a file).

    Returns:
        What gives such pages and free heap back once more, after work that comes seldom: a TLS handshake needs 8 MB of
        them. For any thread, beside others: it knows the mappings of now, which stay until the process ends, and does not
        look for new ones, whose addresses could have become another's meanwhile.
    """
    gc.collect()
    libc = ctypes.CDLL(None)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    if hasattr(libc, "mallopt"):
        libc.mallopt(M_ARENA_MAX, 1)
        libc.mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
    spans = untouched(smaps.read_text(encoding="utf-8"))

    def give_back() -> None:
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)
        for first, last in spans:
            libc.madvise(first, last - first, MADV_DONTNEED)

    give_back()
    return give_back


def untouched(smaps: str) -> list[tuple[int, int]]:
    """The private mappings of files, from /proc/self/smaps, that cannot be written and of which no page ever was.

    What the loader relocated is read-only as well by now, and is not in the file: such a mapping has anonymous pages.
    """
    found = []
    span, is_file = (0, 0), False
    for line in smaps.splitlines():
        name, *fields = line.split(maxsplit=5)
        if not name.endswith(":"):
            first, last = (int(end, 16) for end in name.split("-"))
            span, is_file = (first, last), fields[0] in {"r-xp", "r--p"} and fields[3] != "0"
        elif name == "Anonymous:" and is_file and fields[0] == "0":
            found.append(span)
    return found

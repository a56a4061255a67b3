"""How a kernel becomes machine code: the one place that decides which implementation runs.

A kernel is a plain function on arrays and scalars with its types declared, so that the same source can be built
ahead of time into `gateway.signal.compiled`. Where that module exists it is taken and numba is never imported;
otherwise numba compiles at import, with a cache on disk. Nothing compiles later than at import.

numba's cache index is keyed by the file of the kernel alone: a kernel may call only kernels of its own file, or a
change in the other file would leave stale machine code behind.
"""

import contextlib
import importlib
import importlib.util
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

AHEAD_OF_TIME: Final = "gateway.signal.compiled"

UNREADABLE: Final = (
    pickle.UnpicklingError,
    EOFError,
    AttributeError,
    ImportError,
    IndexError,
    KeyError,
    TypeError,
    ValueError,
)
"""What unpickling damaged bytes may raise: a power cut leaves truncated or zeroed files."""

SIGNATURES: dict[str, str] = {}
"""Every kernel's name and numba signature: what a build ahead of time exports."""


def _implementation() -> str:
    if importlib.util.find_spec(AHEAD_OF_TIME) is not None:
        return "aot"
    return "python" if os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"} else "jit"


IMPLEMENTATION: Final = _implementation()
"""Which kernels run: "aot" (built ahead of time), "jit" (compiled at import) or "python" (NUMBA_DISABLE_JIT)."""


def kernel(signature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declares a kernel with its numba signature, and binds its name to the implementation that runs.

    The caller guarantees types and C order: what is built ahead of time checks neither. A kernel never divides by
    what may be zero, because the two ways of building disagree on what that gives.
    """

    def bind(function: Callable[P, R]) -> Callable[P, R]:
        SIGNATURES[function.__name__] = signature
        if IMPLEMENTATION == "python":
            return function
        if IMPLEMENTATION == "aot":
            built: Callable[P, R] = getattr(
                importlib.import_module(AHEAD_OF_TIME), function.__name__
            )
            return built
        return compiled(function, signature)

    return bind


def compiled(function: Callable[P, R], signature: str) -> Callable[P, R]:
    """Machine code for `signature` and for nothing else, from the cache where that is whole.

    A cache that cannot be read is wiped and made anew; one that cannot be written (a read-only installation, a full
    disk) is done without.
    """
    _choose_cache()
    try:
        dispatcher = _dispatcher(function, cached=True)
    except RuntimeError:  # numba: no locator available
        return _compile(_dispatcher(function, cached=False), signature)
    try:
        return _compile(dispatcher, signature)
    except UNREADABLE:
        _wipe(dispatcher)
    except OSError:
        return _compile(_dispatcher(function, cached=False), signature)
    try:
        return _compile(_dispatcher(function, cached=True), signature)
    except (*UNREADABLE, OSError):  # a directory that can be neither read nor cleaned
        return _compile(_dispatcher(function, cached=False), signature)


def _choose_cache() -> None:
    """A unit's own CacheDirectory= holds the cache, unless NUMBA_CACHE_DIR names another place."""
    import numba  # noqa: PLC0415 - absent on a hub whose kernels were built ahead of time

    directory = os.environ.get("CACHE_DIRECTORY", "").partition(":")[0]
    if directory and not os.environ.get("NUMBA_CACHE_DIR"):
        config: Any = numba.config  # it makes its names at run time
        config.CACHE_DIR = str(Path(directory) / "numba")


def _dispatcher(function: Callable[P, R], *, cached: bool) -> Any:
    import numba  # noqa: PLC0415 - absent on a hub whose kernels were built ahead of time

    # No fastmath: reordered sums would differ from one CPU to the next, and NaN must stay NaN.
    return numba.njit(cache=cached, fastmath=False, error_model="numpy")(function)


def _compile(dispatcher: Any, signature: str) -> Callable[..., Any]:
    dispatcher.compile(signature)
    dispatcher.disable_compile()
    built: Callable[..., Any] = dispatcher
    return built


def _wipe(dispatcher: Any) -> None:
    """Removes the cache files of one kernel: `<module>.<name>-<line>.<abi>.nbi` and its numbered `.nbc`."""
    function = dispatcher.py_func
    stem = Path(function.__code__.co_filename).stem
    for path in Path(dispatcher.stats.cache_path).glob(f"{stem}.{function.__qualname__}-*.nb[ic]"):
        with contextlib.suppress(OSError):
            path.unlink()

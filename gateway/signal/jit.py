"""How a kernel becomes machine code: the one place that decides which implementation runs.

A kernel is a plain function on arrays and scalars with its types declared. From the same source `hatch_build.py` builds
`gateway.signal.compiled` ahead of time, which the wheel brings: where that module exists it is taken, and numba is never
imported. In a checkout numba compiles at import, with a cache on disk. Nothing compiles later than at import.

numba's cache index is keyed by the file of the kernel alone: a kernel may call only kernels of its own file, or a
change in the other file would leave stale machine code behind.
"""

import contextlib
import importlib
import importlib.util
import os
import pickle
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")

HERE: Final = Path(__file__).parent
AHEAD_OF_TIME: Final = f"{__package__}.compiled"

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


@dataclass(frozen=True, slots=True)
class Kernel:
    """A row of the table that a build ahead of time exports.

    Attributes:
        signature: numba's, with layouts: the types that the caller guarantees.
        module: where it is defined.
        run: the implementation that its name is bound to.
    """

    signature: str
    module: str
    run: Callable[..., Any]


KERNELS: Final[dict[str, Kernel]] = {}
"""Every kernel that was imported, by its name: one space of names for all modules, since they become one."""


def _sources() -> list[Path]:
    return sorted(HERE.glob("*.py"))


def all_kernels() -> Mapping[str, Kernel]:
    """Imports every module here, and returns the whole table."""
    for source in _sources():
        if source.stem != "__init__":
            importlib.import_module(f"{__package__}.{source.stem}")
    return KERNELS


def checksum() -> int:
    """Of all sources here. What was built ahead of time keeps that of the sources it was built from."""
    total = 0
    for path in _sources():
        total = zlib.crc32(path.read_bytes(), zlib.crc32(path.name.encode(), total))
    return total


def _implementation() -> str:
    if importlib.util.find_spec(AHEAD_OF_TIME) is not None:
        return "aot"
    if os.environ.get("NUMBA_DISABLE_JIT", "0") not in {"", "0"}:
        return "python"
    if importlib.util.find_spec("numba") is None:
        raise ImportError(
            f"kernels: got neither {AHEAD_OF_TIME} for this Python nor numba, expected one of them."
            " Install the wheel that `make wheel` builds with this Python, or work in a checkout after `make setup`.",
            name=AHEAD_OF_TIME,
        )
    return "jit"


IMPLEMENTATION: Final = _implementation()
"""Which kernels run: "aot" (built ahead of time), "jit" (compiled at import) or "python" (NUMBA_DISABLE_JIT)."""


def built_ahead() -> Any:
    """The module that was built ahead of time, from these very sources: it would take other arrays for its own."""
    module: Any = importlib.import_module(AHEAD_OF_TIME)
    if module.checksum() != checksum():
        raise ImportError(
            f"kernels: got {AHEAD_OF_TIME} built from sources of checksum {module.checksum():08x}, expected"
            f" {checksum():08x} as in {HERE}. Half of an installation was replaced: install the wheel again.",
            name=AHEAD_OF_TIME,
        )
    return module


_AHEAD: Final = built_ahead() if IMPLEMENTATION == "aot" else None


def kernel(signature: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Declares a kernel with its numba signature, and binds its name to the implementation that runs.

    The caller guarantees types and C order: what is built ahead of time checks neither. A kernel never divides by
    what may be zero: compiled that gives an infinity, without a compiler an exception.
    """

    def bind(function: Callable[P, R]) -> Callable[P, R]:
        name, module = function.__name__, function.__module__
        known = KERNELS.get(name)
        if known is not None and known.module != module:
            raise ValueError(
                f"kernel {name}: got it in {known.module} and in {module}, expected each name once,"
                " since all kernels are built into one module. Rename one of them."
            )
        if IMPLEMENTATION == "python":
            run = function
        elif IMPLEMENTATION == "aot":
            run = getattr(_AHEAD, name)
        else:
            run = compiled(function, signature)
        KERNELS[name] = Kernel(signature, module, run)
        return run

    return bind


def compiled(function: Callable[P, R], signature: str) -> Callable[P, R]:
    """Machine code for `signature` and for nothing else, from the cache where that is whole.

    A cache that cannot be read is wiped and made anew; one that cannot be written (a read-only installation, a full
    disk) is done without.
    """
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

"""The one build file: compiles the kernels of gateway/signal ahead of time, for the wheel.

As hatchling's build hook it puts `gateway.signal.compiled` into the wheel, which so becomes one of this Python and this
processor family. As a program, `python hatch_build.py DIRECTORY`, it is the compilation itself: the hook starts it as a
process of its own, because numba reads its settings when it is imported. Needs numba, setuptools, a C++ compiler and
Python's headers; a hub needs none of them. An editable installation is left as it is: there numba compiles at import.
"""

import functools
import importlib
import importlib.metadata
import os
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

ROOT = Path(__file__).parent
PACKAGE = "gateway/signal"

SETTINGS = {
    # Any processor of the family, not the one that builds.
    "NUMBA_CPU_NAME": "generic",
    "NUMBA_CPU_FEATURES": "",
    "NUMBA_DISABLE_JIT": "0",
    # No debug information: it would be three quarters of the file, and full of paths of this machine.
    "CFLAGS": "-g0",
    "LDFLAGS": "-s",
}
NEEDS = (
    "compiling the kernels failed, see above: expected numba, setuptools, a C++ compiler and Python's headers."
    " `make wheel` installs what is missing (on Debian: g++ and python3-dev)."
)


class KernelsHook(BuildHookInterface[Any]):
    """What hatchling calls around the building of a wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Adds the compiled module, and the licence of what numba links into it."""
        if version == "editable":
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="wardlink-kernels-")
        target = Path(self._scratch.name)
        environment = {**os.environ, **SETTINGS, "NUMBA_CACHE_DIR": str(target / "cache")}
        command = [sys.executable, str(Path(__file__)), str(target)]
        if subprocess.run(command, env=environment, check=False).returncode:
            raise SystemExit(NEEDS)
        for file in target.iterdir():
            if file.is_file():
                build_data["force_include"][str(file)] = f"{PACKAGE}/{file.name}"
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written: what it was made of may go."""
        del version, build_data, artifact_path
        if hasattr(self, "_scratch"):
            self._scratch.cleanup()


def compile_kernels(target: Path) -> None:
    """Writes the module that exports every kernel under its own name, and `checksum`, into `target`."""
    import numba
    from numba.core.errors import NumbaPendingDeprecationWarning

    # Nobody calls them from Python but through the module: without their own wrappers they are built sooner.
    quick = functools.partial(numba.njit, no_cpython_wrapper=True, no_cfunc_wrapper=True)
    vars(numba).update(njit=quick)
    with warnings.catch_warnings():
        # It has been on its way out since 2022 without a successor, so numba is pinned.
        warnings.simplefilter("ignore", NumbaPendingDeprecationWarning)
        pycc: Any = importlib.import_module("numba.pycc")
    from gateway.signal import jit

    if jit.IMPLEMENTATION != "jit":
        raise SystemExit(f"got kernels of kind {jit.IMPLEMENTATION}, expected a tree of sources")
    module = pycc.CC(jit.AHEAD_OF_TIME.rpartition(".")[2])
    module.output_dir = str(target)
    for name, kernel in sorted(jit.all_kernels().items()):
        module.export(name, kernel.signature)(_calling(kernel.run, kernel.signature))
    total = jit.checksum()
    module.export("checksum", "int64()")(lambda: total)
    module.compile()
    licences = [
        path.read_text(encoding="utf-8")
        for path in importlib.metadata.files("numba") or ()
        if path.name.startswith("LICENSE")
    ]
    if not licences:
        raise SystemExit("numba: got no licence in its metadata, expected one to pass on")
    (target / "compiled.licences.txt").write_text("\n".join(licences), encoding="utf-8")


def _calling(kernel: Any, signature: str) -> Any:
    """A function that does nothing but call the kernel as numba compiled it.

    numba.pycc would compile the kernel itself with settings of its own, in which a division by zero raises.
    """
    sigutils: Any = importlib.import_module("numba.core.sigutils")
    count = len(sigutils.normalize_signature(signature)[0])
    names = ", ".join(f"a{n}" for n in range(count))
    scope = {"kernel": kernel}
    exec(f"def call({names}): return kernel({names})", scope)
    return scope["call"]


if __name__ == "__main__":
    compile_kernels(Path(sys.argv[1]))

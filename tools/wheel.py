# noqa: INP001 - tools are no package
"""The wheel of this tree, built and unpacked: tests and benches run from it what a hub runs."""

import fcntl
import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PLACE = ROOT / "build" / "unpacked"
STAMP = "made-from"


@dataclass(frozen=True, slots=True)
class Wheel:
    """A wheel.

    Attributes:
        unpacked: the directory that holds what it would install.
        build_cpu_s: how much time of a processor it took to build.
    """

    file: Path
    unpacked: Path
    build_cpu_s: float

    @property
    def compiled(self) -> Path:
        """The kernels' machine code."""
        (module,) = (self.unpacked / "gateway" / "signal").glob("compiled.*.so")
        return module


def wheel() -> Wheel:
    """Builds it where the one that is there was made from other sources: some ten seconds of processor time.

    Raises:
        RuntimeError: it could not be built; the text says why.
    """
    PLACE.parent.mkdir(exist_ok=True)
    with PLACE.with_suffix(".lock").open("w") as lock:
        fcntl.flock(
            lock, fcntl.LOCK_EX
        )  # several processes run tests at a time: one of them builds
        stamp, made_from = PLACE / STAMP, _sources()
        if not stamp.exists() or stamp.read_text().split()[0] != made_from:
            shutil.rmtree(PLACE, ignore_errors=True)
            before = os.times()
            _build(PLACE)
            after = os.times()
            cpu_s = (
                after.children_user
                + after.children_system
                - before.children_user
                - before.children_system
            )
            stamp.write_text(f"{made_from} {cpu_s:.1f}")
        build_cpu_s = float(stamp.read_text().split()[1])
    (file,) = PLACE.glob("*.whl")
    return Wheel(file, PLACE / "tree", build_cpu_s)


def _build(place: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    done = subprocess.run(  # noqa: S603 - the build of this tree
        command, cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise RuntimeError(f"the wheel cannot be built:\n{done.stdout}{done.stderr}")
    (file,) = place.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(place / "tree")


def _sources() -> str:
    """Names all that goes into the wheel, and what makes it."""
    versions = [sys.version, *(importlib.metadata.version(name) for name in ("hatchling", "numba"))]
    total = hashlib.sha256(repr(versions).encode())
    places = (ROOT / "gateway", ROOT / "drivers")
    files = [path for place in places for path in place.rglob("*") if path.is_file()]
    files = [path for path in files if "__pycache__" not in path.parts]
    for path in sorted(
        [*files, *(ROOT / name for name in ("hatch_build.py", "pyproject.toml", "README.md"))]
    ):
        total.update(
            f"{path.relative_to(ROOT)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode()
        )
    return total.hexdigest()

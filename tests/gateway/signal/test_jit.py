"""Which kernels run, that none compiles late, and that no state of the cache keeps the hub from starting."""

import ast
import errno
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
from numba.core import caching

from gateway.signal import jit
from gateway.signal.ecg import EcgStream

ROOT = Path(jit.__file__).parents[2]
SOURCES = sorted(Path(jit.__file__).parent.glob("*.py"))

KERNELS = jit.all_kernels()
"""Here and not in a test: compiling all of them for the first time takes as long as it takes."""
SIGNATURE = "float64(float64)"


@pytest.fixture
def twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], float]:
    """A function in a file of its own, with its cache beside it: compiling it takes no time."""
    monkeypatch.delenv("NUMBA_CACHE_DIR", raising=False)
    monkeypatch.setattr(numba.config, "CACHE_DIR", "")
    source = tmp_path / "one.py"
    source.write_text("def twice(x):\n    return x + x\n")
    spec = importlib.util.spec_from_file_location("one", source)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    function: Callable[[float], float] = module.twice
    return function


def hits(function: Callable[[float], float]) -> int:
    """Compiles as at import, proves that it works, and returns 1 when the machine code came from the cache."""
    built: Any = jit.compiled(function, SIGNATURE)
    assert built(21.0) == 42.0
    assert not built._can_compile
    return sum(built.stats.cache_hits.values())


@pytest.mark.skipif(jit.IMPLEMENTATION != "jit", reason="the kernels are not compiled just in time")
def test_every_kernel_has_exactly_its_declared_signature() -> None:
    assert len(KERNELS) >= 10
    for name, kernel in KERNELS.items():
        run: Any = kernel.run
        assert len(run.signatures) == 1, name
        assert not run._can_compile, f"{name} may still compile for other types"
        assert getattr(sys.modules[kernel.module], name) is run


@pytest.mark.skipif(jit.IMPLEMENTATION != "jit", reason="the kernels are not compiled just in time")
def test_an_undeclared_type_is_refused_not_compiled() -> None:
    with pytest.raises(TypeError):
        KERNELS["median_rate"].run([1, 2, 3])


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_numba_is_reached_through_one_module_only(source: Path) -> None:
    names = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source.read_text()))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert ("numba" in names) == (source.stem == "jit")


def test_two_kernels_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jit, "KERNELS", {"same": jit.Kernel(SIGNATURE, "gateway.signal.one", abs)})

    def same(x: float) -> float:
        raise AssertionError(x)

    same.__module__ = "gateway.signal.two"
    with pytest.raises(ValueError, match=r"kernel same: got it in .*one and in .*two, expected"):
        jit.kernel(SIGNATURE)(same)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_a_kernel_calls_kernels_of_its_own_file_only(source: Path) -> None:
    """The cache knows only the file of the outer kernel: a change elsewhere would not be seen."""
    tree = ast.parse(source.read_text())
    own = {
        node.name for node in tree.body if isinstance(node, ast.FunctionDef) and node.decorator_list
    }
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name in KERNELS:
            used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            assert used & KERNELS.keys() <= own


def test_the_cache_is_used(twice: Callable[[float], float]) -> None:
    assert [hits(twice), hits(twice)] == [0, 1]


@pytest.mark.parametrize(
    "damage",
    [
        lambda _: b"",
        lambda whole: whole[: len(whole) // 2],
        lambda whole: whole[:-1],
        lambda whole: bytes(len(whole)),
        lambda _: b"\x80\x05garbage",
    ],
    ids=["empty", "half", "all but one byte", "zeroed", "garbage"],
)
@pytest.mark.parametrize("ending", ["nbi", "nbc"])
def test_a_damaged_cache_is_wiped_and_made_anew(
    twice: Callable[[float], float],
    tmp_path: Path,
    ending: str,
    damage: Callable[[bytes], bytes],
) -> None:
    hits(twice)
    (victim,) = tmp_path.glob(f"**/*.{ending}")
    victim.write_bytes(damage(victim.read_bytes()))
    assert [hits(twice), hits(twice)] == [0, 1]


def test_without_any_place_for_a_cache_it_still_runs(
    twice: Callable[[float], float], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "__pycache__").write_text("a file where the directory should be")
    (tmp_path / "home").write_text("another")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(RuntimeError, match="no locator available"):
        numba.njit(cache=True)(twice)
    assert [hits(twice), hits(twice)] == [0, 0]


def test_a_full_disk_is_no_reason_not_to_start(
    twice: Callable[[float], float], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caching.IndexDataCacheFile, "_save_data", full)
    assert hits(twice) == 0


def test_the_kernels_run_without_a_compiler() -> None:
    """NUMBA_DISABLE_JIT: plain Python, the same beats, and numba is not even imported."""
    x = np.zeros(1500)
    x[60::100] = 500
    stream = EcgStream(125.0)
    expected = [*stream.process(x).index.tolist(), *stream.flush().index.tolist()]
    code = (
        "import sys; import numpy as np; from gateway.signal import ecg, jit;"
        "x = np.zeros(1500); x[60::100] = 500; s = ecg.EcgStream(125.0);"
        "print(jit.IMPLEMENTATION, 'numba' in sys.modules,"
        " *s.process(x).index.tolist(), *s.flush().index.tolist())"
    )
    said = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert said[:2] == ["python", "False"]
    assert len(expected) == 15
    assert [float(index) for index in said[2:]] == expected

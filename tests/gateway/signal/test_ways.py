"""One source, two ways to run it: what a hub gets computes the same bits, and is what it is said to be."""

import ast
import importlib
import inspect
import json
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import llvmlite.binding
import pytest

from gateway.signal import jit
from tests.gateway.signal.ways import SCENARIOS
from tools.bench_start import CONFIG, probe
from tools.wheel import Wheel, wheel

ROOT = Path(__file__).parents[3]
KERNELS = jit.all_kernels()
"""Here and not in a test: compiling all of them for the first time takes as long as it takes."""

pytestmark = [
    pytest.mark.skipif(
        jit.IMPLEMENTATION != "jit", reason="needs the kernels compiled just in time"
    ),
    pytest.mark.timeout(600),  # the first one builds the wheel
]


def run(place: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Runs tests/gateway/signal/ways.py with the hub's packages from `place`."""
    command = [sys.executable, "-m", "tests.gateway.signal.ways", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, cwd=place, env=environment, capture_output=True, text=True, check=False
    )


@cache
def notes(way: str) -> dict[str, Any]:
    """What this way of running gave. What was built ahead of time runs as in a unit of systemd."""
    done = run(wheel().unpacked, "--mdwe") if way == "aot" else run(ROOT)
    assert done.returncode == 0, done.stderr
    noted: dict[str, Any] = json.loads(done.stdout)
    assert noted["implementation"] == way
    return noted


# --- The two are one -----------------------------------------------------------------------------------


def test_both_ways_give_the_same_bits() -> None:
    just_in_time, ahead = notes("jit"), notes("aot")
    assert just_in_time["place"] == str(ROOT / "gateway" / "signal")
    assert ahead["place"] == str(wheel().unpacked / "gateway" / "signal")
    assert ahead["calls"] == just_in_time["calls"]
    assert ahead["digests"] == just_in_time["digests"]


def test_every_kernel_is_reached() -> None:
    """Called by a scenario, or by a kernel that is."""
    reached = set(notes("jit")["calls"])
    calls = {name: called(module) for name, module in places().items()}
    while (
        more := {name for caller in reached for name in calls[KERNELS[caller].module][caller]}
        - reached
    ):
        reached |= more
    assert KERNELS.keys() - reached == set(), (
        "a scenario in tests/gateway/signal/ways.py is missing"
    )


def test_every_stream_has_a_scenario() -> None:
    streams = {
        f"{name}.{thing.__name__}"
        for name, module in places().items()
        for thing in vars(module).values()
        if inspect.isclass(thing) and thing.__module__ == name and hasattr(thing, "process")
    }
    assert len(streams) >= 1
    assert streams - SCENARIOS.keys() == set(), "tests/gateway/signal/ways.py has no row for them"


def test_nothing_is_compiled_after_the_import() -> None:
    assert notes("jit")["numba"]
    assert notes("jit")["compiled_late"] == 0


def places() -> dict[str, ModuleType]:
    """The modules of the signal core."""
    names = [f"gateway.signal.{path.stem}" for path in jit.HERE.glob("[!_]*.py")]
    return {name: importlib.import_module(name) for name in names}


def called(module: ModuleType) -> dict[str, set[str]]:
    """Of each kernel of a file, the kernels that its source names."""
    return {
        node.name: {
            inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)
        } & KERNELS.keys()
        for node in ast.parse(inspect.getsource(module)).body
        if isinstance(node, ast.FunctionDef)
    }  # fmt: skip


@pytest.mark.parametrize("fastmath", [False, {"contract"}])
def test_products_and_sums_are_rounded_each(
    fastmath: bool | set[str],  # noqa: FBT001 - numba's own word
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An ARM processor could do both in one step, with another result; the compiler is not allowed to use it.

    Told that it may, it does: so the test can see it.
    """

    def fused(a: float, b: float, c: float) -> float:
        return a * b + c

    dispatcher = jit._dispatcher(fused, cached=False)
    assert dispatcher.targetoptions["fastmath"] is False
    monkeypatch.setitem(dispatcher.targetoptions, "fastmath", fastmath)
    dispatcher.compile("float64(float64, float64, float64)")
    code = for_arm(*dispatcher.inspect_llvm().values())
    assert bool(re.search(r"\bfmadd\b", code)) == bool(fastmath)
    assert bool(re.search(r"\bfmul\b", code)) != bool(fastmath)


def for_arm(code: str) -> str:
    """The same intermediate code as assembly of a generic 64-bit ARM."""
    llvmlite.binding.initialize_all_targets()
    llvmlite.binding.initialize_all_asmprinters()
    arm = llvmlite.binding.Target.from_triple("aarch64-unknown-linux-gnu")
    machine = arm.create_target_machine(opt=3)
    for name, value in (("triple", machine.triple), ("datalayout", machine.target_data)):
        code = re.sub(
            rf"^target {name} = .*", f'target {name} = "{value}"', code, flags=re.MULTILINE
        )
    assembly: str = machine.emit_assembly(llvmlite.binding.parse_assembly(code))
    return assembly


# --- Where nothing can be compiled ---------------------------------------------------------------------


def test_it_runs_where_memory_never_becomes_executable() -> None:
    ahead = notes("aot")
    assert not ahead["numba"]
    if not ahead["mdwe"]:
        pytest.skip("this kernel is older than 6.3: it has no PR_SET_MDWE")
    just_in_time = run(ROOT, "--mdwe")
    assert "cannot allocate executable memory" in just_in_time.stderr


def test_it_stays_small() -> None:
    """27 MB, of which numpy is 20; just in time it is 170."""
    probe(wheel().unpacked)  # where no bytecode is kept yet, the first one makes it, in memory
    measured = probe(wheel().unpacked)
    assert measured.implementation == "aot"
    assert measured.kernels == len(KERNELS)
    assert measured.resident_kb <= 30 * 1024


# --- The wheel -----------------------------------------------------------------------------------------


def test_the_wheel_is_for_this_python_and_processor_and_needs_no_compiler() -> None:
    made = wheel()
    version = f"cp{sys.version_info.major}{sys.version_info.minor}"
    assert made.file.name.endswith(f"-{version}-{version}-linux_{os.uname().machine}.whl")
    (metadata,) = made.unpacked.glob("*.dist-info/METADATA")
    needs = re.findall(r"^Requires-Dist: ([\w-]+)", metadata.read_text(), re.MULTILINE)
    assert "numpy" in needs
    assert not {"numba", "llvmlite", "setuptools"} & set(needs)
    assert {path.name for path in made.unpacked.glob("[!w]*")} == {"gateway", "drivers"}


def test_the_wheel_brings_the_licence_of_what_numba_links_into_it() -> None:
    licences = wheel().unpacked / "gateway" / "signal" / "compiled.licences.txt"
    assert "Redistributions in binary form" in licences.read_text()


def copy(made: Wheel, target: Path) -> Path:
    """The signal core of the wheel, to break it."""
    place = target / "gateway" / "signal"
    place.mkdir(parents=True)
    for path in (made.unpacked / "gateway" / "__init__.py", *(made.compiled.parent.glob("*.*"))):
        (target / path.relative_to(made.unpacked)).write_bytes(path.read_bytes())
    return place


def load(
    place: Path, code: str = "import gateway.signal.rate"
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-c", f"import sys; sys.modules['numba'] = None; {code}"],
        cwd=place.parents[1], capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_half_of_an_installation_is_refused(tmp_path: Path) -> None:
    place = copy(wheel(), tmp_path)
    assert load(place).returncode == 0
    with (place / "qrs.py").open("a") as source:
        source.write("# changed\n")
    assert "built from sources of checksum" in load(place).stderr


def test_neither_way_at_hand_says_what_to_do(tmp_path: Path) -> None:
    place = copy(wheel(), tmp_path)
    next(place.glob("compiled.*.so")).unlink()
    complaint = load(place).stderr.splitlines()[-1]
    assert complaint.startswith("ImportError: kernels: got neither gateway.signal.compiled")
    assert "make wheel" in complaint


@pytest.mark.parametrize("command", ["run", "acquire"])
def test_the_command_line_says_it_in_one_line(command: str, tmp_path: Path) -> None:
    config = tmp_path / "wardlink.toml"
    config.write_text(CONFIG, encoding="utf-8")
    code = f"from gateway import cli; sys.exit(cli.main(['{command}', '--config', '{config}']))"
    done = load(jit.HERE, code)
    assert done.returncode == 1
    assert done.stderr.startswith("wardlink: kernels: got neither gateway.signal.compiled")
    assert done.stderr.count("\n") == 1

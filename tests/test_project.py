"""The project as a place to work in: what its documents say is so, its files stay small, its units load."""

import ast
import random
import re
import shutil
import subprocess
import tomllib
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

from drivers.assigned import Unit
from drivers.contract import Driver, Malformed
from drivers.model import Observation, Quantity, Special, Validity
from drivers.registry import all_drivers
from tests import conformance
from tests.conformance import Case

ROOT = Path(__file__).parent.parent
OURS = ("drivers", "gateway", "firmware_sim")
DOCUMENTS = sorted(
    path
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("config/**/*.md"))
    if path.is_file()
)
MODULES = sorted(path for room in OURS for path in (ROOT / room).rglob("*.py"))
UNITS = sorted(ROOT.glob("systemd/*.service"))

LINK = re.compile(r"\]\((?!https?:|mailto:|#)([^)#\s]+)")
PLACE = re.compile(
    r"`((?:drivers|gateway|firmware_sim|config|systemd|tests|tools|requirements|docs)/[\w./-]*)`"
)
EXPOSURE = {"wardlink": 18, "wardlink-acquire": 8, "wardlink-uplink": 15}
"""Most that `systemd-analyze security` may find, in tenths: 100 is a unit without any line against it."""
SYSTEMD_ANALYZE = shutil.which("systemd-analyze")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


# --- Documents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", DOCUMENTS, ids=relative)
def test_a_document_names_only_what_exists(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    links = [document.parent / target for target in LINK.findall(text)]
    places = [ROOT / place for place in PLACE.findall(text)]
    assert [relative(path) for path in (*links, *places) if not path.exists()] == []


def test_the_readme_lists_the_drivers_that_there_are() -> None:
    rows = re.findall(
        r"^\| `([\w-]+)` \| (.+?) \| .+? \| (\w+) \|$", read("README.md"), re.MULTILINE
    )
    table = {name: (title, verified) for name, title, verified in rows}
    assert table == {
        driver.name: (driver.title, str(driver.verified)) for driver in all_drivers().values()
    }


def test_the_readme_names_only_targets_that_make_has() -> None:
    targets = set(re.findall(r"^([a-z]+):", read("Makefile"), re.MULTILINE))
    used = {
        target
        for document in DOCUMENTS
        for target in re.findall(
            r"(?:^ {4}|`|&& )make ([a-z]+)", document.read_text(), re.MULTILINE
        )
    }
    assert used
    assert used <= targets


def test_locks_pin_by_hash_and_name_no_host() -> None:
    for lock in ("run", "build", "dev", "bench", "uv"):
        text = read(f"requirements/{lock}.txt")
        pins = re.findall(r"^[\w.-]+==.+\\\n    --hash=sha256:[0-9a-f]{64}", text, re.MULTILINE)
        assert len(pins) == len(re.findall(r"^[\w.-]+", text, re.MULTILINE)) > 0
        assert re.findall(r"://|--index|--find-links|file:|= */", text) == []


def test_what_a_hub_gets_is_pinned_to_what_is_tested() -> None:
    run, build, dev = (pins(f"requirements/{lock}.txt") for lock in ("run", "build", "dev"))
    assert run | build <= dev


def test_a_hub_gets_no_compiler_and_all_builds_have_the_same() -> None:
    assert not {"numba", "llvmlite", "setuptools"} & {
        pin.partition("==")[0] for pin in pins("requirements/run.txt")
    }
    (numba,) = (pin for pin in pins("requirements/build.txt") if pin.startswith("numba=="))
    project = tomllib.loads(read("pyproject.toml"))
    assert numba in project["build-system"]["requires"]
    assert numba in project["dependency-groups"]["build"]


def pins(lock: str) -> set[str]:
    return set(re.findall(r"^[\w.-]+==\S+", read(lock), re.MULTILINE))


def test_what_is_measured_is_what_is_tested() -> None:
    """The bench has more packages than the tests, and no other versions of those that both have."""
    dev, bench = (
        set(re.findall(r"^([\w.-]+)==(\S+)", read(f"requirements/{lock}.txt"), re.MULTILINE))
        for lock in ("dev", "bench")
    )
    shared = {name for name, _ in dev} & {name for name, _ in bench}
    assert "numpy" in shared
    assert {pin for pin in bench if pin[0] in shared} <= dev


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


# --- Sizes -------------------------------------------------------------------------------------------


def too_large(path: Path) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = text.count("\n")
    if lines > 400:
        yield f"{relative(path)}: got {lines} lines, expected at most 400"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            size, limit = (node.end_lineno or node.lineno) - node.lineno + 1, 60
            kind = "lines"
        elif isinstance(node, ast.ClassDef):
            methods = (ast.FunctionDef, ast.AsyncFunctionDef)
            size, limit = sum(isinstance(part, methods) for part in node.body), 20
            kind = "methods"
        else:
            continue
        if size > limit:
            yield f"{relative(path)}: {node.name}: got {size} {kind}, expected at most {limit}"


def test_no_file_function_or_class_outgrows_a_reader() -> None:
    faults = [fault for path in MODULES for fault in too_large(path)]
    assert not faults, "\n".join(faults)


# --- The driver in CONTRIBUTING.md -------------------------------------------------------------------


@pytest.fixture
def example() -> Driver:
    (code,) = re.findall(
        r"^```python\n(.*?)^```$", read("CONTRIBUTING.md"), re.MULTILINE | re.DOTALL
    )
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 60, "the heading says 60 lines"
    module = types.ModuleType("bench_thermometer")
    exec(compile(code, "CONTRIBUTING.md", "exec"), module.__dict__)  # noqa: S102 - the document is ours
    driver = module.__dict__["DRIVER"]
    assert isinstance(driver, Driver)
    return driver


def case(driver: Driver) -> Case:
    return Case(driver, tuple(b"T 36.%02d\r\n" % n for n in range(40)))


def test_the_example_driver_reads_exactly_what_was_printed(example: Driver) -> None:
    outputs = conformance.feed(
        example.session({}), "", [b"6.42\r\nT 36.50\r\nT --\r\nT 4", b"0.00\r\n"]
    )
    assert isinstance(outputs[0], Malformed)
    assert [
        (o.value.unit, str(o.value.value), o.quality.validity)
        for o in outputs
        if isinstance(o, Observation) and isinstance(o.value, Quantity)
    ] == [
        (Unit.DEGC, "36.50", Validity.VALID),
        (Unit.DEGC, Special.UNKNOWN, Validity.INVALID),
        (Unit.DEGC, "40.00", Validity.VALID),
    ]


@pytest.mark.parametrize("seed", range(10))
def test_the_example_driver_keeps_what_every_driver_must(example: Driver, seed: int) -> None:
    dice = random.Random(seed)
    junk = dice.randbytes(seed * 9)
    conformance.check_codes(case(example))
    conformance.check_cutting(case(example), seed)
    conformance.check_any_bytes(case(example), [""], junk)
    conformance.check_resync(case(example), junk)
    conformance.check_lost_run(case(example), dice.randrange(10_000), dice.randrange(1, 200))
    conformance.check_bounded(case(example), [""], junk)


# --- Units -------------------------------------------------------------------------------------------


@pytest.mark.skipif(SYSTEMD_ANALYZE is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("unit", UNITS, ids=relative)
def test_systemd_accepts_the_unit_and_finds_it_closed(unit: Path, tmp_path: Path) -> None:
    # `verify` wants the program to exist; it looks at everything else in the same way with another.
    text, programs = re.subn(
        r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE
    )
    assert programs == 1
    copy = tmp_path / unit.name
    copy.write_text(text)
    verify = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", copy], capture_output=True, text=True, check=False
    )
    # Other units of the machine may have faults of their own: only lines about ours count.
    assert [line for line in verify.stderr.splitlines() if unit.name in line] == []
    exposure = subprocess.run(
        [
            "systemd-analyze",
            "security",
            "--offline=true",
            f"--threshold={EXPOSURE[unit.stem]}",
            copy,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert exposure.returncode == 0, exposure.stdout


def settings(unit: Path) -> list[tuple[str, str]]:
    return re.findall(r"^(\w+)=(.*)$", unit.read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.parametrize("unit", UNITS, ids=relative)
def test_a_unit_leaves_the_hub_what_it_reads(unit: Path) -> None:
    """`gateway.clock` reads the boot id out of /proc/sys and asks adjtimex how well the clock is kept."""
    lines = settings(unit)
    assert not {name for name, _ in lines} & {"ProcSubset", "ProtectClock", "DynamicUser"}
    filters = [value for name, value in lines if name == "SystemCallFilter"]
    assert filters[-1] == "adjtimex clock_adjtime"
    assert ("Type", "notify") in lines


@pytest.mark.parametrize("unit", UNITS, ids=relative)
def test_a_unit_forbids_new_code_and_needs_no_place_for_any(unit: Path) -> None:
    assert ("MemoryDenyWriteExecute", "yes") in settings(unit)
    assert "CacheDirectory" not in dict(settings(unit))


def test_the_half_with_the_devices_has_no_network_and_the_other_no_devices() -> None:
    acquire, uplink = (
        dict(settings(ROOT / f"systemd/wardlink-{half}.service")) for half in ("acquire", "uplink")
    )
    assert acquire["PrivateNetwork"] == "yes"
    assert acquire["RestrictAddressFamilies"] == "AF_UNIX"
    assert uplink["PrivateDevices"] == "yes"
    assert "DeviceAllow" not in uplink
    assert "SupplementaryGroups" not in uplink


def test_one_hub_or_two_halves_but_never_both() -> None:
    conflicts = {unit.stem: dict(settings(unit)).get("Conflicts") for unit in UNITS}
    both = "wardlink.service"
    assert conflicts == {
        "wardlink": "wardlink-acquire.service wardlink-uplink.service",
        "wardlink-acquire": both,
        "wardlink-uplink": both,
    }


def test_the_half_that_delivers_is_stopped_last() -> None:
    """Units stop in the opposite order of their start."""
    uplink = dict(settings(ROOT / "systemd/wardlink-uplink.service"))
    assert uplink["Before"] == "wardlink-acquire.service"

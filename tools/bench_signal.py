#!/usr/bin/env python3
"""The signal core beside its peers, in one run: beats, noise, quality, rates, pulse, codec, speed, delay and memory.

    python -m tools.bench_signal [--quick] [--only qrs,noise] [--json] [--report FILE] [--write-docs]

Real recordings are looked for in WARDLINK_DATA or ../shared/data; without them the bench says what is missing and
measures the rest. Leaves a report with pictures of the worst strips. Exit status 1 when a goal is missed.
"""

import argparse
import dataclasses
import json
import platform
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from gateway.signal.jit import IMPLEMENTATION
from tools.signal_bench import beats, codec, index, process, pulse, rates, speed
from tools.signal_bench.beats import Options
from tools.signal_bench.detectors import DETECTORS, OURS
from tools.signal_bench.jobs import SLOW, workers
from tools.signal_bench.report import page
from tools.signal_bench.results import Section, goals_text, section_text

ROOT = Path(__file__).parents[1]
REPORT = ROOT / "build" / "signal-report.html"
DOCUMENT = ROOT / "docs" / "signal.md"
BEGIN, END = "<!-- figures: begin -->", "<!-- figures: end -->"

SECTIONS: dict[str, Callable[[Options], Section]] = {
    "qrs": beats.qrs,
    "noise": beats.noise,
    "cpsc": beats.fibrillation,
    "speed": speed.speed,
    "delay": speed.delay,
    "quality": index.quality,
    "rates": rates.heart_rates,
    "pulse": pulse.pulse,
    "codec": codec.codec,
    "process": process.process,
}
PACKAGES = {
    "wardlink": "gateway",
    "sleepecg": "sleepecg",
    "neurokit2": "neurokit2",
    "wfdb": "wfdb",
    "fast-qrs-detector": "fast_qrs_detector",
    "biosppy": "biosppy",
    "scipy": "scipy",
    "soundfile": "soundfile",
    "zstandard": "zstandard",
}
"""What is measured here, with the module of each."""


def installed() -> frozenset[str]:
    """Those that can be imported."""
    found = frozenset(name for name, module in PACKAGES.items() if find_spec(module))
    for name in PACKAGES.keys() - found:
        sys.stderr.write(f"{name}: not installed, left out; run this as `make bench` does\n")
    return found


def heading(options: Options) -> str:
    """What ran, and on what."""
    versions = ", ".join(f"{name} {version(name)}" for name in sorted(options.packages | {"numpy"}))
    return (
        f"{platform.machine()}, Python {platform.python_version()}; kernels: {IMPLEMENTATION}; {versions}"
        + ("; QUICK: a few records, no slow peers" if options.quick else "")
    )


def text(head: str, sections: Sequence[Section]) -> str:
    """All that is printed, the verdict first."""
    return "\n\n".join([head, goals_text(sections), *map(section_text, sections)])


def run(options: Options, keys: Sequence[str], *, quiet: bool) -> list[Section]:
    """Does one section after the other, and prints each as soon as it is there."""
    sections = []
    for key in keys:
        sections.append(SECTIONS[key](options))
        if not quiet:
            sys.stdout.write(section_text(sections[-1]) + "\n\n")
            sys.stdout.flush()
    return sections


def as_json(head: str, sections: Sequence[Section]) -> str:
    """The same for programs; strips as their titles."""
    content = {
        "run": head,
        "sections": {
            section.key: {
                "title": section.title,
                "goals": [dataclasses.asdict(goal) for goal in section.goals],
                "tables": [dataclasses.asdict(table) for table in section.tables],
                "remarks": section.remarks,
                "strips": [f"{strip.title}: {strip.why}" for strip in section.strips],
            }
            for section in sections
        },
    }
    return json.dumps(content, indent=2)


def write_docs(document: Path, printed: str) -> None:
    """Puts the figures where the document has its marks.

    Raises:
        ValueError: the marks are not there, each once and in order.
    """
    content = document.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end or BEGIN in after or END in after:
        raise ValueError(
            f"{document}: got no single pair of marks, expected {BEGIN} and {END}; put them back"
        )
    document.write_text(f"{before}{BEGIN}\n```text\n{printed}\n```\n{END}{after}", encoding="utf-8")


def options_of(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("--quick", action="store_true", help="a few records, no slow peers")
    made.add_argument("--only", metavar="A,B", help=f"of {','.join(SECTIONS)}")
    made.add_argument("--json", action="store_true", help="for programs")
    made.add_argument("--report", type=Path, default=REPORT, help="pictures go here (%(default)s)")
    made.add_argument(
        "--write-docs",
        action="store_true",
        help="puts the figures of a whole run into docs/signal.md",
    )
    options = made.parse_args(arguments)
    options.keys = options.only.split(",") if options.only else list(SECTIONS)
    if unknown := set(options.keys) - set(SECTIONS):
        made.error(
            f"--only: got {','.join(sorted(unknown))}, expected some of {','.join(SECTIONS)}"
        )
    if options.write_docs and (options.quick or options.only):
        made.error(
            "--write-docs: got a part of the bench, expected the whole; leave out --quick and --only"
        )
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures, prints, leaves the report."""
    wanted = options_of(arguments)
    begin = time.monotonic()
    packages = installed()
    detectors = tuple(
        name
        for name, detector in DETECTORS.items()
        if detector.package in packages and not (wanted.quick and name in SLOW)
    )
    with workers() as pool:
        options = Options(wanted.quick, detectors, packages, pool)
        head = heading(options)
        if not wanted.json:
            sys.stdout.write(head + "\n\n")
        sections = run(options, wanted.keys, quiet=wanted.json)
    goals = [goal for section in sections for goal in section.goals]
    sys.stdout.write((as_json(head, sections) if wanted.json else goals_text(sections)) + "\n")
    wanted.report.parent.mkdir(parents=True, exist_ok=True)
    wanted.report.write_text(page(head, sections, OURS), encoding="utf-8")
    sys.stderr.write(f"pictures: {wanted.report}\n")
    sys.stderr.write(f"{time.monotonic() - begin:.0f} s\n")
    if wanted.write_docs:
        if unknown := [goal.what for goal in goals if goal.holds is None]:
            sys.stderr.write(
                f"--write-docs: not measured: {'; '.join(unknown)}; {DOCUMENT} stays as it was."
                " Expected all: bring the recordings and the packages\n"
            )
            return 1
        write_docs(DOCUMENT, text(head, sections))
    return int(any(goal.holds is False for goal in goals))


if __name__ == "__main__":
    sys.exit(main())

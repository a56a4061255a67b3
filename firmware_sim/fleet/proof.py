"""The proof after a run: what the receiver wrote, against what every hub had. An entry that is wrong is missing."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from firmware_sim.fleet.messages import value_of


@dataclass(slots=True)
class Proof:
    """Counts of entries. `ok` when nothing is missing, repeated, wrong or refused, and no gap stays open."""

    expected: int = 0
    received: int = 0
    missing: int = 0
    repeated: int = 0
    wrong: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    gaps: int = 0
    gaps_closed: int = 0

    @property
    def ok(self) -> bool:
        """Whether it holds."""
        faults = self.missing, self.repeated, self.wrong, self.rejected.total()
        return not any(faults) and self.gaps == self.gaps_closed

    def show(self) -> str:
        """One line."""
        rejected = ", ".join(f"{count} {reason}" for reason, count in self.rejected.items())
        return (
            f"{self.received} of {self.expected} entries: {self.missing} missing, {self.repeated} repeated,"
            f" {self.wrong} wrong, rejected: {rejected or 'none'}; {self.gaps} entries named as gaps,"
            f" {self.gaps_closed} of them closed"
        )


def prove(lines: Iterable[bytes], expected: Mapping[tuple[str, str], int]) -> Proof:
    """`expected`: how far each (hub, stream) reaches. Its entries must stand in `lines` once each, with their values."""
    seen: dict[tuple[str, str], Counter[int]] = {key: Counter() for key in expected}
    proof = Proof(expected=sum(expected.values()))
    for text in lines:
        line = json.loads(text)
        match line["type"]:
            case "entry":
                key = line["hub"], line["stream"]
                sequence = line["sequence"]
                if not 1 <= sequence <= expected.get(key, 0) or not _is_right(line):
                    proof.wrong += 1
                    continue
                seen[key][sequence] += 1
            case "rejected":
                proof.rejected[line["reason"]] += 1
            case "gap":
                proof.gaps += line["count"]
            case "gap_closed":
                proof.gaps_closed += line["count"]
    for key, counts in seen.items():
        proof.received += counts.total()
        proof.missing += expected[key] - len(counts)
        proof.repeated += counts.total() - len(counts)
    return proof


def _is_right(line: Mapping[str, object]) -> bool:
    hub, stream, sequence = str(line["hub"]), str(line["stream"]), line["sequence"]
    record = line["record"]
    if not isinstance(record, dict) or not isinstance(sequence, int):
        return False
    got = record.get("value" if stream == "vitals" else "samples")
    return str(got) == value_of(stream, int(hub.removeprefix("hub-")), sequence)


def prove_file(path: Path, expected: Mapping[tuple[str, str], int]) -> Proof:
    """As `prove`, of a receiver's output file."""
    with path.open("rb") as lines:
        # What is being written just now has no end yet.
        return prove((line for line in lines if line.endswith(b"\n")), expected)

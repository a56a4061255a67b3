"""[journal]: how much is kept, and who can open it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from gateway.config.kinds import build
from gateway.tables import Key, Reader, file, integer, one_of


class Readers(StrEnum):
    """Who can open the journal."""

    HUB = "hub"
    HUB_AND_CLINIC = "hub+clinic"
    CLINIC = "clinic"


@dataclass(frozen=True, slots=True)
class Journal:
    """How much disk the buffer may take, what must survive in it without a network, and who can open it."""

    max_bytes: int = 1_073_741_824
    vitals_days: int = 1
    waveform_hours: int = 1
    readers: Readers = Readers.HUB
    clinic_key_file: Path | None = None


def journal_keys(folder: Path) -> tuple[Key, ...]:
    """The keys of [journal]."""
    return (
        Key(
            "max_bytes",
            integer(33_554_432, 1 << 44, "bytes"),
            "disk space of the store-and-forward buffer",
            1_073_741_824,
        ),
        Key(
            "vitals_days",
            integer(0, 3650, "days"),
            "vitals that must survive without a network; refused where max_bytes cannot hold them",
            1,
        ),
        Key(
            "waveform_hours",
            integer(0, 87_600, "hours"),
            "waveform that must survive without a network, beside the vitals",
            1,
        ),
        Key(
            "readers",
            one_of(Readers),
            'who can open what is written from now on; "clinic" alone seals it: a stolen hub tells nothing',
            Readers.HUB,
        ),
        Key("clinic_key_file", file(folder), "the clinic's public key: `wardlink key --clinic`"),
    )


def read_journal(reader: Reader, root: Mapping[str, object], folder: Path) -> Journal | None:
    """The journal, or None with the faults noted."""
    table = reader.table(root.get("journal", {}), "journal") or {}
    values = reader.values(table, "journal", journal_keys(folder))
    if values["readers"] is not Readers.HUB and "clinic_key_file" not in table:
        reader.fault(
            "journal.clinic_key_file", "nothing", "the clinic's public key, as it is a reader"
        )
    return build(Journal, reader, values)

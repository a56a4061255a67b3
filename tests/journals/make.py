#!/usr/bin/env python3
"""Writes a small journal of the present format into tests/journals, with its key and what is in it.

It was run once for each format, by the release whose format it keeps; run it again only for a new one, into a new
folder: python -m tests.journals.make tests/journals/v3. The folders `records-...` keep what changed within the frames alone.
"""

import json
import sys
from pathlib import Path
from random import Random

from drivers.assigned import BodySite, Code, Unit
from drivers.model import (
    Bits,
    Coded,
    Compound,
    Mode,
    Observation,
    Origin,
    Quality,
    Quantity,
    Record,
    SampleArray,
    Special,
    Validity,
)
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.storage import DISK
from gateway.waveform import WaveformCodec
from tests.gateway.journal.builders import alarm, audit, ecg, open_journal, vital, wave
from tests.journals.facts import decimal, facts

SEGMENT_BYTES = 24_576
RATE = Code.ECG_HEART_RATE


def every_kind() -> list[Record]:
    """A record of every kind of value, with everything that may stand beside it."""
    poor = Quality(Validity.QUESTIONABLE, Mode.TEST, 0.25, "motion")
    several = Compound(
        (
            (Code.PULS_OXIM_SAT_O2, Quantity(decimal("97"), Unit.PERCENT)),
            (Code.TEMP_BODY, Quantity(Special.NOT_AT_THIS_RESOLUTION, Unit.DEGC)),
        )
    )
    samples = SampleArray(
        bytes(range(200)), 2, 8_000_000, Unit.MILLI_VOLT, decimal("0.5"), decimal("-1")
    )
    return [
        Observation(RATE, Quantity(decimal("36.50"), Unit.BEAT_PER_MIN), 1, poor),
        Observation(RATE, Quantity(Special.UNKNOWN, Unit.BEAT_PER_MIN), 2),
        Observation(
            Code.PULS_OXIM_SAT_O2, several, 3, device_time="2026-01-02T03:04:05", origin=Origin.HUB
        ),
        Observation(RATE, Coded(7), 4, body_site=next(iter(BodySite))),
        Observation(RATE, Bits(5, 7), 5),
        Observation(Code.ECG_ELEC_POTL, samples, 6),
        alarm(5),
        audit(1),
    ]


def write(directory: Path) -> None:
    """The journal and what is in it; the directory must not exist."""
    directory.mkdir(parents=True)
    random = Random(1)
    raw = b"WLHUBKEY1\n" + random.randbytes(64)
    (directory / "hub.key").write_bytes(raw)

    def start() -> Journal:
        return open_journal(
            DISK,
            directory / "journal",
            key=HubKey(raw),
            segment_bytes=SEGMENT_BYTES,
            entropy=random.randbytes,
            codec=WaveformCodec(),
        )

    journal = start()
    for record in every_kind():
        journal.append("monitor", record, "person-1")
    journal.commit()
    for number in range(9):
        journal.append("belt", vital(number))
        journal.append("board", wave(number))
        journal.commit()
    for second in range(3):
        for record in ecg(first=250 * second, at_ns=second * 10**9):
            journal.append("patch", record, "person-1")
        journal.commit()
    journal.acknowledge(Stream.WAVEFORM, 4)
    journal.close()
    journal = start()
    journal.append("belt", vital(100))
    journal.close()
    journal = start()
    lists = {stream: facts(journal, stream) for stream in Stream}
    del journal  # without an end in order: the state on disk is that of a running hub
    (directory / "contents.json").write_text(json.dumps(lists, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]))

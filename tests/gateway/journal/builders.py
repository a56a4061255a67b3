"""A journal on a simulated disk, and records that can be told apart."""

import os
import struct
import zlib
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

from drivers.assigned import Code, Unit
from drivers.model import Event, EventKind, Observation, Quantity, Record, SampleArray
from gateway.clock import ClockReading, ClockState
from gateway.journal.algorithms import ALGORITHMS
from gateway.journal.entry import Entry, Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.segment import FRAME_HEADER_BYTES, body_checksum
from gateway.journal.storage import Storage

SEGMENT = 32_768
CRC = struct.Struct("<I")
KEY = HubKey.generate()
DIRECTORY = Path("/journal")


class FixedClock:
    """Time moves by one microsecond at each look."""

    def __init__(self, boot_id: str = "boot-1") -> None:
        self.boot_id = boot_id
        self._now_ns = 0

    def boottime_ns(self) -> int:
        self._now_ns += 1_000
        return self._now_ns

    def read(self) -> ClockReading:
        return ClockReading(self.boottime_ns(), 1_800_000_000_000_000_000, ClockState.RESTORED)


def open_journal(
    storage: Storage,
    directory: Path = DIRECTORY,
    *,
    hub: str = "hub-1",
    key: HubKey = KEY,
    boot_id: str = "boot-1",
    segments: int = 64,
    segment_bytes: int = SEGMENT,
    entropy: Callable[[int], bytes] = os.urandom,
) -> Journal:
    return Journal.open(
        directory,
        hub=hub,
        clock=FixedClock(boot_id),
        hub_key=key,
        max_bytes=segments * segment_bytes,
        storage=storage,
        segment_bytes=segment_bytes,
        entropy=entropy,
    )


def vital(number: int) -> Observation:
    value = Quantity(Decimal(number), Unit.BEAT_PER_MIN)
    return Observation(Code.ECG_HEART_RATE, value, determined_at_ns=number)


def wave(number: int, size: int = 4000) -> Observation:
    samples = SampleArray(number.to_bytes(4, "little") * (size // 4), 4, 1, Unit.MILLI_VOLT)
    return Observation(Code.ECG_ELEC_POTL, samples, determined_at_ns=number)


def alarm(number: int) -> Event:
    return Event(EventKind.GAP, number, "test", data=bytes(number % 97))


def audit(number: int) -> Event:
    return Event(EventKind.CONNECTED, number, "test")


MAKERS: dict[Stream, Callable[[int], Record]] = {
    Stream.ALARM: alarm,
    Stream.VITALS: vital,
    Stream.WAVEFORM: wave,
    Stream.AUDIT: audit,
}


def read_all(journal: Journal, stream: Stream, after: int = 0) -> list[Entry]:
    entries: list[Entry] = []
    while batch := journal.read(stream, after):
        entries += [entry for entry in batch.entries if entry.sequence > after]
        after = batch.last_sequence
    return entries


def records(entries: list[Entry]) -> dict[int, Record]:
    return {entry.sequence: entry.record for entry in entries}


def forge_frame(frame: bytearray) -> None:
    """Makes the checksums of a frame, padded to whole blocks, right."""
    version, algorithm = frame[4:6]
    if version == 1 or algorithm in ALGORITHMS:
        checksum = body_checksum(version, algorithm, bytes(frame[FRAME_HEADER_BYTES:]))
        CRC.pack_into(frame, FRAME_HEADER_BYTES - 8, checksum)
    CRC.pack_into(frame, FRAME_HEADER_BYTES - 4, zlib.crc32(frame[: FRAME_HEADER_BYTES - 4]))

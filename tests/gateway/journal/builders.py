"""A journal on a simulated disk, and records that can be told apart."""

import os
import struct
import zlib
from array import array
from collections.abc import Callable, Sequence
from decimal import Decimal
from math import sin
from pathlib import Path
from random import Random

from drivers.assigned import Code, Unit
from drivers.model import Event, EventKind, Observation, Quality, Quantity, Record, SampleArray
from gateway.clock import ClockReading, ClockState
from gateway.journal.algorithms import ALGORITHMS
from gateway.journal.blocks import SampleCodec
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


class Deflating:
    """A codec that costs little, for tests that are about the journal."""

    def encode(self, signals: Sequence["array[int]"], bits: int) -> bytes:
        del bits
        return zlib.compress(b"".join(signal.tobytes() for signal in signals), 1)

    def decode(self, block: bytes, channels: int, rows: int) -> Sequence["array[int]"]:
        try:
            data = zlib.decompress(block)
        except zlib.error as error:
            raise ValueError(block) from error
        if len(data) != 4 * channels * rows:
            raise ValueError(block)
        return [array("i", data[4 * rows * n : 4 * rows * (n + 1)]) for n in range(channels)]


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
    codec: SampleCodec | None = None,
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
        codec=codec,
    )


def vital(number: int) -> Observation:
    value = Quantity(Decimal(number), Unit.BEAT_PER_MIN)
    return Observation(Code.ECG_HEART_RATE, value, determined_at_ns=number)


def wave(number: int, size: int = 4000) -> Observation:
    samples = SampleArray(number.to_bytes(4, "little") * (size // 4), 4, 1, Unit.MILLI_VOLT)
    return Observation(Code.ECG_ELEC_POTL, samples, determined_at_ns=number)


LEADS = (Code.ECG_ELEC_POTL_I, Code.ECG_ELEC_POTL_II, Code.WARDLINK_PPG_RED)
PERIOD_NS = 4_000_000


def ecg(
    seconds: float = 1, leads: int = 2, *, width: int = 2, first: int = 0, at_ns: int = 10**15
) -> list[Observation]:
    """Blocks of 0.2 s of leads that a device samples together at 250 Hz; `first`: of which sample they begin."""
    random = Random(first + 1)
    found = []
    for number in range(round(seconds * 5)):
        start_ns = at_ns + number * 200_000_000 + random.randrange(1_000_000)
        for lead in LEADS[:leads]:
            values = [round(900 * sin(n / 15)) + random.randrange(5) for n in range(50)]
            samples = SampleArray.of(
                values,
                period_ns=PERIOD_NS,
                unit=Unit.MICRO_VOLT,
                scale=Decimal("4.88"),
                width=width,
            )
            found.append(
                Observation(lead, samples, start_ns, Quality(sqi=0.93 - number // 5 / 100))
            )
    return found


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

#!/usr/bin/env python3
"""What one second of a HealthyPi v3 costs at each station of the hub, in time of one core.

It is the most talkative device here: 125 packets a second, four signals and four numbers. The least of several runs
counts: what the others add is the work of other programs.
"""

import platform
import struct
import sys
import timeit
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from drivers.assigned import Code
from drivers.contract import Resume
from drivers.model import Observation, SampleArray
from drivers.registry import all_drivers
from gateway.journal.blocks import pack
from gateway.journal.records import decode_batch, encode_entry, join
from gateway.signal.ecg import EcgStream
from gateway.signal.jit import IMPLEMENTATION
from gateway.waveform import WaveformCodec

RATE_HZ = 125
SECONDS = 20
RUNS = 7
READ_BYTES = 64
"""Serial bytes arrive in small pieces: about this many at a time at 115200 baud."""
NS_PER_S = 1_000_000_000
CODEC = WaveformCodec()


def packets() -> list[bytes]:
    """The bytes of `SECONDS` seconds, as the event loop would hand them over; 75 narrow peaks a minute."""
    stream = bytearray()
    for n in range(RATE_HZ * SECONDS):
        ecg = max(0, 900 - 300 * abs(n % 100 - 50)) + n % 7
        body = struct.pack("<hhiih", ecg, 300, 70_000 + n, 90_000 - n, 3650)
        body += bytes((16, 97, 75, 80, 0, 0))
        stream += b"\x0a\xfa" + struct.pack("<HB", len(body), 2) + body + b"\x00\x0b"
    return [bytes(stream[at : at + READ_BYTES]) for at in range(0, len(stream), READ_BYTES)]


def decode(pieces: list[bytes]) -> list[Observation]:
    """Station one: the driver."""
    session = all_drivers()["healthypi-v3"].session({})
    list(session.start(0, Resume()))
    step_ns = SECONDS * NS_PER_S // len(pieces)
    records = []
    for n, piece in enumerate(pieces):
        records += [
            o for o in session.receive("", piece, n * step_ns) if isinstance(o, Observation)
        ]
    return records


def beats(samples: list[NDArray[np.int16]]) -> int:
    """Station two: beats of one lead, block by block."""
    stream = EcgStream(RATE_HZ)
    return sum(len(stream.process(block)) for block in samples) + len(stream.flush())


def main() -> int:
    """Measures each station, prints the table. Exit status 1 when a station lost data."""
    pieces = packets()
    records = decode(pieces)
    ecg = [
        np.array(record.value.samples())
        for record in records
        if record.code is Code.ECG_ELEC_POTL and isinstance(record.value, SampleArray)
    ]
    batch = join([encode_entry("board", "p-1", record) for record in records])
    each = len(records) // SECONDS
    seconds = [
        [encode_entry("board", "p-1", r) for r in records[first : first + each]]
        for first in range(0, each * SECONDS, each)
    ]
    packed = [pack(entries, CODEC) or b"" for entries in seconds]
    if sum(map(len, ecg)) != RATE_HZ * SECONDS or not beats(ecg):
        sys.stderr.write(f"got {sum(map(len, ecg))} samples, expected {RATE_HZ * SECONDS}\n")
        return 1
    stations: dict[str, Callable[[], object]] = {
        "driver: bytes to records": lambda: decode(pieces),
        "signal: beats of one lead": lambda: beats(ecg),
        "journal: records to CBOR": lambda: [encode_entry("board", "p-1", r) for r in records],
        "journal: samples into blocks": lambda: [pack(entries, CODEC) for entries in seconds],
        "receiver: CBOR to records": lambda: decode_batch(batch, 1),
        "receiver: blocks to records": lambda: [decode_batch(p, 1, codec=CODEC) for p in packed],
    }
    out = sys.stdout
    out.write(
        f"{platform.machine()}, Python {platform.python_version()}; kernels: {IMPLEMENTATION}; HealthyPi v3, "
    )
    out.write(
        f"{len(records) / SECONDS:.1f} records and {len(batch) / SECONDS:.0f} bytes a second,"
        f" {sum(map(len, packed)) / SECONDS:.0f} in blocks\n"
    )
    for name, station in stations.items():
        station()
        micros = min(timeit.repeat(station, number=1, repeat=RUNS)) / SECONDS * 1e6
        out.write(
            f"{name:30}{micros:8.0f} us for a second of data {micros / 1e4:6.2f} % of a core\n"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())

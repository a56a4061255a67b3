"""Bytes of a lossless ECG sample: the codec's two modes beside FLAC and zstd, in blocks as a hub would cut them."""

import io
import time
from collections.abc import Callable
from concurrent.futures import as_completed
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.signal import codec as waveforms
from tools.signal_bench import data
from tools.signal_bench.beats import Options, best_peer
from tools.signal_bench.detectors import peer
from tools.signal_bench.progress import progress
from tools.signal_bench.results import Section, Table, judge

Block = NDArray[np.int16]
BLOCK_S, LIVE_S = 10.0, 1.0
NOTE = "MB of int16 in a second of processor time. Of ours every block was decoded again, to the same samples."
GOAL_BLOCKS, GOAL_LIVE = 0.475, 0.480


@dataclass(frozen=True, slots=True)
class Method:
    """A way to write blocks of int16 samples, of shape (samples, leads). `encode` gets the rate in Hz too.

    `decode` gives the samples back; None where that is taken for granted.
    """

    name: str
    package: str
    block_s: float
    encode: Callable[[list[Block], float], list[bytes]]
    decode: Callable[[list[bytes]], list[NDArray[np.int32]]] | None = None


def flac(blocks: list[Block], rate_hz: float) -> list[bytes]:
    """Each block a file of its own, at libsndfile's middle level."""
    soundfile = peer("soundfile")
    coded = []
    for block in blocks:
        file = io.BytesIO()
        soundfile.write(file, block, round(rate_hz), format="FLAC", subtype="PCM_16")
        coded.append(file.getvalue())
    return coded


def shuffled_deltas(block: Block) -> bytes:
    """Differences, small ones near zero whatever their sign; all low bytes, then all high ones."""
    deltas = np.diff(block.astype(np.int32), axis=0, prepend=0).astype(np.int16)
    zigzag = ((deltas << 1) ^ (deltas >> 15)).astype("<u2").T.ravel()
    return zigzag.view(np.uint8).reshape(-1, 2).T.tobytes()


def plain(block: Block) -> bytes:
    """As they are."""
    return block.astype("<i2").tobytes()


def zstd(prepare: Callable[[Block], bytes]) -> Callable[[list[Block], float], list[bytes]]:
    """Zstandard at level 3 over prepared bytes."""

    def encode(blocks: list[Block], rate_hz: float) -> list[bytes]:
        del rate_hz
        compressor: Any = peer("zstandard").ZstdCompressor(level=3)
        return [compressor.compress(prepare(block)) for block in blocks]

    return encode


def stand_alone(blocks: list[Block], rate_hz: float) -> list[bytes]:
    """Each block is read without any other."""
    del rate_hz
    return [waveforms.encode_block(block) for block in blocks]


def stream(blocks: list[Block], rate_hz: float) -> list[bytes]:
    """One after the other, with a key packet each minute."""
    del rate_hz
    encoder = waveforms.Encoder(blocks[0].shape[1])
    return [encoder.encode(block) for block in blocks]


def read_alone(coded: list[bytes]) -> list[NDArray[np.int32]]:
    """Each block by itself."""
    return [waveforms.decode_block(data) for data in coded]


def read_stream(coded: list[bytes]) -> list[NDArray[np.int32]]:
    """One packet after the other."""
    decoder = waveforms.Decoder()
    return [decoder.decode(data) for data in coded]


METHODS = (
    Method("wardlink, stands alone", "wardlink", BLOCK_S, stand_alone, read_alone),
    Method("wardlink, stream", "wardlink", LIVE_S, stream, read_stream),
    Method("FLAC", "soundfile", BLOCK_S, flac),
    Method("FLAC", "soundfile", LIVE_S, flac),
    Method("zstd-3 on deltas, shuffled", "zstandard", BLOCK_S, zstd(shuffled_deltas)),
    Method("zstd-3 on deltas, shuffled", "zstandard", LIVE_S, zstd(shuffled_deltas)),
    Method("zstd-3", "zstandard", LIVE_S, zstd(plain)),
)


def blocks_of(samples: Block, rate_hz: float, seconds: float) -> list[Block]:
    """Equal pieces; the last may be shorter."""
    step = round(seconds * rate_hz)
    return [samples[at : at + step] for at in range(0, len(samples), step)]


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one method on one record, or on all: samples, bytes, and seconds of processor time."""

    samples: int = 0
    size: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(getattr(self, n) + getattr(other, n) for n in self.__dataclass_fields__))


def recording(database: str, name: str) -> tuple[Block, float]:
    """All leads of a record, and the rate in Hz; without a name what is always there."""
    if name:
        return data.load_leads(database, name)
    record = data.packaged_ecg()
    return record.counts.astype(np.int16)[:, None], record.rate_hz


def measure(number: int, database: str, name: str) -> Cost:
    """One method, by its place among `METHODS`, on one record.

    Raises:
        AssertionError: what was decoded is not what was encoded.
    """
    method = METHODS[number]
    samples, rate_hz = recording(database, name)
    blocks = blocks_of(samples, rate_hz, method.block_s)
    method.encode(blocks[:1], rate_hz)  # the first call imports
    begin = time.process_time()
    coded = method.encode(blocks, rate_hz)
    encoded = time.process_time()
    decoded = method.decode(coded) if method.decode else blocks
    decode_s = time.process_time() - encoded if method.decode else 0.0
    if len(decoded) != len(blocks) or not all(map(np.array_equal, blocks, decoded)):
        raise AssertionError(f"{method.name}: {name}: got other samples than were encoded")
    return Cost(samples.size, sum(map(len, coded)), encoded - begin, decode_s)


def row(method: Method, cost: Cost) -> tuple[str, ...]:
    """One method's line."""
    megabytes = 2 * cost.samples / 1e6
    return (
        method.name,
        f"{method.block_s:g} s",
        f"{cost.size / cost.samples:.4f}",
        f"{2 * cost.samples / cost.size:.2f}",
        f"{megabytes / cost.encode_s:.1f}",
        f"{megabytes / cost.decode_s:.1f}" if cost.decode_s else "-",
    )


def costs_of(options: Options, database: str, names: list[str], title: str) -> dict[int, Cost]:
    """Every method that is installed, by its place among `METHODS`, on all records."""
    there = [k for k, m in enumerate(METHODS) if m.package in options.packages]
    costs = dict.fromkeys(there, Cost())
    with progress(title, len(there) * len(names)) as bar:
        futures = {
            options.pool.submit(measure, k, database, name): k for k in there for name in names
        }
        for future in as_completed(futures):
            costs[futures[future]] += future.result()
            bar.step()
    return costs


def table(costs: dict[int, Cost], what: str) -> Table:
    """All methods on some records."""
    samples = next(iter(costs.values())).samples
    title = f"{what}, all leads, {samples / 1e6:.1f} million int16 samples"
    columns = ("method", "block", "bytes/sample", "ratio", "encode MB/s", "decode MB/s")
    rows = tuple(row(METHODS[k], cost) for k, cost in costs.items())
    return Table(title, columns, rows, NOTE)


def codec(options: Options) -> Section:
    """All leads of the records together."""
    section = Section("codec", "Lossless codec")
    names = options.some(data.mitdb())
    what = f"{len(names)} MIT-BIH records, on which the start was trained"
    if not names:
        section.remarks.append(data.absent("ecg/mitdb") + "; 5 min of one lead instead")
        names, what = [""], "Five minutes"
    costs = costs_of(options, "mitdb", names, section.title)
    section.tables.append(table(costs, what))
    if others := options.some(data.cpsc2021()):
        what = f"{len(others)} CPSC 2021 records, which no part of it has seen"
        section.tables.append(table(costs_of(options, "cpsc2021", others, what), what))
    for seconds, goal, what in (
        (BLOCK_S, GOAL_BLOCKS, "ECG in 10 s blocks, bytes a sample"),
        (LIVE_S, GOAL_LIVE, "ECG live, a message each second, bytes a sample"),
    ):
        figures = {
            METHODS[k].name: cost.size / cost.samples
            for k, cost in costs.items()
            if METHODS[k].block_s == seconds
        }
        (ours,) = (figure for name, figure in figures.items() if name.startswith("wardlink"))
        got = ours if names[0] else None  # the goal is one for these records
        best = best_peer(figures, "{:.4f}", most=False)
        section.goals.append(judge(what, got, goal, least=False, text="{:.4f}", peer=best))
    return section

"""Bytes of a lossless ECG sample: the codec's two modes beside FLAC and zstd, in blocks as a hub would cut them."""

import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gateway.signal import codec as waveforms
from tools.signal_bench import data
from tools.signal_bench.beats import Options
from tools.signal_bench.detectors import NotInstalledError, peer
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


PEERS = (
    Method("FLAC", BLOCK_S, flac),
    Method("FLAC", LIVE_S, flac),
    Method("zstd-3 on deltas, shuffled", BLOCK_S, zstd(shuffled_deltas)),
    Method("zstd-3 on deltas, shuffled", LIVE_S, zstd(shuffled_deltas)),
    Method("zstd-3", LIVE_S, zstd(plain)),
)


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


OURS = (
    Method("wardlink, stands alone", BLOCK_S, stand_alone, read_alone),
    Method("wardlink, stream", LIVE_S, stream, read_stream),
)


def blocks_of(samples: Block, rate_hz: float, seconds: float) -> list[Block]:
    """Equal pieces; the last may be shorter."""
    step = round(seconds * rate_hz)
    return [samples[at : at + step] for at in range(0, len(samples), step)]


def codec(options: Options) -> Section:
    """All leads of the records together."""
    section = Section("codec", "Lossless codec")
    names = options.some(data.mitdb())
    recordings = [data.load_leads("mitdb", name) for name in names]
    if not recordings:
        section.remarks.append(data.absent("ecg/mitdb") + "; 5 min of one lead instead")
        record = data.packaged_ecg()
        recordings = [(record.counts.astype(np.int16)[:, None], record.rate_hz)]
    methods = OURS + PEERS
    total = sum(samples.size for samples, _ in recordings)
    rows, figures = [], {}
    with progress(section.title, len(methods)) as bar:
        for method in methods:
            try:
                cost = measured(method, recordings)
            except NotInstalledError as fault:
                section.remarks.append(str(fault))
                continue
            figures[method.name, method.block_s] = cost.size / total
            rows.append(
                (
                    method.name,
                    f"{method.block_s:g} s",
                    f"{cost.size / total:.4f}",
                    f"{2 * total / cost.size:.2f}",
                    f"{2 * total / cost.encode_s / 1e6:.1f}",
                    f"{2 * total / cost.decode_s / 1e6:.1f}" if cost.decode_s else "-",
                )
            )
            bar.step()
    leads = sum(samples.shape[1] for samples, _ in recordings)
    title = f"{len(recordings)} records, {leads} leads, {total / 1e6:.1f} million int16 samples"
    columns = ("method", "block", "bytes/sample", "ratio", "encode MB/s", "decode MB/s")
    section.tables.append(Table(title, columns, tuple(rows), NOTE))
    for seconds, goal, what in (
        (BLOCK_S, GOAL_BLOCKS, "ECG in 10 s blocks, bytes a sample"),
        (LIVE_S, GOAL_LIVE, "ECG live, a message each second, bytes a sample"),
    ):
        others = {m.name: figures[m.name, seconds] for m in PEERS if (m.name, seconds) in figures}
        name = min(others, key=lambda key: others[key], default="")
        got = next((figures[m.name, seconds] for m in OURS if m.block_s == seconds), None)
        best = f"{others[name]:.4f} {name}" if name else "-"
        section.goals.append(judge(what, got, goal, least=False, text="{:.4f}", peer=best))
    return section


@dataclass(slots=True)
class Cost:
    """Bytes, and seconds of processor time."""

    size: int = 0
    encode_s: float = 0.0
    decode_s: float = 0.0


def measured(method: Method, recordings: list[tuple[Block, float]]) -> Cost:
    """All recordings.

    Raises:
        AssertionError: what was decoded is not what was encoded.
    """
    cost = Cost()
    for samples, rate_hz in recordings:
        blocks = blocks_of(samples, rate_hz, method.block_s)
        begin = time.process_time()
        coded = method.encode(blocks, rate_hz)
        cost.encode_s += time.process_time() - begin
        cost.size += sum(map(len, coded))
        if method.decode:
            begin = time.process_time()
            decoded = method.decode(coded)
            cost.decode_s += time.process_time() - begin
            if not all(map(np.array_equal, blocks, decoded)):
                raise AssertionError(f"{method.name}: got other samples than were encoded")
    return cost

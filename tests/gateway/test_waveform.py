"""The codec of the journal's waveforms: when it is asked, what it loads and when, and what it refuses."""

import subprocess
import sys
from array import array
from pathlib import Path

import pytest

from drivers.registry import all_drivers
from gateway.acquire import Acquire
from gateway.config.load import load
from gateway.journal.readers import ClinicKey
from gateway.signal import codec
from gateway.waveform import WaveformCodec

ROOT = Path(__file__).parents[2]
CONFIG = """
[hub]
id = "hub-1"
state_dir = "state"
runtime_dir = "run"
[broker]
host = "127.0.0.1"
port = 1
"""
CLINIC = '[journal]\nreaders = "{}"\nclinic_key_file = "clinic.pub"\n'


@pytest.mark.parametrize(
    ("more", "in_blocks"),
    [
        ("", False),
        ('[delivery]\npayload = "cbor"\n', True),
        ('[delivery.payloads]\nwaveform = "cbor"\n', True),
        ('[delivery.payloads]\nvitals = "cbor"\n', False),
        ('[delivery]\npayload = "cbor"\n[delivery.payloads]\nwaveform = "json"\n', False),
        (CLINIC.format("hub+clinic"), False),
        (CLINIC.format("clinic"), True),
    ],
)  # fmt: skip
def test_samples_go_into_blocks_unless_everybody_is_to_read_them(
    more: str, *, in_blocks: bool, tmp_path: Path
) -> None:
    path = tmp_path / "wardlink.toml"
    path.write_text(CONFIG + more, encoding="utf-8")
    (tmp_path / "clinic.pub").write_text(ClinicKey.generate().public_text, encoding="utf-8")
    config = load(path, all_drivers())
    assert config.in_blocks is in_blocks
    journal = Acquire(config)._journal
    journal.close()
    assert (journal._codec is not None) == in_blocks


@pytest.mark.parametrize("module", ["gateway.receiver.checks", "gateway.cli_inspect"])
def test_who_meets_no_block_loads_no_kernels(module: str) -> None:
    program = (
        f"import sys, {module}\nfrom gateway.waveform import WaveformCodec\nWaveformCodec()\n"
        "print({'numpy', 'numba', 'gateway.signal'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "set()"


def test_a_block_of_another_shape_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = WaveformCodec()
    signals = [array("i", [1, -2, 3]), array("i", [4, 5, -(1 << 23)])]
    block = ours.encode(signals, 24)
    assert [*ours.decode(block, 2, 3)] == signals
    monkeypatch.delattr(codec, "decode_block")
    for shape in ((2, 2), (1, 3), (3, 2), (1, 6)):
        with pytest.raises(codec.DamagedError, match="block: got 2 x 3 samples"):
            ours.decode(block, *shape)

"""A hub from the wheel, closed up as its unit closes it up: no compiler, and no memory that becomes executable."""

import asyncio
from pathlib import Path

import pytest

from tools.bench_start import starts
from tools.wheel import wheel

RECORDS = 48
"""Two seconds of the board: its ECG has gone through the kernels."""
CLOSED = """
import ctypes, errno, sys
libc = ctypes.CDLL(None, use_errno=True)
# PR_SET_MDWE, as MemoryDenyWriteExecute=yes sets it. Kernels before 6.3 do not know it.
assert libc.prctl(65, 1, 0, 0, 0) == 0 or ctypes.get_errno() == errno.EINVAL
sys.modules.update(numba=None, llvmlite=None, setuptools=None)
"""

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]


def test_it_collects_again_after_a_kill(tmp_path: Path) -> None:
    collected = asyncio.run(starts(wheel().unpacked, tmp_path, 2, prelude=CLOSED, records=RECORDS))
    assert [start.kernels for start in collected] == ["aot", "aot"]

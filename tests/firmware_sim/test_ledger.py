import numpy as np
import pytest

from firmware_sim.ledger import Ledger


def small_ledger(capacity: int = 100) -> Ledger:
    ledger = Ledger(np.dtype([("n", "<u2")]), 4, 1e6, capacity)
    ledger.append(np.array([(n,) for n in range(10)], ledger._ring.dtype))
    return ledger


def test_frame_is_delivered_only_when_whole_in_order_and_without_strangers() -> None:
    ledger = small_ledger()
    stream = [0, 1, 2, 3, 4, 5, 7, 8, 9, -1, 10, 11, 12, 13, 14, 15, 16, 17, 17, 18, 19]
    ledger.on_wire(np.array([*stream, 20, 21, 22, 23, 20, 21, 22, 23, 23, -1, -1, 24, 25]))
    assert ledger.delivered().tolist() == [0, 3, 5, 5]
    ledger.on_wire(np.array([26]))
    ledger.on_wire(np.array([], np.int64))
    ledger.on_wire(np.array([27, 28, 29, 30, 31]))
    assert ledger.delivered().tolist() == [0, 3, 5, 5, 6, 7]
    assert ledger.lost().tolist() == [1, 2, 4, 8, 9]
    assert ledger.delivered_count == 6


def test_ledger_keeps_its_capacity_and_says_when_it_no_longer_knows() -> None:
    ledger = small_ledger(capacity=4)
    assert ledger.values(np.array([6, 9]))["n"].tolist() == [6, 9]
    for wrong in (5, 10):
        with pytest.raises(IndexError, match="kept are 6 to 9"):
            ledger.values(np.array([wrong]))
    for first in range(0, 40, 4):
        ledger.on_wire(np.arange(first, first + 4))
    assert ledger.delivered().tolist() == [6, 7, 8, 9]

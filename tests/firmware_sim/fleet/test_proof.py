"""The proof after a run is worth something only if it fails when it should."""

import json

from firmware_sim.fleet.measure import Measures, Times, per_month
from firmware_sim.fleet.messages import value_of
from firmware_sim.fleet.proof import Proof, prove

EXPECTED = {("hub-000000", "vitals"): 3, ("hub-000001", "vitals"): 2}


def entry(hub: int, sequence: int, value: str | None = None) -> bytes:
    value = value or value_of("vitals", hub, sequence)
    line = {"type": "entry", "hub": f"hub-{hub:06}", "stream": "vitals", "sequence": sequence}
    return json.dumps(line | {"record": {"value": int(value)}}).encode()


def whole() -> list[bytes]:
    return [entry(0, 1), entry(1, 2), entry(0, 2), entry(0, 3), entry(1, 1)]


def test_everything_once_and_right_holds() -> None:
    proof = prove(whole(), EXPECTED)
    assert proof == Proof(expected=5, received=5)
    assert proof.ok


def test_each_fault_is_seen() -> None:
    assert prove(whole()[1:], EXPECTED).missing == 1
    assert prove([*whole(), entry(0, 2)], EXPECTED).repeated == 1
    wrong = prove([*whole()[1:], entry(0, 1, "1")], EXPECTED)
    assert (wrong.wrong, wrong.missing) == (1, 1)
    assert prove([*whole(), entry(0, 4)], EXPECTED).wrong == 1
    assert prove([*whole(), entry(7, 1)], EXPECTED).wrong == 1
    swapped = prove([*whole()[1:], entry(0, 2)], EXPECTED)
    assert (swapped.missing, swapped.repeated) == (1, 1)
    rejected = prove([*whole(), b'{"type":"rejected","reason":"no_signature"}'], EXPECTED)
    assert rejected.rejected == {"no_signature": 1}
    gap = b'{"type":"gap","count":4}'
    open_gap = prove([*whole(), gap], EXPECTED)
    closed = prove([*whole(), gap, b'{"type":"gap_closed","count":4}'], EXPECTED)
    assert [p.ok for p in (wrong, rejected, open_gap, closed)] == [False, False, False, True]


def test_times_are_right_to_five_percent() -> None:
    times = Times()
    assert times.quantile_s(0.5) is None
    for millis in range(1, 1001):
        times.add(millis / 1000)
    for part in (0.01, 0.5, 0.99, 1.0):
        found = times.quantile_s(part)
        assert found is not None
        assert part <= found <= part * 1.0501


def test_a_month_has_thirty_days() -> None:
    assert per_month(sent_bytes=1000, hubs=10, seconds=1.0) == 100 * 2_592_000
    assert Measures().acknowledged == 0

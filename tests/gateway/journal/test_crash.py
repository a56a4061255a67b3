"""Power cuts at any step: nothing committed is lost, nothing is invented, nothing is kept twice.

`make soak` runs ten times as many. A failure names its history; WARDLINK_SEED runs that one alone.
"""

import os
from functools import partial

import pytest

from tests.gateway.journal.builders import Deflating, open_journal
from tests.gateway.journal.histories import History, quick_keys

CRASHES = int(os.environ.get("WARDLINK_CRASHES", "10000"))
CUTS = 25
"""Power cuts in a history: enough for segments to be used again several times."""
PARTS = 8
SEED = os.environ.get("WARDLINK_SEED")
SEEDS = range(CRASHES // CUTS) if SEED is None else range(int(SEED), int(SEED) + 1)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", range(PARTS))
def test_power_cuts_lose_nothing_invent_nothing_and_repeat_nothing(
    part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick_keys(monkeypatch)
    repeats = named = 0
    for seed in SEEDS[part::PARTS]:
        # One in eight with samples in blocks: they cost time, and are the same to the disk.
        start = partial(open_journal, codec=Deflating()) if seed % 8 == 3 else open_journal
        history = History(seed, start)
        try:
            history.run(CUTS)
        except BaseException as error:
            error.add_note(f"again: WARDLINK_SEED={seed} make test ARGS='-k test_power_cuts_lose'")
            raise
        repeats += history.receiver.repeats
        named += sum(map(len, history.named.values()))
        assert sum(history.committed.values()) > CUTS
    print(f"histories {SEEDS[part::PARTS]}: {repeats} repeats removed, {named} losses named")  # noqa: T201
    assert SEED is not None or (repeats and named), (
        "cuts between sending and the cursor, and evictions"
    )

from errno import EIO
from pathlib import Path
from random import Random

import pytest

from gateway.journal.slots import SLOT_BYTES, Slots
from gateway.journal.storage import DISK
from tests.gateway.journal.simulated_disk import PowerCutError, SimulatedDisk

PATH = Path("/cursor")


def test_the_last_value_comes_back(tmp_path: Path) -> None:
    slots = Slots(tmp_path / "cursor", DISK)
    assert slots.load() is None
    for n in range(5):
        slots.write(b"%d" % n)
        assert Slots(tmp_path / "cursor", DISK).load() == b"%d" % n


@pytest.mark.parametrize("seed", range(20))
def test_a_power_cut_leaves_the_old_value_or_the_new(seed: int) -> None:
    random, disk = Random(seed), SimulatedDisk()
    durable = 0
    for n in range(1, 60):
        slots = Slots(PATH, disk)
        found = int(slots.load() or b"0")
        assert found in {durable, n - 1}
        durable = found
        disk.steps_left = random.randrange(5)
        try:
            slots.write(b"%d" % n)
            durable = n
        except PowerCutError:
            pass
        disk.crash(random)


def test_every_bit_of_the_newest_slot_is_guarded() -> None:
    disk = SimulatedDisk()
    slots = Slots(PATH, disk)
    slots.write(b"old")
    slots.write(b"new")
    cache = disk.directories[Path("/")].cache["cursor"].cache
    for bit in range(19 * 8):
        cache[bit // 8] ^= 1 << bit % 8
        assert Slots(PATH, disk).load() == b"old", bit
        cache[bit // 8] ^= 1 << bit % 8
    assert Slots(PATH, disk).load() == b"new"
    cache[0] ^= 1
    cache[SLOT_BYTES] ^= 1
    assert Slots(PATH, disk).load() is None


def test_after_a_failed_sync_a_new_file_is_written() -> None:
    disk = SimulatedDisk()
    slots = Slots(PATH, disk)
    slots.write(b"one")
    inode = disk.directories[Path("/")].cache["cursor"]
    failed = False

    def fail_once(operation: str, _path: Path) -> OSError | None:
        nonlocal failed
        if operation == "datasync" and not failed:
            failed = True
            return OSError(EIO, "input/output error")
        return None

    disk.fault = fail_once
    slots.write(b"two")
    assert disk.directories[Path("/")].cache["cursor"] is not inode
    assert Slots(PATH, disk).load() == b"two"


def test_a_disk_that_fails_twice_leaves_the_old_value() -> None:
    disk = SimulatedDisk()
    slots = Slots(PATH, disk)
    slots.write(b"one")
    disk.fault = lambda operation, _path: OSError(EIO, "") if operation == "datasync" else None
    with pytest.raises(OSError, match="5"):
        slots.write(b"two")
    disk.fault = lambda _operation, _path: None
    disk.crash(Random(1))
    assert Slots(PATH, disk).load() in {b"one", b"two"}
    slots.write(b"three")
    assert Slots(PATH, disk).load() == b"three"

"""Another hub key: no frame is touched, the old key opens nothing, and whoever is interrupted begins again."""

from random import Random

import pytest

from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.keys import HubKey
from gateway.journal.offline import header_offsets, headers, segment_files, spare_files
from gateway.journal.readers import Opener
from gateway.journal.rotation import Rotation, rotate
from gateway.journal.segment import BLOCK_BYTES, unwrap_cipher
from tests.gateway.journal.builders import DIRECTORY, KEY, MAKERS, read_all, records, wave
from tests.gateway.journal.simulated_disk import PowerCutError, SimulatedDisk
from tests.gateway.journal.test_sealed import CLINIC, SEALED, expected, fill, open_for

HUB = ()


def renewed(key: HubKey = KEY) -> HubKey:
    return HubKey(key.renewed())


def used(disk: SimulatedDisk) -> None:
    """Segments in use, and spare files of a former life."""
    journal = open_for(disk, HUB)
    fill(journal)
    for number in range(10, 60):
        journal.append("ecg", wave(number))
        journal.commit()
    journal.acknowledge(Stream.WAVEFORM, 40)
    journal.close()
    assert spare_files(DIRECTORY, disk)


def opens(disk: SimulatedDisk, key: Opener) -> int:
    """How many headers a key opens, in segments and spare files, first blocks and copies."""
    count = 0
    for path in (*segment_files(DIRECTORY, disk), *spare_files(DIRECTORY, disk)):
        with disk.open(path) as file:
            found = headers(file, header_offsets(disk, path))
        for header in found:
            try:
                unwrap_cipher(*header, key)
            except JournalError:
                continue
            count += 1
    return count


def frames(disk: SimulatedDisk) -> dict[str, bytes]:
    found = {}
    for path in segment_files(DIRECTORY, disk):
        inode = disk.directories[path.parent].cache[path.name]
        found[str(path)] = bytes(inode.cache[BLOCK_BYTES:-BLOCK_BYTES])
    return found


def check_all_there(disk: SimulatedDisk, key: HubKey) -> None:
    journal = open_for(disk, HUB, key=key, boot_id="boot-9")
    assert journal.recovery.damage == ()
    for stream in Stream:
        first = journal.acknowledged(stream) + 1
        found = records(read_all(journal, stream, first - 1))
        last = journal.high_water(stream)
        make = MAKERS[stream]
        assert found == {number: make(number) for number in range(first, last + 1)}
        assert last >= 9
    assert journal.take_damage() == []


def test_the_new_key_opens_everything_and_the_old_one_nothing() -> None:
    disk, new = SimulatedDisk(), renewed()
    used(disk)
    before = frames(disk)
    assert opens(disk, KEY) > 2 * len(before)
    done = rotate(DIRECTORY, disk, KEY, new, (new.reader,), lambda: None)
    assert done == Rotation(len(before), 0, 0, len(spare_files(DIRECTORY, disk)))
    assert opens(disk, KEY) == 0
    assert opens(disk, new) == 2 * len(before)
    assert frames(disk) == before
    check_all_there(disk, new)


def test_a_running_hub_is_left_alone() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk, HUB)
    fill(journal)
    with pytest.raises(JournalError, match="stop the hub first"):
        rotate(DIRECTORY, disk, KEY, renewed(), (KEY.reader,), lambda: None)
    assert opens(disk, KEY) == 2 * len(frames(disk))


@pytest.mark.parametrize("seed", range(2))
def test_a_power_cut_at_any_step_leaves_all_to_the_key_in_place_and_a_rerun_finishes(
    seed: int,
) -> None:
    random = Random(seed)
    steps, cuts = 0, 0
    while cuts == steps // 7:
        disk = SimulatedDisk()
        used(disk)
        disk.steps_left = steps
        place = [KEY]
        new = renewed()

        def switch(place: list[HubKey] = place, new: HubKey = new) -> None:
            place[0] = new

        try:
            rotate(DIRECTORY, disk, KEY, new, (new.reader,), switch)
        except PowerCutError:
            cuts += 1
        disk.crash(random)
        check_all_there(disk, place[0])
        disk.locked.clear()
        old, newest = place[0], renewed()
        rotate(DIRECTORY, disk, old, newest, (newest.reader,), lambda: None)
        assert opens(disk, KEY) == opens(disk, new) == 0
        disk.steps_left = None
        check_all_there(disk, newest)
        steps += 7
    assert cuts > 8


def test_rotation_brings_old_segments_under_the_readers_of_today() -> None:
    disk, new = SimulatedDisk(), renewed()
    journal = open_for(disk, HUB)
    fill(journal)
    journal.close()
    done = rotate(DIRECTORY, disk, KEY, new, SEALED, lambda: None)
    assert done.rewrapped == len(frames(disk))
    assert opens(disk, new) == opens(disk, KEY) == 0
    assert opens(disk, CLINIC) == 2 * done.rewrapped
    again = rotate(DIRECTORY, disk, new, renewed(), SEALED, lambda: None)
    assert again == Rotation(0, done.rewrapped, 0, 0)


def test_what_no_key_opens_is_counted_and_left_alone() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk, HUB)
    fill(journal, 1, 1)
    journal.close()
    before = [bytes(i.cache) for d in disk.directories.values() for i in d.cache.values()]
    stranger, new = HubKey.generate(), HubKey.generate()
    done = rotate(DIRECTORY, disk, stranger, new, (new.reader,), lambda: None)
    assert done.unreadable == 4
    assert before == [bytes(i.cache) for d in disk.directories.values() for i in d.cache.values()]


def test_a_damaged_header_block_is_made_whole_from_its_copy() -> None:
    disk, new = SimulatedDisk(), renewed()
    journal = open_for(disk, HUB)
    fill(journal, 1, 2)
    journal.close()
    for path in segment_files(DIRECTORY, disk):
        disk.directories[path.parent].cache[path.name].cache[50] ^= 1
    rotate(DIRECTORY, disk, KEY, new, (new.reader,), lambda: None)
    journal = open_for(disk, HUB, key=new)
    assert records(read_all(journal, Stream.VITALS)) == expected(Stream.VITALS, 1, 2)


def test_the_second_name_of_a_segment_in_use_is_never_wiped() -> None:
    """A cut in a rename between directories may leave both names."""
    disk, new = SimulatedDisk(), renewed()
    journal = open_for(disk, HUB)
    fill(journal, 1, 2)
    journal.close()
    [(name, inode)] = disk.directories[DIRECTORY / Stream.VITALS].cache.items()
    disk.directories[DIRECTORY / "spare"].cache["00000099.free"] = inode
    rotate(DIRECTORY, disk, KEY, new, (new.reader,), lambda: None)
    assert name in disk.list(DIRECTORY / Stream.VITALS)
    assert "00000099.free" not in disk.list(DIRECTORY / "spare")
    journal = open_for(disk, HUB, key=new)
    assert records(read_all(journal, Stream.VITALS)) == expected(Stream.VITALS, 1, 2)

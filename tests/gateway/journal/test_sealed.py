"""A journal for the clinic alone: the hub keeps it, sends it, gives it free, and cannot read it."""

import os
from typing import Any, cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from drivers.model import Record
from gateway.journal.algorithms import KEY_BYTES
from gateway.journal.entry import Batch, SealedBatch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.offline import header_offsets, headers, segment_files
from gateway.journal.readers import ClinicKey, Reader
from gateway.journal.scan import scan
from gateway.journal.segment import BLOCK_BYTES, open_cipher, parse_header
from gateway.uplink.sealed import Unsealer
from tests.gateway.journal.builders import (
    DIRECTORY,
    KEY,
    MAKERS,
    SEGMENT,
    FixedClock,
    forge_frame,
    read_all,
    records,
    vital,
    wave,
)
from tests.gateway.journal.histories import History
from tests.gateway.journal.simulated_disk import SimulatedDisk
from tests.gateway.uplink.bench import open_one, sealed_slice

CLINIC = ClinicKey.generate()
SEALED = (CLINIC.reader,)
VERIFY = Ed25519PublicKey.from_public_bytes(KEY.verify_key)


def open_for(
    disk: SimulatedDisk,
    readers: tuple[Reader, ...] = SEALED,
    *,
    key: HubKey = KEY,
    boot_id: str = "boot-1",
    segments: int = 64,
    entropy: Any = os.urandom,
) -> Journal:
    return Journal.open(
        DIRECTORY,
        hub="hub-1",
        clock=FixedClock(boot_id),
        hub_key=key,
        max_bytes=segments * SEGMENT,
        readers=readers,
        storage=disk,
        segment_bytes=SEGMENT,
        entropy=entropy,
    )


class AtTheClinic:
    """The journal as the clinic sees it: each sealed batch goes through its message, and is opened."""

    def __init__(self, journal: Journal, key: ClinicKey = CLINIC) -> None:
        self._journal = journal
        self._unsealer = Unsealer(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)

    def read(self, stream: Stream, after: int) -> Batch | None:
        batch = self._journal.read(stream, after)
        if isinstance(batch, SealedBatch):
            return open_one(self._unsealer, sealed_slice(batch, after).payload, VERIFY).batch
        return batch


def all_at_the_clinic(journal: Journal, stream: Stream) -> dict[int, Record]:
    return records(read_all(cast("Journal", AtTheClinic(journal)), stream))


def fill(journal: Journal, first: int = 1, last: int = 9) -> None:
    for number in range(first, last + 1):
        for stream, make in MAKERS.items():
            assert journal.append(f"{stream}-device", make(number))
        journal.commit()


def expected(stream: Stream, first: int = 1, last: int = 9) -> dict[int, Record]:
    return {number: MAKERS[stream](number) for number in range(first, last + 1)}


@pytest.mark.parametrize("restart", [False, True])
def test_the_hub_reads_nothing_and_the_clinic_everything(*, restart: bool) -> None:
    disk = SimulatedDisk()
    journal = open_for(disk)
    fill(journal)
    if restart:
        journal.close()
        journal = open_for(disk)
    for stream in Stream:
        assert read_all(journal, stream) == []
        assert isinstance(journal.read(stream, 0), SealedBatch)
        assert all_at_the_clinic(journal, stream) == expected(stream)
    assert journal.take_damage() == []
    assert journal.status().readers == "clinic"


def test_a_restart_knows_what_stands_in_the_clear_and_says_unknown_for_the_rest() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk)
    fill(journal)
    journal.acknowledge(Stream.VITALS, 4)
    assert journal.last_ns("vitals-device") == 9
    journal.close()
    again = open_for(disk)
    assert again.recovery.clean
    assert again.recovery.last_commit is not None
    assert again.recovery.damage == ()
    assert {stream: again.high_water(stream) for stream in Stream} == dict.fromkeys(Stream, 9)
    assert again.acknowledged(Stream.VITALS) == 4
    assert again.last_ns("vitals-device") is None
    assert again.append("hr", vital(10)) == 10


def test_a_sealed_journal_recycles_and_evicts_by_number_alone() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk, segments=8)
    for number in range(1, 90):
        journal.append("ecg", wave(number))
        journal.commit()
        if number == 20:
            journal.acknowledge(Stream.WAVEFORM, 20)
        if number == 50:
            journal.close()
            journal = open_for(disk, segments=8)
    evicted = {
        n for e in journal.take_evictions() for n in range(e.first_sequence, e.last_sequence + 1)
    }
    found = all_at_the_clinic(journal, Stream.WAVEFORM)
    left = {n for n in found if n > 20}
    # Evictions before the restart were told by the process before.
    assert left == set(range(min(left), 90))
    assert evicted <= set(range(21, min(left)))
    assert max(evicted) == min(left) - 1
    journal.acknowledge(Stream.WAVEFORM, 89)
    assert journal.status().streams[2].segments == 1


def test_a_broken_sealed_frame_is_named() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk)
    fill(journal, 1, 3)
    journal.close()
    [segment] = disk.directories[DIRECTORY / Stream.VITALS].cache.values()
    segment.cache[2 * BLOCK_BYTES + 200] ^= 1
    again = open_for(disk)
    assert [(d.first_sequence, d.reason) for d in again.recovery.damage] == [(2, "checksum")]
    assert set(all_at_the_clinic(again, Stream.VITALS)) == {1, 3}


def test_everything_on_the_disk_opens_nothing() -> None:
    """Whoever has the card has all bytes of it and the hub's key: no data key is in them, and no wrap opens."""
    disk, secrets = SimulatedDisk(), []

    def entropy(size: int) -> bytes:
        made = os.urandom(size)
        if size == KEY_BYTES:
            secrets.append(made)
        return made

    journal = open_for(disk, entropy=entropy)
    fill(journal)
    journal.close()
    inodes = [i for d in disk.directories.values() for i in d.cache.values()]
    raw = b"".join(bytes(inode.cache) for inode in inodes)
    assert len(secrets) == len(segment_files(DIRECTORY, disk)) >= 4
    assert not any(secret in raw for secret in secrets)
    assert b"device" not in raw
    for path in segment_files(DIRECTORY, disk):
        with disk.open(path) as file:
            found = headers(file, header_offsets(disk, path))
            block = file.pread(BLOCK_BYTES, 0)
        assert len(found) == 2
        for opener in (KEY, HubKey.generate(), ClinicKey.generate()):
            with pytest.raises(JournalError, match="no key"):
                open_cipher(block, opener)
        assert open_cipher(block, CLINIC).data_key in secrets
        for _, wraps in found:
            for recipient in wraps:
                with pytest.raises(JournalError, match="data key"):
                    KEY.unwrap(recipient.wrapped, b"")


def test_a_hub_that_is_sealed_later_hands_on_what_it_wrote_before() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk, ())
    fill(journal)
    journal.close()
    sealed = open_for(disk)
    fill(sealed, 10, 12)
    for stream in Stream:
        assert all_at_the_clinic(sealed, stream) == expected(stream, 1, 12)
        assert read_all(sealed, stream) == []


def test_a_hub_that_is_unsealed_later_still_hands_on_what_was_sealed() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk)
    fill(journal)
    journal.close()
    hub = open_for(disk, ())
    fill(hub, 10, 12)
    for stream in Stream:
        assert records(read_all(hub, stream)) == expected(stream, 10, 12)
        assert all_at_the_clinic(hub, stream) == expected(stream, 1, 12)
    assert hub.take_damage() == []


def test_hub_and_clinic_both_read() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk, (KEY.reader, CLINIC.reader))
    fill(journal)
    journal.close()
    assert journal.status().readers == "hub+clinic"
    assert records(read_all(open_for(disk, (KEY.reader,)), Stream.VITALS)) == expected(
        Stream.VITALS
    )
    stranger = open_for(SimulatedDisk(), (KEY.reader,))
    assert stranger.status().readers == "hub"
    for path in segment_files(DIRECTORY, disk):
        with disk.open(path) as file:
            block = file.pread(BLOCK_BYTES, 0)
        assert open_cipher(block, CLINIC) == open_cipher(block, KEY)


def test_what_nobody_here_can_open_is_named() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk, ())
    fill(journal, 1, 2)
    journal.close()
    other = open_for(disk, SEALED, key=HubKey.generate())
    assert other.read(Stream.VITALS, 0) is None
    damage = [*other.recovery.damage, *other.take_damage()]
    assert {d.reason for d in damage} == {"no key"}


@pytest.mark.parametrize("seed", range(3))
def test_power_cuts_lose_nothing_that_was_sealed(seed: int) -> None:
    def start(disk: SimulatedDisk, **options: Any) -> Journal:
        return cast("Journal", AtTheClinic(open_for(disk, **options)))

    history = History(seed, start)
    history.run(60)
    assert sum(history.committed.values()) > 60


def test_every_bit_of_a_sealed_segment_is_found() -> None:
    """Header, frame and padding, on the way from the disk to the clinic; the checksums as an accident leaves them."""
    disk = SimulatedDisk()
    journal = open_for(disk)
    journal.append("hr", vital(72))
    journal.close()
    [inode] = disk.directories[DIRECTORY / Stream.VITALS].cache.values()
    whole = bytes(inode.cache)
    epoch = bytes.fromhex(journal.epoch)
    contents = scan(whole, Stream.VITALS, epoch, 1, 1, 2)
    assert (len(contents.frames), contents.damage) == (1, [])
    for bit in range(BLOCK_BYTES * 8):
        block = bytearray(whole[:BLOCK_BYTES])
        block[bit // 8] ^= 1 << bit % 8
        assert parse_header(bytes(block)) is None, bit
    start = whole[:BLOCK_BYTES]
    for bit in range(BLOCK_BYTES * 8):
        frame = bytearray(whole[BLOCK_BYTES : 2 * BLOCK_BYTES])
        frame[bit // 8] ^= 1 << bit % 8
        found = scan(start + frame + start, Stream.VITALS, epoch, 1, 1, 2)
        assert found.frames == [], bit
        assert [(d.first_sequence, d.last_sequence) for d in found.damage] == [(1, 1)], bit


def test_padding_that_says_something_never_leaves_the_hub() -> None:
    disk = SimulatedDisk()
    journal = open_for(disk)
    journal.append("hr", vital(72))
    journal.close()
    [inode] = disk.directories[DIRECTORY / Stream.VITALS].cache.values()
    frame = inode.cache[BLOCK_BYTES : 2 * BLOCK_BYTES]
    frame[-1] ^= 1
    forge_frame(frame)
    inode.cache[BLOCK_BYTES : 2 * BLOCK_BYTES] = frame
    again = open_for(disk, boot_id="boot-2")
    assert again.read(Stream.VITALS, 0) is None
    assert [d.reason for d in again.take_damage()] == ["padding"]


@pytest.mark.parametrize("what", ["another hub", "another stream", "an old segment"])
def test_a_sealed_segment_from_elsewhere_is_found_by_the_hub(what: str) -> None:
    disk = SimulatedDisk()
    journal = open_for(disk)
    fill(journal, 1, 20)
    journal.close()
    vitals = disk.directories[DIRECTORY / Stream.VITALS].cache
    names = sorted(vitals)
    assert len(names) > 1
    newest = vitals[names[-1]].cache
    if what == "another hub":
        other = SimulatedDisk()
        elsewhere = open_for(other, key=HubKey.generate())
        fill(elsewhere, 1, 20)
        newest[:] = other.directories[DIRECTORY / Stream.VITALS].cache[names[-1]].cache
    elif what == "another stream":
        alarms = disk.directories[DIRECTORY / Stream.ALARM].cache
        newest[:] = alarms[max(alarms)].cache
    else:
        newest[:] = vitals[names[0]].cache
    again = open_for(disk, boot_id="boot-2")
    first = int(names[-1].split("-")[1].removesuffix(".seg"), 16)
    assert all_at_the_clinic(again, Stream.VITALS) == expected(Stream.VITALS, 1, first - 1)
    damage = [*again.recovery.damage, *again.take_damage()]
    assert {n for d in damage for n in range(d.first_sequence, d.last_sequence + 1)} == set(
        range(first, 21)
    )

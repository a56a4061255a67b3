"""Whoever can write to the disk can destroy data, but can never make other data of it."""

import zlib
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.records import decode_batch
from gateway.journal.scan import scan
from gateway.journal.segment import (
    BLOCK_BYTES,
    FRAME_HEADER_BYTES,
    open_cipher,
    parse_frame,
    parse_header,
)
from tests.gateway.journal.builders import (
    CRC,
    DIRECTORY,
    KEY,
    SEGMENT,
    forge_frame,
    open_journal,
    read_all,
    records,
    vital,
    wave,
)
from tests.gateway.journal.simulated_disk import SimulatedDisk


def one_frame() -> tuple[SimulatedDisk, bytearray]:
    disk = SimulatedDisk()
    journal = open_journal(disk)
    journal.append("hr", vital(72))
    journal.close()
    [inode] = disk.directories[DIRECTORY / Stream.VITALS].cache.values()
    return disk, inode.cache


def only_segment(disk: SimulatedDisk, stream: Stream, at: int = 0) -> bytearray:
    names = disk.directories[DIRECTORY / stream].cache
    return names[sorted(names)[at]].cache


def readable(segment: bytes, epoch: bytes) -> object:
    """What a reader makes of a one-frame segment: its records, or None."""
    contents = scan(segment, Stream.VITALS, epoch, 1, 1, 2)
    if not contents.frames:
        assert [(d.first_sequence, d.last_sequence) for d in contents.damage] == [(1, 1)]
        return None
    [frame] = contents.frames
    try:
        cipher = open_cipher(segment[:BLOCK_BYTES], KEY)
        end = frame.offset + frame.size
        return decode_batch(cipher.open(frame, segment[frame.offset : end]), 1)
    except JournalError:
        return None


def test_every_bit_of_a_frame_is_found() -> None:
    _, segment = one_frame()
    parsed = parse_header(bytes(segment[:BLOCK_BYTES]))
    assert parsed
    cipher = open_cipher(bytes(segment[:BLOCK_BYTES]), KEY)
    good = bytes(segment[BLOCK_BYTES : 2 * BLOCK_BYTES])
    header = parse_frame(good)
    assert header
    cipher.open(header, good)
    for bit in range(BLOCK_BYTES * 8):
        frame = bytearray(good)
        frame[bit // 8] ^= 1 << bit % 8
        found = parse_frame(bytes(frame))
        if bit < FRAME_HEADER_BYTES * 8:
            assert found is None, bit
        else:
            assert found == header
            with pytest.raises(JournalError, match="checksum"):
                cipher.open(header, bytes(frame))


def test_every_bit_of_a_frame_is_found_when_the_checksums_are_made_right() -> None:
    _, segment = one_frame()
    parsed = parse_header(bytes(segment[:BLOCK_BYTES]))
    assert parsed
    epoch = parsed[0].epoch
    good = bytes(segment[BLOCK_BYTES : 2 * BLOCK_BYTES])
    segment_bytes = bytes(segment)
    assert readable(segment_bytes, epoch)
    used = FRAME_HEADER_BYTES + 200
    bits = [*range((FRAME_HEADER_BYTES - 8) * 8), *range(FRAME_HEADER_BYTES * 8, used * 8)]
    for bit in [*bits, BLOCK_BYTES * 8 - 1]:
        frame = bytearray(good)
        frame[bit // 8] ^= 1 << bit % 8
        forge_frame(frame)
        forged = segment_bytes[:BLOCK_BYTES] + bytes(frame) + segment_bytes[2 * BLOCK_BYTES :]
        assert readable(forged, epoch) is None, bit


def test_every_bit_of_a_segment_header_is_found() -> None:
    _, segment = one_frame()
    good = bytes(segment[:BLOCK_BYTES])
    for bit in range(BLOCK_BYTES * 8):
        block = bytearray(good)
        block[bit // 8] ^= 1 << bit % 8
        assert parse_header(bytes(block)) is None, bit


def test_every_bit_of_a_segment_header_is_found_when_the_checksum_is_made_right() -> None:
    _, segment = one_frame()
    whole = bytes(segment)
    parsed = parse_header(whole[:BLOCK_BYTES])
    assert parsed
    used = len(whole[: BLOCK_BYTES - 4].rstrip(b"\0")) + 1
    for bit in range(used * 8):
        block = bytearray(whole[:BLOCK_BYTES])
        block[bit // 8] ^= 1 << bit % 8
        block[-4:] = CRC.pack(zlib.crc32(block[:-4]))
        forged = bytes(block) + whole[BLOCK_BYTES:-BLOCK_BYTES] + bytes(block)
        assert readable(forged, parsed[0].epoch) is None, bit


def test_a_journal_survives_a_flip_anywhere() -> None:
    disk, segment = one_frame()
    for byte in [*range(0, 8192, 61), *range(SEGMENT - 4096, SEGMENT, 173)]:
        segment[byte] ^= 0x10
        journal = open_journal(disk, boot_id="boot-2")
        found = records(read_all(journal, Stream.VITALS))
        damaged = [*journal.recovery.damage, *journal.take_damage()]
        assert (found == {1: vital(72)}) != bool(damaged)
        journal.close()
        segment[byte] ^= 0x10


def two_frames(hub: str = "hub-1") -> SimulatedDisk:
    disk = SimulatedDisk()
    journal = open_journal(disk, hub=hub)
    for number in (1, 2):
        journal.append("hr", vital(number))
        journal.append("ecg", wave(number, 400))
        journal.commit()
    journal.close()
    return disk


def blocks(at: int) -> slice:
    return slice(at * BLOCK_BYTES, (at + 1) * BLOCK_BYTES)


def expect_damage(disk: SimulatedDisk, stream: Stream, numbers: set[int]) -> None:
    journal = open_journal(disk, boot_id="boot-2")
    found = records(read_all(journal, stream))
    maker = vital if stream is Stream.VITALS else lambda n: wave(n, 400)
    assert found == {n: maker(n) for n in {1, 2} - numbers}
    damage = [*journal.recovery.damage, *journal.take_damage()]
    named = {n for d in damage for n in range(d.first_sequence, d.last_sequence + 1)}
    assert named == numbers


def test_swapped_frames_are_found() -> None:
    disk = two_frames()
    segment = only_segment(disk, Stream.VITALS)
    one, two = blocks(1), blocks(2)
    segment[one], segment[two] = segment[two], segment[one]
    expect_damage(disk, Stream.VITALS, {1, 2})


def test_a_frame_dropped_in_the_middle_is_found() -> None:
    disk = two_frames()
    segment = only_segment(disk, Stream.VITALS)
    segment[blocks(1)] = bytes(BLOCK_BYTES)
    expect_damage(disk, Stream.VITALS, {1})


def test_a_frame_from_another_stream_is_found() -> None:
    disk = two_frames()
    target, source = only_segment(disk, Stream.VITALS), only_segment(disk, Stream.WAVEFORM)
    target[blocks(1)] = source[blocks(1)]
    expect_damage(disk, Stream.VITALS, {1})


def test_a_segment_from_another_stream_is_found() -> None:
    disk = two_frames()
    only_segment(disk, Stream.VITALS)[:] = only_segment(disk, Stream.WAVEFORM)
    expect_damage(disk, Stream.VITALS, {1, 2})


@pytest.mark.parametrize("hub", ["hub-1", "hub-2"])
def test_a_segment_from_another_journal_is_found(hub: str) -> None:
    disk = two_frames()
    only_segment(disk, Stream.VITALS)[:] = only_segment(two_frames(hub), Stream.VITALS)
    expect_damage(disk, Stream.VITALS, {1, 2})


def test_a_relabelled_frame_of_another_stream_does_not_open() -> None:
    """The forger sets the stream and makes the checksums right: only the tag is left to tell."""
    disk = two_frames()
    target, source = only_segment(disk, Stream.VITALS), only_segment(disk, Stream.WAVEFORM)
    frame = bytearray(source[blocks(1)])
    frame[6] = target[BLOCK_BYTES + 6]
    forge_frame(frame)
    target[blocks(1)] = frame
    journal = open_journal(disk, boot_id="boot-2")
    assert journal.recovery.damage[0].reason == "chain"  # of the second frame
    assert records(read_all(journal, Stream.VITALS)) == {}
    assert [d.reason for d in journal.take_damage()] == ["authentication"]


def test_a_hub_is_part_of_what_opens_a_segment() -> None:
    _, segment = one_frame()
    cipher = open_cipher(bytes(segment[:BLOCK_BYTES]), KEY)
    frame = bytes(segment[BLOCK_BYTES : 2 * BLOCK_BYTES])
    header = parse_frame(frame)
    assert header
    for changed in (
        {"hub": "hub-2"},
        {"stream": Stream.ALARM},
        {"number": 2},
        {"epoch": bytes(16)},
    ):
        other = replace(cipher, header=replace(cipher.header, **changed))
        with pytest.raises(JournalError, match="authentication"):
            other.open(header, frame)


def test_foreign_files_are_left_alone() -> None:
    disk = two_frames()
    disk.create(DIRECTORY / Stream.VITALS / "notes.txt", 10)
    expect_damage(disk, Stream.VITALS, set())
    assert disk.size(Path("/journal/vitals/notes.txt")) == 10

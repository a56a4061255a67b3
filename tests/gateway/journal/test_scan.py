"""What counts as a frame of the log, and what is passed over."""

import os
from pathlib import Path

import pytest

from gateway.clock import ClockReading, ClockState
from gateway.journal.access import Access
from gateway.journal.algorithms import AES_256_GCM, CHACHA20_POLY1305, cpu_algorithm
from gateway.journal.entry import Stream
from gateway.journal.scan import Contents, Damage, scan
from gateway.journal.segment import BLOCK_BYTES, FrameHeader, SegmentHeader, frame_tag
from tests.gateway.journal.builders import KEY

EPOCH = bytes(range(16))
CLOCK = ClockReading(1, 2, ClockState.SYNCHRONISED, 3)
BLOCKS = 8


def segment(frames: list[tuple[int, int, int]], *, moved_to: int | None = None) -> bytes:
    """A segment with frames (block, first sequence, count) of one block each, chained in this order."""
    header = SegmentHeader(
        "hub-1", Stream.VITALS, EPOCH, 5, 100, BLOCKS * BLOCK_BYTES, AES_256_GCM, bytes(4),
        bytes(16), "boot-1", CLOCK,
    )  # fmt: skip
    cipher, block = Access(KEY).new_segment(header, os.urandom)
    data = bytearray(BLOCKS * BLOCK_BYTES)
    data[:BLOCK_BYTES] = data[-BLOCK_BYTES:] = block
    tag = bytes(16)
    for at, first, count in frames:
        frame = FrameHeader(
            Stream.VITALS, AES_256_GCM, EPOCH, 5, at, first, count, 3, tag, "boot-1", CLOCK
        )
        sealed = bytearray(BLOCK_BYTES)
        cipher.seal(frame, b"abc", sealed)
        tag = frame_tag(frame, sealed)
        place = (moved_to or at) * BLOCK_BYTES
        data[place : place + BLOCK_BYTES] = sealed
    return bytes(data)


def look(data: bytes, until: int | None = None) -> Contents:
    return scan(data, Stream.VITALS, EPOCH, 5, 100, until)


def spans(contents: Contents) -> list[tuple[int, int]]:
    return [(frame.first_sequence, frame.last_sequence) for frame in contents.frames]


def test_frames_in_order_are_the_log() -> None:
    contents = look(segment([(1, 100, 2), (2, 102, 1)]))
    assert spans(contents) == [(100, 101), (102, 102)]
    assert (contents.damage, contents.end) == ([], 103)
    assert [contents.find(n) for n in (99, 101, 102, 103)] == [
        contents.frames[0],
        contents.frames[0],
        contents.frames[1],
        None,
    ]


def test_a_frame_in_another_place_is_none() -> None:
    assert look(segment([(1, 100, 2)], moved_to=3)).end == 100


@pytest.mark.parametrize("first", [1, 99, 100, 101])
def test_numbers_that_were_given_already_are_passed_over(first: int) -> None:
    contents = look(segment([(1, 100, 2), (2, first, 1), (3, 102, 1)]))
    assert spans(contents)[0] == (100, 101)
    assert contents.end == 103
    assert all(first != frame.first_sequence for frame in contents.frames[1:])


def test_what_is_missing_in_front_between_and_behind_is_named() -> None:
    contents = look(segment([(1, 101, 1), (2, 105, 1)]), until=108)
    assert [(d.first_sequence, d.last_sequence) for d in contents.damage] == [
        (100, 100),
        (102, 104),
        (106, 107),
    ]
    assert contents.end == 108


def test_what_the_next_segment_says_again_is_void() -> None:
    contents = look(segment([(1, 100, 2), (2, 102, 1)]), until=102)
    assert spans(contents) == [(100, 101)]
    assert contents.damage == []


def test_a_broken_chain_is_damage() -> None:
    data = bytearray(segment([(1, 100, 1), (2, 101, 1)]))
    other = segment([(1, 100, 1)])
    data[BLOCK_BYTES : 2 * BLOCK_BYTES] = other[BLOCK_BYTES : 2 * BLOCK_BYTES]
    assert look(bytes(data)).damage == [Damage(Stream.VITALS, 101, 101, "chain")]


@pytest.mark.parametrize("size", [0, 1, BLOCK_BYTES, 2 * BLOCK_BYTES + 1])
def test_a_file_that_was_cut_short_is_read_as_far_as_it_goes(size: int) -> None:
    assert look(segment([(1, 100, 1)])[:size], until=101).end == 101


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nflags\t\t: fpu aes avx\n", AES_256_GCM),
        ("processor\t: 0\nFeatures\t: fp asimd aes pmull\n", AES_256_GCM),
        ("processor\t: 0\nFeatures\t: fp asimd crc32 cpuid\n", CHACHA20_POLY1305),
        ("", CHACHA20_POLY1305),
    ],
)
def test_the_algorithm_follows_the_processor(tmp_path: Path, cpuinfo: str, expected: int) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(cpuinfo)
    assert cpu_algorithm(path) == expected

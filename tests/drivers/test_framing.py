import random

from drivers.framing import JUNK_RUN, Frame, Framer, Junk


def framer() -> Framer:
    return Framer(b"\x0a\xfa", b"\x00\x0b", {2: 3, 4: 5})


def frame(kind: int, payload: bytes) -> bytes:
    return b"\x0a\xfa" + len(payload).to_bytes(2, "little") + bytes([kind]) + payload + b"\x00\x0b"


def test_frames_of_each_known_kind() -> None:
    assert list(framer().feed(frame(2, b"abc") + frame(4, b"12345"))) == [
        Frame(2, b"abc"),
        Frame(4, b"12345"),
    ]


def test_unknown_pair_of_kind_and_length_is_junk() -> None:
    parts = list(framer().feed(frame(2, b"abcde") + frame(3, b"abc") + frame(2, b"xyz")))
    assert parts == [Junk(frame(2, b"abcde") + frame(3, b"abc"), 22), Frame(2, b"xyz")]


def test_a_frame_inside_a_broken_frame_is_found() -> None:
    inner = frame(2, b"abc")
    assert Frame(2, b"abc") in list(framer().feed(frame(4, b"12345")[:4] + inner + inner))


def test_header_bytes_inside_a_payload() -> None:
    assert list(framer().feed(frame(4, b"\x0a\xfa\x03\x00\x02"))) == [
        Frame(4, b"\x0a\xfa\x03\x00\x02")
    ]


def test_long_junk_is_reported_in_runs_and_counted() -> None:
    parts = list(framer().feed(bytes(JUNK_RUN + 10) + frame(2, b"abc")))
    assert [part.count for part in parts if isinstance(part, Junk)] == [JUNK_RUN, 10]
    assert parts[-1] == Frame(2, b"abc")


def test_never_keeps_more_than_its_bound() -> None:
    splitter, rng = framer(), random.Random(3)
    for _ in range(300):
        list(
            splitter.feed(
                rng.choice((bytes(100), rng.randbytes(77), frame(4, b"12345")[:9], b"\x0a\xfa\x05"))
            )
        )
        assert splitter.held <= splitter.bound

"""The waveform codec: what goes in comes out, its twin agrees, and no bytes whatever give wrong samples."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.signal import codec, codec_start
from gateway.signal import codec_kernels as kernels
from gateway.signal.codec import (
    CodecError,
    DamagedError,
    Decoder,
    Encoder,
    LostError,
    Samples,
    UnknownVersionError,
    decode_block,
    encode_block,
)
from gateway.signal.codec_errors import varint
from tests.gateway.signal.codec_signals import beats, edges, limb_leads, noise, scaled
from tests.naive import codec as naive

GOLDEN = Path(__file__).parents[2] / "codec" / "version-1.json"

SIGNALS = {
    "beats": (beats(300, 1), 16),
    "two leads": (beats(300, 2), 16),
    "three leads": (beats(120, 3), 16),
    "twelve leads": (limb_leads(80), 16),
    "24 bits": (beats(200, 2, scale=1 << 11) + noise(200, 2, 5, 11), 24),
    "scaled": (scaled(300, 2, 1), 16),
    "scaled in 24 bits": (scaled(150, 1, 2, 9999), 24),
    "noise": (noise(60, 2, 3), 16),
    "noise of 24 bits": (noise(60, 1, 3, 24), 24),
    "edges": (edges(300, 2, 7), 16),
    "edges of 24 bits": (edges(300, 2, 8, 24), 24),
    "flat": (np.full((200, 1), -5, np.int32), 16),
    "one sample": (np.array([[-32768]], np.int32), 16),
}


def packets_of(samples: Samples, cuts: list[int], width: int, key_every: int) -> list[bytes]:
    encoder = Encoder(samples.shape[1], width, key_every)
    return [encoder.encode(part) for part in np.split(samples, cuts)]


@st.composite
def signals(draw: st.DrawFn, rows_most: int = 60) -> tuple[Samples, int]:
    width = draw(st.sampled_from([16, 24]))
    channels, rows = draw(st.integers(1, 16)), draw(st.integers(1, rows_most))
    kinds = st.sampled_from(["beats", "noise", "edges", "walk", "scaled"])
    kind, seed = draw(kinds), draw(st.integers(0))
    if kind == "scaled":
        return scaled(rows, channels, seed, draw(st.integers(2, 50))), width
    if kind == "beats":
        return beats(rows, channels, seed), width
    if kind == "walk":
        steps = noise(rows, channels, seed, 5)
        return np.cumsum(steps, 0, dtype=np.int32), width
    return (noise if kind == "noise" else edges)(rows, channels, seed, width), width


# --- What goes in comes out --------------------------------------------------------------------------


@settings(deadline=None, max_examples=60)
@given(signals())
def test_a_block_comes_back(signal: tuple[Samples, int]) -> None:
    samples, width = signal
    data = encode_block(samples, width)
    assert np.array_equal(decode_block(data), samples)
    assert len(data) <= samples.size * width // 8 + 2 + 2 + 4, "never larger than as it is"


@settings(deadline=None, max_examples=60)
@given(signals(), st.data())
def test_a_stream_comes_back_however_it_is_cut(
    signal: tuple[Samples, int], data: st.DataObject
) -> None:
    samples, width = signal
    cuts = data.draw(st.sets(st.integers(1, max(1, len(samples) - 1)), max_size=8))
    key_every = data.draw(st.integers(1, 9))
    inner = sorted(cut for cut in cuts if cut < len(samples))
    packets = packets_of(samples, inner, width, key_every)
    decoder = Decoder()
    assert np.array_equal(np.concatenate([decoder.decode(packet) for packet in packets]), samples)
    keys = [at for at, packet in enumerate(packets) if not packet[0] & codec.FOLLOWS]
    assert keys[0] == 0
    assert max(np.diff([*keys, len(packets)])) <= key_every


@pytest.mark.parametrize("name", SIGNALS)
def test_the_twin_gives_the_same_bytes_and_reads_them(name: str) -> None:
    samples, width = SIGNALS[name]
    rows, channels = samples.tolist(), samples.shape[1]
    data = encode_block(samples, width)
    if data[0] & codec.LISTED:
        assert naive.encode_listed(naive.Lists(channels, width), rows, 0, 0)[0] == data
        return
    assert naive.encode(naive.Model(channels, width), rows, channels, 0)[0] == data
    if not data[0] & codec.PLAIN:
        model = naive.Model(channels, width)
        assert naive.decode_payload(model, payload_of(data), len(rows)) == rows


def payload_of(block: bytes) -> bytes:
    """Of a block with 1 to 127 or 128 to 16,383 rows."""
    return block[7:] if block[2] < 128 else block[8:]


@pytest.mark.parametrize(
    "name", ["beats", "two leads", "three leads", "twelve leads", "24 bits", "noise", "flat"]
)
def test_the_twin_gives_the_same_packets(name: str) -> None:
    samples, width = SIGNALS[name]
    third = len(samples) // 3
    parts = [samples[:third], samples[third : 2 * third], samples[2 * third : -1], samples[-1:]]
    encoder, model = Encoder(samples.shape[1], width), naive.Model(samples.shape[1], width)
    checksum, rows_before = 0, 0
    for number, part in enumerate(parts):
        second = number or samples.shape[1]
        same = len(part) == rows_before
        expected, checksum = naive.encode(model, part.tolist(), second, checksum, same=same)
        assert encoder.encode(part) == expected
        rows_before = len(part)


def test_the_twin_gives_the_same_packets_with_lists() -> None:
    parts = np.split(scaled(500, 2, 4), [150, 300, 450])
    encoder, lists, checksum = Encoder(2), naive.Lists(2, 16), 0
    for number, part in enumerate(parts):
        same = number in {1, 2}
        expected, checksum = naive.encode_listed(lists, part.tolist(), number, checksum, same=same)
        assert encoder.encode(part) == expected


def test_what_takes_few_values_costs_little_whatever_its_scale() -> None:
    """As much as before it was scaled, and the lists."""
    cuts = list(range(200, 4000, 200))
    block, stream = (
        len(encode_block(beats(4000, 2))),
        sum(map(len, packets_of(beats(4000, 2), cuts, 16, 60))),
    )
    for step in (16, 37):
        samples = scaled(4000, 2, 1, step)
        assert len(encode_block(samples)) < 1.15 * block
        assert sum(map(len, packets_of(samples, cuts, 16, 60))) < 1.3 * stream


def test_an_encoder_learns_from_a_run_that_there_are_few_values() -> None:
    """In the first packet each value was met once: too little to tell."""
    samples = noise(60, 1, 5, 12) * 16
    parts = [samples, *[np.tile(samples, (5, 1))] * 20]
    encoder, decoder = Encoder(1, key_every=8), Decoder()
    packets = [encoder.encode(part) for part in parts]
    listed = [bool(packet[0] & codec.LISTED) for packet in packets if not packet[0] & codec.FOLLOWS]
    assert listed == [False, True, True]
    for packet, part in zip(packets, parts, strict=True):
        assert np.array_equal(decoder.decode(packet), part)


def test_a_run_with_lists_ends_where_they_do_not_suit() -> None:
    samples = np.concatenate((scaled(800, 1, 1), noise(6000, 1, 1), scaled(800, 1, 1)))
    cuts = [200, 400, 600, 800, *range(1000, 6800, 200), 6800, 7000, 7200, 7400]
    packets = packets_of(samples, cuts, 16, 3)
    kinds = [packet[0] & ~codec.PLAIN for packet in packets]
    assert kinds[:6] == [0x18, 0x19, 0x19, 0x18, 0x10, 0x19], "noise: a key packet out of turn"
    decoder = Decoder()
    assert np.array_equal(np.concatenate([decoder.decode(packet) for packet in packets]), samples)


def test_a_list_has_its_end() -> None:
    """Ever new values, 500 in a packet: after 4,096 of them a run without lists begins."""
    parts = [np.repeat(np.arange(n, n + 500) * 5, 8) for n in range(0, 6000, 500)]
    encoder, decoder = Encoder(1), Decoder()
    packets = [encoder.encode(part) for part in parts]
    assert [packet[0] for packet in packets] == [0x18, *[0x19] * 7, 0x10, *[0x19] * 3]
    for packet, part in zip(packets, parts, strict=True):
        assert np.array_equal(decoder.decode(packet)[:, 0], part)


def test_a_packet_as_it_is_teaches_the_model_as_well() -> None:
    """Noise makes it plain; what follows must be decoded with what the encoder learnt from the noise."""
    samples = np.concatenate((beats(100, 2), noise(100, 2, 4), beats(100, 2, 6)))
    packets = packets_of(samples, [100, 200], 16, 60)
    assert [bool(packet[0] & codec.PLAIN) for packet in packets] == [False, True, False]
    decoder = Decoder()
    assert np.array_equal(np.concatenate([decoder.decode(packet) for packet in packets]), samples)


def test_a_lead_that_follows_from_two_others_costs_next_to_nothing() -> None:
    samples = limb_leads(2000)
    alone = len(encode_block(samples[:, :2]))
    assert len(encode_block(samples[:, :3])) < 1.1 * alone


def test_a_flat_line_costs_next_to_nothing() -> None:
    assert len(encode_block(np.full((3600, 2), 1000))) < 40


def test_a_long_run_stays_sound() -> None:
    """A quarter of an hour of nothing, then the ends of the range, then signal: nothing has wound up meanwhile."""
    flat = np.zeros((100_000, 1), np.int32)
    samples = np.concatenate((flat, edges(500, 1, 2), beats(2000, 1)))
    cuts = [50_000, 100_000, len(samples) - 1000]
    packets = packets_of(samples, cuts, 16, 256)
    decoder = Decoder()
    assert np.array_equal(np.concatenate([decoder.decode(packet) for packet in packets]), samples)
    assert len(packets[-1]) < 1.1 * len(encode_block(samples[-1000:]))


def test_a_regression_that_breaks_down_starts_anew() -> None:
    samples = beats(300, 2)
    models = [codec.Model(2, 16), codec.Model(2, 16)]
    for model in models:
        model.encode(samples, 0)
        model._fit[:2] = np.nan
    payload = models[0].encode(samples, 10_000)
    assert payload is not None
    assert np.array_equal(models[1].decode(payload, 300), samples)
    assert len(payload) < 1.2 * len(encode_block(samples))


def test_what_a_model_remembers_is_bounded() -> None:
    for channels in (1, 2, 16, 64):
        model = codec.Model(channels, 24)
        before = model.state_bytes
        assert before <= 260_000 + 3_900 * channels
        model.encode(noise(50, channels, 1, 24), 0)
        assert model.state_bytes == before


# --- No bytes whatever give wrong samples ------------------------------------------------------------


def outcome(data: bytes) -> Samples | None:
    try:
        return decode_block(data)
    except CodecError as fault:
        text = str(fault)
    assert "got" in text
    assert "expected" in text
    return None


@settings(deadline=None, max_examples=150)
@given(st.binary(max_size=200))
def test_any_bytes_give_samples_or_an_error(data: bytes) -> None:
    outcome(data)
    decoder = Decoder()
    with pytest.raises(CodecError):
        decoder.decode(data)


@settings(deadline=None, max_examples=150)
@given(
    st.sampled_from([0x10, 0x12, 0x14, 0x16, 0x18, 0x1A, 0x1C]),
    st.integers(1, 64),
    st.integers(1, 300),
    st.binary(max_size=400),
)
def test_any_payload_under_a_good_header_gives_an_error(
    first: int, channels: int, rows: int, payload: bytes
) -> None:
    assert outcome(bytes((first, channels)) + varint(rows) + payload) is None


@pytest.mark.parametrize("name", ["beats", "noise", "scaled in 24 bits", "one sample"])
def test_every_flipped_bit_is_an_error(name: str) -> None:
    samples, width = SIGNALS[name]
    data = encode_block(samples[:90], width)
    for bit in range(8 * len(data)):
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        assert outcome(bytes(broken)) is None, bit


@pytest.mark.parametrize("name", ["beats", "noise"])
def test_every_cut_and_every_appendix_is_an_error(name: str) -> None:
    data = encode_block(SIGNALS[name][0][:60])
    for size in range(len(data)):
        assert outcome(data[:size]) is None
    for more in (b"\0", b"\xff", data):
        assert outcome(data + more) is None


def test_every_flipped_bit_of_a_packet_is_an_error_and_spoils_the_run() -> None:
    samples = beats(60, 1)
    packets = packets_of(samples, [30, 40, 50], 16, 3)
    for bit in range(8 * len(packets[1])):
        broken = bytearray(packets[1])
        broken[bit // 8] ^= 1 << bit % 8
        decoder = Decoder()
        decoder.decode(packets[0])
        with pytest.raises(CodecError):
            decoder.decode(bytes(broken))
        with pytest.raises(LostError):
            decoder.decode(packets[2])
        assert np.array_equal(decoder.decode(packets[3]), samples[50:])


def test_after_a_damaged_packet_not_even_the_whole_one_is_taken() -> None:
    """The model has learnt from what never was."""
    packets = packets_of(beats(30, 1), [10, 20], 16, 3)
    decoder = Decoder()
    decoder.decode(packets[0])
    with pytest.raises(DamagedError, match="checksum"):
        decoder.decode(packets[1][:-1] + bytes((packets[1][-1] ^ 1,)))
    with pytest.raises(LostError, match="expected a key packet"):
        decoder.decode(packets[1])


def lists_of(counts: list[int], coded: bytes, places: bytes = b"") -> bytes:
    """A block of 5 rows of 2 channels, with these lists."""
    part = b"".join(map(varint, counts)) + coded
    return bytes((0x18, 2, 5)) + bytes(4) + varint(len(part)) + part + places


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (lists_of([6, 1], bytes(9)), "got 6 new values in 5 rows"),
        (lists_of([0, 0], b""), "got \\[0, 0\\] values, expected 1 to 4096"),
        (bytes((0x18, 2, 5)) + bytes(4) + b"\0", "got \\[0, 0\\] values"),
        (bytes((0x18, 2, 5)) + bytes(4) + b"\x09\1", "got 1 bytes, expected 9"),
        (bytes((0x18, 2, 5)) + bytes(4), "got 0 bytes of it, expected its end"),
        (bytes((0x18, 2, 5)) + bytes(4) + b"\xff\xff\xff\1", "more than 3 bytes"),
        (bytes((0x1A, 2, 5)) + bytes(24), "expected places in lists"),
        (lists_of([2, 1], codec.Model(1, 18).encode(np.array([[4], [0], [1]], np.int32), 99) or b""), "expected them sorted"),
        (lists_of([1, 1], codec.Model(1, 18).encode(np.array([[40000], [1]], np.int32), 99) or b""), "outside of 16 bits"),
        (lists_of([1, 1], codec.Model(1, 18).encode(np.array([[-40000], [1]], np.int32), 99) or b""), "outside of 16 bits"),
        (lists_of([1, 1], codec.Model(1, 18).encode(np.array([[4], [1]], np.int32), 99) or b"", b"\xff" * 9), "outside of its list"),
    ],
)  # fmt: skip
def test_lists_are_checked(data: bytes, says: str) -> None:
    with pytest.raises(DamagedError, match=says):
        decode_block(data)


def test_rows_are_counted_before_anything_is_taken() -> None:
    for channels, rows in ((64, 1 << 17), (1, (1 << 18) + 1), (0, 5), (65, 5), (255, 1), (4, 0)):
        head = bytes((0x10, channels)) + varint(rows) + bytes(20)
        with pytest.raises(DamagedError, match=f"got {rows} rows of {channels} channels"):
            decode_block(head)
    with pytest.raises(DamagedError, match="expected its end"):
        decode_block(b"\x10\x01" + b"\xff" * 20)
    assert decode_block(encode_block(np.zeros((1 << 18, 1), np.int16))).shape == (1 << 18, 1)


def test_another_version_is_named() -> None:
    data = encode_block(beats(10, 1))
    with pytest.raises(UnknownVersionError, match="got version 2, expected 1"):
        decode_block(bytes((data[0] + 16,)) + data[1:])


# --- Streams with holes ------------------------------------------------------------------------------


def test_a_lost_packet_is_missed_until_the_next_key_packet() -> None:
    samples = beats(120, 2)
    packets = packets_of(samples, list(range(10, 120, 10)), 16, 4)
    decoder = Decoder()
    for number, packet in enumerate(packets):
        if number in {3, 9, 10, 11}:
            with pytest.raises(LostError, match=f"got number {number % 4} of a run, expected"):
                decoder.decode(packet)
        elif number not in {2, 8}:
            assert np.array_equal(decoder.decode(packet), samples[10 * number : 10 * number + 10])


def test_who_comes_late_waits_for_a_key_packet() -> None:
    packets = packets_of(beats(40, 1), [10, 20, 30], 16, 3)
    decoder = Decoder()
    with pytest.raises(LostError, match="expected a key packet"):
        decoder.decode(packets[1])
    assert len(decoder.decode(packets[3])) == 10


def test_a_packet_that_comes_twice_or_late_does_no_harm() -> None:
    samples = beats(40, 1)
    packets = packets_of(samples, [10, 20, 30], 16, 60)
    decoder = Decoder()
    for number, packet in enumerate(packets):
        assert np.array_equal(decoder.decode(packet), samples[10 * number : 10 * number + 10])
        for earlier in packets[1 : number + 1]:
            with pytest.raises(LostError):
                decoder.decode(earlier)


def test_the_same_number_of_another_run_is_not_taken() -> None:
    """Exactly one run's length was lost: the numbers fit, the samples before do not."""
    packets = packets_of(beats(80, 1), list(range(10, 80, 10)), 16, 4)
    decoder = Decoder()
    decoder.decode(packets[0])
    with pytest.raises(DamagedError, match="checksum"):
        decoder.decode(packets[5])
    with pytest.raises(LostError):
        decoder.decode(packets[6])


def test_a_restart_is_a_key_packet() -> None:
    encoder = Encoder(1)
    encoder.encode(beats(10, 1))
    encoder.restart()
    assert len(Decoder().decode(encoder.encode(beats(10, 1)))) == 10


def test_a_block_is_no_packet_in_between() -> None:
    encoder = Encoder(1)
    encoder.encode(beats(10, 1))
    with pytest.raises(LostError, match="expected one that stands alone"):
        decode_block(encoder.encode(beats(10, 1)))


# --- What cannot be encoded --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("samples", "width", "says"),
    [
        (np.array([32768]), 16, "32768, expected what fits in 16 bits"),
        (np.array([-32769]), 16, "-32769"),
        (np.array([1 << 23]), 24, "fits in 24 bits"),
        (np.array([1 << 40]), 24, "fits in 24 bits"),
        (np.array([0.5]), 16, "float64"),
        (np.zeros((1, 65), int), 16, "1 rows of 65"),
        (np.zeros((0, 1), int), 16, "0 rows of 1"),
        (np.zeros((2, 2, 2), int), 16, "3 dimensions"),
        (np.zeros((1 << 18) + 1, int), 16, "262145 rows"),
        (np.array([0]), 12, "got 12 bits"),
    ],
)
def test_what_does_not_fit_is_refused(samples: Samples, width: int, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        encode_block(samples, width)


def test_an_encoder_that_refuses_has_not_changed() -> None:
    samples = beats(30, 2)
    encoder, decoder = Encoder(2), Decoder()
    for part in np.split(samples, 3):
        with pytest.raises(ValueError, match="channels: got 3, expected 2"):
            encoder.encode(np.zeros((5, 3), int))
        with pytest.raises(ValueError, match="fits in 16 bits"):
            encoder.encode(np.full((5, 2), 1 << 20))
        assert np.array_equal(decoder.decode(encoder.encode(part)), part)


@pytest.mark.parametrize(
    ("channels", "width", "key_every"),
    [(0, 16, 1), (65, 16, 1), (1, 8, 1), (1, 16, 0), (1, 16, 257)],
)
def test_an_encoder_says_what_it_takes(channels: int, width: int, key_every: int) -> None:
    with pytest.raises(ValueError, match="expected"):
        Encoder(channels, width, key_every)


def test_signed_and_unsigned_of_any_size_are_taken() -> None:
    for kind in (np.int8, np.uint8, np.int16, np.uint16, np.int64, np.uint64):
        assert decode_block(encode_block(np.array([1, 100, 7], kind)))[:, 0].tolist() == [1, 100, 7]


# --- For ever ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SIGNALS)
def test_blocks_of_version_1_are_read_for_ever(name: str) -> None:
    samples, _ = SIGNALS[name]
    blocks = json.loads(GOLDEN.read_text())
    assert np.array_equal(decode_block(bytes.fromhex(blocks[name])), samples)


def test_packets_of_version_1_are_read_for_ever() -> None:
    decoder = Decoder()
    parts = [
        decoder.decode(bytes.fromhex(packet)) for packet in json.loads(GOLDEN.read_text())["stream"]
    ]
    assert np.array_equal(np.concatenate(parts), beats(400, 2))


def test_the_start_of_version_1_never_changes() -> None:
    start = codec_start.trained()
    arrays = (start.weights, start.spread, start.slots, start.mixers, codec_start.tables())
    assert [zlib.crc32(array.tobytes()) for array in arrays] == json.loads(GOLDEN.read_text())[
        "start"
    ]


def test_the_tables_are_what_the_document_says() -> None:
    tables = codec_start.tables()
    odds = np.arange(-kernels.SQUASH_HALF, kernels.SQUASH_HALF + 1) / 256
    squash = tables[4096 : kernels.RATE_AT]
    assert np.abs(squash - 65536 / (1 + np.exp(-odds))).max() <= 0.51
    middles = (np.arange(4096) + 0.5) / 4096
    stretch = np.clip(256 * np.log(middles / (1 - middles)), -2047, 2047)
    assert np.abs(tables[:4096] - stretch).max() <= 17, "coarse where the odds are long"
    assert np.abs(tables[400:3696] - stretch[400:3696]).max() <= 1.1
    assert (np.diff(squash) >= 0).all()

"""Lossless waveform codec: blocks that stand alone, and packets of a stream. docs/waveform-codec.md is the format.

`encode_block` and `decode_block` are for what is stored and forwarded: each block is read without any other. `Encoder`
and `Decoder` are for a live stream: what was learnt goes on from packet to packet, and each key packet starts anew.

Decoding takes any bytes and gives the samples that were encoded, or a `CodecError`; it never gives others. A checksum
over header, payload and samples, and in a stream over all packets since the key packet, sees to it.
"""

import zlib
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from gateway.signal.codec_errors import (
    CodecError,
    DamagedError,
    LostError,
    UnknownVersionError,
    varint,
    varint_of,
)
from gateway.signal.codec_lists import ListedModel, Tally
from gateway.signal.codec_model import Model, Samples

__all__ = [
    "CodecError",
    "DamagedError",
    "Decoder",
    "Encoder",
    "LostError",
    "Model",
    "Samples",
    "UnknownVersionError",
    "block_shape",
    "decode_block",
    "encode_block",
]

VERSION: Final = 1
CHANNELS_MOST: Final = 64
SAMPLES_MOST: Final = 1 << 18
"""Samples of a block, all channels together: bounds what a decoder may take, 1 MiB and a tenth of a second."""
KEY_EVERY_MOST: Final = 256
WIDTHS: Final = (16, 24)
TALLIED: Final = 16
"""So many packets of a run tell whether the next one gets lists."""

FOLLOWS, PLAIN, WIDE, SAME, LISTED = 1, 2, 4, 8, 8
"""The low half of a block's first byte: goes on from the packet before; samples as they are; 24 bits instead of 16; with
FOLLOWS: as many rows as the packet before; without: this run has lists of values. The high half is the version."""
CHECKSUM_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Header:
    """What a block says of itself. `second` is the number of channels, or that of a packet in its run."""

    flags: int
    second: int
    rows: int
    size_bytes: int


def encode_block(samples: ArrayLike, width: int = 16) -> bytes:
    """Encodes a block that is decoded without any other.

    Args:
        samples: rows of one sample a channel, integers; one dimension is one channel.
        width: 16 or 24: how many bits the samples have, sign included.

    Raises:
        ValueError: a sample does not fit the width, or there are too many samples or channels.
    """
    rows = _checked(samples, width)
    channels = rows.shape[1]
    tally = Tally(channels)
    tally.add(rows)
    models: list[Model | ListedModel] = [Model(channels, width)]
    if tally.worth():
        models.append(ListedModel(channels, width))
    packets = [_packet(model, rows, 0, _flags(model), 0)[0] for model in models]
    return min(filter(None, packets), key=len)


def decode_block(data: bytes) -> Samples:
    """Returns the samples of a block, one row for each instant.

    Raises:
        CodecError: these bytes are no block as `encode_block` makes them.
    """
    header = _header(data)
    if header.flags & FOLLOWS:
        raise LostError(
            f"block: got packet {header.second} of a run, expected one that stands alone"
        )
    return _decode(_key_model(header), data, header, 0)[0]


def block_shape(data: bytes) -> tuple[int, int]:
    """How many channels and rows a block says that it has. Raises CodecError where it says none; nothing is decoded."""
    header = _header(data)
    return header.second, header.rows


class Encoder:
    """Encodes the packets of a stream, one after the other.

    Every packet must reach the decoder in this order. One that does not is missed there, and what follows it can be
    decoded from the next key packet on.
    """

    def __init__(self, channels: int, width: int = 16, key_every: int = 60) -> None:
        """Takes the number of channels, the width in bits, and after how many packets a key packet comes."""
        if not 1 <= channels <= CHANNELS_MOST:
            raise ValueError(f"channels: got {channels}, expected 1 to {CHANNELS_MOST}")
        if width not in WIDTHS:
            raise ValueError(f"width: got {width} bits, expected 16 or 24")
        if not 1 <= key_every <= KEY_EVERY_MOST:
            raise ValueError(f"key_every: got {key_every}, expected 1 to {KEY_EVERY_MOST} packets")
        self._channels = channels
        self._width = width
        self._key_every = key_every
        self._model: Model | ListedModel = Model(channels, width)
        self._tally = Tally(channels)
        self._next = 0
        self._rows = 0
        self._checksum = 0

    def restart(self) -> None:
        """Makes the next packet a key packet: after a gap in the samples, or when the decoder asks for it."""
        self._next = 0

    def encode(self, samples: ArrayLike) -> bytes:
        """Returns the next packet. Raises ValueError as `encode_block` does, and has then not changed."""
        rows = _checked(samples, self._width)
        if rows.shape[1] != self._channels:
            raise ValueError(f"channels: got {rows.shape[1]}, expected {self._channels}")
        number, data = self._next, b""
        if number < TALLIED:
            self._tally.add(rows)
        if number != 0:
            data = self._try(rows, number, SAME if len(rows) == self._rows else 0)
        if not data:
            # Of the run that ends here, and of this packet, is known what values there are.
            number, worth = 0, self._tally.worth() and self._next == 0
            self._tally = Tally(self._channels)
            for kind in (ListedModel, Model) if worth else (Model,):
                self._model = kind(self._channels, self._width)
                self._checksum = 0
                if data := self._try(rows, 0, 0):
                    break
        self._rows = len(rows)
        self._next = (number + 1) % self._key_every
        return data

    def _try(self, rows: Samples, number: int, same: int) -> bytes:
        """The packet, or nothing where its lists do not suit these samples."""
        flags = _flags(self._model) & ~LISTED | FOLLOWS | same if number else _flags(self._model)
        data, self._checksum = _packet(self._model, rows, number, flags, self._checksum)
        return data


class Decoder:
    """Decodes the packets of a stream.

    A packet that goes on from one that was lost or damaged is a `LostError`, never samples, until the next key packet.
    A packet that comes twice or too late is a `LostError` as well, and does no harm.
    """

    def __init__(self) -> None:
        self._model: Model | ListedModel | None = None
        self._next = 0
        self._rows = 0
        self._checksum = 0

    def decode(self, data: bytes) -> Samples:
        """Returns the samples of the next packet, one row for each instant, or raises `CodecError`."""
        header = _header(data, self._rows)
        if not header.flags & FOLLOWS:
            model, checksum, number = _key_model(header), 0, 0
        else:
            if self._model is None:
                raise LostError(
                    f"packet: got number {header.second} of a run, expected a key packet"
                )
            if header.second != self._next:
                raise LostError(
                    f"packet: got number {header.second} of a run, expected {self._next}"
                )
            model, checksum, number = self._model, self._checksum, self._next
            if header.flags & WIDE != _flags(model) & WIDE:
                raise DamagedError(
                    f"packet: got flags {header.flags:#x}, expected {model.width} bits"
                )
            _bounded(header.rows, model.channels)
        self._model = None  # of what fails half-way nothing may be used
        samples, self._checksum = _decode(model, data, header, checksum)
        self._model, self._next, self._rows = model, number + 1, header.rows
        return samples


def _flags(model: Model | ListedModel) -> int:
    """What a key packet of this model says."""
    wide = WIDE if model.width == 24 else 0
    return wide | LISTED if isinstance(model, ListedModel) else wide


def _checked(samples: ArrayLike, width: int) -> Samples:
    """The samples as rows, if they can be encoded."""
    if width not in WIDTHS:
        raise ValueError(f"width: got {width} bits, expected 16 or 24")
    array = np.asarray(samples)
    if array.ndim == 1:
        array = array[:, None]
    if array.ndim != 2 or array.dtype.kind not in "iu":
        raise ValueError(
            f"samples: got {array.ndim} dimensions of {array.dtype}, expected rows of integers"
        )
    rows, channels = array.shape
    if not (1 <= channels <= CHANNELS_MOST and 1 <= rows * channels <= SAMPLES_MOST):
        raise ValueError(
            f"samples: got {rows} rows of {channels}, expected 1 to {CHANNELS_MOST} channels "
            f"and at most {SAMPLES_MOST} samples"
        )
    reach = 1 << (width - 1)
    if not (-reach <= array.min() and array.max() < reach):
        raise ValueError(
            f"samples: got {array.min()} to {array.max()}, expected what fits in {width} bits"
        )
    return np.ascontiguousarray(array, np.int32)


def _packet(
    model: Model | ListedModel, rows: Samples, number: int, flags: int, checksum: int
) -> tuple[bytes, int]:
    """A packet and its checksum; empty where it would be no smaller than plain, and lists forbid that it be plain."""
    plain = _plain(rows, model.width)
    payload = model.encode(rows, len(plain) - 1)
    if payload is None:
        if isinstance(model, ListedModel):
            return b"", 0
        payload = plain
        flags |= PLAIN
    count = b"" if flags & FOLLOWS and flags & SAME else varint(len(rows))
    head = bytes((VERSION << 4 | flags, number or model.channels)) + count
    checksum = _chained(checksum, head, payload, rows)
    return head + checksum.to_bytes(CHECKSUM_BYTES, "little") + payload, checksum


def _decode(
    model: Model | ListedModel, data: bytes, header: Header, checksum: int
) -> tuple[Samples, int]:
    start = header.size_bytes + CHECKSUM_BYTES
    payload = data[start:]
    if not header.flags & PLAIN:
        samples = model.decode(payload, header.rows)
    elif isinstance(model, ListedModel):
        raise DamagedError(f"block: got flags {header.flags:#x}, expected places in lists")
    else:
        samples = _unplain(payload, header.rows, model)
        model.encode(samples, 0)
    got = _chained(checksum, data[: header.size_bytes], payload, samples)
    expected = int.from_bytes(data[header.size_bytes : start], "little")
    if got != expected:
        raise DamagedError(f"block: got checksum {got:#010x}, expected {expected:#010x}")
    return samples, got


def _chained(checksum: int, head: bytes, payload: bytes, samples: Samples) -> int:
    """CRC-32 (ISO 3309, as in zlib) over header, payload and samples, from the checksum of the packet before."""
    little = samples.astype("<i4", copy=False)
    return zlib.crc32(little.tobytes(), zlib.crc32(payload, zlib.crc32(head, checksum)))


def _plain(samples: Samples, width: int) -> bytes:
    little = samples.astype("<i4").view(np.uint8).reshape(-1, 4)
    return little[:, : width // 8].tobytes()


def _unplain(payload: bytes, rows: int, model: Model) -> Samples:
    size_bytes = model.width // 8
    expected = rows * model.channels * size_bytes
    if len(payload) != expected:
        raise DamagedError(f"block: got {len(payload)} bytes of samples, expected {expected}")
    high = np.zeros((rows * model.channels, 4), np.uint8)
    high[:, 4 - size_bytes :] = np.frombuffer(payload, np.uint8).reshape(-1, size_bytes)
    return (high.view("<i4").astype(np.int32) >> (32 - model.width)).reshape(rows, model.channels)


def _header(data: bytes, rows_before: int = 0) -> Header:
    if len(data) < 2 + CHECKSUM_BYTES:
        raise DamagedError(f"block: got {len(data)} bytes, expected at least {2 + CHECKSUM_BYTES}")
    version, flags = data[0] >> 4, data[0] & 0x0F
    if version != VERSION:
        raise UnknownVersionError(f"block: got version {version}, expected {VERSION}")
    rows, at = (rows_before, 2) if flags & FOLLOWS and flags & SAME else varint_of(data, 2)
    if at + CHECKSUM_BYTES > len(data):
        raise DamagedError(f"block: got {len(data)} bytes, expected at least {at + CHECKSUM_BYTES}")
    return Header(flags, data[1], rows, at)


def _key_model(header: Header) -> Model | ListedModel:
    _bounded(header.rows, header.second)
    kind = ListedModel if header.flags & LISTED else Model
    return kind(header.second, 24 if header.flags & WIDE else 16)


def _bounded(rows: int, channels: int) -> None:
    if not (1 <= channels <= CHANNELS_MOST and 1 <= rows * channels <= SAMPLES_MOST):
        raise DamagedError(
            f"block: got {rows} rows of {channels} channels, expected at most {CHANNELS_MOST} "
            f"channels and {SAMPLES_MOST} samples"
        )

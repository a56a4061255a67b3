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
from numpy.typing import ArrayLike, NDArray

from gateway.signal import codec_kernels as kernels
from gateway.signal import codec_start

Samples = NDArray[np.int32]

VERSION: Final = 1
CHANNELS_MOST: Final = 64
SAMPLES_MOST: Final = 1 << 18
"""Samples of a block, all channels together: bounds what a decoder may take, 1 MiB and a tenth of a second."""
KEY_EVERY_MOST: Final = 256
WIDTHS: Final = (16, 24)

FOLLOWS, PLAIN, WIDE, SAME = 1, 2, 4, 8
"""The low half of a block's first byte: goes on from the packet before; samples as they are; 24 bits instead of 16; as
many rows as the packet before. The high half is the version."""
CHECKSUM_BYTES: Final = 4


class CodecError(ValueError):
    """These bytes are no block that can be decoded. Says what, got and expected."""


class DamagedError(CodecError):
    """Bytes are missing, superfluous or wrong."""


class LostError(CodecError):
    """The packet goes on from one that was not decoded. Decoding resumes at the next key packet."""


class UnknownVersionError(CodecError):
    """The block is of a format that this program does not know."""


@dataclass(frozen=True, slots=True)
class Header:
    """What a block says of itself. `second` is the number of channels, or that of a packet in its run."""

    flags: int
    second: int
    rows: int
    size_bytes: int


class Model:
    """What encoder and decoder know of a run: 0.2 MB for the tables and 3.6 kB a channel. It never grows."""

    def __init__(self, channels: int, width: int, start: codec_start.Start | None = None) -> None:
        self.channels = channels
        self.width = width
        start = start or codec_start.trained()
        self._slots = start.slots.copy()
        self._net = np.concatenate((codec_start.tables(), start.mixers.reshape(-1)))
        kinds = [0] if channels == 1 else [1] + [2] * (channels - 1)
        rows = [*kinds, *range(kernels.KINDS)]  # the channels', and after them the starts
        self._fit = np.zeros((len(rows), kernels.FIT, kernels.TAPS))
        self._fit[:, : kernels.TAPS] = start.spread[rows]
        self._fit[:, kernels.WEIGHT] = start.weights[rows]
        self._stats = np.zeros((channels, kernels.STATS))
        self._stats[:, : kernels.V_SLOW + 1] = kernels.VARIANCE_START
        self._at = np.zeros(kernels.PLACES, np.int64)
        self._tail = np.zeros((kernels.HISTORY, channels), np.int32)

    @property
    def state_bytes(self) -> int:
        """What is remembered from one packet to the next."""
        arrays = (self._slots, self._net, self._fit, self._stats, self._at, self._tail)
        return sum(array.nbytes for array in arrays)

    def encode(self, samples: Samples, limit_bytes: int) -> bytes | None:
        """Returns the payload, or None where it would take more than the limit. Learns from the samples in any case."""
        out = np.empty(limit_bytes, np.uint8)
        size = self._run(samples, out, decode=0)
        low, high = int(self._at[kernels.LOW]), int(self._at[kernels.HIGH])
        # The fewest bytes that lie in the interval when zeros follow them.
        more = next(n for n in range(5) if high >> (32 - 8 * n) << (32 - 8 * n) >= low)
        tail = high.to_bytes(4, "big")[:more]
        return out[:size].tobytes() + tail if size + len(tail) <= limit_bytes else None

    def decode(self, payload: bytes, rows: int) -> Samples:
        """Returns the samples of a payload; of any other bytes, any samples."""
        data = np.frombuffer(bytearray(payload), np.uint8)
        samples = np.zeros((rows, self.channels), np.int32)
        self._run(samples, data, decode=1)
        return samples

    def _run(self, samples: Samples, data: NDArray[np.uint8], decode: int) -> int:
        buffer = np.concatenate((self._tail, samples))
        end = kernels.codec_run(
            decode,
            self.width,
            buffer,
            self._fit,
            self._stats,
            self._at,
            self._slots,
            self._net,
            data,
        )
        samples[:] = buffer[kernels.HISTORY :]
        self._tail = buffer[-kernels.HISTORY :].copy()
        return end


def encode_block(samples: ArrayLike, width: int = 16) -> bytes:
    """Encodes a block that is decoded without any other.

    Args:
        samples: rows of one sample a channel, integers; one dimension is one channel.
        width: 16 or 24: how many bits the samples have, sign included.

    Raises:
        ValueError: a sample does not fit the width, or there are too many samples or channels.
    """
    rows = _checked(samples, width)
    return _encode(Model(rows.shape[1], width), rows, rows.shape[1], _flags(width), 0)[0]


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
        self._model = Model(channels, width)
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
        number, flags = self._next, _flags(self._width)
        if number == 0:
            self._model = Model(self._channels, self._width)
            self._checksum = 0
            second = self._channels
        else:
            flags |= FOLLOWS | (SAME if len(rows) == self._rows else 0)
            second = number
        data, self._checksum = _encode(self._model, rows, second, flags, self._checksum)
        self._rows = len(rows)
        self._next = (number + 1) % self._key_every
        return data


class Decoder:
    """Decodes the packets of a stream.

    A packet that goes on from one that was lost or damaged is a `LostError`, never samples, until the next key packet.
    A packet that comes twice or too late is a `LostError` as well, and does no harm.
    """

    def __init__(self) -> None:
        self._model: Model | None = None
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
            if header.flags & WIDE != _flags(model.width):
                raise DamagedError(
                    f"packet: got flags {header.flags:#x}, expected {model.width} bits"
                )
            _bounded(header.rows, model.channels)
        self._model = None  # of what fails half-way nothing may be used
        samples, self._checksum = _decode(model, data, header, checksum)
        self._model, self._next, self._rows = model, number + 1, header.rows
        return samples


def _flags(width: int) -> int:
    return WIDE if width == 24 else 0


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


def _encode(
    model: Model, rows: Samples, second: int, flags: int, checksum: int
) -> tuple[bytes, int]:
    plain = _plain(rows, model.width)
    payload = model.encode(rows, len(plain) - 1)
    if payload is None:
        payload = plain
        flags |= PLAIN
    count = b"" if flags & SAME else _varint(len(rows))
    head = bytes((VERSION << 4 | flags, second)) + count
    checksum = _chained(checksum, head, payload, rows)
    return head + checksum.to_bytes(CHECKSUM_BYTES, "little") + payload, checksum


def _decode(model: Model, data: bytes, header: Header, checksum: int) -> tuple[Samples, int]:
    start = header.size_bytes + CHECKSUM_BYTES
    payload = data[start:]
    if header.flags & PLAIN:
        samples = _unplain(payload, header.rows, model)
        model.encode(samples, 0)
    else:
        samples = model.decode(payload, header.rows)
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


def _varint(value: int) -> bytes:
    """LEB128: seven bits a byte, the lowest first, the highest bit set where another byte follows."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _header(data: bytes, rows_before: int = 0) -> Header:
    if len(data) < 2 + CHECKSUM_BYTES:
        raise DamagedError(f"block: got {len(data)} bytes, expected at least {2 + CHECKSUM_BYTES}")
    version, flags = data[0] >> 4, data[0] & 0x0F
    if version != VERSION:
        raise UnknownVersionError(f"block: got version {version}, expected {VERSION}")
    if flags & SAME:
        if not flags & FOLLOWS:
            raise DamagedError(f"block: got flags {flags:#x}, expected a number of rows")
        return Header(flags, data[1], rows_before, 2)
    rows, at = 0, 2
    while True:
        if at == len(data) or at == 5:
            raise DamagedError(f"block: got {at - 2} bytes of a number of rows, expected its end")
        rows |= (data[at] & 0x7F) << 7 * (at - 2)
        at += 1
        if data[at - 1] < 0x80:
            break
    if at + CHECKSUM_BYTES > len(data):
        raise DamagedError(f"block: got {len(data)} bytes, expected at least {at + CHECKSUM_BYTES}")
    return Header(flags, data[1], rows, at)


def _key_model(header: Header) -> Model:
    _bounded(header.rows, header.second)
    return Model(header.second, 24 if header.flags & WIDE else 16)


def _bounded(rows: int, channels: int) -> None:
    if not (1 <= channels <= CHANNELS_MOST and 1 <= rows * channels <= SAMPLES_MOST):
        raise DamagedError(
            f"block: got {rows} rows of {channels} channels, expected at most {CHANNELS_MOST} "
            f"channels and {SAMPLES_MOST} samples"
        )

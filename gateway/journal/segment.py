"""Segment files: headers, frames (formats 1 and 2), keys. Bytes in, values out; no I/O. See docs/journal-format.md.

Two things guard a frame. Its checksums find accidents without any key, so the end of a log is found even by a
process that cannot read it. Its AEAD tag finds everything else: a flip, a swap, a splice.
"""

import hashlib
import struct
import zlib
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag

from gateway.clock import ClockReading, ClockState
from gateway.journal.algorithms import AEADS, ALGORITHMS, KEY_BYTES, Aead, keyless_checksum
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.readers import Opener, Reader

VERSION = 1
FRAME_VERSION = 2
"""Frames of format 1 are read as well: they differ in their checksum."""
BLOCK_BYTES = 4096
TAG_BYTES = 16

_STREAMS = {Stream.ALARM: 1, Stream.VITALS: 2, Stream.WAVEFORM: 3, Stream.AUDIT: 4}
_STREAM_OF = {number: stream for stream, number in _STREAMS.items()}
_CLOCK_STATES = (ClockState.UNSET, ClockState.RESTORED, ClockState.SYNCHRONISED)

_CLOCK = "QqqB"
_SEGMENT = struct.Struct("<8s4B16sQQI4s16s36s" + _CLOCK + "B")
_SEGMENT_MAGIC = b"WLSEGMT1"
_RECIPIENT = struct.Struct("<B32sH")
_FRAME = struct.Struct("<4s4B16sQIQII16s36s" + _CLOCK + "I")
_FRAME_MAGIC = b"WLF1"
_CRC = struct.Struct("<I")
FRAME_HEADER_BYTES = _FRAME.size + _CRC.size
FRAME_OVERHEAD = FRAME_HEADER_BYTES + TAG_BYTES
FRAME_BYTES = 65_536
"""Most plaintext in a frame. A frame is a batch, and a batch must fit into one message of 96 KiB."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """A reader of a segment: whose public key, which HPKE suite, the data key wrapped for it."""

    suite: int
    id: bytes
    wrapped: bytes


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says about itself. All of it but the recipients is associated data of each of its frames.

    Attributes:
        epoch: 16 bytes.
        first_sequence: the sequence number that its first frame begins with.
        nonce_field: 4 random bytes, the fixed part of every nonce.
        previous_tag: the tag of the stream's last frame before this segment; zeros when there is none.
    """

    hub: str
    stream: Stream
    epoch: bytes
    number: int
    first_sequence: int
    segment_bytes: int
    algorithm: int
    nonce_field: bytes
    previous_tag: bytes
    boot_id: str
    clock: ClockReading

    def core(self) -> bytes:
        """The header without its recipients, so that a key can be wrapped anew without touching a frame."""
        hub = self.hub.encode()
        fixed = _SEGMENT.pack(
            _SEGMENT_MAGIC,
            VERSION,
            self.algorithm,
            _STREAMS[self.stream],
            0,
            self.epoch,
            self.number,
            self.first_sequence,
            self.segment_bytes,
            self.nonce_field,
            self.previous_tag,
            self.boot_id.encode(),
            *_pack_clock(self.clock),
            len(hub),
        )
        return fixed + hub


@dataclass(slots=True)
class FrameHeader:
    """What a frame says about itself, in the clear.

    Attributes:
        block: where it lies in its segment, in blocks of 4 KiB: its number, and the counter of its nonce.
        length: bytes of the plaintext.
        previous_tag: the tag of the stream's frame before it.
        checksum: of the ciphertext, the tag and the padding, see `body_checksum`.
        version: its format.
    """

    stream: Stream
    algorithm: int
    epoch: bytes
    segment: int
    block: int
    first_sequence: int
    count: int
    length: int
    previous_tag: bytes
    boot_id: str
    clock: ClockReading
    checksum: int = 0
    version: int = FRAME_VERSION

    @property
    def last_sequence(self) -> int:
        """The sequence number of its last record."""
        return self.first_sequence + self.count - 1

    @property
    def offset(self) -> int:
        """Where it begins, in bytes."""
        return self.block * BLOCK_BYTES

    @property
    def size(self) -> int:
        """Bytes on disk, whole blocks."""
        return frame_size(self.length)

    def pack(self) -> bytes:
        """The header without checksums: the frame's own associated data."""
        return _FRAME.pack(
            _FRAME_MAGIC,
            self.version,
            self.algorithm,
            _STREAMS[self.stream],
            0,
            self.epoch,
            self.segment,
            self.block,
            self.first_sequence,
            self.count,
            self.length,
            self.previous_tag,
            self.boot_id.encode(),
            *_pack_clock(self.clock),
            self.checksum,
        )


def frame_size(length: int) -> int:
    """Bytes on disk of a frame with `length` bytes of plaintext."""
    return -(-(FRAME_OVERHEAD + length) // BLOCK_BYTES) * BLOCK_BYTES


def _pack_clock(clock: ClockReading) -> tuple[int, int, int, int]:
    error_ns = -1 if clock.error_ns is None else clock.error_ns
    return clock.boottime_ns, clock.wall_ns, error_ns, _CLOCK_STATES.index(clock.state)


def _clock(boottime_ns: int, wall_ns: int, error_ns: int, state: int) -> ClockReading:
    known = None if error_ns < 0 else error_ns
    return ClockReading(boottime_ns, wall_ns, _CLOCK_STATES[state], known)


def _text(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode()


def pack_header(header: SegmentHeader, recipients: tuple[Recipient, ...]) -> bytes:
    """The block that stands first and, as a copy, last in a segment."""
    return pack_body(header_body(header, recipients))


def header_body(header: SegmentHeader, recipients: tuple[Recipient, ...]) -> bytes:
    """A segment header without padding and checksum."""
    body = header.core() + bytes([len(recipients)])
    for recipient in recipients:
        body += _RECIPIENT.pack(recipient.suite, recipient.id, len(recipient.wrapped))
        body += recipient.wrapped
    return body


def pack_body(body: bytes) -> bytes:
    """The block of a segment header's body."""
    room = BLOCK_BYTES - _CRC.size
    if len(body) > room:
        raise JournalError(f"segment header: got {len(body)} bytes, expected at most {room}")
    body = body.ljust(room, b"\0")
    return body + _CRC.pack(zlib.crc32(body))


def parse_header(block: bytes) -> tuple[SegmentHeader, tuple[Recipient, ...]] | None:
    """The header in a block, or None when no whole one stands there."""
    body = block[: -_CRC.size]
    if len(block) != BLOCK_BYTES or _CRC.unpack(block[-_CRC.size :]) != (zlib.crc32(body),):
        return None
    try:
        fields = _SEGMENT.unpack_from(body)
        (magic, version, algorithm, stream, _, epoch, number, first, size, nonce, tag, boot) = (
            fields[:12]
        )
        if magic != _SEGMENT_MAGIC or version != VERSION or algorithm not in ALGORITHMS:
            return None
        at = _SEGMENT.size + fields[16]
        header = SegmentHeader(
            hub=body[_SEGMENT.size : at].decode(),
            stream=_STREAM_OF[stream],
            epoch=epoch,
            number=number,
            first_sequence=first,
            segment_bytes=size,
            algorithm=algorithm,
            nonce_field=nonce,
            previous_tag=tag,
            boot_id=_text(boot),
            clock=_clock(*fields[12:16]),
        )
        recipients, end = _recipients(body, at)
    except (struct.error, LookupError, ValueError):
        return None
    # Bits that mean nothing today must be as written: what is associated data is packed anew.
    canonical = header.core() == body[:at] and body == body[:end].ljust(len(body), b"\0")
    return (header, recipients) if canonical else None


def _recipients(body: bytes, at: int) -> tuple[tuple[Recipient, ...], int]:
    """The list, and where it ends."""
    recipients = []
    count, at = body[at], at + 1
    for _ in range(count):
        suite, identity, length = _RECIPIENT.unpack_from(body, at)
        at += _RECIPIENT.size
        if length == 0:
            raise ValueError("a recipient without a key")
        recipients.append(Recipient(suite, identity, body[at : at + length]))
        at += length
    return tuple(recipients), at


def parse_frame(block: bytes) -> FrameHeader | None:
    """The frame header at the start of a block, or None when no whole one stands there."""
    packed, crc = block[: _FRAME.size], block[_FRAME.size : FRAME_HEADER_BYTES]
    if not packed.startswith(_FRAME_MAGIC) or crc != _CRC.pack(zlib.crc32(packed)):
        return None
    fields = _FRAME.unpack(packed)
    (_, version, algorithm, stream, _, epoch, segment, number, first, count, length, tag, boot) = (
        fields[:13]
    )
    if not VERSION <= version <= FRAME_VERSION or algorithm not in ALGORITHMS or count == 0:
        return None
    try:
        header = FrameHeader(
            stream=_STREAM_OF[stream],
            algorithm=algorithm,
            epoch=epoch,
            segment=segment,
            block=number,
            first_sequence=first,
            count=count,
            length=length,
            previous_tag=tag,
            boot_id=_text(boot),
            clock=_clock(*fields[13:17]),
            checksum=fields[17],
            version=version,
        )
    except (LookupError, ValueError):
        return None
    return header if header.pack() == packed else None


def body_is_whole(header: FrameHeader, frame: bytes) -> bool:
    """Whether the bytes after a frame's header are those that were written."""
    body = memoryview(frame)[FRAME_HEADER_BYTES:]
    return (
        len(frame) == header.size
        and body_checksum(header.version, header.algorithm, body) == header.checksum
    )


def body_checksum(version: int, algorithm: int, body: bytes | memoryview) -> int:
    """What finds an accident in all that follows a frame's header: CRC-32, from format 2 on a part of a keyless tag."""
    if version == VERSION:
        return zlib.crc32(body)
    return keyless_checksum(algorithm, body)


@dataclass(slots=True)
class Cipher:
    """A segment's data key at work. The segment header is part of what every tag vouches for."""

    header: SegmentHeader
    data_key: bytes = field(repr=False)
    _aead: Aead = field(init=False, repr=False, compare=False)
    _core: bytes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._aead = AEADS[self.header.algorithm](self.data_key)
        self._core = self.header.core()

    def _nonce(self, header: FrameHeader) -> bytes:
        return self.header.nonce_field + header.block.to_bytes(8, "big")

    def _associated(self, header: FrameHeader) -> bytes:
        """Without the checksum, which is made from the ciphertext."""
        return self._core + header.pack()[: -_CRC.size]

    def seal(self, header: FrameHeader, plaintext: bytes, frame: memoryview | bytearray) -> None:
        """Fills a whole frame, and the checksum in its header. Once for each block of a segment: it is the nonce.

        Args:
            frame: `header.size` bytes, of any former content.
        """
        packed = header.pack()[: -_CRC.size]
        end = FRAME_OVERHEAD + header.length
        with memoryview(frame)[FRAME_HEADER_BYTES:] as body:
            sealed = body[: len(plaintext) + TAG_BYTES]
            self._aead.encrypt_into(self._nonce(header), plaintext, self._core + packed, sealed)
            body[len(sealed) :] = bytes(header.size - end)
            header.checksum = body_checksum(header.version, header.algorithm, body)
        packed += _CRC.pack(header.checksum)
        frame[:FRAME_HEADER_BYTES] = packed + _CRC.pack(zlib.crc32(packed))

    def open(self, header: FrameHeader, frame: bytes) -> bytes:
        """The plaintext. Raises JournalError unless every bit of the frame is as it was written."""
        body = unpadded(header, frame)[FRAME_HEADER_BYTES:]
        try:
            return self._aead.decrypt(self._nonce(header), body, self._associated(header))
        except InvalidTag as error:
            raise JournalError("authentication") from error


def unpadded(header: FrameHeader, frame: bytes) -> bytes:
    """A frame as far as it says anything. Raises JournalError when an accident befell it."""
    end = FRAME_OVERHEAD + header.length
    if not body_is_whole(header, frame):
        raise JournalError("checksum")
    if frame[end:] != bytes(len(frame) - end):
        raise JournalError("padding")
    return frame[:end]


def frame_tag(header: FrameHeader, frame: bytes | bytearray | memoryview) -> bytes:
    """The tag of a frame, which the next frame carries on."""
    end = FRAME_OVERHEAD + header.length
    return bytes(frame[end - TAG_BYTES : end])


def wrap_for(cipher: Cipher, readers: tuple[Reader, ...]) -> tuple[Recipient, ...]:
    """A segment's data key, wrapped for each reader. It opens for that segment only."""
    info = _info(cipher.header)
    return tuple(
        Recipient(reader.suite, reader.id, reader.wrap(cipher.data_key, info)) for reader in readers
    )


def open_cipher(block: bytes, key: Opener) -> Cipher:
    """The cipher of an existing segment. Raises JournalError when this key cannot open it."""
    parsed = parse_header(block)
    if parsed is None:
        raise JournalError("header")
    return unwrap_cipher(*parsed, key)


def unwrap_cipher(header: SegmentHeader, recipients: tuple[Recipient, ...], key: Opener) -> Cipher:
    """As `open_cipher`, from a header that was parsed."""
    for recipient in recipients:
        if is_for(recipient, key.reader):
            data_key = key.unwrap(recipient.wrapped, _info(header))
            if len(data_key) == KEY_BYTES:
                return Cipher(header, data_key)
    raise JournalError("no key")


def key_statement(cipher: Cipher) -> bytes:
    """What a hub signs about a segment: that it chose this data key for it. Tells nothing about the key."""
    commitment = hashlib.sha256(b"wardlink data key\0" + cipher.data_key).digest()
    return b"wardlink segment\0" + cipher.header.core() + commitment


def is_for(recipient: Recipient, reader: Reader) -> bool:
    """Whether a wrapped key is meant for a reader."""
    return (recipient.suite, recipient.id) == (reader.suite, reader.id)


def _info(header: SegmentHeader) -> bytes:
    return b"wardlink journal segment key\0" + header.core()

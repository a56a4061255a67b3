"""The `sealed` payload: frames of the journal as they lie on the disk, which the clinic alone can open.

Each message stands for itself: the header of a segment, with the wrapped data key, then a frame of it, or several that
follow each other. The header costs about 1.5 kB a message, and no order of arrival, no lost message and no restart can
leave a frame without its key. Every bit of it is bound: the headers are associated data of the frame, and the wrapped
key opens for them alone. A frame that does not open costs none of its neighbours.
"""

import hashlib
import struct
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.journal.batches import decode
from gateway.journal.blocks import SampleReader
from gateway.journal.entry import Batch, SealedBatch, Stream
from gateway.journal.errors import JournalError
from gateway.journal.readers import SIGNATURE, Opener
from gateway.journal.segment import (
    FRAME_HEADER_BYTES,
    FRAME_OVERHEAD,
    Cipher,
    FrameHeader,
    Recipient,
    SegmentHeader,
    frame_tag,
    header_body,
    is_for,
    key_statement,
    pack_body,
    parse_frame,
    parse_header,
    unwrap_cipher,
)
from gateway.uplink.fields import PayloadError
from gateway.uplink.payload import FrameTags, Message
from gateway.uplink.signature import SEALED, SEALED_RUN
from gateway.uplink.slices import MAX_PAYLOAD_BYTES, Slice

_HEAD = struct.Struct("<8sH")
CIPHERS = 64
"""Segments whose key the receiver keeps at hand: the open ones of sixteen hubs."""
FRAMES_MOST = 256
"""In one message: of samples in blocks, so no more than 16 MiB come out of it."""


class NoKeyError(Exception):
    """Sealed for another clinic, or there is no clinic's key here. The message is as it should be."""


class DamagedError(Exception):
    """Its sender says so, but it does not open: it was changed before it was sent. What it held is lost.

    Attributes:
        batch: what it says about itself.
    """

    def __init__(self, batch: SealedBatch, reason: str) -> None:
        super().__init__(f"frame: got one that fails ({reason}), expected one that opens")
        self.batch = batch


Part = Message | DamagedError


def is_sealed(payload: bytes) -> bool:
    """Whether a payload is of this kind; no other one begins like it."""
    return payload.startswith((SEALED, SEALED_RUN))


# --- Writing -----------------------------------------------------------------------------------------


def sealed_slices(
    batches: Sequence[SealedBatch], span: tuple[int, int], limit_bytes: int
) -> Iterator[Slice]:
    """Frames that follow each other without a hole, in messages of at most `limit_bytes`; one larger frame goes alone.

    A frame cannot be cut: what of the first and the last one lies outside of `span` comes along, and is dropped there as
    a repeat.
    """
    first, last = span
    rest = [batch for batch in batches if batch.first_sequence <= last]
    while rest:
        held = rest[: _together(rest, limit_bytes)]
        rest = rest[len(held) :]
        begin, end = max(held[0].first_sequence, first), min(held[-1].last_sequence, last)
        header = held[0].header
        head = _HEAD.pack(SEALED if len(held) == 1 else SEALED_RUN, len(header)) + header
        yield Slice(begin, end - begin + 1, head + b"".join(batch.frame for batch in held))


def _together(batches: Sequence[SealedBatch], limit_bytes: int) -> int:
    """How many of them share the first one's message: those of its segment that fit."""
    header, segment = batches[0].header, _segment_of(batches[0])
    size = _HEAD.size + len(header) + len(batches[0].frame)
    count = 1
    for batch in batches[1:FRAMES_MOST]:
        size += len(batch.frame)
        # Changed since its segment was looked through, a frame goes alone: it would take its neighbours with it.
        if size > limit_bytes or batch.header != header or segment is None:
            break
        if _segment_of(batch) != segment:
            break
        count += 1
    return count


def _segment_of(batch: SealedBatch) -> tuple[Stream, bytes, int, int] | None:
    """Of which segment a frame says that it is; None where it does not say what it was found to say."""
    said = parse_frame(batch.frame)
    if (
        said is None
        or (said.first_sequence, said.last_sequence) != batch.span
        or len(batch.frame) != FRAME_OVERHEAD + said.length
    ):
        return None
    return said.stream, said.epoch, said.segment, said.algorithm


# --- Reading -----------------------------------------------------------------------------------------


class Unsealer:
    """Opens sealed messages with the clinic's key. Without one it can only say whose they are."""

    def __init__(self, key: Opener | None, codec: SampleReader | None = None) -> None:
        """Without a codec it does not read waveforms whose samples are in blocks."""
        self._key = key
        self._codec = codec
        self._ciphers: OrderedDict[bytes, Cipher] = OrderedDict()

    def open(self, payload: bytes, hub_key: Ed25519PublicKey) -> tuple[Part, ...]:
        """What the hub with this verify key says: of each frame its message, or why it has none.

        A DamagedError stands for a frame that is for this clinic, and does not open, or was not sealed by that hub.

        Raises:
            PayloadError: these are not the bytes of a sealed message.
            NoKeyError: it is for somebody else, or its hub sealed it with another identity.
        """
        header, recipients, frames = _parse(payload)
        if self._key is None:
            raise NoKeyError("clinic key: got none, expected one; set receiver.clinic_key_file")
        if not any(is_for(recipient, self._key.reader) for recipient in recipients):
            raise NoKeyError(
                "clinic key: got one that this is not sealed for, expected that of the hub's"
                " clinic_key_file"
            )
        name = hashlib.sha256(hub_key.public_bytes_raw()).digest()
        signatures = [r for r in recipients if r.suite == SIGNATURE]
        if [r.id for r in signatures] not in ([], [name]):
            raise NoKeyError("verify key: got another than it was sealed under, expected the same")
        try:
            cipher = self._cipher(frames[0][1].header, header, recipients, self._key)
            self._check_signature(cipher, signatures, hub_key)
        except JournalError as error:
            return tuple(DamagedError(batch, str(error)) for _, batch in frames)
        return tuple(self._part(cipher, frame_header, batch) for frame_header, batch in frames)

    def _part(self, cipher: Cipher, frame_header: FrameHeader, batch: SealedBatch) -> Part:
        try:
            padded = batch.frame.ljust(frame_header.size, b"\0")
            entries = decode(cipher.open(frame_header, padded), frame_header, self._codec)
        except JournalError as error:
            return DamagedError(batch, str(error))
        opened = Batch(batch.hub, batch.stream, batch.epoch, batch.boot_id, batch.clock, entries)
        tags = FrameTags(frame_header.previous_tag, frame_tag(frame_header, batch.frame))
        return Message(opened, batch.last_sequence, tags)

    @staticmethod
    def _check_signature(
        cipher: Cipher, signatures: list[Recipient], hub_key: Ed25519PublicKey
    ) -> None:
        """The clinic's public key is no secret: only the hub's signature says that the hub chose this data key."""
        if not signatures:
            raise JournalError("no signature")
        try:
            hub_key.verify(signatures[0].wrapped, key_statement(cipher))
        except InvalidSignature as error:
            raise JournalError("signature") from error

    def _cipher(
        self, body: bytes, header: SegmentHeader, recipients: tuple[Recipient, ...], key: Opener
    ) -> Cipher:
        cipher = self._ciphers.pop(body, None) or unwrap_cipher(header, recipients, key)
        self._ciphers[body] = cipher
        if len(self._ciphers) > CIPHERS:
            self._ciphers.popitem(last=False)
        return cipher


_Frames = list[tuple[FrameHeader, SealedBatch]]


def _parse(payload: bytes) -> tuple[SegmentHeader, tuple[Recipient, ...], _Frames]:
    """The parts of a sealed message, which agree with each other. Nothing is proved yet."""
    if len(payload) < _HEAD.size or not is_sealed(payload):
        raise PayloadError("message", f"{len(payload)} bytes", f"a sealed frame ({SEALED!r})")
    end = _HEAD.size + _HEAD.unpack_from(payload)[1]
    body = payload[_HEAD.size : end]
    try:
        parsed = parse_header(pack_body(body))
    except JournalError as error:
        raise PayloadError("message.segment", f"{len(body)} bytes", "a segment header") from error
    # A header of the same meaning in other bytes would be no repeat to whoever compares bytes.
    if parsed is None or header_body(*parsed) != body:
        raise PayloadError("message.segment", f"{len(body)} bytes", "a segment header")
    header, recipients = parsed
    if payload.startswith(SEALED):
        return header, recipients, [_frame(header, body, payload[end:])]
    return header, recipients, _run(header, body, payload, end)


def _run(header: SegmentHeader, body: bytes, payload: bytes, at: int) -> _Frames:
    """Two frames or more that lie one behind the other, and have numbers without a hole."""
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise PayloadError("message", f"{len(payload)} bytes", f"at most {MAX_PAYLOAD_BYTES}")
    frames: _Frames = []
    while at < len(payload):
        said = parse_frame(payload[at : at + FRAME_HEADER_BYTES])
        end = len(payload) if said is None else at + FRAME_OVERHEAD + said.length
        frames.append(_frame(header, body, payload[at:end]))
        if len(frames) > FRAMES_MOST:
            raise PayloadError("message.frames", "more", f"at most {FRAMES_MOST}")
        at = end
    if len(frames) < 2:
        raise PayloadError("message.frames", str(len(frames)), "2 or more")
    expected = frames[0][1].first_sequence
    for _, batch in frames:
        if batch.first_sequence != expected:
            got = f"one from {batch.first_sequence}"
            raise PayloadError("message.frames", got, f"{expected}, without a hole")
        expected = batch.last_sequence + 1
    return frames


def _frame(header: SegmentHeader, body: bytes, frame: bytes) -> tuple[FrameHeader, SealedBatch]:
    """One whole frame of its segment."""
    frame_header = parse_frame(frame)
    if frame_header is None or len(frame) != FRAME_OVERHEAD + frame_header.length:
        raise PayloadError("message.frame", f"{len(frame)} bytes", "a whole frame")
    says = frame_header.stream, frame_header.epoch, frame_header.segment, frame_header.algorithm
    if says != (header.stream, header.epoch, header.number, header.algorithm):
        raise PayloadError("message.frame", "one of another segment", "one of its segment")
    if frame_header.first_sequence < header.first_sequence:
        raise PayloadError(
            "message.frame", str(frame_header.first_sequence), f"{header.first_sequence} or more"
        )
    return frame_header, SealedBatch(
        header.hub,
        header.stream,
        header.epoch.hex(),
        frame_header.boot_id,
        frame_header.clock,
        entries=(),
        span=(frame_header.first_sequence, frame_header.last_sequence),
        header=body,
        frame=frame,
    )

"""The `sealed` payload: a frame of the journal as it lies on the disk, which the clinic alone can open.

Each message stands for itself: the header of its segment, with the wrapped data key, then the frame. That costs
about 1.5 kB a message, and no order of arrival, no lost message and no restart can leave a frame without its key.
Every bit of it is bound: the headers are associated data of the frame, and the wrapped key opens for them alone.
"""

import hashlib
import struct
from collections import OrderedDict

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.journal.batches import decode
from gateway.journal.blocks import SampleReader
from gateway.journal.entry import Batch, SealedBatch
from gateway.journal.errors import JournalError
from gateway.journal.readers import SIGNATURE, Opener
from gateway.journal.segment import (
    FRAME_HEADER_BYTES,
    TAG_BYTES,
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
from gateway.uplink.signature import SEALED
from gateway.uplink.slices import Slice

_HEAD = struct.Struct("<8sH")
CIPHERS = 64
"""Segments whose key the receiver keeps at hand: the open ones of sixteen hubs."""


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


def is_sealed(payload: bytes) -> bool:
    """Whether a payload is of this kind; no other one begins like it."""
    return payload.startswith(SEALED)


def sealed_slice(batch: SealedBatch, after: int) -> Slice:
    """A batch as one message. A frame cannot be cut: what of it was delivered before comes again."""
    first = max(batch.first_sequence, after + 1)
    payload = _HEAD.pack(SEALED, len(batch.header)) + batch.header + batch.frame
    return Slice(first, batch.last_sequence - first + 1, payload)


class Unsealer:
    """Opens sealed messages with the clinic's key. Without one it can only say whose they are."""

    def __init__(self, key: Opener | None, codec: SampleReader | None = None) -> None:
        """Without a codec it does not read waveforms whose samples are in blocks."""
        self._key = key
        self._codec = codec
        self._ciphers: OrderedDict[bytes, Cipher] = OrderedDict()

    def open(self, payload: bytes, hub_key: Ed25519PublicKey) -> Message:
        """The message of the hub with this verify key.

        Raises:
            PayloadError: these are not the bytes of a sealed message.
            NoKeyError: it is for somebody else, or its hub sealed it with another identity.
            DamagedError: it is for this clinic, and does not open, or was not sealed by that hub.
        """
        header, recipients, frame_header, batch = _parse(payload)
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
            cipher = self._cipher(batch.header, header, recipients, self._key)
            self._check_signature(cipher, signatures, hub_key)
            padded = batch.frame.ljust(frame_header.size, b"\0")
            entries = decode(cipher.open(frame_header, padded), frame_header, self._codec)
        except JournalError as error:
            raise DamagedError(batch, str(error)) from error
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


def _parse(
    payload: bytes,
) -> tuple[SegmentHeader, tuple[Recipient, ...], FrameHeader, SealedBatch]:
    """The parts of a sealed message, which agree with each other. Nothing is proved yet."""
    if len(payload) < _HEAD.size or not is_sealed(payload):
        raise PayloadError("message", f"{len(payload)} bytes", f"a sealed frame ({SEALED!r})")
    end = _HEAD.size + _HEAD.unpack_from(payload)[1]
    body, frame = payload[_HEAD.size : end], payload[end:]
    try:
        parsed = parse_header(pack_body(body))
    except JournalError as error:
        raise PayloadError("message.segment", f"{len(body)} bytes", "a segment header") from error
    # A header of the same meaning in other bytes would be no repeat to whoever compares bytes.
    if parsed is None or header_body(*parsed) != body:
        raise PayloadError("message.segment", f"{len(body)} bytes", "a segment header")
    header, recipients = parsed
    frame_header = parse_frame(frame)
    if frame_header is None or len(frame) != FRAME_HEADER_BYTES + frame_header.length + TAG_BYTES:
        raise PayloadError("message.frame", f"{len(frame)} bytes", "a whole frame")
    says = frame_header.stream, frame_header.epoch, frame_header.segment, frame_header.algorithm
    if says != (header.stream, header.epoch, header.number, header.algorithm):
        raise PayloadError("message.frame", "one of another segment", "one of its segment")
    if frame_header.first_sequence < header.first_sequence:
        raise PayloadError(
            "message.frame", str(frame_header.first_sequence), f"{header.first_sequence} or more"
        )
    batch = SealedBatch(
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
    return header, recipients, frame_header, batch

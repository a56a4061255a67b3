"""Sealed messages: every bit counts, and nothing but what one hub sealed in one place ever opens."""

import base64
import struct
from collections.abc import Iterator
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.journal.access import Access, recipients
from gateway.journal.entry import SealedBatch, Stream
from gateway.journal.keys import HubKey
from gateway.journal.readers import ClinicKey
from gateway.journal.segment import (
    BLOCK_BYTES,
    FRAME_HEADER_BYTES,
    header_body,
    pack_body,
    parse_frame,
    parse_header,
    unwrap_cipher,
)
from gateway.uplink.fields import PayloadError
from gateway.uplink.sealed import DamagedError, NoKeyError, Unsealer, is_sealed
from gateway.uplink.signature import SEALED as SEALED_FIRST
from gateway.uplink.signature import Doubt, VerifyKeys
from gateway.uplink.slices import MAX_PAYLOAD_BYTES
from tests.gateway.journal.builders import KEY, MAKERS, SEGMENT, forge_frame, records, vital, wave
from tests.gateway.journal.simulated_disk import SimulatedDisk
from tests.gateway.journal.test_sealed import CLINIC, SEALED, VERIFY, fill, open_for
from tests.gateway.uplink.bench import open_one, said, sealed_slice

REFUSED = (PayloadError, NoKeyError, DamagedError)
HEAD = struct.Struct("<8sH")


def sealed_batches(stream: Stream = Stream.VITALS, count: int = 3) -> Iterator[SealedBatch]:
    journal = open_for(SimulatedDisk())
    fill(journal, 1, count)
    after = 0
    while batch := journal.read(stream, after):
        assert isinstance(batch, SealedBatch)
        yield batch
        after = batch.last_sequence


def message(header: bytes, frame: bytes) -> bytes:
    return HEAD.pack(b"WLSEALD2", len(header)) + header + frame


def forged(payload: bytes) -> bytes:
    """The same with its checksums made right, as far as it still has parts."""
    end = HEAD.size + HEAD.unpack_from(payload)[1]
    frame = bytearray(payload[end:])
    if len(frame) < FRAME_HEADER_BYTES:
        return payload
    size = -(-len(frame) // BLOCK_BYTES) * BLOCK_BYTES
    padded = frame.ljust(size, b"\0")
    forge_frame(padded)
    return payload[:end] + bytes(padded[: len(frame)])


def test_a_message_is_the_batch_again() -> None:
    for stream in Stream:
        for number, batch in enumerate(sealed_batches(stream), start=1):
            piece = sealed_slice(batch, 0)
            assert (piece.first, piece.count) == (number, 1)
            assert is_sealed(piece.payload)
            opened = open_one(Unsealer(CLINIC), piece.payload, VERIFY).batch
            assert records(list(opened.entries)) == {number: MAKERS[stream](number)}
            assert (opened.hub, opened.stream, opened.epoch) == ("hub-1", stream, batch.epoch)
            assert (opened.clock, opened.boot_id) == (batch.clock, "boot-1")


def test_a_part_that_was_delivered_before_comes_again() -> None:
    journal = open_for(SimulatedDisk())
    for number in range(1, 6):
        journal.append("hr", vital(number))
    journal.commit()
    batch = journal.read(Stream.VITALS, 2)
    assert isinstance(batch, SealedBatch)
    piece = sealed_slice(batch, 2)
    assert (piece.first, piece.last) == (3, 5)
    assert len(open_one(Unsealer(CLINIC), piece.payload, VERIFY).batch.entries) == 5


def test_the_largest_frame_fits_into_a_message() -> None:
    journal = open_for(SimulatedDisk())
    for number in range(60):
        journal.append("ecg", wave(number))
    journal.commit()
    batch = journal.read(Stream.WAVEFORM, 0)
    assert isinstance(batch, SealedBatch)
    payload = sealed_slice(batch, 0).payload
    assert len(batch.frame) > SEGMENT / 2
    assert len(payload) - len(batch.frame) < 1600
    assert MAX_PAYLOAD_BYTES > 65_536 + 1600 + 200


def test_every_bit_of_a_sealed_message_is_found_by_the_signature() -> None:
    payload = sealed_slice(next(sealed_batches()), 0).payload
    keys = VerifyKeys({"hub-1": base64.b64encode(KEY.verify_key).decode()})
    topic = "wardlink/1/ward/hub-1/vitals"
    good = said(topic, payload, KEY)
    assert keys.opened("hub-1", good) == payload
    for bit in range(len(good.payload) * 8):
        changed = bytearray(good.payload)
        changed[bit // 8] ^= 1 << bit % 8
        came = keys.opened("hub-1", replace(good, payload=bytes(changed)))
        begins_otherwise = bit < 8 * len(SEALED_FIRST)
        assert came is (Doubt.NO_SIGNATURE if begins_otherwise else Doubt.BAD_SIGNATURE), bit


@pytest.mark.parametrize("mend", [False, True])
def test_every_bit_is_found_even_when_the_hub_signs_the_change(*, mend: bool) -> None:
    """The disk was changed before the hub sent it, and its checksums may be made right."""
    payload = sealed_slice(next(sealed_batches()), 0).payload
    unsealer = Unsealer(CLINIC)
    open_one(unsealer, payload, VERIFY)
    header_end = HEAD.size + HEAD.unpack_from(payload)[1]
    # Up to the frame there is no checksum to be made right.
    for bit in range(0 if mend else header_end * 8, len(payload) * 8):
        changed = bytearray(payload)
        changed[bit // 8] ^= 1 << bit % 8
        sent = forged(bytes(changed)) if mend else bytes(changed)
        if sent == payload:
            continue  # the flip was in a checksum, which was made right again
        with pytest.raises(REFUSED):
            open_one(unsealer, sent, VERIFY)


def test_a_message_cut_or_lengthened_anywhere_is_refused() -> None:
    payload = sealed_slice(next(sealed_batches()), 0).payload
    for end in range(0, len(payload), 7):
        with pytest.raises(REFUSED):
            open_one(Unsealer(CLINIC), payload[:end], VERIFY)
    batch = next(sealed_batches())
    for longer in (
        message(batch.header + b"\0", batch.frame),
        message(batch.header, batch.frame + b"\0"),
    ):
        with pytest.raises(PayloadError):
            open_one(Unsealer(CLINIC), longer, VERIFY)


def test_a_frame_under_the_header_of_another_stream_or_journal_does_not_open() -> None:
    mine = next(sealed_batches())
    others = [
        next(sealed_batches(Stream.WAVEFORM)),
        next(sealed_batches()),
        *sealed_batches(count=2),
    ]
    for other in others:
        for header, frame in ((mine.header, other.frame), (other.header, mine.frame)):
            if header != (mine.header if frame is mine.frame else other.header):
                with pytest.raises(REFUSED):
                    open_one(Unsealer(CLINIC), forged(message(header, frame)), VERIFY)


def test_a_frame_relabelled_as_the_one_after_it_does_not_open() -> None:
    first, second, _ = sealed_batches()
    assert first.header == second.header
    swapped = first.frame[:FRAME_HEADER_BYTES] + second.frame[FRAME_HEADER_BYTES:]
    with pytest.raises(DamagedError, match="authentication"):
        open_one(Unsealer(CLINIC), forged(message(first.header, swapped)), VERIFY)


def test_what_somebody_else_sealed_under_the_hubs_name_is_refused() -> None:
    """The clinic's public key is no secret: a segment of a forger's own is whole in every other way."""
    batch = next(sealed_batches())
    parsed = parse_header(pack_body(batch.header))
    assert parsed
    header, known = parsed
    forger = HubKey.generate()
    cipher, _ = Access(forger, SEALED).new_segment(header, bytes)
    frame_header = parse_frame(batch.frame)
    assert frame_header
    genuine = unwrap_cipher(header, known, CLINIC)
    plaintext = genuine.open(frame_header, batch.frame.ljust(frame_header.size, b"\0"))
    sealed = bytearray(frame_header.size)
    cipher.seal(frame_header, plaintext, sealed)
    frame = bytes(sealed[: len(batch.frame)])
    unsigned = tuple(r for r in recipients(cipher, forger, SEALED) if r.suite)
    [signature] = [r for r in known if not r.suite]
    for signed, reason in [
        (recipients(cipher, forger, SEALED), NoKeyError),
        (unsigned, DamagedError),
        ((*unsigned, signature), DamagedError),  # the hub's word for another data key
        ((*unsigned, signature, signature), NoKeyError),
    ]:
        with pytest.raises(reason):
            open_one(Unsealer(CLINIC), message(header_body(header, signed), frame), VERIFY)
    theirs = Ed25519PublicKey.from_public_bytes(forger.verify_key)
    body = header_body(header, recipients(cipher, forger, SEALED))
    open_one(Unsealer(CLINIC), message(body, frame), theirs)


def test_who_has_no_key_or_another_one_is_told_so() -> None:
    payload = sealed_slice(next(sealed_batches()), 0).payload
    with pytest.raises(NoKeyError, match="clinic_key_file"):
        open_one(Unsealer(None), payload, VERIFY)
    with pytest.raises(NoKeyError, match="not sealed for"):
        open_one(Unsealer(ClinicKey.generate()), payload, VERIFY)


def test_the_keys_at_hand_are_bounded() -> None:
    unsealer = Unsealer(CLINIC)
    payloads = [sealed_slice(next(sealed_batches(count=1)), 0).payload for _ in range(70)]
    for payload in payloads:
        open_one(unsealer, payload, VERIFY)
    assert len(unsealer._ciphers) == 64
    open_one(unsealer, payloads[0], VERIFY)


@pytest.mark.parametrize(
    "junk", [b"", b"WLSEALD2", b"WLSEALD2\xff\xff", b"WLSEALD2\0\0" + bytes(200)]
)
def test_junk_is_malformed(junk: bytes) -> None:
    with pytest.raises(PayloadError):
        open_one(Unsealer(CLINIC), junk, VERIFY)

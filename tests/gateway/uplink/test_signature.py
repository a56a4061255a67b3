"""Who said it: everything that is not exactly what the named sender signed is doubted, and why."""

import base64
import json
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.uplink.signature import (
    FORMS,
    PACKED,
    SEALED,
    SEALED_RUN,
    TAIL_BYTES,
    Doubt,
    VerifyKeys,
    signed,
)
from gateway.uplink.wire import Incoming
from tests.gateway.uplink.bench import KEY, PUBLIC, said

TOPIC = "wardlink/1/ward/hub-1/vitals"
PAYLOADS = {
    "json": b'{"a":1}',
    "packed": PACKED + b"\x03\x04",
    "sealed": SEALED + b"\x01\x02",
    "sealed, several frames": SEALED_RUN + b"\x01\x02",
}
OF_EACH_FORM = pytest.mark.parametrize("payload", PAYLOADS.values(), ids=list(PAYLOADS))
KEYS = VerifyKeys({"hub-1": PUBLIC})


@OF_EACH_FORM
def test_what_the_sender_signed_is_not_doubted(payload: bytes) -> None:
    message = said(TOPIC, payload)
    assert KEYS.opened("hub-1", message) == payload
    assert 0 < len(message.payload) - len(payload) <= TAIL_BYTES
    assert [form.length for form in FORMS] == [104, 64, 64, 64]  # as docs/messages.md says


def test_a_reader_that_knows_nothing_of_it_sees_one_member_more() -> None:
    message = json.loads(said(TOPIC, PAYLOADS["json"]).payload)
    assert list(message) == ["a", "signature"]
    assert base64.b64decode(message["signature"]) == KEY.sign(
        TOPIC.encode() + b"\0" + PAYLOADS["json"]
    )


@OF_EACH_FORM
def test_a_signature_fits_one_sender_one_topic_and_one_payload(payload: bytes) -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    keys = VerifyKeys({"hub-1": PUBLIC, "hub-2": base64.b64encode(other).decode()})
    message = said(TOPIC, payload)
    assert keys.opened("nobody", message) is Doubt.UNKNOWN
    assert keys.opened("hub-2", message) is Doubt.BAD_SIGNATURE
    assert keys.opened("hub-1", replace(message, topic=TOPIC + "x")) is Doubt.BAD_SIGNATURE
    assert keys.opened("hub-1", replace(message, topic="")) is Doubt.BAD_SIGNATURE


@pytest.mark.parametrize("payload", [PAYLOADS["json"], PAYLOADS["packed"], b"", b"x", b"{}"])
def test_what_has_no_signature_is_told_so(payload: bytes) -> None:
    message = Incoming(1, TOPIC, payload, retain=False)
    assert KEYS.opened("hub-1", message) is Doubt.NO_SIGNATURE


@OF_EACH_FORM
def test_every_bit_counts_and_a_signature_has_one_spelling(payload: bytes) -> None:
    message = said(TOPIC, payload)
    for bit in range(len(message.payload) * 8):
        changed = bytearray(message.payload)
        changed[bit // 8] ^= 1 << bit % 8
        assert isinstance(KEYS.opened("hub-1", replace(message, payload=bytes(changed))), Doubt)


def test_base64_that_means_the_same_bytes_is_another_signature() -> None:
    message = said(TOPIC, PAYLOADS["json"])
    assert message.payload.endswith(b'=="}')
    digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    last = digits.index(message.payload[-5])
    for unused in range(1, 16):
        twin = message.payload[:-5] + digits[last + unused : last + unused + 1] + b'=="}'
        assert KEYS.opened("hub-1", replace(message, payload=twin)) is Doubt.BAD_SIGNATURE


@OF_EACH_FORM
def test_the_border_between_topic_and_payload_cannot_be_moved(payload: bytes) -> None:
    """A payload that begins with the end of another topic is none of the known forms."""
    good = said(TOPIC, payload)
    moved = replace(good, topic=TOPIC[:-1], payload=TOPIC[-1:].encode() + b"\0" + good.payload)
    assert isinstance(KEYS.opened("hub-1", moved), Doubt)


@settings(max_examples=300)
@given(st.sampled_from([b"", *PAYLOADS.values()]), st.binary(max_size=120), st.text(max_size=10))
@example(b"", b"{" + b'"}' * 60, "")
@example(b"", b"\xff" * 120, "")
def test_no_other_bytes_are_believed_or_raise(first: bytes, rest: bytes, topic: str) -> None:
    message = Incoming(1, topic, first + rest, retain=False)
    assert isinstance(KEYS.opened("hub-1", message), Doubt)


@pytest.mark.parametrize(
    "payload", [b"", b"1", b"[]", b"{", b"\xbf", PACKED[:-1], SEALED[:-1], SEALED_RUN[:-1]]
)
def test_what_has_no_known_form_cannot_be_signed(payload: bytes) -> None:
    with pytest.raises(ValueError, match="expected JSON, packed batches or sealed frames"):
        signed(TOPIC, payload, KEY.sign)


@pytest.mark.parametrize("key", ["", "?", "AAAA", PUBLIC + "AAAA", "é"])
def test_a_wrong_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=r"verify key of hub-9: .*expected base64 of 32 bytes"):
        VerifyKeys({"hub-1": PUBLIC, "hub-9": key})

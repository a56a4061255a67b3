"""Who said it: everything that is not exactly what the named sender signed is doubted, and why."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.uplink.signature import Doubt, VerifyKeys
from gateway.uplink.wire import Incoming, signed_bytes
from tests.gateway.uplink.bench import KEY, PUBLIC

TOPIC, PAYLOAD = "wardlink/1/ward/hub-1/vitals", b"{}"
GOOD = base64.b64encode(KEY.sign(signed_bytes(TOPIC, PAYLOAD))).decode()


def message(signature: str | None = GOOD, topic: str = TOPIC, payload: bytes = PAYLOAD) -> Incoming:
    return Incoming(1, topic, payload, retain=False, signature=signature)


def test_what_the_sender_signed_is_not_doubted() -> None:
    assert VerifyKeys({"hub-1": PUBLIC}).doubt("hub-1", message()) is None


def test_a_signature_fits_one_sender_one_topic_and_one_payload() -> None:
    other = Ed25519PrivateKey.from_private_bytes(bytes(32)).public_key().public_bytes_raw()
    keys = VerifyKeys({"hub-1": PUBLIC, "hub-2": base64.b64encode(other).decode()})
    assert keys.doubt("nobody", message()) is Doubt.UNKNOWN
    assert keys.doubt("hub-2", message()) is Doubt.BAD_SIGNATURE
    assert keys.doubt("hub-1", message(topic=TOPIC + "x")) is Doubt.BAD_SIGNATURE
    assert keys.doubt("hub-1", message(payload=b"{ }")) is Doubt.BAD_SIGNATURE
    assert keys.doubt("hub-1", message(signature=None)) is Doubt.NO_SIGNATURE


def test_the_border_between_topic_and_payload_cannot_be_moved() -> None:
    moved = message(topic=TOPIC[:-1], payload=TOPIC[-1:].encode() + b"\0" + PAYLOAD)
    assert VerifyKeys({"hub-1": PUBLIC}).doubt("hub-1", moved) is Doubt.BAD_SIGNATURE


@settings(max_examples=200)
@given(st.text())
def test_no_text_for_a_signature_is_believed_or_raises(text: str) -> None:
    assert VerifyKeys({"hub-1": PUBLIC}).doubt("hub-1", message(text)) is Doubt.BAD_SIGNATURE


@pytest.mark.parametrize("key", ["", "?", "AAAA", PUBLIC + "AAAA", "é"])
def test_a_wrong_key_is_named(key: str) -> None:
    with pytest.raises(ValueError, match=r"verify key of hub-9: .*expected base64 of 32 bytes"):
        VerifyKeys({"hub-1": PUBLIC, "hub-9": key})

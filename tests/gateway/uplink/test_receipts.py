"""What may give a journal free: only a receipt for it, signed by a receiver that was configured."""

from dataclasses import replace

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from gateway.journal.entry import Stream
from gateway.uplink.receipt import Held, Receipt
from gateway.uplink.receipts import Receipts
from gateway.uplink.signature import VerifyKeys
from gateway.uplink.wire import Incoming
from tests.gateway.uplink.bench import EPOCH, HUB, KEY, PUBLIC, said

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
GOOD = Receipt(HUB.id, "r-1", EPOCH, {Stream.VITALS: Held(7)})


def receipts() -> Receipts:
    return Receipts(HUB, EPOCH, VerifyKeys({"r-1": PUBLIC, "r-2": PUBLIC}))


def message(
    receipt: Receipt = GOOD,
    key: Ed25519PrivateKey = KEY,
    payload: bytes | None = None,
    topic: str | None = None,
) -> Incoming:
    topic = topic or Receipt.topic(HUB.tenant, HUB.id, receipt.receiver)
    payload = receipt.encode() if payload is None else payload
    return said(topic, payload, key)


def test_a_receipt_for_this_journal_is_read() -> None:
    assert receipts().read(message()) == GOOD
    assert Receipts.filter(HUB) == "wardlink/1/ward/hub-1/receipt/+"


@pytest.mark.parametrize(
    "wrong",
    [
        message(key=STRANGER),
        replace(message(), payload=GOOD.encode()),
        replace(message(), payload=message().payload.replace(b'"high":7', b'"high":8')),
        message(replace(GOOD, receiver="nobody")),
        message(replace(GOOD, hub="hub-2")),
        message(replace(GOOD, epoch="e0")),
        message(topic=Receipt.topic(HUB.tenant, HUB.id, "r-2")),
        message(payload=b"{\xff}"),
        message(payload=b'{"a":' + b"[" * 100_000 + b"}"),
    ],
    ids=[
        "forged",
        "unsigned",
        "changed",
        "unknown receiver",
        "other hub",
        "other epoch",
        "in another's name",
        "no text",
        "deep",
    ],
)
def test_anything_else_is_not(wrong: Incoming) -> None:
    assert receipts().read(wrong) is None

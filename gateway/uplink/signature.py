"""Who said it: an Ed25519 signature over the topic and the payload, which stands in the payload as its last part.

So it travels through every broker and every version of MQTT, and a stored message proves itself. Signed is the topic, a
zero byte and the payload as it is without the signature: a payload cannot be moved to another topic. A form knows the
exact bytes of its tail, so nothing is parsed before it is known who sent it.
"""

import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.uplink.wire import Incoming

SEALED = b"WLSEALD2"
"""How a sealed message of one frame begins."""
SEALED_RUN = b"WLSEALS1"
"""How one of several frames begins."""
PACKED = b"WLBATCH1"
"""How a packed message, payload `cbor`, begins."""
SIGNATURE_BYTES = 64
TAIL_BYTES = 112
"""A signature makes no payload longer by more than this."""


class Doubt(StrEnum):
    """Why a message cannot be trusted."""

    UNKNOWN = "unknown"
    """Nobody configured a key for its sender."""
    NO_SIGNATURE = "no_signature"
    BAD_SIGNATURE = "bad_signature"


@dataclass(frozen=True, slots=True)
class Form:
    """How one kind of payload carries its signature: `close` gives way to `before`, the signature and `after`."""

    first: bytes
    close: bytes
    before: bytes
    after: bytes
    is_text: bool

    @property
    def length(self) -> int:
        """Of the tail."""
        signature = 4 * -(-SIGNATURE_BYTES // 3) if self.is_text else SIGNATURE_BYTES
        return len(self.before) + signature + len(self.after)


FORMS = (
    Form(b"{", b"}", b',"signature":"', b'"}', is_text=True),
    Form(PACKED, b"", b"", b"", is_text=False),
    Form(SEALED, b"", b"", b"", is_text=False),
    Form(SEALED_RUN, b"", b"", b"", is_text=False),
)


def signed(topic: str, payload: bytes, sign: Callable[[bytes], bytes]) -> bytes:
    """The payload with its signature. Raises ValueError for one of no known form."""
    for form in FORMS:
        if payload.startswith(form.first) and payload.endswith(form.close):
            signature = sign(_statement(topic, payload))
            shown = base64.b64encode(signature) if form.is_text else signature
            return payload[: len(payload) - len(form.close)] + form.before + shown + form.after
    raise ValueError(
        f"payload: got {payload[:8]!r}..., expected JSON, packed batches or sealed frames"
    )


def _statement(topic: str, payload: bytes) -> bytes:
    return topic.encode() + b"\0" + payload


def unsigned(data: bytes) -> bytes | None:
    """A payload without its signature, of which nothing is checked; None where it has none."""
    parts = _parts(data)
    return None if parts is None else parts[0]


def _parts(data: bytes) -> tuple[bytes, bytes] | None:
    """The payload as it was signed, and the signature; None where there is none."""
    for form in FORMS:
        tail = data[-form.length :]
        if (
            data.startswith(form.first)
            and len(data) >= len(form.first) + form.length
            and tail.startswith(form.before)
            and tail.endswith(form.after)
        ):
            shown = tail[len(form.before) : form.length - len(form.after)]
            return data[: -form.length] + form.close, _raw(shown) if form.is_text else shown
    return None


def _raw(shown: bytes) -> bytes:
    """Of base64. One signature has one spelling: any other is none, and empty."""
    try:
        raw = base64.b64decode(shown, validate=True)
    except binascii.Error:
        return b""
    return raw if base64.b64encode(raw) == shown else b""


class VerifyKeys:
    """The keys of those who may speak, by name."""

    def __init__(self, keys: Mapping[str, str]) -> None:
        """Takes base64 of 32 bytes for each name. Raises ValueError that says which one is wrong."""
        self._keys = {}
        for name, text in keys.items():
            try:
                raw = base64.b64decode(text, validate=True)
                self._keys[name] = Ed25519PublicKey.from_public_bytes(raw)
            except (binascii.Error, ValueError) as error:
                raise ValueError(
                    f"verify key of {name}: {error}; expected base64 of 32 bytes"
                ) from None

    def of(self, name: str) -> Ed25519PublicKey:
        """The key of somebody who may speak. Raises KeyError for anybody else."""
        return self._keys[name]

    def opened(self, name: str, message: Incoming) -> bytes | Doubt:
        """What `name` said, without its signature; or why this is not from `name`. Total: any bytes give either."""
        key = self._keys.get(name)
        if key is None:
            return Doubt.UNKNOWN
        parts = _parts(message.payload)
        if parts is None:
            return Doubt.NO_SIGNATURE
        payload, signature = parts
        try:
            key.verify(signature, _statement(message.topic, payload))
        except InvalidSignature:
            return Doubt.BAD_SIGNATURE
        return payload

"""Who said it: Ed25519 signatures over topic and payload, checked against configured keys."""

import base64
import binascii
from collections.abc import Mapping
from enum import StrEnum

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.uplink.wire import Incoming, signed_bytes


class Doubt(StrEnum):
    """Why a message cannot be trusted."""

    UNKNOWN = "unknown"
    """Nobody configured a key for its sender."""
    NO_SIGNATURE = "no_signature"
    BAD_SIGNATURE = "bad_signature"


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

    def doubt(self, name: str, message: Incoming) -> Doubt | None:
        """Why this message is not from `name`; None when it is."""
        key = self._keys.get(name)
        if key is None:
            return Doubt.UNKNOWN
        if message.signature is None:
            return Doubt.NO_SIGNATURE
        try:
            signature = base64.b64decode(message.signature, validate=True)
            key.verify(signature, signed_bytes(message.topic, message.payload))
        except (InvalidSignature, binascii.Error, ValueError):
            return Doubt.BAD_SIGNATURE
        return None

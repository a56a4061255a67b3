"""Whom a segment's data key is wrapped for: public keys by HPKE suite, and the clinic's key pair.

The hub's own key is X25519, made and used on one disk. What is wrapped for the clinic must stay closed for as long as
a stolen card lasts, so that suite is a hybrid: it holds as long as either X25519 or ML-KEM-768 does.
"""

import base64
import binascii
import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import (
    AEAD,
    KDF,
    KEM,
    MLKEM768X25519PrivateKey,
    MLKEM768X25519PublicKey,
    Suite,
)

from gateway.journal import keyfile
from gateway.journal.errors import JournalError

SIGNATURE, X25519, MLKEM768_X25519 = 0, 1, 2
"""Suite numbers in a segment header. 0 is no reader: it is the hub, which signs for what it wrapped."""
_SUITES = {
    X25519: Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305),
    MLKEM768_X25519: Suite(KEM.MLKEM768_X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305),
}

CLINIC_MAGIC = b"WLCLINIC1\n"
CLINIC_WORD = "wardlink-clinic-1"
"""Begins the line of a clinic's public key, so that nobody takes one kind of key for another."""
SEED_BYTES = 32
MLKEM_SEED_BYTES, MLKEM_PUBLIC_BYTES, X25519_BYTES = 64, 1184, 32


@dataclass(frozen=True, slots=True)
class Reader:
    """Somebody who can open a segment: the public half of a key. `id` is the SHA-256 of its raw bytes."""

    suite: int
    id: bytes
    public: X25519PublicKey | MLKEM768X25519PublicKey = field(repr=False, compare=False)

    @classmethod
    def x25519(cls, public: X25519PublicKey) -> "Reader":
        """A hub."""
        return cls(X25519, hashlib.sha256(public.public_bytes_raw()).digest(), public)

    @classmethod
    def hybrid(cls, raw: bytes) -> "Reader":
        """A clinic, from the raw ML-KEM-768 key and the raw X25519 key, one behind the other."""
        public = MLKEM768X25519PublicKey(
            MLKEM768PublicKey.from_public_bytes(raw[:-X25519_BYTES]),
            X25519PublicKey.from_public_bytes(raw[-X25519_BYTES:]),
        )
        return cls(MLKEM768_X25519, hashlib.sha256(raw).digest(), public)

    def wrap(self, data_key: bytes, info: bytes) -> bytes:
        """Seals a data key for this reader (HPKE base mode). It opens only with the same `info`."""
        return _SUITES[self.suite].encrypt(data_key, self.public, info)


class Opener(Protocol):
    """The private half of a reader."""

    @property
    def reader(self) -> Reader:
        """Whom to wrap for."""
        ...

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """The data key. Raises JournalError when it does not open."""
        ...


def unwrap(
    suite: int,
    private: X25519PrivateKey | MLKEM768X25519PrivateKey,
    wrapped: bytes,
    info: bytes,
) -> bytes:
    """The data key that `Reader.wrap` sealed. Raises JournalError when it does not open."""
    try:
        return _SUITES[suite].decrypt(wrapped, private, info)
    except (InvalidTag, ValueError) as error:
        raise JournalError("data key: it does not open with this key") from error


class ClinicKey:
    """What the clinic opens sealed journals with. It never enters a hub."""

    def __init__(self, seed: bytes) -> None:
        """Takes 32 random bytes, which both private keys are made of (X-Wing, draft-connolly-cfrg-xwing-kem)."""
        material = hashlib.shake_256(seed).digest(MLKEM_SEED_BYTES + X25519_BYTES)
        mlkem = MLKEM768PrivateKey.from_seed_bytes(material[:MLKEM_SEED_BYTES])
        x25519 = X25519PrivateKey.from_private_bytes(material[MLKEM_SEED_BYTES:])
        self._private = MLKEM768X25519PrivateKey(mlkem, x25519)
        self._raw = mlkem.public_key().public_bytes_raw() + x25519.public_key().public_bytes_raw()
        self.reader = Reader.hybrid(self._raw)
        """Whom hubs wrap for."""

    @classmethod
    def generate(cls) -> "ClinicKey":
        """A new key, in memory only."""
        return cls(os.urandom(SEED_BYTES))

    @classmethod
    def load(cls, path: Path) -> "ClinicKey":
        """From a file that its owner alone may read. Raises JournalError, which says what is wrong with it."""
        data = keyfile.read(path)
        if len(data) != len(CLINIC_MAGIC) + SEED_BYTES or not data.startswith(CLINIC_MAGIC):
            raise JournalError(
                f"clinic key {path}: got {len(data)} bytes, expected"
                f" {len(CLINIC_MAGIC) + SEED_BYTES} starting with {CLINIC_MAGIC!r};"
                " `wardlink key --clinic` makes one"
            )
        return cls(data[len(CLINIC_MAGIC) :])

    @classmethod
    def load_or_create(cls, path: Path) -> "ClinicKey":
        """As `load`; made when missing: whole and durable, or not at all."""
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            keyfile.create(path, CLINIC_MAGIC + os.urandom(SEED_BYTES))
        return cls.load(path)

    @property
    def public_text(self) -> str:
        """The public key as one line, which is the file that a hub gets."""
        return f"{CLINIC_WORD} {base64.b64encode(self._raw).decode('ascii')}"

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """See Opener."""
        return unwrap(MLKEM768_X25519, self._private, wrapped, info)


def load_clinic(path: Path) -> Reader:
    """The clinic's public key from its file. Raises JournalError, which says what is wrong with it."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise JournalError(f"clinic key {path}: cannot be read: {error.strerror}") from error
    if data.startswith(CLINIC_MAGIC):
        raise JournalError(
            f"clinic key {path}: this is the private key, which opens every journal; take it off"
            " this hub and put what `wardlink key --clinic` prints in its place"
        )
    try:
        word, text = data.decode("ascii").split()
        raw = base64.b64decode(text, validate=True)
        reader = Reader.hybrid(raw) if word == CLINIC_WORD else None
    except (ValueError, binascii.Error):
        reader = None
    if reader is None:
        raise JournalError(
            f"clinic key {path}: expected one line that begins with {CLINIC_WORD}, as"
            " `wardlink key --clinic` prints it"
        )
    return reader


def choose(words: str, hub: Reader, clinic_key_file: Path | None) -> tuple[Reader, ...]:
    """The readers that a configuration names: "hub", "hub+clinic" or "clinic". Raises JournalError."""
    readers = []
    for word in words.split("+"):
        if word == "hub":
            readers.append(hub)
        elif clinic_key_file is not None:
            readers.append(load_clinic(clinic_key_file))
    return tuple(readers)

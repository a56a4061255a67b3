"""The hub's own keys, and how a segment's data key is wrapped for a reader. No files but the key file."""

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from gateway.journal.errors import JournalError

MAGIC = b"WLHUBKEY1\n"
KEY_FILE = "identity.key"
"""Its name in a state directory."""
KEY_FILE_BYTES = len(MAGIC) + 32 + 32
OTHERS = stat.S_IRWXG | stat.S_IRWXO

SUITE_X25519 = 1
"""Suite number in a segment header: DHKEM(X25519), HKDF-SHA256, ChaCha20-Poly1305 (RFC 9180). 2 is reserved
for the hybrid ML-KEM-768 + X25519."""
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def recipient_id(public: X25519PublicKey) -> bytes:
    """Names a public key: SHA-256 of its raw bytes."""
    return hashlib.sha256(public.public_bytes_raw()).digest()


def wrap(data_key: bytes, public: X25519PublicKey, info: bytes) -> bytes:
    """Seals a data key for one reader (HPKE base mode). It opens only with the same `info`."""
    return _SUITE.encrypt(data_key, public, info)


class HubKey:
    """What the hub reads its journal with (X25519) and signs its statements with (Ed25519)."""

    kind = "x25519+ed25519"

    def __init__(self, private: X25519PrivateKey, signing: Ed25519PrivateKey) -> None:
        self._private = private
        self._signing = signing
        self.public = private.public_key()
        """Whom segments are wrapped for."""
        self.id = recipient_id(self.public)
        self.verify_key = signing.public_key().public_bytes_raw()
        """The raw Ed25519 public key that checks `sign`."""

    @classmethod
    def generate(cls) -> "HubKey":
        """New keys, in memory only."""
        return cls.from_bytes(_new_key_file())

    @classmethod
    def from_bytes(cls, data: bytes) -> "HubKey":
        """Keys from the contents of a key file, wherever they were handed over."""
        if len(data) != KEY_FILE_BYTES or not data.startswith(MAGIC):
            raise JournalError(
                f"hub key: got {len(data)} bytes, expected {KEY_FILE_BYTES} starting with"
                f" {MAGIC!r}; restore the key from its backup"
            )
        private, signing = data[len(MAGIC) : -32], data[-32:]
        return cls(
            X25519PrivateKey.from_private_bytes(private),
            Ed25519PrivateKey.from_private_bytes(signing),
        )

    @classmethod
    def load_or_create(cls, path: Path) -> "HubKey":
        """Keys from a file that its owner alone may read. Made when missing: whole and durable, or not at all."""
        if not path.exists():
            _create(path, _new_key_file())
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & OTHERS:
                raise JournalError(
                    f"hub key {path}: others may use it (mode {mode:04o}), expected 0600;"
                    " replace the key if it may have been read, else chmod 600"
                )
            return cls.from_bytes(file.read(KEY_FILE_BYTES + 1))

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return self._signing.sign(message)

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """The data key that `wrap` sealed for this hub. Raises JournalError when it does not open."""
        try:
            return _SUITE.decrypt(wrapped, self._private, info)
        except (InvalidTag, ValueError) as error:
            raise JournalError("data key: it does not open with this hub's key") from error


def _new_key_file() -> bytes:
    """Both private keys are 32 random bytes (RFC 7748, RFC 8032)."""
    return MAGIC + os.urandom(32) + os.urandom(32)


def _create(path: Path, data: bytes) -> None:
    """Under a temporary name first: a power cut leaves no half key, and a link never replaces a key."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(fd)
    path.hardlink_to(temporary)
    temporary.unlink()
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)

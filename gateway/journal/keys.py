"""The hub's own keys: where they come from, what they open and sign. No files but the key file."""

import os
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from gateway.journal import keyfile
from gateway.journal.errors import JournalError
from gateway.journal.readers import X25519, Reader, unwrap

MAGIC = b"WLHUBKEY1\n"
KEY_FILE = "identity.key"
"""Its name in a state directory."""
CREDENTIAL = "wardlink.key"
"""Its name as a systemd credential (`LoadCredential=`, or `LoadCredentialEncrypted=` when the TPM seals it)."""
KEY_FILE_BYTES = len(MAGIC) + 32 + 32


class KeyKind(StrEnum):
    """Where a hub's key came from."""

    CREDENTIAL = "credential"
    """From systemd, which may keep it encrypted, and sealed by the TPM, while the hub is off."""
    FILE = "file"
    """From the disk that it protects: who has the whole disk has the key."""
    MEMORY = "memory"


def credential_path(environment: Mapping[str, str]) -> Path | None:
    """The file in which systemd hands the key over; None when it does not."""
    directory = environment.get("CREDENTIALS_DIRECTORY")
    path = Path(directory, CREDENTIAL) if directory else None
    return path if path and path.exists() else None


class HubKey:
    """What the hub reads its journal with (X25519) and signs its statements with (Ed25519)."""

    def __init__(self, data: bytes, kind: KeyKind = KeyKind.MEMORY) -> None:
        """Keys from the contents of a key file. Raises JournalError when they are not."""
        if len(data) != KEY_FILE_BYTES or not data.startswith(MAGIC):
            raise JournalError(
                f"hub key: got {len(data)} bytes, expected {KEY_FILE_BYTES} starting with"
                f" {MAGIC!r}; restore the key from its backup"
            )
        # Both private keys are 32 random bytes (RFC 7748, RFC 8032).
        self._private = X25519PrivateKey.from_private_bytes(data[len(MAGIC) : -32])
        self._signing = Ed25519PrivateKey.from_private_bytes(data[-32:])
        self.kind = kind
        self.reader = Reader.x25519(self._private.public_key())
        """Whom segments are wrapped for."""
        self.verify_key = self._signing.public_key().public_bytes_raw()
        """The raw Ed25519 public key that checks `sign`."""

    @property
    def id(self) -> bytes:
        """Names the key that opens the journal."""
        return self.reader.id

    @classmethod
    def generate(cls) -> "HubKey":
        """New keys, in memory only."""
        return cls(_new_key_file())

    @classmethod
    def load(cls, path: Path) -> "HubKey":
        """Keys from a file that its owner alone may read."""
        return cls(keyfile.read(path), KeyKind.FILE)

    @classmethod
    def load_or_create(cls, path: Path) -> "HubKey":
        """As `load`. Made when missing: whole and durable, or not at all."""
        if not path.exists():
            keyfile.create(path, _new_key_file())
        return cls.load(path)

    @classmethod
    def find(cls, state_dir: Path, environment: Mapping[str, str]) -> "HubKey":
        """The hub's key: systemd's credential where there is one, else the file in the state directory."""
        credential = credential_path(environment)
        if credential is None:
            return cls.load_or_create(state_dir / KEY_FILE)
        # Not `keyfile.read`: systemd closes the directory, and the mode of a file in it shows its access list.
        return cls(credential.read_bytes(), KeyKind.CREDENTIAL)

    def renewed(self) -> bytes:
        """A key file with another X25519 key and the same signing key, so that the receivers need not be told."""
        return MAGIC + os.urandom(32) + self._signing.private_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        """An Ed25519 signature, 64 bytes."""
        return self._signing.sign(message)

    def unwrap(self, wrapped: bytes, info: bytes) -> bytes:
        """The data key that was sealed for this hub. Raises JournalError when it does not open."""
        return unwrap(X25519, self._private, wrapped, info)


def _new_key_file() -> bytes:
    return MAGIC + os.urandom(32) + os.urandom(32)

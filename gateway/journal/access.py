"""What a process may do with the segments it finds: open them, or hand them on as they are. No I/O."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from gateway.journal.algorithms import KEY_BYTES
from gateway.journal.errors import JournalError
from gateway.journal.keys import HubKey
from gateway.journal.readers import MLKEM768_X25519, SIGNATURE, Reader
from gateway.journal.segment import (
    Cipher,
    Recipient,
    SegmentHeader,
    header_body,
    is_for,
    key_statement,
    pack_header,
    parse_header,
    unwrap_cipher,
    wrap_for,
)


@dataclass(frozen=True, slots=True)
class Opened:
    """A segment's header with its cipher; without one the segment is sealed, and `sealed` is its header's body."""

    header: SegmentHeader
    cipher: Cipher | None
    sealed: bytes = b""


class Access:
    """The hub's key, and whom new segments are wrapped for. Without the hub among them the journal is sealed."""

    def __init__(self, key: HubKey, readers: tuple[Reader, ...] = ()) -> None:
        """Without readers the hub alone reads."""
        self.key = key
        self.readers = readers or (key.reader,)
        self.is_sealed = key.reader not in self.readers

    def new_segment(
        self, header: SegmentHeader, entropy: Callable[[int], bytes]
    ) -> tuple[Cipher, bytes]:
        """A fresh data key for a new segment, and the header block that wraps it for the readers."""
        cipher = Cipher(header, entropy(KEY_BYTES))
        return cipher, pack_header(header, recipients(cipher, self.key, self.readers))

    @property
    def names(self) -> str:
        """Who reads new segments, in the words of the configuration."""
        names = [("clinic", "hub")[reader == self.key.reader] for reader in self.readers]
        return "+".join(names)

    def open(self, block: bytes) -> Opened:
        """A segment from its header block.

        A segment that was written when the hub still read, or when it did not yet, stays what it is: as long as
        either the hub or a clinic can open it, nothing in it is lost.

        Raises:
            JournalError: "header", "no key" or "data key"; nobody can read that segment from this block.
        """
        parsed = parse_header(block)
        if parsed is None:
            raise JournalError("header")
        header, found = parsed
        clinical = tuple(r for r in found if r.suite in {MLKEM768_X25519, SIGNATURE})
        mine = any(is_for(recipient, self.key.reader) for recipient in found)
        if any(r.suite == MLKEM768_X25519 for r in found) and (self.is_sealed or not mine):
            return Opened(header, None, header_body(header, clinical))
        cipher = unwrap_cipher(header, found, self.key)
        if not self.is_sealed:
            return Opened(header, cipher)
        wrapped = recipients(cipher, self.key, self.readers)
        return Opened(header, None, header_body(header, wrapped))


def recipients(cipher: Cipher, key: HubKey, readers: tuple[Reader, ...]) -> tuple[Recipient, ...]:
    """A segment's data key for its readers, and for a clinic the hub's signature.

    The clinic's public key is no secret: without the signature, whoever may write to the disk could seal what he likes.
    """
    wrapped = wrap_for(cipher, readers)
    if all(reader.suite != MLKEM768_X25519 for reader in readers):
        return wrapped
    name = hashlib.sha256(key.verify_key).digest()
    return (*wrapped, Recipient(SIGNATURE, name, key.sign(key_statement(cipher))))

"""What a process may do with the segments it finds: open them, or hand them on as they are. No I/O."""

from dataclasses import dataclass

from gateway.journal.errors import JournalError
from gateway.journal.keys import HubKey
from gateway.journal.readers import MLKEM768_X25519, Reader
from gateway.journal.segment import (
    Cipher,
    SegmentHeader,
    header_body,
    is_for,
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
        header, recipients = parsed
        clinics = tuple(r for r in recipients if r.suite == MLKEM768_X25519)
        mine = any(is_for(recipient, self.key.reader) for recipient in recipients)
        if clinics and (self.is_sealed or not mine):
            return Opened(header, None, header_body(header, clinics))
        cipher = unwrap_cipher(header, recipients, self.key)
        if not self.is_sealed:
            return Opened(header, cipher)
        return Opened(header, None, header_body(header, wrap_for(cipher, self.readers)))

"""The segment that a process writes: what is in it so far, and the order in which it becomes one. No policy, no buffers."""

from dataclasses import dataclass
from pathlib import Path

from gateway.journal.blocks import SampleCodec, pack
from gateway.journal.files import Place
from gateway.journal.records import join
from gateway.journal.scan import Contents
from gateway.journal.segment import BLOCK_BYTES, Cipher
from gateway.journal.storage import Storage, Writer


@dataclass(frozen=True, slots=True)
class Chunk:
    """Encoded records that become one frame.

    Attributes:
        length: bytes of its plaintext, which is made when it is needed.
        packed: the plaintext, where the samples are in blocks.
    """

    entries: list[bytes]
    length: int
    packed: bytes | None = None

    def records(self) -> bytes:
        """The plaintext."""
        return join(self.entries) if self.packed is None else self.packed

    def in_blocks(self, codec: SampleCodec) -> "Chunk":
        """The same with its samples in blocks, where that is smaller."""
        packed = pack(self.entries, codec)
        if packed is None or len(packed) >= self.length:
            return self
        return Chunk(self.entries, len(packed), packed)


@dataclass(slots=True)
class Active:
    """The segment that this process writes.

    Attributes:
        contents: only what is durable.
        spare: the name that its file still has: it gets its own when its header and first frames are durable.
        header: the block that is still to be written then.
        block: where the next frame begins.
    """

    place: Place
    file: Writer
    cipher: Cipher
    contents: Contents
    spare: Path | None
    header: bytes
    block: int = 1

    def fits(self, size: int) -> bool:
        """Whether a frame has room before the last block, which holds the copy of the header."""
        return (self.block + 1) * BLOCK_BYTES + size <= self.cipher.header.segment_bytes

    def begin(self, storage: Storage, spare: Path, directory: Path, header: memoryview) -> None:
        """Its header and first frames are written: makes them durable, and only then gives it its name."""
        self.file.pwrite(header, self.cipher.header.segment_bytes - BLOCK_BYTES)
        self.file.datasync()
        storage.rename(spare, directory / self.place.name)
        # A power cut may bring its spare name back: `Pool.recover` tells by the header that it is in use.
        storage.sync_directory(directory)
        self.spare, self.header = None, b""

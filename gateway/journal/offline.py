"""A journal whose hub does not run: all of its files, for as long as nobody else may touch them."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.files import places_in
from gateway.journal.segment import (
    BLOCK_BYTES,
    Recipient,
    SegmentHeader,
    parse_header,
)
from gateway.journal.storage import File, Storage

SPARE = "spare"


@contextmanager
def held(directory: Path, storage: Storage) -> Iterator[None]:
    """Holds every lock in the journal's directory. Raises JournalError when there is none, or a hub has it open."""
    with ExitStack() as locks:
        try:
            names = {"lock", *(name for name in storage.list(directory) if name.endswith("lock"))}
            for name in sorted(names):
                lock = storage.lock(directory / name)
                if lock is None:
                    raise JournalError(
                        f"journal {directory}: a hub has it open ({name}); stop the hub first"
                    )
                locks.enter_context(lock)
        except OSError as error:
            raise JournalError(f"journal {directory}: there is none: {error}") from error
        try:
            yield
        except OSError as error:
            raise JournalError(
                f"journal {directory}: {error}; mend the cause and repeat, which goes on from here"
            ) from error


def segment_files(directory: Path, storage: Storage) -> list[Path]:
    """Every segment file in use, by stream, oldest first."""
    return [
        directory / stream / place.name
        for stream in Stream
        for place in places_in(storage, directory / stream)
    ]


def spare_files(directory: Path, storage: Storage) -> list[Path]:
    """Every file that waits for use; it still holds what it held before."""
    return [directory / SPARE / name for name in sorted(storage.list(directory / SPARE))]


Headers = list[tuple[SegmentHeader, tuple[Recipient, ...]]]


def header_offsets(storage: Storage, path: Path) -> list[int]:
    """Where the header of a segment file stands, and where its copy."""
    last = storage.size(path) // BLOCK_BYTES * BLOCK_BYTES - BLOCK_BYTES
    return sorted({0, max(last, 0)})


def headers(file: File, offsets: list[int]) -> Headers:
    """The whole headers in a segment file: two, unless one is damaged."""
    parsed = (parse_header(file.pread(BLOCK_BYTES, offset)) for offset in offsets)
    return [header for header in parsed if header]


def write_headers(file: File, offsets: list[int], block: bytes) -> None:
    """Both, one after the other: a power cut leaves at least one whole."""
    for offset in offsets:
        file.pwrite(block, offset)
        file.datasync()

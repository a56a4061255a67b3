"""Segment files as space: written out in advance, counted against the budget, used again rather than deleted."""

import errno
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from gateway.journal.entry import Stream
from gateway.journal.errors import JournalFull
from gateway.journal.files import file_header
from gateway.journal.storage import Storage

SPARE_FILES = 16
"""Files kept for use again. More are deleted, so that a drained backlog gives its disk back."""


class Pool:
    """All segment files of a journal are of one size, so that any of them can serve any stream."""

    def __init__(self, directory: Path, storage: Storage, file_bytes: int, max_files: int) -> None:
        self._directory = directory
        self._storage = storage
        self._file_bytes = file_bytes
        self._max_files = max_files
        self._spares: list[Path] = []
        self._next = 0
        self.files = 0
        """Segment files on disk, in use or spare."""

    def recover(self, in_use: Mapping[Stream, Sequence[int]]) -> None:
        """Finds the spares, given the numbers of the segments in use.

        A file that a power cut left too short is deleted. So is the spare name of a file that is in use: a cut may
        leave both names, for only the new one is synced, and using it would overwrite a segment.
        """
        for name in sorted(self._storage.list(self._directory)):
            path = self._directory / name
            self._next = max(self._next, int(name.partition(".")[0], 16) + 1)
            header = file_header(self._storage, path)
            short = self._storage.size(path) != self._file_bytes
            if short or (header and header.number in in_use[header.stream]):
                self._storage.unlink(path)
            else:
                self._spares.append(path)
        self._storage.sync_directory(self._directory)
        self.files = sum(map(len, in_use.values())) + len(self._spares)

    def take(self, make_room: Callable[[], bool]) -> Path:
        """A file to make a segment of, still under a spare name.

        Args:
            make_room: gives the oldest data of the lowest class up for a file; False when there is none to give.

        Raises:
            JournalFull: the budget or the disk is used up by what must not be given up.
        """
        if not self._spares:
            room = self.files < self._max_files and self._create()
            if not room and not (make_room() and self._spares):
                raise JournalFull(
                    f"journal: all {self.files} segment files of {self._file_bytes} bytes hold what"
                    " is not acknowledged and must not be evicted; deliver, or raise max_bytes"
                )
        return self._spares.pop(0)

    def _create(self) -> bool:
        path = self._name()
        try:
            self._storage.create(path, self._file_bytes)
        except OSError as error:
            if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                return False  # the disk is smaller than the budget says: live within what there is
            raise
        self._spares.append(path)
        self.files += 1
        return True

    def put(self, path: Path) -> None:
        """Takes a segment file back. Nobody may read it any more. An OSError says that it kept its name."""
        spare = self._name()
        self._storage.rename(path, spare)
        try:
            # The old name must be gone before another segment is written under the new one.
            self._storage.sync_directory(path.parent)
            self._storage.sync_directory(self._directory)
        except OSError:
            return  # it rests until the next start: after a power cut its old name may be back
        self._spares.append(spare)
        if len(self._spares) > SPARE_FILES:
            with suppress(OSError):
                self._storage.unlink(self._spares[-1])
                self._spares.pop()
                self.files -= 1

    def drop(self, path: Path) -> None:
        """A file that could not be written is not tried again."""
        self.files -= 1
        with suppress(OSError):
            self._storage.unlink(path)

    def _name(self) -> Path:
        self._next += 1
        return self._directory / f"{self._next:08x}.free"

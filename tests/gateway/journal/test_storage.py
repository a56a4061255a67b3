import errno
import os
from pathlib import Path

import pytest

from gateway.journal.storage import DISK


def test_a_new_file_is_zeros_that_take_up_room(tmp_path: Path) -> None:
    path = tmp_path / "file"
    DISK.create(path, 200_000)
    assert path.read_bytes() == bytes(200_000)
    assert path.stat().st_blocks * 512 >= 200_000
    with pytest.raises(FileExistsError):
        DISK.create(path, 1)


def test_bytes_come_back_where_they_were_put(tmp_path: Path) -> None:
    path = tmp_path / "file"
    DISK.create(path, 8192)
    with DISK.open(path) as file:
        file.pwrite(b"abc", 4095)
        file.datasync()
        assert file.pread(5, 4094) == b"\0abc\0"
        assert file.pread(100, 8190) == b"\0\0"
    assert DISK.size(path) == 8192


def test_a_file_that_cannot_be_filled_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_fd: int) -> None:
        raise OSError(errno.ENOSPC, "no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        DISK.create(tmp_path / "file", 4096)
    assert list(tmp_path.iterdir()) == []


def test_a_lock_holds_until_it_is_closed(tmp_path: Path) -> None:
    lock = DISK.lock(tmp_path / "lock")
    assert lock is not None
    assert DISK.lock(tmp_path / "lock") is None
    lock.close()
    again = DISK.lock(tmp_path / "lock")
    assert again is not None
    again.close()


def test_names_are_changed_listed_and_removed(tmp_path: Path) -> None:
    DISK.make_directory(tmp_path / "a")
    DISK.make_directory(tmp_path / "a")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o700
    DISK.create(tmp_path / "a" / "one", 1)
    DISK.rename(tmp_path / "a" / "one", tmp_path / "two")
    DISK.sync_directory(tmp_path)
    assert sorted(DISK.list(tmp_path)) == ["a", "two"]
    DISK.unlink(tmp_path / "two")
    assert DISK.list(tmp_path) == ["a"]

"""What a returned kit held is gone, the receipt says so, and whoever signed it can be asked."""

import base64
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.clock import SystemClock
from gateway.journal.entry import Stream
from gateway.journal.errors import JournalError
from gateway.journal.journal import Journal
from gateway.journal.keys import MAGIC, HubKey
from gateway.journal.readers import ClinicKey, Reader
from gateway.journal.shred import canonical, shred
from gateway.journal.storage import DISK
from tests.gateway.journal.builders import SEGMENT
from tests.gateway.journal.test_sealed import fill

CLINIC = ClinicKey.generate()


def used(folder: Path, readers: tuple[Reader, ...] = ()) -> tuple[HubKey, Journal]:
    key = HubKey.load_or_create(folder / "identity.key")
    journal = Journal.open(
        folder / "journal",
        hub="hub-1",
        clock=SystemClock(),
        hub_key=key,
        max_bytes=64 * SEGMENT,
        readers=readers,
        segment_bytes=SEGMENT,
    )
    fill(journal, journal.high_water(Stream.VITALS) + 1, journal.high_water(Stream.VITALS) + 20)
    journal.acknowledge(Stream.WAVEFORM, 15)
    return key, journal


def run(folder: Path, key: HubKey | None) -> dict[str, Any]:
    path = folder / "identity.key"
    return shred(folder / "journal", DISK, SystemClock(), key, (path, path.with_suffix(".key.new")))


@pytest.mark.parametrize("readers", [(), (CLINIC.reader,)])
def test_nothing_is_left_and_the_receipt_says_what_there_was(
    tmp_path: Path, readers: tuple[Reader, ...]
) -> None:
    key, journal = used(tmp_path, readers)
    epoch = journal.epoch
    journal.close()
    (tmp_path / "identity.key.new").write_bytes(MAGIC)
    signed = run(tmp_path, key)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []
    receipt = signed["receipt"]
    assert (receipt["hub"], receipt["epoch"]) == ("hub-1", epoch)
    assert receipt["key_files_destroyed"] == ["identity.key", "identity.key.new"]
    waveform = next(row for row in receipt["streams"] if row["stream"] == "waveform")
    assert (waveform["last"], waveform["acknowledged"]) == (20, 15)
    assert waveform["first"] > 1  # what was acknowledged is no longer there
    assert len(receipt["streams"]) == 4
    assert receipt["when"]["clock"] in {"unset", "restored", "synchronised"}
    assert receipt["proof"]["wrapped_keys_searched_for"] >= 5
    assert receipt["proof"]["bytes_searched"] > 5 * SEGMENT
    data = canonical(receipt)
    assert signed["sha256"] == hashlib.sha256(data).hexdigest()
    verify = Ed25519PublicKey.from_public_bytes(base64.b64decode(signed["verify_key"]))
    verify.verify(base64.b64decode(signed["signature"]), data)
    assert verify.public_bytes_raw() == key.verify_key
    json.dumps(signed)


def test_a_running_hub_keeps_everything(tmp_path: Path) -> None:
    key, journal = used(tmp_path)
    before = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with pytest.raises(JournalError, match="stop the hub first"):
        run(tmp_path, key)
    assert before == {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    journal.close()


def test_without_a_journal_there_is_nothing_to_shred(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="there is none"):
        run(tmp_path, None)


class _Failing:
    """The disk, which fails at one operation."""

    def __init__(self, operation: str) -> None:
        self._operation = operation

    def __getattr__(self, name: str) -> Any:
        if name == self._operation:
            return self._fail
        return getattr(DISK, name)

    def _fail(self, *_: object) -> None:
        raise OSError(5, "I/O error")


@pytest.mark.parametrize("operation", ["unlink", "sync_directory"])
def test_a_shred_that_failed_has_destroyed_the_key_and_is_repeated(
    tmp_path: Path, operation: str
) -> None:
    key, journal = used(tmp_path)
    journal.close()
    path = tmp_path / "identity.key"
    failing: Any = _Failing(operation)
    with pytest.raises(JournalError, match="repeat"):
        shred(tmp_path / "journal", failing, SystemClock(), key, (path,))
    assert not path.exists()
    signed = run(tmp_path, None)
    assert signed["signature"] is None
    assert signed["receipt"]["key_files_destroyed"] == []
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []


class _Deaf:
    """A disk that takes no zeros: what was overwritten reads back as before."""

    def __getattr__(self, name: str) -> Any:
        return getattr(DISK, name)

    def open(self, path: Path) -> Any:
        file: Any = DISK.open(path)
        file.pwrite = lambda _data, _offset: None
        return file


def test_a_card_that_does_not_forget_is_found(tmp_path: Path) -> None:
    key, journal = used(tmp_path)
    journal.close()
    deaf: Any = _Deaf()
    with pytest.raises(JournalError, match=r"[1-9]\d* headers, [1-9]\d* wrapped keys"):
        shred(tmp_path / "journal", deaf, SystemClock(), key, ())


def test_the_key_is_overwritten_before_it_goes(tmp_path: Path) -> None:
    key, journal = used(tmp_path)
    journal.close()
    (tmp_path / "other-name").hardlink_to(tmp_path / "identity.key")
    run(tmp_path, key)
    assert (tmp_path / "other-name").read_bytes() == bytes(74)


def test_every_lock_counts(tmp_path: Path) -> None:
    """Another process may deliver while nobody writes."""
    key, journal = used(tmp_path)
    journal.close()
    other = DISK.lock(tmp_path / "journal" / "other.lock")
    assert other
    with pytest.raises(JournalError, match=r"other\.lock"):
        run(tmp_path, key)
    other.close()
    run(tmp_path, key)
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == []

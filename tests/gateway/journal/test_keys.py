from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from gateway.journal.errors import JournalError
from gateway.journal.keys import HubKey


def test_a_key_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "hub.key"
    made = HubKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["hub.key"]
    loaded = HubKey.load_or_create(path)
    assert (loaded.id, loaded.verify_key) == (made.id, made.verify_key)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o610, 0o666])
def test_a_key_that_others_may_use_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "hub.key"
    HubKey.load_or_create(path)
    path.chmod(mode)
    with pytest.raises(JournalError, match="others may use it"):
        HubKey.load_or_create(path)


@pytest.mark.parametrize("damage", [b"", b"short", b"x" * 74])
def test_a_broken_key_file_is_refused_and_kept(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "hub.key"
    path.write_bytes(damage)
    path.chmod(0o600)
    with pytest.raises(JournalError, match="hub key: got"):
        HubKey.load_or_create(path)
    assert path.read_bytes() == damage


def test_a_half_made_key_is_made_anew(tmp_path: Path) -> None:
    (tmp_path / "hub.key.new").write_bytes(b"torn")
    HubKey.load_or_create(tmp_path / "hub.key")
    assert [p.name for p in tmp_path.iterdir()] == ["hub.key"]


def test_two_keys_differ() -> None:
    assert HubKey.generate().id != HubKey.generate().id


def test_a_signature_is_checked_by_the_verify_key() -> None:
    key = HubKey.generate()
    Ed25519PublicKey.from_public_bytes(key.verify_key).verify(key.sign(b"head"), b"head")


def test_a_wrapped_key_opens_for_its_reader_and_its_segment_only() -> None:
    key, other = HubKey.generate(), HubKey.generate()
    wrapped = key.reader.wrap(bytes(32), b"segment 1")
    assert key.unwrap(wrapped, b"segment 1") == bytes(32)
    for reader, blob, info in [
        (other, wrapped, b"segment 1"),
        (key, wrapped, b"segment 2"),
        (key, wrapped[:-1], b"segment 1"),
        (key, b"", b"segment 1"),
    ]:
        with pytest.raises(JournalError, match="data key"):
            reader.unwrap(blob, info)

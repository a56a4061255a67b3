from pathlib import Path

import pytest

from gateway.journal.errors import JournalError
from gateway.journal.keys import CREDENTIAL, KEY_FILE, HubKey, KeyKind
from gateway.journal.readers import CLINIC_MAGIC, ClinicKey, Reader, choose, load_clinic

CLINIC = ClinicKey.generate()
HUB = HubKey.generate()


def test_a_clinic_key_opens_what_is_wrapped_for_it_and_nothing_else() -> None:
    wrapped = CLINIC.reader.wrap(bytes(32), b"segment 1")
    assert len(wrapped) == 1168
    assert CLINIC.unwrap(wrapped, b"segment 1") == bytes(32)
    flipped = bytes([wrapped[0] ^ 1]) + wrapped[1:]
    for blob, info in [(wrapped, b"segment 2"), (flipped, b"segment 1"), (b"", b"segment 1")]:
        with pytest.raises(JournalError, match="data key"):
            CLINIC.unwrap(blob, info)
    with pytest.raises(JournalError, match="data key"):
        ClinicKey.generate().unwrap(wrapped, b"segment 1")


def test_both_halves_of_the_hybrid_key_are_needed() -> None:
    raw, other = CLINIC._raw, ClinicKey.generate()._raw
    for mixed in (raw[:-32] + other[-32:], other[:-32] + raw[-32:]):
        wrapped = Reader.hybrid(mixed).wrap(bytes(32), b"")
        with pytest.raises(JournalError, match="data key"):
            CLINIC.unwrap(wrapped, b"")


def test_a_clinic_key_is_made_once_and_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "clinic.key"
    made = ClinicKey.load_or_create(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert ClinicKey.load_or_create(path).reader == made.reader
    path.chmod(0o640)
    with pytest.raises(JournalError, match="others may use it"):
        ClinicKey.load(path)


@pytest.mark.parametrize("damage", [b"", CLINIC_MAGIC, b"x" * 42, CLINIC_MAGIC + bytes(33)])
def test_a_broken_clinic_key_is_refused(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "clinic.key"
    path.write_bytes(damage)
    path.chmod(0o600)
    with pytest.raises(JournalError, match=r"clinic key .*: got"):
        ClinicKey.load(path)
    with pytest.raises(JournalError, match="cannot be read"):
        ClinicKey.load(tmp_path / "missing")


def test_a_hub_takes_the_public_line_and_never_the_private_key(tmp_path: Path) -> None:
    path = tmp_path / "clinic.pub"
    path.write_text(CLINIC.public_text + "\n")
    assert load_clinic(path) == CLINIC.reader
    for wrong in ("", "wardlink-clinic-1", "wardlink-clinic-1 AAAA", CLINIC.public_text[1:]):
        path.write_text(wrong)
        with pytest.raises(JournalError, match="expected one line"):
            load_clinic(path)
    ClinicKey.load_or_create(tmp_path / "clinic.key")
    with pytest.raises(JournalError, match="the private key"):
        load_clinic(tmp_path / "clinic.key")


@pytest.mark.parametrize("words", ["hub", "hub+clinic", "clinic"])
def test_the_configuration_chooses_the_readers(tmp_path: Path, words: str) -> None:
    path = tmp_path / "clinic.pub"
    path.write_text(CLINIC.public_text)
    known = {"hub": HUB.reader, "clinic": CLINIC.reader}
    assert choose(words, HUB.reader, path) == tuple(known[word] for word in words.split("+"))


def test_a_credential_goes_before_the_file(tmp_path: Path) -> None:
    handed = tmp_path / "credentials"
    handed.mkdir()
    environment = {"CREDENTIALS_DIRECTORY": str(handed)}
    from_file = HubKey.find(tmp_path, environment)
    assert from_file.kind is KeyKind.FILE
    assert (tmp_path / KEY_FILE).exists()
    (handed / CREDENTIAL).write_bytes(HUB.renewed())
    (handed / CREDENTIAL).chmod(0o440)  # as systemd shows it
    found = HubKey.find(tmp_path, environment)
    assert (found.kind, found.verify_key) == (KeyKind.CREDENTIAL, HUB.verify_key)
    assert HubKey.find(tmp_path, {}).id == from_file.id


def test_with_a_credential_no_key_is_written(tmp_path: Path) -> None:
    (tmp_path / CREDENTIAL).write_bytes(HUB.renewed())
    state = tmp_path / "state"
    state.mkdir()
    HubKey.find(state, {"CREDENTIALS_DIRECTORY": str(tmp_path)})
    assert list(state.iterdir()) == []


def test_a_renewed_key_signs_as_before_and_opens_nothing_from_before() -> None:
    renewed = HubKey(HUB.renewed())
    assert renewed.verify_key == HUB.verify_key
    with pytest.raises(JournalError, match="data key"):
        renewed.unwrap(HUB.reader.wrap(bytes(32), b""), b"")

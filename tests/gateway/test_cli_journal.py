"""`wardlink journal` and the keys around it, as an administrator calls them."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from drivers.registry import all_drivers
from gateway import cli, cli_journal
from gateway.clock import SystemClock
from gateway.config.journal import Readers
from gateway.config.load import load
from gateway.journal.entry import Stream
from gateway.journal.journal import Journal
from gateway.journal.keys import HubKey
from gateway.journal.readers import ClinicKey, choose
from gateway.tables import ConfigError
from tests.gateway.journal.builders import SEGMENT, read_all
from tests.gateway.journal.test_sealed import fill

ROOT = Path(__file__).parents[2]


@pytest.fixture
def hub(tmp_path: Path) -> Path:
    """A hub's configuration, in a folder of its own."""
    text = (ROOT / "config" / "wardlink.example.toml").read_text(encoding="utf-8")
    config = tmp_path / "wardlink.toml"
    config.write_text(text, encoding="utf-8")
    return config


@pytest.fixture
def receiver(tmp_path: Path) -> Path:
    text = (ROOT / "config" / "receiver.example.toml").read_text(encoding="utf-8")
    config = tmp_path / "receiver.toml"
    text = re.sub(r"# clinic_key_file = .*", 'clinic_key_file = "clinic.key"', text)
    config.write_text(text, encoding="utf-8")
    return config


def journal_of(config: Path) -> Journal:
    loaded = load(config, all_drivers())
    state_dir = loaded.hub.state_dir
    state_dir.mkdir(exist_ok=True)
    key = HubKey.find(state_dir, {})
    return Journal.open(
        state_dir / "journal",
        hub=loaded.hub.id,
        clock=SystemClock(),
        hub_key=key,
        max_bytes=64 * SEGMENT,
        readers=choose(loaded.journal.readers, key.reader, loaded.journal.clinic_key_file),
        segment_bytes=SEGMENT,
    )


def call(*arguments: object) -> int:
    try:
        return cli.main([str(argument) for argument in arguments])
    except SystemExit as ended:
        return int(ended.code or 0)


def seal(config: Path, words: str = "clinic") -> None:
    text = config.read_text(encoding="utf-8").replace('readers = "hub"', f'readers = "{words}"')
    text = re.sub(r"# clinic_key_file = .*", 'clinic_key_file = "clinic.pub"', text)
    config.write_text(text, encoding="utf-8")


@pytest.mark.parametrize("command", [row.name for row in cli_journal.SUBCOMMANDS])
def test_every_subcommand_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert call("journal", command, "--help") == cli.OK
    assert f"usage: wardlink journal {command}" in capsys.readouterr().out


def test_the_clinics_key_is_made_where_the_receiver_is(
    receiver: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("key", "--clinic", "--config", receiver) == cli.OK
    line = capsys.readouterr().out
    key = ClinicKey.load(receiver.parent / "clinic.key")
    assert line == key.public_text + "\n"
    assert call("key", "--clinic", "--config", receiver, "--json") == cli.OK
    assert json.loads(capsys.readouterr().out)["clinic_key"] == line.strip()


def test_the_clinics_key_needs_a_place(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("key", "--clinic", "--config", ROOT / "config/receiver.example.toml") == cli.USAGE
    assert "clinic_key_file" in capsys.readouterr().err


@pytest.mark.parametrize("words", ["hub+clinic", "clinic"])
def test_a_clinic_that_reads_has_a_key_file(hub: Path, words: str) -> None:
    hub.write_text(hub.read_text().replace('readers = "hub"', f'readers = "{words}"'))
    with pytest.raises(ConfigError, match=r"journal.clinic_key_file: got nothing"):
        load(hub, all_drivers())
    (hub.parent / "clinic.pub").write_text(ClinicKey.generate().public_text)
    hub.write_text(hub.read_text().replace(f'readers = "{words}"', 'readers = "hub"'))
    seal(hub, words)
    loaded = load(hub, all_drivers()).journal
    assert (loaded.readers, loaded.clinic_key_file) == (Readers(words), hub.parent / "clinic.pub")


def test_rotate_key(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = journal_of(hub)
    fill(journal)
    assert call("journal", "rotate-key", "--config", hub) == cli.FAILED
    assert "stop the hub first" in capsys.readouterr().err
    journal.close()
    path = hub.parent / "state" / "identity.key"
    before, verify = path.read_bytes(), HubKey.load(path).verify_key
    assert call("journal", "rotate-key", "--config", hub, "--json") == cli.OK
    done = json.loads(capsys.readouterr().out)
    assert done["rewrapped"] >= 4
    assert done["sealed"] == done["unreadable"] == 0
    assert path.read_bytes() != before
    assert path.stat().st_mode & 0o777 == 0o600
    assert HubKey.load(path).verify_key == verify
    assert [p.name for p in path.parent.iterdir() if p.is_file()] == ["identity.key"]
    again = journal_of(hub)
    assert len(read_all(again, Stream.VITALS)) == 9
    again.close()


def test_rotate_key_does_not_guess_where_a_credential_comes_from(
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    journal = journal_of(hub)
    fill(journal, 1, 1)
    journal.close()
    path = hub.parent / "state" / "identity.key"
    elsewhere = tmp_path / "decrypted.key"
    path.rename(elsewhere)
    (tmp_path / "wardlink.key").write_bytes(elsewhere.read_bytes())
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert call("journal", "rotate-key", "--config", hub) == cli.FAILED
    assert "--key-file" in capsys.readouterr().err
    assert call("journal", "rotate-key", "--config", hub, "--key-file", elsewhere) == cli.OK
    assert not path.exists()


def test_rotation_seals_what_was_written_before(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_of(hub)
    fill(journal)
    journal.close()
    (hub.parent / "clinic.pub").write_text(ClinicKey.generate().public_text)
    seal(hub)
    for expected in ("wrapped for clinic", "are sealed"):
        assert call("journal", "rotate-key", "--config", hub) == cli.OK
        assert expected in capsys.readouterr().out


def test_shred_wants_the_name_typed(hub: Path, capsys: pytest.CaptureFixture[str]) -> None:
    journal = journal_of(hub)
    fill(journal)
    journal.close()
    state = hub.parent / "state"
    before = sorted(state.rglob("*"))
    assert call("journal", "shred", "--config", hub) == cli.USAGE
    assert call("journal", "shred", "--config", hub, "--hub", "other") == cli.USAGE
    assert "expected 'demo-hub'" in capsys.readouterr().err
    assert sorted(state.rglob("*")) == before


def test_shred_leaves_a_receipt_and_never_overwrites_one(
    hub: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    journal = journal_of(hub)
    fill(journal)
    journal.close()
    state = hub.parent / "state"
    assert call("journal", "shred", "--config", hub, "--hub", "demo-hub") == cli.OK
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    assert [p.name for p in state.rglob("*") if p.is_file()] == ["shred-receipt.json"]
    assert json.loads((state / "shred-receipt.json").read_text()) == shown
    assert shown["signature"]
    assert shown["receipt"]["hub"] == "demo-hub"
    assert call("journal", "shred", "--config", hub, "--hub", "demo-hub") == cli.FAILED
    assert "an earlier receipt" in capsys.readouterr().err
    assert json.loads((state / "shred-receipt.json").read_text()) == shown


def test_status_shows_the_key_and_the_readers(hub: Path) -> None:
    journal = journal_of(hub)
    assert (journal.status().key_kind, journal.status().readers) == ("file", "hub")
    journal.close()

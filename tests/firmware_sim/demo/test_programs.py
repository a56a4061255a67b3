import asyncio
from pathlib import Path

from firmware_sim.demo import programs


def test_in_a_hurry_both_ends_come_back_within_seconds(tmp_path: Path) -> None:
    for name in ("wardlink", "receiver"):
        config = programs.write_config(name, tmp_path, 18830)
        programs.hurry(config)
        assert "backoff_most_s = 2\n" in config.read_text(encoding="utf-8")


def test_a_sealed_demo_has_a_clinic_with_a_key_and_a_hub_without(tmp_path: Path) -> None:
    config = programs.write_config("wardlink", tmp_path, 18830)
    receiving = programs.write_config("receiver", tmp_path, 18830)
    asyncio.run(programs.seal(config, receiving))
    assert 'readers = "clinic"' in config.read_text()
    assert (tmp_path / "clinic.pub").read_text().startswith("wardlink-clinic-1 ")
    assert (tmp_path / "clinic.key").stat().st_mode & 0o777 == 0o600
    assert 'clinic_key_file = "clinic.pub"' in config.read_text()
    assert 'clinic_key_file = "clinic.key"' in receiving.read_text()

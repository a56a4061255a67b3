import json
import subprocess
import sys
from pathlib import Path

import pytest

from drivers import registry
from gateway import cli, view

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "config" / "wardlink.example.toml"


def wardlink(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "gateway", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
        cwd=ROOT,
    )


@pytest.mark.parametrize("command", [row.name for row in cli.COMMANDS])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert f"usage: wardlink {command}" in text
    assert len(text.splitlines()) > 5


def test_help_names_every_command_with_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["--help"])
    text = capsys.readouterr().out
    for row in cli.COMMANDS:
        assert row.name in text
        assert (row.call.__doc__ or "").split(";")[0][:40] in " ".join(text.split())


def test_drivers_for_people_and_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["drivers"]) == cli.OK
    people = capsys.readouterr().out
    assert cli.main(["drivers", "--json"]) == cli.OK
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert set(rows) == set(registry.all_drivers())
    assert all(name in people for name in rows)
    assert rows["afe4490"]["options"] == ["rate_hz (required)"]
    assert rows["heart-rate"]["found_by"] == "address"


def test_a_good_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["check-config", "--config", str(EXAMPLE)]) == cli.OK
    assert "no faults, 2 devices" in capsys.readouterr().out
    assert cli.main(["check-config", "--config", str(EXAMPLE), "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out) == {"ok": True, "faults": [], "devices": 2}


@pytest.mark.parametrize("command", ["check-config", "run", "acquire", "uplink", "key", "status"])
def test_a_wrong_configuration_exits_2_and_starts_nothing(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text(
        '[hub]\nid = 7\nstate_dir = "state"\n[broker]\nhost = "example.org"\n', encoding="utf-8"
    )
    assert cli.main([command, "--config", str(wrong)]) == cli.USAGE
    captured = capsys.readouterr()
    assert "hub.id: got int 7, expected 1 to 64 of" in captured.err
    assert "broker.tls: got nothing" in captured.err
    assert [path.name for path in tmp_path.iterdir()] == ["wrong.toml"]


def test_faults_for_machines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = tmp_path / "wrong.toml"
    wrong.write_text("[hub]\n", encoding="utf-8")
    assert cli.main(["check-config", "--json", "--config", str(wrong)]) == cli.USAGE
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] is False
    assert {fault["key"] for fault in answer["faults"]} == {"hub.id", "broker"}


def test_status_without_a_hub_says_so(tmp_path: Path) -> None:
    done = wardlink("status", "--runtime-dir", str(tmp_path))
    assert done.returncode == cli.FAILED
    assert "is `wardlink run` running?" in done.stderr
    assert "Traceback" not in done.stderr


def test_key_is_made_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "wardlink.toml"
    config.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    assert cli.main(["key", "--config", str(config)]) == cli.OK
    first = capsys.readouterr().out
    assert cli.main(["key", "--config", str(config), "--json"]) == cli.OK
    assert json.loads(capsys.readouterr().out) == {"id": "demo-hub", "verify_key": first.strip()}
    assert (tmp_path / "state" / "identity.key").stat().st_mode & 0o777 == 0o600


def test_a_key_that_others_may_read_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "wardlink.toml"
    config.write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    cli.main(["key", "--config", str(config)])
    (tmp_path / "state" / "identity.key").chmod(0o644)
    assert cli.main(["key", "--config", str(config)]) == cli.FAILED
    assert "0600" in capsys.readouterr().err


def test_two_roots_are_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("drivers.__path__", ["/elsewhere/drivers"])
    assert cli.main(["drivers"]) == cli.FAILED
    assert "an environment of its own" in capsys.readouterr().err


def test_unknown_command_exits_2() -> None:
    assert wardlink("fly").returncode == cli.USAGE


SNAPSHOT = {
    "hub": "h1",
    "version": "1",
    "mode": "real",
    "kernels": "jit",
    "clock": {
        "boottime_ns": 100_000_000_000,
        "wall_ns": 1_800_000_000_000_000_000,
        "state": "restored",
        "error_ns": None,
    },
    "journal": {"key_kind": "credential", "readers": "clinic"},
    "devices": [
        {
            "id": "board",
            "driver": "healthypi-v3",
            "state": "absent",
            "reason": "/dev/ttyUSB0 is not there",
            "last_data_ns": 40_000_000_000,
            "counters": {"records": 12, "malformed": 3},
        }
    ],
    "budget": [
        {
            "stream": "vitals",
            "promised_s": 2_592_000,
            "bytes_s": 4128.2,
            "measured": True,
            "left_s": 2_160_000.0,
        },
        {
            "stream": "waveform",
            "promised_s": 86_400,
            "bytes_s": 0.0,
            "measured": False,
            "left_s": None,
        },
    ],
    "uplink": {
        "state": "backing_off",
        "text": "refused",
        "retry_in_s": 300.0,
        "streams": {"alarm": {"high_water": 9, "acknowledged": 4, "waiting": 3, "refusal": None}},
    },
}


def test_state_for_people_says_what_is_wrong() -> None:
    shown = view.state(SNAPSHOT)
    assert "clock restored: 2027-01-15 08:00:00Z, which may lag by hours" in shown
    assert "/dev/ttyUSB0 is not there" in shown
    assert "60 s ago" in shown
    assert "journal key credential  readers clinic" in shown
    assert "uplink backing_off: refused; next try in 5 min" in shown
    assert "alarm   9           4             3" in shown
    assert "vitals    30.0 days  25.0 days               4.1 kB/s, measured" in shown
    assert "no records come" in shown


@pytest.mark.parametrize(
    ("kernels", "words"),
    [("aot", "ahead of time"), ("jit", "just in time"), ("python", "interpreted")],
)
def test_state_for_people_says_which_kernels_run(kernels: str, words: str) -> None:
    assert f"kernels {words}\n" in view.state({**SNAPSHOT, "kernels": kernels})


def test_state_of_one_half_names_the_other() -> None:
    alone = {name: SNAPSHOT[name] for name in ("hub", "version", "mode", "clock", "uplink")}
    shown = view.state({**alone, "silent": {"acquire": "run/acquire.sock: nobody answers"}})
    assert "acquire: run/acquire.sock: nobody answers" in shown
    assert "uplink backing_off" in shown
    shown = view.state({**SNAPSHOT, "uplink": None, "silent": {}})
    assert "uplink waits for a journal" in shown


def test_columns_line_up() -> None:
    lines = view.table(("a", "long head"), [("value", "x"), ("v", "y")]).splitlines()
    assert lines == ["a      long head", "-----  ---------", "value  x", "v      y"]


def test_status_says_how_far_the_clock_can_be_trusted() -> None:
    clock = {"boottime_ns": 100_000_000_000, "wall_ns": 1_800_000_000_000_000_000}
    unset = view.state({**SNAPSHOT, "clock": {**clock, "state": "unset", "error_ns": None}})
    assert "clock unset: nobody has set it" in unset
    assert "2027" not in unset
    good = view.state(
        {**SNAPSHOT, "clock": {**clock, "state": "synchronised", "error_ns": 5_000_000}}
    )
    assert "clock synchronised: 2027-01-15 08:00:00Z within 5 ms" in good

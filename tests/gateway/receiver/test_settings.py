import builtins
from pathlib import Path
from typing import Any

import pytest

from gateway.clock import SystemClock
from gateway.receiver.lines import LinesStore
from gateway.receiver.open import open_store
from gateway.receiver.settings import ReceiverConfig, load_receiver
from gateway.receiver.sql import SqlStore
from gateway.tables import ConfigError

VERIFY = "A" * 42 + "I="


def config(folder: Path, *lines: str) -> ReceiverConfig:
    source = folder / "receiver.toml"
    head = '[receiver]\nid = "r"\nstate_dir = "state"\n'
    tail = f'\n[broker]\nhost = "localhost"\n[hubs]\nh1 = "{VERIFY}"\n'
    source.write_text(head + "\n".join(lines) + tail)
    return load_receiver(source)


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ((), "receiver.output_file: got nothing, expected a path"),
        (('output = "sqlite"',), "receiver.output_file: got nothing, expected a path"),
        (('output = "postgresql"',), "receiver.database: got nothing, expected a connection"),
        (
            ('output = "postgresql"', 'database = "dbname=x"', 'output_file = "x"'),
            "receiver.output_file: got a value, expected nothing",
        ),
        (
            ('output_file = "x"', 'share = "ward"'),
            'receiver.share: got "ward" with output = "json_lines", expected output = "sqlite"',
        ),
        (
            ('output = "csv"', 'output_file = "x"'),
            "receiver.output: got str 'csv', expected one of",
        ),
        (('output_file = "x"', "grace_s = 0"), "receiver.grace_s: got int 0"),
    ],
)
def test_a_fault_says_what_to_do(tmp_path: Path, lines: tuple[str, ...], fault: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config(tmp_path, *lines)
    assert fault in str(caught.value)


def test_each_output_is_what_its_name_says(tmp_path: Path) -> None:
    (tmp_path / "state").mkdir()
    lines = open_store(config(tmp_path, 'output_file = "x"'), SystemClock())
    assert isinstance(lines, LinesStore)
    lines.close()
    for more in (
        ('output = "sqlite"', 'output_file = "y"', 'share = "ward"'),
        ('output = "postgresql"', 'database = "dbname=x"'),
    ):
        assert isinstance(open_store(config(tmp_path, *more), SystemClock()), SqlStore)


def test_a_password_is_shown_nowhere(tmp_path: Path) -> None:
    made = config(tmp_path, 'output = "postgresql"', 'database = "password=hush"')
    assert "hush" not in repr(made)
    wrong = config(tmp_path, 'output = "postgresql"', 'database = "password=hush hush"')
    with pytest.raises(ConfigError, match=r"receiver\.database") as caught:
        open_store(wrong, SystemClock())
    assert "hush" not in str(caught.value)


def test_without_the_driver_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any, **named: Any) -> Any:
        if name.startswith("psycopg"):
            raise ImportError("No module named 'psycopg'")
        return real(name, *arguments, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ConfigError, match=r"install wardlink\[postgresql\]"):
        open_store(config(tmp_path, 'output = "postgresql"', 'database = "x=y"'), SystemClock())

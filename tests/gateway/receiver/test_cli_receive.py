import asyncio
import json
import logging
import re
import sys
from pathlib import Path

import pytest

from gateway import cli_receive
from gateway.config.broker import Broker
from gateway.journal.entry import Stream
from gateway.journal.keys import HubKey
from gateway.receiver.intake import Report
from gateway.receiver.settings import load_receiver
from tests.gateway.uplink.bench import (
    HUB,
    PUBLIC,
    MemoryJournal,
    make_uplink,
    running,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults


def receive(folder: Path, *, as_json: bool) -> None:
    """`wardlink receive` until 30 entries are there."""
    lines = folder / "lines.jsonl"

    async def main() -> None:
        async with FaultBroker(Faults(), 1) as server:

            def subscribed() -> bool:
                session = server.sessions.get("wardlink-receiver-ward-r")
                return session is not None and bool(session.filters)

            source = folder / "receiver.toml"
            source.write_text(
                f'[receiver]\nid = "r"\ntenant = "{HUB.tenant}"\nstate_dir = "."\noutput_file = "{lines}"\n'
                f'[broker]\nhost = "127.0.0.1"\nport = {server.port}\n[hubs]\n{HUB.id} = "{PUBLIC}"\n'
            )
            stop = asyncio.Event()
            command = asyncio.ensure_future(
                cli_receive.receive(load_receiver(source), HubKey.generate(), stop, as_json=as_json)
            )
            journal = MemoryJournal()
            async with running(make_uplink(journal, Broker("127.0.0.1", server.port)).run()):
                await until(subscribed, "subscription")
                journal.commit(Stream.VITALS, 30)
                await until(
                    lambda: lines.exists() and lines.read_bytes().count(b'"entry"') == 30, "entries"
                )
                await asyncio.sleep(0.1)
            stop.set()
            await command

    asyncio.run(main())


def test_a_machine_reads_a_line_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_receive, "EVERY_S", 0.02)
    receive(tmp_path, as_json=True)
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(told) > 2
    counted = [line["entries"] for line in told]
    assert counted == sorted(counted)
    assert any(line["connected"] for line in told)
    last = told[-1]
    assert (last["entries"], last["hubs"], last["repeats"]) == (30, 1, 0)
    assert (last["rejected"], last["open_gaps"], last["missing"], last["trouble"]) == (
        0,
        0,
        0,
        None,
    )
    assert sum(line["entries_per_s"] > 0 for line in told) >= 1


def test_a_person_reads_one_line_and_a_summary(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(cli_receive, "EVERY_S", 0.02)
    receive(tmp_path, as_json=False)
    summary = (
        "receiver: 30 entries of 1 hubs, 0 repeats removed, 0 rejected, 0 open gaps (0 missing)\n"
    )
    assert capsys.readouterr().out == summary
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    before = [list(handler.filters) for handler in logging.getLogger().handlers]
    (second := tmp_path / "second").mkdir()
    receive(second, as_json=False)
    assert [list(handler.filters) for handler in logging.getLogger().handlers] == before
    out = capsys.readouterr().out
    assert re.search(r"\x1b\[Kconnected  \d+ entries/s  \d+ entries of \d hubs", out)
    assert out.count("\n") == 1
    assert f"\x1b[K{summary}" in out


def test_trouble_is_what_a_person_sees_first() -> None:
    report = Report(1, 2, 3, 4, 5, 6)
    progress = cli_receive.Progress(
        is_connected=True, trouble="SQLite: full", entries_per_s=0, report=report
    )
    assert progress.as_text().startswith(
        "cannot store: SQLite: full  0 entries/s  1 entries of 6 hubs"
    )
    assert json.loads(progress.as_json())["trouble"] == "SQLite: full"

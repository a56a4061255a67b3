"""The example in docs/library.md, as it stands there."""

import asyncio
import json
import re
import sqlite3
import types
from pathlib import Path

import pytest

from gateway.config.broker import Broker
from gateway.journal.entry import Stream
from tests.gateway.uplink.bench import (
    HUB,
    PUBLIC,
    MemoryJournal,
    make_uplink,
    running,
    until,
)
from tests.gateway.uplink.faultbroker import FaultBroker, Faults

DOCUMENT = Path(__file__).parents[3] / "docs" / "library.md"


@pytest.fixture
def example() -> types.ModuleType:
    text = DOCUMENT.read_text(encoding="utf-8")
    (code,) = re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    module = types.ModuleType("my_receiver")
    exec(compile(code, str(DOCUMENT), "exec"), module.__dict__)  # noqa: S102 - the document is ours
    return module


def test_the_example_keeps_each_entry_once_over_restarts(
    tmp_path: Path, example: types.ModuleType
) -> None:
    journal, path = MemoryJournal(), tmp_path / "mine.sqlite"

    def kept() -> list[int]:
        with sqlite3.connect(path) as database:
            rows = database.execute("SELECT line FROM mine").fetchall()
        database.close()
        lines = [json.loads(text) for (text,) in rows]
        return [line["sequence"] for line in lines if line["type"] == "entry"]

    async def main() -> None:
        async with FaultBroker(Faults(repeat=0.3), 1) as server:

            def subscribed() -> bool:
                session = server.sessions.get("my-receiver")
                return session is not None and bool(session.filters)

            broker = Broker("127.0.0.1", server.port)
            uplink = make_uplink(journal, broker)
            async with running(uplink.run()):
                for round_ in (1, 2):
                    async with running(example.receive(broker, {HUB.id: PUBLIC}, path)):
                        # Before that the broker keeps nothing for it.
                        await until(subscribed, "subscription")
                        for _ in range(10):
                            journal.commit(Stream.VITALS, 5)
                        uplink.wake()
                        await until(
                            lambda: path.exists() and len(kept()) >= 50 * round_,  # noqa: B023
                            "entries",
                        )

    asyncio.run(main())
    assert kept() == list(range(1, 101))

import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.receiver import receive
from gateway.uplink import release
from gateway.uplink.patience import NS_PER_S
from tests.gateway.receiver import databases

NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """How to reach a PostgreSQL."""
    elsewhere = os.environ.get(databases.ELSEWHERE)
    if elsewhere:
        yield elsewhere
    else:
        with databases.server() as server:
            yield server.conninfo


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, str]:
    """A fresh database: the dialect's name, and where it is."""
    if request.param == "sqlite":
        return "sqlite", str(tmp_path / "received.sqlite")
    return "postgresql", databases.fresh(
        request.getfixturevalue("postgresql_server"), next(NUMBERS)
    )


@pytest.fixture
def hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seconds become a tenth or less, so that a story of many losses is short."""
    monkeypatch.setattr(receive, "SYNC_S", 0.05)
    monkeypatch.setattr(release, "PROBE_FIRST_NS", NS_PER_S // 5)
    monkeypatch.setattr(release, "PROBE_AGAIN_NS", NS_PER_S // 5)
    monkeypatch.setattr(release, "PROBE_MOST_NS", NS_PER_S)

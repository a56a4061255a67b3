import itertools
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

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

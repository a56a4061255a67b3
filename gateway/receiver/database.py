"""A connection to a receiver's database: opened when needed, made anew after a fault, its tables made once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import Any

from gateway.clock import ClockState
from gateway.receiver.dialects import Dialect
from gateway.receiver.store import RefusedError, StoreError
from gateway.receiver.tables import (
    CLOCKS,
    ENTRIES,
    SCHEMA,
    SCHEMA_VERSION,
    TABLES,
    TIMED_ENTRIES,
    Row,
    Table,
    Value,
)

Rows = Mapping[str, tuple[Table, list[Row]]]
"""What is to be inserted, by the name of its table."""


class Database:
    """One connection. What a method raises is the driver's own; `faults` tells what it means."""

    def __init__(self, dialect: Dialect) -> None:
        """Touches nothing yet: a database that is away is waited for."""
        self.dialect = dialect
        self._connection: Any = None
        self._in_transaction = False

    @contextmanager
    def faults(self) -> Iterator[None]:
        """Turns what the driver raises into StoreError. After one that is not about the lines the connection is new."""
        try:
            yield
        except self.dialect.errors as error:
            fault = self.dialect.fault(error)
            if not isinstance(fault, RefusedError):
                self.close()
            raise fault from error

    def begin(self) -> None:
        """Opens a transaction."""
        self.run(self.dialect.begin)
        self._in_transaction = True

    def commit(self) -> None:
        """Ends it; what was written is on the disk."""
        self.run("COMMIT")
        self._in_transaction = False

    def rollback(self) -> None:
        """Ends it without a trace; a connection that cannot even do that is given up, which does it as well."""
        if self._in_transaction:
            self._in_transaction = False
            with suppress(StoreError), self.faults():
                self.run("ROLLBACK")

    def close(self) -> None:
        """Safe to call twice, and in the middle of a transaction."""
        connection, self._connection, self._in_transaction = self._connection, None, False
        if connection is not None:
            with suppress(*self.dialect.errors):
                connection.close()

    # --- Statements --------------------------------------------------------------------------------------

    def run(self, statement: str, values: Sequence[Value] = ()) -> Any:
        """One statement; returns the driver's cursor."""
        return self._connected().execute(statement, values)

    def now_ns(self) -> int | None:
        """The clock that all receivers share; None where they share the machine's."""
        statement = self.dialect.now_ns
        return None if statement is None else int(self.run(statement).fetchone()[0])

    def marks(self, columns: Iterable[str]) -> str:
        """A mark for each."""
        return ", ".join(self.dialect.mark for _ in columns)

    def equal(self, columns: Iterable[str], between: str = " AND ") -> str:
        """Each column with a mark for its value."""
        return between.join(f"{column} = {self.dialect.mark}" for column in columns)

    def insert(self, rows: Rows) -> None:
        """What is there already stays as it is, or gives way, as the table says."""
        for table, new in rows.values():
            columns = tuple(new[0])
            conflict = "DO NOTHING"
            if table.newest_holds:
                sets = ", ".join(f"{column} = excluded.{column}" for column in columns)
                conflict = f"({', '.join(table.key)}) DO UPDATE SET {sets}"
            self._run_all(
                f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({self.marks(columns)})"
                f" ON CONFLICT {conflict}",
                [tuple(row[column] for column in columns) for row in new],
            )

    def update(self, table: Table, columns: Sequence[str], rows: Sequence[Row]) -> None:
        """These columns of the rows with these keys."""
        if rows:
            sets, where = self.equal(columns, ", "), self.equal(table.key)
            self._run_all(
                f"UPDATE {table.name} SET {sets} WHERE {where}",
                [tuple(row[column] for column in (*columns, *table.key)) for row in rows],
            )

    def _run_all(self, statement: str, rows: Sequence[Sequence[Value]]) -> None:
        self._connected().cursor().executemany(statement, rows)

    # --- Opening -----------------------------------------------------------------------------------------

    def _connected(self) -> Any:
        if self._connection is None:
            self._connection = self.dialect.connect()
            for statement in self.dialect.session:
                self._connection.execute(statement)
            self._set_up()
        return self._connection

    def _set_up(self) -> None:
        """Makes the tables where there are none: an account that may not make any gets them made beforehand."""
        dialect = self.dialect
        if self.run(dialect.schema_is_there).fetchone()[0] is None:
            self.begin()
            if dialect.setup_lock is not None:
                self.run(dialect.setup_lock)
            # Another receiver may have made them while this one waited.
            if self.run(dialect.schema_is_there).fetchone()[0] is None:
                for statement in definition(dialect):
                    self.run(statement)
            self.insert({SCHEMA.name: (SCHEMA, [{"version": SCHEMA_VERSION}])})
            self.commit()
        (version,) = self.run(f"SELECT max(version) FROM {SCHEMA.name}").fetchone()
        if version != SCHEMA_VERSION:
            self.close()
            raise StoreError(
                f"database: got tables of version {version}, expected {SCHEMA_VERSION}; use another"
                " database or another version of wardlink"
            )


def definition(dialect: Dialect) -> Iterator[str]:
    """The statements that make the tables."""
    for table in TABLES:
        columns = [
            f"{name} {dialect.types[kind]}{' NOT NULL' if name in table.key else ''}"
            for name, kind in table.columns.items()
        ]
        key = f"PRIMARY KEY ({', '.join(table.key)})"
        yield f"CREATE TABLE {table.name} ({', '.join([*columns, key])})"
        for column, covered in table.indexes:
            yield (f"CREATE INDEX {table.name}_{column} ON {table.name} ({column}) WHERE {covered}")
    moment = dialect.moment.format(ns="(c.wall_ns + e.boottime_ns - c.boottime_ns)")
    known = f"c.wall_ns IS NOT NULL AND c.state <> '{ClockState.UNSET}'"
    yield (
        f"CREATE VIEW {TIMED_ENTRIES} AS SELECT e.*,"
        f" CASE WHEN {known} THEN {moment} ELSE e.time END AS best_time,"
        f" CASE WHEN {known} THEN c.state ELSE e.clock END AS best_clock"
        f" FROM {ENTRIES.name} e LEFT JOIN {CLOCKS.name} c"
        " ON c.hub = e.hub AND c.epoch = e.epoch AND c.boot_id = e.boot_id"
    )

"""A database as a store, which several receivers may share: SQLite on one machine, PostgreSQL anywhere.

The ledger lies in the database, a row for each track. A transaction takes the rows of the tracks that its messages
concern, and keeps them until it ends: so two receivers never take one entry for new, and of a gap both see the same.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace

from gateway.clock import Clock
from gateway.journal.entry import Stream
from gateway.receiver.database import Database
from gateway.receiver.dialects import Dialect
from gateway.receiver.ledger import Key, Ledger, Span, Track
from gateway.receiver.sql_clocks import Stored, read_clocks, write_clocks
from gateway.receiver.state import read_track, track_fields
from gateway.receiver.store import Line, StoreError, Totals
from gateway.receiver.tables import (
    GAPS,
    HUBS,
    ROWS,
    TRACKS,
    Row,
    Table,
    Value,
    integer,
    text,
)
from gateway.uplink.fields import dumps, loads
from gateway.uplink.notice import HubStatus
from gateway.uplink.receipt import Held

STATE = "CAST(state AS text)"
"""As it was written: a driver that read the JSON by itself would lose digits."""
KNOWN_TRACKS = 100_000
"""How many rows of tracks one receiver remembers to have made."""


class SqlStore:
    """One database, over one connection that is opened when needed and again after a fault."""

    def __init__(self, dialect: Dialect, clock: Clock) -> None:
        """Touches nothing yet: a database that is away is waited for."""
        self._database = Database(dialect)
        self._clock = clock
        self._ledger = Ledger()
        self._stored: dict[Key, str] = {}
        """The tracks of the open transaction, as they were read."""
        self._clocks: Stored = {}
        self._made: set[Key] = set()

    # --- The store -------------------------------------------------------------------------------------

    def begin(self, keys: Collection[Key], hubs: Collection[str]) -> tuple[Ledger, int]:
        """Waits for whoever has one of these tracks."""
        with self._database.faults():
            ledger = Ledger()
            wanted = sorted(keys, key=_identity)
            self._make_rows(wanted)
            self._database.begin()
            # Always in one order, so that two receivers never wait for each other. Tracks first, then hubs.
            found = self._tracks(wanted, self._database.dialect.lock)
            now_ns = self._now_ns()
            self._stored = found
            for key in wanted:
                # From before a restart of the machine, whose clock began anew.
                ledger.tracks[key] = _clamped(read_track(loads(found[key].encode())), now_ns)
            for hub in sorted(hubs):
                self._read_hub(hub, ledger)
            self._clocks = read_clocks(self._database, keys, ledger)
            self._ledger = ledger
            return ledger, now_ns

    def commit(self, lines: Sequence[Line]) -> None:
        """One transaction: rows, tracks, notices."""
        with self._database.faults():
            rows: dict[str, tuple[Table, list[Row]]] = {}
            for line in lines:
                if line["type"] == "gap_closed":
                    # It may be one that was named a few lines before.
                    self._database.insert(rows)
                    rows.clear()
                    self._close_gap(line)
                    continue
                for table, row in ROWS[str(line["type"])](line):
                    rows.setdefault(table.name, (table, []))[1].append(row)
            self._database.insert(rows)
            self._write_tracks()
            self._write_hubs()
            write_clocks(self._database, self._clocks, self._ledger)
            self._database.commit()

    def rollback(self) -> None:
        """Gives the tracks back."""
        self._database.rollback()

    def due(self, grace_ns: int) -> Collection[Key]:
        """By the clock that all receivers share."""
        with self._database.faults():
            now_ns = self._now_ns()
            mark = self._database.dialect.mark
            where = f"unnamed_since <= {mark} OR unnamed_since > {mark}"
            found = self._database.run(
                f"SELECT hub, stream, epoch FROM {TRACKS.name} WHERE {where}",
                (now_ns - grace_ns, now_ns),
            )
            return [Key(hub, Stream(stream), epoch) for hub, stream, epoch in found.fetchall()]

    def held(self, hub: str, epoch: str) -> Mapping[Stream, Held]:
        """What all receivers have together."""
        with self._database.faults():
            ledger = Ledger()
            found = self._database.run(
                f"SELECT stream, {STATE} FROM {TRACKS.name}"
                f" WHERE {self._database.equal(('hub', 'epoch'))}",
                (hub, epoch),
            )
            for stream, state in found.fetchall():
                ledger.tracks[Key(hub, Stream(stream), epoch)] = read_track(loads(state.encode()))
            return ledger.held(hub, epoch)

    def totals(self) -> Totals:
        """What all receivers have together."""
        with self._database.faults():
            found = self._database.run(
                f"SELECT sum(open_gaps), sum(missing) FROM {TRACKS.name} WHERE missing > 0"
            )
            open_gaps, missing = found.fetchone()
            return Totals(int(open_gaps or 0), int(missing or 0))

    @property
    def unsynced(self) -> bool:
        """Never: a commit is on the disk."""
        return False

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Safe to call twice."""
        self._database.close()

    def _now_ns(self) -> int:
        now_ns = self._database.now_ns()
        return self._clock.boottime_ns() if now_ns is None else now_ns

    # --- Tracks and hubs -------------------------------------------------------------------------------

    def _make_rows(self, keys: Sequence[Key]) -> None:
        """Before the transaction, since only a row that is there can be kept."""
        new = [key for key in keys if key not in self._made]
        if new:
            self._database.begin()
            rows = [_track_row(key, Track()) for key in new]
            self._database.insert({TRACKS.name: (TRACKS, rows)})
            self._database.commit()
            if len(self._made) > KNOWN_TRACKS:
                self._made.clear()
            self._made |= set(new)

    def _tracks(self, keys: Sequence[Key], lock: str) -> dict[Key, str]:
        if not keys:
            return {}
        one = f"({self._database.marks(TRACKS.key)})"
        found = self._database.run(
            f"SELECT hub, stream, epoch, {STATE} FROM {TRACKS.name}"
            f" WHERE (hub, stream, epoch) IN (VALUES {', '.join(one for _ in keys)})"
            f" ORDER BY hub, stream, epoch{lock}",
            [part for key in keys for part in _identity(key)],
        )
        stored = {Key(h, Stream(s), e): state for h, s, e, state in found.fetchall()}
        if len(stored) < len(keys):
            self._made.clear()
            raise StoreError("database: rows of tracks vanished; expected that nobody deletes them")
        return stored

    def _write_tracks(self) -> None:
        changed = [
            row
            for key, track in self._ledger.tracks.items()
            if (row := _track_row(key, track))["state"] != self._stored[key]
        ]
        columns = [column for column in TRACKS.columns if column not in TRACKS.key]
        self._database.update(TRACKS, columns, changed)

    def _read_hub(self, hub: str, ledger: Ledger) -> None:
        columns = ("boot_id", "boottime_ns", "status")
        self._database.insert({HUBS.name: (HUBS, [{"hub": text(hub)}])})
        found = self._database.run(
            f"SELECT {', '.join(columns)} FROM {HUBS.name}"
            f" WHERE {self._database.equal(HUBS.key)}{self._database.dialect.lock}",
            (hub,),
        )
        boot_id, boottime_ns, status = found.fetchone()
        if boot_id is not None:
            ledger.beats[hub] = (boot_id, boottime_ns)
        if status is not None:
            ledger.statuses[hub] = HubStatus.decode(status.encode())

    def _write_hubs(self) -> None:
        ledger = self._ledger
        beats: list[Row] = [
            {"hub": hub, "boot_id": text(boot_id), "boottime_ns": integer(boottime_ns)}
            for hub, (boot_id, boottime_ns) in ledger.beats.items()
        ]
        statuses: list[Row] = [
            {"hub": hub, "status": status.encode().decode("ascii")}
            for hub, status in ledger.statuses.items()
        ]
        self._database.update(HUBS, ("boot_id", "boottime_ns"), beats)
        self._database.update(HUBS, ("status",), statuses)

    def _close_gap(self, line: Line) -> None:
        """A gap that closes in part is cut: each row is wholly open or wholly closed."""
        span = Span(int(str(line["first"])), int(str(line["last"])))
        identity = {part: str(line[part]) for part in TRACKS.key}
        mark = self._database.dialect.mark
        where = (
            f" WHERE {self._database.equal(TRACKS.key)} AND closed_at IS NULL"
            f" AND first_sequence <= {mark} AND last_sequence >= {mark} AND cause = {mark}"
        )
        values: list[Value] = [*identity.values(), span.last, span.first, str(line["cause"])]
        found = self._database.run(
            f"SELECT first_sequence, last_sequence, named_at FROM {GAPS.name}{where}", values
        ).fetchall()
        self._database.run(f"DELETE FROM {GAPS.name}{where}", values)
        rows: list[Row] = []
        for first, last, named_at in found:
            gap = Span(first, last)
            closed = gap.overlap(span)
            pieces: list[tuple[Span, str | None]] = [(rest, None) for rest in gap.without(span)]
            if closed is not None:
                pieces.append((closed, str(line["received_at"])))
            rows.extend(
                {
                    **identity,
                    "first_sequence": piece.first,
                    "last_sequence": piece.last,
                    "cause": str(line["cause"]),
                    "named_at": named_at,
                    "closed_at": closed_at,
                }
                for piece, closed_at in pieces
            )
        if rows:
            self._database.insert({GAPS.name: (GAPS, rows)})


def _identity(key: Key) -> tuple[str, str, str]:
    return key.hub, key.stream.value, key.epoch


def _clamped(track: Track, now_ns: int) -> Track:
    track.holes = [
        replace(hole, since_ns=now_ns) if hole.since_ns and hole.since_ns > now_ns else hole
        for hole in track.holes
    ]
    return track


def _track_row(key: Key, track: Track) -> Row:
    unnamed = [h.since_ns for h in track.holes if not h.named and h.since_ns is not None]
    hub, stream, epoch = _identity(key)
    return {
        "hub": hub,
        "stream": stream,
        "epoch": epoch,
        "high": track.high,
        "missing": sum(len(hole.span) for hole in track.holes if hole.is_missing),
        "open_gaps": sum(hole.named for hole in track.holes),
        "unnamed_since": min(unnamed, default=None),
        "state": dumps(track_fields(track)),
    }

"""What each statement of a revision costs others: seconds, WAL, locks, and the tables that it writes anew or scans."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.migrations.running import in_one_line
from skinspire_db.postgres import search_path, sql_text

if TYPE_CHECKING:
    import sqlalchemy

    from skinspire_db.postgres.connections import Connection

# What a table's lock keeps from going on (PostgreSQL manual, Explicit Locking); the other modes stop neither.
STOPS = {
    "AccessExclusiveLock": "readers and writers",
    "ExclusiveLock": "writers",
    "ShareRowExclusiveLock": "writers",
    "ShareLock": "writers",
}
ROWS = "rows"  # the mode of what an UPDATE or DELETE locks: others wait who write the same rows
WRITES = {*STOPS, "RowExclusiveLock", "ShareUpdateExclusiveLock"}
# Scans, rows read by them, and rows changed; those of the session's former transactions are in them for up to a second.
COUNTS = (
    "pg_stat_get_xact_numscans({0}), pg_stat_get_xact_tuples_returned({0}),"
    " pg_stat_get_xact_tuples_updated({0}) + pg_stat_get_xact_tuples_deleted({0})"
)
KINDS = "'r', 'p', 'm', 'v', 'f', 'S', 'i'"
RELATIONS = f"""
    SELECT c.oid::bigint, c.oid::regclass::text, c.relkind::text, c.relfilenode::bigint, x.indrelid::bigint,
           {COUNTS.format("c.oid")}
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_index x ON x.indexrelid = c.oid
    WHERE c.relkind IN ({KINDS}) AND {objects.APPLICATION_SCHEMA} AND {objects.NOT_ALEMBICS}
"""  # noqa: S608
# Of each locked relation: its modes, its file, and its counts.
STATE = f"""
    SELECT l.relation::bigint, l.modes, c.relfilenode::bigint, {COUNTS.format("l.relation")}
    FROM (SELECT relation, array_agg(mode) AS modes FROM pg_locks
          WHERE pid = pg_backend_pid() AND locktype = 'relation' AND granted GROUP BY 1) AS l
    LEFT JOIN pg_class c ON c.oid = l.relation
"""  # noqa: S608
ALEMBICS = "SELECT pg_catalog.pg_class.relname FROM"  # whether its table is there
WAL = "SELECT pg_catalog.pg_current_wal_insert_lsn()::text"


@dataclass
class Lock:
    """A lock that others wait for, or rows that they cannot write.

    Attributes:
        table: its name.
        mode: PostgreSQL's word, or "rows".
        seconds: how long it was held, from the statement's begin to the end of the revision's transaction.
        rows: how many, for "rows".
    """

    table: str
    mode: str
    seconds: float
    rows: int = 0

    @property
    def stops(self) -> str:
        """What waits for it: "readers and writers", "writers", or "" for neither."""
        return "writers of these rows" if self.mode == ROWS else STOPS.get(self.mode, "")

    def __str__(self) -> str:
        """Its mode in SQL's words, with the table."""
        if self.mode == ROWS:
            return f"{self.rows:,} row{'s' if self.rows != 1 else ''} of {self.table} locked"
        words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", self.mode.removesuffix("Lock")).upper()
        return f"{words} on {self.table}"


@dataclass
class Statement:
    """A statement that ran, or a step of the revision's transaction, as "triggers".

    Attributes:
        sql: its text; values that are bound are not in it.
        seconds: its wall time.
        wal: bytes that the server wrote to its WAL meanwhile.
        locks: what it holds newly.
        rewritten: tables that were written anew.
        scanned: table -> rows that were read from its first page to its last.
    """

    sql: str
    seconds: float = 0.0
    wal: int = 0
    locks: list[Lock] = field(default_factory=list)
    rewritten: list[str] = field(default_factory=list)
    scanned: dict[str, int] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """The fields by name, for JSON."""
        locks = [vars(each) | {"seconds": round(each.seconds, 3), "stops": each.stops} for each in self.locks]
        return vars(self) | {"seconds": round(self.seconds, 3), "locks": locks}

    def __str__(self) -> str:
        what = list(map(str, strongest(self.locks)))
        what += [f"{each} is written anew" for each in self.rewritten]
        what += [f"{rows:,} row{'s' if rows != 1 else ''} of {name} read" for name, rows in self.scanned.items() if rows]
        return f"{self.seconds:.2f} s, {self.wal / 1e6:.1f} MB of WAL: {'; '.join([self.sql, *what])}"


def strongest(locks: Iterable[Lock]) -> list[Lock]:
    """Of the locks that stop others the strongest of each table, and its rows; the one that was held longest comes first."""
    found: dict[tuple[str, bool], Lock] = {}
    for lock in sorted(locks, key=lambda each: (list(STOPS).index(each.mode) if each.mode in STOPS else 9, -each.seconds)):
        if lock.stops:
            found.setdefault((lock.table, lock.mode == ROWS), lock)
    return sorted(found.values(), key=lambda each: -each.seconds)


def listen(
    alchemist: sqlalchemy.Connection, before: Callable[[str, Callable[[], None]], object], after: Callable[[str], object]
) -> None:
    """Be told of each statement that SQLAlchemy runs; several in one text are run one by one.

    Args:
        alchemist: SQLAlchemy's connection.
        before: gets a statement's text, and what runs it.
        after: gets the text of a statement that has run.
    """
    import sqlalchemy

    def run(_connection: Any, cursor: Any, sql: str, parameters: Any, context: Any, many: bool) -> tuple[str, Any]:
        execute = context.dialect.do_executemany if many else context.dialect.do_execute
        pieces = [sql] if parameters or many else sql_text.split(sql, ";")
        pieces = [each for each in pieces if sql_text.statements_only(each).strip()] or [sql]
        for piece in pieces:
            before(in_one_line(piece), partial(execute, cursor, piece, parameters, context))
            if piece is not pieces[-1]:
                execute(cursor, piece, parameters, context)
                after(in_one_line(piece))
        return pieces[-1], parameters

    sqlalchemy.event.listen(alchemist, "before_cursor_execute", run, retval=True)
    sqlalchemy.event.listen(alchemist, "after_cursor_execute", lambda _c, _cursor, sql, *_: after(in_one_line(sql)))


class Measure:
    """Measures the statements of one revision, in the transaction that it runs in.

    Its own queries do not count: the clock stands still meanwhile.
    """

    def __init__(self, connection: Connection, version_table: str) -> None:
        self.connection = connection
        self.version_table = version_table
        self.statements: list[Statement] = []
        self.lost: list[str] = []
        self.touched: set[int] = set()  # the oids of relations that may have other rows now
        self.seconds = 0.0
        self._paused, self._first = 0.0, time.perf_counter()
        self._ended = self._first
        self._begun: list[tuple[Lock, float]] = []
        relations = search_path.rows(connection, RELATIONS)
        self._relations = {oid: (name, kind) for oid, name, kind, *_ in relations}
        self._files = {oid: file for oid, _, _, file, *_ in relations}
        self._indexed = {oid: table for oid, _, _, _, table, *_ in relations if table}
        self._counts = {oid: counts for oid, _, _, _, _, *counts in relations}
        self._state = self._look()
        self._start: tuple[float, str] = (0.0, "")

    @property
    def wal(self) -> int:
        """Bytes of WAL of all its statements."""
        return sum(each.wal for each in self.statements)

    def __call__(self, alchemist: sqlalchemy.Connection, lost: list[str]) -> None:
        """Listen to the statements; `lost` is the list of losses that running.apply fills."""
        self.lost = lost
        listen(alchemist, lambda _sql, _run: self.begin(), self.end)

    def begin(self) -> None:
        """A statement, or a step, is about to run."""
        with self._pause():
            # What was locked since the last one: by the driver's own cursor, or by the tools, which drop views in the way.
            between = Statement("beside its statements")
            self._compare(between, self._ended)
            self._add(between, only_if_it_stops=True)
            wal = self._wal()
        self._start = self._now(), wal

    def end(self, sql: str, *, only_if_it_stops: bool = False) -> None:
        """It has run; what is not of the revision's own statements counts where it stops others."""
        ended = self._ended = self._now()
        with self._pause():
            started, wal = self._start
            row = self.connection.execute(
                "SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), %s::pg_catalog.pg_lsn)::bigint",
                (wal,),
            ).fetchone()
            statement = Statement(sql, ended - started, int(row[0]) if row else 0)
            self._compare(statement, started)
            self._add(statement, only_if_it_stops=only_if_it_stops)

    def finish(self) -> None:
        """The transaction has ended: every lock was held until now."""
        self.seconds = self._now() - self._first
        for lock, since in self._begun:
            lock.seconds = self._now() - since

    def _compare(self, statement: Statement, started: float) -> None:
        before, self._state = self._state, self._look()
        for oid, (modes, file, scans, read, changed) in self._state.items():
            if oid not in self._relations:  # it was made by this transaction: no other session sees it
                continue
            if oid in self._indexed and not self._stops_readers(oid, modes):
                continue
            name, kind = self._relations[oid]
            had, _, scanned, rows, written = before.get(oid, ([], file, *self._counts[oid]))
            for mode in sorted(set(modes) - set(had), key=lambda each: (each not in STOPS, each)):
                self._hold(statement, Lock(name, mode, 0.0), started)
            if changed > written:
                self._hold(statement, Lock(name, ROWS, 0.0, changed - written), started)
            if kind in "rm" and file is not None and self._files[oid] != file:
                statement.rewritten.append(name)
                self._files[oid] = file
            if kind in "rm" and scans > scanned and read > rows:
                statement.scanned[name] = read - rows
            if set(modes) & WRITES:
                self.touched.add(oid)

    def _stops_readers(self, index: int, modes: list[str]) -> bool:
        """Whether an index is locked so that no query on its table can be planned, and the table itself is not."""
        most = "AccessExclusiveLock"
        return most in modes and most not in self._state.get(self._indexed[index], ([], None, 0, 0, 0))[0]

    def _hold(self, statement: Statement, lock: Lock, since: float) -> None:
        statement.locks.append(lock)
        self._begun.append((lock, since))

    def _look(self) -> dict[int, tuple[list[str], int | None, int, int, int]]:
        return {oid: (modes, *rest) for oid, modes, *rest in search_path.rows(self.connection, STATE)}

    def _wal(self) -> str:
        row = self.connection.execute(WAL).fetchone()
        return str(row[0]) if row else "0/0"

    def _add(self, statement: Statement, *, only_if_it_stops: bool = False) -> None:
        alembics = self.version_table in statement.sql or statement.sql.startswith(ALEMBICS)
        if any(lock.stops for lock in statement.locks) or not (alembics or only_if_it_stops):
            self.statements.append(statement)

    @contextlib.contextmanager
    def _pause(self) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self._paused += time.perf_counter() - started

    def _now(self) -> float:
        return time.perf_counter() - self._paused

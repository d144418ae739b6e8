"""The seeded state of a database: what a test has changed, and how it is put back.

PostgreSQL counts what is written to every table, rolled back or not; a session's counts can be read when it ends, or after
pg_stat_force_next_flush() (PostgreSQL manual, The Cumulative Statistics System). TRUNCATE shows as another relfilenode, a
sequence by its value, definitions as writes to the catalogues.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

FIRST_USER_OID = 16384
PG_CLASS, PG_DATABASE, PG_DB_ROLE_SETTING = 1259, 1262, 2964  # fixed in PostgreSQL's own catalogue files
MANY_WRITES = 50_000  # with more in one table, a new clone is faster than to delete them
COPY = "seeded_"  # the copies of the seeded rows are skinspire_tools.seeded_<oid>, which nothing else looks at

# Relations with rows of their own, and whether the rows can be written back: a trigger that fires ALWAYS would change them.
TABLES = f"""
    SELECT c.oid, format('%I.%I', n.nspname, c.relname),
           ARRAY(SELECT quote_ident(attname) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0
                 AND NOT a.attisdropped AND a.attgenerated = '' ORDER BY a.attnum),
           c.relkind = 'r' AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgenabled IN ('A', 'R'))
               AND NOT EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.oid >= 16384 AND {objects.USER_SCHEMA}
"""  # noqa: S608
SEQUENCES = f"""
    SELECT c.oid, format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind = 'S' AND {objects.USER_SCHEMA} ORDER BY 1
"""  # noqa: S608
# SharedDatabase catalogues are every database's; pg_statistic is ANALYZE's.
COUNTS = """
    SELECT c.oid, c.relfilenode,
           pg_stat_get_tuples_inserted(c.oid) + pg_stat_get_tuples_updated(c.oid) + pg_stat_get_tuples_deleted(c.oid)
    FROM pg_class c
    WHERE c.relkind IN ('r', 'm') AND (NOT c.relisshared OR c.oid IN (1262, 2964)) AND c.relname !~ '^pg_statistic'
    UNION ALL SELECT 0, 0, extract(epoch FROM pg_stat_get_db_stat_reset_time(oid))::bigint FROM pg_database
    WHERE datname = current_database()
"""
# The columns of pg_class that TRUNCATE, which writes to pg_class, does not change.
RELATIONS = """
    SELECT count(*), sum(hashtextextended(row(oid, relname, relnamespace, relowner, relkind, relacl, reloptions,
           relpersistence, reltablespace, relrowsecurity, relforcerowsecurity, relchecks, relreplident)::text, 0))
    FROM pg_class WHERE oid >= 16384
"""
SETTINGS = """
    SELECT datconnlimit, datallowconn, datistemplate, datdba, datacl::text,
           ARRAY(SELECT row(setrole, setconfig)::text FROM pg_db_role_setting WHERE setdatabase = d.oid ORDER BY setrole)
    FROM pg_database d WHERE datname = current_database()
"""
# Without triggers and foreign keys: the rows are written as they were.
BEGIN = "BEGIN; SET LOCAL session_replication_role = replica; SET LOCAL lock_timeout = '10s'"

Counts = dict[int, tuple[int, int]]


class Unrestorable(Exception):
    """Only a new clone undoes what a test has done; the text says what that is."""


@dataclass(frozen=True)
class Table:
    """A table with rows of its own; `plain` when they can be written back one by one. `copy` holds the seeded ones."""

    name: str
    columns: str
    plain: bool
    copy: str | None


class Seeded:
    """The seeded state of the database behind a connection, which is in autocommit and stays open."""

    def __init__(self, connection: Connection) -> None:
        """Record the present state, and keep a copy of the rows in the database itself."""
        self.connection = connection
        connection.execute("SET stats_fetch_consistency = none; SET jit = off; SET row_security = off")
        row = connection.execute(
            "SELECT has_parameter_privilege('session_replication_role', 'SET'), current_setting('track_counts')::bool"
        ).fetchone()
        assert row
        self.may_restore, self.counts_writes = row
        self.sequences = dict(connection.execute(SEQUENCES).fetchall())
        self.tables = self._keep()
        self._values = " UNION ALL ".join(
            f"SELECT {oid}::oid, last_value, is_called FROM {name}"  # noqa: S608  # quoted by format()
            for oid, name in self.sequences.items()
        )
        self.values = self._sequence_values()
        self.relations, self.settings = self._one(RELATIONS), self._one(SETTINGS)
        self.before: Counts = {}
        self.mark()

    def mark(self) -> None:
        """Count from now on what is written."""
        self.connection.execute("SELECT pg_stat_force_next_flush()")
        self.before = self._counts()

    def put_back(self) -> list[str]:
        """Undo what was written since mark() by sessions that have ended or flushed their counts.

        Returns:
            The names of the tables that were written to.

        Raises:
            Unrestorable: for what only a new clone undoes; the state is then as the test has left it.
        """
        touched = self._touched()
        statements = [
            f"SELECT setval({oid}::regclass, {self.values[oid][0]}, {self.values[oid][1]})"
            for oid, value in self._sequence_values().items()
            if value != self.values[oid]
        ]
        for table in touched:
            statements.append(f"DELETE FROM ONLY {table.name}")  # noqa: S608
            if table.copy:
                rows = f"OVERRIDING SYSTEM VALUE SELECT {table.columns} FROM {table.copy}"  # noqa: S608
                statements.append(f"INSERT INTO {table.name} ({table.columns}) {rows}")
        if statements:
            self.connection.execute("; ".join((BEGIN, *statements, "COMMIT")).encode())
        return [table.name for table in touched]

    def reset_sequences(self, oids: list[int]) -> None:
        """Set these sequences to their seeded values; one that the test has made is gone, and passed over."""
        for oid in oids:
            if oid in self.values:
                self.connection.execute("SELECT setval(%s::oid::regclass, %s, %s)", (oid, *self.values[oid]))

    def _touched(self) -> list[Table]:
        """The tables that were written to.

        Raises:
            Unrestorable: for what only a new clone undoes.
        """
        if not self.counts_writes:
            raise Unrestorable("the server does not count writes (track_counts is off)")
        now = self._counts()
        if now.get(0) != self.before.get(0):
            raise Unrestorable("the server's statistics were reset")
        changed = {oid for oid in now.keys() | self.before.keys() if now.get(oid) != self.before.get(oid)}
        if not changed:
            return []
        catalogues = {oid for oid in changed if oid < FIRST_USER_OID}
        only_truncated = PG_CLASS not in changed or self._one(RELATIONS) == self.relations
        if catalogues - {PG_CLASS, PG_DATABASE, PG_DB_ROLE_SETTING} or not only_truncated:
            raise Unrestorable("definitions were changed")
        if changed & {PG_DATABASE, PG_DB_ROLE_SETTING} and self._one(SETTINGS) != self.settings:
            raise Unrestorable("settings of the database were changed")
        touched = [self.tables[oid] for oid in changed if oid in self.tables]
        if not self.may_restore and touched:
            raise Unrestorable("the role may not set session_replication_role")
        if special := [table.name for table in touched if not table.plain]:
            raise Unrestorable(f"{', '.join(special)} cannot be put back row by row")
        if any(now[oid][1] - self.before[oid][1] > MANY_WRITES for oid in changed if oid in now and oid in self.before):
            raise Unrestorable("very many rows were written")
        return touched

    def _keep(self) -> dict[int, Table]:
        """The tables by their oids, and in the database a copy of the rows of each that has any and can be put back."""
        relations = self.connection.execute(TABLES).fetchall()
        have_rows = ", ".join(f"EXISTS (SELECT FROM ONLY {name})" for _, name, _, _ in relations)
        row = self.connection.execute(f"SELECT ARRAY[{have_rows}]::bool[]".encode()).fetchone()
        assert row
        tables, statements = {}, []
        for filled, (oid, name, columns, plain) in zip(row[0], relations, strict=True):
            listed, copy = ", ".join(columns), None
            if filled and plain and self.may_restore:
                copy = f"skinspire_tools.{COPY}{oid}"
                statements.append(f"CREATE UNLOGGED TABLE {copy} AS SELECT {listed} FROM ONLY {name}")  # noqa: S608
            tables[oid] = Table(name, listed, plain, copy)
        if statements:
            self.connection.execute("; ".join(statements).encode())
        return tables

    def _counts(self) -> Counts:
        return {oid: (file, count) for oid, file, count in self.connection.execute(COUNTS).fetchall()}

    def _sequence_values(self) -> dict[int, tuple[int, bool]]:
        if not self._values:
            return {}
        rows = self.connection.execute(self._values.encode()).fetchall()
        return {oid: (last, called) for oid, last, called in rows}

    def _one(self, query: str) -> tuple[Any, ...] | None:
        return self.connection.execute(query.encode()).fetchone()

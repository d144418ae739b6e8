"""Bringing tables back that were dropped since, from a recovered server: their definitions by pg_dump, and their rows."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import definitions, fingerprint, objects
from skinspire_db.catalog.fields import Snapshot
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres.client_programs import client_tools
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

WHOLE = "--take=whole brings all back"
UNLOGGED = "it is unlogged, and its rows are in no WAL"
FITTING = "make that first, or take the table that it refers to with it, as --take=a,b, or --take=whole"
# A table, with the partitions that went with it.
TREE = """
    SELECT n.nspname, c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = %(table)s::regclass OR c.oid IN (SELECT relid FROM pg_partition_tree(%(table)s::regclass))
"""
SEQUENCES = """
    SELECT DISTINCT format('%%I.%%I', n.nspname, c.relname) FROM pg_depend d JOIN pg_class c ON c.oid = d.objid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE d.classid = 'pg_class'::regclass AND d.refclassid = d.classid AND d.refobjid = ANY (%s::regclass[])
      AND d.deptype IN ('a', 'i') AND c.relkind = 'S'
"""
# What DROP ... CASCADE takes along, as PostgreSQL names it, but what has no name of its own; and the SQL of what pg_dump
# leaves out of a table's dump: foreign keys of other tables, and extended statistics.
HANGING = """
    WITH RECURSIVE hanging (classid, objid, objsubid) AS (
        SELECT 'pg_class'::regclass::oid, t::oid, 0 FROM unnest(%s::regclass[]) AS t
        UNION
        SELECT found.* FROM hanging h CROSS JOIN LATERAL (
            SELECT d.classid, d.objid, d.objsubid FROM pg_depend d
            WHERE d.refclassid = h.classid AND d.refobjid = h.objid AND h.objsubid IN (0, d.refobjsubid)
            UNION ALL SELECT 'pg_class'::regclass::oid, r.ev_class, 0 FROM pg_rewrite r
            WHERE h.classid = 'pg_rewrite'::regclass AND r.oid = h.objid) AS found
    )
    SELECT i.type, i.identity, coalesce(
        CASE WHEN k.contype = 'f'
             THEN format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', k.conrelid::regclass, k.conname, pg_get_constraintdef(k.oid)) END,
        CASE WHEN s.oid IS NOT NULL
             THEN format('%%s; ALTER STATISTICS %%s OWNER TO %%I; COMMENT ON STATISTICS %%2$s IS %%4$L', pg_get_statisticsobjdef(s.oid),
                         i.identity, pg_get_userbyid(s.stxowner), obj_description(s.oid, 'pg_statistic_ext')) END)
    FROM hanging h CROSS JOIN pg_identify_object(h.classid, h.objid, h.objsubid) AS i
    LEFT JOIN pg_constraint k ON h.classid = 'pg_constraint'::regclass AND k.oid = h.objid
    LEFT JOIN pg_statistic_ext s ON h.classid = 'pg_statistic_ext'::regclass AND s.oid = h.objid
    WHERE i.type NOT IN ('rule', 'type', 'toast table', 'view column') AND i.identity !~ '^pg_toast'
      AND NOT (h.classid = 'pg_trigger'::regclass AND (SELECT tgisinternal FROM pg_trigger WHERE oid = h.objid))
    ORDER BY 1, 2
"""  # noqa: E501
# Columns that rows bring along, in order; a generated one computes itself.
COLUMNS = """
    SELECT quote_ident(attname), format_type(atttypid, atttypmod) FROM pg_attribute
    WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum
"""
# The dump's own settings come before its first entry: they would end this transaction's time-outs.
ENTRIES = re.compile(r"\n--\n-- Name: .*(?=\n--\n-- PostgreSQL database dump complete)", re.DOTALL)


@dataclass
class Dropped:
    """Tables that were there then and are not now, in the transaction that brings them back.

    Attributes:
        now: the connection of that transaction.
        former: a connection to the database of then.
        then: where that is.
        tables: quoted names, and whether each has rows of its own.
        before: the definitions of now, before.
    """

    now: Connection
    former: Connection
    then: Target
    tables: dict[str, bool]
    before: Snapshot = field(init=False)

    def make(self) -> int:
        """Make the tables, and bring their rows. Returns how many rows.

        Raises:
            StepFailed: something that they need is gone as well, or the rows are not those of then.
        """
        self.before = definitions.snapshot(self.now)
        self._run_fitting("--section=pre-data")
        for (sequence,) in self.former.execute(SEQUENCES.encode(), (list(self.tables),)).fetchall():
            value = self.former.execute(f"SELECT last_value, is_called FROM {sequence}".encode()).fetchone()  # noqa: S608
            assert value
            self.now.execute(b"SELECT setval(%s::regclass, %s, %s)", (sequence, *value))
        return sum(self._bring(table) for table, filled in self.tables.items() if filled)

    def finish(self, summary: Summary) -> None:
        """Make their indexes, keys and triggers, then what hung on them: foreign keys of other tables, and views.

        What of these cannot be made is a line of the summary.

        Raises:
            StepFailed: a key of the tables does not fit to the others of now, or something is not what it was then.
        """
        self._run_fitting("--section=post-data")
        reasons: dict[str, str] = {}
        lost = self._lost()
        if views := [identity for kind, identity, _ in lost if kind in ("view", "materialized view")]:
            options = [f"--table={each}" for each in views]
            reasons |= dict.fromkeys(views, self._tried(lambda: self._run(*options)))
        for _, identity, statements in lost:
            if statements:
                reasons[identity] = self._tried(lambda text=statements: self.now.execute(text.encode()))
        self._compare()
        for kind, identity, _ in self._lost():
            why = f": {reasons[identity]}" if reasons.get(identity) else ""
            summary.lines.append(f"not back: {kind} {identity}, which went with the table{why}")
        for table in self.tables:
            if unlogged(self.former, table):
                summary.lines.append(f"{table} is back without rows: {UNLOGGED}")
        summary.numbers["tables_brought_back"] = len(self.tables)

    def _run_fitting(self, section: str) -> None:
        """Run a part of the tables' own dump."""
        from psycopg import errors

        try:
            self._run(section, *(f"--table={each}" for each in self.tables))
        except (errors.IntegrityError, errors.ProgrammingError) as error:
            if isinstance(error, errors.InsufficientPrivilege):
                raise
            raise StepFailed(f"a table does not fit to what is there now: {sentence(error)}", remedy=FITTING) from None

    def _run(self, *options: str) -> None:
        """Run a part of a dump of then."""
        tools = client_tools(self.former.info.server_version)
        dumped = ENTRIES.search(tools.run("pg_dump", self.then, "--encoding=UTF8", "--no-subscriptions", *options))
        if dumped:
            self.now.execute(dumped[0].encode(errors="surrogateescape"))

    def _tried(self, make: Any) -> str:
        """Make something, or leave the transaction as it was. Returns why not."""
        import psycopg

        try:
            with self.now.transaction():
                make()
        except psycopg.Error as error:
            return sentence(error)
        return ""

    def _bring(self, table: str) -> int:
        """Bring the rows of a table, and read them back."""
        columns = ", ".join(row[0] for row in self.former.execute(COLUMNS.encode(), (table,)).fetchall())
        named = f"{table} ({columns})" if columns else table
        source, sink = f"COPY {named} TO STDOUT", f"COPY {named} FROM STDIN"
        hashed = f"SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)), 0) FROM ONLY {table}"  # noqa: S608
        for connection in (self.former, self.now):
            connection.execute(f"{fingerprint.SPELLING}; SET LOCAL lc_monetary = 'C'".encode())
        with self.former.cursor().copy(source.encode()) as rows, self.now.cursor().copy(sink.encode()) as into:
            for block in rows:
                into.write(block)
        found = [connection.execute(hashed.encode()).fetchone() for connection in (self.former, self.now)]
        if found[0] != found[1] or found[0] is None:
            raise StepFailed(f"the rows of {table} are not those of then", remedy=WHOLE)
        return int(found[0][0])

    def _compare(self) -> None:
        """Read back: all that is defined of the tables, and all that has come with them, is as it was then."""
        former, present = definitions.snapshot(self.former), definitions.snapshot(self.now)
        names = "|".join(re.escape(self._plainly(table)) for table in self.tables)
        own = re.compile(rf'(?<![\w".])(?:{names})(?![\w"])')
        wanted = {key for key in former if own.search(key)} | (present.keys() - self.before.keys())
        for key in sorted(wanted):
            if former.get(key) != present.get(key):
                raise StepFailed(f"{key} is not what it was then", remedy=WHOLE)

    def _plainly(self, table: str) -> str:
        """The name with quotes only where SQL needs them, as definitions have it."""
        row = self.former.execute(b"SELECT %s::regclass::text", (table,)).fetchone()
        assert row
        return str(row[0])

    def _lost(self) -> list[Any]:
        """What hung on the tables then, and does not now."""
        former, present = (
            each.execute(HANGING.encode(), (list(self.tables),)).fetchall() for each in (self.former, self.now)
        )
        there = {(kind, identity) for kind, identity, _ in present}
        return [row for row in former if row[:2] not in there]


def unlogged(former: Connection, table: str) -> bool:
    """Whether a table of then has lost its rows in the recovery."""
    return former.execute(b"SELECT relpersistence = 'u' FROM pg_class WHERE oid = %s::regclass", (table,)).fetchone() == (
        True,
    )


def find(now: Connection, former: Connection, then: Target, names: list[str]) -> Dropped | None:
    """Those of the named tables that were there then and are not now, with their partitions; None where there are none.

    Args:
        now: the connection of the transaction that will bring them back.
        former: a connection to the database of then.
        then: where that is.
        names: quoted names.
    """
    found: dict[str, bool] = {}
    for name in names:
        for schema, table, kind in former.execute(TREE.encode(), {"table": name}).fetchall():
            found[objects.quoted_name(schema, table)] = kind == "r"
    return Dropped(now, former, then, found) if found else None

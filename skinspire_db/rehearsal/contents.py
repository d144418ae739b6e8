"""What tables hold before and after a revision, and what a database has that PostgreSQL does not vouch for."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.lifecycle.result import Check
from skinspire_db.migrations import losses
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

# The stored columns of each table with rows of its own; what is NOT NULL has as many values as the table has rows.
COLUMNS = f"""
    SELECT c.oid::bigint, c.oid::regclass::text, format('%I.%I', n.nspname, c.relname), a.attnum, a.attname::text,
           a.attnotnull, format_type(a.atttypid, a.atttypmod)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped AND a.attgenerated = ''
    WHERE c.relkind = 'r' AND {objects.APPLICATION_SCHEMA} AND {objects.NOT_ALEMBICS} ORDER BY 1, 4
"""  # noqa: S608
NOT_VALID = f"""
    SELECT k.oid::bigint, k.conname::text, c.oid::regclass::text,
           format('ALTER TABLE %I.%I VALIDATE CONSTRAINT %I', n.nspname, c.relname, k.conname)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT k.convalidated AND k.contype IN ('c', 'f', 'n') AND k.conparentid = 0
        AND {objects.APPLICATION_SCHEMA} ORDER BY 2
"""  # noqa: S608
INVALID = f"""
    SELECT c.oid::bigint, c.relname::text, x.indrelid::regclass::text
    FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE NOT x.indisvalid AND {objects.APPLICATION_SCHEMA} ORDER BY 2
"""  # noqa: S608


@dataclass(frozen=True)
class Column:
    """A column: its type, and how many of its values are not NULL."""

    name: str
    type: str
    values: int


@dataclass(frozen=True)
class Table:
    """A table: its name, its rows, and its columns by their numbers, which a rename leaves as they are."""

    name: str
    rows: int
    columns: dict[int, Column]

    def as_dict(self) -> dict[str, Any]:
        """Rows and values by column, for JSON."""
        return {"rows": self.rows, "values": {each.name: each.values for each in self.columns.values()}}


def tables(connection: Connection, but: Collection[int] = ()) -> dict[int, Table]:
    """The tables by oid, with their rows and values counted.

    Args:
        connection: the database, as a role that sees all rows.
        but: the oids of those that are not counted.
    """
    from psycopg import sql

    columns: dict[int, list[tuple[Any, ...]]] = {}
    for oid, *more in search_path.rows(connection, COLUMNS):
        if oid not in but:
            columns.setdefault(oid, []).append(tuple(more))
    found = {}
    for oid, each in columns.items():
        name, quoted = each[0][:2]
        there = [(number, column, kind, full) for _, _, number, column, full, kind in each if number is not None]
        counted = [column for _, column, _, full in there if not full]
        query = sql.SQL("SELECT {} FROM ONLY ").format(
            sql.SQL(", ").join([sql.SQL("count(*)"), *(sql.SQL("count({})").format(sql.Identifier(one)) for one in counted)])
        )
        rows, *values = connection.execute(query + sql.SQL(quoted)).fetchone() or (0,)
        known = dict(zip(counted, values, strict=True))
        found[oid] = Table(name, rows, {no: Column(one, kind, known.get(one, rows)) for no, one, kind, _ in there})
    return found


def lost(before: dict[int, Table], after: dict[int, Table], said: Collection[str]) -> Iterator[str]:
    """What a revision has taken away, a sentence each.

    Args:
        before: the tables that it may have changed, as they were.
        after: as they are.
        said: what its statements told of what they cut or round, as `losses.of` has it.
    """
    known = [each for each in dict.fromkeys(said) if " becomes " in each and ": 0 of " not in each]
    yield from known
    by_name = {each.name: each for each in after.values()}
    for oid, had in before.items():
        has = after.get(oid) or by_name.get(had.name)  # a table that takes the place of another one has its name
        if has is None:
            if had.rows:
                yield f"table {had.name} is dropped, with {had.rows:,} rows"
        elif has.rows < had.rows:
            yield f"table {had.name} loses {had.rows - has.rows:,} of {had.rows:,} rows"
        else:
            yield from _of_columns(had, has, same=oid in after, known=" ".join(known))


def _of_columns(had: Table, has: Table, *, same: bool, known: str) -> Iterator[str]:
    by_name = {each.name: each for each in has.columns.values()}
    for number, former in had.columns.items():
        latter = (has.columns.get(number) if same else None) or by_name.get(former.name)
        name = f"{had.name}.{former.name}"
        said = f"{had.name.rpartition('.')[2]}.{former.name}"  # a statement may have the schema or not
        if latter is None:
            if former.values:
                yield f"column {name} is dropped, with {former.values:,} values"
        elif latter.values < former.values:
            yield f"column {name} loses {former.values - latter.values:,} of {former.values:,} values"
        elif former.values and _is_narrower(former, latter) and f"{said}: {former.type} becomes" not in known:
            # A statement that was composed in a DO block says nothing beforehand.
            yield f"column {name}: {former.type} becomes {latter.type}: some of {former.values:,} values may be cut"


def _is_narrower(former: Column, latter: Column) -> bool:
    return former.type != latter.type and losses.loses(former.type, latter.type)


def unproved(connection: Connection) -> dict[int, tuple[str, str]]:
    """Constraints that are NOT VALID and indexes that are invalid, by oid: the name with its table, and what validates it."""
    found = {oid: (f"constraint {name} on {table}", sql) for oid, name, table, sql in search_path.rows(connection, NOT_VALID)}
    return found | {oid: (f"index {name} on {table}", "") for oid, name, table in search_path.rows(connection, INVALID)}


def checks(connection: Connection, before: Collection[int]) -> Iterator[Check]:
    """Whether the rows obey each NOT VALID constraint that is new, and whether each new index is valid. Nothing is kept.

    Args:
        connection: the database, in a transaction.
        before: the oids that `unproved` has found before.
    """
    import psycopg

    for oid, (name, validates) in unproved(connection).items():
        if oid in before:
            continue
        if not validates:
            yield Check(name, "fail", "it is invalid: no query uses it", "drop it, and make it again")
            continue
        try:
            with connection.transaction(force_rollback=True), search_path.application(connection):
                connection.execute(validates.encode())
            yield Check(name, "pass", "NOT VALID, and no row violates it")
        except psycopg.errors.IntegrityError:
            remedy = "correct the rows in this revision, or before it"
            yield Check(name, "fail", "rows violate it: its VALIDATE will fail", remedy)


def names(snapshot: Collection[str]) -> set[str]:
    """The keys of a snapshot of definitions that a revision makes and its downgrade takes back."""
    return {key for key in snapshot if re.match(r"(table|column|constraint|index|sequence|type|schema) ", key)}

"""The tables that reference data names, as the database has them: columns and foreign keys, and what is missing."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.content.files import Row, TableRows
from skinspire_db.errors import StepFailed

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Place = tuple[str, str]
SHOWN = 5  # faults in one message


@dataclass(frozen=True)
class ForeignKey:
    """A foreign key: `columns` refer to the columns `others` of the table at `place`."""

    columns: list[str]
    place: Place
    others: list[str]


COLUMNS = """
    SELECT n.nspname, c.relname, array_agg(a.attname::text ORDER BY a.attnum)
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    WHERE c.relkind IN ('r', 'p', 'f') AND n.nspname <> 'skinspire_tools'
      AND (n.nspname, c.relname) IN (SELECT * FROM unnest(%s::text[], %s::text[])) GROUP BY 1, 2
"""
KEYS = """
    SELECT n.nspname, c.relname, rn.nspname, r.relname,
           (SELECT array_agg(a.attname::text ORDER BY x.n) FROM unnest(k.conkey) WITH ORDINALITY AS x (num, n)
            JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = x.num),
           (SELECT array_agg(a.attname::text ORDER BY x.n) FROM unnest(k.confkey) WITH ORDINALITY AS x (num, n)
            JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = x.num)
    FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_class r ON r.oid = k.confrelid JOIN pg_namespace rn ON rn.oid = r.relnamespace
    WHERE k.contype = 'f' ORDER BY cardinality(k.conkey), k.conname
"""


def check(connection: Connection, tables: Sequence[TableRows]) -> None:
    """Compare the tables and columns that the files name with those of the database.

    Raises:
        StepFailed: some do not exist; all of them in one message, with the file.
    """
    places = sorted({table.place for table in tables})
    names = [schema for schema, _ in places], [name for _, name in places]
    columns = {(schema, name): each for schema, name, each in connection.execute(COLUMNS.encode(), names).fetchall()}
    if faults := list(dict.fromkeys(fault for table in tables for fault in _faults(connection, table, columns))):
        more = f"; and {len(faults) - SHOWN} more" if len(faults) > SHOWN else ""
        raise StepFailed(
            f"the reference data does not fit the database: {'; '.join(faults[:SHOWN])}{more}",
            remedy=f"correct {', '.join(dict.fromkeys(table.file for table in tables))}, or make what is missing:"
            " invoke migrate.upgrade --env={env}",
        )


def foreign_keys(connection: Connection, tables: Sequence[TableRows]) -> dict[Place, list[ForeignKey]]:
    """The foreign keys of every table, those of a single column first; none where no row of the files names another one."""
    found: dict[Place, list[ForeignKey]] = {}
    if any(isinstance(value, dict) for table in tables for row in table.rows for value in row.values()):
        for schema, name, other_schema, other, columns, others in connection.execute(KEYS.encode()).fetchall():
            found.setdefault((schema, name), []).append(ForeignKey(columns, (other_schema, other), others))
    return found


def _faults(connection: Connection, table: TableRows, columns: dict[Place, list[str]]) -> Iterator[str]:
    if table.place not in columns:
        rows = connection.execute(
            "SELECT CASE n.nspname WHEN 'public' THEN c.relname::text ELSE n.nspname || '.' || c.relname END"
            " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind IN ('r', 'p')"
        ).fetchall()
        yield f"{table.file}: there is no table {table.table}{_like(table.table, [name for (name,) in rows])}"
        return
    known = columns[table.place]
    for column in dict.fromkeys((*table.key, *(column for row in table.rows for column in row))):
        if column not in known:
            yield f"{table.file}: the table {table.table} has no column {column}{_like(column, known)}"


def _like(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f" (there is {close[0]})" if close else ""


def lookups(keys: list[ForeignKey], row: Row) -> dict[str, tuple[ForeignKey, Row]]:
    """The columns of a row whose value names a row of another table: column -> foreign key, and the other's natural key."""
    named = {column: value for column, value in row.items() if isinstance(value, dict)}
    keys_by_column = {column: key for key in reversed(keys) for column in key.columns}
    return {column: (keys_by_column[column], value) for column, value in named.items() if column in keys_by_column}

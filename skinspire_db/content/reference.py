"""Reference data: apply what changed in the files since they were last applied, and nothing else."""

from __future__ import annotations

import contextlib
import copy
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from skinspire_db.content import relations
from skinspire_db.content.files import Row, TableRows
from skinspire_db.content.relations import ForeignKey, Place
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres import search_path, side_by_side
from skinspire_db.postgres.error_text import sentence

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Insert = Callable[["Connection", Place, list[Row]], bool]


@dataclass(frozen=True)
class Entry:
    """A row that should be, with other rows' keys looked up: `key` tells which it is, `values` are its other columns."""

    key: Row
    values: Row

    @property
    def name(self) -> str:
        """The key as the tools remember it."""
        return json.dumps(self.key, sort_keys=True)


@dataclass
class Changes:
    """What is to do in a table: rows to add, columns to change, and rows that refer to rows which are not there yet."""

    table: TableRows
    added: list[Entry] = field(default_factory=list)
    updated: list[tuple[Entry, Row]] = field(default_factory=list)
    remembered: list[Entry] = field(default_factory=list)
    waiting: list[Row] = field(default_factory=list)


def apply(connection: Connection, tables: Iterable[TableRows], insert: Insert | None = None) -> Summary:
    """Bring the rows of the files up to date, in the caller's transaction.

    A column is written when the file says something else than at the last time, or when its row is missing; what people
    edited since stays. Rows that the files no longer have stay too.

    Args:
        connection: The database.
        tables: The rows.
        insert: Adds rows of a table where the models have defaults that PostgreSQL does not know; returns whether it did.

    Raises:
        StepFailed: a table, a column or a row that another one refers to is not there, or PostgreSQL refuses a row.
    """
    import psycopg

    if not (tables := list(tables)):
        return _summary(0, 0)
    with connection.transaction():
        tool_schema.ensure(connection)
        paths = _Paths.of(connection)
        try:
            # What needs no answer is sent without waiting for one; SQLAlchemy waits for each.
            reader = _Reader(connection, tables)
            with connection.transaction(), contextlib.nullcontext() if insert else connection.pipeline():
                return _apply(reader, tables, paths, insert)
        except (psycopg.errors.DataError, psycopg.errors.IntegrityError, psycopg.errors.RaiseException):
            return _apply(
                _Reader(connection, tables), tables, paths, insert, one_by_one=True
            )  # raises for the row that is refused


@dataclass(frozen=True)
class _Paths:
    """The search path of the caller, and that of the application, whose triggers may name its tables without a schema."""

    caller: str
    application: str

    @classmethod
    def of(cls, connection: Connection) -> _Paths:
        return cls(*search_path.paths(connection))


def _apply(
    reader: _Reader, tables: list[TableRows], paths: _Paths, insert: Insert | None, *, one_by_one: bool = False
) -> Summary:
    todo = [(table, table.rows) for table in tables]
    added = updated = 0
    while todo:
        waiting = []
        for table, rows in todo:
            changes = reader.changes(table, rows)
            _write(reader.connection, changes, paths, insert, one_by_one=one_by_one)
            added, updated = added + len(changes.added), updated + len(changes.updated)
            if changes.waiting:
                waiting.append((table, changes.waiting))
        if sum(len(rows) for _, rows in waiting) == sum(len(rows) for _, rows in todo):
            raise _unresolved(reader, waiting)
        todo = waiting
    return _summary(added, updated)


def _summary(added: int, updated: int) -> Summary:
    return Summary({"reference_rows_added": added, "reference_rows_updated": updated})


def plan(connection: Connection, tables: Iterable[TableRows]) -> list[Changes]:
    """What apply() would do, found out by reading only: a row that waits for another one is a row to add.

    Raises:
        StepFailed: as apply().
    """
    tables = list(tables)
    if not tables:
        return []
    reader = _Reader(connection, tables)
    return side_by_side.run(connection, *(partial(reader.changes_beside, table) for table in tables))


def missing(connection: Connection, tables: Iterable[TableRows]) -> list[str]:
    """The rows that must be there and are not, for a reader; those that people may delete are not looked for.

    Raises:
        StepFailed: a table or a column is not there.
    """
    found = []
    for changes in plan(connection, [table for table in tables if table.restore]):
        table = changes.table
        found += [f"{table.table} {' '.join(str(v) for v in each.key.values() if v is not None)}" for each in changes.added]
        found += [f"{table.table} {table.name_of(row)}" for row in changes.waiting]
    return found


class _Reader:
    """Compares rows of the files with those of the database, a table at a time."""

    def __init__(self, connection: Connection, tables: list[TableRows]) -> None:
        self.connection = connection
        self.keys = {table.place: table.key for table in tables}

        def remembered(connection: Connection) -> dict[tuple[str, str], Row]:
            if not tool_schema.exists(connection):
                return {}
            names = [table.table for table in tables]
            query = "SELECT table_name, row_key, applied FROM skinspire_tools.reference WHERE table_name = ANY (%s)"
            return {(table, key): values for table, key, values in connection.execute(query, (names,)).fetchall()}

        asked: list[Callable[[Connection], Any]] = [
            lambda reader: relations.check(reader, tables), lambda reader: relations.foreign_keys(reader, tables), remembered
        ]  # fmt: skip
        _, self.foreign_keys, self.remembered = side_by_side.run(connection, *asked)

    def changes_beside(self, table: TableRows, connection: Connection) -> Changes:
        """What is to do with all rows of a table, read beside other tables."""
        reader = copy.copy(self)
        reader.connection = connection
        return reader.changes(table, table.rows)

    def changes(self, table: TableRows, rows: list[Row]) -> Changes:
        """What is to do so that these rows of a table are as the files say."""
        changes = Changes(table)
        entries = self._resolved(table, rows, changes.waiting)
        present = self._present(table, entries)
        for number, entry in enumerate(entries):
            before = self.remembered.get((table.table, entry.name))
            if number in present:
                # Without a memory of it, a row that is there is taken as it is.
                change = {} if before is None else {c: v for c, v in entry.values.items() if before.get(c, ...) != v}
                if change:
                    changes.updated.append((entry, change))
            elif table.restore or before is None:
                changes.added.append(entry)
            if before != entry.values:
                changes.remembered.append(entry)
        return changes

    def _resolved(self, table: TableRows, rows: list[Row], waiting: list[Row]) -> list[Entry]:
        """The rows with what they refer to in place of its natural key; those that refer to nothing go to `waiting`."""
        where = f"{table.file}: {table.table}"
        entries = []
        for row, resolved in zip(rows, self._values(table.place, rows, where), strict=True):
            if resolved is None:
                waiting.append(row)
                continue
            entries.append(
                Entry(
                    {column: resolved.get(column) for column in table.key},
                    {column: value for column, value in resolved.items() if column not in table.key},
                )
            )
        return entries

    def _values(self, place: Place, rows: list[Row], where: str) -> list[Row | None]:
        """The rows with the values of their foreign keys; None for one whose other row is not there."""
        wanted: dict[str, tuple[ForeignKey, list[int], list[Row]]] = {}
        for number, row in enumerate(rows):
            for column, (key, natural) in relations.lookups(self.foreign_keys.get(place, []), row).items():
                _, numbers, naturals = wanted.setdefault(column, (key, [], []))
                numbers.append(number)
                naturals.append(dict.fromkeys(self._completed(key.place, natural)) | natural)
        resolved: list[Row | None] = [dict(row) for row in rows]
        for column, (key, numbers, naturals) in wanted.items():
            values = self._looked_up(key, column, naturals, f"{where}.{column}")
            for position, number in enumerate(numbers):
                row_so_far = resolved[number]
                if row_so_far is not None and position in values:
                    row_so_far[column] = values[position]
                else:
                    resolved[number] = None
        return resolved

    def _completed(self, place: Place, natural: Row) -> tuple[str, ...]:
        """The other's key, where the files have that table: a column of it that is left out is NULL."""
        key = self.keys.get(place, ())
        return key if set(natural) <= set(key) else ()

    def _looked_up(self, key: ForeignKey, column: str, natural: list[Row], where: str) -> dict[int, Any]:
        """The values that the foreign key needs, by the position of the natural key, which may name further rows itself."""
        from psycopg import sql

        target = key.others[key.columns.index(column)]
        result: dict[int, Any] = {}
        plain = [(position, row) for position, row in enumerate(self._values(key.place, natural, where)) if row is not None]
        matched = self._matched(
            key.place, [row for _, row in plain], sql.SQL("to_jsonb(t.{})").format(sql.Identifier(target)), where
        )
        for number, value in matched:
            position = plain[number][0]
            if position in result and result[position] != value:
                raise StepFailed(
                    f"{where} names several rows of {key.place[1]}: {_shown(natural[position])}",
                    remedy="name it by all columns of its natural key",
                )
            result[position] = value
        return result

    def _present(self, table: TableRows, entries: list[Entry]) -> set[int]:
        """The positions of those that are there."""
        from psycopg import sql

        found = self._matched(table.place, [entry.key for entry in entries], sql.SQL("true"), f"{table.file}: {table.table}")
        return {position for position, _ in found}

    def _matched(self, place: Place, keys: list[Row], selected: Any, where: str) -> list[tuple[int, Any]]:
        """Each position of a key with what is selected from the row that has it. NULLs are told apart: `=` uses an index."""
        import psycopg
        from psycopg import sql
        from psycopg.types.json import Jsonb

        found: list[tuple[int, Any]] = []
        shapes: dict[tuple[tuple[str, bool], ...], list[int]] = {}
        for position, each in enumerate(keys):
            shapes.setdefault(tuple((column, value is None) for column, value in each.items()), []).append(position)
        for shape, positions in shapes.items():
            conditions = [
                sql.SQL("t.{} IS NULL" if null else "t.{0} = k.{0}").format(sql.Identifier(column)) for column, null in shape
            ]
            query = sql.SQL(
                "SELECT k.ordinality, {} FROM jsonb_populate_recordset(NULL::{table}, %s) WITH ORDINALITY AS k"
                " JOIN {table} AS t ON {}"
            ).format(selected, sql.SQL(" AND ").join(conditions), table=sql.Identifier(*place))
            try:
                rows = self.connection.execute(query, (Jsonb([keys[position] for position in positions]),)).fetchall()
            except (psycopg.errors.DataError, psycopg.errors.UndefinedColumn, psycopg.errors.UndefinedFunction) as error:
                raise StepFailed(f"{where}: {sentence(error)}", remedy=f"correct {where.partition(':')[0]}") from None
            found += [(positions[number - 1], value) for number, value in rows]
        return found


def _search(connection: Connection, path: str) -> None:
    """Set the search path by a statement that can be sent without waiting for the one before it."""
    connection.execute("SELECT pg_catalog.set_config('search_path', %s, true)", (path,))


def _write(connection: Connection, changes: Changes, paths: _Paths, insert: Insert | None, *, one_by_one: bool) -> None:
    table = changes.table
    if changes.added or changes.updated:
        _search(connection, paths.application)
        for entries in [[each] for each in changes.added] if one_by_one else [changes.added]:
            _add(connection, table, [{**entry.key, **entry.values} for entry in entries], insert)
        for entry, change in changes.updated:
            update(connection, table.place, entry.key, change)
        _search(connection, paths.caller)
    if changes.remembered:
        _remember(connection, table.table, changes.remembered)


def _add(connection: Connection, table: TableRows, rows: list[Row], insert: Insert | None) -> None:
    """Add rows; an error names the first of them, which is the one that PostgreSQL refuses where it is alone."""
    import psycopg

    try:
        if rows and not (insert and insert(connection, table.place, rows)):
            add(connection, table.place, rows)
    except (psycopg.errors.DataError, psycopg.errors.IntegrityError, psycopg.errors.RaiseException) as error:
        if len(rows) > 1:
            raise
        raise StepFailed(
            f"{table.file}: {table.table}, {table.name_of(rows[0])}: {sentence(error)}", remedy=f"correct {table.file}"
        ) from None


def add(connection: Connection, place: Place, rows: list[Row]) -> None:
    """Add rows to a table; a column that a row leaves out gets its default."""
    from psycopg import sql
    from psycopg.types.json import Jsonb

    for columns in dict.fromkeys(tuple(row) for row in rows):
        alike = [row for row in rows if tuple(row) == columns]
        names = sql.SQL(", ").join(map(sql.Identifier, columns))
        connection.execute(
            sql.SQL("INSERT INTO {0} ({1}) SELECT {1} FROM jsonb_populate_recordset(NULL::{0}, %s)").format(
                sql.Identifier(*place), names
            ),
            (Jsonb(alike),),
        )


def update(connection: Connection, place: Place, key: Row, change: Row) -> None:
    """Write columns of the row with this key."""
    from psycopg import sql
    from psycopg.types.json import Jsonb

    connection.execute(
        sql.SQL("UPDATE {0} AS t SET {1} FROM jsonb_populate_record(NULL::{0}, %s) AS new WHERE {2}").format(
            sql.Identifier(*place),
            sql.SQL(", ").join(sql.SQL("{0} = new.{0}").format(sql.Identifier(column)) for column in change),
            sql.SQL(" AND ").join(sql.SQL("t.{0} IS NOT DISTINCT FROM new.{0}").format(sql.Identifier(c)) for c in key),
        ),
        (Jsonb(key | change),),
    )


def _remember(connection: Connection, table: str, entries: list[Entry]) -> None:
    from psycopg.types.json import Jsonb

    connection.execute(
        """
        INSERT INTO skinspire_tools.reference (table_name, row_key, applied)
        SELECT %s, row_key, applied FROM jsonb_to_recordset(%s) AS new (row_key text, applied jsonb)
        ON CONFLICT (table_name, row_key) DO UPDATE SET applied = EXCLUDED.applied
        """,
        (table, Jsonb([{"row_key": each.name, "applied": each.values} for each in entries])),
    )


def _unresolved(reader: _Reader, waiting: list[tuple[TableRows, list[Row]]]) -> StepFailed:
    """The error of a row that refers to one which no file names; others may only wait for that row."""
    named = {table.place: rows for table, rows in waiting}

    def is_named(place: Place, other: Row) -> bool:
        return any(all(row.get(column) == value for column, value in other.items()) for row in named.get(place, ()))

    lost = [
        (table, row, column, key, other)
        for table, rows in waiting
        for row in rows
        for column, (key, other) in relations.lookups(reader.foreign_keys.get(table.place, []), row).items()
    ]
    table, row, column, key, other = next((each for each in lost if not is_named(each[3].place, each[4])), lost[0])
    return StepFailed(
        f"{table.file}: {table.table}, {table.name_of(row)}: a row that it refers to is not there:"
        f" {column} names a row of {key.place[1]}, {_shown(other)}",
        remedy=f"correct {table.file}, or name that row in a file of reference data",
    )


def _shown(natural: Row) -> str:
    return ", ".join(f"{column} = {json.dumps(value)}" for column, value in natural.items())

"""Taking single tables over from a recovered server, in one transaction: only rows that differ are written.

A table that was dropped since comes back as it was (dropped.py).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects, row_security
from skinspire_db.errors import StepFailed, UsageError
from skinspire_db.lifecycle.result import Summary
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target
from skinspire_db.recovery import dropped
from skinspire_db.recovery.dropped import COLUMNS

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

KEY = """
    SELECT quote_ident(a.attname) FROM pg_index i CROSS JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (number, place)
    JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.number
    WHERE i.indrelid = %s::regclass AND i.indisprimary ORDER BY k.place
"""
RESOLVED = """
    SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = to_regclass(%s) AND c.relkind IN ('r', 'p')
"""
REFERRED_TO = "SELECT confrelid FROM pg_constraint WHERE contype = 'f' AND conrelid = %s::regclass"
TRIGGERS = """
    SELECT quote_ident(tgname), tgenabled::text FROM pg_trigger
    WHERE tgrelid = %s::regclass AND NOT tgisinternal AND tgenabled <> 'D'
"""
UPDATE = "UPDATE {table} AS t SET {set} FROM {aside} AS a WHERE {same} AND ROW({new})::text IS DISTINCT FROM ROW({old})::text"
INSERT = """
    INSERT INTO {table} ({columns}) OVERRIDING SYSTEM VALUE SELECT {new} FROM {aside} AS a
    WHERE NOT EXISTS (SELECT FROM {table} AS t WHERE {same})
"""
ENABLED = {"O": "ENABLE TRIGGER", "R": "ENABLE REPLICA TRIGGER", "A": "ENABLE ALWAYS TRIGGER"}


def named(tables: str) -> list[str]:
    """The names in a list with commas between.

    Raises:
        UsageError: there is none.
    """
    names = [each.strip() for each in tables.split(",") if each.strip()]
    if not names:
        raise UsageError("--take names no table", remedy="name some, as --take=patients,staff, or --take=whole")
    return names


def over(connection: Connection, then: Target, names: list[str]) -> Summary:
    """Make the rows of some tables what they were then; those that were dropped since come back whole.

    Args:
        connection: to the database of now, in the operation's transaction.
        then: the database of then.
        names: the tables.

    Raises:
        StepFailed: a table is not the same as it was then, or has no primary key, or does not fit to the others.
        PermissionMissing: row security hides rows from the role.
        psycopg.Error: the rows of then do not fit to the other tables' of now.
    """
    summary = Summary({"tables": len(names), "rows_written": 0, "rows_deleted": 0})
    with contextlib.closing(connections.connect(then, "backup.restore")) as former:
        connections.begin(former, then.policy, brief=True)
        row_security.require_all_rows(former)
        quoted = {name: _resolved(former, name) for name in names}
        gone = [quoted[name] for name in names if not _found(connection, name)]
        back = dropped.find(connection, former, then, gone)
        if back:
            summary.numbers["rows_written"] = back.make()
        tables = [table for table in dict.fromkeys(quoted.values()) if table not in gone]
        for table in tables:
            _refuse_another(connection, former, table)
        asides = [_bring(connection, former, table, number) for number, table in enumerate(tables)]
        _make_the_same(connection, list(zip(tables, asides, strict=True)), summary)
        if back:
            back.finish(summary)
    return summary


def _make_the_same(connection: Connection, pairs: list[tuple[str, str]], summary: Summary) -> None:
    """Make the rows of tables those of then, which are aside."""
    connection.execute("SET CONSTRAINTS ALL DEFERRED")
    silent = {table: _silence(connection, table) for table, _ in pairs}
    # Deleted first, those that refer to others before these; then written, the other way round.
    order = _ordered(connection, pairs)
    for table, aside in order:
        summary.numbers["rows_deleted"] = int(summary.numbers["rows_deleted"]) + _delete(connection, table, aside)
    for table, aside in reversed(order):
        summary.numbers["rows_written"] = int(summary.numbers["rows_written"]) + _write(connection, table, aside)
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    for table, triggers in silent.items():
        _restore_triggers(connection, table, triggers)
    for table, aside in pairs:
        _compare(connection, table, aside)


def _found(connection: Connection, name: str) -> list[Any]:
    """The schema and the name of a table, as the application would find it."""
    connection.execute("SET LOCAL search_path = public, pg_catalog, pg_temp")
    rows = connection.execute(RESOLVED.encode(), (name,)).fetchall()
    connection.execute("SET LOCAL search_path = pg_catalog, pg_temp")
    return rows


def _resolved(connection: Connection, name: str) -> str:
    """The table's quoted name then."""
    if rows := _found(connection, name):
        return objects.quoted_name(*rows[0])
    raise StepFailed(
        f"there was no table {name} then",
        remedy="give an earlier or later time; --keep leaves the server of then to look into",
    )


def _refuse_another(now: Connection, then: Connection, table: str) -> None:
    """Refuse a table that is another one now, or whose rows cannot be told apart."""
    columns = [each.execute(COLUMNS.encode(), (table,)).fetchall() for each in (then, now)]
    if columns[0] != columns[1]:
        raise StepFailed(f"{table} has other columns now than then", remedy="--take=whole brings all back")
    if dropped.unlogged(then, table):
        raise StepFailed(f"{table} cannot be what it was: {dropped.UNLOGGED}", remedy="leave it out of --take")
    if not now.execute(KEY.encode(), (table,)).fetchall():
        raise StepFailed(
            f"{table} has no primary key, by which its rows could be told apart", remedy="--take=whole brings all back"
        )


def _names(connection: Connection, query: str, table: str) -> list[str]:
    return [row[0] for row in connection.execute(query.encode(), (table,)).fetchall()]


def _bring(now: Connection, then: Connection, table: str, number: int) -> str:
    """The rows of then in a temporary table, whose name is returned."""
    aside, columns = f"pg_temp.then_{number}", ", ".join(_names(now, COLUMNS, table))
    rows = f"SELECT {columns} FROM {table}"  # noqa: S608
    now.execute(f"CREATE TEMPORARY TABLE then_{number} ON COMMIT DROP AS {rows} WHERE false".encode())
    reads, writes = f"COPY ({rows}) TO STDOUT (FORMAT binary)", f"COPY {aside} FROM STDIN (FORMAT binary)"
    with then.cursor().copy(reads.encode()) as source, now.cursor().copy(writes.encode()) as sink:
        for block in source:
            sink.write(block)
    return aside


def _silence(connection: Connection, table: str) -> list[Any]:
    """Rows come back as they were: triggers that would change them are off until the end of the transaction."""
    triggers = connection.execute(TRIGGERS.encode(), (table,)).fetchall()
    if triggers:
        connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
    else:
        connection.execute(f"LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE".encode())
    return triggers


def _restore_triggers(connection: Connection, table: str, triggers: list[Any]) -> None:
    for name, enabled in triggers:
        connection.execute(f"ALTER TABLE {table} {ENABLED[enabled]} {name}".encode())


def _ordered(connection: Connection, pairs: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Tables that refer to others before these; in a circle, as they come."""
    refers = {table: {row[0] for row in connection.execute(REFERRED_TO.encode(), (table,)).fetchall()} for table, _ in pairs}
    oids = {table: connection.execute(b"SELECT %s::regclass::oid", (table,)).fetchall()[0][0] for table, _ in pairs}
    left, order = dict(pairs), []
    while left:
        free = [name for name in left if not any(oids[name] in refers[other] for other in left if other != name)] or list(
            left
        )[:1]
        order += [(name, left.pop(name)) for name in free]
    return order


def _same(connection: Connection, table: str) -> str:
    return " AND ".join(f"a.{name} = t.{name}" for name in _names(connection, KEY, table))


def _delete(connection: Connection, table: str, aside: str) -> int:
    same = _same(connection, table)
    query = f"DELETE FROM {table} AS t WHERE NOT EXISTS (SELECT FROM {aside} AS a WHERE {same})"  # noqa: S608
    return connection.execute(query.encode()).rowcount


def _write(connection: Connection, table: str, aside: str) -> int:
    columns, key = _names(connection, COLUMNS, table), _names(connection, KEY, table)
    others = [name for name in columns if name not in key]
    new, old = (", ".join(f"{side}.{name}" for name in columns) for side in "at")
    values = {"table": table, "aside": aside, "same": _same(connection, table), "columns": ", ".join(columns), "new": new,
              "old": old, "set": ", ".join(f"{name} = a.{name}" for name in others)}  # fmt: skip
    queries = [INSERT, UPDATE] if others else [INSERT]
    return sum(connection.execute(query.format(**values).encode()).rowcount for query in queries)


def _compare(connection: Connection, table: str, aside: str) -> None:
    """Read back: the rows are those of then."""
    columns = ", ".join(_names(connection, COLUMNS, table))
    hashed = f"SELECT count(*), coalesce(sum(hashtextextended(ROW({columns})::text, 0)::numeric), 0) FROM "  # noqa: S608
    present, former = (connection.execute(f"{hashed}{of}".encode()).fetchone() for of in (table, aside))
    if present != former:
        raise StepFailed(f"the rows of {table} are not those of then", remedy="a rule or a trigger keeps them: --take=whole")

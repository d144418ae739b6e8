"""Triggers that no file of ours made and that undo what ours do: found by trying, not by reading their code."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skinspire_db.objects import ledger
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.ledger import Wanted
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from psycopg import sql

    from skinspire_db.postgres.connections import Connection

TABLES = 3  # on so many tables a function is tried; what it does there stands for the others
ROW_BEFORE, INSERT_OR_UPDATE = 3, 20  # bits of pg_trigger.tgtype
QUERY = """
    SELECT format('%I.%I', n.nspname, c.relname), quote_ident(c.relname), t.tgname, t.tgtype, pg_get_triggerdef(t.oid),
           t.tgfoid::regprocedure::text, p.prosrc
    FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_proc p ON p.oid = t.tgfoid
    WHERE NOT t.tgisinternal AND t.tgparentid = 0 AND t.tgenabled IN ('O', 'A')
    ORDER BY 1, t.tgname COLLATE "C"
"""


@dataclass(frozen=True)
class Trigger:
    """A trigger that is switched on: `table` with its schema and `relation` without are quoted, `body` is its function's."""

    table: str
    relation: str
    name: str
    bits: int
    definition: str
    function: str
    body: str

    def __str__(self) -> str:
        """Trigger, table and function, for a reader."""
        return f"trigger {self.name} on {self.table} (function {self.function})"

    @property
    def changes_rows(self) -> bool:
        """Whether it can change the rows that are inserted or updated."""
        return self.bits & ROW_BEFORE == ROW_BEFORE and bool(self.bits & INSERT_OR_UPDATE)

    def on(self, relation: str) -> str:
        """The statement that makes it on another relation."""
        return self.definition.replace(f" ON {self.table} ", f" ON {relation} ", 1)


@dataclass(frozen=True)
class Overwritten:
    """What a trigger undoes.

    Attributes:
        trigger: The trigger of others.
        own: The trigger of ours that fires before it.
        columns: The columns that it changes after ours.
        because: Why it could not be tried, empty where it was; then its code says that it writes the columns.
    """

    trigger: Trigger
    own: str
    columns: tuple[str, ...]
    because: str = ""

    def __str__(self) -> str:
        """A sentence."""
        tried = f"; it could not be tried: {self.because}" if self.because else ""
        return f"{self.trigger} fires after {self.own} and changes {', '.join(self.columns)}{tried}"


def overwritten(connection: Connection, file: SqlFile, among: list[ledger.Table]) -> list[Overwritten]:
    """What fires after the file's triggers and changes the columns that they keep.

    Each such trigger runs after ours on a temporary table of the same columns, once for an INSERT and once for an UPDATE;
    the result is compared with that of ours alone. All of it is rolled back. A function that does nothing to ours on three
    tables is not tried on more, and one that does is not tried again.

    Args:
        connection: Where; in a transaction that may write.
        file: A file that is installed. Attachments that go by columns are looked at; others are for its proof.
        among: The tables that exist.

    Returns:
        One for each trigger of others that undoes something, by table.
    """
    attachments = ledger.wanted(among, file).values()
    kept = [each for each in attachments if each.attachment.columns and each.attachment.when.upper().startswith("BEFORE")]
    if not kept:
        return []
    present, foreign = _triggers(connection)
    by_name = {(each.table, each.name): each for each in present}
    tried: dict[tuple[str, str], list[Overwritten | None]] = defaultdict(list)  # by their function and ours
    found = []
    for wanted in kept:
        own = by_name.get((wanted.table, wanted.attachment.trigger))
        for other in foreign if own else ():
            assert own
            if other.table != own.table or not other.changes_rows or other.name < own.name:
                continue
            results = tried[other.function, own.function]
            if len(results) < TABLES and not any(results):
                results.append(_try(connection, wanted, own, other))
                found += [results[-1]] if results[-1] else []
            else:  # a function may be on hundreds of tables, and a try takes as long as ten statements
                found += [replace(each, trigger=other) for each in results if each][:1]
    return found


def in_the_way(connection: Connection, file: SqlFile, passes: Callable[[], bool]) -> list[Trigger]:
    """The triggers of others without which the file's proof would pass.

    Args:
        connection: Where; in a transaction, which has a savepoint `proof`.
        file: The file whose proof has failed.
        passes: Runs the proof again, and answers whether it passes now.

    Returns:
        Each that alone is in the way; all that are switched on, where only several together are. None where the proof fails
        without them too, or where the role may not switch them off.
    """
    text = file.proof.read_text(encoding="utf-8-sig")
    among = ledger.tables(connection)
    named = {table.quoted for table in among if re.search(rf"\b{re.escape(table.name)}\b", text)}
    named |= {each.table for each in ledger.wanted(among, file).values()}
    candidates = [each for each in _triggers(connection)[1] if each.table in named]
    if not candidates or not _passes_without(connection, candidates, passes):
        return []
    return [each for each in candidates if _passes_without(connection, [each], passes)] or candidates


def _triggers(connection: Connection) -> tuple[list[Trigger], list[Trigger]]:
    """All triggers that are switched on, and those of them that no file made."""
    present = [Trigger(*row) for row in search_path.rows(connection, QUERY)]
    ours = {key for entry in ledger.read(connection).values() for key in entry.triggers}
    return present, [each for each in present if f"{each.table} {each.name}" not in ours]


def _passes_without(connection: Connection, triggers: Iterable[Trigger], passes: Callable[[], bool]) -> bool:
    import psycopg
    from psycopg import sql

    try:
        for each in triggers:
            statement = sql.SQL("ALTER TABLE {} DISABLE TRIGGER {}").format(sql.SQL(each.table), sql.Identifier(each.name))
            connection.execute(statement)
        return passes()
    except psycopg.Error:
        if connection.closed:
            raise
        return False
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT proof")


def _try(connection: Connection, wanted: Wanted, own: Trigger, other: Trigger) -> Overwritten | None:
    import psycopg

    columns = wanted.attachment.columns
    connection.execute("SAVEPOINT interference")
    try:
        with search_path.application(connection):
            cursor = connection.execute(_experiment(own, other, columns))
            while cursor.nextset():  # the last statement answers
                pass
            [differs] = cursor.fetchall()
        changed = tuple(column for column, differ in zip(columns, differs, strict=True) if differ)
        return Overwritten(other, own.name, changed) if changed else None
    except psycopg.Error as error:
        if connection.closed:
            raise
        written = tuple(each for each in columns if re.search(rf'\bNEW\s*\.\s*"?{re.escape(each)}"?\s*:?=', other.body, re.I))
        because = error.diag.message_primary or "it fails"
        return Overwritten(other, own.name, written, because) if written else None
    finally:
        if not connection.closed:
            connection.execute("ROLLBACK TO SAVEPOINT interference; RELEASE SAVEPOINT interference")


def _experiment(own: Trigger, other: Trigger, columns: tuple[str, ...]) -> sql.Composed:
    """Statements whose last says of each column whether the two together leave it otherwise than ours alone.

    The temporary table has the name of the table, which a function may look at, and neither its constraints nor defaults. In
    the time zone of UTC a time that is wrong by the distance to UTC would look right.
    """
    from psycopg import sql

    relation = f"pg_temp.{own.relation}"
    rows = sql.SQL(
        "INSERT INTO {0} (skinspire_proof) VALUES (0); {1}; INSERT INTO {0} (skinspire_proof) VALUES (1);"
        " UPDATE {0} SET skinspire_proof = 2 WHERE skinspire_proof = 0"
    )
    alone, both = own.on(relation), f"{own.on(relation)}; {other.on(relation)}"
    differ = sql.SQL(", ").join(
        sql.SQL("bool_or(a.{0} IS DISTINCT FROM b.{0})").format(sql.Identifier(column)) for column in columns
    )
    return sql.SQL(
        "SET LOCAL TimeZone = 'Asia/Kolkata'; CREATE TEMP TABLE {name} AS TABLE {table} WITH NO DATA;"
        " ALTER TABLE {at} ADD skinspire_proof integer; {alone};"
        " CREATE TEMP TABLE skinspire_alone AS TABLE {at}; TRUNCATE {at}; DROP TRIGGER {own} ON {at}; {both};"
        " SELECT {differ} FROM {at} AS a JOIN pg_temp.skinspire_alone AS b USING (skinspire_proof)"
    ).format(
        name=sql.SQL(own.relation), table=sql.SQL(own.table), at=sql.SQL(relation), own=sql.Identifier(own.name),
        alone=rows.format(sql.SQL(relation), sql.SQL(alone)), both=rows.format(sql.SQL(relation), sql.SQL(both)),
        differ=differ,
    )  # fmt: skip

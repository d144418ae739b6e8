"""Views and functions of SQL files that stand in the way of a revision's statement, such as another type for a column."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING

from skinspire_db.catalog.definitions import plain
from skinspire_db.migrations.losses import ALTER_TABLE, DROP_COLUMN, NAME, RETYPE, WORD
from skinspire_db.objects import dependents
from skinspire_db.objects.dependents import Address, Saved
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import sql_text

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

DROP_CONSTRAINT = lazy_regex(rf"\s*DROP\s+CONSTRAINT\s+(?:IF\s+EXISTS\s+)?(?P<constraint>{WORD})", re.I)
DROP_TABLE = lazy_regex(rf"\s*DROP\s+TABLE\s+(?:IF\s+EXISTS\s+)?(?P<tables>{NAME}(?:\s*,\s*{NAME})*)", re.I)
CASCADE = lazy_regex(r"\bCASCADE\s*$", re.I)


def clear(connection: Connection, sql: str, ours: Collection[str]) -> list[Saved]:
    """Drop the views and functions that the SQL would stop at, with what depends on them.

    Args:
        connection: Where; in the revision's transaction.
        sql: One or more statements, which are about to run.
        ours: The objects that SQL files made, as the ledger names them.

    Returns:
        What was dropped, to be made again after the revision.

    Raises:
        NotOurs: A view or function that no SQL file made stands in the way; all such are named, and nothing was dropped.
    """
    saved: list[Saved] = []
    for statement in sql_text.statements(sql):
        for what, start in needed(connection, statement):
            if start and not is_left(connection, sql, statement, start, ours):
                saved += dependents.take_down(connection, start, ours, f"{what} cannot be changed under what reads it")
    return saved


def is_left(connection: Connection, sql: str, statement: str, start: list[Address], ours: Collection[str]) -> bool:
    """Whether nothing is dropped for a statement: something that no file made depends on what it changes, and the statement
    has CASCADE, which means to drop that, or is one in a DO block, which may never run.
    """
    in_block = statement not in sql_text.split(sql_text.without_comments(sql), ";")
    return bool((in_block or CASCADE.search(statement)) and dependents.unknown(connection, start, ours))


def needed(connection: Connection, statement: str) -> Iterator[tuple[str, list[Address]]]:
    """What each part of a statement changes, in words, and the views and functions that read it."""
    if altered := ALTER_TABLE.match(statement):
        table = altered["table"]
        for action in sql_text.split(statement[altered.end() :], ","):
            if found := RETYPE.fullmatch(action.strip()) or DROP_COLUMN.fullmatch(action.strip()):
                column = _name(found["column"])
                yield f"column {plain(table)}.{column}", dependents.readers(connection, table, [column])
            elif found := DROP_CONSTRAINT.match(action):
                constraint = _name(found["constraint"])
                reading = dependents.readers(connection, table, [], [constraint])
                yield f"constraint {constraint} of {plain(table)}", reading
    elif dropped := DROP_TABLE.match(statement):
        for table in re.findall(NAME, dropped["tables"]):
            yield f"table {plain(table)}", dependents.readers(connection, table)


def _name(word: str) -> str:
    """An identifier as the catalogue has it: without quotes, or in lower case."""
    return plain(word) if word.startswith('"') else word.lower()

"""Running SQL files in one message, where nothing stands in their way: a far server is waited for once for all of them."""

from __future__ import annotations

import copy
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

from skinspire_db.objects import live
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.kinds import TRIGGER, VIEW
from skinspire_db.postgres import search_path, side_by_side

if TYPE_CHECKING:
    from skinspire_db.objects.making import Making
    from skinspire_db.postgres.connections import Connection

BACK = b"ROLLBACK TO SAVEPOINT files; RELEASE SAVEPOINT files"
TRANSACTION = "SELECT pg_current_xact_id()::text"


def make(making: Making, files: list[SqlFile]) -> bool:
    """Run files in their order, and note what each has made.

    Args:
        making: The run that they are part of.
        files: Those that are to be made.

    Returns:
        Whether it could be done. Where not, everything is as it was: run one after the other, the files say which is wrong,
        what it has to run after, or what is in its way.

    Raises:
        psycopg.Error: The connection broke.
    """
    import psycopg

    if len(files) < 2 or any(file.secures_views for file in files):
        return False
    connection = making.connection
    asked: list[Any] = [live.rows, _transaction, *(partial(_present, making, file) for file in files)]
    before, transaction, *present = side_by_side.run(connection, *asked)
    if any(present):
        return False
    try:
        connection.execute(b"SAVEPOINT files")
        after = _run(connection, files)
        made = _made(making, files, before, transaction, after)
    except psycopg.Error:
        if connection.closed:
            raise
        made = {}
    if not made:
        connection.execute(BACK)
        return False
    connection.execute(b"RELEASE SAVEPOINT files")
    making.rows.clear()
    making.rows.update(after[-1][0])
    making.made |= made
    return True


def _transaction(connection: Connection) -> str:
    return str(connection.execute(TRANSACTION).fetchall()[0][0])


def _present(making: Making, file: SqlFile, reader: Connection) -> bool:
    """Whether objects are there that no file made, with which the file's have to be compared, or that are dropped first."""
    beside = copy.copy(making)
    beside.connection = reader
    existing = beside.existing(file)
    anew = any(key.startswith("materialized view ") for key in existing) or (bool(existing) and file.drops)
    return anew or bool({*existing, *beside.namesakes(file)} - beside.ours())


def _run(connection: Connection, files: list[SqlFile]) -> list[tuple[live.Rows, str]]:
    """Run the files; what the catalogue has after each, and the transaction that it ended in."""
    found = search_path.after_each(connection, [(file.text, file.functions.name) for file in files], [live.ROWS, TRANSACTION])
    return [(live.rows_of(rows), str(transaction[0][0])) for rows, transaction in found]


def _made(
    making: Making, files: list[SqlFile], before: live.Rows, transaction: str, after: list[tuple[live.Rows, str]]
) -> dict[str, dict[str, str]]:
    """What each file has made; nothing where one of them has done what only a look at it alone tells."""
    written: dict[str, list[str]] = {}
    if len(after) != len(files) or any(each != transaction for _, each in after):
        return {}
    ours = making.ours()
    for file, (rows, _) in zip(files, after, strict=True):
        new = [row.key for at, row in rows.items() if at not in before or before[at].place != row.place]
        replaced = [row.key for at, row in rows.items() if at in before and before[at].text != row.text]
        if any(live.is_function(key) and key not in ours for key in replaced):
            return {}
        if file.kind is not TRIGGER and not any(live.is_function(key) != (file.kind is VIEW) for key in new):
            return {}
        written[file.name], before = new, rows
    keys = [key for each in written.values() for key in each]
    functions = [key for file in files if file.kind is TRIGGER for key in written[file.name] if live.is_function(key)]
    if Counter(keys).total() != len(set(keys)) or not making.are_own(functions):
        return {}
    recorded = live.recorded(making.connection, keys)
    return {name: {key: recorded[key] for key in each} for name, each in written.items()}

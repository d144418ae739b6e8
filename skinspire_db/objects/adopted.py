"""SQL files that a database has never had: how they are told, and which of them are left alone.

An owner who adopts a database accepts that it has them not; then only an install that names the command makes them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from skinspire_db.config import accepted
from skinspire_db.config.project import Project
from skinspire_db.objects import ledger, live
from skinspire_db.objects.files import SqlFile
from skinspire_db.objects.status import WHOLE, status

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def key(file: SqlFile) -> str:
    """The line of the file of accepted differences that says that a database has not got this file."""
    return f"file {file.name} missing"


def absent(connection: Connection, files: list[SqlFile]) -> list[SqlFile]:
    """The trigger files that could be installed in this database, and never were: it has no trigger of theirs."""
    states = status(connection, files)
    missing = {each.file for each in states if (each.object, each.state, each.installed) == (WHOLE, "MISSING", None)}
    if not missing:
        return []
    there = {name for _, name in ledger.live_triggers(connection)}
    made = {file.name for file in files if any(attachment.trigger in there for attachment in file.attachments)}
    functions = {row.key.partition("(")[0].rpartition(".")[2] for row in live.rows(connection).values()}
    for file in files:  # one that only makes functions for the others
        named = {name.rpartition(".")[2] for kind, name, _ in file.creates() if kind == "function"}
        made |= {file.name} if not file.attachments and named & functions else set()
    return [file for file in files if file.kind.attaches and file.name in missing - made]


def unrecorded(connection: Connection, files: list[SqlFile]) -> list[SqlFile]:
    """The files of functions and views that were never installed in this database; it may have their objects all the same."""
    entries = ledger.read(connection)
    return [file for file in files if not file.kind.attaches and file.name not in entries]


def maintained(connection: Connection, project: Project, files: list[SqlFile]) -> list[SqlFile]:
    """The files that operations keep as they say: not those that were never installed here, where that is accepted.

    Args:
        connection: the database.
        project: whose accepted differences count.
        files: the project's SQL files.

    Raises:
        InvalidSetting: as `accepted.read`.
    """
    left = left_alone(connection, project, files)
    return [file for file in files if file.name not in left]


def left_alone(connection: Connection, project: Project, files: list[SqlFile]) -> set[str]:
    """The names of the files that `maintained` leaves out. Arguments and errors are those of that."""
    signed = accepted.read(project)
    named = {file.name for file in files if key(file) in signed}
    return named - ledger.read(connection).keys() if named else named

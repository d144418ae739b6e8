"""Where a database stands among the revisions: which are applied, which is the next one, marking."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.config import branches
from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationInvalid, UsageError
from skinspire_db.lifecycle.result import counted
from skinspire_db.migrations import baseline, revisions, version_table
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

# A database that was made without migrations: what it lacks is made, then it is noted where it stands; or where the project's
# history begins with a baseline, it is adopted.
STAMP = (
    "invoke db.create --update-only --env={env}, then, where invoke db.drift --env={env} finds nothing,"
    " invoke migrate.stamp --env={env}"
)
ADOPT = "invoke db.adopt --env={env}"
AHEAD = "git pull; or, where invoke db.drift --env={env} finds nothing, invoke migrate.stamp --env={env}"
SHOWN = 5  # of the branches that have a revision
# Of these revisions the one that the tools applied last.
LATEST = """
    SELECT split_part(step -> 'summary' ->> 'applied', ' ', 1) AS revision
    FROM skinspire_tools.journal CROSS JOIN LATERAL jsonb_array_elements(steps) AS step
    WHERE split_part(step -> 'summary' ->> 'applied', ' ', 1) = ANY (%s) ORDER BY started_at DESC LIMIT 1
"""


@dataclass(frozen=True)
class RevisionState:
    """A revision, and its state in a database.

    Attributes:
        revision: its identifier.
        state: "applied", "pending" or "unknown". Unknown is a revision that the database names and no file has, and each one
            that may have come before it.
        message: the first line of its file; "" where there is no file.
        file: its path; "" where there is no file.
    """

    revision: str
    state: str
    message: str
    file: str

    def as_dict(self) -> dict[str, str]:
        """The fields by name, for JSON."""
        return dict(vars(self))


def current(connection: Connection, project: Project) -> list[str]:
    """The revisions that the database says it is at: none without Alembic's table, several where there are several heads."""
    return version_table.read(connection, version_table.find(connection, project))


def mark(connection: Connection, project: Project, heads: list[str]) -> None:
    """Write that the database is at these revisions, whatever it was at before, into Alembic's own table.

    The table is made where it is missing, as Alembic makes it.
    """
    from psycopg import sql

    table = version_table.find(connection, project)
    version_table.make(connection, table)
    name = sql.Identifier(*table)
    inserts = [sql.SQL("INSERT INTO {} VALUES ({})").format(name, head) for head in heads]
    connection.execute(sql.SQL("; ").join([sql.SQL("DELETE FROM {}").format(name), *inserts]))


def states(connection: Connection, project: Project, files: ScriptDirectory) -> list[RevisionState]:
    """Every revision, oldest first, then those that the database names and no file has."""
    at = current(connection, project)
    known = {script.revision: script for script in files.walk_revisions()}
    applied = _applied(files, [revision for revision in at if revision in known])
    # What came before a file that is missing cannot be known.
    other = "unknown" if set(at) - known.keys() else "pending"
    with_files = [
        RevisionState(
            script.revision, "applied" if script.revision in applied else other, script.doc, revisions.path(script, project)
        )
        for script in reversed(list(known.values()))
    ]
    return with_files + [RevisionState(revision, "unknown", "", "") for revision in at if revision not in known]


def applied(connection: Connection, project: Project, files: ScriptDirectory) -> list[Script]:
    """The revisions that are applied and have files, the newest first."""
    every = list(files.walk_revisions())
    at = set(current(connection, project)) & {script.revision for script in every}
    names = _applied(files, sorted(at))
    return [script for script in every if script.revision in names]


def _applied(files: ScriptDirectory, at: list[str]) -> set[str]:
    """These revisions, which have files, and all that came before them."""
    return {script.revision for revision in at for script in files.iterate_revisions(revision, "base")}


def refuse_unknown(connection: Connection, project: Project, files: ScriptDirectory) -> None:
    """Refuse a database that is ahead of the code.

    Raises:
        MigrationInvalid: the database is at a revision that no file has.
    """
    known = revisions.identifiers(files)
    if ahead := [revision for revision in current(connection, project) if revision not in known]:
        where = elsewhere(project, ahead[0])
        raise MigrationInvalid(
            f"the database is at {', '.join(ahead)}, which no revision file has: it is ahead of this code; {said(where)}",
            remedy=f"git merge {quote(where[0])}; or {AHEAD.partition('; or ')[2]}" if where else AHEAD,
        )


def elsewhere(project: Project, revision: str) -> list[str]:
    """The branches on which git has a revision that no file of the checkout has."""
    return branches.having(project.root, rf"^revision *(: *[A-Za-z]+ *)?= *['\"]{re.escape(revision)}['\"]")


def said(where: list[str]) -> str:
    """On which branches git has a revision, for a reader."""
    return f"git has it on {', '.join(where[:SHOWN])}" if where else "git knows no branch that has it"


def way_on(connection: Connection, project: Project) -> str:
    """The remedy for a database that is not at the head: a command that will not be refused there."""
    at = current(connection, project)
    if not at:
        return (
            _without_history(revisions.directory(project)) if _relations(connection) else "invoke migrate.upgrade --env={env}"
        )
    known = revisions.identifiers(revisions.directory(project))
    return AHEAD if set(at) - known else "invoke migrate.upgrade --env={env}"


def next_up(connection: Connection, project: Project, files: ScriptDirectory, last: str | None) -> Script | None:
    """The next revision to apply, the first that `pending` gives; None when all are applied."""
    return next(iter(pending(connection, project, files, last)), None)


def pending(connection: Connection, project: Project, files: ScriptDirectory, last: str | None) -> list[Script]:
    """The revisions to apply, in their order.

    Args:
        connection: the database.
        project: the project.
        files: its revisions.
        last: the revision at which the upgrade ends; None for the head.

    Raises:
        MigrationInvalid: the database is ahead of the code, or has tables and was made without migrations.
        UsageError: `last` is applied, and so are later ones.
    """
    refuse_unknown(connection, project, files)
    at = current(connection, project)
    if not at and (tables := _relations(connection)):
        remedy = _without_history(files)
        adopted = " and is not adopted" if remedy == ADOPT else ""
        raise MigrationInvalid(
            f"the database has {counted(len(tables), 'table')} and is at no revision: it was made without migrations"
            f"{adopted}",
            remedy=remedy,
        )
    wanted = revisions.named(files, last).revision if last is not None else "heads"
    if last is not None and wanted not in at and wanted in _applied(files, at):
        raise UsageError(
            f"{last} is applied, and there are later ones", remedy="invoke migrate.downgrade --env={env} --steps=1"
        )
    with revisions.refusals():
        steps: list[Any] = list(files._upgrade_revs(wanted, tuple(at)))  # type: ignore[arg-type]
    return [each.revision for each in steps]


def next_down(connection: Connection, project: Project, files: ScriptDirectory) -> Script:
    """The revision that a downgrade takes back: of several heads the one applied last, else the last in the files.

    Raises:
        UsageError: the database is at no revision.
        MigrationInvalid: the database is ahead of the code, or the revision has no downgrade().
    """
    refuse_unknown(connection, project, files)
    at = current(connection, project)
    if len(at) > 1 and connection.execute("SELECT to_regclass('skinspire_tools.journal')").fetchone() != (None,):
        at = [name for (name,) in connection.execute(LATEST, (at,)).fetchall()] or at
    script = next((each for each in files.walk_revisions() if each.revision in at), None)
    if script is None:
        raise UsageError("the database is at no revision: there is nothing to take back", remedy="invoke migrate.status")
    if not callable(getattr(script.module, "downgrade", None)) and not baseline.is_baseline(script):
        raise MigrationInvalid(f"{Path(script.path).name} has no downgrade()", remedy="write it, and run it again")
    return script


def _without_history(files: ScriptDirectory) -> str:
    return ADOPT if baseline.find(files) or not files.get_heads() else STAMP


def _relations(connection: Connection) -> set[str]:
    rows = search_path.rows(
        connection,
        "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"  # noqa: S608
        f" WHERE c.relkind IN ('r', 'p') AND {objects.APPLICATION_SCHEMA} AND {objects.NOT_ALEMBICS}",
    )
    return {name for (name,) in rows}

"""Where a database comes from: what of its schema the tools have made, and whether it is what its revision says."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from skinspire_db.catalog import spelling
from skinspire_db.catalog.definitions import snapshot
from skinspire_db.catalog.spelling import Expected
from skinspire_db.config import accepted
from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationInvalid, SkinspireError
from skinspire_db.lifecycle import scratch
from skinspire_db.migrations import baseline, drift, revisions, running
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection

SHOWN = 5  # differences that migrate.stamp names
# Operations by which a database came under the tools that held something already.
TAKEN_OVER = """
    SELECT EXISTS (
        SELECT FROM skinspire_tools.journal LEFT JOIN LATERAL jsonb_array_elements(steps) AS step ON true
        WHERE operation = 'db.adopt' OR operation = 'env.stamp' AND (step -> 'summary' ->> 'objects_held')::int > 0)
"""
APPLIED = """
    SELECT EXISTS (
        SELECT FROM skinspire_tools.journal CROSS JOIN LATERAL jsonb_array_elements(steps) AS step
        WHERE split_part(step -> 'summary' ->> 'applied', ' ', 1) = %s)
"""


def refuse_others(connection: Connection, script: Script) -> None:
    """Refuse to take back what the tools have not made: a baseline, or a revision from before the database was adopted.

    Args:
        connection: the database.
        script: the revision that would be taken back.

    Raises:
        MigrationInvalid: it is such a one; nothing was begun.
    """
    if baseline.is_baseline(script):
        raise MigrationInvalid(
            f"{script.revision} is the baseline, and history begins there: it is not taken back",
            remedy="invoke migrate.status --env={env}",
        )
    if connection.execute("SELECT to_regclass('skinspire_tools.journal')").fetchone() == (None,):
        return
    if connection.execute(TAKEN_OVER).fetchone() == (True,) and connection.execute(
        APPLIED, (script.revision,)
    ).fetchone() == (False,):
        raise MigrationInvalid(
            f"{script.revision} was there when the database came under the tools: taking it back would drop what they have"
            " not made",
            remedy="write a revision that drops it: invoke migrate.new --env={env} --message=changes",
        )


def disagreements(
    connection: Connection, target: Target, project: Project, files: ScriptDirectory, at: list[str]
) -> list[str]:
    """What of a database's tables and columns is not as a revision leaves them, for a warning.

    The revisions up to that one are run in a scratch database to see.

    Args:
        connection: the database.
        target: where it is.
        project: whose models and accepted differences.
        files: the project's revisions.
        at: the revisions; none, or one for each line of the history.
    """
    try:
        wanted = _made_by(target, project, files, at)
    except SkinspireError as error:
        return [f"whether the tables are those of the revision was not found out: {error.message}"]
    live = spelling.settled(snapshot(connection), wanted)
    right = drift.accept(live, wanted, accepted.read(project))
    found = [
        each
        for each in drift.compare(live, right, set())
        if each.kind == "column" or (each.kind, each.state != "differs") == ("table", True)
    ]
    lines = [f"not as the revision leaves it: {each.title}" for each in found[:SHOWN]]
    return lines + ([f"and {len(found) - SHOWN} more"] if len(found) > SHOWN else [])


def _made_by(target: Target, project: Project, files: ScriptDirectory, at: list[str]) -> Expected:
    steps = reversed(list(files.iterate_revisions(tuple(at), "base"))) if at else ()
    with (
        revisions.refusals(),
        scratch.database(target, "migrate.stamp") as aside,
        contextlib.closing(connections.connect(aside, "migrate.stamp")) as connection,
    ):
        connections.begin(connection, target.policy)
        for script in steps:
            running.apply(connection, project, files, script)
            connection.commit()  # a label that one adds can be used by the next only then
            connections.begin(connection, target.policy)
        made = snapshot(connection)
        return Expected(made, {})

"""Where the history of a database that is adopted begins: at the revision that it names itself, or at a baseline."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from skinspire_db.config.project import Project
from skinspire_db.errors import MigrationInvalid
from skinspire_db.migrations import baseline, position, revisions, version_table

if TYPE_CHECKING:
    from alembic.script import ScriptDirectory

    from skinspire_db.postgres.connections import Connection


@dataclass(frozen=True)
class Beginning:
    """How the history of an adopted database begins.

    Attributes:
        revisions: those that it is noted to be at; none yet where the baseline has to be written.
        kept: it names them itself, and nothing is noted.
        says: what adopting does about it, "adopting ...".
    """

    revisions: list[str]
    kept: bool = False
    says: list[str] = field(default_factory=list)

    @property
    def phrases(self) -> list[str]:
        """What would be done about it, "would ..."."""
        return [f"{verb.removesuffix('s')} {rest}" for verb, _, rest in (each.partition(" ") for each in self.says)]


def beginning(connection: Connection, project: Project) -> Beginning:
    """How the history of this database begins.

    Args:
        connection: the database.
        project: whose revision files.

    Raises:
        MigrationInvalid: it is at a revision that no file has, or at none of a history that is there and has no baseline.
    """
    files = revisions.directory(project)
    at = position.current(connection, project)
    if at:
        _refuse_unknown(files, at)
        kept = f"keeps its revision {', '.join(at)}, which the project's files know, and writes no baseline"
        return Beginning(at, True, ["; ".join([kept, *version_table.advice(connection, project)])])
    if script := baseline.find(files):
        return Beginning([script.revision], False, [f"notes the baseline {script.revision}, which is there, as applied"])
    if heads := list(files.get_heads()):
        raise MigrationInvalid(
            f"the database is at no revision, and the project has revisions up to {', '.join(heads)}: which of them it has"
            " cannot be told",
            remedy="invoke env.stamp --env={env}, then, with the last revision that it has, invoke migrate.stamp --env={env}"
            f" --to={heads[0]}",
        )
    says = "writes the schema as it is into a baseline revision, noted as applied here, which makes it in an empty database"
    return Beginning([], False, [says])


def is_known(connection: Connection, project: Project) -> bool:
    """Whether the database is at revisions that the project's files have."""
    at = position.current(connection, project)
    return bool(at) and set(at) <= {script.revision for script in revisions.directory(project).walk_revisions()}


def _refuse_unknown(files: ScriptDirectory, at: list[str]) -> None:
    known = {script.revision for script in files.walk_revisions()}
    if unknown := [each for each in at if each not in known]:
        raise MigrationInvalid(
            f"the database is at {', '.join(unknown)}, which no revision file of the project has",
            remedy='name the folder of its revisions in pyproject.toml, as migrations = "alembic", then again',
        )

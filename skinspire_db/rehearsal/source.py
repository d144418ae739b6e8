"""What a rehearsal's copy is made of, and where: a proved backup, the database as it is, or a masked copy."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.copies import backup_folder, copy, restore, template
from skinspire_db.copies.backup_folder import Backup
from skinspire_db.copies.masking.masking import Masking
from skinspire_db.errors import UsageError
from skinspire_db.lifecycle import scratch, stamp
from skinspire_db.lifecycle.failures import translated
from skinspire_db.lifecycle.operation import Running
from skinspire_db.lifecycle.read_only import present
from skinspire_db.migrations import position, revisions
from skinspire_db.migrations.rehearsed import OPERATION
from skinspire_db.postgres import connections
from skinspire_db.postgres.client_programs import client_tools
from skinspire_db.postgres.embedded_server import project_server
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SOURCES = ("backup", "copy", "masked")
JOBS = 2  # tables that are copied at once


@dataclass(frozen=True)
class Choice:
    """What was asked for.

    Attributes:
        source: "backup", "copy" or "masked": what the copy is made of.
        embedded: the copy is made on the embedded server; else on the environment's own.
        keep: the copy stays.
        longest: seconds that a lock which stops readers or writers may be held.
        last: the revision that is rehearsed last; None for all.
    """

    source: str
    embedded: bool
    keep: bool
    longest: float
    last: str | None


@dataclass(frozen=True)
class Plan:
    """What a rehearsal begins with.

    Attributes:
        pending: the revisions that are pending in the database.
        backup: what is restored; None for a copy.
        size: of the database that is copied or restored, in bytes.
        connection: a connection to the database.
    """

    pending: list[str]
    backup: Backup | None
    size: int
    connection: Connection


def look(environment: Environment, choice: Choice, running: Running) -> Plan:
    """What is refused before anything is made, and what is known then."""
    start, project = present(environment), environment.project
    connection = running.stack.enter_context(contextlib.closing(connections.connect(start, OPERATION)))
    with running.step("pending") as summary, translated(start, OPERATION, "", connection):
        connections.require_direct(start, OPERATION)
        connections.begin(connection, start.policy, brief=True)
        stamp.identify(connection, start)
        pending = position.pending(connection, project, revisions.directory(project), choice.last)
        summary.numbers = {"pending": len(pending)}
        summary.lines = [f"{each.revision} {each.doc}" for each in pending]
        [size] = connection.execute("SELECT pg_database_size(current_database())").fetchone() or [0]
        backup = _proved(environment, running) if pending and choice.source == "backup" else None
        size = backup.manifest.size if backup else size
        if pending and choice.source == "masked":
            Masking.of(project, None).plan(connection, start)
        if pending and not choice.embedded:
            template.need_room(start, size)
    connection.rollback()
    return Plan([each.revision for each in pending], backup, size, connection)


def _proved(environment: Environment, running: Running) -> Backup:
    """The newest backup of the environment that a restore has proved."""
    folder = backup_folder.folder_of(environment.project, running.backups)
    found, _ = backup_folder.complete(folder, environment.name)
    if backup := next((each for each in found if each.verified == "restored"), None):
        return backup
    prove = f"invoke backup.verify --full --env={environment.name}"
    raise UsageError(
        f"no backup of {environment.name} in {folder} was proved by a restore",
        remedy=prove if found else f"invoke backup.create --env={environment.name}, then {prove}; or --from=copy",
    )


def server_of(environment: Environment, choice: Choice) -> Target:
    """Where the copy is made."""
    start = present(environment)
    if not choice.embedded or start.server is not None:
        return start
    server = project_server(environment.project)
    parameters = server.start().parameters | {"dbname": start.database}
    return Target(environment.name, environment.policy, parameters, server)


def made(environment: Environment, choice: Choice, plan: Plan, running: Running) -> Target:
    """Make the copy, a scratch database on the server of the running operation's target."""
    template.need_room(running.target, plan.size)
    if plan.backup is None:
        start = present(environment)
        if choice.source == "copy" and running.target == start and not environment.policy.protected:
            plan.connection.close()  # without sessions on it, a database is copied faster
            return copy.beside(running, environment, start)[0]
        masking = Masking.of(environment.project, None) if choice.source == "masked" else None
        kinds = copy.Choice("stream", False, (), JOBS, None, masking)
        return copy.stream(running, environment, start, plan.connection, kinds)[0]
    plan.connection.close()
    with running.step("copy") as summary:
        tools, archive = client_tools(plan.backup.manifest.server_version), restore.Source.of(plan.backup)
        aside = restore.scratch(tools, archive, running)
        restore.fill(archive, aside, JOBS, running)
        summary.numbers = {"backup": plan.backup.name, "MB": round(plan.size / 1e6)}
    return aside


def keep(aside: Target, server: Target, running: Running) -> None:
    """Give the copy a name under which it stays, in place of an earlier one."""
    with running.step("keep") as summary:
        kept = scratch.rename_kept(aside, server, OPERATION)
        summary.numbers = {"database": kept.database}
    running.note(f'the copy stays: {kept}; to drop it, in psql: DROP DATABASE "{kept.database}"')

"""A masked backup: a masked copy beside the source, dumped for a machine that cannot reach the source, and dropped."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from functools import partial
from pathlib import Path

from skinspire_db.config.environment import MASKED, Environment
from skinspire_db.copies import backup, backup_folder, copy, template
from skinspire_db.copies.masking.masking import Masking
from skinspire_db.lifecycle import stamp
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.read_only import present
from skinspire_db.postgres import connections

STEPS = ("source", "copy", "compare", "search", "dump")


def create(environment: Environment, folder: Path | None, *, jobs: str | int = 2, secret_env: str | None = None) -> Job:
    """Write a masked backup of an environment's database, which unprotected environments can restore.

    Args:
        environment: what is backed up.
        folder: the folder of backups; by default backups/ in the project.
        jobs: how many tables are copied and dumped at once.
        secret_env: the variable with the secret of the pseudonyms; None for a new one.

    Returns:
        The operation, to be run. What it makes beside the source on its server is dropped at its end.

    Raises:
        UsageError: `jobs` is no number, or the variable holds no secret.
        BackupInvalid: the folder cannot be read.
    """
    where = backup_folder.folder_of(environment.project, folder)
    masking = replace(Masking.of(environment.project, secret_env), stamped=MASKED)
    choice = copy.Choice("stream", False, (), copy.number_of_jobs(jobs), None, masking)
    work, look = partial(_work, environment, where, choice), partial(_look, environment, where, choice)
    return Job("backup.create", environment, work, STEPS, done="complete", look=look)


def _look(environment: Environment, where: Path, choice: copy.Choice, running: Running) -> None:
    """What is refused before anything is made."""
    start = present(environment)
    with contextlib.closing(connections.connect(start, running.operation)) as connection:
        connections.require_direct(start, running.operation)
        connections.begin(connection, start.policy, brief=True)
        stamp.identify(connection, start)
        assert choice.masking
        choice.masking.plan(connection, start)
    running.note(f"the backup would be in {where}")


def _work(environment: Environment, where: Path, choice: copy.Choice, running: Running) -> None:
    start = running.target
    connection = running.stack.enter_context(contextlib.closing(connections.connect(start, running.operation)))
    with running.step("source") as summary:
        connections.require_direct(start, running.operation)
        connections.begin(connection, start.policy, brief=True)
        stamp.identify(connection, start)
        row = connection.execute("SELECT pg_database_size(current_database())").fetchone()
        assert row
        template.need_room(start, int(row[0]))
        summary.numbers = {"database": start.database, "MB": round(row[0] / 1e6)}
        connection.rollback()
    aside, _ = copy.stream(running, environment, start, connection, choice)
    with running.step("dump") as summary:
        of = replace(aside, environment=MASKED)
        made = backup.make(of, where, choice.jobs, running.report, f"masked copy of {environment.name}", note=running.note)
        contents = made.manifest.contents
        summary.numbers = contents.numbers | {"MB": f"{made.manifest.bytes / 1e6:.1f}"}
        summary.lines = [
            str(made.path),
            f"an unprotected environment gets it with: invoke backup.restore --env=dev --file={made.name}",
        ]
        summary.data = {"backup": made.name, "path": str(made.path)}

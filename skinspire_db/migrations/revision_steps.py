"""The steps of one revision: its own statements, the SQL files that belong to it, and their proofs."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project
from skinspire_db.lifecycle.pipeline import Step
from skinspire_db.lifecycle.result import Summary
from skinspire_db.migrations import position, rehearsed, revisions, running
from skinspire_db.migrations.running import Watch
from skinspire_db.objects import adopted, install, kinds, proofs, tenant_roles, versions
from skinspire_db.objects.dependents import Saved

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

    from skinspire_db.postgres.connections import Connection


def is_next(connection: Connection, project: Project, files: ScriptDirectory, script: Script, *, down: bool = False) -> bool:
    """Whether a revision is the next one, looked at again under the lock: another session may have been faster.

    Args:
        connection: the database.
        project: whose revision it is.
        files: all its revisions.
        script: the revision.
        down: it is taken back.
    """
    ahead = None if down else position.next_up(connection, project, files, script.revision)
    now = position.next_down(connection, project, files) if down else ahead
    return now is not None and now.revision == script.revision


def of(
    environment: Environment,
    files: ScriptDirectory,
    script: Script,
    *,
    danger: str = "",
    backs_up: bool = False,
    down: bool = False,
    watch: Watch | None = None,
    done: bool = False,
) -> tuple[Step, ...]:
    """The steps that apply a revision or take it back, for one transaction.

    Args:
        environment: whose revision it is.
        files: all its revisions.
        script: the revision.
        danger: what a protected environment must confirm to; "" for nothing.
        backs_up: a proved backup is taken first.
        down: take it back.
        watch: is told of its statements, as `running.apply` has it.
        done: the statements of a concurrent revision were run already.
    """
    project = environment.project

    def run(connection: Connection) -> Summary:
        if not is_next(connection, project, files, script, down=down):
            return Summary({"by_another_operation": f"{script.revision} {script.doc}"})
        unrehearsed = rehearsed_advice(connection)
        summary = running.apply(connection, project, files, script, down=down, saved=saved, watch=watch, done=done)
        summary.lines = [f"careful: {each}" for each in unrehearsed] + summary.lines
        return summary

    def rehearsed_advice(connection: Connection | None) -> list[str]:
        """In a protected environment, that the revision was never rehearsed."""
        protected = environment.policy.protected and not down and watch is None
        return rehearsed.advice(connection, script) if protected and connection else []

    sql_files = versions.current(project, roles=tenant_roles.of(environment))
    if down or script.revision not in revisions.heads(project):  # what is demanded, the head has to have
        sql_files = [replace(file, required=False, core=False) for file in sql_files]
    saved: list[Saved] = []  # views and functions that the revision takes out of its way

    def make_again(connection: Connection) -> Summary:
        return install.install(connection, adopted.maintained(connection, project, sql_files), saved=saved)

    def prove(connection: Connection) -> Summary:
        """A revision can take from a trigger function what it reads; PostgreSQL would say so at a user's next login."""
        checks = proofs.prove_able(connection, adopted.maintained(connection, project, sql_files))
        return Summary({"checks": len(checks), "passed": sum(check.status == "pass" for check in checks)}, checks=checks)

    return (
        Step("revision", run, destroys="", confirms=danger, backs_up=backs_up, plans=rehearsed_advice),
        Step(kinds.step_name(file.kind for file in sql_files), make_again, destroys=""),
        Step("proofs", prove, destroys=""),
    )

"""What an operation would do, found out by looking only: whose database it is, what the guard says, which backup comes first.

PostgreSQL itself keeps these looks read only. No server is made for one; an embedded server that is stopped is started, as
for every look, because nobody else can say whose database it is.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.config.environment import Environment
from skinspire_db.errors import DatabaseMissing, PermissionMissing, SkinspireError
from skinspire_db.lifecycle import guard, lock, stamp
from skinspire_db.lifecycle.read_only import looking, present
from skinspire_db.postgres import connections, target
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.lifecycle.operation import Errand
    from skinspire_db.lifecycle.pipeline import Pipeline
    from skinspire_db.lifecycle.result import Report, StepResult
    from skinspire_db.postgres.connections import Connection


@dataclass
class Plan:
    """What would be done: `steps` are names, `would` what comes with them, in phrases; `backup` is the folder of the backup
    that would be taken first. `looked` are the steps that only read, and were run. `nowhere`: the server is yet to be made,
    and so nothing on it is looked at.
    """

    operation: str
    environment: Environment
    target: Target
    steps: list[str]
    would: list[str] = field(default_factory=list)
    backup: str | None = None
    looked: list[StepResult] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    nowhere: bool = False

    def as_dict(self) -> dict[str, Any]:
        return {
            "operation": self.operation, "environment": self.environment.name, "database": self.target.database,
            "target": str(self.target), "dry": True, "plan": self.steps, "would": self.would, "backup": self.backup,
            "ok": True, "exit_code": 0, "seconds": round(self.seconds, 3), "steps": [each.as_dict() for each in self.looked],
            "error": None,
        } | ({"notes": self.notes} if self.notes else {})  # fmt: skip

    @contextlib.contextmanager
    def look(self) -> Iterator[Connection | None]:
        """A connection that only looks at the database; None where there is none."""
        with contextlib.ExitStack() as stack:
            try:
                connection = stack.enter_context(looking(present(self.environment), self.operation))
            except DatabaseMissing:
                connection = None
            yield connection

    def admit(self, connection: Connection, command: str, danger: str, confirm: str | None) -> bool:
        """Identify and guard, as the operation would under its lock. Returns whether there is anything to lose; raises
        GuardRefused.
        """
        filled = guard.admit(connection, self.target, command, danger, confirm, hold=False)
        if who := lock.holder(connection):
            self.would.append(f"wait for {who}")
        if danger and filled:
            allowed = f", as --confirm={confirm} allows" if confirm else ""
            self.would.append(danger.format(self.target) + allowed)
        return filled

    def make_the_database(self) -> None:
        """There is none yet: the role must be able to create it."""
        self.nowhere = self.target.server is not None and not self.target.server.exists
        self.may_create_databases()
        self.would.append(f"create the database {self.target.database}")

    def may_create_databases(self) -> None:
        """Raise PermissionMissing when the role may not; an embedded server that is yet to be made lets its role."""
        if self.target.server and not self.target.server.exists:
            return
        with contextlib.closing(connections.maintenance(self.target, self.operation)) as connection:
            query = "SELECT rolcreatedb OR rolsuper FROM pg_roles WHERE rolname = current_user"
            if connection.execute(query).fetchone() != (True,):
                user = self.target.user
                raise PermissionMissing(
                    f"role {user} may not create databases, which {self.operation} does",
                    remedy=f'ask the administrator for: ALTER ROLE "{user}" CREATEDB',
                )


@contextlib.contextmanager
def planning(operation: str, environment: Environment, steps: list[str], report: Report) -> Iterator[Plan]:
    """A plan for the block to fill in. An error that it raises gets the plan as its `result`."""
    started = time.monotonic()
    plan = Plan(operation, environment, target.target(environment, start=False), steps)
    report.target(plan.target)
    try:
        with environment.pin.operation():
            yield plan
    except SkinspireError as error:
        plan.seconds = time.monotonic() - started
        error.remedy = error.remedy and error.remedy.replace("{env}", environment.name)
        error.result = plan.as_dict() | {"ok": False, "exit_code": error.exit_code, "error": error.as_dict()}
        raise
    plan.seconds = time.monotonic() - started


def add_pipeline(plan: Plan, pipeline: Pipeline, confirm: str | None, backups: Path | None) -> None:
    """What the pipeline would be refused or allowed. Raises what its `run` would begin with."""
    command, to = pipeline.operation + pipeline.arguments, plan.target
    with plan.look() as connection:
        if connection is None and pipeline.removes:
            if confirm is not None:
                guard.require_confirmation(command, pipeline.danger, to, confirm)
            plan.would.append(f"find nothing to {plan.steps[0]}: the database {to.database} does not exist")
        elif connection is None and pipeline.creates:
            if confirm is not None and pipeline.danger:
                guard.require_confirmation(command, pipeline.danger, to, confirm)
            plan.make_the_database()
        elif connection is None:
            raise missing(to)
        elif pipeline.adopts:
            guard.consent_to_adopt(connection, to, confirm)
        elif not pipeline.keeps:
            if not pipeline.any_stamp:
                stamp.refuse_foreign(stamp.read(connection), to)
        elif plan.admit(connection, command, pipeline.danger, confirm) and pipeline.backs_up and to.policy.protected:
            plan.backup = _backups(pipeline.environment, backups)
            plan.would.insert(0, f"take a backup in {plan.backup} first, and prove it by a restore")
            plan.may_create_databases()
        if connection is not None and pipeline.steps and (check := pipeline.steps[0].check):
            check(connection)


def add_errand(plan: Plan, errand: Errand, confirm: str | None, report: Report) -> None:
    """What the errand finds before it changes anything, its checks judged."""
    from skinspire_db.lifecycle.operation import Build
    from skinspire_db.lifecycle.result import Result

    result = Result(errand.operation, errand.environment.name, plan.target.database)
    try:
        with contextlib.ExitStack() as stack:
            if errand.look and not plan.nowhere:
                errand.look(Build(plan.target, errand.operation, report, result, stack, confirm))
        errand.judge(result)
    finally:
        plan.looked, plan.notes = result.steps, result.notes


def missing(to: Target) -> DatabaseMissing:
    """The error of an operation that needs the database."""
    return DatabaseMissing(f"the database {to.database} does not exist", remedy=f"invoke db.setup --env={to.environment}")


def _backups(environment: Environment, folder: Path | None) -> str:
    from skinspire_db.copies import backup_folder

    return str(backup_folder.folder_of(environment.project, folder))

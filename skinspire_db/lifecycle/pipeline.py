"""Steps in order, on one connection, in one transaction: all of them are done, or none."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from skinspire_db.errors import DatabaseMissing, Interrupted, OutcomeUnknown, SkinspireError, TableLocked
from skinspire_db.lifecycle import guard, journal, lock, precaution, stamp
from skinspire_db.lifecycle.commit import close, commit, read_back
from skinspire_db.lifecycle.dry_run import Plan, missing
from skinspire_db.lifecycle.failures import AS_IT_WAS, translated
from skinspire_db.lifecycle.operation import Operation, Running, judge
from skinspire_db.lifecycle.read_only import read_only_connection
from skinspire_db.lifecycle.result import Result, StepResult, Summary, counted
from skinspire_db.postgres import databases

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

STAYS = "what was committed before this step stays"


@dataclass(frozen=True)
class Step:
    """One reusable part of an operation, bound to an environment.

    Args:
        name: As it is shown.
        run: Takes the open connection, in the operation's transaction, and says what it did.
        check: Only reads, and raises what `run` would refuse at once; for a plan.
        destroys: What is lost by it, a phrase with {} for the database; empty for nothing. A protected environment must
            confirm to it, and a proved backup is taken first. None, where it is not known, is taken as a loss.
        confirms: What a protected environment must confirm to although nothing is lost that a backup would bring back.
        creates: A database that does not exist is made for it.
        backs_up: A proved backup is taken first although nothing should be lost.
        plans: Only reads, and says in phrases what `run` would do; it gets None where the database will be empty then.
        needs_database: False where there is nothing left to do when there is no database.
    """

    name: str
    run: Callable[[Connection], Summary | None]
    check: Callable[[Connection], object] | None = None
    plans: Callable[[Connection | None], list[str]] | None = None
    destroys: str | None = None
    confirms: str = ""
    creates: bool = False
    backs_up: bool = False
    needs_database: bool = True

    @property
    def loss(self) -> str:
        """What is lost by it, in words; empty for nothing."""
        return f"run {self.name} in {{}}" if self.destroys is None else self.destroys


@dataclass(frozen=True)
class Pipeline(Operation):
    """Steps that change a database, in one transaction with the stamp and the journal's line.

    What a step destroys and creates holds for the pipeline: a composition of steps has the guard, the confirmation and
    the backup without asking for them.

    Args:
        steps: In the order in which they run.
        arguments: What a remedy's command line needs beside --env.
        retries: It waits for a table's lock as short as the policy says for revisions, and is tried as often.
    """

    steps: tuple[Step, ...]
    arguments: str = ""
    retries: bool = False

    @property
    def danger(self) -> str:
        """What a protected environment must confirm to, a phrase with {} for the database; empty for nothing."""
        return " and ".join(dict.fromkeys(filter(None, (step.loss or step.confirms for step in self.steps))))

    @property
    def creates(self) -> bool:
        """Whether a database that does not exist is made."""
        return any(step.creates for step in self.steps)

    @property
    def backs_up(self) -> bool:
        """Whether a proved backup is taken first in a protected environment."""
        return any(step.loss or step.backs_up for step in self.steps)

    @property
    def step_names(self) -> list[str]:
        """The names of its steps, for a plan."""
        return [step.name for step in self.steps]

    @property
    def command(self) -> str:
        """The command, as a remedy has it, without --env."""
        return self.operation + self.arguments

    def interrupted(self, result: Result) -> SkinspireError:
        """Ctrl-C while the server commits leaves it to the server."""
        look = f"invoke db.verify --env={self.environment.name}"
        if result.commit == "done":
            return OutcomeUnknown("interrupted after the commit: it is done, but was not read back", remedy=look)
        if result.commit == "begun":
            return OutcomeUnknown("interrupted while the server committed: whether it did is not known", remedy=look)
        return Interrupted(f"interrupted; {AS_IT_WAS}")

    def carry_out(self, running: Running) -> None:
        """Open or make the database, run the steps, commit, and read back from a second connection."""
        if self.retries:
            self._retry(running)
        else:
            self._try(running)

    def _retry(self, running: Running) -> None:
        """Wait for a table's lock no longer than the policy says for revisions, and try again, as often as it says."""
        policy, result = running.target.policy, running.result
        brief = replace(running.target, policy=replace(policy, lock_timeout=policy.ddl_lock_timeout))
        running = replace(running, target=brief)
        for number in range(1, policy.ddl_tries + 1):
            started, before = time.monotonic(), len(result.steps)
            try:
                self._try(running)
                break
            except TableLocked as error:
                if number == policy.ddl_tries:
                    error.message = f"{error.message}; it was tried {counted(number, 'time')}"
                    raise
                told = Summary(lines=[error.message.replace(f"; {AS_IT_WAS}", "")])
            tried = StepResult(f"try {number} of {policy.ddl_tries}", False, time.monotonic() - started, told)
            result.steps[before:] = [tried]
            running.report.step(tried)
            time.sleep(policy.ddl_lock_timeout)  # as long as it made others wait, it lets them pass

    def _try(self, running: Running) -> None:
        target = running.target
        try:
            connection, created = databases.open_database(target, self.operation, create=self.creates, brief=False)
        except DatabaseMissing as error:  # the server itself has said so
            if any(step.needs_database for step in self.steps):
                raise
            if running.confirm is not None:
                guard.require_confirmation(self.command, self.danger, target, running.confirm)
            running.note(f"{error.message}: there is nothing to {self.steps[0].name}")
            return
        try:
            entry = self._transaction(connection, running)
        except OutcomeUnknown:
            raise
        except BaseException:
            if created:
                guard.drop_if_new(target, self.operation)
            raise
        read_back(target, self.operation, entry)

    def _transaction(self, connection: Connection, running: Running) -> journal.Entry:
        started, target = time.monotonic(), running.target
        try:
            with translated(target, self.operation, "preparation", connection):
                self.admit(connection, running)
            for step in self.steps:
                run_step(step, connection, running)
            with translated(target, self.operation, "commit", connection):
                steps = [done.as_dict() for done in running.result.steps]
                entry = journal.record(connection, self.operation, target.environment, time.monotonic() - started, steps)
            commit(connection, running, entry)
            return entry
        finally:
            close(connection)

    def admit(self, connection: Connection, running: Running) -> None:
        """Lock, identify, guard; back up what could be lost; stamp."""
        target = running.target
        filled = guard.admit(connection, target, self.command, self.danger, running.confirm)
        if filled and self.backs_up and target.policy.protected and not running.backed_up:
            running.backed_up = True
            running.note(precaution.take(self.environment, running.backups, running.report, self.operation))
        stamp.write(connection, target.environment)

    def look_ahead(self, plan: Plan, running: Running) -> None:
        """What would be refused or allowed."""
        with plan.look() as connection:
            if connection is None:
                self._without_database(plan, running.confirm)
            else:
                self.admit_ahead(connection, plan, running)
                if self.steps and (check := self.steps[0].check):
                    check(connection)
            for number, step in enumerate(self.steps):
                if step.plans:
                    empty = any(before.creates or not before.needs_database for before in self.steps[:number])
                    plan.would += step.plans(None if empty else connection)

    def _without_database(self, plan: Plan, confirm: str | None) -> None:
        if confirm is not None and self.danger:
            guard.require_confirmation(self.command, self.danger, plan.target, confirm)
        if self.creates:
            plan.make_the_database()
        elif any(step.needs_database for step in self.steps):
            raise missing(plan.target)
        else:
            plan.would.append(f"find nothing to {plan.steps[0]}: the database {plan.target.database} does not exist")

    def admit_ahead(self, connection: Connection, plan: Plan, running: Running) -> None:
        """What admit() would refuse or allow."""
        filled = plan.admit(connection, self.command, self.danger, running.confirm)
        if filled and self.backs_up and plan.target.policy.protected:
            plan.backup = precaution.folder(self.environment, running.backups)
            plan.would.insert(0, f"take a backup in {plan.backup} first, and prove it by a restore")
            plan.may_create_databases()


@dataclass(frozen=True)
class Adoption(Pipeline):
    """`env.stamp`: the way in for a database that has no stamp, or that of another environment which is not protected."""

    def admit(self, connection: Connection, running: Running) -> None:
        """Let it pass with the owner's consent, under the lock."""
        guard.consent_to_adopt(connection, running.target, running.confirm)
        if not lock.try_take(connection):
            lock.take(connection, running.target)
            guard.consent_to_adopt(connection, running.target, running.confirm)

    def admit_ahead(self, connection: Connection, plan: Plan, running: Running) -> None:
        """Whether the owner's consent would be needed."""
        guard.consent_to_adopt(connection, plan.target, running.confirm)


@dataclass(frozen=True)
class Look(Operation):
    """Steps that only look: PostgreSQL itself refuses to write. All of them run; what they found is judged at the end.

    Args:
        steps: In the order in which they run.
        arguments: What a remedy's command line needs beside --env.
        any_stamp: It looks at another environment's database too, and says whose it is.
        writes: It keeps something outside the database.
        tries: A step tries something, which is rolled back: the transaction is not read only.
    """

    steps: tuple[Step, ...]
    arguments: str = ""
    any_stamp: bool = False
    writes: bool = False
    tries: bool = False

    @property
    def changes(self) -> bool:
        """It changes nothing."""
        return False

    @property
    def plans(self) -> bool:
        """Whether `--dry` shows a plan: where it keeps something outside the database."""
        return self.writes

    @property
    def step_names(self) -> list[str]:
        """The names of its steps, for a plan."""
        return [step.name for step in self.steps]

    def interrupted(self, result: Result) -> SkinspireError:
        """Nothing was changed."""
        return Interrupted(f"interrupted; {AS_IT_WAS}")

    def carry_out(self, running: Running) -> None:
        """Look, and judge."""
        with read_only_connection(running.target, self.operation, tries=self.tries) as connection:
            if not self.any_stamp:
                stamp.refuse_foreign(stamp.read(connection), running.target)
            for step in self.steps:
                run_step(step, connection, running)
        for done in running.result.steps:
            judge(done.name, done.summary, looks=True)

    def look_ahead(self, plan: Plan, running: Running) -> None:
        """Whether there is anything to look at, and what would be kept of it."""
        with plan.look() as connection:
            if connection is None:
                raise missing(plan.target)
            if not self.any_stamp:
                stamp.refuse_foreign(stamp.read(connection), plan.target)
            if self.steps and (check := self.steps[0].check):
                check(connection)
            for step in self.steps:
                plan.would += step.plans(connection) if step.plans else []


def run_step(step: Step, connection: Connection, running: Running) -> None:
    """Run one step, tell how it went, and stop a change whose check did not pass before it is committed."""
    with running.step(step.name) as summary, translated(running.target, running.operation, step.name, connection):
        done = step.run(connection)
        vars(summary).update(vars(done or Summary()))


@dataclass(frozen=True)
class Series(Operation):
    """Operations one after the other, each committed before the next is asked for.

    Args:
        next: Gives the next one, None at the end.
        steps: What they may consist of, for a plan.
    """

    next: Callable[[], Operation | None]
    steps: tuple[str, ...] = ()

    @property
    def step_names(self) -> list[str]:
        """The names of the steps that it may consist of, for a plan."""
        return list(self.steps)

    def carry_out(self, running: Running) -> None:
        """Run them all. What is raised is the error of the first that fails; those before it stay."""
        result = running.result
        while (operation := self.next()) is not None:
            part = Result(self.operation, self.environment.name, result.database)
            try:
                operation.carry_out(
                    Running(
                        operation.operation, running.target, running.report, part, running.confirm, running.backups,
                        not operation.changes, running.stack,
                    )
                )  # fmt: skip
            except KeyboardInterrupt:
                raise operation.interrupted(part) from None
            finally:
                result.steps += part.steps
                result.notes += part.notes
            result.commit = "done" if operation.changes else result.commit

    def explain(self, error: SkinspireError, result: Result) -> None:
        """What was committed before stays."""
        if result.commit == "done":
            error.message = error.message.replace(AS_IT_WAS, STAYS)

    def interrupted(self, result: Result) -> SkinspireError:
        """Between two operations nothing is under way."""
        return Interrupted(f"interrupted; {AS_IT_WAS}")

    def look_ahead(self, plan: Plan, running: Running) -> None:
        """What is known before the first operation is committed."""
        if (operation := self.next()) is None:
            plan.would.append("find nothing to do")
        else:
            operation.look_ahead(plan, running)

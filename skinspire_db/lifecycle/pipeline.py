"""The life of an operation: steps in order, on one connection, in one transaction, whatever fails."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.errors import (
    ChecksFailed,
    ConnectionFailed,
    DatabaseMissing,
    Drifted,
    Interrupted,
    OutcomeUnknown,
    SkinspireError,
)
from skinspire_db.lifecycle import guard, journal, lock, stamp
from skinspire_db.lifecycle.dry_run import Plan, add_pipeline, planning
from skinspire_db.lifecycle.failures import AS_IT_WAS, translated
from skinspire_db.lifecycle.remedies import of_check, shortened
from skinspire_db.lifecycle.result import Report, Result, StepResult, Summary, counted
from skinspire_db.postgres import connections, databases, target
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

STAYS = "what was committed before this step stays"
DESTROYS = "destroy what {} holds"


@dataclass(frozen=True)
class Step:
    """One reusable part of an operation: takes the open connection, returns what it did. `check` only reads, and raises what
    `run` would refuse at once.
    """

    name: str
    run: Callable[[Connection], Summary]
    check: Callable[[Connection], object] | None = None


@dataclass(frozen=True)
class Pipeline:
    """An operation on one environment.

    `danger`: what a protected environment must confirm to, a phrase with {} for the database. `creates`: a database that does
    not exist is made. `adopts`: this is `env.stamp`, the way in for a database that has no stamp or another's. `keeps`: False
    is an operation that only looks: it takes no lock, runs all its steps, and rolls back at the end. `any_stamp`: it looks at
    another environment's database too, and says whose it is. `writes`: it keeps something outside the database. `backs_up`:
    in a protected environment a verified backup is taken first. `arguments`: what a remedy's command line needs beside --env.
    `removes`: without a database there is nothing to remove, and the operation is done.
    """

    operation: str
    environment: Environment
    steps: tuple[Step, ...]
    danger: str = ""
    arguments: str = ""
    creates: bool = False
    adopts: bool = False
    keeps: bool = True
    any_stamp: bool = False
    backs_up: bool = False
    writes: bool = False
    removes: bool = False

    def plan(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Plan:
        """What `run` would do; nothing is changed. Raises what `run` would begin with: a refusal, a server that is down."""
        steps = [step.name for step in self.steps]
        with planning(self.operation, self.environment, steps, report or Report()) as plan:
            add_pipeline(plan, self, confirm, backups)
        return plan

    def run(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Result:
        """Carry the operation out. When this returns, it is committed and was read back from a second connection.

        Raises a SkinspireError whose `result` says how far it came. Whatever is raised, the transaction was rolled back
        and a database that this operation created was dropped, unless somebody else has begun to use it; only
        OutcomeUnknown, for a commit that nobody could be asked about, can say neither. A kill -9 of the first operation
        on a new database leaves an empty database, which the next one takes for new.
        """
        started = time.monotonic()
        result = Result(self.operation, self.environment.name)
        try:
            with self.environment.pin.operation():
                self._run(result, confirm, report or Report(), backups)
        except (SkinspireError, KeyboardInterrupt) as caught:
            error = caught if isinstance(caught, SkinspireError) else self._interrupted(result)
            result.tell(error, time.monotonic() - started)
            raise error from None
        result.seconds = time.monotonic() - started
        return result

    def _interrupted(self, result: Result) -> SkinspireError:
        look = f"invoke db.verify --env={self.environment.name}"
        if result.commit == "done":
            return OutcomeUnknown("interrupted after the commit: it is done, but was not read back", remedy=look)
        if result.commit == "begun":
            return OutcomeUnknown("interrupted while the server committed: whether it did is not known", remedy=look)
        return Interrupted(f"interrupted; {AS_IT_WAS}")

    def _run(self, result: Result, confirm: str | None, report: Report, backups: Path | None) -> None:
        to = target.target(self.environment)
        result.database = to.database
        report.target(to)
        try:
            connection, created = databases.open_database(to, self.operation, create=self.creates)
        except DatabaseMissing as error:  # the server itself has said so
            if not self.removes:
                raise
            if confirm is not None:
                guard.require_confirmation(self.operation + self.arguments, self.danger, to, confirm)
            result.notes.append(f"{error.message}: there is nothing to {self.steps[0].name}")
            return
        try:
            entry = self._transaction(connection, to, result, confirm, report, backups)
        except OutcomeUnknown:
            raise
        except BaseException:
            if created:
                guard.drop_if_new(to, self.operation)
            raise
        if self.keeps and not self._read_back(to, entry):
            raise OutcomeUnknown(
                "the commit was acknowledged, but a second connection could not read it back",
                remedy=f"invoke db.verify --env={to.environment}",
            )

    def _read_back(self, to: Target, entry: uuid.UUID) -> bool:
        """Whether a second connection sees the commit; a server that is short of connections gets a few tries."""
        for pause in (0.0, 0.5, 2.0):
            time.sleep(pause)
            if journal.recorded(to, self.operation, entry):
                return True
        return False

    def _transaction(
        self, connection: Connection, to: Target, result: Result, confirm: str | None, report: Report, backups: Path | None
    ) -> uuid.UUID:
        started = time.monotonic()
        try:
            with translated(to, self.operation, "preparation", connection):
                connections.begin(connection, to.policy)
                if self.keeps:
                    self._admit(connection, to, result, confirm, report, backups)
                elif not self.any_stamp:
                    stamp.refuse_foreign(stamp.read(connection), to)
            for step in self.steps:
                self._step(step, connection, to, result, report)
            if not self.keeps:
                connection.rollback()
                self._judge(result, to)
                return uuid.UUID(int=0)
            with translated(to, self.operation, "commit", connection):
                steps = [each.as_dict() for each in result.steps]
                entry = journal.record(connection, self.operation, to.environment, time.monotonic() - started, steps)
            result.commit = "begun"
            self._commit(connection, to, entry, result)
            result.commit = "done"
            return entry
        finally:
            _close(connection)

    def _admit(
        self, connection: Connection, to: Target, result: Result, confirm: str | None, report: Report, backups: Path | None
    ) -> None:
        if self.adopts:
            guard.consent_to_adopt(connection, to, confirm)
            if not lock.try_take(connection):
                lock.take(connection, to)
                guard.consent_to_adopt(connection, to, confirm)
            return
        filled = guard.admit(connection, to, self.operation + self.arguments, self.danger, confirm)
        if filled and self.backs_up and to.policy.protected:
            from skinspire_db.copies import prove

            result.notes.append(prove.precaution(self.environment, backups, report, self.operation))
        stamp.write(connection, to.environment)

    def _step(self, step: Step, connection: Connection, to: Target, result: Result, report: Report) -> None:
        started = time.monotonic()
        done = StepResult(step.name, False, 0.0)
        try:
            with translated(to, self.operation, step.name, connection):
                summary = step.run(connection)
            bad = [check for check in summary.checks if check.status != "pass"]
            done = StepResult(step.name, not bad and not summary.drift, time.monotonic() - started, summary)
            if bad and self.keeps:  # an operation that only looks goes on, and judges at the end
                raise self._failed(step.name, summary, to)
        finally:
            if not done.ok and not done.seconds:
                done = StepResult(step.name, False, time.monotonic() - started)
            result.steps.append(done)
            report.step(done)

    def _judge(self, result: Result, to: Target) -> None:
        """Raise what a look has found, if it is not what it should be."""
        for step in result.steps:
            if any(check.status != "pass" for check in step.summary.checks):
                raise self._failed(step.name, step.summary, to)
            if step.summary.drift:
                raise Drifted(step.summary.drift, remedy=step.summary.remedy)

    def _failed(self, step: str, summary: Summary, to: Target) -> ChecksFailed:
        bad = [check for check in summary.checks if check.status != "pass"]
        count = f"{len(bad)} of {counted(len(summary.checks), 'check')} did not pass"
        return ChecksFailed(
            f"{step}: {count}: {bad[0].name}: {shortened(bad[0].detail)}",
            remedy=None if self.keeps else of_check(bad[0].name, f"invoke {self.operation}{self.arguments} --verbose"),
        )

    def _commit(self, connection: Connection, to: Target, entry: uuid.UUID, result: Result) -> None:
        """Commit. When the server goes away in the middle, nobody knows what came of it: ask."""
        import psycopg

        try:
            with translated(to, self.operation, "commit", connection, but=psycopg.OperationalError):
                connection.commit()
        except SkinspireError:  # refused by PostgreSQL, a deferred constraint for one
            result.commit = "not begun"
            raise
        except (psycopg.OperationalError, KeyboardInterrupt) as error:
            _close(connection)
            match journal.recorded(to, self.operation, entry, wait=True):
                case None:
                    raise OutcomeUnknown(
                        "the server went away while it committed: whether it did is not known",
                        remedy=f"invoke db.verify --env={to.environment}",
                    ) from None
                case False if isinstance(error, KeyboardInterrupt):
                    result.commit = "not begun"
                    raise
                case False:
                    result.commit = "not begun"
                    raise ConnectionFailed(f"the server went away before it committed; {AS_IT_WAS}") from None


@dataclass(frozen=True)
class Series:
    """Pipelines one after the other, each committed before the next is asked for: `next` gives it, None at the end.

    `first` is what `next` would give first, found by reading only; None where `next` itself only reads.
    """

    operation: str
    environment: Environment
    next: Callable[[], Pipeline | None]
    steps: tuple[str, ...] = ()
    keeps: bool = True
    writes: bool = False
    first: Callable[[], Pipeline | None] | None = None

    def plan(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Plan:
        """What `run` would do, as far as it is known before its first pipeline is committed; nothing is changed. Raises what
        `run` would begin with.
        """
        with planning(self.operation, self.environment, list(self.steps), report or Report()) as plan:
            if (pipeline := (self.first or self.next)()) is None:
                plan.would.append("find nothing to do")
            else:
                add_pipeline(plan, pipeline, confirm, backups)
        return plan

    def run(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Result:
        """Run them all. Raises the error of the first that fails; those before it stay, and its `result` has them."""
        with self.environment.pin.operation():
            return self._run(confirm, report, backups)

    def _run(self, confirm: str | None, report: Report | None, backups: Path | None) -> Result:
        together = Result(self.operation, self.environment.name)
        started = time.monotonic()
        try:
            to = target.target(self.environment)
            together.database = to.database
            report = report or Report()
            report.target(to)
            while (pipeline := self.next()) is not None:
                done = pipeline.run(confirm=confirm, report=_WithoutTarget(report), backups=backups)
                together.steps += done.steps
                together.notes += done.notes
                together.commit = "done"
        except (SkinspireError, KeyboardInterrupt) as caught:
            error = caught if isinstance(caught, SkinspireError) else Interrupted(f"interrupted; {AS_IT_WAS}")
            if together.commit == "done":
                error.message = error.message.replace(AS_IT_WAS, STAYS)
            error.remedy = error.remedy and error.remedy.replace("{env}", self.environment.name)
            together.seconds = time.monotonic() - started
            failed = error.result.get("steps", [])
            error.result = together.as_dict() | {"ok": False, "exit_code": error.exit_code, "error": error.as_dict()}
            error.result["steps"] += failed
            raise error from None
        together.seconds = time.monotonic() - started
        return together


class _WithoutTarget(Report):
    """Tells the steps of one pipeline of several, whose target was told before."""

    def __init__(self, report: Report) -> None:
        self.step = report.step  # type: ignore[method-assign]
        self.progress = report.progress  # type: ignore[method-assign]
        self.transfer = report.transfer  # type: ignore[method-assign]


def _close(connection: Connection) -> None:
    """Close, and with that roll back; an error here would hide the one that matters."""
    import psycopg

    with contextlib.suppress(psycopg.Error):
        connection.rollback()  # waits for the server to have done it; close() alone would not
    connection.close()

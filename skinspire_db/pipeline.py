"""The life of an operation: steps in order, on one connection, in one transaction, whatever fails."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from skinspire_db import connections, safety
from skinspire_db.connections import Target, sentence
from skinspire_db.environment import Environment
from skinspire_db.errors import (
    ChecksFailed,
    ConnectionFailed,
    DatabaseMissing,
    Drifted,
    Interrupted,
    OutcomeUnknown,
    PermissionMissing,
    SkinspireError,
    StepFailed,
    TableLocked,
)
from skinspire_db.plan import Plan, add_pipeline, planning
from skinspire_db.remedies import shortened
from skinspire_db.summary import ONCE, SignIn, Summary, counted

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.connections import Connection

AS_IT_WAS = "the database is as it was"
STAYS = "what was committed before this step stays"
DESTROYS = "destroy what {} holds"


class Report:
    """Whom an operation tells how it goes. This one keeps silent."""

    def target(self, to: Target) -> None:
        """The operation is about to begin on this database."""

    def step(self, done: StepResult) -> None:
        """A step has ended; nothing is committed yet."""

    def progress(self, done: int, total: int) -> None:
        """So many of so many rows are in."""

    def transfer(self, done: int, total: int, rows: int) -> None:
        """So many of about so many bytes have gone over, in so many rows."""


@dataclass(frozen=True)
class Step:
    """One reusable part of an operation: takes the open connection, returns what it did. `check` only reads, and raises what
    `run` would refuse at once.
    """

    name: str
    run: Callable[[Connection], Summary]
    check: Callable[[Connection], object] | None = None


@dataclass(frozen=True)
class StepResult:
    """A step that ran; `seconds` is its wall time."""

    name: str
    ok: bool
    seconds: float
    summary: Summary = field(default_factory=Summary)

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "name": self.name, "ok": self.ok, "seconds": round(self.seconds, 3), "summary": self.summary.numbers,
        }  # fmt: skip
        if self.summary.lines:
            shown["lines"] = self.summary.lines
        if self.summary.checks:
            shown["checks"] = [check.as_dict() for check in self.summary.checks]
        return shown


@dataclass
class Result:
    """What became of an operation. `notes` are sentences the user should read even when all went well; `commit` says how
    far it came with that.
    """

    operation: str
    environment: str
    database: str | None = None
    steps: list[StepResult] = field(default_factory=list)
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    commit: Literal["not begun", "begun", "done"] = "not begun"

    @property
    def sign_in(self) -> list[SignIn]:
        return [each for step in self.steps for each in step.summary.sign_in]

    def as_dict(self) -> dict[str, Any]:
        shown: dict[str, Any] = {
            "operation": self.operation,
            "environment": self.environment,
            "database": self.database,
            "ok": True,
            "exit_code": 0,
            "seconds": round(self.seconds, 3),
            "steps": [step.as_dict() for step in self.steps],
            "error": None,
        }
        for step in self.steps:
            shown |= step.summary.data
        if checks := [check for step in shown["steps"] for check in step.pop("checks", [])]:
            shown["checks"] = checks
        if self.sign_in and self.commit != "not begun":
            shown["sign_in"] = [vars(each) for each in self.sign_in]
        notes = [*self.notes, *([ONCE] if any(each.generated for each in self.sign_in) and "sign_in" in shown else [])]
        if notes:
            shown["notes"] = notes
        return shown

    def tell(self, error: SkinspireError, seconds: float) -> None:
        """Put into the error how far the operation came, after so many seconds, and into its remedy which environment's."""
        self.seconds = seconds
        error.remedy = error.remedy and error.remedy.replace("{env}", self.environment)
        error.result = self.as_dict() | {"ok": False, "exit_code": error.exit_code, "error": error.as_dict()}


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
        to = connections.target(self.environment)
        result.database = to.database
        report.target(to)
        try:
            connection, created = connections.open_database(to, self.operation, create=self.creates)
        except DatabaseMissing as error:  # the server itself has said so
            if not self.removes:
                raise
            if confirm is not None:
                safety.guard(self.operation + self.arguments, self.danger, to, confirm)
            result.notes.append(f"{error.message}: there is nothing to {self.steps[0].name}")
            return
        try:
            entry = self._transaction(connection, to, result, confirm, report, backups)
        except OutcomeUnknown:
            raise
        except BaseException:
            if created:
                safety.drop_if_new(to, self.operation)
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
            if safety.recorded(to, self.operation, entry):
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
                    safety.refuse_foreign(safety.read_stamp(connection), to)
            for step in self.steps:
                self._step(step, connection, to, result, report)
            if not self.keeps:
                connection.rollback()
                self._judge(result, to)
                return uuid.UUID(int=0)
            with translated(to, self.operation, "commit", connection):
                steps = [each.as_dict() for each in result.steps]
                entry = safety.record(connection, self.operation, to.environment, time.monotonic() - started, steps)
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
            safety.consent_to_adopt(connection, to, confirm)
            if not safety.try_lock(connection):
                safety.lock(connection, to)
                safety.consent_to_adopt(connection, to, confirm)
            return
        filled = safety.admit(connection, to, self.operation + self.arguments, self.danger, confirm)
        if filled and self.backs_up and to.policy.protected:
            from skinspire_db.backups import proving

            result.notes.append(proving.precaution(self.environment, backups, report, self.operation))
        safety.write_stamp(connection, to.environment)

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
            remedy=None if self.keeps else bad[0].remedy,
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
            match safety.recorded(to, self.operation, entry, wait=True):
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
            to = connections.target(self.environment)
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


# Errors of PostgreSQL, in our words


@contextlib.contextmanager
def translated(  # type: ignore[no-untyped-def]
    to: Target, operation: str, during: str, connection: Connection, *, but: type[Exception] | tuple[()] = ()
):
    """Turn psycopg's errors on this connection into ours; `but` passes as it is."""
    import psycopg

    try:
        yield
    except but:
        raise
    except psycopg.Error as error:
        raise translation(error, to, operation, during, connection) from None


def translation(
    error: psycopg.Error, to: Target, operation: str, during: str, connection: Connection | None = None
) -> SkinspireError:
    """What psycopg raised on that connection, if on one that is known, as an error of ours."""
    from psycopg import errors

    if isinstance(error, errors.LockNotAvailable):
        holders = safety.blockers(to, operation, connection.info.backend_pid if connection else 0)
        return TableLocked(
            f"{during}: waited {to.policy.lock_timeout:g} s for a table that is held by {holders}; {AS_IT_WAS}",
            remedy=f"end that transaction, which invoke db.activity --env={to.environment} shows, and run it again",
        )
    if isinstance(error, errors.DiskFull):
        return StepFailed(f"{during}: the server's disk is full; {AS_IT_WAS}", remedy="free some space and run it again")
    if setting := connections.short_of_locks(error.diag.message_hint or ""):
        return StepFailed(f"{during}: {sentence(error)}; {AS_IT_WAS}", remedy=connections.more_locks(setting, to.server))
    if error.sqlstate == "57P01" and not (to.server and to.server.status().pid is None):
        return ConnectionFailed(
            f"{during}: somebody ended this session, an operation that replaced the database for one; {AS_IT_WAS}",
            remedy=f"invoke db.history --env={to.environment}, then run it again",
        )
    if (connection and connection.closed) or connections.is_lost(error):
        return ConnectionFailed(
            f"{during}: the server went away ({sentence(error)}); {AS_IT_WAS}",
            remedy="invoke server.status" if to.server else "run it again when the server is back",
        )
    if isinstance(error, errors.InsufficientPrivilege | errors.InvalidSchemaName):
        return PermissionMissing(
            f"{during}: role {to.user} lacks a right: {sentence(error)}; {AS_IT_WAS}",
            remedy=f'ask the administrator for: GRANT USAGE, CREATE ON SCHEMA public TO "{to.user}"'
            if "for schema public" in sentence(error) or isinstance(error, errors.InvalidSchemaName)
            else f"use the role that owns the tables in the URL of {to.environment}, or ask the administrator for that right",
        )
    if isinstance(error, errors.UndefinedTable):
        return StepFailed(
            f"{during}: {sentence(error)}; {AS_IT_WAS}",
            remedy=f"invoke db.create --update-only --env={to.environment}",
        )
    where = f" (table {error.diag.table_name})" if error.diag.table_name else ""
    return StepFailed(f"{during}: {sentence(error)}{where}; {AS_IT_WAS}")


def _close(connection: Connection) -> None:
    """Close, and with that roll back; an error here would hide the one that matters."""
    import psycopg

    with contextlib.suppress(psycopg.Error):
        connection.rollback()  # waits for the server to have done it; close() alone would not
    connection.close()

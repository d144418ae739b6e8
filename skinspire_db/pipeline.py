"""Operations: steps in order, on one connection, in one transaction, with the life that DESIGN gives each of them."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from skinspire_db import connections, safety, schema, trigger_files, triggers, verification
from skinspire_db.connections import Target, sentence
from skinspire_db.environment import Environment
from skinspire_db.errors import (
    ChecksFailed,
    ConnectionFailed,
    Interrupted,
    OutcomeUnknown,
    PermissionMissing,
    SkinspireError,
    StepFailed,
    TableLocked,
)
from skinspire_db.seeding.bulk import Options, seed
from skinspire_db.summary import SignIn, Summary
from skinspire_db.trigger_files import TriggerFile

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.connections import Connection

AS_IT_WAS = "the database is as it was"


class Report:
    """Whom an operation tells how it goes. This one keeps silent."""

    def target(self, to: Target) -> None:
        """The operation is about to begin on this database."""

    def step(self, done: StepResult) -> None:
        """A step has ended; nothing is committed yet."""

    def progress(self, done: int, total: int) -> None:
        """So many of so many rows are in."""


@dataclass(frozen=True)
class Step:
    """One reusable part of an operation: takes the open connection, returns what it did."""

    name: str
    run: Callable[[Connection], Summary]


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
        if checks := [check for step in shown["steps"] for check in step.pop("checks", [])]:
            shown["checks"] = checks
        if self.sign_in and self.commit != "not begun":
            shown["sign_in"] = [vars(each) for each in self.sign_in]
        if self.notes:
            shown["notes"] = self.notes
        return shown


@dataclass(frozen=True)
class Pipeline:
    """An operation on one environment.

    `destructive`: what the database holds goes. `creates`: a database that does not exist is made. `adopts`: this is
    `env.stamp`, the way in for a database that has no stamp or another's. `keeps`: False is an operation that only looks:
    it asks for no stamp and no lock, and rolls back at the end.
    """

    operation: str
    environment: Environment
    steps: tuple[Step, ...]
    destructive: bool = False
    creates: bool = False
    adopts: bool = False
    keeps: bool = True

    def plan(self) -> dict[str, Any]:
        """What `run` would do, without a connection and without starting a server."""
        to = connections.target(self.environment, start=False)
        return {
            "operation": self.operation, "environment": self.environment.name, "database": to.database, "target": str(to),
            "dry": True, "plan": [step.name for step in self.steps], "ok": True, "exit_code": 0, "error": None,
        }  # fmt: skip

    def run(self, *, confirm: str | None = None, report: Report | None = None) -> Result:
        """Carry the operation out. When this returns, it is committed and was read back from a second connection.

        Raises a SkinspireError whose `result` says how far it came. Whatever is raised, the transaction was rolled back
        and a database that this operation created was dropped, unless somebody else has begun to use it; only
        OutcomeUnknown, for a commit that nobody could be asked about, can say neither. A kill -9 of the first operation
        on a new database leaves an empty database, which the next one takes for new.
        """
        started = time.monotonic()
        result = Result(self.operation, self.environment.name)
        try:
            self._run(result, confirm, report or Report())
        except (SkinspireError, KeyboardInterrupt) as caught:
            error = caught if isinstance(caught, SkinspireError) else self._interrupted(result)
            result.seconds = time.monotonic() - started
            error.remedy = error.remedy and error.remedy.replace("{env}", self.environment.name)
            error.result = result.as_dict() | {"ok": False, "exit_code": error.exit_code, "error": error.as_dict()}
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

    def _run(self, result: Result, confirm: str | None, report: Report) -> None:
        to = connections.target(self.environment)
        result.database = to.database
        report.target(to)
        connection, created = connections.open_database(to, self.operation, create=self.creates)
        try:
            entry = self._transaction(connection, to, result, confirm, report)
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
        self, connection: Connection, to: Target, result: Result, confirm: str | None, report: Report
    ) -> uuid.UUID:
        started = time.monotonic()
        try:
            with _translated(to, self.operation, "preparation", connection):
                connections.begin(connection, to.policy)
                if self.keeps:
                    self._admit(connection, to, result, confirm)
            for step in self.steps:
                self._step(step, connection, to, result, report)
            if not self.keeps:
                connection.rollback()
                return uuid.UUID(int=0)
            with _translated(to, self.operation, "commit", connection):
                steps = [each.as_dict() for each in result.steps]
                entry = safety.record(connection, self.operation, to.environment, time.monotonic() - started, steps)
            result.commit = "begun"
            self._commit(connection, to, entry, result)
            result.commit = "done"
            return entry
        finally:
            _close(connection)

    def _admit(self, connection: Connection, to: Target, result: Result, confirm: str | None) -> None:
        """Lock, identify, guard.

        In this order, so that nothing changes between the look and the deed; but nobody is kept waiting for a database that
        is refused anyway.
        """
        if not safety.try_lock(connection):
            self._identify(connection, to, confirm)
            safety.lock(connection, to)
        if self._identify(connection, to, confirm) and self.destructive and to.policy.protected:
            result.notes.append("no backup was taken: this version of the tools cannot make one yet")
        if not self.adopts:
            safety.write_stamp(connection, to.environment)

    def _identify(self, connection: Connection, to: Target, confirm: str | None) -> bool:
        if self.adopts:
            safety.consent_to_adopt(connection, to, confirm)
            return True
        filled = safety.identify(connection, to)
        if self.destructive and (filled or confirm):
            safety.guard(self.operation, to, confirm)
        return filled

    def _step(self, step: Step, connection: Connection, to: Target, result: Result, report: Report) -> None:
        started = time.monotonic()
        done = StepResult(step.name, False, 0.0)
        try:
            with _translated(to, self.operation, step.name, connection):
                summary = step.run(connection)
            bad = [check for check in summary.checks if check.status != "pass"]
            done = StepResult(step.name, not bad, time.monotonic() - started, summary)
            if bad:
                raise ChecksFailed(
                    f"{step.name}: {len(bad)} of {len(summary.checks)} checks did not pass: {bad[0].name}: {bad[0].detail}",
                    remedy=None if self.keeps else f"invoke {self.operation} --env={to.environment} --verbose",
                )
        finally:
            if not done.ok and not done.seconds:
                done = StepResult(step.name, False, time.monotonic() - started)
            result.steps.append(done)
            report.step(done)

    def _commit(self, connection: Connection, to: Target, entry: uuid.UUID, result: Result) -> None:
        """Commit. When the server goes away in the middle, nobody knows what came of it: ask."""
        import psycopg

        try:
            with _translated(to, self.operation, "commit", connection, but=psycopg.OperationalError):
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


# The operations


def setup(environment: Environment, options: Options, report: Report | None = None) -> Pipeline:
    """reset -> create -> triggers -> seed -> verify, in one transaction."""
    wanted = schema.blueprint(environment.project)
    files = trigger_files.read_files()
    steps = (
        Step("reset", schema.reset),
        Step("create", partial(schema.create, wanted=wanted)),
        Step("triggers", partial(triggers.install, files=files)),
        _seed_step(environment, options, report),
        _verify_step(environment, wanted, files),
    )
    return Pipeline("db.setup", environment, steps, destructive=True, creates=True)


def reset(environment: Environment) -> Pipeline:
    """Drop what the application owns."""
    return Pipeline("db.reset", environment, (Step("reset", schema.reset),), destructive=True)


def create(environment: Environment) -> Pipeline:
    """Make the tables in an empty database, which itself is made when it does not exist."""
    wanted = schema.blueprint(environment.project)
    return Pipeline("db.create", environment, (Step("create", partial(schema.create, wanted=wanted)),), creates=True)


def create_missing(environment: Environment) -> Pipeline:
    """Add what the models have and the database lacks, and the triggers of what was added."""
    steps = (
        Step("create", partial(schema.create_missing, models=schema.metadata(environment.project))),
        Step("triggers", partial(triggers.install, files=trigger_files.read_files())),
    )
    return Pipeline("db.create", environment, steps)


def install_triggers(environment: Environment, *, verify: bool = False) -> Pipeline:
    """Make functions, triggers and ledger what the files say; with `verify`, prove what they do before it is committed."""
    files = trigger_files.read_files()
    steps = (Step("triggers", partial(triggers.install, files=files)), _proofs_step(files))
    return Pipeline("triggers.install", environment, steps if verify else steps[:1])


def prove_triggers(environment: Environment) -> Pipeline:
    """Run the proofs of the trigger files; nothing is kept."""
    return Pipeline("triggers.verify", environment, (_proofs_step(trigger_files.read_files()),), keeps=False)


def seed_data(environment: Environment, options: Options, report: Report | None = None) -> Pipeline:
    """Reference data and invented people."""
    return Pipeline("db.seed", environment, (_seed_step(environment, options, report),))


def verify(environment: Environment) -> Pipeline:
    """All checks; nothing is kept."""
    step = _verify_step(environment, schema.blueprint(environment.project), trigger_files.read_files())
    return Pipeline("db.verify", environment, (step,), keeps=False)


def adopt(environment: Environment) -> Pipeline:
    """Stamp the database as this environment's."""

    def write(connection: Connection) -> Summary:
        before = safety.read_stamp(connection)
        safety.write_stamp(connection, environment.name)
        return Summary({"stamp": environment.name, "before": before.environment if before else "none"})

    return Pipeline("env.stamp", environment, (Step("stamp", write),), adopts=True)


def _seed_step(environment: Environment, options: Options, report: Report | None) -> Step:
    progress = report.progress if report else None
    run = partial(seed, here=environment.project, policy=environment.policy, options=options, progress=progress)
    return Step("seed", run)


def _proofs_step(files: list[TriggerFile]) -> Step:
    def run(connection: Connection) -> Summary:
        checks = triggers.prove(connection, files)
        return Summary({"proofs": len(checks), "passed": sum(check.status == "pass" for check in checks)}, checks=checks)

    return Step("proofs", run)


def _verify_step(environment: Environment, wanted: schema.Blueprint, files: list[TriggerFile]) -> Step:
    def run(connection: Connection) -> Summary:
        return verification.verify(verification.Subject(connection, environment.name, environment.policy, wanted, files))

    return Step("verify", run)


# Errors of PostgreSQL, in our words


@contextlib.contextmanager
def _translated(  # type: ignore[no-untyped-def]
    to: Target, operation: str, during: str, connection: Connection, *, but: type[Exception] | tuple[()] = ()
):
    """Turn psycopg's errors into ours; `but` passes as it is."""
    import psycopg

    try:
        yield
    except but:
        raise
    except psycopg.Error as error:
        raise _translation(error, to, operation, during, connection) from None


def _translation(error: psycopg.Error, to: Target, operation: str, during: str, connection: Connection) -> SkinspireError:
    from psycopg import errors

    if isinstance(error, errors.LockNotAvailable):
        holders = safety.blockers(to, operation, connection.info.backend_pid)
        return TableLocked(
            f"{during}: waited {to.policy.lock_timeout:g} s for a table that is held by {holders}; {AS_IT_WAS}",
            remedy="end that transaction and run it again",
        )
    if isinstance(error, errors.DiskFull):
        return StepFailed(f"{during}: the server's disk is full; {AS_IT_WAS}", remedy="free some space and run it again")
    if connection.closed:
        return ConnectionFailed(
            f"{during}: the server went away ({sentence(error)}); {AS_IT_WAS}",
            remedy="invoke server.status" if to.server else "run it again when the server is back",
        )
    if isinstance(error, errors.InsufficientPrivilege | errors.InvalidSchemaName):
        return PermissionMissing(
            f"{during}: role {to.user} lacks a right: {sentence(error)}; {AS_IT_WAS}",
            remedy=f'ask the administrator for: GRANT USAGE, CREATE ON SCHEMA public TO "{to.user}"',
        )
    if isinstance(error, errors.UndefinedTable):
        return StepFailed(
            f"{during}: {sentence(error)}; {AS_IT_WAS}",
            remedy=f"invoke db.create --env={to.environment}, or db.setup for a new database",
        )
    where = f" (table {error.diag.table_name})" if error.diag.table_name else ""
    return StepFailed(f"{during}: {sentence(error)}{where}; {AS_IT_WAS}")


def _close(connection: Connection) -> None:
    """Close, and with that roll back; an error here would hide the one that matters."""
    import psycopg

    with contextlib.suppress(psycopg.Error):
        connection.rollback()  # waits for the server to have done it; close() alone would not
    connection.close()

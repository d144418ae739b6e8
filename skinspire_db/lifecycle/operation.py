"""What a person runs: the stages that every kind of operation shares, and the kind that is not one transaction."""

from __future__ import annotations

import contextlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinspire_db.config.environment import Environment
from skinspire_db.errors import ChecksFailed, Drifted, Interrupted, SkinspireError
from skinspire_db.lifecycle import scratch
from skinspire_db.lifecycle.dry_run import Plan
from skinspire_db.lifecycle.failures import translation
from skinspire_db.lifecycle.remedies import shortened
from skinspire_db.lifecycle.result import Report, Result, StepResult, Summary, counted, failed
from skinspire_db.postgres.target import Target, target_of


@dataclass
class Running:
    """An operation as it runs: on which database, what came of it so far, and who is told.

    Args:
        operation: Its name, as it is typed.
        target: The environment's database.
        report: Who is told how it goes.
        result: What came of it so far.
        confirm: The name that was given with --confirm.
        backups: Where backups are kept; None is the project's folder.
        keeps_going: A check that does not pass ends nothing: the operation only looks, and judges at its end.
        stack: What is closed when the operation ends.
        backed_up: A proved backup was taken: none is needed where it is tried again.
    """

    operation: str
    target: Target
    report: Report
    result: Result
    confirm: str | None = None
    backups: Path | None = None
    keeps_going: bool = False
    stack: contextlib.ExitStack = field(repr=False, default_factory=contextlib.ExitStack)
    backed_up: bool = False

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Summary]:
        """A step of the operation; the block fills in its summary.

        Raises:
            ChecksFailed: A check of the step did not pass, and the operation changes something: nothing is committed or
                swapped after that.
            Drifted: The step found drift, and the operation changes something.
            SkinspireError: What PostgreSQL said in the block, in our words.
        """
        import psycopg

        started = time.monotonic()
        summary, shown, ok, failure = Summary(), Summary(), False, ""
        self.report.begin(name)
        try:
            yield summary
            shown = summary  # of a step that fails, nothing is shown: it is what it would have done
            ok = not _failed(summary) and not summary.drift
            if not ok and not self.keeps_going:
                judge(name, summary)
        except psycopg.Error as error:
            translated = translation(error, self.target, self.operation, name)
            failure = translated.message
            raise translated from None
        except SkinspireError as error:
            failure = error.message
            raise
        except KeyboardInterrupt:
            failure = "interrupted"
            raise
        finally:
            done = StepResult(name, ok, time.monotonic() - started, shown, shortened(failure))
            self.result.steps.append(done)
            self.report.step(done)

    def scratch(self, template: str | None = None, locale: str = "ENCODING 'UTF8'") -> Target:
        """A scratch database, dropped at the end of the operation unless it was swapped in."""
        database = scratch.database(self.target, self.operation, template=template, locale=locale, tell=self.note)
        return self.stack.enter_context(database)

    def note(self, text: str) -> None:
        """A sentence that the user should read even when all goes well."""
        self.result.notes.append(text)


def _failed(summary: Summary) -> list[Any]:
    return [check for check in summary.checks if check.status != "pass"]


def judge(name: str, summary: Summary, *, looks: bool = False) -> None:
    """Raise what a step has found, if it is not what it should be.

    Args:
        name: The step's.
        summary: What it answered.
        looks: The operation only looks: what a check found is then there to be mended.

    Raises:
        ChecksFailed: A check did not pass.
        Drifted: The step found something pending or drifted.
    """
    if bad := _failed(summary):
        count = f"{len(bad)} of {counted(len(summary.checks), 'check')} did not pass"
        raise ChecksFailed(
            f"{name}: {count}: {bad[0].name}: {shortened(bad[0].detail)}",
            remedy=bad[0].remedy if looks or bad[0].in_files else None,
        )
    if summary.drift:
        raise Drifted(summary.drift, remedy=summary.remedy)


@dataclass(frozen=True)
class Operation(ABC):
    """What a person runs on one environment. `run` does it; `plan` says what it would do, and changes nothing."""

    operation: str
    environment: Environment

    @property
    def changes(self) -> bool:
        """Whether it changes the database, or what is kept with it."""
        return True

    @property
    def plans(self) -> bool:
        """Whether `--dry` shows a plan in place of running it; what writes nothing at all is run."""
        return self.changes

    @property
    def connects(self) -> bool:
        """Whether it needs the server."""
        return True

    @property
    def ending(self) -> str:
        """What has been done when it ends well, in a few words; empty for the usual ones."""
        return ""

    @property
    @abstractmethod
    def step_names(self) -> list[str]:
        """What it consists of, for a plan."""

    @abstractmethod
    def carry_out(self, running: Running) -> None:
        """Do it. When this returns, it is done, and was read back."""

    @abstractmethod
    def look_ahead(self, plan: Plan, running: Running) -> None:
        """Put into the plan what it would do.

        Raises:
            SkinspireError: what carry_out() would begin with.
        """

    def interrupted(self, result: Result) -> SkinspireError:
        """What Ctrl-C means here."""
        return Interrupted("interrupted before it was done; the database was not changed")

    def explain(self, error: SkinspireError, result: Result) -> None:  # noqa: B027  # most have nothing to add
        """Say in the error what it means for the database."""

    def run(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Result:
        """Carry the operation out. When this returns, it is committed and was read back.

        Args:
            confirm: The database's name, where a protected environment asks for it.
            report: Who is told how it goes.
            backups: Where backups are kept; None is the project's folder.

        Returns:
            What became of it.

        Raises:
            SkinspireError: Its `result` says how far it came. The database is as it was; only OutcomeUnknown, for a commit
                about which the server could not be asked, cannot say so. A database that this operation created is dropped,
                unless another session has begun to use it. A kill -9 of the first operation on a new database leaves an
                empty database, which the next one takes for new.
        """
        started = time.monotonic()
        result, report = Result(self.operation, self.environment.name), report or Report()
        try:
            with self.environment.pin.operation(), contextlib.ExitStack() as stack:
                report.begin("server")  # one that has to be made or started takes seconds
                target = target_of(self.environment, start=self.connects)
                result.database = target.database
                report.target(target)
                self.carry_out(Running(self.operation, target, report, result, confirm, backups, not self.changes, stack))
        except (SkinspireError, KeyboardInterrupt) as caught:
            error = caught if isinstance(caught, SkinspireError) else self.interrupted(result)
            self.explain(error, result)
            result.tell(error, time.monotonic() - started)
            raise error from None
        finally:
            report.end()
        result.seconds = time.monotonic() - started
        return result

    def plan(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Plan:
        """What `run` would do. Nothing is changed, and no server is made; one that is stopped is started for the look.

        Raises:
            SkinspireError: What `run` would begin with: a refusal, a server that is down. Its `result` is the plan so far.
        """
        started = time.monotonic()
        report = report or Report()
        target = target_of(self.environment, start=False)
        plan = Plan(self.operation, self.environment, target, self.step_names)
        result = Result(self.operation, self.environment.name, target.database)
        report.target(target)
        try:
            with self.environment.pin.operation(), contextlib.ExitStack() as stack:
                self.look_ahead(plan, Running(self.operation, target, report, result, confirm, backups, True, stack))
        except SkinspireError as error:
            plan.seconds = time.monotonic() - started
            error.remedy = error.remedy and error.remedy.replace("{env}", self.environment.name)
            error.result = failed(plan.as_dict(), error)
            raise
        plan.seconds = time.monotonic() - started
        return plan


@dataclass(frozen=True)
class Job(Operation):
    """An operation that is not one transaction: client programs run in it, files are written, databases are made.

    Args:
        work: Does its steps.
        steps: Their names, for a plan.
        keeps: False where it only looks.
        writes: It keeps something outside the database.
        done: What has been done when it ends well, in a few words.
        look: What `work` finds before it changes anything, for a plan.
        needs_server: False where files are all that it works with.
    """

    work: Callable[[Running], Any]
    steps: tuple[str, ...]
    keeps: bool = True
    writes: bool = False
    done: str = ""
    look: Callable[[Running], Any] | None = None
    needs_server: bool = True

    @property
    def changes(self) -> bool:
        """Whether it changes something: not where it only looks."""
        return self.keeps

    @property
    def plans(self) -> bool:
        """Whether `--dry` shows a plan: also where it only writes files."""
        return self.keeps or self.writes

    @property
    def connects(self) -> bool:
        """Whether it needs the server."""
        return self.needs_server

    @property
    def ending(self) -> str:
        """What has been done when it ends well."""
        return self.done

    @property
    def step_names(self) -> list[str]:
        """The names of its steps, for a plan."""
        return list(self.steps)

    def carry_out(self, running: Running) -> None:
        """Do the work, and judge what its steps have found."""
        self.work(running)
        for step in running.result.steps:
            judge(step.name, step.summary)

    def look_ahead(self, plan: Plan, running: Running) -> None:
        """What the work finds before it changes anything, its checks judged."""
        try:
            if self.look and not plan.nowhere:
                self.look(running)
            for step in running.result.steps:
                judge(step.name, step.summary)
        finally:
            plan.looked, plan.notes = running.result.steps, running.result.notes

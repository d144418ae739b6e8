"""An operation that is not one transaction: its steps, told as they end, and what became of it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skinspire_db.config.environment import Environment
from skinspire_db.errors import ChecksFailed, Interrupted, SkinspireError
from skinspire_db.lifecycle import scratch
from skinspire_db.lifecycle.dry_run import Plan, add_errand, planning
from skinspire_db.lifecycle.failures import translation
from skinspire_db.lifecycle.remedies import shortened
from skinspire_db.lifecycle.result import Report, Result, StepResult, Summary, counted
from skinspire_db.postgres import target
from skinspire_db.postgres.target import Target


@dataclass
class Build:
    """What an errand works with: the environment's database, whom to tell, and scratch databases."""

    to: Target
    operation: str
    report: Report
    result: Result
    stack: contextlib.ExitStack = field(repr=False)
    confirm: str | None = None

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Summary]:
        """A step of the operation; the block fills in its summary."""
        import psycopg

        started = time.monotonic()
        summary = Summary()
        ok = False
        try:
            yield summary
            ok = all(check.status == "pass" for check in summary.checks)
        except psycopg.Error as error:
            summary = Summary()
            raise translation(error, self.to, self.operation, name) from None
        except BaseException:
            summary = Summary()  # what it would have done
            raise
        finally:
            done = StepResult(name, ok, time.monotonic() - started, summary)
            self.result.steps.append(done)
            self.report.step(done)

    def scratch(self, template: str | None = None, locale: str = "ENCODING 'UTF8'") -> Target:
        """A scratch database, dropped at the end of the operation unless it was swapped in."""
        made = scratch.database(self.to, self.operation, template=template, locale=locale, tell=self.note)
        return self.stack.enter_context(made)

    def note(self, text: str) -> None:
        """A sentence that the user should read even when all goes well."""
        self.result.notes.append(text)


@dataclass(frozen=True)
class Errand:
    """An operation whose `work` does its steps; `steps` are their names, for a plan. `keeps` is False where it only looks,
    and `done` says in a few words what has been done when it ends well. `look` is what `work` finds before it changes
    anything, for a plan. Without `connects` it needs no server.
    """

    operation: str
    environment: Environment
    work: Callable[[Build], Any]
    steps: tuple[str, ...]
    keeps: bool = True
    writes: bool = False
    done: str = ""
    look: Callable[[Build], Any] | None = None
    connects: bool = True

    def plan(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Plan:
        """What `run` would do; nothing is changed. Raises what `run` would begin with."""
        with planning(self.operation, self.environment, list(self.steps), report or Report()) as plan:
            self.look_first(plan, confirm)
            add_errand(plan, self, confirm, report or Report())
        return plan

    def look_first(self, plan: Plan, confirm: str | None) -> None:
        """What comes before the work, as a plan has it."""

    def run(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Result:
        """Do the work. Raises a SkinspireError whose `result` says how far it came."""
        started = time.monotonic()
        result = Result(self.operation, self.environment.name)
        try:
            with self.environment.pin.operation(), contextlib.ExitStack() as stack:
                to = target.target(self.environment, start=self.connects)
                result.database = to.database
                report = report or Report()
                report.target(to)
                self.carry_out(Build(to, self.operation, report, result, stack), confirm)
            self.judge(result)
        except (SkinspireError, KeyboardInterrupt) as caught:
            error = caught if isinstance(caught, SkinspireError) else self.interrupted(result)
            self.explain(error, result)
            result.tell(error, time.monotonic() - started)
            raise error from None
        result.seconds = time.monotonic() - started
        return result

    def carry_out(self, build: Build, confirm: str | None) -> None:
        """All that is done between the first line and the last."""
        self.work(build)

    def explain(self, error: SkinspireError, result: Result) -> None:
        """Say in the error what it means for the database."""

    def interrupted(self, result: Result) -> SkinspireError:
        """What Ctrl-C means here."""
        return Interrupted("interrupted before it was done; the database was not changed")

    def judge(self, result: Result) -> None:
        """Raise when a check did not pass."""
        for step in result.steps:
            if bad := [check for check in step.summary.checks if check.status != "pass"]:
                count = f"{len(bad)} of {counted(len(step.summary.checks), 'check')} did not pass"
                raise ChecksFailed(f"{step.name}: {count}: {bad[0].name}: {shortened(bad[0].detail)}")

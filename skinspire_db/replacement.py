"""The life of an operation that builds a database aside, checks it, and swaps it in under the real name."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db import connections, safety, scratch
from skinspire_db.connections import Target
from skinspire_db.environment import Environment
from skinspire_db.errors import DatabaseMissing, Interrupted, OutcomeUnknown, SkinspireError, StepFailed
from skinspire_db.pipeline import AS_IT_WAS, Pipeline, Report, Result, StepResult, translation
from skinspire_db.summary import Summary

if TYPE_CHECKING:
    from skinspire_db.connections import Connection


@dataclass
class Build:
    """What the builder of a replacement works with: where it will go, whom to tell, and scratch databases."""

    to: Target
    operation: str
    report: Report
    result: Result
    stack: contextlib.ExitStack = field(repr=False)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[Summary]:
        """A step of the operation; the block fills in its summary."""
        import psycopg

        started = time.monotonic()
        summary = Summary()
        done = StepResult(name, False, 0.0)
        try:
            yield summary
            done = StepResult(name, True, time.monotonic() - started, summary)
        except psycopg.Error as error:
            raise translation(error, self.to, self.operation, name) from None
        finally:
            if not done.ok:
                done = StepResult(name, False, time.monotonic() - started)
            self.result.steps.append(done)
            self.report.step(done)

    def scratch(self, template: str | None = None) -> Target:
        """A scratch database, dropped at the end of the operation unless it was swapped in."""
        return self.stack.enter_context(scratch.database(self.to, self.operation, template=template))

    def note(self, text: str) -> None:
        """A sentence that the user should read even when all goes well."""
        self.result.notes.append(text)


@dataclass(frozen=True)
class Replacement:
    """An operation that replaces an environment's database. `build` makes the new one and returns where it is; `steps` are
    the names of what it does, for a plan. `danger` and `arguments` are as a Pipeline's. `back` is db.undo: what `build`
    returns is the former database, and the present one takes its place.
    """

    operation: str
    environment: Environment
    build: Callable[[Build], Target]
    steps: tuple[str, ...]
    danger: str
    arguments: str = ""
    back: bool = False
    keeps: bool = True
    writes: bool = False

    def plan(self) -> dict[str, Any]:
        """What `run` would do, without a connection."""
        return Pipeline(self.operation, self.environment, ()).plan() | {"plan": [*self.steps, "stamp", "swap"]}

    def run(self, *, confirm: str | None = None, report: Report | None = None, backups: Path | None = None) -> Result:
        """Carry the operation out. When this returns, the new database has the target's name, was read back under it, and the
        former one is kept for `db.undo`.

        Raises a SkinspireError whose `result` says how far it came. Whatever is raised before the swap, the target is as it
        was; the swap is one transaction. What a kill -9 leaves aside, the next operation of this kind drops.
        """
        started = time.monotonic()
        result = Result(self.operation, self.environment.name)
        try:
            self._run(result, confirm, report or Report(), backups)
        except (SkinspireError, KeyboardInterrupt) as caught:
            error = caught if isinstance(caught, SkinspireError) else self._interrupted(result)
            if result.commit == "not begun" and error.exit_code == 1 and AS_IT_WAS not in error.message:
                error.message += f"; {AS_IT_WAS}"
            result.seconds = time.monotonic() - started
            error.remedy = error.remedy and error.remedy.replace("{env}", self.environment.name)
            error.result = result.as_dict() | {"ok": False, "exit_code": error.exit_code, "error": error.as_dict()}
            raise error from None
        result.seconds = time.monotonic() - started
        return result

    def _interrupted(self, result: Result) -> SkinspireError:
        if result.commit == "not begun":
            return Interrupted(f"interrupted; {AS_IT_WAS}")
        remedy = f"invoke db.history --env={self.environment.name}"
        return OutcomeUnknown("interrupted while the databases were swapped: it is the old one or the new one", remedy=remedy)

    def _run(self, result: Result, confirm: str | None, report: Report, backups: Path | None) -> None:
        started = time.monotonic()
        to = connections.target(self.environment)
        result.database = to.database
        report.target(to)
        with contextlib.ExitStack() as stack:
            holder = self._admit(to, confirm, result, report, backups, stack)
            build = Build(to, self.operation, report, result, stack)
            new = self.build(build)
            with build.step("stamp") as summary:
                entry = self._stamp(new, result, time.monotonic() - started)
                summary.numbers = {"stamp": to.environment}
            with build.step("swap") as summary:
                result.commit = "begun"
                self._swap(to, new, holder, entry, build, summary)
                result.commit = "done"
        if not safety.recorded(to, self.operation, entry):
            raise OutcomeUnknown(
                "the databases were swapped, but the new one could not be read back",
                remedy=f"invoke db.verify --env={to.environment}",
            )

    def _admit(
        self,
        to: Target,
        confirm: str | None,
        result: Result,
        report: Report,
        backups: Path | None,
        stack: contextlib.ExitStack,
    ) -> Connection | None:
        """Lock, identify, guard the target; None when there is none yet."""
        try:
            holder = connections.connect(to, self.operation)
        except DatabaseMissing:
            return None
        stack.callback(holder.close)
        connections.begin(holder, to.policy)
        filled = safety.admit(holder, to, self.operation + self.arguments, self.danger, confirm)
        if filled and to.policy.protected:
            from skinspire_db.backups import precaution

            result.notes.append(precaution.take(self.environment, self.operation, report, backups))
        return holder

    def _stamp(self, new: Target, result: Result, seconds: float) -> uuid.UUID:
        """The new database says that it is the target's environment, with a journal of what it was before and of this."""
        with contextlib.closing(connections.connect(new, self.operation)) as connection:
            connections.begin(connection, new.policy)
            safety.write_stamp(connection, new.environment, renew=not self.back)
            steps = [each.as_dict() for each in result.steps]
            entry = safety.record(connection, self.operation, new.environment, seconds, steps)
            connection.commit()
        return entry

    def _swap(
        self, to: Target, new: Target, holder: Connection | None, entry: uuid.UUID, build: Build, summary: Summary
    ) -> None:
        import psycopg

        try:
            ended = scratch.swap(to, new, self.operation, holder)
        except SkinspireError:
            build.result.commit = "not begun"
            raise
        except psycopg.Error as error:
            # The commit may have been carried out all the same: the name tells.
            if safety.recorded(to, self.operation, entry):
                return
            build.result.commit = "not begun"
            raise translation(error, to, self.operation, "swap") from None
        if ended:
            build.note(f"{len(ended)} sessions were ended: {', '.join(ended)}")
        summary.numbers = {"sessions_ended": len(ended)}
        if holder:
            summary.lines.append(f"the former database is kept: invoke db.undo --env={to.environment} brings it back")


def undo(environment: Environment) -> Replacement:
    """Bring back the database that the last copy or restore replaced; the present one is kept, for another undo.

    Raises StepFailed when none is kept, GuardRefused when it is stamped as another environment's.
    """

    def former(build: Build) -> Target:
        with build.step("former") as summary:
            found = scratch.former(build.to)
            try:
                with contextlib.closing(connections.connect(found, build.operation)) as connection:
                    connections.begin(connection, found.policy)
                    safety.identify(connection, found)
                    row = connection.execute(
                        "SELECT operation, to_char(started_at, 'YYYY-MM-DD HH24:MI') FROM skinspire_tools.journal"
                        " ORDER BY started_at DESC LIMIT 1"
                    ).fetchone()
            except DatabaseMissing:
                raise StepFailed(
                    f"no former database is kept of {build.to}", remedy=f"invoke backup.list --env={environment.name}"
                ) from None
            summary.numbers = {"database": found.database}
            if row:
                summary.lines.append(f"its last operation was {row[0]} on {row[1]} UTC")
        return found

    danger = "replace what {} holds by what it held before"
    return Replacement("db.undo", environment, former, ("former",), danger=danger, back=True)

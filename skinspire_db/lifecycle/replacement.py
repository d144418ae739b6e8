"""The life of an operation that builds a database aside, checks it, and swaps it in under the real name."""

from __future__ import annotations

import contextlib
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.errors import DatabaseMissing, GuardRefused, Interrupted, OutcomeUnknown, SkinspireError, StepFailed
from skinspire_db.lifecycle import guard, journal, scratch, stamp
from skinspire_db.lifecycle.dry_run import Plan, missing
from skinspire_db.lifecycle.failures import AS_IT_WAS, translated, translation
from skinspire_db.lifecycle.operation import Job, Running
from skinspire_db.lifecycle.remedies import complete
from skinspire_db.lifecycle.result import Result, Summary, counted
from skinspire_db.postgres import connections, databases
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


@dataclass(frozen=True)
class Replacement(Job):
    """An operation that replaces an environment's database: `work` makes the new one aside, and returns where it is.

    When it has run, the new database has the target's name, was read back under it, and the former one is kept for `db.undo`.
    Whatever is raised before the swap, the target is as it was; the swap is one transaction. What a kill -9 leaves aside, the
    next operation of this kind drops. `danger` and `arguments` are as a Pipeline's. `back` is db.undo: what `work` returns is
    the former database, and the present one takes its place.
    """

    danger: str = ""
    arguments: str = ""
    back: bool = False

    def look_ahead(self, plan: Plan, running: Running) -> None:
        """Identify and guard the target, if there is one, and look whether the role may create databases; then what the work
        finds before it changes anything.
        """
        plan.steps += ["stamp", "swap"]
        command = self.operation + self.arguments
        with plan.look() as connection:
            if connection is not None:
                plan.admit(connection, command, self.danger, running.confirm)
            elif not self.back:
                plan.make_the_database()
            elif plan.target.server and not plan.target.server.exists:
                raise missing(plan.target)
        if not self.back:
            plan.may_create_databases()
        super().look_ahead(plan, running)

    def carry_out(self, running: Running) -> None:
        """Admit, build aside, stamp, swap, and read back."""
        started = time.monotonic()
        target, result = running.target, running.result
        holder = self._admit(target, running.confirm, running.stack)
        new: Target = self.work(running)
        with running.step("stamp") as summary:
            entry = self._stamp(new, result, time.monotonic() - started)
            summary.numbers = {"stamp": target.environment}
        with running.step("swap") as summary:
            result.commit = "begun"
            self._swap(target, new, holder, entry, running, summary)
            result.commit = "done"
        if not journal.recorded(target, self.operation, entry):
            raise OutcomeUnknown(
                "the databases were swapped, but the new one could not be read back",
                remedy=f"invoke db.verify --env={target.environment}",
            )

    def explain(self, error: SkinspireError, result: Result) -> None:
        """Before the swap the database is as it was."""
        if result.commit == "not begun" and error.exit_code == 1 and AS_IT_WAS not in error.message:
            error.message += f"; {AS_IT_WAS}"

    def interrupted(self, result: Result) -> SkinspireError:
        """Ctrl-C in the swap leaves it to the server which of the two it is."""
        if result.commit == "not begun":
            return Interrupted(f"interrupted; {AS_IT_WAS}")
        remedy = f"invoke db.verify --env={self.environment.name}"
        return OutcomeUnknown("interrupted while the databases were swapped: it is the old one or the new one", remedy=remedy)

    def _admit(self, target: Target, confirm: str | None, stack: contextlib.ExitStack) -> Connection | None:
        """Lock, identify, guard the target; None when there is none yet.

        No backup is taken first: the former database is kept, and it may be what is broken.
        """
        try:
            holder = connections.connect(target, self.operation)
        except DatabaseMissing:
            if not self.back:
                _look_at_former(target, self.operation)
            stack.enter_context(scratch.alone(target, self.operation))
            return None
        stack.callback(holder.close)
        with translated(target, self.operation, "preparation", holder):
            connections.begin(holder, target.policy)
            guard.admit(holder, target, self.operation + self.arguments, self.danger, confirm)
            kept = scratch.former(target).database
            if not self.back and databases.exists(holder, kept):
                _look_at_former(target, self.operation)
        return holder

    def _stamp(self, new: Target, result: Result, seconds: float) -> uuid.UUID:
        """The new database says that it is the target's environment, with a journal of what it was before and of this."""
        with contextlib.closing(connections.connect(new, self.operation)) as connection:
            # Whatever the database's own setting, which was copied.
            connections.begin(connection, new.policy, brief=True, isolation="READ COMMITTED READ WRITE")
            stamp.write(connection, new.environment, renew=not self.back)
            steps = [step.as_dict() for step in result.steps]
            entry = journal.record(connection, self.operation, new.environment, seconds, steps)
            connection.commit()
        return entry

    def _swap(
        self, target: Target, new: Target, holder: Connection | None, entry: uuid.UUID, running: Running, summary: Summary
    ) -> None:
        import psycopg

        try:
            try:
                ended = scratch.swap(target, new, self.operation, holder)
            finally:
                target.pin.databases.clear()  # from here on the names belong to other databases
        except SkinspireError:
            running.result.commit = "not begun"
            raise
        except psycopg.Error as error:
            # The commit may have been carried out all the same: the name tells.
            if journal.recorded(target, self.operation, entry):
                return
            running.result.commit = "not begun"
            raise translation(error, target, self.operation, "swap") from None
        if ended:
            running.note(f"{counted(len(ended), 'session', 'were', 'was')} ended: {', '.join(ended)}")
        summary.numbers = {"databases": 2 if holder else 1, "sessions_ended": len(ended)}
        if holder:
            back = f"invoke db.undo --env={target.environment}"
            back = complete(back, target.environment, given=True, database=target.database, protected=target.policy.protected)
            summary.lines.append(f"the former database is kept: {back} brings it back")


def _look_at_former(target: Target, operation: str) -> None:
    """What the swap will drop must be this environment's: raises GuardRefused when it is not."""
    kept = scratch.former(target)
    try:
        scratch.identify(kept, operation)
    except DatabaseMissing:
        return
    except GuardRefused as error:
        error.message += "; it has the name of the former database, which this operation would drop"
        error.remedy = f'rename it, in psql: ALTER DATABASE "{kept.database}" RENAME TO "{kept.database}_not_ours"'
        raise


def undo(environment: Environment) -> Replacement:
    """Bring back the database that the last copy or restore replaced; the present one is kept, for another undo.

    Raises:
        StepFailed: none is kept.
        GuardRefused: it is stamped as another environment's.
    """

    def former(running: Running) -> Target:
        with running.step("former") as summary:
            kept = scratch.former(running.target)
            try:
                with contextlib.closing(connections.connect(kept, running.operation)) as connection:
                    connections.begin(connection, kept.policy)
                    stamp.identify(connection, kept)
                    row = connection.execute(
                        "SELECT operation, to_char(started_at, 'YYYY-MM-DD HH24:MI') FROM skinspire_tools.journal"
                        " ORDER BY started_at DESC LIMIT 1"
                    ).fetchone()
            except DatabaseMissing:
                raise StepFailed(
                    f"no former database is kept of {running.target}", remedy=f"invoke backup.list --env={environment.name}"
                ) from None
            summary.numbers = {"database": kept.database}
            if row:
                summary.lines.append(f"its last operation was {row[0]} on {row[1]} UTC")
        return kept

    danger = "replace what {} holds by what it held before"
    return Replacement("db.undo", environment, former, ("former",), danger=danger, back=True, look=former)

"""A concurrent revision as an operation: admitted and noted in the journal, then statement by statement under the lock."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.errors import Interrupted, SkinspireError
from skinspire_db.lifecycle import lock, stamp
from skinspire_db.lifecycle.failures import AS_IT_WAS, translated
from skinspire_db.lifecycle.operation import Running
from skinspire_db.lifecycle.pipeline import Pipeline
from skinspire_db.lifecycle.result import Result, StepResult, Summary
from skinspire_db.migrations import concurrent
from skinspire_db.postgres import connections, search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

GOES_ON = "what of it is done stays, and the next invoke migrate.upgrade goes on from there"
CHECKED = "SELECT set_config('client_connection_check_interval', '1s', false)"


@dataclass(frozen=True)
class ConcurrentRevision(Pipeline):
    """The statements of a concurrent revision. The operation after it makes sure that they are done, and notes the revision.

    Its own transaction, which comes first, is the guard, the backup and a line of the journal. A kill at any moment leaves
    statements that are done, one that is not, or an INVALID index, which the next run drops and builds again.

    Args:
        statements: what is run.
        file: the revision's, for errors.
        is_next: whether the revision is still the next one, asked under the lock.
    """

    statements: tuple[concurrent.Statement, ...] = ()
    file: str = ""
    is_next: Callable[[Connection], bool] = lambda _: True

    @property
    def step_names(self) -> list[str]:
        """The names of its steps, for a plan."""
        return [*(step.name for step in self.steps), "concurrent"]

    def interrupted(self, result: Result) -> SkinspireError:
        """What is done of it stays."""
        return Interrupted(f"interrupted; {GOES_ON}") if result.commit == "done" else super().interrupted(result)

    def carry_out(self, running: Running) -> None:
        """Admit it as every pipeline, then run its statements, which no transaction holds together."""
        connections.require_direct(running.target, self.command)
        super().carry_out(running)
        try:
            with contextlib.closing(connections.connect(running.target, self.operation)) as connection:
                self._run(connection, running)
        except SkinspireError as error:
            error.message = error.message.replace(AS_IT_WAS, GOES_ON)
            raise

    def _run(self, connection: Connection, running: Running) -> None:
        with running.step("concurrent") as summary, translated(running.target, self.operation, "concurrent", connection):
            if not self._prepare(connection, running):
                summary.numbers = {"by_another_operation": self.file}
                return
            with _told(running, connection.info.backend_pid):
                for each in self.statements:
                    summary.lines.append(concurrent.run(connection, each, self.file))
            before = sum(line.endswith(": done before") for line in summary.lines)
            summary.numbers = {"statements": len(self.statements) - before}
            summary.numbers |= {"done_before": before} if before else {}

    def _prepare(self, connection: Connection, running: Running) -> bool:
        """Take the operation lock for the session, and let each statement be a transaction of its own.

        A statement may wait for long: its lock is one that no reader or writer waits for.
        """
        import psycopg

        connections.begin(connection, running.target.policy)
        lock.take(connection, running.target)
        stamp.identify(connection, running.target)
        if not self.is_next(connection):
            return False
        lock.keep(connection)
        with search_path.application(connection):
            [path] = connection.execute("SELECT current_setting('search_path')").fetchone() or [""]
        connection.commit()
        connections.autocommit(connection)
        connection.execute("SELECT set_config('search_path', %s, false), set_config('lock_timeout', '0', false)", (path,))
        if connection.info.server_version >= 170_000:
            connection.execute("SET transaction_timeout = 0")
        with contextlib.suppress(psycopg.errors.InvalidParameterValue):  # whether this process lives: not on every platform
            connection.execute(CHECKED.encode())
        return True


@contextlib.contextmanager
def _told(running: Running, pid: int) -> Iterator[None]:
    """While the block runs, tell which sessions it waits for, each time that they are others."""
    ended, told = threading.Event(), set[str]()

    def watch() -> None:
        while not ended.wait(running.target.policy.ddl_lock_timeout):
            who = lock.waited_for(running.target, running.operation, pid)
            if who and who not in told and not ended.is_set():
                told.add(who)
                running.note(f"waited for {who}")
                running.report.step(StepResult("waits", True, 0.0, Summary(lines=[f"for {who}"])))

    watching = threading.Thread(target=watch, daemon=True)
    watching.start()
    try:
        yield
    finally:
        ended.set()
        watching.join()

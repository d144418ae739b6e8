"""One transaction for a whole test, rolled back at its end; what the code under test takes for transactions are savepoints.

The code under test gets connections as it always does, from an engine. What they are is the test's one connection: their
first statement sets a savepoint, their commit releases it, their rollback goes back to it.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from psycopg import sql
from psycopg.pq import TransactionStatus
from sqlalchemy import event

from skinspire_db.errors import UsageError
from skinspire_db.service.engines import Service
from skinspire_db.service.engines import url as url_of
from skinspire_db.testing.workshop import Database

if TYPE_CHECKING:
    from skinspire_db.service.driver import Connection

COMMENTS = re.compile(r"/\*.*?\*/|--[^\n]*", re.DOTALL)
READS = re.compile(r"\s*(SELECT|SHOW|FETCH|VALUES|EXPLAIN|WITH(?!.*\b(INSERT|UPDATE|DELETE|MERGE)\b))\b", re.I | re.DOTALL)
ANEW = "call get_db_engine() or get_db_session() whenever it is needed"
OUTERMOST = "skinspire_test"
WORK_ON_THEIR_OWN = "use db_database: there every connection is one of its own"
# Deferred constraints look when a transaction commits. Going back lets them look again at the next one.
CHECK = "SAVEPOINT skinspire_check; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO skinspire_check; RELEASE skinspire_check"
# Who works is a transaction's own setting; released savepoints are none, and would leave it to the next.
WHO = "current_setting('app.current_user', true), current_setting('app.current_hospital', true)"
SPEAK_AS = "SELECT set_config('app.current_user', {}, true), set_config('app.current_hospital', {}, true)"
# nextval and setval are not rolled back, but their sequences stay locked until the end of the transaction.
TRACES = """
    PREPARE skinspire_traces AS
    SELECT ARRAY(SELECT relation FROM pg_lock_status() WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock'
                 AND relation = ANY ('{sequences}'::oid[])),
           ARRAY(SELECT pid FROM pg_stat_get_activity(NULL) WHERE datid = {database} AND backend_type = 'client backend'),
           ROW(pg_stat_get_db_sessions({database}), pg_stat_get_db_stat_reset_time({database}))::text, now(),
           pg_advisory_unlock_all()
"""


class Escaped(Exception):
    """A test has left the one transaction that would have been rolled back; the text says how."""


class Transaction:
    """The test's transaction, on a connection in autocommit that outlives it, to a database with these `sequences` (oids)."""

    def __init__(self, connection: Connection, sequences: Iterable[int]) -> None:
        self.connection = connection
        connection.prepare_threshold = None  # psycopg deallocates all that is prepared, ours too, to be rid of its own
        row = connection.execute("SELECT oid FROM pg_database WHERE datname = current_database()").fetchone()
        assert row
        oids = "{" + ",".join(map(str, sequences)) + "}"
        self._prepare_traces = TRACES.format(sequences=oids, database=row[0])
        connection.execute(self._prepare_traces.encode())
        self._began: Any = None
        self.open: list[Joined] = []  # what the code under test has begun and not ended, outermost first
        self.lost: set[Joined] = set()
        self.active, self.pid = False, 0
        self.misleading = ""  # how the application was told something else than it would have been without the test
        self._lock = threading.RLock()
        self.before_others: Callable[[Joined], None] = lambda _: None
        self.after_others: Callable[[Joined], None] = lambda _: None
        self._number = 0

    def begin(self) -> None:
        """Begin the test's transaction."""
        self.active, self.pid, self.misleading = True, os.getpid(), ""
        self._began = self.connection.execute(f"BEGIN; SAVEPOINT {OUTERMOST}; SELECT now()".encode()).set_result(2).fetchone()

    def check(self) -> None:
        """Let the deferred constraints look. Raises psycopg's error of the one that is violated."""
        if self.connection.info.transaction_status == TransactionStatus.INTRANS:
            self.connection.execute(CHECK)

    def enter(self, one: Joined) -> None:
        """A statement of that connection is about to run: its transaction begins, if it has not.

        Raises UsageError where one connection cannot do what several would.
        """
        with self._lock:
            self._refuse(one)
            if one in self.open:
                return
            self.before_others(one)
            if one in self.open:
                return
            self._number += 1
            one.savepoint, one.thread, one.inside = f"skinspire_{self._number}", threading.get_ident(), False
            begin = f"SAVEPOINT {one.savepoint}" + ("; SET LOCAL transaction_read_only = on" if one.read_only else "")
            one.spoke_before = ("", "")
            if self.open:
                nobody = SPEAK_AS.format("''", "''")
                row = self.connection.execute(f"SELECT {WHO}; {begin}; {nobody}".encode()).fetchone()
                one.spoke_before = row or one.spoke_before
            else:
                self.connection.execute(begin.encode())
            one.begun += 1
            self.open.append(one)

    def release(self, one: Joined) -> None:
        """What it has done so far is no longer its own to undo; its next statement begins anew."""
        if self.open and self.open[-1] is one and self.connection.info.transaction_status == TransactionStatus.INTRANS:
            self.connection.execute(f"RELEASE {one.savepoint}".encode())
            self.open.remove(one)

    def commit(self, one: Joined) -> None:
        """Its changes stay, for the test; what a commit would have refused is refused."""
        with self._lock:
            if one not in self.open:
                return
            release = f"RELEASE {one.savepoint}; " if self.open[-1] is one else ""
            speak = sql.SQL(SPEAK_AS).format(*(sql.Literal(each or "") for each in one.spoke_before))
            try:
                self.connection.execute(sql.SQL(f"{CHECK}; {release}") + speak)
            except psycopg.Error:
                self.rollback(one)  # as PostgreSQL does when it refuses a commit
                raise
            for outer in self.open[: self.open.index(one)]:
                outer.inside = True
            self.open.remove(one)
            self.after_others(one)

    def rollback(self, one: Joined) -> None:
        """Undo its changes, and those of transactions that began inside and are still open."""
        with self._lock:
            self.lost.discard(one)
            if one not in self.open:
                return
            inside = self.open[self.open.index(one) :]
            del self.open[-len(inside) :]
            self.lost |= set(inside[1:])
            if one.inside:
                self.misleading = "a transaction was committed inside another one, and went when that was rolled back"
            self.connection.execute(f"ROLLBACK TO {one.savepoint}; RELEASE {one.savepoint}".encode())
            self.after_others(one)

    def _refuse(self, one: Joined) -> None:
        if not self.active:
            raise UsageError("this connection is a db_session test's, and no such test runs", remedy=ANEW)
        if self.pid != os.getpid():
            raise UsageError("a db_session test has one connection, and this is another process", remedy=WORK_ON_THEIR_OWN)
        if one in self.lost:
            self.lost.discard(one)
            raise UsageError(
                "this transaction was rolled back together with another one that had begun earlier", remedy=WORK_ON_THEIR_OWN
            )
        if any(other.thread != threading.get_ident() for other in self.open if other is not one and not other.of_test):
            raise UsageError("two threads work at the same time in a db_session test", remedy=WORK_ON_THEIR_OWN)

    def traces(self) -> tuple[list[int], set[int], str]:
        """What no rollback takes back: sequences that were used, sessions that are there, how many there have been.

        Rolls the test's changes back. Raises Escaped when the transaction is not the one that was begun.
        """
        self.open.clear()
        self.lost.clear()
        self.active = False
        try:
            if self.connection.info.transaction_status == TransactionStatus.INERROR:
                self.connection.execute(f"ROLLBACK TO {OUTERMOST}")
            row = self.connection.execute("EXECUTE skinspire_traces; ROLLBACK").fetchone()
        except psycopg.errors.InvalidSqlStatementName:  # the test has said DEALLOCATE ALL or the like
            self.connection.execute(f"ROLLBACK TO {OUTERMOST}; {self._prepare_traces}".encode())
            return self.traces()
        except psycopg.Error:
            row = None
        if self.connection.closed:
            raise Escaped("it closed the test's connection")
        if row is None or row[3:4] != self._began:
            self.connection.execute("ROLLBACK")
            raise Escaped("it ended the test's transaction with a COMMIT or ROLLBACK of its own")
        return row[0], set(row[1]), row[2]

    def keep(self) -> None:
        """Commit, so that somebody can look; of a failed transaction what it had done is not there."""
        if self.connection.info.transaction_status == TransactionStatus.INERROR:
            last = self.open[-1].savepoint if self.open else OUTERMOST
            self.connection.execute(f"ROLLBACK TO {last}".encode())
        self.open.clear()
        self.active = False
        self.connection.execute("COMMIT")


class Joined:
    """What the code under test takes for its psycopg connection. All but the ends of transactions is the real one's."""

    def __init__(self, transaction: Transaction, *, autocommit: bool = False) -> None:
        self._transaction = transaction
        self.savepoint = ""
        self.thread = 0
        self.of_test = autocommit  # the test's own, not the application's
        self.inside = False  # something was committed inside it
        self.begun = 0  # how many transactions
        self.spoke_before: tuple[str | None, str | None] = ("", "")
        # A transaction inside another one has the other one's isolation, and cannot do without.
        self.read_only: bool | None = None
        self.deferrable: bool | None = None
        self.autocommit = autocommit
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction.connection, name)

    @property
    def transaction_count(self) -> int:
        """As driver.Connection's."""
        return self.begun + self._transaction.connection.transaction_count

    @property
    def in_transaction(self) -> bool:
        """As driver.Connection's."""
        return self in self._transaction.open and self._transaction.connection.in_transaction

    @property
    def isolation_level(self) -> None:
        """The default, as in psycopg."""
        return None

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        if level is not None and level != psycopg.IsolationLevel.READ_COMMITTED:
            raise UsageError(f"a db_session test is READ COMMITTED, not {level.name}", remedy=WORK_ON_THEIR_OWN)

    def __enter__(self) -> Joined:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()
        self.close()

    @contextlib.contextmanager
    def transaction(self, *_: Any, force_rollback: bool = False, **__: Any) -> Iterator[Joined]:
        """As psycopg's: a block that is committed as one, or not at all."""
        self._settle()
        former, self.autocommit = self.autocommit, False
        try:
            yield self
        except BaseException:
            self._transaction.rollback(self)
            raise
        else:
            (self._transaction.rollback if force_rollback else self._transaction.commit)(self)
        finally:
            self.autocommit = former

    def cursor(self, *arguments: Any, **options: Any) -> Any:
        """A cursor; the transaction begins with it."""
        self._settle()
        self._transaction.enter(self)
        return self._transaction.connection.cursor(*arguments, **options)

    def execute(self, *arguments: Any, **options: Any) -> Any:
        """As psycopg's; the transaction begins with it."""
        try:
            return self.cursor().execute(*arguments, **options)
        finally:
            self._settle()

    def commit(self) -> None:
        """Release the savepoint."""
        self._settle()
        self._transaction.commit(self)

    def rollback(self) -> None:
        """Go back to the savepoint."""
        self._settle()
        self._transaction.rollback(self)

    def close(self) -> None:
        """The real connection stays open."""
        self.rollback()

    def _settle(self) -> None:
        """In autocommit a statement is a transaction: its end is before the next one."""
        if self.autocommit and self in self._transaction.open:
            if self._transaction.connection.info.transaction_status == TransactionStatus.INERROR:
                self._transaction.rollback(self)
            else:
                self._transaction.commit(self)


def service_within(transaction: Transaction, database: Database) -> Service:
    """Engines whose connections are all the transaction's one."""
    policy = database.environment.policy
    engine = sqlalchemy.create_engine(
        url_of(database.target),
        creator=lambda: Joined(transaction),
        pool_size=policy.pool_size,
        max_overflow=policy.pool_overflow,
        pool_timeout=policy.pool_timeout,
        hide_parameters=True,
        use_native_hstore=False,  # asks a real psycopg connection
    )

    @event.listens_for(engine, "before_cursor_execute")
    def refuse_to_write_inside(connection: Any, _: Any, statement: str, __: Any, ___: Any, ____: bool) -> None:
        """What an outer transaction writes now would be the inner one's, and go when that is rolled back."""
        joined = connection.connection.dbapi_connection
        if joined in transaction.open[:-1] and not READS.match(COMMENTS.sub(" ", statement)):
            raise UsageError("two transactions of a db_session test write at the same time", remedy=WORK_ON_THEIR_OWN)

    return Service(database.environment, engine, engine.execution_options(postgresql_readonly=True))

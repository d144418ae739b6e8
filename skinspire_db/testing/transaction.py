"""One transaction for a whole db_session test, rolled back at its end; transactions of the code under test are savepoints.

The code under test gets connections from an engine, as always (service/test_override.py says how it gets this engine). Each
is a JoinedConnection and sends its statements over the test's one connection. Its first statement sets a savepoint, its
commit releases the savepoint, its rollback goes back to it. The listeners of Transaction.begin() keep the test's own
session in step: they flush what it has pending before such a transaction begins, and expire what it has loaded afterwards.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from skinspire_db.errors import UsageError

if TYPE_CHECKING:
    from skinspire_db.service.driver import Connection

ASK_AGAIN = "call get_db_engine() or get_db_session() whenever it is needed"
OUTERMOST = "skinspire_test"
USE_DB_DATABASE = "use db_database: there every connection is one of its own"
# Deferred constraints are checked when a transaction commits. Going back lets the next commit check them again.
CHECK = "SAVEPOINT skinspire_check; SET CONSTRAINTS ALL IMMEDIATE; ROLLBACK TO skinspire_check; RELEASE skinspire_check"
# The identity is a setting of the transaction; a released savepoint does not take it back, and the next one would have it.
IDENTITY = "current_setting('app.current_user', true), current_setting('app.current_hospital', true), current_setting('role')"
SET_ROLE = "set_config('role', {}, true)"
SET_IDENTITY = (
    f"SELECT set_config('app.current_user', {{}}, true), set_config('app.current_hospital', {{}}, true), {SET_ROLE}"
)
NO_IDENTITY = ("", "", "none")
# nextval and setval are not rolled back, but their sequences stay locked until the end of the transaction.
TRACES = """
    PREPARE skinspire_traces AS
    SELECT ARRAY(SELECT relation FROM pg_lock_status() WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock'
                 AND relation = ANY ('{sequences}'::oid[])),
           ARRAY(SELECT pid FROM pg_stat_get_activity(NULL) WHERE datid = {database} AND backend_type = 'client backend'),
           ROW(pg_stat_get_db_sessions({database}), pg_stat_get_db_stat_reset_time({database}))::text, now(),
           pg_advisory_unlock_all()
"""


Listener = Callable[["JoinedConnection"], None]


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
        self._began: Any = None  # when the test's transaction began, by the server; None before its first statement
        self.open: list[JoinedConnection] = []  # what the code under test has begun and not ended, outermost first
        self.lost: set[JoinedConnection] = set()
        self.active, self.pid = False, 0
        self.misleading = ""  # where savepoints behaved otherwise than transactions would have: how
        self._lock = threading.RLock()
        self._before_begin: Listener = lambda _: None
        self._after_end: Listener = lambda _: None
        self._number = 0

    def begin(self, before_begin: Listener, after_end: Listener) -> None:
        """Let the test's transaction begin, together with its first statement: many a test has none.

        Args:
            before_begin: Called with a connection before its transaction begins inside the test's.
            after_end: Called with a connection after its transaction was committed or rolled back.

        Raises:
            psycopg.OperationalError: the server has ended the connection.
        """
        self._before_begin, self._after_end = before_begin, after_end
        self.active, self.pid, self.misleading, self._began = True, os.getpid(), "", None
        with selectors.DefaultSelector() as selector:
            selector.register(self.connection.pgconn.socket, selectors.EVENT_READ)
            if selector.select(0):  # the server says something unasked: that it ends the connection
                self.start()

    def start(self, first: bytes = b"SELECT") -> None:
        """Begin the test's transaction where no statement has yet.

        Args:
            first: What runs in it in the same round trip.

        Raises:
            psycopg.Error: that of `first`; the transaction has begun then.
        """
        with self._lock:
            if not self.active or self._began is not None:
                return
            begin = f"BEGIN; SAVEPOINT {OUTERMOST}; SELECT now()".encode()
            try:
                self._began = self.connection.execute(b"; ".join((begin, first))).set_result(2).fetchone()
            except psycopg.Error:
                with contextlib.suppress(psycopg.Error):
                    back = f"ROLLBACK TO {OUTERMOST}; SELECT now()".encode()
                    self._began = self.connection.execute(back).set_result(1).fetchone()
                raise

    def check(self) -> None:
        """Check the deferred constraints.

        Raises:
            psycopg.IntegrityError: for one that is violated.
        """
        if self.connection.info.transaction_status == TransactionStatus.INTRANS:
            self.connection.execute(CHECK)

    def enter(self, joined: JoinedConnection) -> None:
        """Begin the connection's transaction before its statement runs, if it has not begun.

        Raises:
            UsageError: where one connection cannot do what several would.
        """
        with self._lock:
            self._refuse(joined)
            if joined in self.open:
                return
            self._before_begin(joined)
            if joined in self.open:
                return
            self._number += 1
            joined.savepoint, joined.thread, joined.inside = f"skinspire_{self._number}", threading.get_ident(), False
            begin = [f"SAVEPOINT {joined.savepoint}", *(["SET LOCAL transaction_read_only = on"] if joined.read_only else [])]
            if self.open:
                begin = [f"SELECT {IDENTITY}", *begin, SET_IDENTITY.format("''", "''", "'none'")]
            statements = b"; ".join((*(each.encode() for each in begin), *joined.settings))
            if self._began is None:
                self.start(statements)
            else:
                cursor = self.connection.execute(statements)
                joined.identity_before = (self.open and cursor.fetchone()) or NO_IDENTITY
            joined.begun += not joined.suspended
            joined.suspended, joined.wrote = False, False
            self.open.append(joined)

    def release(self, joined: JoinedConnection) -> None:
        """Release the connection's savepoint: what it has done cannot be undone alone, and its next statement begins anew."""
        if self.open and self.open[-1] is joined and self.connection.info.transaction_status == TransactionStatus.INTRANS:
            self.connection.execute(sql.SQL(f"RELEASE {joined.savepoint}; ") + joined.restore_identity())
            self.open.remove(joined)

    def commit(self, joined: JoinedConnection) -> None:
        """Keep the connection's changes for the rest of the test.

        Raises:
            psycopg.Error: what a commit would have raised; the changes are rolled back then, as PostgreSQL does.
        """
        with self._lock:
            if joined not in self.open:
                joined.suspended = False
                return
            release = f"RELEASE {joined.savepoint}; " if self.open[-1] is joined else ""
            try:
                self.connection.execute(sql.SQL(f"{CHECK}; {release}") + joined.restore_identity())
            except psycopg.Error:
                self.rollback(joined)
                raise
            for outer in self.open[: self.open.index(joined)]:
                outer.inside = True
            self.open.remove(joined)
            self._after_end(joined)

    def rollback(self, joined: JoinedConnection) -> None:
        """Undo the connection's changes, and those of transactions that began inside it and are still open."""
        with self._lock:
            self.lost.discard(joined)
            if joined not in self.open:
                joined.suspended = False
                return
            inside = self.open[self.open.index(joined) :]
            del self.open[-len(inside) :]
            self.lost |= set(inside[1:])
            if joined.inside:
                self.misleading = "a transaction was committed inside another one, and went when that was rolled back"
            self.connection.execute(f"ROLLBACK TO {joined.savepoint}; RELEASE {joined.savepoint}".encode())
            self._after_end(joined)

    def _refuse(self, joined: JoinedConnection) -> None:
        if not self.active:
            raise UsageError("this connection is a db_session test's, and no such test runs", remedy=ASK_AGAIN)
        if self.pid != os.getpid():
            raise UsageError("a db_session test has one connection, and this is another process", remedy=USE_DB_DATABASE)
        if joined in self.lost:
            self.lost.discard(joined)
            raise UsageError(
                "this transaction was rolled back together with another one that had begun earlier", remedy=USE_DB_DATABASE
            )
        others = [each for each in self.open if each is not joined and not each.belongs_to_test]
        others = [each for each in others if each.thread != threading.get_ident()]
        while others and self.open[-1] is others[-1] and not others[-1].wrote:
            self._suspend(others.pop())
        if others:
            raise UsageError("two threads work at the same time in a db_session test", remedy=USE_DB_DATABASE)

    def _suspend(self, joined: JoinedConnection) -> None:
        """Take a transaction that has only read out of the way of another thread's; its next statement begins it anew."""
        self.release(joined)
        joined.suspended = True

    def traces(self) -> tuple[list[int], set[int], str]:
        """Roll the test's changes back, and report what no rollback takes back.

        Returns:
            The oids of sequences that were used, the pids of the database's sessions, and how many sessions it has had.

        Raises:
            Escaped: when the transaction is not the one that was begun.
        """
        self.open.clear()
        self.lost.clear()
        self.active = False
        try:
            if self.connection.info.transaction_status == TransactionStatus.INERROR:
                self.connection.execute(f"ROLLBACK TO {OUTERMOST}")
            ends = "; ROLLBACK" if self._began else ""
            row = self.connection.execute(f"EXECUTE skinspire_traces{ends}".encode()).fetchone()
        except psycopg.errors.InvalidSqlStatementName:  # the test has said DEALLOCATE ALL or the like
            self.connection.execute(f"ROLLBACK TO {OUTERMOST}; {self._prepare_traces}".encode())
            return self.traces()
        except psycopg.Error:
            row = None
        if self.connection.closed:
            raise Escaped("it closed the test's connection")
        if row is None or (self._began and row[3:4] != self._began):
            self.connection.execute("ROLLBACK")
            raise Escaped("it ended the test's transaction with a COMMIT or ROLLBACK of its own")
        return row[0], set(row[1]), row[2]

    def keep(self) -> None:
        """Commit, so that the developer can look at the database; without what a failed transaction had done."""
        if self.connection.info.transaction_status == TransactionStatus.INERROR:
            last = self.open[-1].savepoint if self.open else OUTERMOST
            self.connection.execute(f"ROLLBACK TO {last}".encode())
        self.open.clear()
        self.active = False
        if self._began:
            self.connection.execute("COMMIT")


class JoinedConnection:
    """What the code under test uses as its psycopg connection. All but the ends of transactions is the real one's."""

    def __init__(self, transaction: Transaction, *, autocommit: bool = False) -> None:
        self._transaction = transaction
        self.savepoint = ""
        self.thread = 0
        self.belongs_to_test = autocommit  # not to the code under test
        self.inside = False  # something was committed inside it
        self.wrote = False  # or may have: a statement that SQLAlchemy did not send is not known
        self.wrote_before = False  # before the cursor of the statement that is sent now
        self.suspended = False  # it has only read, and makes room for another thread's transaction
        self.begun = 0  # how many transactions
        self.settings: tuple[bytes, ...] = ()  # as driver.Connection's
        self.identity_before: tuple[str | None, ...] = NO_IDENTITY
        # A transaction inside another one has the other one's isolation, and cannot do without.
        self.read_only: bool | None = None
        self.deferrable: bool | None = None
        self.autocommit = autocommit
        self.closed = False

    def __getattr__(self, name: str) -> Any:
        self._transaction.start()  # what the real connection is asked for may send something
        return getattr(self._transaction.connection, name)

    def restore_identity(self) -> sql.Composed:
        """What sets the identity that held before this transaction."""
        return sql.SQL(SET_IDENTITY).format(*(sql.Literal(value or "") for value in self.identity_before))

    @property
    def transaction_count(self) -> int:
        """As driver.Connection's."""
        return self.begun + self._transaction.connection.transaction_count

    @property
    def in_transaction(self) -> bool:
        """As driver.Connection's."""
        return self.suspended or (self in self._transaction.open and self._transaction.connection.in_transaction)

    @property
    def isolation_level(self) -> None:
        """None, psycopg's default."""
        return None

    @isolation_level.setter
    def isolation_level(self, level: Any) -> None:
        if level is not None and level != psycopg.IsolationLevel.READ_COMMITTED:
            raise UsageError(f"a db_session test is READ COMMITTED, not {level.name}", remedy=USE_DB_DATABASE)

    def __enter__(self) -> JoinedConnection:
        return self

    def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
        if kind is None:
            self.commit()
        else:
            self.rollback()
        self.close()

    @contextlib.contextmanager
    def transaction(self, *_: Any, force_rollback: bool = False, **__: Any) -> Iterator[JoinedConnection]:
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
        self.wrote_before, self.wrote = self.wrote, True
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
        self.settings = ()

    def rollback(self) -> None:
        """Go back to the savepoint."""
        self._settle()
        self._transaction.rollback(self)
        self.settings = ()

    def close(self) -> None:
        """The real connection stays open."""
        self.rollback()

    def _settle(self) -> None:
        """End the last statement's transaction before the next one, where autocommit makes each statement a transaction."""
        if self.autocommit and self in self._transaction.open:
            if self._transaction.connection.info.transaction_status == TransactionStatus.INERROR:
                self._transaction.rollback(self)
            else:
                self._transaction.commit(self)

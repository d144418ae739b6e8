"""The three ways in which a test gets a database: a transaction that is rolled back, one that is put back, a clone."""

from __future__ import annotations

import concurrent.futures
import contextlib
import queue
import selectors
import sys
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Literal

import psycopg
import sqlalchemy
from sqlalchemy import event
from sqlalchemy.orm import Session

from skinspire_db.errors import UsageError
from skinspire_db.postgres.error_text import sentence
from skinspire_db.service import hospitals
from skinspire_db.service.identity import Identity
from skinspire_db.testing.async_transaction import async_service_within
from skinspire_db.testing.databases import Database
from skinspire_db.testing.seeded import Unrestorable
from skinspire_db.testing.shared import ProcessDatabases
from skinspire_db.testing.transaction import USE_DB_DATABASE, Escaped, JoinedConnection

if TYPE_CHECKING:
    from sqlalchemy.engine import URL, Engine

    from skinspire_db.config.environment import Environment
    from skinspire_db.postgres.connections import Connection
    from skinspire_db.service.engines import Service

Mode = Literal["session", "database", "clone"]
# Where a thread is that waits for another one: in a lock, a future, a queue, or an event loop that has nothing to do.
WAITS = {module.__file__ for module in (threading, concurrent.futures._base, queue, selectors)}
MODES: tuple[Mode, ...] = ("session", "database", "clone")


class ClinicDatabase:
    """A test's database, seeded and stamped. It serves in place of the active environment's while the test runs."""

    mode: Mode

    def __init__(self, databases: ProcessDatabases, test: str) -> None:
        self.databases = databases
        self.test = test
        self.database = self._database()
        self.environment: Environment = self.database.environment
        self._session: Session | None = None
        self._connection: Any = None
        self.hospital = ""  # that the test works for, where tenancy is on

    @property
    def name(self) -> str:
        """The database's name on its server."""
        return self.database.name

    @property
    def url(self) -> URL:
        """The database's URL; the text form hides the password."""
        from skinspire_db.service.engines import url

        return url(self.database.target)

    @property
    def engine(self) -> Engine:
        """What get_db_engine() gives in this test."""
        return self.service().engine

    @property
    def session(self) -> Session:
        """The test's own SQLAlchemy Session, closed at its end."""
        if self._session is None:
            self._session = self.service().options.session(bind=self._bind())
            if self.service().tenancy:
                _work_as(self._session, lambda: Identity("", self.hospital, self.service().roles.application))
        return self._session

    @contextlib.contextmanager
    def session_for(self, hospital: str) -> Iterator[Session]:
        """The test's own session; for another hospital than the test's one over all hospitals, whose objects are detached.

        Args:
            hospital: The hospital that rows are added for.
        """
        if not self.service().tenancy or hospital == self.hospital:
            yield self.session
            return
        with self.service().options.session(bind=self.engine, expire_on_commit=False) as session:
            _work_as(session, lambda: Identity("", "", self.service().roles.system))
            yield session
            session.commit()

    def choose_hospital(self, hospital: object) -> None:
        """Let the test work for a hospital: its session, and the blocks of the code under test.

        Args:
            hospital: The key, or an object with a hospital_id; None is no hospital.
        """
        self.hospital = hospitals.key_of(hospital)
        hospitals.set_current(self.hospital or None)

    def seeded_hospital(self) -> str | None:
        """The key of the only hospital that is there; None where there is none, or more than one."""
        if (row := self.observer.execute(hospitals.TENANTS.encode()).fetchone()) is None:
            return None
        keys = self.observer.execute(f"SELECT {row[1]} FROM {row[0]} LIMIT 2".encode()).fetchall()  # noqa: S608
        return str(keys[0][0]) if len(keys) == 1 else None

    @property
    def connection(self) -> Connection:
        """A psycopg connection in autocommit for SQL of the test's own, closed at its end; a db_session's is inside its
        transaction.
        """
        if self._connection is None or self._connection.closed:
            self._connection = self._connect()
        return self._connection  # type: ignore[no-any-return]

    def connect(self) -> Connection:
        """Another connection in autocommit, for work that runs beside other work; it ends with the test at the latest.

        Raises:
            UsageError: in db_session, which has one connection.
        """
        return self.database.connect()

    @property
    def observer(self) -> Connection:
        """A connection in autocommit to look at what the test did; it is in the test's transaction, if that is one."""
        return self.connection

    def service(self) -> Service:
        """The engines that serve in the test."""
        return self.database.service()

    def async_service(self) -> Service:
        """The engines for asyncio that serve in the test."""
        return self.database.async_service()

    def check(self) -> None:
        """Look for what makes a test fail after it has passed.

        Raises:
            UsageError: for something that db_session cannot do.
            psycopg.Error: for a deferred constraint that is violated.
        """

    def finish(self, keep: str | None = None) -> None:
        """End the test's use of the database.

        Args:
            keep: The name under which the database is kept as it is now; None does not keep it.

        Raises:
            UsageError: when the test has left its transaction, or the database cannot be kept.
        """
        if self._session is not None:
            self._session.close()
        if self._connection is not None:
            self._connection.close()
        self.database.close_async()
        self._finish(keep)

    def _database(self) -> Database:
        raise NotImplementedError

    def _bind(self) -> Engine | sqlalchemy.Connection:
        return self.engine

    def _connect(self) -> Any:
        return self.database.connect()

    def _finish(self, keep: str | None) -> None:
        raise NotImplementedError


class InTransaction(ClinicDatabase):
    """`db_session`: all that a test does is one transaction, which is rolled back; its commits are savepoints."""

    mode = "session"

    def __init__(self, databases: ProcessDatabases, test: str) -> None:
        super().__init__(databases, test)
        self.shared = databases.shared
        self.transaction = self.shared.transaction
        self.transaction.begin(self._flush, self._expire)
        self._thread = threading.get_ident()
        self._bound: sqlalchemy.Connection | None = None  # what the test's own session works on
        self._own: Any = None
        self._asynchronous: Service | None = None

    @property
    def observer(self) -> Connection:
        """The connection that the shared database is looked at by."""
        self.transaction.start()
        return self.shared.connection

    def service(self) -> Service:
        """What the application's code gets as its database."""
        return self.shared.within

    def async_service(self) -> Service:
        """The engines for asyncio, whose connections are in the test's transaction."""
        if self._asynchronous is None:
            self._asynchronous = async_service_within(self.transaction, self.database)
        return self._asynchronous

    def connect(self) -> Connection:
        """Refuse a connection of its own.

        Raises:
            UsageError: always; the test has one connection.
        """
        raise UsageError("a db_session test has one connection", remedy=USE_DB_DATABASE)

    def check(self) -> None:
        """Look whether the test stayed in its transaction.

        Raises:
            UsageError: savepoints behaved otherwise than transactions would have.
            Escaped: the test has left the transaction.
        """
        if self.transaction.misleading:
            raise UsageError(f"db_session cannot show what happened: {self.transaction.misleading}", remedy=USE_DB_DATABASE)
        self.transaction.check()

    def finish(self, keep: str | None = None) -> None:
        """Roll the test's transaction back, or keep it aside for a look.

        Args:
            keep: The name under which the database is kept as it is now; None does not keep it.
        """
        try:
            self._finish(keep)
        finally:  # nothing is open any more: closing sends nothing
            if self._session is not None:
                self._session.close()
            if self._bound is not None:
                self._own.belongs_to_test = False  # the pool gives it to the next test's application
                self._bound.close()
            self.shared.forget_unreturned()

    def _database(self) -> Database:
        return self.databases.shared.database

    def _bind(self) -> sqlalchemy.Connection:
        self._bound = self.engine.connect()
        self._own = self._bound.connection.dbapi_connection
        self._own.belongs_to_test = True
        return self._bound

    def _connect(self) -> Any:
        return JoinedConnection(self.transaction, autocommit=True)

    def _finish(self, keep: str | None) -> None:
        if keep:
            try:
                self.transaction.keep()
            except psycopg.Error as error:
                self.databases.renew(self.test, "it could not be committed")
                raise UsageError(f"its database could not be kept: {sentence(error)}") from None
            self.databases.keep(keep, self.test)
            return
        shared = self.shared
        try:
            sequences, present, sessions = self.transaction.traces()
        except Escaped as reason:
            self.databases.renew(self.test, str(reason))
            raise UsageError(f"a db_session test may not leave its transaction: {reason}", remedy="use db_database") from None
        shared.seeded.reset_sequences(sequences)
        if sessions != shared.sessions or present - shared.idle - {shared.connection.info.backend_pid}:
            self.databases.renew(self.test, "another session was connected beside its transaction")

    def _flush(self, joined: JoinedConnection) -> None:
        """Flush what the test has added before the code under test looks; the test can no longer undo it alone."""
        if self._own is not None and joined is not self._own:
            if self._pending() and self._is_free():
                self.session.flush()
            self.transaction.release(self._own)

    def _expire(self, joined: JoinedConnection) -> None:
        """Let the test see what the code under test has changed."""
        if self._own is not None and joined is not self._own and not self._pending() and self._is_free():
            self.session.expire_all()

    def _pending(self) -> bool:
        session = self._session
        return session is not None and bool(session.new or session.dirty or session.deleted)

    def _is_free(self) -> bool:
        """Whether the test's session is at no work: this is the test's thread, or that one waits for this one."""
        return threading.get_ident() == self._thread or is_waiting(self._thread)


def _work_as(session: Session, identity: Callable[[], Identity]) -> None:
    """Let each transaction of the session begin with this identity, as those of a get_db_session block do."""

    @event.listens_for(session, "after_begin")
    def take_identity(_: Session, __: Any, connection: sqlalchemy.Connection) -> None:
        driver: Any = connection.connection.driver_connection
        driver.settings = identity().settings()


def is_waiting(thread: int) -> bool:
    """Whether a thread waits for another one, in a function of the standard library."""
    frame = sys._current_frames().get(thread)
    return frame is not None and frame.f_code.co_filename in WAITS


class PutBack(ClinicDatabase):
    """`db_database`: real commits; afterwards what was touched is put back to the seeded state."""

    mode = "database"

    def __init__(self, databases: ProcessDatabases, test: str) -> None:
        super().__init__(databases, test)
        self.shared = databases.shared
        self.shared.seeded.mark()

    @property
    def observer(self) -> Connection:
        """The connection that the shared database is looked at by."""
        return self.shared.connection

    def service(self) -> Service:
        """What the application's code gets as its database."""
        return self.shared.service()

    def _database(self) -> Database:
        return self.databases.shared.database

    def _finish(self, keep: str | None) -> None:
        if keep:
            self.databases.keep(keep, self.test)
            return
        try:
            self.shared.forget_settings()
            self.shared.end_other_sessions()
            self.shared.seeded.put_back()
            self.shared.count_sessions()
        except Unrestorable as reason:
            self.databases.renew(self.test, str(reason))
        except psycopg.Error as error:
            self.databases.renew(self.test, f"putting it back failed ({type(error).__name__})")


class OwnClone(ClinicDatabase):
    """`db_clone`: a database of the test's own, dropped afterwards."""

    mode = "clone"

    def _database(self) -> Database:
        return self.databases.maker.clone()

    def _finish(self, keep: str | None) -> None:
        if keep:
            self.databases.maker.keep(self.database, keep, self.test)
        else:
            self.databases.maker.drop(self.database)


KINDS: dict[Mode, Callable[[ProcessDatabases, str], ClinicDatabase]] = {
    "session": InTransaction, "database": PutBack, "clone": OwnClone,
}  # fmt: skip

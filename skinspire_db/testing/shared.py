"""The databases of one process of a test run: the one that its tests share, and how it is renewed."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import psycopg
import sqlalchemy
from sqlalchemy import event

from skinspire_db.service.engines import Service
from skinspire_db.testing.databases import Database, DatabaseMaker
from skinspire_db.testing.joined_engines import service_within
from skinspire_db.testing.rows import Function, Layers
from skinspire_db.testing.seeded import Seeded, Unrestorable
from skinspire_db.testing.transaction import Transaction

SESSIONS = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND backend_type = 'client backend'
"""
END_SECONDS = 5


class SharedDatabase:
    """The database that the tests of one process use one after the other, and the connection that looks after it."""

    def __init__(self, maker: DatabaseMaker) -> None:
        self.database: Database = maker.clone()
        self.connection = self.database.connect()
        self.seeded = Seeded(self.connection)
        self.transaction = Transaction(self.connection, self.seeded.sequences)
        self.within: Service = service_within(self.transaction, self.database)
        self.idle: set[int] = set()  # pids of the pool's sessions that are not in use, and whose writes are counted
        self.sessions = ""
        self.count_sessions()

    def service(self) -> Service:
        """Engines with connections of their own; what they wrote is counted when they are given back to the pool."""
        service = self.database.service()
        if not event.contains(service.engine, "checkin", self._on_checkin):
            event.listen(service.engine, "checkin", self._on_checkin)
            event.listen(service.engine, "checkout", self._on_checkout)
        return service

    def end_other_sessions(self) -> None:
        """End the sessions that a test has left behind, and wait until PostgreSQL has counted what they wrote.

        Raises:
            Unrestorable: for a session that does not end in END_SECONDS.
        """
        deadline = time.monotonic() + END_SECONDS
        while others := self.present() - self.idle - {self.connection.info.backend_pid}:
            self.connection.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (list(others),))
            if time.monotonic() > deadline:
                raise Unrestorable(f"session {min(others)} does not end")
            time.sleep(0.001)

    def forget_settings(self) -> None:
        """Discard what a test has set, prepared, locked or listened to in the sessions of the pool."""
        pool: Any = self.service().engine.pool
        self.database.ending = True
        try:
            for taken in [pool.connect() for _ in range(pool.checkedin())]:
                taken.dbapi_connection.autocommit = True
                taken.dbapi_connection.execute("DISCARD ALL")
                taken.dbapi_connection.autocommit = False
                taken.close()
        except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError):
            self.database.close()  # one of them is broken: they all go
        finally:
            self.database.ending = False

    def present(self) -> set[int]:
        """The pids of the sessions that are connected to the database."""
        return {pid for (pid,) in self.connection.execute(SESSIONS.encode()).fetchall()}

    def count_sessions(self) -> None:
        """Remember how many sessions the database has had, and since when they are counted."""
        query = """
            SELECT ROW(pg_stat_get_db_sessions(oid), pg_stat_get_db_stat_reset_time(oid))::text
            FROM pg_database WHERE datname = current_database()
        """
        row = self.connection.execute(query).fetchone()
        self.sessions = row[0] if row else ""

    def forget_unreturned(self) -> None:
        """Replace the engines when a test has not given its connections back: the pool would run out of them."""
        pool: Any = self.within.engine.pool
        if pool.checkedout():
            self.within = service_within(self.transaction, self.database)

    def close(self) -> None:
        """Close all connections to it."""
        self.connection.close()
        self.within.engine.dispose()

    def _on_checkin(self, connection: Any, _: Any) -> None:
        if connection is not None and not connection.closed:
            try:
                connection.execute("SELECT pg_stat_force_next_flush()")
                connection.rollback()
                self.idle.add(connection.info.backend_pid)
            except psycopg.Error:  # it is broken, and ends
                connection.close()

    def _on_checkout(self, connection: Any, _: Any, __: Any) -> None:
        self.idle.discard(connection.info.backend_pid)


class ProcessDatabases:
    """The databases of one process of a test run, and which tests needed a new one."""

    def __init__(self, maker: DatabaseMaker) -> None:
        self.maker = maker
        self.layers = Layers(maker)
        self._shared: SharedDatabase | None = None
        self.renewed: list[tuple[str, str]] = []  # test, and what it did that only a new clone could undo

    @property
    def shared(self) -> SharedDatabase:
        """The database that this process's tests share, made at the first use and when its connection was lost."""
        if self._shared is None or self._shared.connection.closed:
            self.renew()
            self._shared = SharedDatabase(self.maker)
        return self._shared

    def renew(self, test: str = "", reason: str = "") -> None:
        """Drop the shared database: the next test gets a new one.

        Args:
            test: The test that has damaged it.
            reason: What that test has done; empty when no test is to blame.
        """
        if reason:
            self.renewed.append((test, reason))
        if (old := self._shared) is not None:
            self._shared = None
            old.close()
            with contextlib.suppress(psycopg.OperationalError):  # a server that is gone; the next run sweeps it up
                self.maker.drop(old.database)

    def add_rows(self, function: Function) -> Any:
        """Add rows for all tests from now on, until remove_rows().

        Returns:
            What the function returns.
        """
        self.renew()
        return self.layers.add(function)

    def remove_rows(self, function: Function) -> None:
        """Take a function's rows out of the databases of the tests to come."""
        self.renew()
        self.layers.remove(function)

    def keep(self, name: str, test: str) -> None:
        """Set the shared database aside under that name."""
        old, self._shared = self.shared, None
        old.close()
        self.maker.keep(old.database, name, test)

    def close(self) -> None:
        """Drop everything."""
        self.renew()
        self.maker.close()

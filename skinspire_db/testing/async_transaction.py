"""A db_session test's transaction for asyncio: connections as those of transaction.py, with methods to await."""

from __future__ import annotations

from typing import Any

from skinspire_db.service import async_engines, options
from skinspire_db.service.engines import Service
from skinspire_db.testing.databases import Database
from skinspire_db.testing.joined_engines import REAL_CONNECTIONS, watch_writes
from skinspire_db.testing.transaction import JoinedConnection, Transaction


class AsyncJoinedCursor:
    """A cursor whose methods are awaited, and which stops the loop while it works: a test has one connection."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    async def __aenter__(self) -> AsyncJoinedCursor:
        return self

    async def __aexit__(self, *_: Any) -> None:
        self._cursor.close()

    async def execute(self, *arguments: Any, **more: Any) -> AsyncJoinedCursor:
        """As psycopg's."""
        self._cursor.execute(*arguments, **more)
        return self

    async def executemany(self, *arguments: Any, **more: Any) -> None:
        """As psycopg's."""
        self._cursor.executemany(*arguments, **more)

    async def fetchone(self) -> Any:
        """As psycopg's."""
        return self._cursor.fetchone()

    async def fetchmany(self, size: int = 0) -> Any:
        """As psycopg's."""
        return self._cursor.fetchmany(size)

    async def fetchall(self) -> Any:
        """As psycopg's."""
        return self._cursor.fetchall()

    async def close(self) -> None:
        """As psycopg's."""
        self._cursor.close()


class AsyncJoinedConnection:
    """What the code under test uses as its asynchronous psycopg connection."""

    def __init__(self, joined: JoinedConnection) -> None:
        self.joined = joined

    def __getattr__(self, name: str) -> Any:
        return getattr(self.joined, name)

    @property
    def settings(self) -> tuple[bytes, ...]:
        """As driver.AsyncConnection's."""
        return self.joined.settings

    @settings.setter
    def settings(self, value: tuple[bytes, ...]) -> None:
        self.joined.settings = value

    def cursor(self, *arguments: Any, **more: Any) -> AsyncJoinedCursor:
        """As psycopg's."""
        return AsyncJoinedCursor(self.joined.cursor(*arguments, **more))

    async def execute(self, *arguments: Any, **more: Any) -> AsyncJoinedCursor:
        """As psycopg's."""
        return AsyncJoinedCursor(self.joined.execute(*arguments, **more))

    async def commit(self) -> None:
        """Release the savepoint."""
        self.joined.commit()

    async def rollback(self) -> None:
        """Go back to the savepoint."""
        self.joined.rollback()

    async def close(self) -> None:
        """The real connection stays open."""
        self.joined.close()

    async def set_autocommit(self, value: bool) -> None:
        """As psycopg's."""
        self.joined.autocommit = value

    async def set_isolation_level(self, value: Any) -> None:
        """As psycopg's.

        Raises:
            UsageError: it is another level than the test's.
        """
        self.joined.isolation_level = value

    async def set_read_only(self, value: bool | None) -> None:
        """As psycopg's."""
        self.joined.read_only = value

    async def set_deferrable(self, value: bool | None) -> None:
        """As psycopg's."""
        self.joined.deferrable = value


def async_service_within(transaction: Transaction, database: Database) -> Service:
    """Engines for asyncio whose connections are in this transaction.

    Args:
        transaction: The test's.
        database: Where it is.
    """
    wanted = options.of(database.environment.project)
    given = {key: value for key, value in wanted.engine.items() if key not in REAL_CONNECTIONS}

    async def opened() -> AsyncJoinedConnection:
        return AsyncJoinedConnection(JoinedConnection(transaction))

    arguments = given | {"pool_pre_ping": False, "use_native_hstore": False}
    engine = async_engines.engine_of(database.target, database.environment.policy, opened, **arguments)
    watch_writes(engine.sync_engine, transaction)
    return async_engines.of_engine(database.environment, engine)

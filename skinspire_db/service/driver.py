"""The psycopg connection of the application's engines: it counts where transactions begin and end on it.

The BEGIN of a transaction and its first statement go together, in one round trip.

A unit of work compares the count at its end with that at its beginning, and so notices a COMMIT or ROLLBACK that was sent
inside it, in whatever way, without asking the server.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any

import psycopg
from psycopg import generators
from psycopg.pq import ExecStatus, TransactionStatus
from psycopg.rows import TupleRow

from skinspire_db.patterns import lazy_regex

ENDS = {b"COMMIT", b"PREPARE TRANSACTION"}
BEGINS = {b"BEGIN", b"START TRANSACTION"}
CHAIN = lazy_regex(rb"\bchain\b", re.IGNORECASE)


class CountingCursor:
    """Reads PostgreSQL's answer to each statement, of several in one string too. One that begins a transaction goes together
    with its BEGIN.
    """

    _conn: Any
    _query: Any

    def _goes_with_begin(self, query: Any, params: Any) -> bool:
        """Whether this statement begins a transaction, in one round trip with its BEGIN.

        A pipeline takes one statement at a time, and a text without parameters may hold several.
        """
        connection = self._conn
        if connection.closed or connection.autocommit or connection.in_transaction or connection._pipeline:
            return False
        one = bool(params) or (isinstance(query, str) and ";" not in query.rstrip().removesuffix(";"))
        connection.begins_in_pipeline = one and psycopg.Pipeline.is_supported()
        return bool(connection.begins_in_pipeline)

    def _check_results(self, results: Any) -> None:
        for result in results:
            tag = result.command_status
            if tag in ENDS or (tag == b"ROLLBACK" and self._ends(results)):
                self._conn.transaction_count += 1
        super()._check_results(results)  # type: ignore[misc]

    def _ends(self, results: Any) -> bool:
        """Whether an answer ROLLBACK ended the transaction; ROLLBACK TO SAVEPOINT is answered by the same word."""
        if self._conn.info.transaction_status == TransactionStatus.IDLE or any(r.command_status in BEGINS for r in results):
            return True
        return self._query is not None and CHAIN.search(self._query.query) is not None


class CountingConnection:
    """`transaction_count` grows with each transaction that psycopg begins here, and each that a statement ends.

    `settings` are sent together with each BEGIN, in one round trip: so every transaction of a unit of work has them, also one
    that began because a statement of the application had ended the first.
    """

    transaction_count = 0
    settings: tuple[bytes, ...] = ()
    begins_in_pipeline = False  # the next BEGIN is not waited for: it is in a pipeline with the statement after it
    info: Any
    pgconn: Any
    autocommit: Any
    _pipeline: Any

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open."""
        return bool(self.info.transaction_status != TransactionStatus.IDLE)

    def _start_query(self) -> Generator[Any, Any, None]:
        begins = not self.autocommit and not self.in_transaction
        together, self.begins_in_pipeline = self.begins_in_pipeline, False
        if begins and self._pipeline and together:
            # psycopg would wait for the answer to BEGIN. Where that fails, PostgreSQL runs nothing of the pipeline.
            for command in (self._get_tx_start_command(), *self.settings):
                yield from self._exec_command(command)  # type: ignore[attr-defined]
            return
        if not (begins and self.settings) or self._pipeline:
            yield from super()._start_query()  # type: ignore[misc]
            for setting in self.settings if begins else ():  # a pipeline takes one statement at a time
                yield from self._exec_command(setting)  # type: ignore[attr-defined]
            return
        self._check_connection_ok()  # type: ignore[attr-defined]
        self.pgconn.send_query(b"; ".join((self._get_tx_start_command(), *self.settings)))
        for result in (yield from generators.execute(self.pgconn)):
            if result.status == ExecStatus.FATAL_ERROR:
                raise psycopg.errors.error_from_result(result, encoding="utf-8")

    def _get_tx_start_command(self) -> bytes:
        self.transaction_count += 1
        return super()._get_tx_start_command()  # type: ignore[misc,no-any-return]


class Cursor(CountingCursor, psycopg.Cursor[TupleRow]):
    """A cursor of a Connection."""

    def execute(self, query: Any, params: Any = None, **given: Any) -> Cursor:
        """As psycopg's."""
        if not self._goes_with_begin(query, params):
            return super().execute(query, params, **given)
        with self._conn.pipeline():
            return super().execute(query, params, **given)


class Connection(CountingConnection, psycopg.Connection[TupleRow]):
    """psycopg's connection, counting."""


class AsyncCursor(CountingCursor, psycopg.AsyncCursor[TupleRow]):
    """A cursor of an AsyncConnection."""

    async def execute(self, query: Any, params: Any = None, **given: Any) -> AsyncCursor:
        """As psycopg's."""
        if not self._goes_with_begin(query, params):
            return await super().execute(query, params, **given)
        async with self._conn.pipeline():
            return await super().execute(query, params, **given)


class AsyncConnection(CountingConnection, psycopg.AsyncConnection[TupleRow]):
    """psycopg's connection for asyncio, counting."""


def connect(**parameters: Any) -> Connection:
    """Open a connection whose transactions are counted.

    Args:
        parameters: psycopg.connect()'s.

    Raises:
        psycopg.OperationalError: when the server cannot be reached or refuses.
    """
    return Connection.connect(**parameters, cursor_factory=Cursor)

"""Engines whose connections are in a db_session test's transaction, and which of these have written."""

from __future__ import annotations

import re
from typing import Any

import sqlalchemy
from psycopg.types.json import set_json_dumps, set_json_loads
from sqlalchemy import event

from skinspire_db.errors import UsageError
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres.sql_text import without_comments
from skinspire_db.service import options
from skinspire_db.service.engines import Service
from skinspire_db.service.engines import url as url_of
from skinspire_db.testing.databases import Database
from skinspire_db.testing.transaction import USE_DB_DATABASE, JoinedConnection, Transaction

READS = lazy_regex(r"\s*(SELECT|SHOW|FETCH|VALUES|EXPLAIN|WITH(?!.*\b(INSERT|UPDATE|DELETE|MERGE)\b))\b", re.I | re.DOTALL)
REAL_CONNECTIONS = ("connect_args", "isolation_level", "pool_pre_ping")  # options that a savepoint cannot have


def service_within(transaction: Transaction, database: Database) -> Service:
    """Engines whose connections are JoinedConnections of this transaction.

    Args:
        transaction: The test's.
        database: Where it is; its environment's policy has the size of the pool.

    Returns:
        What the test serves to the application.
    """
    policy = database.environment.policy
    wanted = options.of(database.environment.project)
    given = {key: value for key, value in wanted.engine.items() if key not in REAL_CONNECTIONS}
    engine = sqlalchemy.create_engine(
        url_of(database.target),
        creator=lambda: JoinedConnection(transaction),
        pool_size=policy.pool_size,
        max_overflow=policy.pool_overflow,
        pool_timeout=policy.pool_timeout,
        hide_parameters=True,
        **given | {"use_native_hstore": False},  # which asks a real psycopg connection
    )

    if (loads := given.get("json_deserializer")) is not None:
        set_json_loads(loads, transaction.connection)
    if (dumps := given.get("json_serializer")) is not None:
        set_json_dumps(dumps, transaction.connection)

    watch_writes(engine, transaction)
    return Service(database.environment, engine, engine.execution_options(postgresql_readonly=True), options=wanted)


def watch_writes(engine: sqlalchemy.Engine, transaction: Transaction) -> None:
    """Know which connections of an engine have written, and refuse what would go with another transaction."""

    @event.listens_for(engine, "before_cursor_execute")
    def refuse_to_write_inside(connection: Any, _: Any, statement: str, __: Any, ___: Any, ____: bool) -> None:
        """Refuse writes of an outer transaction: they would be part of the inner one, and be rolled back with it."""
        joined = connection.connection.driver_connection
        joined = getattr(joined, "joined", joined)  # asyncio's
        reads = READS.match(without_comments(statement)) is not None
        joined.wrote = joined.wrote_before or not reads
        if joined in transaction.open[:-1] and not reads:
            raise UsageError("two transactions of a db_session test write at the same time", remedy=USE_DB_DATABASE)

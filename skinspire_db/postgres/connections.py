"""Opening connections for the tools: to exactly the database that the environment names, under its policy."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Any

from skinspire_db.config.environment import admin_setting
from skinspire_db.config.policy import Policy
from skinspire_db.errors import (
    ConnectionFailed,
    GuardRefused,
    InvalidSetting,
    PermissionMissing,
    SkinspireError,
)
from skinspire_db.postgres import error_text, failover, search_path
from skinspire_db.postgres.error_text import absence, refusal
from skinspire_db.postgres.target import Target, libpq_parameters

if TYPE_CHECKING:
    import psycopg
    from psycopg import sql

    Connection = psycopg.Connection[Any]

PAUSES = (0.05, 0.2, 0.5)  # seconds between tries to connect to a database that is there
MAINTENANCE_DATABASES = ("postgres", "template1")  # where one asks whether a database exists, and makes it
# Whatever the role's or the server's own setting: what is called committed stays so when the server dies the next moment.
DURABLE = "SET LOCAL synchronous_commit = on"
CLOSED = "skinspire-db closed this database to drop it"  # the comment on one, until it is dropped or open again
CLOSING = "SELECT pg_try_advisory_lock(hashtextextended(%s, 1))"  # one process at a time does either
SETTINGS_OF_LONG_TRANSACTIONS = """
DO $$
BEGIN
    -- So that a server notices within a second that our process was killed. Not every platform can.
    SET LOCAL client_connection_check_interval = '1s';
EXCEPTION WHEN invalid_parameter_value THEN
    NULL;
END
$$
"""


def connect(target: Target, operation: str, *, database: str | None = None, **begun: Any) -> Connection:
    """Open a connection, which is not in autocommit. An embedded server that does not answer is started.

    Args:
        target: the database.
        operation: for what; other sessions see it as the application_name.
        begun: what begin() takes after the policy; with `brief`, its transaction has begun as begin() does it, in one message
            with the first question.

    Raises:
        DatabaseMissing: the server has no such database.
        ConnectionFailed: the server does not answer, or refuses.
        InvalidSetting: the URL has unknown options. No error's text holds the password.
    """
    import psycopg

    started, pauses = False, iter((*PAUSES, None))
    # With several hosts, a standby may be about to be promoted.
    waits = target.policy.connect_retry if len(failover.servers(target)) > 1 and target.pin.server is None else 0.0
    deadline = time.monotonic() + waits
    while True:
        try:
            return open_once(target, operation, database, **begun)
        except psycopg.Error as error:
            failure = error
        if target.server and not started:
            started = True
            target.parameters.update(target.server.start().parameters)  # its port may be another one now
            continue
        refused = refusal(failure, target)
        exists = None if refused else _exists(target, database or target.database)
        if exists is None and not refused and time.monotonic() < deadline:
            time.sleep(PAUSES[-1])
            continue
        pause = next(pauses)
        if not exists or pause is None:
            raise refused or absence(failure, target, database or target.database, exists)
        reopen(target, operation, database or target.database)
        time.sleep(pause)  # it was not there a moment ago: another operation has made it, or decides whether to drop it


def require_direct(target: Target, operation: str, *, writes: bool = True) -> None:
    """Refuse an operation that cannot be done where its first connection came out; nothing has been done yet.

    A pooler in transaction mode hands each transaction another session: locks, snapshots and what pg_dump sets would be
    lost, or left to the application. One in session mode does not know the databases that are made aside.

    Raises:
        InvalidSetting: A pooler is in between.
        GuardRefused: The operation `writes`, and the server is a standby.
    """
    if target.pin.pooled:
        admin = admin_setting(target.environment)
        raise InvalidSetting(
            f"{target.setting} leads through a pooler, and {operation} needs PostgreSQL itself",
            remedy=f"set {admin}=postgresql://user:password@host:5432/{target.database}, with PostgreSQL's own host and port",
        )
    if writes and target.pin.standby:
        raise GuardRefused(
            f"{target} is a standby, which only reads: {operation} needs the primary",
            remedy=f"name the primary in {target.setting}; target_session_attrs=read-write finds it among several hosts",
        )


def begin(
    connection: Connection,
    policy: Policy,
    *,
    brief: bool = False,
    isolation: str = "READ COMMITTED",
    snapshot: str | None = None,
    again: bool = False,
) -> None:
    """Start a transaction under the policy's time-outs, whatever the database's or the role's own settings are.

    Everything is set for this transaction only, so that nothing sticks to a connection that a pooler hands on. A `brief`
    one only looks something up. The `isolation` is as SET TRANSACTION calls it; `snapshot` is one that another session has
    exported. With `again` the open transaction is rolled back first, in the same message.
    """
    from psycopg import sql
    from psycopg.pq import TransactionStatus

    settings = _settings(connection, policy, brief=brief, isolation=isolation, snapshot=snapshot)
    anew = again and connection.info.transaction_status != TransactionStatus.IDLE
    connection.execute(sql.SQL("ROLLBACK; BEGIN; ") + settings if anew else settings)


def _settings(
    connection: Connection,
    policy: Policy,
    *,
    brief: bool = False,
    isolation: str = "READ COMMITTED",
    snapshot: str | None = None,
) -> sql.Composed:
    from psycopg import sql

    return sql.SQL(
        # A snapshot older than the operation lock would not see what its last holder committed.
        "SET TRANSACTION ISOLATION LEVEL {isolation}; {snapshot} SET LOCAL quote_all_identifiers = off;"
        "SET LOCAL TimeZone = 'UTC'; {pin}; SET LOCAL statement_timeout = 0;"
        "SET LOCAL idle_in_transaction_session_timeout = 0; SET LOCAL lock_timeout = {milliseconds}{forever};"
        "{durable}{watched}"
    ).format(
        pin=sql.SQL(search_path.PIN),
        durable=sql.SQL(DURABLE),  # no query may be among these: it would take the snapshot
        isolation=sql.SQL(isolation),
        forever=sql.SQL("; SET LOCAL transaction_timeout = 0" if connection.info.server_version >= 170_000 else ""),
        snapshot=sql.SQL("SET TRANSACTION SNAPSHOT {};").format(snapshot) if snapshot else sql.SQL(""),
        milliseconds=sql.Literal(round(policy.lock_timeout * 1000)),
        watched=sql.SQL("" if brief else f"; {SETTINGS_OF_LONG_TRANSACTIONS}"),
    )


def autocommit(connection: Connection) -> None:
    """End the connection's transaction, and let each statement from now on be one of its own, however long it takes: a
    role's own time-out would end CREATE and DROP DATABASE.
    """
    connection.rollback()
    connection.autocommit = True
    connection.execute(f"SET statement_timeout = 0; SET search_path = {search_path.TOOLS}".encode())


def settle(connection: Connection) -> None:
    """Wait until all that has been committed on the server is on its disk.

    Raises:
        psycopg.errors.OperationalError: the server died since the connection was opened, and may have lost some of it.
    """
    # A transaction that writes no WAL waits for none, even if it has an id.
    connection.execute(
        f"{search_path.PIN}; {DURABLE}; SELECT pg_catalog.pg_logical_emit_message(true, 'skinspire-db', ''::text)".encode()
    )
    connection.commit()


def open_once(target: Target, operation: str, database: str | None = None, **begun: Any) -> Connection:
    """One attempt to connect, to the server that the operation is on; `begun` is as connect() takes it.

    Raises:
        psycopg.Error: there is no connection.
        ConnectionFailed: it led to another server, or to a former primary.
    """
    import psycopg

    other = {"dbname": database} if database else {}
    first = target.pin.server is None
    connection = psycopg.connect(**(libpq_parameters(target, f"skinspire-db {operation}") | other), autocommit=True)
    try:
        settings = _settings(connection, target.policy, **begun).as_string(connection) if begun else search_path.PIN
        target.pin.prove(connection, moves=target.server is not None, then=settings)
        if first:
            failover.require_newest(target, connection.info)
    except BaseException:
        connection.close()
        raise
    return connection


def maintenance(target: Target, operation: str) -> Connection:
    """A connection to a database that every server has, on the target's server.

    Raises:
        PermissionMissing: the role may not connect to it.
        ConnectionFailed: a limit or the server keeps it out.
    """
    import psycopg

    for database in MAINTENANCE_DATABASES:
        try:
            return open_once(target, operation, database)
        except psycopg.Error as error:
            failure = error
    neither = " nor ".join(MAINTENANCE_DATABASES)
    message = f"role {target.user} reaches neither {neither} on {target.where}: {error_text.reason(failure)}"
    kind = error_text.kind(failure)
    if kind == "limit":
        raise ConnectionFailed(message, remedy=error_text.more_connections(failure)) from failure
    if kind == "host" or "permission denied" in str(failure):
        grant = f'GRANT CONNECT ON DATABASE {MAINTENANCE_DATABASES[0]} TO "{target.user}"'
        raise PermissionMissing(message, remedy=f"ask the administrator for: {grant}") from failure
    raise ConnectionFailed(message, remedy=f"invoke db.doctor --env={target.environment}") from failure


def _exists(target: Target, database: str) -> bool | None:
    """Whether the database exists; None when the server could not be asked."""
    import psycopg

    try:
        with maintenance(target, "lookup") as connection:
            return connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (database,)).fetchone() is not None
    except (psycopg.Error, SkinspireError):
        return None


def explain(error: psycopg.Error, target: Target, database: str | None = None) -> SkinspireError:
    """What psycopg said when no connection could be had, in our words, with a remedy, and without the password."""
    database = database or target.database
    return refusal(error, target) or absence(error, target, database, _exists(target, database))


def allow_connections(connection: Connection, database: str, allowed: bool) -> None:
    """Let the database take connections or not; a comment says that it was closed here."""
    from psycopg import sql

    change = sql.SQL("ALTER DATABASE {0} ALLOW_CONNECTIONS {1}; COMMENT ON DATABASE {0} IS {2}")
    with connection.transaction():
        connection.execute(change.format(sql.Identifier(database), sql.SQL(str(allowed)), None if allowed else CLOSED))


def reopen(target: Target, operation: str, database: str) -> None:
    """Let connections to the database be made again when drop_unless_used() was killed before it came to that."""
    import psycopg

    closed = (
        "SELECT 1 FROM pg_database WHERE datname = %s AND NOT datallowconn AND shobj_description(oid, 'pg_database') = %s"
    )
    with contextlib.suppress(psycopg.Error, SkinspireError), maintenance(target, operation) as connection:
        autocommit(connection)
        mine = connection.execute(CLOSING.encode(), (database,)).fetchone() == (True,)
        if mine and connection.execute(closed, (database, CLOSED)).fetchone():
            allow_connections(connection, database, True)

"""Making and dropping whole databases, which no transaction can hold."""

from __future__ import annotations

import contextlib
import selectors
import time
from typing import TYPE_CHECKING, Any

from skinspire_db.errors import ConnectionFailed, DatabaseMissing, PermissionMissing, SkinspireError
from skinspire_db.postgres.connections import (
    CLOSING,
    PAUSES,
    allow_connections,
    autocommit,
    connect,
    maintenance,
    require_direct,
)
from skinspire_db.postgres.error_text import sentence
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

PATIENCE = 1.0  # seconds, for a database to be dropped that nothing depends on


def open_database(target: Target, operation: str, *, create: bool, **begun: Any) -> tuple[Connection, bool]:
    """Open a connection; with `create`, a database that does not exist is made first. `begun` is as connect() takes it.

    Returns:
        The connection, and whether the database was made.

    Raises:
        PermissionMissing: the role may not create databases; with what to ask the administrator for.
        SkinspireError: what connect() raises.
    """
    created = False
    for pause in (*PAUSES, None):
        try:
            return connect(target, operation, **begun), created
        except DatabaseMissing:
            if not create or pause is None:
                raise
        # Another first operation may be faster, and drop what it made when it fails.
        created = create_database(target, operation)
    raise AssertionError


def exists(connection: Connection, database: str) -> bool:
    """Whether the connection's server has a database of that name."""
    query = "SELECT FROM pg_catalog.pg_database WHERE datname OPERATOR(pg_catalog.=) %s"
    return connection.execute(query, (database,)).fetchone() is not None


def drop_unless_used(target: Target, operation: str, own_pid: int) -> None:
    """Drop the database unless another session uses it. No psycopg error leaves it.

    No session can begin between the look and the DROP, which would otherwise wait for it and then drop what it made. A
    comment says who has closed it: when this process is killed, the next operation opens it again.

    Args:
        target: the database.
        operation: for what; other sessions see it as the application_name.
        own_pid: the one session that may be using it.
    """
    import psycopg
    from psycopg import sql

    try:
        with maintenance(target, operation) as connection:
            autocommit(connection)
            if connection.execute(CLOSING.encode(), (target.database,)).fetchone() != (True,):
                return
            allow_connections(connection, target.database, False)
            others = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND pid <> %s", (target.database, own_pid)
            ).fetchone()
            if others == (0,):
                connection.execute("SELECT pg_terminate_backend(%s, 5000)", (own_pid,))
                connection.execute(sql.SQL("DROP DATABASE {}").format(sql.Identifier(target.database)))
            else:
                allow_connections(connection, target.database, True)
    except (psycopg.Error, SkinspireError):
        pass  # an empty database stays behind; the next operation takes it for new


def drop_database(target: Target, operation: str, over: Connection | None = None) -> None:
    """Drop the database if it exists, and end the sessions on it. No psycopg error leaves it.

    Args:
        target: the database.
        operation: for what; other sessions see it as the application_name.
        over: a connection to another database of the server, whose transaction ends: the role may no longer be let in.
    """
    import psycopg
    from psycopg import sql

    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(target.database))
    with contextlib.suppress(psycopg.Error):
        if over is not None:
            autocommit(over)
            over.execute(drop)
            return
    try:
        with maintenance(target, operation) as connection:
            autocommit(connection)
            connection.execute(drop)
    except (psycopg.Error, SkinspireError):
        pass  # a server that is gone; the next operation sweeps it up


def drop_without_waiting(target: Target, operation: str) -> bool:
    """Drop the database, and wait at most PATIENCE seconds for it: the server goes on by itself.

    DROP DATABASE waits for a checkpoint, which writes to disk whatever was changed on the server before, file by file: after
    the restore of 80 tables those are a thousand files, and seconds where a disk is slow. As long as the server is at work on
    it, an advisory lock says that its operation lives. No psycopg error leaves it.

    Args:
        target: the database.
        operation: for what; other sessions see it as the application_name.

    Returns:
        Whether it has ended.
    """
    import psycopg
    from psycopg import sql

    drop = sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(target.database))
    try:
        with contextlib.closing(maintenance(target, operation)) as connection:
            autocommit(connection)
            connection.execute("SET client_connection_check_interval = 0")  # the server is not to look whether we wait
            connection.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (target.database,))
            connection.pgconn.send_query(drop.as_bytes(connection))
            return _has_ended(connection, PATIENCE)
    except (psycopg.Error, SkinspireError):
        return False  # the next operation sweeps it up


def _has_ended(connection: Connection, seconds: float) -> bool:
    """Wait so long for the answer to what was sent."""
    deadline = time.monotonic() + seconds
    with selectors.DefaultSelector() as selector:
        selector.register(connection.pgconn.socket, selectors.EVENT_READ)
        while connection.pgconn.flush() or connection.pgconn.is_busy():
            selector.select(min(0.05, max(0.0, deadline - time.monotonic())))
            connection.pgconn.consume_input()
            if time.monotonic() > deadline:
                return not connection.pgconn.is_busy()
    return True


def create_database(target: Target, operation: str, *, template: str | None = None, locale: str = "ENCODING 'UTF8'") -> bool:
    """CREATE DATABASE, empty with that locale or as a copy of `template`.

    A template that does not fit into the server's shared buffers is copied as files (STRATEGY FILE_COPY), a smaller one by
    way of the buffers and the WAL, which spares the two checkpoints (PostgreSQL manual, CREATE DATABASE).

    Returns:
        False when another session was faster.

    Raises:
        PermissionMissing: the role may not create databases.
        ConnectionFailed: the server cannot be reached.
        psycopg.errors.ObjectInUse: others are connected to the template.
    """
    import psycopg
    from psycopg import sql

    with maintenance(target, operation) as connection:
        require_direct(target, operation)
        autocommit(connection)
        make = f"CREATE DATABASE {{}} TEMPLATE {{}} {locale.replace('{', '{{').replace('}', '}}')}"
        if template:
            large = connection.execute(
                "SELECT pg_database_size(%s) > pg_size_bytes(current_setting('shared_buffers'))", (template,)
            ).fetchone()
            make = f"CREATE DATABASE {{}} TEMPLATE {{}} STRATEGY {'FILE_COPY' if large == (True,) else 'WAL_LOG'}"
        try:
            connection.execute(sql.SQL(make).format(sql.Identifier(target.database), sql.Identifier(template or "template0")))
        except (psycopg.errors.DuplicateDatabase, psycopg.errors.UniqueViolation):  # the latter in the same instant
            return False
        except psycopg.errors.InsufficientPrivilege:
            raise PermissionMissing(
                f"role {target.user} may not create the database {target.database}",
                remedy=f'ask the administrator for: CREATE DATABASE "{target.database}" OWNER "{target.user}"',
            ) from None
        except psycopg.errors.ObjectInUse:
            raise
        except psycopg.Error as error:
            full = "free some space, and run it again" if isinstance(error, psycopg.errors.DiskFull) else None
            raise ConnectionFailed(f"cannot create the database {target.database}: {sentence(error)}", remedy=full) from None
    return True

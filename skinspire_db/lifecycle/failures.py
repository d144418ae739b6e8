"""PostgreSQL's errors as an operation tells them: what failed, in which step, and what to do."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from skinspire_db.errors import ConnectionFailed, PermissionMissing, SkinspireError, StepFailed, TableLocked
from skinspire_db.lifecycle import lock
from skinspire_db.postgres import failures
from skinspire_db.postgres.failures import sentence
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection


AS_IT_WAS = "the database is as it was"


@contextlib.contextmanager
def translated(  # type: ignore[no-untyped-def]
    to: Target, operation: str, during: str, connection: Connection, *, but: type[Exception] | tuple[()] = ()
):
    """Turn psycopg's errors on this connection into ours; `but` passes as it is."""
    import psycopg

    try:
        yield
    except but:
        raise
    except psycopg.Error as error:
        raise translation(error, to, operation, during, connection) from None


def translation(
    error: psycopg.Error, to: Target, operation: str, during: str, connection: Connection | None = None
) -> SkinspireError:
    """What psycopg raised on that connection, if on one that is known, as an error of ours."""
    from psycopg import errors

    if isinstance(error, errors.LockNotAvailable):
        holders = lock.blockers(to, operation, connection.info.backend_pid if connection else 0)
        return TableLocked(
            f"{during}: waited {to.policy.lock_timeout:g} s for a table that is held by {holders}; {AS_IT_WAS}",
            remedy=f"end that transaction, which invoke db.activity --env={to.environment} shows, and run it again",
        )
    if isinstance(error, errors.DiskFull):
        return StepFailed(f"{during}: the server's disk is full; {AS_IT_WAS}", remedy="free some space and run it again")
    if setting := failures.short_of_locks(error.diag.message_hint or ""):
        return StepFailed(f"{during}: {sentence(error)}; {AS_IT_WAS}", remedy=failures.more_locks(setting, to.server))
    if error.sqlstate == "57P01" and not (to.server and to.server.status().pid is None):
        return ConnectionFailed(
            f"{during}: somebody ended this session, an operation that replaced the database for one; {AS_IT_WAS}",
            remedy=f"invoke db.history --env={to.environment}, then run it again",
        )
    if (connection and connection.closed) or failures.is_lost(error):
        return ConnectionFailed(
            f"{during}: the server went away ({sentence(error)}); {AS_IT_WAS}",
            remedy="invoke server.status" if to.server else "run it again when the server is back",
        )
    if isinstance(error, errors.InsufficientPrivilege | errors.InvalidSchemaName):
        return PermissionMissing(
            f"{during}: role {to.user} lacks a right: {sentence(error)}; {AS_IT_WAS}",
            remedy=f'ask the administrator for: GRANT USAGE, CREATE ON SCHEMA public TO "{to.user}"'
            if "for schema public" in sentence(error) or isinstance(error, errors.InvalidSchemaName)
            else f"use the role that owns the tables in the URL of {to.environment}, or ask the administrator for that right",
        )
    if isinstance(error, errors.UndefinedTable):
        return StepFailed(
            f"{during}: {sentence(error)}; {AS_IT_WAS}",
            remedy=f"invoke db.create --update-only --env={to.environment}",
        )
    where = f" (table {error.diag.table_name})" if error.diag.table_name else ""
    return StepFailed(f"{during}: {sentence(error)}{where}; {AS_IT_WAS}")

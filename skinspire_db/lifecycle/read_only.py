"""Connections that only look: PostgreSQL itself refuses to write, and everything is seen as it was at one moment."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from skinspire_db.config.environment import Environment
from skinspire_db.errors import (
    ConnectionFailed,
    DatabaseMissing,
    PermissionMissing,
    SkinspireError,
    StepFailed,
    TableLocked,
)
from skinspire_db.lifecycle import lock
from skinspire_db.postgres import connections, target
from skinspire_db.postgres.failures import sentence
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection


def present(environment: Environment) -> Target:
    """Where the environment's database is, for a look, which makes no server. Raises DatabaseMissing when the embedded one
    was never made, and what connections.target() raises.
    """
    to = target.target(environment, start=False)
    if to.server is None:
        return to
    if not to.server.exists:
        raise DatabaseMissing(
            f"the database {to.database} does not exist, nor the embedded server for it",
            remedy=f"invoke db.setup --env={environment.name}",
        )
    return target.target(environment)


@contextlib.contextmanager
def looking(to: Target, operation: str) -> Iterator[Connection]:
    """A connection for `operation` whose transaction is READ ONLY; it is rolled back and closed at the end.

    An embedded server that does not run is started. Raises what connections.connect() raises, and PostgreSQL's errors in our
    words: TableLocked with the holders, PermissionMissing, ConnectionFailed, else StepFailed.
    """
    import psycopg

    with to.pin.operation(), contextlib.closing(connections.connect(to, operation)) as connection:
        try:
            connections.begin(connection, to.policy, brief=True, isolation="REPEATABLE READ READ ONLY")
            yield connection
        except psycopg.Error as error:
            raise _in_our_words(error, to, operation, connection) from None


def _in_our_words(error: psycopg.Error, to: Target, operation: str, connection: Connection) -> SkinspireError:
    from psycopg import errors

    if isinstance(error, errors.LockNotAvailable):
        holders = lock.blockers(to, operation, connection.info.backend_pid)
        return TableLocked(
            f"waited {to.policy.lock_timeout:g} s for a table that is held by {holders}",
            remedy=f"invoke db.activity --env={to.environment}",
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return PermissionMissing(
            f"role {to.user} lacks a right: {sentence(error)}", remedy=f"invoke db.doctor --env={to.environment}"
        )
    if connection.closed:
        return ConnectionFailed(f"the server went away: {sentence(error)}", remedy=f"invoke db.doctor --env={to.environment}")
    return StepFailed(f"could not look: {sentence(error)}")

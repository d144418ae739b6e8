"""PostgreSQL's errors as an operation tells them: by SQLSTATE, which error it is, its sentence, and the remedy."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from skinspire_db.errors import ConnectionFailed, PermissionMissing, SkinspireError, StepFailed, TableLocked
from skinspire_db.lifecycle import lock, remedies
from skinspire_db.postgres import error_text
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    import psycopg

    from skinspire_db.postgres.connections import Connection

AS_IT_WAS = "the database is as it was"
RIGHT = "use the role that owns the tables in the URL of {env}, or ask the administrator for that right"
IN_PUBLIC = 'ask the administrator for: GRANT USAGE, CREATE ON SCHEMA public TO "{user}"'


@dataclass(frozen=True)
class Failure:
    """What an error is to the person who reads it. The texts may name {said}, {wait}, {holders}, {end}, {user} and {env}."""

    error: type[SkinspireError]
    sentence: str = "{said}"
    remedy: str | None = None


SERVER_GONE = Failure(ConnectionFailed, "the server went away ({said})", "run it again when the server is back")
OTHERWISE = Failure(StepFailed)
# https://www.postgresql.org/docs/current/errcodes-appendix.html
BY_SQLSTATE = {
    "55P03": Failure(
        TableLocked,
        "waited {wait} s for a table that is held by {holders}",
        "{end}",
    ),
    "53100": Failure(StepFailed, "the server's disk is full", "free some space and run it again"),
    "57P01": Failure(
        ConnectionFailed,
        "this session was ended, for example by an operation that replaced the database",
        "invoke db.history --env={env}, then run it again",
    ),
    "42501": Failure(PermissionMissing, "role {user} lacks a right: {said}", RIGHT),
    "3F000": Failure(PermissionMissing, "role {user} lacks a right: {said}", IN_PUBLIC),
    "42P01": Failure(StepFailed, "{said}", "invoke db.create --update-only --env={env}"),
}


@contextlib.contextmanager
def translated(
    target: Target, operation: str, during: str, connection: Connection, *, but: type[Exception] | tuple[()] = ()
) -> Iterator[None]:
    """Turn psycopg's errors on this connection into ours; `but` passes as it is."""
    import psycopg

    try:
        yield
    except but:
        raise
    except psycopg.Error as error:
        raise translation(error, target, operation, during, connection) from None


def translation(
    error: psycopg.Error, target: Target, operation: str, during: str, connection: Connection | None = None
) -> SkinspireError:
    """What psycopg raised, as an error of ours.

    Args:
        error: PostgreSQL's or libpq's.
        target: Where it happened.
        operation: The one that runs.
        during: The step; empty for a look, which has nothing to lose.
        connection: The one on which it happened, if that is known.
    """
    said = error_text.sentence(error)
    failure = _failure(error, target, connection)
    holders = lock.blockers(target, operation, connection.info.backend_pid if connection else 0) if (
        "{holders}" in failure.sentence
    ) else ""  # fmt: skip
    pid = re.match(r"pid (\d+) ", holders)
    shown = f"invoke db.activity --env={target.environment} shows it"
    end = f"{shown}, {remedies.ending(target.environment, target.database, pid[1])} ends it" if pid else shown
    words = {
        "end": f"{end}; then run it again", "said": said,
        "wait": f"{target.policy.lock_timeout:g}", "holders": holders, "user": target.user,
        "env": target.environment,
    }  # fmt: skip
    where = f" (table {error.diag.table_name})" if failure is OTHERWISE and error.diag.table_name else ""
    text = f"{failure.sentence.format(**words)}{where}"
    remedy = failure.remedy and failure.remedy.format(**words)
    if setting := error_text.short_of_locks(error.diag.message_hint or ""):
        remedy = error_text.more_locks(setting, target.server)
    remedy = remedy or error_text.install_extension(said)
    return failure.error(f"{during}: {text}; {AS_IT_WAS}" if during else text, remedy=remedy)


def _failure(error: psycopg.Error, target: Target, connection: Connection | None) -> Failure:
    """The one that fits; the SQLSTATE alone does not tell all of them."""
    state = error.sqlstate or ""
    if error_text.short_of_locks(error.diag.message_hint or ""):
        return OTHERWISE
    stopped = state == "57P01" and target.server is not None and target.server.status().pid is None
    if state in BY_SQLSTATE and not stopped:
        if state == "42501" and "for schema public" in error_text.sentence(error):
            return BY_SQLSTATE["3F000"]
        return BY_SQLSTATE[state]
    if (connection and connection.closed) or error_text.is_lost(error):
        return (
            SERVER_GONE if target.server is None else Failure(ConnectionFailed, SERVER_GONE.sentence, "invoke server.status")
        )
    return OTHERWISE

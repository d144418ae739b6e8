"""Commit, and find out what came of it: nothing is called done that a second connection does not see."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from skinspire_db.errors import ConnectionFailed, OutcomeUnknown, SkinspireError
from skinspire_db.lifecycle import journal
from skinspire_db.lifecycle.failures import AS_IT_WAS, translated
from skinspire_db.postgres.target import Target

if TYPE_CHECKING:
    from skinspire_db.lifecycle.operation import Running
    from skinspire_db.postgres.connections import Connection

PAUSES = (0.0, 0.5, 2.0)  # seconds between the tries to read back, for a server that is short of connections


def commit(connection: Connection, running: Running, entry: journal.Entry) -> None:
    """Commit. When the server goes away in the middle, it is asked what came of it.

    Raises:
        OutcomeUnknown: The server could not be asked.
        ConnectionFailed: The server went away before it committed; the database is as it was.
        SkinspireError: PostgreSQL refused, for a deferred constraint for one; the database is as it was.
    """
    import psycopg

    target, result = running.target, running.result
    result.commit = "begun"
    try:
        with translated(target, running.operation, "commit", connection, but=psycopg.OperationalError):
            connection.commit()
    except SkinspireError:
        result.commit = "not begun"
        raise
    except (psycopg.OperationalError, KeyboardInterrupt) as error:
        close(connection)
        match journal.recorded(target, running.operation, entry, wait=True):
            case None:
                raise OutcomeUnknown(
                    "the server went away while it committed: whether it did is not known",
                    remedy=f"invoke db.verify --env={target.environment}",
                ) from None
            case False if isinstance(error, KeyboardInterrupt):
                result.commit = "not begun"
                raise
            case False:
                result.commit = "not begun"
                raise ConnectionFailed(f"the server went away before it committed; {AS_IT_WAS}") from None
    result.commit = "done"


def read_back(target: Target, operation: str, entry: journal.Entry) -> None:
    """Make sure that a second connection sees the commit.

    Raises:
        OutcomeUnknown: It does not, or the server could not be asked.
    """
    for pause in PAUSES:
        time.sleep(pause)
        if journal.recorded(target, operation, entry):
            return
    raise OutcomeUnknown(
        "the commit was acknowledged, but a second connection could not read it back",
        remedy=f"invoke db.verify --env={target.environment}",
    )


def close(connection: Connection) -> None:
    """Close, and with that roll back; an error here would hide the one that matters."""
    import psycopg

    with contextlib.suppress(psycopg.Error):
        connection.rollback()  # waits for the server to have done it; close() alone would not
    connection.close()

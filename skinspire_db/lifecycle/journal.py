"""The journal: which operations changed the database, each written in the operation's own transaction."""

from __future__ import annotations

import contextlib
import getpass
import json
import socket
import uuid
from typing import TYPE_CHECKING, Any

import skinspire_db
from skinspire_db.errors import SkinspireError
from skinspire_db.lifecycle import lock
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import Target

Entry = uuid.UUID  # of a line of the journal

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


def record(connection: Connection, operation: str, environment: str, seconds: float, steps: Any) -> Entry:
    """Write the operation into the journal, in its own transaction; returns the entry's id."""
    entry = uuid.uuid4()
    connection.execute(
        """
        INSERT INTO skinspire_tools.journal (entry_id, operation, environment, seconds, os_user, host, tool_version, steps)
        VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
        """,
        (
            entry, operation, environment, seconds, _os_user(), socket.gethostname(), skinspire_db.__version__,
            json.dumps(steps),
        ),
    )  # fmt: skip
    return entry


def recorded(target: Target, operation: str, entry: Entry, *, wait: bool = False) -> bool | None:
    """Whether the operation with this journal entry was committed, asked on a connection of its own; None when the
    server could not be asked.

    With `wait` the operation lock is taken first: as long as the operation's own transaction lives, it holds that, and
    may still commit.
    """
    import psycopg

    try:
        with contextlib.closing(connections.connect(target, f"{operation} read-back", brief=True)) as connection:
            if wait:
                lock.take(connection, target)
            query = "SELECT count(*) FROM skinspire_tools.journal WHERE entry_id = %s"
            return connection.execute(query, (entry,)).fetchone() == (1,)
    except psycopg.errors.UndefinedTable:
        return False
    except (psycopg.Error, SkinspireError):
        return None


def _os_user() -> str:
    try:
        return getpass.getuser().encode(errors="replace").decode()
    except (OSError, KeyError):  # a container's user without a name
        return "unknown"

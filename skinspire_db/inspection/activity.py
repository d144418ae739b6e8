"""Who is at work in a database, and who did which operation when."""

from __future__ import annotations

import time
from typing import Any

from skinspire_db.config.environment import Environment
from skinspire_db.errors import UsageError
from skinspire_db.inspection import queries
from skinspire_db.inspection.overview import Inspection, Row, note_the_stamp, rows
from skinspire_db.lifecycle import tool_schema
from skinspire_db.lifecycle.read_only import read_only_connection
from skinspire_db.lifecycle.result import told
from skinspire_db.postgres.target import target_of


def activity(environment: Environment) -> Inspection:
    """Every session of the database but our own: what it runs, what it waits for, and which session blocks it.

    What other roles run is shown only to a member of pg_read_all_stats.

    Args:
        environment: whose database is looked at.

    Raises:
        SkinspireError: what read_only_connection() raises.
    """
    started = time.monotonic()
    target = target_of(environment)
    found = Inspection("db.activity", target.environment, target.database, str(target))
    with read_only_connection(target, found.operation) as connection:
        note_the_stamp(connection, found)
        [found.about] = rows(connection, queries.CONNECTIONS)
        found.sections = {"activity": rows(connection, queries.ACTIVITY)}
    found.seconds = time.monotonic() - started
    return found


def history(environment: Environment, limit: str) -> Inspection:
    """The last operations that changed the database, newest first. An operation that failed left nothing, and no entry.

    Args:
        environment: whose database is looked at.
        limit: how many, as it was typed.

    Raises:
        UsageError: the limit is no number.
        SkinspireError: what read_only_connection() raises.
    """
    if not limit.isdecimal() or not 0 < int(limit) < 1_000_000:
        raise UsageError(f"--limit={limit} is no number of operations", remedy="invoke db.history --limit=20")
    started = time.monotonic()
    target = target_of(environment)
    found = Inspection("db.history", target.environment, target.database, str(target), sections={"journal": []})
    with read_only_connection(target, found.operation) as connection:
        note_the_stamp(connection, found)
        if tool_schema.exists(connection):
            found.sections["journal"] = rows(connection, queries.JOURNAL, limit=int(limit))
    for row in found.sections["journal"]:
        row["result"] = _result(row)
    found.seconds = time.monotonic() - started
    return found


def _result(row: Row) -> str:
    """What the steps did, in their numbers."""
    numbers = [(name, value) for step in row["steps"] for name, value in _numbers(step).items()]
    return ", ".join(told(value, name) for name, value in numbers if value) or "nothing to do"


def _numbers(step: Any) -> dict[str, Any]:
    return step.get("summary") or {} if isinstance(step, dict) else {}

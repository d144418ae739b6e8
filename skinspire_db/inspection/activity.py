"""Who is at work in a database, and who did which operation when."""

from __future__ import annotations

import re
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


def history(environment: Environment, limit: str, operation: str | None = None) -> Inspection:
    """The last operations that changed the database, newest first. An operation that failed left nothing, and no entry.

    Args:
        environment: whose database is looked at.
        limit: how many, as it was typed.
        operation: the id of one, as the list shows it or longer, which is shown whole; None for the list.

    Raises:
        UsageError: the limit is no number; no operation has that id, or several have.
        SkinspireError: what read_only_connection() raises.
    """
    if not limit.isdecimal() or not 0 < int(limit) < 1_000_000:
        raise UsageError(f"--limit={limit} is no number of operations", remedy="invoke db.history --limit=20")
    if operation is not None and not re.fullmatch("[0-9a-f]{4}[0-9a-f-]*", operation):
        raise UsageError(
            f"--operation={operation} is no id of an operation", remedy=f"invoke db.history --env={environment.name}"
        )
    started = time.monotonic()
    target = target_of(environment)
    found = Inspection("db.history", target.environment, target.database, str(target), sections={"journal": []})
    with read_only_connection(target, found.operation) as connection:
        note_the_stamp(connection, found)
        if tool_schema.exists(connection):
            found.sections["journal"] = rows(connection, queries.JOURNAL, limit=int(limit), id=operation)
    for row in found.sections["journal"]:
        row["result"] = _result(row)
    if operation is not None:
        found.sections = _whole(operation, found.sections["journal"], environment)
    found.seconds = time.monotonic() - started
    return found


def _whole(operation: str, found: list[Row], environment: Environment) -> dict[str, list[Row]]:
    """One operation with all that the journal has of it."""
    if len(found) != 1:
        several = f"{len(found)} operations have an id that begins" if found else "no operation has an id that begins"
        raise UsageError(f"{several} with {operation}", remedy=f"invoke db.history --env={environment.name} --limit=100")
    [row] = found
    facts = {"id": row["entry"], "operation": row["operation"], "environment": row["environment"],
             "started": row["started_at"], "took": f"{row['seconds']:.2f} s",
             "by": f"{row['os_user']} on {row['host']}, as role {row['role']}",
             "versions": f"skinspire-db {row['tool_version']}, PostgreSQL {row['server_version']}"}  # fmt: skip
    steps = [step for step in row["steps"] if isinstance(step, dict)]
    did = [", ".join(told(value, name) for name, value in _numbers(step).items()) or "nothing to do" for step in steps]
    known = ("name", "ok", "seconds", "summary", "lines", "checks")
    return {  # `operation` and `steps` of --json are db.history's own
        "entry": [{"fact": name, "value": value} for name, value in facts.items()],
        "entry_steps": [{"step": each.get("name"), "seconds": each.get("seconds"), "what it did": text}
                        for each, text in zip(steps, did, strict=True)],
        "lines": [{"step": each.get("name"), "line": line} for each in steps for line in _listed(each, "lines")],
        "checks": [{"step": each.get("name"), **check} for each in steps for check in _listed(each, "checks")
                   if isinstance(check, dict)],
        "others": [{"step": each.get("name"), "key": key, "value": value} for each in steps
                   for key, value in each.items() if key not in known],
    }  # fmt: skip


def _listed(step: dict[str, Any], key: str) -> list[Any]:
    value = step.get(key)
    return value if isinstance(value, list) else []


def _result(row: Row) -> str:
    """What the steps did, in their numbers."""
    numbers = [(name, value) for step in row["steps"] for name, value in _numbers(step).items()]
    return ", ".join(told(value, name) for name, value in numbers if value) or "nothing to do"


def _numbers(step: Any) -> dict[str, Any]:
    return step.get("summary") or {} if isinstance(step, dict) else {}

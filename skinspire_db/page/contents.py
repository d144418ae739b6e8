"""What a page shows: the schema in one look, and what the other commands answer with --json."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from skinspire_db.config.environment import Environment
from skinspire_db.config.project import Project
from skinspire_db.errors import SkinspireError
from skinspire_db.inspection import overview
from skinspire_db.inspection import queries as inspected
from skinspire_db.inspection.overview import Row, rows
from skinspire_db.lifecycle.read_only import read_only_connection
from skinspire_db.objects import ledger
from skinspire_db.page import queries
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres.target import target_of

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

OF_A_TABLE = {
    "columns": inspected.COLUMNS,
    "indexes": queries.INDEXES,
    "constraints": queries.CONSTRAINTS,
    "triggers": queries.TRIGGERS,
    "policies": queries.POLICIES,
}
WRITTEN = lazy_regex(r'\bNEW\s*\.\s*(?:"((?:[^"]|"")+)"|(\w+))\s*:?=(?!=)', re.IGNORECASE)
CREATED = lazy_regex(r"^Create Date: *(.+)$", re.MULTILINE)
MAKING = ("db.setup", "db.create", "db.prepare", "db.adopt")  # what makes a database at the head
COMMENTS = lazy_regex(r"--[^\n]*|/\*.*?\*/", re.DOTALL)


@dataclass
class Contents:
    """What is known of one environment.

    Attributes:
        environment: its name.
        database: the database's name; None where it cannot be known.
        written_at: when it was looked at, with the zone.
        parts: what was found, by name.
        unknown: why a part could not be found, by name.
    """

    environment: str
    database: str | None = None
    written_at: str = field(default_factory=lambda: datetime.now().astimezone().isoformat(timespec="seconds"))
    parts: dict[str, Any] = field(default_factory=dict)
    unknown: dict[str, str] = field(default_factory=dict)

    def gather(self, part: str, find: Callable[[], Any]) -> None:
        """Find a part; what cannot be found is named as unknown, and does not stop the others.

        Args:
            part: its name.
            find: finds it.
        """
        try:
            self.parts[part] = find()
        except SkinspireError as error:
            self.unknown[part] = error.message

    def as_dict(self) -> dict[str, Any]:
        """The contents as the page's script reads them."""
        return dict(vars(self))


def schema(environment: Environment) -> dict[str, Any]:
    """The database, its tables with all that belongs to each, its views and functions: one moment, read only.

    Args:
        environment: whose database is looked at.

    Raises:
        SkinspireError: what read_only_connection() raises.
    """
    target = target_of(environment)
    with read_only_connection(target, "db.page") as connection:
        found = overview.Inspection("db.page", target.environment, target.database, str(target))
        found.about = overview.about(connection, target)
        overview.note_the_stamp(connection, found)
        found.sections = {part: rows(connection, query) for part, query in OF_A_TABLE.items()}
        overview.say_what_they_do(connection, environment, found)
        proved = ledger.installed_at(connection)
        for trigger in found.sections["triggers"]:
            trigger["proved_at"] = proved.get(trigger["file"])
        views = overview.without_waiting(connection, lambda: rows(connection, queries.VIEWS))
        if views is None:
            found.notes.append("the views are not known: a session holds a table that one of them reads")
        sections = {
            "foreign_keys": [_without(row, "of", "to") for row in rows(connection, inspected.FOREIGN_KEYS)],
            "functions": rows(connection, queries.FUNCTIONS),
            "sequences": rows(connection, inspected.SEQUENCES),
            "extensions": rows(connection, inspected.EXTENSIONS),
            "tables": _tables(connection, found.sections, views or []),
        }
    return {"about": found.about, "notes": found.notes} | sections


def _without(row: Row, *names: str) -> Row:
    return {name: value for name, value in row.items() if name not in names}


def _tables(connection: Connection, sections: dict[str, list[Row]], views: list[Row]) -> list[Row]:
    """Tables and views, each with its columns, indexes, constraints, triggers and policies."""
    of_table: dict[tuple[str, str], Row] = defaultdict(lambda: {part: [] for part in OF_A_TABLE})
    for part, found in sections.items():
        for row in found:
            of_table[row["schema"], row["table"]][part].append(_without(row, "schema", "table"))
    for parts in of_table.values():
        _say_who_writes(parts)
    tables = [_without(row, "columns", "indexes", "foreign_keys", "triggers") for row in rows(connection, inspected.TABLES)]
    for view in views:
        kind = "materialized view" if view["materialized"] else "view"
        tables.append({"kind": kind} | _without(view, "materialized"))
    return [row | of_table[row["schema"], row["table"]] for row in tables]


def _say_who_writes(parts: Row) -> None:
    """Add to each column what gives its value beside the application: a trigger whose function sets it, or PostgreSQL."""
    writers: dict[str, list[str]] = defaultdict(list)
    for trigger in parts["triggers"]:
        source = COMMENTS.sub("", trigger.pop("source"))
        for quoted, plain in set(WRITTEN.findall(source)):
            writers[quoted.replace('""', '"') or plain.lower()].append(trigger["trigger"])
    for column in parts["columns"]:
        column["written_by"] = writers.get(column["column"]) or (["PostgreSQL"] if column["made_by"] else [])


def dated(project: Project, states: list[Row], journal: list[Row]) -> list[Row]:
    """The revisions with the moment when each was applied; where the journal does not say, the date in its file.

    Args:
        project: whose revisions.
        states: as migrate.status answers them.
        journal: as db.history answers it, the newest first.
    """
    applied: dict[str, Any] = {}
    for entry in journal:
        for step in entry["steps"]:
            revision, _, _ = str((step.get("summary") or {}).get("applied", "")).partition(" ")
            applied.setdefault(revision, entry["started_at"])
    made = next((entry["started_at"] for entry in journal if entry["operation"] in MAKING), None)
    for state in states:
        path = project.root / state["file"]
        text = path.read_text(encoding="utf-8", errors="replace") if state["file"] and path.is_file() else ""
        written = CREATED.search(text)
        at = applied.get(state["revision"]) or (made if state["state"] == "applied" else None)
        state["at"] = at or (written[1].strip() if written else None)
    return states

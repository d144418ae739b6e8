"""What a database holds: everything at a glance, one section of it, or one table."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from skinspire_db.config.environment import Environment
from skinspire_db.errors import SkinspireError, UsageError
from skinspire_db.inspection import queries
from skinspire_db.lifecycle import stamp
from skinspire_db.lifecycle.read_only import read_only_connection
from skinspire_db.lifecycle.result import json_object
from skinspire_db.migrations import position, revisions
from skinspire_db.objects import adopted, ledger, status, tenant_roles, versions
from skinspire_db.postgres import search_path
from skinspire_db.postgres.target import Target, target_of

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

Row = dict[str, Any]
T = TypeVar("T")
SECTIONS = {
    "tables": queries.TABLES, "views": queries.VIEWS, "functions": queries.FUNCTIONS, "triggers": queries.TRIGGERS,
    "sequences": queries.SEQUENCES, "extensions": queries.EXTENSIONS, "roles": queries.ROLES, "grants": queries.GRANTS,
    "activity": queries.ACTIVITY,
}  # fmt: skip
# The triggers' state is one line of the overview, and who is at work is no part of what a database holds.
OVERVIEW = {name: query for name, query in SECTIONS.items() if name not in ("triggers", "activity")}
DRAWN = {"tables": queries.TABLES, "columns": queries.COLUMNS, "foreign_keys": queries.FOREIGN_KEYS}
FORMATS = ("table", "json", "markdown", "mermaid")
LISTED = 12  # names in a message
COUNTED_AT_ONCE = 200  # tables in one statement


@dataclass(frozen=True)
class Wanted:
    """What to look at, and how it is to be shown. `exact` counts rows in place of PostgreSQL's estimates."""

    table: str | None = None
    schema: str | None = None
    section: str | None = None
    format: str = "table"
    exact: bool = False

    @classmethod
    def parse(
        cls, table: str | None, schema: str | None, section: str | None, shown_as: str | None, exact: bool, json: bool
    ) -> Wanted:
        """What was typed.

        Args:
            table: the name of one table; None for all.
            schema: the name of one schema; None for all.
            section: the name of one section; None for all.
            shown_as: a format of FORMATS.
            exact: whether rows are counted rather than estimated.
            json: whether --json was given, which stands for that format.

        Raises:
            UsageError: a section or format does not exist, or parameters do not go together.
        """
        if json and shown_as not in (None, "json"):
            raise UsageError(f"--json and --format={shown_as} are two answers", remedy="leave one out")
        shown_as = shown_as or ("json" if json else "table")
        if section is not None and section not in SECTIONS:
            raise UsageError(f"there is no section {section}", remedy=f"use one of: {', '.join(SECTIONS)}")
        if shown_as not in FORMATS:
            raise UsageError(f"there is no format {shown_as}", remedy=f"use one of: {', '.join(FORMATS)}")
        if table is not None and section is not None:
            raise UsageError("--table shows everything about one table, and takes no --section", remedy="leave one out")
        if shown_as == "mermaid" and section not in (None, "tables"):
            raise UsageError(f"mermaid draws tables, not {section}", remedy="use --format=table, json or markdown")
        return cls(table, schema, section, shown_as, exact)


@dataclass
class Inspection:
    """What a look has found. `about` is the database itself, `sections` name -> rows; `notes` are sentences to read first."""

    operation: str
    environment: str
    database: str
    target: str
    about: Row = field(default_factory=dict)
    sections: dict[str, list[Row]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """What was found as `--json` shows it."""
        shown = json_object(self.operation, self.environment, self.database, seconds=self.seconds, about=self.about)
        return shown | self.sections | ({"notes": self.notes} if self.notes else {})


def inspect(environment: Environment, wanted: Wanted) -> Inspection:
    """Look, in a transaction that PostgreSQL keeps read only and that sees one moment; one query for each kind of object.

    A database with another environment's stamp, or with none, is looked at too, and a note says so.

    Args:
        environment: whose database is looked at.
        wanted: what of it.

    Raises:
        UsageError: a table or schema does not exist.
        SkinspireError: what read_only_connection() raises.
    """
    started = time.monotonic()
    target = target_of(environment)
    with read_only_connection(target, "db.inspect") as connection:
        found = Inspection("db.inspect", target.environment, target.database, str(target), about(connection, target))
        note_the_stamp(connection, found)
        if wanted.schema is not None:
            _make_sure_of_schema(connection, wanted.schema, target)
        if wanted.table is not None:
            found.sections = _one_table(connection, target, wanted, found.notes)
        else:
            one = {wanted.section: SECTIONS[wanted.section]} if wanted.section else None
            chosen = DRAWN if wanted.format == "mermaid" else one or OVERVIEW
            found.sections = {name: rows(connection, query, schema=wanted.schema) for name, query in chosen.items()}
            if chosen is OVERVIEW and wanted.schema is None:
                state = without_waiting(connection, lambda: _state(connection, environment, found.notes))
                found.about |= state or {"revisions": None, "at_head": None, "triggers_state": None}
                if state is None:
                    found.notes.append(
                        "where migrations and triggers stand is not known: a session holds a table exclusively"
                    )
        if "tables" in found.sections:
            _mark_rows(connection, found, wanted)
        if "triggers" in found.sections:
            say_what_they_do(connection, environment, found)
    found.seconds = time.monotonic() - started
    return found


def rows(connection: Connection, query: str, **parameters: Any) -> list[Row]:
    """What one of the queries finds.

    Args:
        connection: an open connection to the database.
        query: one of `queries`.
        parameters: the query's; one that is not given is NULL.
    """
    from psycopg.rows import dict_row

    values = {"schema": None, "table": None, "tables": None} | parameters
    return search_path.rows(connection, query, values, row_factory=dict_row)


def without_waiting(connection: Connection, find: Callable[[], T]) -> T | None:
    """What the function finds, without waiting for a lock.

    Args:
        connection: the connection that the function uses.
        find: looks something up in the connection's transaction.

    Returns:
        What was found; None where another session holds a lock that it would wait for.
    """
    import psycopg

    [(usual,)] = connection.execute("SHOW lock_timeout").fetchall()
    try:
        with connection.transaction():
            connection.execute("SET LOCAL lock_timeout = '1ms'")  # 0 would be for ever
            found = find()
            connection.execute("SELECT set_config('lock_timeout', %s, true)", (usual,))
            return found
    except psycopg.errors.LockNotAvailable:
        return None


def about(connection: Connection, target: Target) -> Row:
    [about] = rows(connection, queries.ABOUT)
    stamped = stamp.read(connection)
    return about | {
        "host": target.host, "port": target.port, "embedded": target.server is not None,
        "stamp": {"environment": stamped.environment, "identity": stamped.identity} if stamped else None,
    }  # fmt: skip


def note_the_stamp(connection: Connection, found: Inspection) -> None:
    """Note which environment the database belongs to, when it is not the one that was asked for.

    Args:
        connection: an open connection to the database.
        found: gets the note.
    """
    stamped = stamp.read(connection)
    if stamped and stamped.environment != found.environment:
        found.notes.append(f"this database is stamped {stamped.environment}, not {found.environment}")
    elif stamped is None:
        found.notes.append(f"this database has no stamp: nothing says that it is {found.environment}'s")
    if stamped and stamped.masked:
        found.notes.append(f"this database is a masked copy of {stamped.masked}")


def _state(connection: Connection, environment: Environment, notes: list[str]) -> Row:
    """Where the database stands: its revisions, and whether its triggers are as the files say; None where none can tell."""
    at = position.current(connection, environment.project)
    state: Row = {"revisions": at, "at_head": None, "triggers_state": None}
    try:
        state["at_head"] = at == revisions.heads(environment.project)
        files = adopted.maintained(
            connection, environment.project, versions.current(environment.project, roles=tenant_roles.of(environment))
        )
        states = status.status(connection, files)
        wrong = [f"{each.file}, {each.object}: {each.state}" for each in states if not each.right]
        state["triggers_state"] = {"objects": len(states), "installed": len(states) - len(wrong), "wrong": wrong}
    except SkinspireError as error:
        notes.append(error.message)
    return state


def _make_sure_of_schema(connection: Connection, schema: str, target: Target) -> None:
    names = [name for (name,) in connection.execute("SELECT nspname FROM pg_namespace ORDER BY 1").fetchall()]
    if schema not in names:
        ours = [name for name in names if not name.startswith("pg_") and name != "information_schema"]
        raise UsageError(f"there is no schema {schema} in {target.database}", remedy=f"use one of: {_listed(ours)}")


# One table


def _one_table(connection: Connection, target: Target, wanted: Wanted, notes: list[str]) -> dict[str, list[Row]]:
    named = _find(connection, target, wanted)
    oid, is_view = named["oid"], named["kind"].endswith("view")
    if rows(connection, queries.HELD, table=oid):
        notes.append(f"a session holds {named['name']} exclusively: its size, defaults and definitions are not known now")
    keys = rows(connection, queries.FOREIGN_KEYS, table=oid)
    ends = [(key.pop("of"), key.pop("to")) for key in keys]
    if wanted.format == "mermaid":
        neighbours = list({oid}.union(*ends))
        return {"columns": rows(connection, queries.COLUMNS, tables=neighbours), "foreign_keys": keys}
    sections = {
        "views" if is_view else "tables": rows(connection, queries.VIEWS if is_view else queries.TABLES, table=oid),
        "columns": rows(connection, queries.COLUMNS, tables=[oid]),
        "constraints": rows(connection, queries.CONSTRAINTS, table=oid),
        "indexes": rows(connection, queries.INDEXES, table=oid),
        "referenced_by": [key for key, (_, referenced) in zip(keys, ends, strict=True) if referenced == oid],
        "triggers": rows(connection, queries.TRIGGERS, table=oid),
        "grants": rows(connection, queries.GRANTS, table=oid),
    }
    for row in (row for name in ("columns", "triggers", "grants") for row in sections[name]):
        row.pop("schema"), row.pop("table", None)  # they are all this one's
    if is_view:
        definition = without_waiting(connection, lambda: rows(connection, queries.DEFINITION, table=oid))
        sections["definition"] = definition or [{"definition": None}]
        if definition is None:
            notes.append("the view's definition is not known now: a session holds a table that it reads")
    return sections


def _find(connection: Connection, target: Target, wanted: Wanted) -> Row:
    """The one table or view of that name, also as schema.table. Raises UsageError when there is none, or several."""
    known = rows(connection, queries.NAMED, schema=wanted.schema)
    found = [row for row in known if row["name"] == wanted.table]
    found = found or [row for row in known if f"{row['schema']}.{row['name']}" == wanted.table]
    if len(found) == 1:
        return found[0]
    if found:
        schemas = [row["schema"] for row in found]
        raise UsageError(f"several schemas have a table {wanted.table}", remedy=f"add --schema=, one of: {_listed(schemas)}")
    names = [row["name"] for row in known]
    close = difflib.get_close_matches(wanted.table or "", names, n=LISTED, cutoff=0.5)
    there = f"use one of: {_listed(close or names)}" if names else f"invoke db.setup --env={target.environment}"
    where = f"the schema {wanted.schema} of {target.database}" if wanted.schema else target.database
    raise UsageError(f"there is no table {wanted.table} in {where}", remedy=there)


def _listed(names: list[str]) -> str:
    more = f", and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return ", ".join(names[:LISTED]) + more


# Rows, and what triggers do


def _mark_rows(connection: Connection, found: Inspection, wanted: Wanted) -> None:
    """Say of each number of rows whether it is an estimate; with `exact`, count. What cannot be counted is None."""
    tables = found.sections["tables"]
    if not wanted.exact:
        for row in tables:
            row["rows_estimated"] = True
        return
    named = {(row["schema"], row["table"]) for row in tables}
    countable = [(row["nspname"], row["relname"]) for row in rows(connection, queries.COUNTABLE, schema=wanted.schema)]
    counted = _count(connection, [each for each in countable if each in named])
    for row in tables:
        row["rows"], row["rows_estimated"] = counted.get((row["schema"], row["table"])), False


def _count(connection: Connection, tables: list[tuple[str, str]]) -> dict[tuple[str, str], int]:
    from psycopg import sql

    counted: dict[tuple[str, str], int] = {}
    for start in range(0, len(tables), COUNTED_AT_ONCE):
        part = tables[start : start + COUNTED_AT_ONCE]
        query = sql.SQL(" UNION ALL ").join(
            sql.SQL("SELECT {}::int, count(*) FROM {}").format(sql.Literal(number), sql.Identifier(*table))
            for number, table in enumerate(part)
        )
        counted |= {part[number]: rows for number, rows in connection.execute(query).fetchall()}
    return counted


def say_what_they_do(connection: Connection, environment: Environment, found: Inspection) -> None:
    """Add to each trigger the file that made it and that file's summary; else its function's comment.

    Args:
        connection: an open connection to the database.
        environment: whose SQL files are read.
        found: has the triggers in a section; a file that cannot be read gives it a note.
    """
    made = {
        (known.table, known.name): name
        for name, entry in ledger.read(connection).items()
        for known in entry.triggers.values()
    }
    try:
        summaries = {file.name: file.summary for file in versions.current(environment.project)}
    except SkinspireError as error:
        summaries = {}
        found.notes.append(error.message)
    for row in found.sections["triggers"]:
        file = made.get((row.pop("qualified"), row["trigger"]))
        comment = row.pop("comment")
        row |= {"file": file, "what": summaries.get(file or "", comment)}

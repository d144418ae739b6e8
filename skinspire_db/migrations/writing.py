"""Writing revisions: from the difference between models and database, and merges of two heads."""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db import catalogue, drift, schema
from skinspire_db.catalogue import Snapshot
from skinspire_db.errors import MigrationFailed, MigrationInvalid, UsageError
from skinspire_db.migrations import revisions, running, supplements
from skinspire_db.settings import Project

if TYPE_CHECKING:
    from alembic.operations.ops import MigrateOperation
    from alembic.script import ScriptDirectory

    from skinspire_db.connections import Connection


REWRITES = "a new type rewrites the table under a lock; for a large one add a column, copy in parts, and swap"
SCANS = "it reads the whole table under a lock, and fails where a row breaks it; add a large one NOT VALID, VALIDATE it later"
STATEMENTS = {  # of supplements
    r"^ALTER TABLE .* TYPE ": REWRITES,
    r"^ALTER TABLE .* ADD CONSTRAINT ": SCANS,
    r"^ALTER TABLE \S+ DROP (?!CONSTRAINT)": "what it holds is lost, though it is generated anew",
    r"^ALTER TABLE .* SET (UN)?LOGGED": "it rewrites the table under a lock",
    r"^ALTER TYPE .* RENAME TO ": "a label goes or moves: its columns are rewritten, and a row that has it makes it fail",
    r"^DROP (SEQUENCE|TYPE|DOMAIN)": "it is lost with its state",
}


@dataclass(frozen=True)
class Written:
    """A revision file that was written; `warnings` say what it loses or locks, what to do instead, what it does not do."""

    revision: str
    file: str
    changes: int
    warnings: list[str] = field(default_factory=list)


def new(connection: Connection, here: Project, message: str | None, expected: Snapshot, *, attempt: bool) -> Written | None:
    """Write a revision that makes the database what the models say, and what it is `expected` to be then in PostgreSQL's own
    words; None when it is that already.

    The database must be at the head. With `attempt` the revision is tried on it and taken back; nothing in it is changed.
    Raises UsageError without a message, MigrationInvalid for a database that is behind or ahead of the files, or two heads.
    """
    if not message or not message.strip():
        raise UsageError("migrate.new needs a message", remedy='invoke migrate.new -m "add appointments"')
    revisions.one_head(here)
    _folder(here)  # Alembic writes into none that it has not seen
    files = revisions.directory(here)
    refuse_behind(connection, files)
    with running.alchemy(connection) as alchemist:
        live = catalogue.snapshot(connection)
        with _reflected_as(live):
            script, context = _compare(alchemist, here, files, message.strip(), live)
        supplements.add(script, live, expected)
        changes = list(_flat(script.upgrade_ops.ops))
        if not changes:
            return None
        made = _generate(context, here)
    new_tables = {_place(op) for op in changes if type(op).__name__ == "CreateTableOp"}
    careful = [
        each for op in changes if "Drop" in type(op).__name__ or _place(op) not in new_tables for each in _warnings(op)
    ]
    if attempt:
        careful += _attempt(connection, here, made.revision, expected)
    return Written(made.revision, revisions.path(made, here), len(changes), careful)


def refuse_behind(connection: Connection, files: ScriptDirectory) -> None:
    """Raise MigrationInvalid when a revision is pending: the difference would hold what it brings."""
    if pending := running.next_up(connection, files, None):
        raise MigrationInvalid(
            f"the database is behind: {pending.revision} is pending", remedy="invoke migrate.upgrade --env={env}, then again"
        )


def _generate(context: Any, here: Project) -> Any:
    """Write the file; one that cannot be read again does not stay, where it would stop every command."""
    folder = Path(_folder(here))
    present = set(folder.glob("*.py"))
    try:
        [made] = context.generate_scripts()
    except Exception as error:
        for file in set(folder.glob("*.py")) - present:
            file.unlink()
        raise MigrationInvalid(f"the revision cannot be written: {error}", remedy="write it by hand") from None
    return made


def _place(op: Any) -> tuple[str | None, str | None]:
    """Schema and table of an operation."""
    return getattr(op, "schema", None), getattr(op, "table_name", None) or getattr(op, "source_table", None)


def _attempt(connection: Connection, here: Project, revision: str, expected: Snapshot) -> Iterator[str]:
    """Apply the revision, look whether it leads to what is expected, and take it back: only that proves it."""
    import psycopg

    files = revisions.directory(here)
    script, before = revisions.named(files, revision), catalogue.snapshot(connection)
    connection.execute("SAVEPOINT attempt")
    try:
        running.apply(connection, here, files, script)
        for each in remaining(connection, here, expected):
            yield f"not in this revision, add it by hand: {each}"
        running.apply(connection, here, files, script, down=True)
        for each in remaining(connection, here, before):
            yield f"not in its downgrade, add it by hand: {each}"
    except MigrationFailed as error:
        yield f"it fails on this database: {error.message}"
    except psycopg.errors.LockNotAvailable:
        yield "it was not tried: its tables are in use"
    connection.execute("ROLLBACK TO attempt")


def remaining(connection: Connection, here: Project, wanted: Snapshot) -> list[str]:
    """What still differs and no trigger file brings, which follow after every revision."""
    views = {schema.name_of(table) for table in schema.metadata(here).tables.values() if table.info.get("is_view")}
    found = drift.compare(catalogue.snapshot(connection), wanted, views)
    return [f"{each.kind} {each.name} {each.state}" for each in found if each.kind not in ("trigger", "function", "grant")]


def refuse_one_head(files: ScriptDirectory) -> None:
    """Raise UsageError when there are not several heads to join."""
    heads = files.get_heads()
    if len(heads) < 2:
        raise UsageError(
            f"there is one head, {heads[0] if heads else 'none'}: nothing to merge", remedy="invoke migrate.status"
        )


def merge(here: Project, files: ScriptDirectory, message: str | None) -> Written:
    """Write a revision that joins the heads, of which there are two or more."""
    from alembic.util import rev_id

    heads = files.get_heads()
    with revisions.refusals():
        made = files.generate_revision(
            rev_id(), message or f"merge {' and '.join(heads)}", head=heads, version_path=_folder(here), imports=""
        )
    assert made
    return Written(made.revision, revisions.path(made, here), 0)


def describe(op: MigrateOperation) -> str:
    """An operation in a few words."""
    words = type(op).__name__.removesuffix("Op")
    verb = "".join(f" {each.lower()}" if each.isupper() else each for each in words).strip()
    names = [getattr(op, name, None) for name in ("table_name", "column_name", "constraint_name", "index_name")]
    column = getattr(getattr(op, "column", None), "name", None)
    return " ".join([verb, ".".join(str(name) for name in (*names, column) if name)])


def _compare(alchemist: Any, here: Project, files: ScriptDirectory, message: str, live: Snapshot) -> tuple[Any, Any]:
    """Alembic's comparison of models and database: the revision script, and the context that can write it.

    What the snapshot does not have, partitions and extensions' tables, it does not see either.
    """
    from alembic.autogenerate.api import RevisionContext
    from alembic.config import Config
    from alembic.runtime.environment import EnvironmentContext

    models = schema.metadata(here)
    arguments = {
        "message": message, "sql": False, "head": "head", "splice": False, "branch_label": None, "rev_id": None,
        "version_path": _folder(here), "depends_on": None,
    }  # fmt: skip
    context = RevisionContext(Config(), files, arguments)

    def compare(heads: Any, migration: Any) -> list[Any]:
        context.run_autogenerate(heads, migration)
        return []

    views = {table.key for table in models.tables.values() if table.info.get("is_view")}
    schemas = {table.schema for table in models.tables.values()} | {None}
    present = {catalogue.plain(key) for key in live if key.startswith("table ")}

    def include(name: str | None, kind: str, parents: Any) -> bool:
        if kind == "schema":
            return name in schemas
        return kind != "table" or f"table {parents['schema_name'] or 'public'}.{name}" in present

    with EnvironmentContext(Config(), files, fn=compare) as environment:
        environment.configure(
            connection=alchemist,
            target_metadata=models,
            compare_type=False,  # two spellings of one type or default differ to it; the supplements compare PostgreSQL's own
            compare_server_default=False,
            render_item=_render,
            include_schemas=True,
            include_name=include,
            include_object=lambda thing, _name, kind, _reflected, _to: kind != "table" or _key(thing) not in views,
        )
        with warnings.catch_warnings(action="ignore"):  # of generated columns, which the supplements see to
            environment.run_migrations()
    return context.generated_revisions[0], context


@contextlib.contextmanager
def _reflected_as(live: Snapshot) -> Iterator[None]:
    """SQLAlchemy takes a column for NOT NULL when its domain is, a default's sequence for the schema of its table."""
    from sqlalchemy import Table, event

    def correct(_inspector: Any, table: Any, column: Any) -> None:
        found = supplements.find(live, "column", f"{table.schema or 'public'}.{table.name}.{column['name']}")
        facts = catalogue.properties(found)
        column["nullable"] = "not null" not in facts
        if column.get("default"):
            column["default"] = facts.get("default", column["default"])

    event.listen(Table, "column_reflect", correct)
    try:
        yield
    finally:
        event.remove(Table, "column_reflect", correct)


def _render(kind: str, thing: Any, context: Any) -> Any:
    """What Alembic writes otherwise than it would: a value that triggers make (FetchedValue) is no default."""
    from alembic.autogenerate.render import _repr_type
    from sqlalchemy import Computed, DefaultClause, Enum, FetchedValue, Identity
    from sqlalchemy.dialects.postgresql import DOMAIN

    if kind == "type" and isinstance(thing, DOMAIN):
        context.imports.add("from sqlalchemy.dialects import postgresql")
        of = f", schema={thing.schema!r}" if thing.schema else ""
        return f"postgresql.DOMAIN({thing.name!r}, {_repr_type(thing.data_type, context)}{of}, create_type=False)"
    if kind == "type" and isinstance(thing, Enum) and thing.native_enum and thing.name:
        context.imports.add("from sqlalchemy.dialects import postgresql")
        schema_name = f", schema={thing.schema!r}" if thing.schema else ""
        # The revision makes and drops the types itself: a table that is made does not know whether another has its type.
        return f"postgresql.ENUM({', '.join(map(repr, thing.enums))}, name={thing.name!r}{schema_name}, create_type=False)"
    if kind == "type" and not type(thing).__module__.startswith("sqlalchemy."):  # an application's own
        context.imports.add(f"import {type(thing).__module__}")
    made_elsewhere = isinstance(thing, FetchedValue) and not isinstance(thing, DefaultClause | Computed | Identity)
    return None if kind == "server_default" and made_elsewhere else False


def _key(table: Any) -> str:
    return str(table.key)


def _folder(here: Project) -> str:
    folder: Path = revisions.folders(here)[-1]
    folder.mkdir(parents=True, exist_ok=True)
    return str(folder)


def _flat(operations: list[Any]) -> Iterator[Any]:
    for op in operations:
        if hasattr(op, "ops"):
            yield from _flat(op.ops)
        else:
            yield op


def _warnings(op: Any) -> Iterator[str]:
    """What an operation loses or locks, and what to do instead."""
    what = describe(op)
    match type(op).__name__:
        case "DropTableOp" | "DropColumnOp":
            yield f"{what}: what it holds is lost; for a new name write op.rename_table or op.alter_column(new_column_name=)"
        case "AlterColumnOp" if op.modify_nullable is False:
            yield f"{what}: NOT NULL reads the whole table under a lock, and fails where a value is missing; fill it first"
        case "AddColumnOp" if not op.column.nullable and op.column.server_default is None and op.column.identity is None:
            yield f"{what}: NOT NULL without a default fails where the table has rows; add a server_default, or fill it first"
        case "CreateUniqueConstraintOp" | "CreateForeignKeyOp" | "CreateCheckConstraintOp":
            yield f"{what}: {SCANS}"
        case "ExecuteSQLOp":
            for pattern, warning in STATEMENTS.items():
                if re.search(pattern, op.sqltext):
                    yield f"{op.sqltext}: {warning}"
        case "CreateIndexOp":
            yield (
                f"{what}: the table cannot be written meanwhile; for a large one run CREATE INDEX CONCURRENTLY by hand first,"
                " and pass if_not_exists=True here"
            )

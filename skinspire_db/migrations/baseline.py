"""A baseline among the revisions: the schema as it was when a database was adopted, made in an empty database alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.catalog.definitions import plain
from skinspire_db.errors import MigrationInvalid
from skinspire_db.lifecycle.result import counted

if TYPE_CHECKING:
    from alembic.script import Script, ScriptDirectory

MARKER = "is_baseline"  # the variable that a baseline's file sets
# A body may use what pg_dump makes after it; the names in pg_dump's text are complete.
SETTINGS = "SET LOCAL check_function_bodies = off; SELECT pg_catalog.set_config('search_path', '', true)"


def is_baseline(script: Script) -> bool:
    """Whether a revision is a baseline."""
    return bool(getattr(script.module, MARKER, False))


def find(files: ScriptDirectory) -> Script | None:
    """The baseline among a project's revisions; None where there is none."""
    return next((script for script in files.walk_revisions() if is_baseline(script)), None)


def make(file: Path) -> None:
    """Run the schema of a baseline, for its upgrade().

    Args:
        file: the SQL beside the revision.

    Raises:
        MigrationInvalid: the database is not empty.
        psycopg.Error: what PostgreSQL refuses.
    """
    from alembic import op

    text = file.read_text(encoding="utf-8")
    context = op.get_context()
    if context.as_sql:
        context.impl.static_output(text)
        return
    connection: Any = op.get_bind().connection.driver_connection
    of_alembic = {name for schema, table in objects.version_tables(connection) for name in (schema, f"{schema}.{table}")}
    held = [name for _, name in objects.all_objects(connection) if plain(name) not in of_alembic]
    if held:
        raise MigrationInvalid(f"a baseline is made in an empty database, and this one holds {counted(len(held), 'object')}")
    former = connection.execute("SELECT pg_catalog.current_setting('search_path')").fetchone()
    connection.execute(SETTINGS)
    connection.execute(text.encode())
    connection.execute("SELECT pg_catalog.set_config('search_path', %s, true)", former)

"""What the models run with their tables: DDL, and functions that listen to before_create and after_create."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from skinspire_db.config.project import Project
from skinspire_db.errors import StepFailed
from skinspire_db.lifecycle import own_code
from skinspire_db.postgres.error_text import sentence
from skinspire_db.schema.alchemy import constraints_kept, over

if TYPE_CHECKING:
    from sqlalchemy import MetaData, Table

    from skinspire_db.postgres.connections import Connection

NAMES = ("before_create", "after_create")


def copy(source: Any, copied: Any, *, functions: bool = True) -> None:
    """Copy what is to be run with the tables, which to_metadata() leaves out; types bring their own events.

    Args:
        source: A MetaData or table.
        copied: Its copy.
        functions: Whether functions are copied, too; without them it is DDL alone, which can be written down.
    """
    from sqlalchemy import event
    from sqlalchemy.schema import ExecutableDDLElement

    for name in NAMES:
        present = list(getattr(copied.dispatch, name))
        for each in getattr(source.dispatch, name):
            wanted = isinstance(each, ExecutableDDLElement) or (functions and _is_function(each))
            if wanted and each not in present:
                event.listen(copied, name, each)


def has_functions(models: MetaData) -> bool:
    """Whether functions of the application listen to the creation of its tables: what they do is known when they are run."""
    return any(
        _is_function(each)
        for target in (models, *models.tables.values())
        for name in NAMES
        for each in getattr(target.dispatch, name)
    )


def create_all(connection: Connection, project: Project, models: MetaData, tables: list[Table], *, missing: bool) -> None:
    """Make the tables by SQLAlchemy's own create_all(), which calls these functions, in the pipeline's transaction.

    Args:
        connection: The database.
        project: Whose code is run.
        models: The models.
        tables: Those to make.
        missing: Types and sequences that are there are not made again.

    Raises:
        StepFailed: PostgreSQL refuses a statement, or a function fails.
    """

    def create(_: Connection) -> None:
        import sqlalchemy

        with over(connection) as alchemist, constraints_kept(models):
            # As in the statements that are written down: generated columns are stored.
            vars(alchemist.dialect)["supports_virtual_generated_columns"] = False
            try:
                for schema in sorted({table.schema for table in tables if table.schema}):
                    alchemist.execute(sqlalchemy.schema.CreateSchema(schema, if_not_exists=True))
                models.create_all(alchemist, tables=tables, checkfirst=missing)
            except sqlalchemy.exc.DBAPIError as error:
                statement = " ".join((error.statement or "").split())[:160]
                raise StepFailed(
                    f"{sentence(error.orig)}; the statement: {statement}; the database is as it was",  # type: ignore[arg-type]
                    remedy="correct the model, or the function that listens to its creation",
                ) from None

    own_code.run(create, "the models' functions for before_create and after_create", project, connection)


def _is_function(listener: Any) -> bool:
    """Whether a listener is the application's own; SQLAlchemy's make enums, domains and sequences."""
    from sqlalchemy.schema import ExecutableDDLElement

    while isinstance(listener, partial):  # as SQLAlchemy 2.1 makes of an enum's
        listener = listener.func
    origin = getattr(listener, "__module__", None) or type(listener).__module__
    return not isinstance(listener, ExecutableDDLElement) and not str(origin).startswith("sqlalchemy.")

"""What the models' defaults in Python give to rows that are there already, as SQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skinspire_db.config.project import Project
from skinspire_db.schema import models
from skinspire_db.schema.blueprint import dialect, name_of

if TYPE_CHECKING:
    from sqlalchemy import Column


def fills(project: Project) -> dict[str, str]:
    """The SQL literal of each column's default that is a plain value in Python, by the column's full name without quotes.

    A default that is a function of Python's has none: what it would give is known when a row is made.

    Raises:
        ModelsInvalid: as `models.metadata`.
    """
    found = {}
    for table in models.metadata(project).tables.values():
        for column in table.columns:
            literal = _literal(column) if column.server_default is None else None
            if literal is not None:
                found[f"{name_of(table)}.{column.name}"] = literal
    return found


def _literal(column: Column[Any]) -> str | None:
    import sqlalchemy

    if column.default is None or not column.default.is_scalar:
        return None
    value = getattr(column.default, "arg", None)
    try:
        return str(sqlalchemy.literal(value, column.type).compile(dialect=dialect(), compile_kwargs={"literal_binds": True}))
    except (sqlalchemy.exc.SQLAlchemyError, NotImplementedError, TypeError, ValueError):
        return None  # a type whose values have no literal in SQL

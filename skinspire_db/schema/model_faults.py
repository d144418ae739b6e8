"""Faults of models that PostgreSQL would refuse in the middle of an operation: all of them are named at once, beforehand."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from skinspire_db.errors import ModelsInvalid
from skinspire_db.lifecycle.result import counted

if TYPE_CHECKING:
    from sqlalchemy import ForeignKey, MetaData, Table

# Types of one kind can be compared by an index, so that one may refer to the other; of other types that is not known here.
KINDS = {
    "uuid": ("uuid",),
    "text": ("varchar", "char", "text", "character", "character varying"),
    "number": ("smallint", "integer", "bigint", "numeric", "decimal", "real", "double precision", "float"),
    "time": ("date", "timestamp", "timestamp without time zone", "timestamp with time zone"),
    "boolean": ("boolean",),
    "binary": ("bytea",),
}
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}


def refuse_loose_ends(models: MetaData) -> None:
    """Refuse foreign keys that cannot be made.

    Raises:
        ModelsInvalid: keys point to what no model defines, or to a column of another type; each with both columns.
    """
    missing, mistyped = [], []
    for table in models.tables.values():
        for key in sorted(table.foreign_keys, key=lambda each: each.parent.name):
            if lost := _lost(key):
                missing.append(lost)
            elif wrong := _mistyped(key):
                mistyped.append(wrong)
    remedies = ["correct the ForeignKey, or add the model's module to metadata in pyproject.toml"] if missing else []
    if mistyped:
        remedies.append("give each of those columns the type of the column that it points to")
    if faults := [*missing, *mistyped]:
        shown = "; ".join(faults) if len(faults) == 1 else f"{counted(len(faults), 'foreign key')}: {'; '.join(faults)}"
        raise ModelsInvalid(shown if len(faults) > 1 else f"the foreign key of {shown}", remedy="; ".join(remedies))


def refuse_tables_of_both(entries: Sequence[tuple[str, Any, MetaData]]) -> None:
    """Refuse tables that two entries of `metadata` define.

    Args:
        entries: the text of each entry, what it names, and its tables.

    Raises:
        ModelsInvalid: all such tables, each with both classes.
    """
    first: dict[str, tuple[str, Any, Table]] = {}
    twice, names = [], set()
    for entry, base, models in entries:
        for table in models.tables.values():
            if (before := first.setdefault(table.key, (entry, base, table)))[2] is not table:
                twice.append(f"{table.key} ({_place(*before)} and {_place(entry, base, table)})")
                names.add((before[0], entry))
    if twice:
        one, other = min(names)
        raise ModelsInvalid(
            f"{counted(len(twice), 'table', 'are', 'is')} defined twice: {', '.join(sorted(twice))}",
            remedy=f"if they are the application's own, leave {one if one != entries[-1][0] else other} out of metadata in"
            " pyproject.toml; to add to the other's tables, build on its classes; otherwise rename them",
        )


def _place(entry: str, base: Any, table: Table) -> str:
    """The class that a table is mapped to, or the entry that has it."""
    registry = getattr(base, "registry", None)
    for mapper in getattr(registry, "mappers", ()):
        if mapper.local_table is table:
            return f"{mapper.class_.__module__}.{mapper.class_.__qualname__}"
    return entry


def _lost(key: ForeignKey) -> str:
    """What is wrong with a foreign key whose column no model defines; SQLAlchemy looks for it when it is first needed."""
    from sqlalchemy import exc

    try:
        _ = key.column
    except exc.NoReferenceError as error:
        what = "column" if isinstance(error, exc.NoReferencedColumnError) else "table"
        return (
            f"column {key.parent.table.key}.{key.parent.name} points to {key.target_fullname}: no model defines that {what}"
        )
    return ""


def _mistyped(key: ForeignKey) -> str:
    types = [_type(column) for column in (key.parent, key.column)]
    kinds = [KIND_OF.get(re.sub(r"\s*\([^)]*\)", "", name)) for name in types]
    if None in kinds or kinds[0] == kinds[1]:
        return ""
    table, column = key.parent.table.key, key.parent.name
    return f"column {table}.{column}, a {types[0]}, points to {key.column.table.key}.{key.column.name}, a {types[1]}"


def _type(column: Any) -> str:
    from sqlalchemy import exc
    from sqlalchemy.dialects.postgresql import psycopg

    try:
        return str(column.type.compile(dialect=psycopg.dialect())).lower()  # type: ignore[no-untyped-call]
    except exc.SQLAlchemyError:  # it has none, which is told when its SQL is written
        return ""

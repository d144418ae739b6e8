"""Enums and domains that several revisions name: made by the first, used by the others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    import sqlalchemy

    from skinspire_db.postgres.connections import Connection

LIVE = """
    SELECT t.typtype::text, ARRAY(SELECT enumlabel FROM pg_enum WHERE enumtypid = t.oid),
           format_type(t.typbasetype, t.typtypmod)
    FROM pg_type t WHERE t.oid = to_regtype(%s)
"""


def reuse(alchemist: sqlalchemy.Connection, connection: Connection) -> None:
    """Make no type that is there already and can be what the revision means.

    A table or column that has an sa.Enum brings its CREATE TYPE, in every revision that names it. Alembic skips it within one
    run; here each revision is a run of its own.
    """
    from sqlalchemy import DDL, event
    from sqlalchemy.dialects.postgresql import CreateDomainType, CreateEnumType

    def instead(_: Any, element: Any, multiparams: Any, params: Any, _options: Any) -> tuple[Any, Any, Any]:
        if isinstance(element, CreateEnumType | CreateDomainType) and _is_there(
            connection, alchemist.dialect, element.element
        ):
            element = DDL("SELECT")  # type: ignore[no-untyped-call]
        return element, multiparams, params

    event.listen(alchemist, "before_execute", instead, retval=True)


def _is_there(connection: Connection, dialect: Any, kind: Any) -> bool:
    """An enum with at least these labels, or a domain of the same type."""
    live = search_path.rows(connection, LIVE, (dialect.identifier_preparer.format_type(kind),))
    if not live:
        return False
    found, labels, base = live[0]
    if hasattr(kind, "enums"):
        return bool(found == "e") and set(kind.enums) <= set(labels)
    [(wanted,)] = search_path.rows(
        connection, "SELECT format_type(to_regtype(%s), NULL)", (kind.data_type.compile(dialect=dialect),)
    )
    return bool(found == "d" and str(base).partition("(")[0] == wanted)

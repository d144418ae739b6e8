"""The schema skinspire_tools in every database of ours: stamp, journal, ledger, and the reference rows as applied."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

PARTS = ("stamp", "journal", "ledger", "reference")
EXISTS = f"SELECT count(to_regclass('skinspire_tools.' || part)) FROM unnest('{{{','.join(PARTS)}}}'::text[]) AS part"  # noqa: S608


def sql_folder() -> Path:
    """The folder sql/: inside the package when installed from a wheel, beside it in a checkout."""
    inside = Path(__file__).parent.parent / "sql"
    return inside if inside.is_dir() else Path(__file__).parent.parent.parent / "sql"


def exists(connection: Connection) -> bool:
    """Whether this database has the tables; false also for one that an older version only began."""
    return connection.execute(EXISTS.encode()).fetchone() == (len(PARTS),)


def read(connection: Connection, query: str, parts: tuple[str, ...] = PARTS) -> list[dict[str, Any]] | None:
    """The rows of a query on the tools' tables as JSON, in one round trip; None where the database has not got these tables.

    PostgreSQL looks at the text of a query before it runs any of it, and refuses one on tables that are not there. In a DO
    block it looks at it only where it comes to it.
    """
    there = " AND ".join(f"pg_catalog.to_regclass('skinspire_tools.{part}') IS NOT NULL" for part in parts)
    cursor = connection.execute(
        f"""
        DO $tools$
        DECLARE
            found pg_catalog.jsonb;
        BEGIN
            IF {there} THEN
                SELECT coalesce(pg_catalog.jsonb_agg(pg_catalog.to_jsonb(r)), '[]') INTO found FROM ({query}) AS r;
            END IF;
            PERFORM pg_catalog.set_config('skinspire.read', coalesce(found, 'null')::pg_catalog.text, true);
        END
        $tools$; SELECT pg_catalog.current_setting('skinspire.read')::pg_catalog.jsonb
        """.encode()  # noqa: S608
    )
    while cursor.description is None:
        cursor.nextset()
    row = cursor.fetchone()
    assert row
    found: list[dict[str, Any]] | None = row[0]
    return found


def ensure(connection: Connection) -> None:
    """Make the tables when they are missing or laid out by another version of the tools, in the caller's transaction."""
    layout = (sql_folder() / "bookkeeping.sql").read_bytes()
    mark = f"skinspire-db bookkeeping, layout {hashlib.sha256(layout).hexdigest()[:16]}"
    query = f"SELECT obj_description(to_regnamespace('skinspire_tools')::oid, 'pg_namespace'), ({EXISTS})"
    if connection.execute(query.encode()).fetchone() != (mark, len(PARTS)):
        connection.execute(layout + f"\n; COMMENT ON SCHEMA skinspire_tools IS '{mark}'".encode())


def forget(connection: Connection) -> None:
    """Empty what describes the application's objects and rows, which a reset has just dropped. Stamp and journal stay."""
    if exists(connection):
        ensure(connection)
        connection.execute(
            "DELETE FROM skinspire_tools.ledger; DELETE FROM skinspire_tools.reference;"
            "UPDATE skinspire_tools.stamp SET (masked_from, masked_at, masked_rules) = (NULL, NULL, NULL)"
        )

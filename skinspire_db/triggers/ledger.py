"""What the database knows: the ledger of installed files, its live functions and triggers, and the tables to attach to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from skinspire_db import bookkeeping
from skinspire_db.triggers.files import Attachment, TriggerFile

if TYPE_CHECKING:
    from skinspire_db.connections import Connection

Made = dict[str, dict[str, str]]  # "table trigger" -> its table, name, how it was made, definition


@dataclass(frozen=True)
class Entry:
    """A row of the ledger: a file as it was installed. `disabled_by` and `disabled_at` say who wished its triggers off."""

    version: int
    sha256: str
    functions: dict[str, str]
    triggers: Made
    disabled_by: str | None = None
    disabled_at: datetime | None = None


@dataclass(frozen=True)
class LiveTrigger:
    """A trigger as PostgreSQL has it. One that fires on replicas alone counts as disabled."""

    definition: str
    enabled: bool


def read(connection: Connection) -> dict[str, Entry]:
    """The entries by file name; none in a database that was never ours."""
    if not bookkeeping.exists(connection):
        return {}
    rows = connection.execute(
        # A ledger laid out by an earlier version of the tools lacks the last two.
        """
        SELECT name, version, sha256, functions, triggers, to_jsonb(ledger) ->> 'disabled_by',
               (to_jsonb(ledger) ->> 'disabled_at')::timestamptz
        FROM skinspire_tools.ledger
        """
    ).fetchall()
    return {name: Entry(*values) for name, *values in rows}


def write(connection: Connection, file: TriggerFile, functions: dict[str, str], triggers: Made) -> None:
    """Enter the file as installed now; a wish that its triggers be off stays."""
    connection.execute(
        """
        INSERT INTO skinspire_tools.ledger (name, version, sha256, functions, triggers) VALUES (%s, %s, %s, %s, %s)
        ON CONFLICT (name) DO UPDATE SET (version, sha256, functions, triggers, installed_at, installed_by)
            = (EXCLUDED.version, EXCLUDED.sha256, EXCLUDED.functions, EXCLUDED.triggers, now(), session_user)
        """,
        (file.name, file.version, file.sha256, json.dumps(functions), json.dumps(triggers)),
    )


def wish(connection: Connection, name: str, *, enabled: bool) -> None:
    """Record that the file's triggers are to be on, or off."""
    connection.execute(
        """
        UPDATE skinspire_tools.ledger SET disabled_by = CASE WHEN %(enabled)s THEN NULL ELSE session_user END,
               disabled_at = CASE WHEN %(enabled)s THEN NULL ELSE now() END
        WHERE name = %(name)s
        """,
        {"name": name, "enabled": enabled},
    )


def forget(connection: Connection, name: str) -> None:
    """Remove the file's entry."""
    connection.execute("DELETE FROM skinspire_tools.ledger WHERE name = %s", (name,))


def installed_now(connection: Connection) -> set[str]:
    """The files that this very transaction has entered."""
    rows = connection.execute("SELECT name FROM skinspire_tools.ledger WHERE installed_at = now()").fetchall()
    return {name for (name,) in rows}


def fingerprints(connection: Connection, signatures: Iterable[str]) -> dict[str, str]:
    """signature -> fingerprint of the definition, owner included, for the functions that exist."""
    return dict(
        connection.execute(
            """
            SELECT signature, md5(pg_get_functiondef(p.oid) || pg_get_userbyid(p.proowner))
            FROM unnest(%s::text[]) AS signature JOIN pg_proc p ON p.oid = to_regprocedure(signature)
            """,
            (sorted(signatures),),
        ).fetchall()
    )


def definitions(connection: Connection, signatures: Iterable[str]) -> dict[str, str]:
    """signature -> CREATE FUNCTION statement and owner, for the functions that exist."""
    return dict(
        connection.execute(
            """
            SELECT signature, pg_get_functiondef(p.oid) || '-- owner: ' || pg_get_userbyid(p.proowner)
            FROM unnest(%s::text[]) AS signature JOIN pg_proc p ON p.oid = to_regprocedure(signature)
            """,
            (sorted(signatures),),
        ).fetchall()
    )


def live_triggers(connection: Connection) -> dict[tuple[str, str], LiveTrigger]:
    """(table, trigger) -> all triggers that are not PostgreSQL's own."""
    return {
        (table, name): LiveTrigger(definition, enabled)
        for table, name, definition, enabled in connection.execute(
            """
            SELECT format('%I.%I', n.nspname, c.relname), t.tgname, pg_get_triggerdef(t.oid), t.tgenabled IN ('O', 'A')
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE NOT t.tgisinternal AND t.tgparentid = 0
            """
        ).fetchall()
    }


def wanted(connection: Connection, file: TriggerFile) -> dict[str, tuple[str, Attachment]]:
    """The triggers that the file should have in this database, by "table trigger": the table, and how to attach."""
    return {
        f"{table} {attachment.trigger}": (table, attachment)
        for attachment in file.attachments
        for table in _tables(connection, attachment)
    }


def _tables(connection: Connection, attachment: Attachment) -> list[str]:
    """The tables that an attachment belongs on, those that exist now, as schema.table, quoted."""
    return [
        table
        for (table,) in connection.execute(
            """
            SELECT format('%%I.%%I', n.nspname, c.relname)
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(a.attname::text), '{}') AS columns FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            ) AS has
            WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'skinspire_tools')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                              AND d.deptype = 'e')
              AND (%(tables)s::text[] = '{}' OR c.relname = ANY (%(tables)s))
              AND c.relname <> ALL (%(exclude)s)
              AND has.columns @> %(columns)s::text[] AND NOT has.columns && %(without)s::text[]
            ORDER BY 1
            """,
            {name: list(getattr(attachment, name)) for name in ("tables", "exclude", "columns", "without")},
        ).fetchall()
    ]

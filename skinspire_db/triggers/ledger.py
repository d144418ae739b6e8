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
    """A trigger as PostgreSQL has it. One that fires on replicas alone, or not on every partition, counts as disabled."""

    definition: str
    enabled: bool
    function: str


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
        (table, name): LiveTrigger(*values)
        for table, name, *values in connection.execute(
            """
            SELECT format('%I.%I', n.nspname, c.relname), t.tgname, pg_get_triggerdef(t.oid),
                   t.tgenabled IN ('O', 'A') AND NOT EXISTS (
                       SELECT FROM pg_trigger part WHERE part.tgparentid = t.oid AND part.tgenabled NOT IN ('O', 'A')),
                   t.tgfoid::regprocedure::text
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            WHERE NOT t.tgisinternal AND t.tgparentid = 0
            """
        ).fetchall()
    }


@dataclass(frozen=True)
class Wanted:
    """A trigger that a file should have on `table`, which is quoted; `arguments` are the table's generated columns."""

    table: str
    attachment: Attachment
    arguments: tuple[str, ...]

    @property
    def how(self) -> str:
        """How it is to be made, in words that change when it must be made anew."""
        condition = f"WHEN ({self.attachment.condition}) " if self.attachment.condition else ""
        arguments = f" {list(self.arguments)}" if self.arguments else ""
        return f"{self.attachment.when} {condition}{self.attachment.function}{arguments}"

    def statement(self, connection: Connection) -> str:
        """The CREATE TRIGGER statement."""
        from psycopg import sql

        condition = f"WHEN ({self.attachment.condition}) " if self.attachment.condition else ""
        return (
            sql.SQL("CREATE OR REPLACE TRIGGER {} {} ON {} FOR EACH ROW {}EXECUTE FUNCTION {}({})")
            .format(
                sql.Identifier(self.attachment.trigger), sql.SQL(self.attachment.when), sql.SQL(self.table),
                sql.SQL(condition), sql.Identifier(self.attachment.function),
                sql.SQL(", ").join(map(sql.Literal, self.arguments)),
            )
            .as_string(connection)
        )  # fmt: skip


def wanted(connection: Connection, file: TriggerFile) -> dict[str, Wanted]:
    """The triggers that the file should have in this database, by "table trigger"."""
    return {
        f"{table} {attachment.trigger}": Wanted(table, attachment, tuple(generated))
        for attachment in file.attachments
        for table, generated in _tables(connection, attachment)
    }


def qualified(table: str) -> str:
    """A table as a header names it, with its schema."""
    return table if "." in table else f"public.{table}"


def _tables(connection: Connection, attachment: Attachment) -> list[tuple[str, list[str]]]:
    """The tables that an attachment belongs on, those that exist now, as schema.table, quoted; with generated columns."""
    named = {"tables": [qualified(table) for table in attachment.tables]}
    lists = {name: list(getattr(attachment, name)) for name in ("exclude", "columns", "types", "without")}
    return [
        (table, generated)
        for table, generated in connection.execute(
            """
            SELECT format('%%I.%%I', n.nspname, c.relname), has.generated
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(a.attname::text), '{}') AS columns,
                       coalesce(array_agg(a.attname::text) FILTER (WHERE attgenerated <> ''), '{}') AS generated,
                       coalesce(array_agg(a.attname::text) FILTER (WHERE %(types)s::text[] = '{}'
                                OR format_type(a.atttypid, NULL) = ANY (%(types)s)), '{}') AS fitting
                FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            ) AS has
            WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition
              AND n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'skinspire_tools')
              AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                              AND d.deptype = 'e')
              AND (%(tables)s::text[] = '{}' OR n.nspname || '.' || c.relname = ANY (%(tables)s))
              AND c.relname <> ALL (%(exclude)s)
              AND has.fitting @> %(columns)s::text[] AND NOT has.columns && %(without)s::text[]
            ORDER BY 1
            """,
            named | lists,
        ).fetchall()
    ]

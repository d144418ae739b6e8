"""What the database knows: the ledger of installed files, its live functions and triggers, and the tables to attach to."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.lifecycle import tool_schema
from skinspire_db.objects.files import Attachment, SqlFile
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection


# A ledger laid out by an earlier version of the tools lacks the last two columns, whose names then mean these.
FROM_LEDGER = """
    FROM (SELECT NULL::text AS disabled_by, NULL::timestamptz AS disabled_at) AS of_earlier_versions, LATERAL (
        SELECT name, version, sha256, functions, triggers, disabled_by, disabled_at FROM skinspire_tools.ledger) AS ledger
"""


@dataclass(frozen=True)
class MadeTrigger:
    """A trigger or policy as it was attached: on which table (quoted), how it was asked for, and as PostgreSQL then had it.

    `shape` is a fingerprint of all that the definition is printed from, empty in ledgers of earlier tools.
    """

    table: str
    name: str
    how: str
    definition: str
    shape: str = ""

    @property
    def of_policy(self) -> bool:
        """Whether it is a policy, or the row security of a table, as `policies` has them."""
        return self.how.startswith("POLICY ")

    @classmethod
    def of(cls, wanted: Wanted, live: LiveTrigger | None) -> MadeTrigger:
        """The trigger that is wanted, as it is now."""
        definition, shape = (live.definition, live.shape) if live else ("", "")
        return cls(wanted.table, wanted.attachment.trigger, wanted.how, definition, shape)


@dataclass(frozen=True)
class Entry:
    """A row of the ledger: a file as it was installed. `functions` are the fingerprints of its functions and views by name.

    `disabled_by` and `disabled_at` say who wished its triggers off.
    """

    version: int
    sha256: str
    functions: dict[str, str]
    triggers: dict[str, MadeTrigger]
    disabled_by: str | None = None
    disabled_at: datetime | None = None


@dataclass(frozen=True)
class LiveTrigger:
    """A trigger as PostgreSQL has it. One that fires on replicas alone, or not on every partition, counts as disabled.

    `shape` is a fingerprint of all that its definition is printed from.
    """

    definition: str
    enabled: bool
    function: str
    shape: str


def read(connection: Connection) -> dict[str, Entry]:
    """The entries by file name; none in a database that was never ours."""
    return {
        row["name"]: Entry(
            row["version"], row["sha256"], row["functions"],
            {key: MadeTrigger(**each) for key, each in row["triggers"].items()},
            row["disabled_by"], row["disabled_at"] and datetime.fromisoformat(row["disabled_at"]),
        )
        for row in tool_schema.read(connection, f"SELECT ledger.* {FROM_LEDGER}") or ()
    }  # fmt: skip


def installed_at(connection: Connection) -> dict[str, datetime]:
    """When each file was installed, and proved, last."""
    if not tool_schema.exists(connection):
        return {}
    return dict(connection.execute("SELECT name, installed_at FROM skinspire_tools.ledger").fetchall())


def switched_off(connection: Connection) -> dict[str, bool]:
    """The files that are installed, and whether their triggers are switched off on purpose."""
    if not tool_schema.exists(connection):
        return {}
    return dict(connection.execute(f"SELECT ledger.name, ledger.disabled_by IS NOT NULL {FROM_LEDGER}".encode()).fetchall())


def write(connection: Connection, files: Iterable[tuple[SqlFile, dict[str, str], dict[str, MadeTrigger]]]) -> None:
    """Enter files as installed now, with their functions and triggers; a wish that a file's triggers be off stays."""
    if not (rows := [
        (file.name, file.version, file.sha256, json.dumps(functions), json.dumps(triggers, default=vars))
        for file, functions, triggers in files
    ]):  # fmt: skip
        return
    connection.execute(
        """
        INSERT INTO skinspire_tools.ledger (name, version, sha256, functions, triggers)
        SELECT name, version, sha256, functions::jsonb, triggers::jsonb
        FROM unnest(%s::text[], %s::int[], %s::text[], %s::text[], %s::text[])
             AS f (name, version, sha256, functions, triggers)
        ON CONFLICT (name) DO UPDATE SET (version, sha256, functions, triggers, installed_at, installed_by)
            = (EXCLUDED.version, EXCLUDED.sha256, EXCLUDED.functions, EXCLUDED.triggers, now(), session_user)
        """,
        tuple(map(list, zip(*rows, strict=True))),
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


def live_triggers(connection: Connection, entries: Iterable[Entry] = ()) -> dict[tuple[str, str], LiveTrigger]:
    """(table, trigger) -> all triggers that are not PostgreSQL's own.

    To print a condition PostgreSQL opens the table, and waits for a session that holds it exclusively. So a trigger whose
    shape is still the one in `entries` has the definition that is there.
    """
    known = [(key, made.shape, made.definition) for entry in entries for key, made in entry.triggers.items() if made.shape]
    return {
        (table, name): LiveTrigger(*values)
        for table, name, *values in search_path.rows(
            connection,
            """
            SELECT at.quoted, t.tgname,
                   CASE WHEN known.definition IS NOT NULL THEN known.definition ELSE pg_get_triggerdef(t.oid) END,
                   t.tgenabled IN ('O', 'A') AND NOT EXISTS (
                       SELECT FROM pg_trigger part WHERE part.tgparentid = t.oid AND part.tgenabled NOT IN ('O', 'A')),
                   t.tgfoid::regprocedure::text, has.shape
            FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL (SELECT format('%%I.%%I', n.nspname, c.relname)) AS at (quoted)
            CROSS JOIN LATERAL (
                SELECT md5(row(t.tgtype, t.tgattr, t.tgargs, t.tgqual, t.tgconstrrelid, t.tgdeferrable, t.tginitdeferred,
                               t.tgoldtable, t.tgnewtable, t.tgfoid::regprocedure::text,
                               array_agg(a.attname::text ORDER BY a.attnum))::text)
                FROM pg_depend d JOIN pg_attribute a ON a.attrelid = d.refobjid AND a.attnum = d.refobjsubid
                WHERE d.classid = 'pg_trigger'::regclass AND d.objid = t.oid AND d.refclassid = 'pg_class'::regclass
                  AND d.refobjsubid > 0
            ) AS has (shape)
            LEFT JOIN unnest(%s::text[], %s::text[], %s::text[]) AS known (key, shape, definition)
                ON known.key = at.quoted || ' ' || t.tgname AND known.shape = has.shape
            WHERE NOT t.tgisinternal AND t.tgparentid = 0
            """,
            tuple([each[part] for each in known] for part in range(3)),
        )
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
        each = "STATEMENT" if self.attachment.when.upper().endswith("TRUNCATE") else "ROW"  # it has no rows
        return (
            sql.SQL("CREATE OR REPLACE TRIGGER {} {} ON {} FOR EACH {} {}EXECUTE FUNCTION {}({})")
            .format(
                sql.Identifier(self.attachment.trigger), sql.SQL(self.attachment.when), sql.SQL(self.table),
                sql.SQL(each), sql.SQL(condition), sql.Identifier(*self.attachment.function.split(".")),
                sql.SQL(", ").join(map(sql.Literal, self.arguments)),
            )
            .as_string(connection)
        )  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table that triggers may be attached to: `columns` are name -> type, `generated` those that PostgreSQL computes.

    A view or foreign table, `by_name`, has a trigger only where a file names it.
    """

    schema: str
    name: str
    quoted: str
    columns: dict[str, str]
    generated: tuple[str, ...]
    by_name: bool = False
    lengths: dict[str, int] = field(default_factory=dict)

    def suits(self, attachment: Attachment, named: list[str]) -> bool:
        """Whether the attachment belongs on it; `named` are its tables with their schema."""
        return (
            (f"{self.schema}.{self.name}" in named if named or self.by_name else True)
            and self.name not in attachment.exclude
            and all(
                column in self.columns
                and (not attachment.types or self.columns[column] in attachment.types)
                and self.lengths.get(column, attachment.length) >= attachment.length
                for column in attachment.columns
            )
            and not any(column in self.columns for column in attachment.without)
        )


def tables(connection: Connection) -> list[Table]:
    """The tables and views that exist now, but extensions', the tools' own, and partitions, which get their parent's."""
    return [
        Table(schema, name, quoted, dict(zip(columns, types, strict=True)), tuple(generated), by_name, lengths)
        for schema, name, quoted, columns, types, generated, by_name, lengths in connection.execute(
            f"""
            SELECT n.nspname, c.relname, format('%I.%I', n.nspname, c.relname), has.columns, has.types, has.generated,
                   c.relkind IN ('v', 'f'), has.lengths
            FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
            CROSS JOIN LATERAL (
                SELECT coalesce(array_agg(a.attname::text ORDER BY a.attnum), '{{}}') AS columns,
                       coalesce(array_agg(format_type(a.atttypid, NULL) ORDER BY a.attnum), '{{}}') AS types,
                       coalesce(array_agg(a.attname::text) FILTER (WHERE attgenerated <> ''), '{{}}') AS generated,
                       coalesce(jsonb_object_agg(a.attname, a.atttypmod - 4)
                           FILTER (WHERE a.atttypmod > 4 AND a.atttypid = 'varchar'::regtype), '{{}}') AS lengths
                FROM pg_attribute a
                WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
            ) AS has
            WHERE c.relkind IN ('r', 'p', 'v', 'f') AND NOT c.relispartition AND {objects.RELATION}
            ORDER BY 3
            """.encode()  # noqa: S608
        ).fetchall()
    ]


def wanted(among: list[Table], file: SqlFile) -> dict[str, Wanted]:
    """The triggers that the file should have on these tables, by "table trigger"."""
    found: dict[str, Wanted] = {}
    for attachment in file.attachments:
        named = [qualified(table) for table in attachment.tables]
        for table in among:
            if table.suits(attachment, named):
                found[f"{table.quoted} {attachment.trigger}"] = Wanted(table.quoted, attachment, table.generated)
    return found


def qualified(table: str) -> str:
    """A table as a header names it, with its schema."""
    return table if "." in table else f"public.{table}"

"""What an SQL file needs of a database, and whether the database has it: a file whose needs are not met is not applicable."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import objects
from skinspire_db.errors import NotApplicable, SqlFileInvalid
from skinspire_db.patterns import lazy_regex

if TYPE_CHECKING:
    from skinspire_db.objects.files import SqlFile
    from skinspire_db.postgres.connections import Connection

NAME = r"[A-Za-z_][A-Za-z0-9_$]*"
TABLE = lazy_regex(rf"(?:{NAME}\.)?{NAME}")
EXTENSION = lazy_regex(r"extension ([A-Za-z_][A-Za-z0-9_-]*)")
# locked_until timestamptz   hospital_id uuid null   created_at default   user_id -> users cascade
COLUMN = lazy_regex(
    rf"(?P<column>{NAME})(?: (?P<type>text|integer|uuid|boolean|timestamptz|jsonb))?(?: (?P<rule>default|null))?"
    rf"(?: -> (?P<target>(?:{NAME}\.)?{NAME})(?P<cascade> cascade)?)?"
)
UNIQUE = lazy_regex(rf"unique \((?P<columns>{NAME}(?:, {NAME})*)\)")
TYPES = {  # a need's word -> what PostgreSQL calls the types that meet it
    "text": ("text", "character varying", "character", "citext"),
    "integer": ("smallint", "integer", "bigint"),
    "timestamptz": ("timestamp with time zone",),
}
FORM = 'write needs = { users = ["locked_until timestamptz"], user_sessions = ["user_id -> users cascade"] }'
QUERY = """
    SELECT wanted.name, CASE WHEN wanted.extension THEN e.oid IS NOT NULL ELSE c.oid IS NOT NULL END,
           coalesce(c.relkind IN ('v', 'm'), false),
           coalesce((SELECT jsonb_object_agg(a.attname, jsonb_build_array(
                   format_type(coalesce(nullif(t.typbasetype, 0), a.atttypid), NULL), a.attnotnull,
                   a.atthasdef OR a.attidentity <> '' OR t.typdefault IS NOT NULL))
               FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
               WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped), '{}'),
           coalesce((SELECT jsonb_agg((SELECT jsonb_agg(a.attname ORDER BY a.attname)
                   FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (i.indkey::int2[])))
               FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique AND i.indisvalid AND i.indpred IS NULL
                                 AND i.indexprs IS NULL AND i.indnkeyatts = i.indnatts), '[]'),
           coalesce((SELECT jsonb_agg(jsonb_build_array(
                   (SELECT a.attname FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = k.conkey[1]),
                   tn.nspname || '.' || tc.relname, k.confdeltype = 'c'))
               FROM pg_constraint k JOIN pg_class tc ON tc.oid = k.confrelid JOIN pg_namespace tn ON tn.oid = tc.relnamespace
               WHERE k.conrelid = c.oid AND k.contype = 'f' AND cardinality(k.conkey) = 1), '[]')
    FROM unnest(%s::text[], %s::text[], %s::text[], %s::bool[]) AS wanted (name, schema, relation, extension)
    LEFT JOIN pg_namespace n ON n.nspname = wanted.schema
    LEFT JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = wanted.relation AND c.relkind IN ('r', 'p', 'v', 'f', 'm')
    LEFT JOIN pg_extension e ON wanted.extension AND e.extname = wanted.relation
"""
# Which of these columns each table of the application's has.
HAVING = f"""
    SELECT array_agg(a.attname::text) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
    JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attname = ANY (%s) AND c.relkind IN ('r', 'p', 'f', 'v')
      AND {objects.RELATION}
    GROUP BY c.oid
"""  # noqa: S608


@dataclass(frozen=True)
class Needs:
    """What a file needs of one table, as its header says it, or an extension.

    Attributes:
        name: The table with its schema, or "extension NAME".
        items: What it needs of the table, in the words of the header.
    """

    name: str
    items: tuple[str, ...] = ()

    @property
    def shown(self) -> str:
        """The name as people write it."""
        return self.name.removeprefix("public.")


@dataclass(frozen=True)
class Lack:
    """What a database lacks for a file: a phrase for each thing.

    Attributes:
        things: The phrases, such as "no column users.locked_until".
        no_table: None of the tables that the file needs exists.
    """

    things: tuple[str, ...]
    no_table: bool

    def __str__(self) -> str:
        """The first three phrases, and how many more there are."""
        more = f"; and {len(self.things) - 3} more" if len(self.things) > 3 else ""
        return "; ".join(self.things[:3]) + more


def read_needs(path: Path, given: dict[str, Any], line: int) -> tuple[Needs, ...]:
    """The header's key `needs`.

    Args:
        path: The file.
        given: What the key has: table -> list of needs.
        line: The line of the key.

    Returns:
        The needs, one for each table.

    Raises:
        SqlFileInvalid: With file and line, for what cannot be understood.
    """
    found = []
    for name, items in given.items():
        wrong = not isinstance(items, list) or not (TABLE.fullmatch(name) or (EXTENSION.fullmatch(name) and not items))
        bad = [] if wrong else [each for each in items if not isinstance(each, str) or not _understood(each)]
        if wrong or bad:
            raise SqlFileInvalid(
                f"{path}:{line}: needs of {name}: {bad[0] if bad else items!r} is not understood", remedy=FORM
            )
        plain = "." in name or EXTENSION.fullmatch(name)
        found.append(Needs(name if plain else f"public.{name}", tuple(items)))
    return tuple(found)


def _understood(item: str) -> bool:
    return bool(COLUMN.fullmatch(item) or UNIQUE.fullmatch(item))


def lacks(connection: Connection, files: Iterable[SqlFile]) -> dict[str, Lack]:
    """What the database lacks for these files, read from its catalogue in one query.

    Args:
        connection: The database.
        files: The files.

    Returns:
        The name of each file that is not applicable, and what it lacks; one that goes by columns may lack a table with
        them.
    """
    files = list(files)
    return _without_tenants(connection, files) | _without_tables(connection, files) | _unmet(connection, files)


def _without_tenants(connection: Connection, files: list[SqlFile]) -> dict[str, Lack]:
    """The policy files where tenancy is off, or where no table has the columns that they go by."""
    found = {}
    for file in (each for each in files if each.policies):
        if file.roles is None:
            found[file.name] = Lack(("tenancy is off; tenancy = true in pyproject.toml turns it on",), no_table=True)
        elif not any(each.tables for each in file.policies):
            sets = [set(each.columns) for each in file.policies]
            names = sorted(set().union(*sets))
            tables = [set(columns) for (columns,) in connection.execute(HAVING.encode(), (names,)).fetchall()]
            if not any(columns <= table for columns in sets for table in tables):
                found[file.name] = Lack((f"no table has the column {', '.join(names)}",), no_table=True)
    return found


def _without_tables(connection: Connection, files: list[SqlFile]) -> dict[str, Lack]:
    """The trigger files that go by columns which no table has: there is nothing that they could do."""
    by_columns = [
        file for file in files if file.attachments and all(each.columns and not each.tables for each in file.attachments)
    ]
    names = sorted({name for file in by_columns for each in file.attachments for name in each.columns})
    if not names:
        return {}
    tables = [set(columns) for (columns,) in connection.execute(HAVING.encode(), (names,)).fetchall()]
    found = {}
    for file in by_columns:
        sets = [set(each.columns) for each in file.attachments]
        if not any(columns <= table for columns in sets for table in tables):
            fewest = [columns for columns in sets if not any(other < columns for other in sets)]
            wanted = " or ".join(dict.fromkeys(", ".join(sorted(columns)) for columns in fewest))
            found[file.name] = Lack((f"no table has the column{'s' if ',' in wanted else ''} {wanted}",), no_table=True)
    return found


def _unmet(connection: Connection, files: list[SqlFile]) -> dict[str, Lack]:
    """The files of whose `needs` the database lacks something."""
    names = sorted({each.name for file in files for each in file.needs})
    if not names:
        return {}
    extension = [bool(EXTENSION.fullmatch(name)) for name in names]
    schemas = ["" if is_one else name.partition(".")[0] for name, is_one in zip(names, extension, strict=True)]
    relations = [
        name.partition(" ")[2] if is_one else name.partition(".")[2] for name, is_one in zip(names, extension, strict=True)
    ]
    rows = connection.execute(QUERY.encode(), (names, schemas, relations, extension)).fetchall()
    live = {name: _Live(*values) for name, *values in rows}
    found = {}
    for file in files:
        whole = [f"no {each.shown}" if EXTENSION.fullmatch(each.name) else f"no table {each.shown}"
                 for each in file.needs if not live[each.name].exists]  # fmt: skip
        parts = [
            lack for each in file.needs if live[each.name].exists for item in each.items
            if (lack := live[each.name].lack(each.shown, item))
        ]  # fmt: skip
        parts += [f"{each.shown} is a view" for each in file.needs if live[each.name].view and each.name in _fired_on(file)]
        if whole or parts:
            some = any(live[each.name].exists for each in file.needs if not EXTENSION.fullmatch(each.name))
            found[file.name] = Lack((*whole, *parts), not some)
    return found


def _fired_on(file: SqlFile) -> set[str]:
    """The tables, with their schema, on which the file has triggers that a view cannot have."""
    named = (table for each in file.attachments if not each.when.upper().startswith("INSTEAD") for table in each.tables)
    return {table if "." in table else f"public.{table}" for table in named}


def applicable(connection: Connection, files: list[SqlFile]) -> list[SqlFile]:
    """The files whose needs the database meets.

    Args:
        connection: The database.
        files: The files that the project installs.

    Returns:
        Those of them that are applicable, in their order.

    Raises:
        NotApplicable: A file that is demanded is not applicable.
    """
    found = lacks(connection, files)
    for file in files:
        if file.name in found and demanded(file, found[file.name]):
            required = "required_triggers names it" if file.required else "it belongs to the core's tables"
            raise NotApplicable(
                f"{file.name} is not applicable, and {required}: {found[file.name]}",
                remedy=f'correct the tables, or leave it out: disabled_triggers = ["{file.name}"] in pyproject.toml',
            )
    return [file for file in files if file.name not in found]


def demanded(file: SqlFile, lack: Lack) -> bool:
    """Whether it is an error that the file is not applicable: it is required, or the core's own tables are cut short."""
    return file.required or (file.core and not lack.no_table)


@dataclass(frozen=True)
class _Live:
    """A table, or extension, as the database has it.

    Attributes:
        exists: Whether it is there.
        view: Whether it is a view.
        columns: name -> its type, whether it is NOT NULL, whether it has a default.
        keys: The columns of its unique keys, sorted.
        targets: Column, table that its foreign key points to, whether that cascades.
    """

    exists: bool
    view: bool
    columns: dict[str, tuple[str, bool, bool]]
    keys: list[list[str]]
    targets: list[tuple[str, str, bool]]

    def lack(self, table: str, item: str) -> str:
        """What the table lacks for this need, as a phrase; empty where it lacks nothing."""
        if unique := UNIQUE.fullmatch(item):
            columns = sorted(unique["columns"].split(", "))
            return "" if columns in self.keys else f"no unique key on {table} ({unique['columns']})"
        need = COLUMN.fullmatch(item)
        assert need
        column, target = need["column"], need["target"]
        if column not in self.columns:
            return f"no column {table}.{column}"
        of_type, not_null, default = self.columns[column]
        if need["type"] and of_type not in TYPES.get(need["type"], (need["type"],)):
            return f"{table}.{column} is {of_type}, not {need['type']}"
        if need["rule"] == "default" and not default:
            return f"{table}.{column} has no default"
        if need["rule"] == "null" and not_null:
            return f"{table}.{column} is NOT NULL"
        if target:
            qualified = target if "." in target else f"public.{target}"
            keys = [cascades for name, to, cascades in self.targets if (name, to) == (column, qualified)]
            if not keys:
                return f"no foreign key from {table}.{column} to {target}"
            if need["cascade"] and not any(keys):
                return f"the foreign key from {table}.{column} to {target} has no ON DELETE CASCADE"
        return ""

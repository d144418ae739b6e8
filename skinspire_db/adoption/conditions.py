"""The part of the report that looks at rows: those that a rule of the models would refuse, references, sequences, passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from skinspire_db.adoption.subject import Subject, listed
from skinspire_db.catalog import objects
from skinspire_db.catalog.definitions import plain, split
from skinspire_db.catalog.fields import Column, each, head
from skinspire_db.lifecycle.result import Summary, counted
from skinspire_db.patterns import lazy_regex

if TYPE_CHECKING:
    from collections.abc import Iterable

LIST = r'((?:"(?:[^"]|"")+"|[^",()]+)(?:, (?:"(?:[^"]|"")+"|[^",()]+))*)'
FOREIGN_KEY = lazy_regex(rf"FOREIGN KEY \({LIST}\) REFERENCES (.+?)\({LIST}\)")
UNIQUE = lazy_regex(rf"(UNIQUE|PRIMARY KEY)( NULLS NOT DISTINCT)? \({LIST}\)")
CHECK = lazy_regex(r"CHECK (\(.*\))(?: NO INHERIT)?(?: NOT VALID)?", re.DOTALL)
UNIQUE_INDEX = lazy_regex(r"CREATE UNIQUE INDEX .* ON .*? USING btree \(([^()]+)\)(?: WHERE (.*))?", re.DOTALL)

NO_PRIMARY_KEY = f"""
    SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND {objects.RELATION}
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = c.oid AND k.contype = 'p') ORDER BY 1
"""
# What stands in the way of another type: views and generated columns that read the column.
READERS = f"""
    SELECT format('%I.%I.%I', n.nspname, c.relname, a.attname), coalesce(v.oid::regclass::text, 'generated column ' || g.attname)
    FROM pg_depend d JOIN pg_class c ON c.oid = d.refobjid JOIN pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_attribute a ON (a.attrelid, a.attnum) = (d.refobjid, d.refobjsubid)
    LEFT JOIN pg_rewrite r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid LEFT JOIN pg_class v ON v.oid = r.ev_class
    LEFT JOIN pg_attrdef e ON d.classid = 'pg_attrdef'::regclass AND e.oid = d.objid
    LEFT JOIN pg_attribute g ON (g.attrelid, g.attnum) = (e.adrelid, e.adnum) AND g.attgenerated <> ''
    WHERE d.refclassid = 'pg_class'::regclass AND d.refobjsubid > 0 AND coalesce(v.oid, g.attrelid) IS NOT NULL AND {objects.RELATION}
    GROUP BY 1, 2 ORDER BY 1, 2
"""


def columns(subject: Subject) -> Summary:
    """Columns without a default in the database, new ones that rows need a value for, types that are held fast."""
    bare = _without_default(subject)
    needed: list[str] = []
    held: dict[str, dict[str, Any]] = {}
    readers: dict[str, list[str]] = {}
    for name, reader in subject.rows(READERS):
        readers.setdefault(name, []).append(reader)
    for difference in subject.differences:
        if difference.kind != "column":
            continue
        column = subject.expected.get(f"column {difference.name}")
        if difference.state == "missing" and isinstance(column, Column) and _needs_value(column):
            if subject.count(f"SELECT count(*) FROM (SELECT FROM {split(difference.name)[0]} LIMIT 1) AS found"):
                needed.append(difference.name)
        elif "type" in difference.what:
            types = f"{head(subject.live[f'column {difference.name}'])}, the models say {head(column)}"
            held[difference.name] = {"types": types, "readers": readers.get(difference.name, [])}
    lines = listed("NOT NULL with a default in Python alone, which triggers, psql and COPY do not see", bare)
    lines += listed("new columns that are NOT NULL and have no default, on tables with rows", needed)
    lines += listed(
        "other types", (f"{name} is {held[name]['types']}{_held_by(held[name]['readers'])}" for name in sorted(held))
    )
    lines.append("adopting changes no column; for these write the revision by hand: a default, or an UPDATE first")
    data = {"without_default": bare, "new_not_null": needed, "types": held}
    numbers: dict[str, int | str] = {"without_default": len(bare), "new_not_null": len(needed), "types": len(held)}
    return Summary(numbers, lines, data={"columns": data})


def _held_by(readers: Any) -> str:
    return f" (read by {', '.join(readers)})" if readers else ""


def _needs_value(column: Column) -> bool:
    return column.not_null and not (column.default or column.generated or column.identity)


def _without_default(subject: Subject) -> list[str]:
    """The columns that are NOT NULL in the database and have their default in Python only."""
    live = {plain(name): column for name, column in each(subject.live, Column)}
    names = [f"{table}.{column}" for table, columns in subject.wanted.python_defaults.items() for column in columns]
    return sorted(name for name in names if name in live and _needs_value(live[name]))


def keys(subject: Subject) -> Summary:
    """Tables without a primary key."""
    found = [name for (name,) in subject.rows(NO_PRIMARY_KEY)]
    lines = listed("without a primary key", found)
    lines += ["adopting leaves them so; whether one is needed is the owner's decision"] if found else []
    return Summary({"without_primary_key": len(found)}, lines, data={"without_primary_key": found})


def rows_in_the_way(subject: Subject) -> Summary:
    """Rows that a rule which only the models have would refuse."""
    found: list[dict[str, Any]] = []
    unknown = []
    for rule, query in _rules(subject):
        number = subject.count(query)
        if number is None:
            unknown.append(rule)
        elif number:
            found.append({"rule": rule, "rows": number})
    lines = [f"{one['rule']}: {counted(one['rows'], 'row')}" for one in found]
    lines += listed("could not be counted", unknown)
    lines += ["adopting changes no row; correct them before a revision adds the rule"] if found else []
    data = {"rows_in_the_way": found, "rows_not_counted": unknown}
    return Summary({"rules": len(found), "rows": sum(one["rows"] for one in found)}, lines, data=data)


def _rules(subject: Subject) -> Iterator[tuple[str, str]]:
    """Each rule of the models that the database has not got, and the query that counts the rows against it."""
    for difference in subject.differences:
        key = f"{difference.kind} {difference.name}"
        wanted = subject.expected.get(key)
        if wanted is None:
            continue
        if difference.kind == "column" and "not null" in difference.what and isinstance(wanted, Column) and wanted.not_null:
            table, column = split(difference.name)
            yield f"{difference.name} NOT NULL", f"SELECT count(*) FROM {table} WHERE {column} IS NULL"
        elif difference.kind in ("constraint", "index"):
            name, _, table = difference.name.rpartition(" on ")
            if query := _against(table, head(wanted)):
                yield f"{name} on {table}: {head(wanted)}", query


def _against(table: str, definition: str) -> str:
    """The query that counts the rows of a table against a constraint or unique index; "" where there is none to ask."""
    if found := FOREIGN_KEY.match(definition):
        return _orphans(table, found[1].split(", "), found[2], found[3].split(", "))
    if found := UNIQUE.match(definition):
        return _repeated(table, found[3], "", nulls=bool(found[2]))
    if found := CHECK.fullmatch(definition):
        return f"SELECT count(*) FROM {table} WHERE NOT {found[1]}"
    if found := UNIQUE_INDEX.fullmatch(definition):
        return _repeated(table, found[1], found[2] or "", nulls=False)
    return ""


def _repeated(table: str, columns: str, condition: str, *, nulls: bool) -> str:
    conditions = [f"({condition})"] if condition else []
    conditions += [] if nulls else [f"{column} IS NOT NULL" for column in columns.split(", ")]
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    groups = f"SELECT count(*) AS number FROM {table} {where} GROUP BY {columns} HAVING count(*) > 1"
    return f"SELECT coalesce(sum(number), 0) FROM ({groups}) AS repeated"


def _orphans(table: str, columns: Iterable[str], other: str, keys: Iterable[str]) -> str:
    pairs = list(zip(columns, keys, strict=True))
    given = " AND ".join(f"f.{column} IS NOT NULL" for column, _ in pairs)
    same = " AND ".join(f"p.{key} = f.{column}" for column, key in pairs)
    return f"SELECT count(*) FROM {table} AS f WHERE {given} AND NOT EXISTS (SELECT FROM {other} AS p WHERE {same})"

"""Statements for enums and domains."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from skinspire_db.catalog import fields
from skinspire_db.catalog.definitions import plain, split
from skinspire_db.catalog.fields import Column, Snapshot, Type, head

MOVES = "a label goes or moves, or is used at once: its columns are rewritten, and a row that has one that goes makes it fail"
Sql = list[tuple[str, str]]  # statements, each with what is risky about it


@dataclass
class Change:
    """What comes `first`, before columns change, and `last`; the constraints and indexes that are `in_the_way` of it."""

    first: Sql = field(default_factory=list)
    last: Sql = field(default_factory=list)
    in_the_way: list[str] = field(default_factory=list)


def change(name: str, before: Type | None, after: Type | None, source: Snapshot, target: Snapshot) -> Change:
    """From one definition of a type to another, of which one may be None; nothing for kinds that models cannot say."""
    one = before or after
    if one and one.kind == "domain":
        return _domain(name, before, after)
    if one is None or one.kind != "enum":
        return Change()
    if not after:
        return Change(last=[_drop("TYPE", name)])
    labels = ", ".join(after.labels)
    if not before:
        return Change(first=[(f"CREATE TYPE {name} AS ENUM ({labels})", "")])
    now, then = list(before.labels), list(after.labels)
    if [label for label in then if label in now] == now and not _are_used(name, set(then) - set(now), source, target):
        return Change(first=[(sql, "") for sql in _more_labels(name, now, then)])
    return _other_labels(name, labels, source, target)


def _drop(what: str, name: str) -> tuple[str, str]:
    return f"DROP {what} {name}", f"DROP {what} {name}: it is lost with its state"


def _are_used(name: str, labels: set[str], source: Snapshot, target: Snapshot) -> bool:
    """Whether an object of the same revision uses a new label: PostgreSQL allows that only after the commit."""
    said = [f"{label}::{name.removeprefix('public.')}" for label in labels]
    return any(source.get(key) != it and any(each in str(it) for each in said) for key, it in target.items())


def _more_labels(name: str, now: list[str], then: list[str]) -> list[str]:
    places = [f" AFTER {former}" for former in then[:-1]]
    places.insert(0, f" BEFORE {now[0]}" if now else "")
    return [f"ALTER TYPE {name} ADD VALUE {each}{place}" for each, place in zip(then, places, strict=True) if each not in now]


def _other_labels(name: str, labels: str, source: Snapshot, target: Snapshot) -> Change:
    """By way of a new type: a label can be added in place, but neither removed nor moved."""
    schema, short = split(name)
    aside = f"{plain(short).encode()[:50].decode(errors='ignore')}_before".replace('"', '""')
    rename = f'ALTER TYPE {name} RENAME TO "{aside}"'
    found = Change([(rename, f"{rename}: {MOVES}"), (f"CREATE TYPE {name} AS ENUM ({labels})", "")])
    for table, column, many, default in _columns_of(name, source, target):
        alter = f"ALTER TABLE {table} ALTER COLUMN {column}"
        found.first += [(f"{alter} DROP DEFAULT", "")] if default else []
        found.first.append((f"{alter} TYPE {name}{many} USING {column}::text{many}::{name}{many}", ""))
        stays = fields.column(target, f"{table}.{column}").default == default
        found.first += [(f"{alter} SET DEFAULT {default}", "")] if default and stays else []
    found.last.append((f'DROP TYPE {schema}."{aside}"', ""))
    for key, definition in source.items():
        kind, _, rest = key.partition(" ")
        stays = f"table {rest.rpartition(' on ')[2]}" in target
        of_it = f"::{name.removeprefix('public.')}" in str(definition)
        if kind in ("constraint", "index") and stays and of_it and head(target.get(key)) == definition.head:
            found.in_the_way.append(key)  # one that differs is made anew in any case
    return found


def _columns_of(name: str, source: Snapshot, target: Snapshot) -> list[tuple[str, str, str, str]]:
    """Table, column, "[]" for an array, and default of the columns that have the type on both sides."""
    short = name.removeprefix("public.")
    found = []
    for full, column in fields.each(source, Column):
        same = f"column {full}" in target and fields.column(target, full).type == column.type
        if same and column.type.removesuffix("[]") in (short, name):
            many = "[]" if column.type.endswith("[]") else ""
            found.append((*split(full), many, column.default or ""))
    return sorted(found)


def _domain(name: str, before: Type | None, after: Type | None) -> Change:
    if not after:
        return Change(last=[_drop("DOMAIN", name)])
    if not before:
        return Change(first=[(f"CREATE DOMAIN {name} AS {str(after).removeprefix('domain ')}", "")])
    return Change(last=[(f"ALTER DOMAIN {name} {each}", "") for each in _domain_changes(before, after)])


def _domain_changes(before: Type, after: Type) -> Iterator[str]:
    """Nothing for another type or collation, which no statement changes."""
    if (before.text, before.collation) != (after.text, after.collation):
        return
    for constraint, check in before.constraints:
        if (constraint, check) not in after.constraints:
            yield f"DROP CONSTRAINT {constraint}"
    if before.default != after.default:
        yield f"SET DEFAULT {after.default}" if after.default else "DROP DEFAULT"
    if before.not_null != after.not_null:
        yield f"{'SET' if after.not_null else 'DROP'} NOT NULL"
    for constraint, check in after.constraints:
        if (constraint, check) not in before.constraints:
            yield f"ADD CONSTRAINT {constraint} {check}"

"""Statements for enums and domains."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from skinspire_db.catalog.definitions import Snapshot, head, plain, properties, split

LABEL = re.compile(r"'(?:[^']|'')*'")
MOVES = "a label goes or moves, or is used at once: its columns are rewritten, and a row that has one that goes makes it fail"
Sql = list[tuple[str, str]]  # statements, each with what is risky about it


@dataclass
class Change:
    """What comes `first`, before columns change, and `last`; the constraints and indexes that are `in_the_way` of it."""

    first: Sql = field(default_factory=list)
    last: Sql = field(default_factory=list)
    in_the_way: list[str] = field(default_factory=list)


def change(name: str, before: str, after: str, source: Snapshot, target: Snapshot) -> Change:
    """From one definition of a type to another, of which one may be empty; nothing for kinds that models cannot say."""
    kind = (before or after).partition(" ")[0]
    if kind == "domain":
        return _domain(name, before, after)
    if kind != "enum":
        return Change()
    if not before:
        return Change(first=[(f"CREATE TYPE {name} AS ENUM ({after.removeprefix('enum ')})", "")])
    if not after:
        return Change(last=[_drop("TYPE", name)])
    now, then = LABEL.findall(before), LABEL.findall(after)
    if [label for label in then if label in now] == now and not _are_used(name, set(then) - set(now), source, target):
        return Change(first=[(sql, "") for sql in _more_labels(name, now, then)])
    return _other_labels(name, after.removeprefix("enum "), source, target)


def _drop(what: str, name: str) -> tuple[str, str]:
    return f"DROP {what} {name}", f"DROP {what} {name}: it is lost with its state"


def _are_used(name: str, labels: set[str], source: Snapshot, target: Snapshot) -> bool:
    """Whether an object of the same revision uses a new label: PostgreSQL allows that only after the commit."""
    said = [f"{label}::{name.removeprefix('public.')}" for label in labels]
    return any(source.get(key) != text and any(each in text for each in said) for key, text in target.items())


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
        stays = properties(target[f"column {table}.{column}"]).get("default") == default
        found.first += [(f"{alter} SET DEFAULT {default}", "")] if default and stays else []
    found.last.append((f'DROP TYPE {schema}."{aside}"', ""))
    for key, definition in source.items():
        kind, _, rest = key.partition(" ")
        stays = f"table {rest.rpartition(' on ')[2]}" in target
        of_it = f"::{name.removeprefix('public.')}" in definition
        if kind in ("constraint", "index") and stays and of_it and head(target.get(key, "")) == head(definition):
            found.in_the_way.append(key)  # one that differs is made anew in any case
    return found


def _columns_of(name: str, source: Snapshot, target: Snapshot) -> list[tuple[str, str, str, str]]:
    """Table, column, "[]" for an array, and default of the columns that have the type on both sides."""
    short = name.removeprefix("public.")
    found = []
    for key, definition in source.items():
        if key.startswith("column ") and properties(target.get(key, ""))["is"] == (facts := properties(definition))["is"]:
            many = "[]" if facts["is"].endswith("[]") else ""
            if facts["is"].removesuffix("[]") in (short, name):
                found.append((*split(key.removeprefix("column ")), many, facts.get("default", "")))
    return sorted(found)


def _domain(name: str, before: str, after: str) -> Change:
    if not before:
        return Change(first=[(f"CREATE DOMAIN {name} AS {after.removeprefix('domain ')}", "")])
    if not after:
        return Change(last=[_drop("DOMAIN", name)])
    return Change(last=[(f"ALTER DOMAIN {name} {each}", "") for each in _domain_changes(before, after)])


def _domain_changes(before: str, after: str) -> Iterator[str]:
    """Nothing for another type or collation, which no statement changes."""
    now, then = set(before.splitlines()), set(after.splitlines())
    drops = {"default": "DROP DEFAULT", "not": "DROP NOT NULL", "constraint": "DROP CONSTRAINT {}"}
    gone = [drops.get(line.split()[0], "").format(*line.split()[1:2]) for line in sorted(now - then)]
    made = [f"{'ADD' if line.startswith('constraint') else 'SET'} {line}" for line in sorted(then - now)]
    if all(gone) and not any(line.startswith(("SET collate", "SET domain")) for line in made):
        yield from (*gone, *made)

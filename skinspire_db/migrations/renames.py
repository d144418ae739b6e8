"""Objects that differ only in their names are renamed, and not dropped and made again.

A table that was renamed keeps the old names of its constraints, indexes and sequences: those are renamed, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from skinspire_db.catalog.definitions import split
from skinspire_db.catalog.fields import Column, Definition, Snapshot


@dataclass
class Renamed:
    """The statements, and the source as it is after them."""

    source: Snapshot
    statements: list[str] = field(default_factory=list)


def find(source: Snapshot, target: Snapshot) -> Renamed:
    """The objects of the source that are in the target under another name."""
    found = Renamed(dict(source))
    for kind, same in (("type", _type), ("sequence", _sequence), ("constraint", _attached), ("index", _attached)):
        gone = [key for key in sorted(found.source.keys() - target.keys()) if key.startswith(f"{kind} ")]
        for key in sorted(target.keys() - found.source.keys()):
            if key.startswith(f"{kind} "):
                match = next((old for old in gone if same(old, found.source[old], key, target[key])), None)
                if match is not None:
                    gone.remove(match)
                    _rename(found, kind, match, key)
    return found


def _type(_old: str, before: Any, _new: str, after: Any) -> bool:
    return before == after and before.kind in ("enum", "domain")


def _sequence(_old: str, before: Any, _new: str, after: Any) -> bool:
    """A column's own sequence: other sequences that look the same cannot be told apart."""
    return before == after and bool(before.owned_by or before.identity_of)


def _attached(old: str, before: Definition, new: str, after: Definition) -> bool:
    """A constraint or an index of one table; an index's definition has its name in it."""
    names = [re.sub(r"^\w+ ", "", each).rpartition(" on ") for each in (old, new)]
    before, after = (_indexed(each, name, "") for each, (name, _, _) in zip((before, after), names, strict=True))
    return names[0][2] == names[1][2] and before == after


def _indexed(definition: Definition, old: str, new: str) -> Definition:
    """The definition of an index under another name."""
    return definition.mapped(lambda text: text.replace(f"INDEX {old} ON", f"INDEX {new} ON", 1))


def _rename(found: Renamed, kind: str, old: str, new: str) -> None:
    was, becomes = old.removeprefix(f"{kind} "), new.removeprefix(f"{kind} ")
    definition = found.source.pop(old)
    if kind in ("constraint", "index"):
        was, _, table = was.rpartition(" on ")
        becomes = becomes.rpartition(" on ")[0]
        definition = _indexed(definition, was, becomes)
        what = f"TABLE {table} RENAME CONSTRAINT {was}" if kind == "constraint" else f"INDEX {split(table)[0]}.{was} RENAME"
        found.statements.append(f"ALTER {what} TO {becomes}")
    else:
        (schema, _), (there, name) = split(was), split(becomes)
        what = "DOMAIN" if definition.head.startswith("domain ") else kind.upper()
        if split(was)[1] != name:
            found.statements.append(f"ALTER {what} {was} RENAME TO {name}")
        if schema != there:
            found.statements.append(f"ALTER {what} {schema}.{name} SET SCHEMA {there}")
        swap = _in_types(was, becomes) if kind == "type" else _in_defaults(was, becomes)
        found.source = {key: swap(each) for key, each in found.source.items()}
    found.source[new] = definition


def _in_types(was: str, becomes: str) -> Callable[[Definition], Definition]:
    """The type's new name in a definition; PostgreSQL leaves public out."""
    one, other = was.removeprefix("public."), becomes.removeprefix("public.")
    cast = re.compile(rf"(?<=::){re.escape(one)}(?![\w.\"])")

    def swap(definition: Definition) -> Definition:
        found = definition.mapped(lambda text: cast.sub(lambda _: other, text))
        if isinstance(found, Column) and found.type.removesuffix("[]") == one:
            return replace(found, type=other + found.type.removeprefix(one))
        return found

    return swap


def _in_defaults(was: str, becomes: str) -> Callable[[Definition], Definition]:
    """The sequence's new name in the defaults that draw from it."""
    one, other = (f"nextval('{each.removeprefix('public.')}'::regclass)" for each in (was, becomes))
    return lambda definition: definition.mapped(lambda text: text.replace(one, other))

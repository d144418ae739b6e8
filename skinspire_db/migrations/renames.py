"""Objects that differ only in their names are renamed, and not dropped and made again.

A table that was renamed keeps the old names of its constraints, indexes and sequences: those are renamed, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from skinspire_db.catalog.definitions import Snapshot, properties, split


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


def _type(_old: str, before: str, _new: str, after: str) -> bool:
    return before == after and before.startswith(("enum ", "domain "))


def _sequence(_old: str, before: str, _new: str, after: str) -> bool:
    """A column's own sequence: other sequences that look the same cannot be told apart."""
    return before == after and any(each in properties(before) for each in ("owned by", "identity"))


def _attached(old: str, before: str, new: str, after: str) -> bool:
    """A constraint or an index of one table; an index's definition has its name in it."""
    names = [re.sub(r"^\w+ ", "", each).rpartition(" on ") for each in (old, new)]
    before, after = (
        text.replace(f"INDEX {name} ON", "INDEX ON", 1) for text, (name, _, _) in zip((before, after), names, strict=True)
    )
    return names[0][2] == names[1][2] and before == after


def _rename(found: Renamed, kind: str, old: str, new: str) -> None:
    was, becomes = old.removeprefix(f"{kind} "), new.removeprefix(f"{kind} ")
    definition = found.source.pop(old)
    if kind in ("constraint", "index"):
        was, _, table = was.rpartition(" on ")
        becomes = becomes.rpartition(" on ")[0]
        definition = definition.replace(f"INDEX {was} ON", f"INDEX {becomes} ON", 1)
        what = f"TABLE {table} RENAME CONSTRAINT {was}" if kind == "constraint" else f"INDEX {split(table)[0]}.{was} RENAME"
        found.statements.append(f"ALTER {what} TO {becomes}")
    else:
        (schema, _), (there, name) = split(was), split(becomes)
        what = "DOMAIN" if definition.startswith("domain ") else kind.upper()
        if split(was)[1] != name:
            found.statements.append(f"ALTER {what} {was} RENAME TO {name}")
        if schema != there:
            found.statements.append(f"ALTER {what} {schema}.{name} SET SCHEMA {there}")
        swap = _in_types(was, becomes) if kind == "type" else _in_defaults(was, becomes)
        found.source = {key: swap(text) for key, text in found.source.items()}
    found.source[new] = definition


def _in_types(was: str, becomes: str) -> Callable[[str], str]:
    """PostgreSQL leaves public out."""
    one, other = was.removeprefix("public."), becomes.removeprefix("public.")
    pattern = re.compile(rf"(?:^|(?<=::)){re.escape(one)}(?![\w.\"])")
    return lambda text: pattern.sub(lambda _: other, text)


def _in_defaults(was: str, becomes: str) -> Callable[[str], str]:
    one, other = (f"nextval('{each.removeprefix('public.')}'::regclass)" for each in (was, becomes))
    return lambda text: text.replace(one, other)

"""What Alembic's comparison does not see, or sees where it is not.

Both sides are in PostgreSQL's own words: so are the statements, and the way back is the same with the sides swapped.
"""

from __future__ import annotations

import contextlib
import graphlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from skinspire_db.catalogue import Snapshot, properties, split


@dataclass(frozen=True)
class Supplement:
    """SQL that is run `before` and `after` Alembic's own operations, unless one of those has this `name`."""

    name: str
    before: list[str] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def add(script: Any, live: Snapshot, wanted: Snapshot) -> None:
    """Make Alembic's revision script lead from the live database to the wanted one: what is the same in both is left out,
    what it missed is put in, and both ways are in an order that runs.
    """
    _leave_out_what_is_the_same(script.upgrade_ops.ops, live, wanted)
    done = set(_names(script.upgrade_ops.ops))
    _foreign_keys_first(script)
    _referring_tables_first(script, live)
    script.upgrade_ops.reverse_into(script.downgrade_ops)
    _surround(script.upgrade_ops.ops, [each for each in _lead(live, wanted) if each.name not in done])
    _surround(script.downgrade_ops.ops, [each for each in _lead(wanted, live) if each.name not in done])
    new = [key.removeprefix("schema ") for key in sorted(wanted.keys() - live.keys()) if key.startswith("schema ")]
    _surround(script.downgrade_ops.ops, [Supplement(name, after=[f"DROP SCHEMA {name}"]) for name in new])


def _surround(operations: list[Any], supplements: list[Supplement]) -> None:
    from alembic.operations.ops import ExecuteSQLOp

    before, after = (
        [ExecuteSQLOp(sql) for each in supplements for sql in getattr(each, when)] for when in ("before", "after")
    )
    operations[:] = [*before, *operations, *after]


def _leave_out_what_is_the_same(operations: list[Any], live: Snapshot, wanted: Snapshot) -> None:
    """Alembic compares two spellings of a type or default, and two of an index's expressions: they can mean the same."""
    for group in list(operations):
        inner = getattr(group, "ops", None)
        if inner is not None:
            _leave_out_what_is_the_same(inner, live, wanted)
            if not inner:
                operations.remove(group)
        elif type(group).__name__ == "AlterColumnOp":
            _confirm(group, live, wanted)
            if not group.has_changes():
                operations.remove(group)
        elif name := getattr(group, "index_name", None) or getattr(group, "constraint_name", None):
            kind = "index" if hasattr(group, "index_name") else "constraint"
            here = [find(side, kind, f"{name} on {_table(group)}") for side in (live, wanted)]
            if here[0] and here[0] == here[1]:
                operations.remove(group)


def _confirm(alteration: Any, live: Snapshot, wanted: Snapshot) -> None:
    """Take from an alteration what does not differ, and an identity that is only changed: Alembic would add it again."""
    from sqlalchemy import Identity

    name = f"{_table(alteration)}.{alteration.column_name}"
    now, then = (properties(find(side, "column", name)) for side in (live, wanted))
    if all(now.get(each) == then.get(each) for each in ("is", "collate")):
        alteration.modify_type = None
    if all(now.get(each) == then.get(each) for each in ("default", "identity", "generated")):
        alteration.modify_server_default = False
    if isinstance(alteration.modify_server_default, Identity) and isinstance(alteration.existing_server_default, Identity):
        alteration.modify_server_default = False


def _names(operations: list[Any]) -> Iterator[str]:
    """What Alembic sees to itself: as the supplements are named that would do the same."""
    for operation in operations:
        yield from _names(getattr(operation, "ops", []))
        for kind in ("index", "constraint"):
            if name := getattr(operation, f"{kind}_name", None):
                yield f"{kind} {name}"
        if type(operation).__name__ == "AlterColumnOp":
            name = f"{_table(operation)}.{operation.column_name}"
            if operation.modify_type is not None:
                yield f"type {name}"
            if operation.modify_server_default is not False:
                yield f"default {name}"


def _table(operation: Any) -> str:
    if hasattr(operation, "source_table"):  # a foreign key
        return f"{operation.kw.get('source_schema') or 'public'}.{operation.source_table}"
    return f"{operation.schema or 'public'}.{operation.table_name}"


def _plain(name: str) -> str:
    """A name as Alembic has it, without PostgreSQL's quotes."""
    return name.replace('""', "\0").replace('"', "").replace("\0", '"')


def find(side: Snapshot, kind: str, plain: str) -> str:
    """The definition of what has that plain name."""
    quick = side.get(f"{kind} {plain}")
    return quick if quick is not None else next(
        (each for key, each in side.items() if key.startswith(f"{kind} ") and _plain(key) == f"{kind} {plain}"), ""
    )  # fmt: skip


def _foreign_keys_first(script: Any) -> None:
    """Alembic drops tables before the foreign keys of those that stay; the way back is the reverse of the way there."""
    operations = script.upgrade_ops.ops
    dropped = []
    for group in operations:
        for operation in list(getattr(group, "ops", [])):
            if type(operation).__name__ == "DropConstraintOp" and operation.constraint_type == "foreignkey":
                group.ops.remove(operation)
                dropped.append(operation)
    script.upgrade_ops.ops[:] = [*dropped, *(each for each in operations if getattr(each, "ops", True))]


def _referring_tables_first(script: Any, live: Snapshot) -> None:
    """Alembic drops tables in no order; the way back makes them in the reverse of this one."""
    operations = script.upgrade_ops.ops
    drops = {_table(each): each for each in operations if type(each).__name__ == "DropTableOp"}
    referring: dict[str, set[str]] = {table: set() for table in drops}
    for key, definition in live.items():
        table = _plain(key.rpartition(" on ")[2])
        if key.startswith("constraint ") and table in drops and (found := re.search(r" REFERENCES (.+?)\(", definition)):
            referenced = _plain(found[1] if "." in found[1] else f"public.{found[1]}")
            if referenced in drops and referenced != table:
                referring[referenced].add(table)
    with contextlib.suppress(graphlib.CycleError):  # tables that refer to each other: the revision needs a hand
        ordered = [drops[table] for table in graphlib.TopologicalSorter(referring).static_order()]
        operations[:] = [each for each in operations if each not in ordered] + ordered


def _lead(source: Snapshot, target: Snapshot) -> list[Supplement]:
    """What leads from one side to the other, of the kinds that are known here; the same tables are on both."""
    stay = {key.removeprefix("table ") for key in source.keys() & target.keys() if key.startswith("table ")}
    found: list[Supplement] = []
    for key in sorted(source.keys() | target.keys()):
        before, after = source.get(key, ""), target.get(key, "")
        kind, _, name = key.partition(" ")
        if before == after or kind not in LEADS:
            continue
        table = name.rpartition(" on ")[2] if kind in ("constraint", "index") else split(name)[0]
        if kind in ("constraint", "index", "column") and table not in stay:
            continue
        found += LEADS[kind](name, before, after, source, target)
    return found


def _schema(name: str, before: str, after: str, *_: Snapshot) -> Iterator[Supplement]:
    # One that is gone from the models stays: what lies in it may be somebody else's.
    if not before:
        yield Supplement(name, before=[f"CREATE SCHEMA {name}"])


def _column(name: str, before: str, after: str, source: Snapshot, target: Snapshot) -> Iterator[Supplement]:
    if not before or not after:
        return
    table, column = split(name)
    now, then = properties(before), properties(after)
    alter = f"ALTER TABLE {table} ALTER {column}"
    if any(now.get(each) != then.get(each) for each in ("is", "collate")) and not _is_enum(then["is"], source, target):
        collate = f" COLLATE {then['collate']}" if "collate" in then else ""
        using = "" if "generated" in now else f" USING {column}::{then['is']}"
        yield Supplement(f"type {_plain(name)}", after=[f"{alter} TYPE {then['is']}{collate}{using}"])
    if "generated" in now and now.get("generated") != then.get("generated"):
        change = f"SET EXPRESSION AS ({then['generated']})" if "generated" in then else "DROP EXPRESSION"
        yield Supplement(f"generated {name}", after=[f"{alter} {change}"])
    elif "generated" in then and "generated" not in now:  # there is no way but to make it anew
        add = f"ALTER TABLE {table} ADD {column} {then['is']} GENERATED ALWAYS AS ({then['generated']}) STORED"
        yield Supplement(f"generated {name}", before=[f"ALTER TABLE {table} DROP {column}"], after=[add])
    if "identity" in now and "identity" in then:
        if now["identity"] != then["identity"]:
            yield Supplement(f"identity {name}", after=[f"{alter} SET GENERATED {then['identity']}"])
    elif now.get("default") != then.get("default") and "generated" not in now and "generated" not in then:
        change = f"SET DEFAULT {then['default']}" if "default" in then else "DROP DEFAULT"
        yield Supplement(f"default {_plain(name)}", after=[f"{alter} {change}"])


def _constraint(name: str, before: str, after: str, *_: Snapshot) -> Iterator[Supplement]:
    constraint, _on, table = name.rpartition(" on ")
    definition, _comment, comment = after.partition("\ncomment ")
    if definition == before.partition("\ncomment ")[0]:
        before = definition = ""
    # What goes, goes first: a column that is dropped takes its checks along, and then there is nothing to drop.
    drop = [f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"] if before else []
    make = [f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}"] if definition else []
    if after and (comment or not definition):
        make.append(f"COMMENT ON CONSTRAINT {constraint} ON {table} IS {comment or 'NULL'}")
    yield Supplement(f"constraint {_plain(constraint)}", drop, make)


def _index(name: str, before: str, after: str, *_: Snapshot) -> Iterator[Supplement]:
    index, _on, table = name.rpartition(" on ")
    if before and after:
        yield Supplement(
            f"index {_plain(index)}", after=[f"DROP INDEX IF EXISTS {split(table)[0]}.{index}", after.partition("\n")[0]]
        )


def _sequence(name: str, before: str, after: str, source: Snapshot, target: Snapshot) -> Iterator[Supplement]:
    now, then = properties(before), properties(after)
    if "identity" in now or "identity" in then:  # it comes and goes with its column
        if "identity" in now and "identity" in then and now["is"] != then["is"]:
            yield Supplement(name, after=[f"ALTER SEQUENCE {name} {then['is']}"])
        return
    if not before and f"column {then.get('owned by')}" not in source and "owned by" in then:
        return  # made with its column
    if not after:
        if f"column {now.get('owned by')}" in target or "owned by" not in now:
            yield Supplement(name, after=[f"DROP SEQUENCE IF EXISTS {name}"])
        return
    make = [] if before else [f"CREATE SEQUENCE {name} {then['is']}"]
    change = [f"ALTER SEQUENCE {name} {then['is']}"] if before and now["is"] != then["is"] else []
    if now.get("owned by") != then.get("owned by"):
        change.append(f"ALTER SEQUENCE {name} OWNED BY {then.get('owned by', 'NONE')}")
    yield Supplement(name, make, change)


def _type(name: str, before: str, after: str, source: Snapshot, target: Snapshot) -> Iterator[Supplement]:
    kind = (before or after).partition(" ")[0]
    if kind == "domain":
        yield from _domain(name, before, after)
    elif kind == "enum" and not before:
        yield Supplement(name, before=[f"CREATE TYPE {name} AS ENUM ({after.removeprefix('enum ')})"])
    elif kind == "enum" and not after:
        yield Supplement(name, after=[f"DROP TYPE {name}"])
    elif kind == "enum":
        now, then = (re.findall(r"'(?:[^']|'')*'", each) for each in (before, after))
        if [label for label in then if label in now] == now:
            yield Supplement(name, before=_more_labels(name, now, then))
        else:
            yield _other_labels(name, after.removeprefix("enum "), source, target)


def _more_labels(name: str, now: list[str], then: list[str]) -> list[str]:
    places = [f" AFTER {former}" for former in then[:-1]]
    places.insert(0, f" BEFORE {now[0]}" if now else "")
    return [f"ALTER TYPE {name} ADD VALUE {each}{place}" for each, place in zip(then, places, strict=True) if each not in now]


def _other_labels(name: str, labels: str, source: Snapshot, target: Snapshot) -> Supplement:
    """By way of a new type: a label can be added in place, but neither removed nor moved.

    Checks and predicates that compare with the type are made anew.
    """
    schema, short = split(name)
    aside = f"{short.strip(chr(34))}_before"
    using, after = [], [f'DROP TYPE {schema}."{aside}"']
    for key, definition in source.items():
        kind, _, rest = key.partition(" ")
        item, _, table = rest.rpartition(" on ")
        if kind not in ("constraint", "index") or f"table {table}" not in target:
            continue
        if f"::{name.removeprefix('public.')}" not in definition:
            continue
        same = [definition.partition("\n")[0]] if target.get(key) == definition else []  # if not, it is made by another
        if kind == "index":
            using.append(f"DROP INDEX {split(table)[0]}.{item}")
            after += same
        elif same:
            using.append(f"ALTER TABLE {table} DROP CONSTRAINT {item}")
            after += [f"ALTER TABLE {table} ADD CONSTRAINT {item} {each}" for each in same]
    before = [*using, f'ALTER TYPE {name} RENAME TO "{aside}"', f"CREATE TYPE {name} AS ENUM ({labels})"]
    for table, column, default in _columns_of(name, source, target):
        alter = f"ALTER TABLE {table} ALTER {column}"
        before += [f"{alter} DROP DEFAULT"] if default else []
        before.append(f"{alter} TYPE {name} USING {column}::text::{name}")
        before += [f"{alter} SET DEFAULT {default}"] if default else []
    return Supplement(name, before, after)


def _domain(name: str, before: str, after: str) -> Iterator[Supplement]:
    if not before:
        yield Supplement(name, before=[f"CREATE DOMAIN {name} AS {after.removeprefix('domain ')}"])
    elif not after:
        yield Supplement(name, after=[f"DROP DOMAIN {name}"])
    else:
        now, then = set(before.splitlines()), set(after.splitlines())
        drops = {"default": "DROP DEFAULT", "not": "DROP NOT NULL", "constraint": "DROP CONSTRAINT {}"}
        gone = [drops.get(line.split()[0], "").format(*line.split()[1:2]) for line in sorted(now - then)]
        made = [f"{'ADD' if line.startswith('constraint') else 'SET'} {line}" for line in sorted(then - now)]
        if all(gone) and not any(line.startswith(("SET collate", "SET domain")) for line in made):
            yield Supplement(name, after=[f"ALTER DOMAIN {name} {change}" for change in (*gone, *made)])


def _is_enum(kind: str, source: Snapshot, target: Snapshot) -> bool:
    """Whether it is an enum on both sides, whose new labels bring its columns along."""
    name = f"type {kind if '.' in kind else f'public.{kind}'}"
    return source.get(name, "").startswith("enum ") and target.get(name, "").startswith("enum ")


def _columns_of(name: str, source: Snapshot, target: Snapshot) -> list[tuple[str, str, str]]:
    """Table, column and default of the columns that have the type on both sides."""
    short = name.removeprefix("public.")
    found = []
    for key, definition in source.items():
        if key.startswith("column ") and key in target and (now := properties(definition))["is"] in (short, name):
            table, column = split(key.removeprefix("column "))
            found.append((table, column, now.get("default", "")))
    return sorted(found)


LEADS: dict[str, Callable[[str, str, str, Snapshot, Snapshot], Iterator[Supplement]]] = {
    "schema": _schema, "column": _column, "constraint": _constraint, "index": _index, "sequence": _sequence, "type": _type,
}  # fmt: skip

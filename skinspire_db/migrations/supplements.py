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

from skinspire_db.catalogue import Snapshot, plain, properties, split


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

    def run(sql: str) -> ExecuteSQLOp:
        return ExecuteSQLOp(re.sub(r"(?<![:\\\w]):(?=\w)", r"\:", sql))  # to SQLAlchemy, :word would be a parameter

    before = [run(sql) for each in supplements for sql in each.before]
    after = [run(sql) for each in supplements for sql in each.after]
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
    """Leave out a nullability that is the same: SQLAlchemy takes a column for NOT NULL when its domain is."""
    name = f"{_table(alteration)}.{alteration.column_name}"
    now, then = (properties(find(side, "column", name)) for side in (live, wanted))
    if ("not null" in now) == ("not null" in then):
        alteration.modify_nullable = None


def _names(operations: list[Any]) -> Iterator[str]:
    """What Alembic sees to itself: as the supplements are named that would do the same."""
    for operation in operations:
        yield from _names(getattr(operation, "ops", []))
        for kind in ("index", "constraint"):
            if name := getattr(operation, f"{kind}_name", None):
                yield f"{kind} {name}"


def _table(operation: Any) -> str:
    if hasattr(operation, "source_table"):  # a foreign key
        return f"{operation.kw.get('source_schema') or 'public'}.{operation.source_table}"
    return f"{operation.schema or 'public'}.{operation.table_name}"


def find(side: Snapshot, kind: str, name: str) -> str:
    """The definition of what has that name, which is without quotes; empty when there is none."""
    quick = side.get(f"{kind} {name}")
    if quick is not None:
        return quick
    return next((each for key, each in side.items() if key.startswith(f"{kind} ") and plain(key) == f"{kind} {name}"), "")


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
        table = plain(key.rpartition(" on ")[2])
        if key.startswith("constraint ") and table in drops and (found := re.search(r" REFERENCES (.+?)\(", definition)):
            referenced = plain(found[1] if "." in found[1] else f"public.{found[1]}")
            if referenced in drops and referenced != table:
                referring[referenced].add(table)
    with contextlib.suppress(graphlib.CycleError):  # tables that refer to each other: the revision needs a hand, and says so
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
            if kind == "constraint" and after and not before and (comment := after.partition("\ncomment ")[2]):
                constraint = name.rpartition(" on ")[0]
                found.append(Supplement(name, after=[f"COMMENT ON CONSTRAINT {constraint} ON {table} IS {comment}"]))
            continue
        found += LEADS[kind](name, before, after, source, target)
    return found


def _schema(name: str, before: str, after: str, *_: Snapshot) -> Iterator[Supplement]:
    # One that is gone from the models stays: what lies in it may be somebody else's.
    if not before:
        yield Supplement(name, before=[f"CREATE SCHEMA IF NOT EXISTS {name}"])


def _stored(name: str, before: str, after: str, *_: Snapshot) -> Iterator[Supplement]:
    if before and after and before.startswith("unlogged") != after.startswith("unlogged"):
        yield Supplement(name, after=[f"ALTER TABLE {name} SET {'UN' if after.startswith('unlogged') else ''}LOGGED"])


def _column(name: str, before: str, after: str, source: Snapshot, target: Snapshot) -> Iterator[Supplement]:
    if not before or not after:
        return
    table, column = split(name)
    now, then = properties(before), properties(after)
    alter = f"ALTER TABLE {table} ALTER {column}"
    if "generated" in now or "generated" in then:
        yield _generated(name, table, column, now, then)
        return
    first, last = [], []
    retyped = any(now.get(each) != then.get(each) for each in ("is", "collate")) and not _is_enum(then["is"], source, target)
    if "identity" in now and "identity" not in then:
        first.append(f"{alter} DROP IDENTITY")
    if "default" in now and (retyped or "default" not in then):  # the old default may not fit the new type
        first.append(f"{alter} DROP DEFAULT")
    if retyped:
        collate = f" COLLATE {then['collate']}" if "collate" in then else ""
        last.append(f"{alter} TYPE {then['is']}{collate} USING {column}::{then['is']}")
    if "default" in then and (retyped or now.get("default") != then["default"]):
        last.append(f"{alter} SET DEFAULT {then['default']}")
    if "identity" in now and "identity" in then and now["identity"] != then["identity"]:
        last.append(f"{alter} SET GENERATED {then['identity']}")
    if "identity" in then and "identity" not in now:
        last += _new_identity(name, alter, then["identity"], target)
    yield Supplement(f"column {name}", first, last)


def _generated(name: str, table: str, column: str, now: dict[str, str], then: dict[str, str]) -> Supplement:
    alter = f"ALTER TABLE {table} ALTER {column}"
    change = [f"{alter} TYPE {then['is']}"] if now["is"] != then["is"] and "generated" in now else []
    if "generated" not in now:  # there is no way but to make it anew
        add = f"ALTER TABLE {table} ADD {column} {then['is']} GENERATED ALWAYS AS ({then['generated']}) STORED"
        return Supplement(f"column {name}", before=[f"ALTER TABLE {table} DROP {column}"], after=[add])
    if "generated" not in then:
        change.insert(0, f"{alter} DROP EXPRESSION")
    elif now["generated"] != then["generated"]:
        change.append(f"{alter} SET EXPRESSION AS ({then['generated']})")
    return Supplement(f"column {name}", after=change)


def _new_identity(name: str, alter: str, kind: str, target: Snapshot) -> list[str]:
    """An identity for a column that exists, which goes on after the numbers that are there."""
    for key, definition in target.items():
        facts = properties(definition)
        if key.startswith("sequence ") and facts.get("identity") == f"of {name}":
            sequence = key.removeprefix("sequence ")
            options = facts["is"].partition("INCREMENT")[2]
            add = f"{alter} ADD GENERATED {kind} AS IDENTITY (SEQUENCE NAME {sequence} INCREMENT{options})"
            return [add, _go_on(sequence, name)]
    return []


def _go_on(sequence: str, name: str) -> str:
    """Numbers that are taken are not given again."""
    table, column = split(name)
    quoted = sequence.replace("'", "''")
    return f"SELECT setval('{quoted}', max({column})) FROM {table} HAVING max({column}) IS NOT NULL"  # noqa: S608


def _constraint(name: str, before: str, after: str, *_: Snapshot) -> Iterator[Supplement]:
    constraint, _on, table = name.rpartition(" on ")
    definition, comment = after.partition("\n")[0], after.partition("\ncomment ")[2]
    if definition == before.partition("\n")[0]:
        before = definition = ""
    # What goes, goes first: a column that is dropped takes its checks along, and then there is nothing to drop.
    drop = [f"ALTER TABLE {table} DROP CONSTRAINT {constraint}"] if before else []
    make = [f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {definition}"] if definition else []
    if after and (comment or not definition):
        make.append(f"COMMENT ON CONSTRAINT {constraint} ON {table} IS {comment or 'NULL'}")
    yield Supplement(f"constraint {plain(constraint)}", drop, make)


def _index(name: str, before: str, after: str, *_: Snapshot) -> Iterator[Supplement]:
    index, _on, table = name.rpartition(" on ")
    if before and after:
        yield Supplement(
            f"index {plain(index)}", after=[f"DROP INDEX IF EXISTS {split(table)[0]}.{index}", after.partition("\n")[0]]
        )


def _sequence(name: str, before: str, after: str, source: Snapshot, target: Snapshot) -> Iterator[Supplement]:
    now, then = properties(before), properties(after)
    if "identity" in then:  # it comes with its column
        if "identity" in now and now["is"] != then["is"]:
            yield Supplement(name, after=[f"ALTER SEQUENCE {name} {then['is']}"])
        elif before and "identity" not in now:
            yield Supplement(name, before=[f"DROP SEQUENCE {name}"])
        return
    owner, former = then.get("owned by", ""), now.get("owned by", "")
    made = bool(before) and "identity" not in now
    if not after:
        if "identity" not in now and (not former or f"column {former}" in target):
            yield Supplement(name, after=[f"DROP SEQUENCE IF EXISTS {name}"])
    elif made or not owner or f"column {owner}" in source:  # otherwise it is made with its column
        change = [f"ALTER SEQUENCE {name} {then['is']}"] if made and now["is"] != then["is"] else []
        if owner != (former if made else ""):
            change.append(f"ALTER SEQUENCE {name} OWNED BY {owner or 'NONE'}")
        if not made and owner:
            change.append(_go_on(name, owner))
        yield Supplement(name, [] if made else [f"CREATE SEQUENCE {name} {then['is']}"], change)


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
    aside = f"{plain(short).encode()[:50].decode(errors='ignore')}_before".replace('"', '""')
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
    for table, column, many, default in _columns_of(name, source, target):
        alter = f"ALTER TABLE {table} ALTER {column}"
        before += [f"{alter} DROP DEFAULT"] if default else []
        before.append(f"{alter} TYPE {name}{many} USING {column}::text{many}::{name}{many}")
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
    one = kind.removesuffix("[]")
    name = f"type {one if '.' in one else f'public.{one}'}"
    return source.get(name, "").startswith("enum ") and target.get(name, "") != source[name]


def _columns_of(name: str, source: Snapshot, target: Snapshot) -> list[tuple[str, str, str, str]]:
    """Table, column, "[]" for an array, and default of the columns that have the type on both sides."""
    short = name.removeprefix("public.")
    found = []
    for key, definition in source.items():
        if key.startswith("column ") and key in target:
            facts = properties(definition)
            many = "[]" if facts["is"].endswith("[]") else ""
            if facts["is"].removesuffix("[]") in (short, name):
                found.append((*split(key.removeprefix("column ")), many, facts.get("default", "")))
    return sorted(found)


LEADS: dict[str, Callable[[str, str, str, Snapshot, Snapshot], Iterator[Supplement]]] = {
    "schema": _schema, "table": _stored, "column": _column,
    "constraint": _constraint, "index": _index, "sequence": _sequence, "type": _type,
}  # fmt: skip

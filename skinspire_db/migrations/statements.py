"""The SQL statements that lead from one snapshot of a database to another, in an order that runs.

Both sides are in PostgreSQL's own words, and so are the statements; the way back is the same with the sides swapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from skinspire_db.catalog import fields
from skinspire_db.catalog.definitions import plain, split
from skinspire_db.catalog.fields import Column, Other, Sequence, Snapshot, Table, Type, head
from skinspire_db.migrations import columns, renames, types
from skinspire_db.migrations.columns import Casts
from skinspire_db.migrations.phases import Phase, Statement
from skinspire_db.patterns import lazy_regex

SCANS = "it reads the whole table under a lock, and fails where a row breaks it; add a large one NOT VALID, VALIDATE it later"
LOST = (
    "what it holds is lost; for a new name write ALTER TABLE ... RENAME, then invoke migrate.new for what is named after it"
)
INDEXING = (
    "the table cannot be written meanwhile; for a large one run CREATE INDEX CONCURRENTLY by hand first,"
    " and say CREATE INDEX IF NOT EXISTS here"
)
REFERENCES = lazy_regex(r'^FOREIGN KEY \((?P<own>.+?)\) REFERENCES (?P<table>(?:"(?:[^"]|"")+"|[^"(])+)\((?P<columns>.+?)\)')


def lead(
    source: Snapshot, target: Snapshot, casts: Casts, *, back: bool = False, fills: Mapping[str, str] | None = None
) -> list[Statement]:
    """The statements that turn `source` into `target`, in the order in which they run.

    Args:
        source: the database as it is.
        target: the database as it is to be.
        casts: whether PostgreSQL itself makes the second type of the first.
        back: this is a downgrade: it drops the schemas that the upgrade made.
        fills: what rows that are there get in a new column that takes no NULL and has no default: SQL by its name.
    """
    renamed = renames.find(source, target)
    found = [Statement(Phase.RENAME, sql) for sql in renamed.statements]
    way = _Way(renamed.source, target, casts, back, fills or {})
    for key in sorted(way.source.keys() | target.keys()):
        before, after = way.source.get(key), target.get(key)
        kind, _, name = key.partition(" ")
        # A generated column is made anew, though it is the same, where a column that it is computed from changes its type.
        if (before != after or (kind == "column" and name in way.remade)) and kind in STEPS:
            found += STEPS[kind](way, name, before, after)
    found += way.new_tables()
    found += way.dropped_tables()
    found += way.uprooted()
    return sorted(dict.fromkeys(found), key=lambda each: each.phase)


class _Way:
    """The statements for each kind of object, from what is known about source and target as a whole."""

    def __init__(self, source: Snapshot, target: Snapshot, casts: Casts, back: bool, fills: Mapping[str, str]) -> None:
        self.source, self.target, self.casts, self.back, self.fills = source, target, casts, back, fills
        tables = [{key.removeprefix("table ") for key in side if key.startswith("table ")} for side in (source, target)]
        self.gone, self.new, self.stay = tables[0] - tables[1], tables[1] - tables[0], tables[0] & tables[1]
        self.retyped = columns.retyped(source, target)
        self.remade = columns.remade(source, target)

    def of_table(self, side: Snapshot, kind: str, table: str) -> Iterator[tuple[str, Other]]:
        """Names and definitions of a table's constraints or indexes."""
        ending = f" on {table}"
        for key, definition in side.items():
            if key.startswith(f"{kind} ") and key.endswith(ending) and isinstance(definition, Other):
                yield key.removeprefix(f"{kind} ").removesuffix(ending), definition

    def referenced(self, side: Snapshot, table: str) -> set[str]:
        """The tables that a table's foreign keys point to."""
        found = (REFERENCES.match(definition.text) for _, definition in self.of_table(side, "constraint", table))
        return {qualified(each["table"]) for each in found if each}

    # tables

    def new_tables(self) -> Iterator[Statement]:
        """Each with its constraints, indexes and comments; a foreign key to a table that comes later is added at the end."""
        made: set[str] = set()
        for table in _in_order({each: self.referenced(self.target, each) for each in self.new}):
            made.add(table)
            constraints = []
            for name, definition in sorted(self.of_table(self.target, "constraint", table)):
                points = REFERENCES.match(definition.text)
                if points and (target := qualified(points["table"])) in self.new and target not in made:
                    yield Statement(Phase.FOREIGN_KEY, f"ALTER TABLE {table} ADD CONSTRAINT {name} {definition.text}")
                else:
                    constraints.append((points is not None, f"CONSTRAINT {name} {definition.text}"))
            yield Statement(Phase.CREATE_TABLE, self._create(table, [sql for _, sql in sorted(constraints)]))
            for sql in self._around(table):
                yield Statement(Phase.CREATE_TABLE, sql)

    def _create(self, table: str, constraints: list[str]) -> str:
        facts = fields.table(self.target, table)
        own = columns.of_table(self.target, table)
        items = [f"{column} {columns.definition(f'{table}.{column}', self.target)}" for column in own]
        options = f" PARTITION BY {facts.partitioned_by}" if facts.partitioned_by else ""
        options += f" INHERITS ({facts.inherits})" if facts.inherits else ""
        options += f" WITH ({facts.options})" if facts.options else ""
        kind = facts.text.upper().removesuffix("TABLE")
        inner = ",\n".join(f"    {each}" for each in (*items, *constraints))
        return f"CREATE {kind}TABLE {table} (\n{inner}\n){options}" if inner else f"CREATE {kind}TABLE {table} (){options}"

    def _around(self, table: str) -> Iterator[str]:
        """What cannot be said within CREATE TABLE: indexes, whose table is new, and comments."""
        yield from (definition.text for _, definition in sorted(self.of_table(self.target, "index", table)))
        if comment := fields.table(self.target, table).comment:
            yield f"COMMENT ON TABLE {table} IS {comment}"
        for column in columns.of_table(self.target, table):
            if comment := fields.column(self.target, f"{table}.{column}").comment:
                yield f"COMMENT ON COLUMN {table}.{column} IS {comment}"
        for name, definition in sorted(self.of_table(self.target, "constraint", table)):
            if definition.comment:
                yield f"COMMENT ON CONSTRAINT {name} ON {table} IS {definition.comment}"

    def dropped_tables(self) -> Iterator[Statement]:
        """Tables that point to others are dropped first, after the foreign keys that do not allow this order."""
        order = list(reversed(_in_order({each: self.referenced(self.source, each) for each in self.gone})))
        for place, table in enumerate(order):
            for name, definition in sorted(self.of_table(self.source, "constraint", table)):
                if (points := REFERENCES.match(definition.text)) and qualified(points["table"]) in order[:place]:
                    yield Statement(Phase.DROP_FOREIGN_KEY, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
            yield Statement(Phase.DROP_TABLE, f"DROP TABLE {table}", f"drop table {short(table)}: {LOST}")

    def table(self, name: str, before: Table | None, after: Table | None) -> Iterator[Statement]:
        if not before or not after:
            return
        unlogged = after.text.startswith("unlogged")
        if before.text.startswith("unlogged") != unlogged:
            sql = f"ALTER TABLE {name} SET {'UN' if unlogged else ''}LOGGED"
            yield Statement(Phase.COLUMN, sql, f"{sql}: it rewrites the table under a lock")
        if before.comment != after.comment:
            yield Statement(Phase.OWNER, f"COMMENT ON TABLE {name} IS {after.comment or 'NULL'}")
        had, has = (dict(each.split("=", 1) for each in (side.options or "").split(", ") if each) for side in (before, after))
        if reset := sorted(had.keys() - has.keys()):
            yield Statement(Phase.COLUMN, f"ALTER TABLE {name} RESET ({', '.join(reset)})")
        if new := [f"{key}={value}" for key, value in has.items() if had.get(key) != value]:
            yield Statement(Phase.COLUMN, f"ALTER TABLE {name} SET ({', '.join(new)})")

    def column(self, name: str, before: Column | None, after: Column | None) -> Iterator[Statement]:
        table, _ = split(name)
        if table not in self.stay:
            return
        if not after or name in self.remade:
            yield self._drop_column(name)
        if not before or name in self.remade:
            yield from self._add_column(name)
        elif after:
            change = columns.alter(name, self.source, self.target, self.casts)
            yield from (Statement(Phase.DETACH, sql) for sql in change.before)
            yield from (Statement(Phase.COLUMN, sql, careful) for sql, careful in change.middle)
            yield from (Statement(Phase.ATTACH, sql) for sql in change.after)

    def _drop_column(self, name: str) -> Statement:
        table, column = split(name)
        anew = name in self.remade or bool(fields.column(self.source, name).generated)
        why = "what it holds is lost, though it is generated anew" if anew else LOST
        phase = Phase.DROP_GENERATED if anew else Phase.DROP_COLUMN  # before the columns that it is generated from
        return Statement(phase, f"ALTER TABLE {table} DROP COLUMN {column}", f"drop column {short(name)}: {why}")

    def _add_column(self, name: str) -> Iterator[Statement]:
        table, column = split(name)
        facts = fields.column(self.target, name)
        given = facts.default or facts.identity or facts.generated
        fill = self.fills.get(plain(name)) if facts.not_null and not given else None
        careful = "" if given or fill or not facts.not_null else columns.UNFILLED
        sql = f"ALTER TABLE {table} ADD COLUMN {column} {columns.definition(name, self.target)}"
        if fill:  # the model's default in Python, for the rows that are there
            sql = f"{sql} DEFAULT {fill}"
            yield Statement(Phase.ATTACH, f"ALTER TABLE {table} ALTER COLUMN {column} DROP DEFAULT")
        phase = Phase.ATTACH if facts.generated else Phase.COLUMN
        yield Statement(phase, sql, careful and f"add column {short(name)}: {careful}")
        if facts.comment:
            yield Statement(Phase.OWNER, f"COMMENT ON COLUMN {table}.{column} IS {facts.comment}")

    # constraints and indexes

    def constraint(self, name: str, before: Other | None, after: Other | None) -> Iterator[Statement]:
        constraint, _on, table = name.rpartition(" on ")
        if table not in self.stay:
            return
        now, then = head(before), head(after)
        if now + " NOT VALID" == then or then + " NOT VALID" != now != then:
            yield from self._remake(name, before, after)
        elif now != then:
            sql = f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}"
            yield Statement(Phase.CONSTRAINT, sql, f"{sql}: it fails where a row breaks it")
        elif before and after and after.comment != before.comment:
            yield Statement(Phase.OWNER, f"COMMENT ON CONSTRAINT {constraint} ON {table} IS {after.comment or 'NULL'}")

    def _remake(self, name: str, before: Other | None, after: Other | None) -> Iterator[Statement]:
        constraint, _on, table = name.rpartition(" on ")
        if before:
            phase = Phase.DROP_FOREIGN_KEY if REFERENCES.match(before.text) else Phase.DROP_CONSTRAINT
            yield Statement(phase, f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        if after:
            sql = f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {after.text}"
            yield Statement(Phase.FOREIGN_KEY if REFERENCES.match(after.text) else Phase.CONSTRAINT, sql, f"{sql}: {SCANS}")
            if after.comment:
                yield Statement(Phase.OWNER, f"COMMENT ON CONSTRAINT {constraint} ON {table} IS {after.comment}")

    def index(self, name: str, before: Other | None, after: Other | None) -> Iterator[Statement]:
        index, _on, table = name.rpartition(" on ")
        if table not in self.stay or head(before) == head(after):
            return
        if before:
            yield Statement(Phase.DROP_CONSTRAINT, f"DROP INDEX {split(table)[0]}.{index}")
        if after:
            yield Statement(Phase.INDEX, after.text, f"create index {plain(index)}: {INDEXING}")

    def uprooted(self) -> Iterator[Statement]:
        """What is the same on both sides and is made again nevertheless: a foreign key whose column changes its type or whose
        unique constraint is another then; indexes and constraints of a generated column that is made anew.
        """
        for key in sorted(self.source.keys() & self.target.keys()):
            kind, _, name = key.partition(" ")
            table, before, after = name.rpartition(" on ")[2], self.source[key], self.target[key]
            if kind not in ("constraint", "index") or table not in self.stay or before.head != after.head:
                continue
            remade = [split(each)[1] for each in self.remade if split(each)[0] == table]
            points = REFERENCES.match(before.head)
            if self._is_uprooted(table, points) if points else any(columns.mentions(before.head, each) for each in remade):
                yield from self._anew(key)

    def _anew(self, key: str) -> Iterator[Statement]:
        """A constraint or index of both sides, dropped and made again."""
        kind, _, name = key.partition(" ")
        before: Any = self.source[key]
        after: Any = self.target[key]
        if kind == "constraint":
            yield from self._remake(name, before, after)
        else:
            yield from self.index(name, before, None)
            yield from self.index(name, None, after)

    def _is_uprooted(self, table: str, points: re.Match[str]) -> bool:
        target = qualified(points["table"])
        sides = [(table, points["own"]), (target, points["columns"])]
        if any(f"{of}.{column}" in self.retyped for of, listed in sides for column in listed.split(", ")):
            return True
        for kind in ("constraint", "index"):  # the keys that it can lean on
            for name, definition in self.of_table(self.source, kind, target):
                leans = re.search(r"\((.+?)\)", definition.text)
                is_key = definition.text.startswith(("PRIMARY", "UNIQUE", "CREATE UNIQUE"))
                same = definition.text == head(self.target.get(f"{kind} {name} on {target}"))
                if is_key and not same and leans and sorted(leans[1].split(", ")) == sorted(points["columns"].split(", ")):
                    return True
        return False

    # the rest

    def schema(self, name: str, before: Other | None, after: Other | None) -> Iterator[Statement]:
        # One that is gone from the models stays: another owner's objects may lie in it.
        if not before:
            yield Statement(Phase.SCHEMA, f"CREATE SCHEMA IF NOT EXISTS {name}")
        elif not after and self.back:
            yield Statement(Phase.DROP_REST, f"DROP SCHEMA {name}")

    def sequence(self, name: str, before: Sequence | None, after: Sequence | None) -> Iterator[Statement]:
        for when, sql in columns.sequence(name, before, after, self.source, self.target):
            yield Statement(TURNS[when], sql)

    def type(self, name: str, before: Type | None, after: Type | None) -> Iterator[Statement]:
        change = types.change(name, before, after, self.source, self.target)
        yield from (Statement(Phase.TYPE, sql, careful) for sql, careful in change.first)
        yield from (Statement(Phase.DROP_REST, sql, careful) for sql, careful in change.last)
        for key in change.in_the_way:
            yield from self._anew(key)


def _in_order(points_to: dict[str, set[str]]) -> list[str]:
    """The tables, those first that others of them point to; where they point in a circle, by name."""
    left, order = dict(sorted(points_to.items())), list[str]()
    while left:
        free = [table for table, others in left.items() if not (others & left.keys()) - {table}]
        for table in free or list(left)[:1]:
            order.append(table)
            del left[table]
    return order


def qualified(name: str) -> str:
    """A table's name with its schema, as the snapshot has it: PostgreSQL leaves public out."""
    return name if split(name)[0] else f"public.{name}"


def short(name: str) -> str:
    """A name for a reader."""
    return plain(name).removeprefix("public.")


TURNS = {"first": Phase.SEQUENCE, "between": Phase.COLUMN, "last": Phase.OWNER, "end": Phase.DROP_REST}
STEPS: dict[str, Callable[[_Way, str, Any, Any], Iterator[Statement]]] = {
    "schema": _Way.schema, "table": _Way.table, "column": _Way.column, "constraint": _Way.constraint,
    "index": _Way.index, "sequence": _Way.sequence, "type": _Way.type,
}  # fmt: skip

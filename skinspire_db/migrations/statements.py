"""The SQL statements that lead from one snapshot of a database to another, in an order that runs.

Both sides are in PostgreSQL's own words, and so are the statements; the way back is the same with the sides swapped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from skinspire_db.catalog.definitions import Snapshot, head, plain, properties, split
from skinspire_db.migrations import columns, renames, types
from skinspire_db.migrations.columns import Casts
from skinspire_db.migrations.phases import Phase, Statement

SCANS = "it reads the whole table under a lock, and fails where a row breaks it; add a large one NOT VALID, VALIDATE it later"
LOST = (
    "what it holds is lost; for a new name write ALTER TABLE ... RENAME, then invoke migrate.new for what is named after it"
)
INDEXING = (
    "the table cannot be written meanwhile; for a large one run CREATE INDEX CONCURRENTLY by hand first,"
    " and say CREATE INDEX IF NOT EXISTS here"
)
REFERENCES = re.compile(r'^FOREIGN KEY \((?P<own>.+?)\) REFERENCES (?P<table>(?:"(?:[^"]|"")+"|[^"(])+)\((?P<columns>.+?)\)')


def lead(source: Snapshot, target: Snapshot, casts: Casts, *, back: bool = False) -> list[Statement]:
    """The statements that turn `source` into `target`, in the order in which they run.

    Args:
        source: the database as it is.
        target: the database as it is to be.
        casts: whether PostgreSQL itself makes the second type of the first.
        back: this is a downgrade: it drops the schemas that the upgrade made.
    """
    renamed = renames.find(source, target)
    found = [Statement(Phase.RENAME, sql) for sql in renamed.statements]
    way = _Way(renamed.source, target, casts, back)
    for key in sorted(way.source.keys() | target.keys()):
        before, after = way.source.get(key, ""), target.get(key, "")
        kind, _, name = key.partition(" ")
        if before != after and kind in STEPS:
            found += STEPS[kind](way, name, before, after)
    found += way.new_tables()
    found += way.dropped_tables()
    found += way.uprooted()
    return sorted(dict.fromkeys(found), key=lambda each: each.phase)


class _Way:
    """The statements for each kind of object, from what is known about source and target as a whole."""

    def __init__(self, source: Snapshot, target: Snapshot, casts: Casts, back: bool) -> None:
        self.source, self.target, self.casts, self.back = source, target, casts, back
        tables = [{key.removeprefix("table ") for key in side if key.startswith("table ")} for side in (source, target)]
        self.gone, self.new, self.stay = tables[0] - tables[1], tables[1] - tables[0], tables[0] & tables[1]
        self.retyped = columns.retyped(source, target)
        self.remade = columns.remade(source, target)

    def of_table(self, side: Snapshot, kind: str, table: str) -> Iterator[tuple[str, str]]:
        """Names and definitions of a table's constraints or indexes."""
        ending = f" on {table}"
        for key, definition in side.items():
            if key.startswith(f"{kind} ") and key.endswith(ending):
                yield key.removeprefix(f"{kind} ").removesuffix(ending), definition

    def referenced(self, side: Snapshot, table: str) -> set[str]:
        """The tables that a table's foreign keys point to."""
        found = (REFERENCES.match(definition) for _, definition in self.of_table(side, "constraint", table))
        return {qualified(each["table"]) for each in found if each}

    # tables

    def new_tables(self) -> Iterator[Statement]:
        """Each with its constraints, indexes and comments; a foreign key to a table that comes later is added at the end."""
        made: set[str] = set()
        for table in _in_order({each: self.referenced(self.target, each) for each in self.new}):
            made.add(table)
            constraints = []
            for name, definition in sorted(self.of_table(self.target, "constraint", table)):
                points = REFERENCES.match(definition)
                if points and (target := qualified(points["table"])) in self.new and target not in made:
                    yield Statement(Phase.FOREIGN_KEY, f"ALTER TABLE {table} ADD CONSTRAINT {name} {head(definition)}")
                else:
                    constraints.append((points is not None, f"CONSTRAINT {name} {head(definition)}"))
            yield Statement(Phase.CREATE_TABLE, self._create(table, [sql for _, sql in sorted(constraints)]))
            for sql in self._around(table):
                yield Statement(Phase.CREATE_TABLE, sql)

    def _create(self, table: str, constraints: list[str]) -> str:
        facts = properties(self.target[f"table {table}"])
        own = columns.of_table(self.target, table)
        items = [f"{column} {columns.definition(f'{table}.{column}', self.target)}" for column in own]
        options = f" PARTITION BY {facts['partitioned by']}" if "partitioned by" in facts else ""
        options += f" INHERITS ({facts['inherits']})" if "inherits" in facts else ""
        options += f" WITH ({facts['with']})" if "with" in facts else ""
        kind = facts["is"].upper().removesuffix("TABLE")
        inner = ",\n".join(f"    {each}" for each in (*items, *constraints))
        return f"CREATE {kind}TABLE {table} (\n{inner}\n){options}" if inner else f"CREATE {kind}TABLE {table} (){options}"

    def _around(self, table: str) -> Iterator[str]:
        """What cannot be said within CREATE TABLE: indexes, whose table is new, and comments."""
        yield from (head(definition) for _, definition in sorted(self.of_table(self.target, "index", table)))
        if comment := properties(self.target[f"table {table}"]).get("comment"):
            yield f"COMMENT ON TABLE {table} IS {comment}"
        for column in columns.of_table(self.target, table):
            if comment := properties(self.target[f"column {table}.{column}"]).get("comment"):
                yield f"COMMENT ON COLUMN {table}.{column} IS {comment}"
        for name, definition in sorted(self.of_table(self.target, "constraint", table)):
            if comment := properties(definition).get("comment"):
                yield f"COMMENT ON CONSTRAINT {name} ON {table} IS {comment}"

    def dropped_tables(self) -> Iterator[Statement]:
        """Tables that point to others are dropped first, after the foreign keys that do not allow this order."""
        order = list(reversed(_in_order({each: self.referenced(self.source, each) for each in self.gone})))
        for place, table in enumerate(order):
            for name, definition in sorted(self.of_table(self.source, "constraint", table)):
                if (points := REFERENCES.match(definition)) and qualified(points["table"]) in order[:place]:
                    yield Statement(Phase.DROP_FOREIGN_KEY, f"ALTER TABLE {table} DROP CONSTRAINT {name}")
            yield Statement(Phase.DROP_TABLE, f"DROP TABLE {table}", f"drop table {short(table)}: {LOST}")

    def table(self, name: str, before: str, after: str) -> Iterator[Statement]:
        if name not in self.stay:
            return
        now, then = properties(before), properties(after)
        if now["is"].startswith("unlogged") != then["is"].startswith("unlogged"):
            sql = f"ALTER TABLE {name} SET {'UN' if then['is'].startswith('unlogged') else ''}LOGGED"
            yield Statement(Phase.COLUMN, sql, f"{sql}: it rewrites the table under a lock")
        if now.get("comment") != then.get("comment"):
            yield Statement(Phase.OWNER, f"COMMENT ON TABLE {name} IS {then.get('comment', 'NULL')}")
        had, has = (dict(each.split("=", 1) for each in facts.get("with", "").split(", ") if each) for facts in (now, then))
        if reset := sorted(had.keys() - has.keys()):
            yield Statement(Phase.COLUMN, f"ALTER TABLE {name} RESET ({', '.join(reset)})")
        if new := [f"{key}={value}" for key, value in has.items() if had.get(key) != value]:
            yield Statement(Phase.COLUMN, f"ALTER TABLE {name} SET ({', '.join(new)})")

    def column(self, name: str, before: str, after: str) -> Iterator[Statement]:
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
        anew = name in self.remade or "generated" in properties(self.source[f"column {name}"])
        why = "what it holds is lost, though it is generated anew" if anew else LOST
        phase = Phase.DROP_GENERATED if anew else Phase.DROP_COLUMN  # before the columns that it is generated from
        return Statement(phase, f"ALTER TABLE {table} DROP COLUMN {column}", f"drop column {short(name)}: {why}")

    def _add_column(self, name: str) -> Iterator[Statement]:
        table, column = split(name)
        facts = properties(self.target[f"column {name}"])
        given = any(each in facts for each in ("default", "identity", "generated"))
        careful = "" if given or "not null" not in facts else columns.UNFILLED
        sql = f"ALTER TABLE {table} ADD COLUMN {column} {columns.definition(name, self.target)}"
        phase = Phase.ATTACH if "generated" in facts else Phase.COLUMN
        yield Statement(phase, sql, careful and f"add column {short(name)}: {careful}")
        if comment := facts.get("comment"):
            yield Statement(Phase.OWNER, f"COMMENT ON COLUMN {table}.{column} IS {comment}")

    # constraints and indexes

    def constraint(self, name: str, before: str, after: str) -> Iterator[Statement]:
        constraint, _on, table = name.rpartition(" on ")
        if table not in self.stay:
            return
        if head(before) + " NOT VALID" == head(after) or head(after) + " NOT VALID" != head(before) != head(after):
            yield from self._remake(name, before, after)
        elif head(before) != head(after):
            sql = f"ALTER TABLE {table} VALIDATE CONSTRAINT {constraint}"
            yield Statement(Phase.CONSTRAINT, sql, f"{sql}: it fails where a row breaks it")
        elif (comment := properties(after).get("comment")) != properties(before).get("comment"):
            yield Statement(Phase.OWNER, f"COMMENT ON CONSTRAINT {constraint} ON {table} IS {comment or 'NULL'}")

    def _remake(self, name: str, before: str, after: str) -> Iterator[Statement]:
        constraint, _on, table = name.rpartition(" on ")
        if before:
            phase = Phase.DROP_FOREIGN_KEY if REFERENCES.match(before) else Phase.DROP_CONSTRAINT
            yield Statement(phase, f"ALTER TABLE {table} DROP CONSTRAINT {constraint}")
        if after:
            sql = f"ALTER TABLE {table} ADD CONSTRAINT {constraint} {head(after)}"
            yield Statement(Phase.FOREIGN_KEY if REFERENCES.match(after) else Phase.CONSTRAINT, sql, f"{sql}: {SCANS}")
            if comment := properties(after).get("comment"):
                yield Statement(Phase.OWNER, f"COMMENT ON CONSTRAINT {constraint} ON {table} IS {comment}")

    def index(self, name: str, before: str, after: str) -> Iterator[Statement]:
        index, _on, table = name.rpartition(" on ")
        if table not in self.stay or head(before) == head(after):
            return
        if before:
            yield Statement(Phase.DROP_CONSTRAINT, f"DROP INDEX {split(table)[0]}.{index}")
        if after:
            yield Statement(Phase.INDEX, head(after), f"create index {plain(index)}: {INDEXING}")

    def uprooted(self) -> Iterator[Statement]:
        """What is the same on both sides and is made again nevertheless: a foreign key whose column changes its type or whose
        unique constraint is another then; indexes and constraints of a generated column that is made anew.
        """
        for key in sorted(self.source.keys() & self.target.keys()):
            kind, _, name = key.partition(" ")
            table = name.rpartition(" on ")[2]
            if (
                kind not in ("constraint", "index")
                or table not in self.stay
                or head(self.source[key]) != head(self.target[key])
            ):
                continue
            remade = [split(each)[1] for each in self.remade if split(each)[0] == table]
            if points := REFERENCES.match(self.source[key]):
                if self._is_uprooted(table, points):
                    yield from self._remake(name, self.source[key], self.target[key])
            elif any(columns.mentions(head(self.source[key]), each) for each in remade):
                if kind == "constraint":
                    yield from self._remake(name, self.source[key], self.target[key])
                else:
                    yield from self.index(name, self.source[key], "")
                    yield from self.index(name, "", self.target[key])

    def _is_uprooted(self, table: str, points: re.Match[str]) -> bool:
        target = qualified(points["table"])
        sides = [(table, points["own"]), (target, points["columns"])]
        if any(f"{of}.{column}" in self.retyped for of, listed in sides for column in listed.split(", ")):
            return True
        for kind in ("constraint", "index"):  # the keys that it can lean on
            for name, definition in self.of_table(self.source, kind, target):
                leans = re.search(r"\((.+?)\)", definition)
                is_key = definition.startswith(("PRIMARY", "UNIQUE", "CREATE UNIQUE"))
                same = head(definition) == head(self.target.get(f"{kind} {name} on {target}", ""))
                if is_key and not same and leans and sorted(leans[1].split(", ")) == sorted(points["columns"].split(", ")):
                    return True
        return False

    # the rest

    def schema(self, name: str, before: str, after: str) -> Iterator[Statement]:
        # One that is gone from the models stays: another owner's objects may lie in it.
        if not before:
            yield Statement(Phase.SCHEMA, f"CREATE SCHEMA IF NOT EXISTS {name}")
        elif not after and self.back:
            yield Statement(Phase.DROP_REST, f"DROP SCHEMA {name}")

    def sequence(self, name: str, before: str, after: str) -> Iterator[Statement]:
        for when, sql in columns.sequence(name, before, after, self.source, self.target):
            yield Statement(TURNS[when], sql)

    def type(self, name: str, before: str, after: str) -> Iterator[Statement]:
        change = types.change(name, before, after, self.source, self.target)
        yield from (Statement(Phase.TYPE, sql, careful) for sql, careful in change.first)
        yield from (Statement(Phase.DROP_REST, sql, careful) for sql, careful in change.last)
        for index_or_constraint in change.in_the_way:
            kind, _, rest = index_or_constraint.partition(" ")
            remake = self._remake if kind == "constraint" else self._reindex
            yield from remake(rest, self.source[index_or_constraint], self.target[index_or_constraint])

    def _reindex(self, name: str, before: str, after: str) -> Iterator[Statement]:
        yield from self.index(name, before, "")
        yield from self.index(name, "", after)


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
STEPS: dict[str, Callable[[_Way, str, str, str], Iterator[Statement]]] = {
    "schema": _Way.schema, "table": _Way.table, "column": _Way.column, "constraint": _Way.constraint,
    "index": _Way.index, "sequence": _Way.sequence, "type": _Way.type,
}  # fmt: skip

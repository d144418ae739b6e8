"""Statements for columns, and for the sequences that number them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from skinspire_db.catalog import fields
from skinspire_db.catalog.definitions import plain, split
from skinspire_db.catalog.fields import Column, Sequence, Snapshot, head
from skinspire_db.migrations import losses

Casts = Callable[[str, str], bool]  # whether PostgreSQL makes the second type of the first by itself
REWRITES = "a new type rewrites the table under a lock; for a large one add a column, copy in parts, and swap"
FILL_FIRST = "NOT NULL reads the whole table under a lock, and fails where a value is missing; fill it first"
UNFILLED = "NOT NULL without a default fails where the table has rows; add a DEFAULT, or fill it first"
SERIALS = {"smallint": "smallserial", "integer": "serial", "bigint": "bigserial"}
LARGEST = {"smallint": 2**15 - 1, "integer": 2**31 - 1, "bigint": 2**63 - 1}


@dataclass
class Change:
    """The statements of a column's change.

    Attributes:
        before: they take off what would keep the column from changing, such as its default.
        middle: they change it, each with what is risky about it.
        after: they put on what it has afterwards.
    """

    before: list[str] = field(default_factory=list)
    middle: list[tuple[str, str]] = field(default_factory=list)
    after: list[str] = field(default_factory=list)


def of_table(side: Snapshot, table: str) -> list[str]:
    """A table's columns, in their order."""
    return [split(name)[1] for name, _ in fields.each(side, Column) if split(name)[0] == table]


def mentions(sql: str, column: str) -> bool:
    """Whether an expression may use the column. A false yes costs only an object that is made again."""
    return re.search(rf"(?<![\w\"]){re.escape(column)}(?![\w\"])", sql) is not None


def _both(source: Snapshot, target: Snapshot) -> Iterator[tuple[str, Column, Column]]:
    """The columns that both sides have, as each has them."""
    for name, now in fields.each(source, Column):
        if f"column {name}" in target:
            yield name, now, fields.column(target, name)


def retyped(source: Snapshot, target: Snapshot) -> set[str]:
    """The columns of both sides whose type is another one, not only a longer or shorter one."""
    return {
        name
        for name, now, then in _both(source, target)
        if (losses.base(now.type), now.collation) != (losses.base(then.type), then.collation)
    }


def remade(source: Snapshot, target: Snapshot) -> set[str]:
    """The columns that no statement can change: they become generated ones, or what they are generated from is another."""
    changed = {name for name, now, then in _both(source, target) if (now.type, now.collation) != (then.type, then.collation)}
    return {
        name
        for name, now, then in _both(source, target)
        if then.generated and (now.generated != then.generated or _stands_on(name, then.generated, changed))
    }


def _stands_on(name: str, generated: str, changed: set[str]) -> bool:
    """Whether a generated column's expression uses a changed column of its table."""
    table = split(name)[0]
    return any(split(each)[0] == table and mentions(generated, split(each)[1]) for each in changed - {name})


def definition(name: str, side: Snapshot) -> str:
    """A column as CREATE TABLE says it, behind its name."""
    column = fields.column(side, name)
    required = " NOT NULL" if column.not_null else ""
    if _is_serial(name, side):
        return SERIALS[column.type] + required
    said = column.type + (f" COLLATE {column.collation}" if column.collation else "")
    if column.generated:
        said += f" GENERATED ALWAYS AS ({column.generated}) STORED"
    elif column.identity:
        said += f" GENERATED {column.identity} AS IDENTITY{_identity_options(name, column.type, side)}"
    elif column.default:
        said += f" DEFAULT {column.default}"
    return said + required


def alter(name: str, source: Snapshot, target: Snapshot, casts: Casts) -> Change:
    """From one definition of a column to another."""
    now, then = (fields.column(side, name) for side in (source, target))
    table, column = split(name)
    sql = f"ALTER TABLE {table} ALTER COLUMN {column}"
    shown, change = plain(name).removeprefix("public."), Change()
    changes_type = (now.type, now.collation) != (then.type, then.collation)
    if now.identity and not then.identity:
        change.before.append(f"{sql} DROP IDENTITY")
    if now.default and (changes_type or not then.default):  # the old default may not fit the new type
        change.before.append(f"{sql} DROP DEFAULT")
    if now.generated and not then.generated:
        change.before.append(f"{sql} DROP EXPRESSION")
    if now.not_null and not then.not_null:
        change.middle.append((f"{sql} DROP NOT NULL", ""))
    if changes_type:
        collate = f" COLLATE {then.collation}" if then.collation else ""
        using = "" if now.generated else _using(column, now.type, then.type, source, target, casts)
        retype = f"{sql} TYPE {then.type}{collate}{using}"
        change.middle.append((retype, f"{retype}: {REWRITES}" if losses.rewrites(now.type, then.type) else ""))
    if then.not_null and not now.not_null:
        change.middle.append((f"{sql} SET NOT NULL", f"alter column {shown}: {FILL_FIRST}"))
    if then.default and (changes_type or now.default != then.default):
        change.after.append(f"{sql} SET DEFAULT {then.default}")
    if now.identity and then.identity and now.identity != then.identity:
        change.after.append(f"{sql} SET GENERATED {then.identity}")
    if then.identity and not now.identity:
        options = _identity_options(name, then.type, target)
        change.after.append(f"{sql} ADD GENERATED {then.identity} AS IDENTITY{options}")
        change.after += [_go_on(sequence, name) for sequence, _ in _sequences(name, target)]
    if now.comment != then.comment:
        change.after.append(f"COMMENT ON COLUMN {table}.{column} IS {then.comment or 'NULL'}")
    return change


def _using(column: str, old: str, new: str, source: Snapshot, target: Snapshot, casts: Casts) -> str:
    """Nothing where PostgreSQL makes one type of the other by itself: it then refuses what does not fit, and a cast that is
    said would cut it. For the same reason a cast is to the type without its length.
    """
    one, other = _under(old, source), _under(new, target)
    is_enum = [
        _definition(each.removesuffix("[]"), side).startswith("enum ") for each, side in ((old, source), (new, target))
    ]
    if all(is_enum):
        text = "text[]" if old.endswith("[]") else "text"
        return f" USING {column}::{text}::{new}"
    if losses.base(one) == losses.base(other) or casts(losses.base(one), losses.base(other)):
        return ""
    longest = "bit varying" if losses.base(other) == "bit" else losses.base(other)
    return f" USING {column}::{longest if not is_enum[1] else new}"


def _under(name: str, side: Snapshot) -> str:
    """The type, for a domain the one under it."""
    found = _definition(name, side)
    return _under(found.removeprefix("domain "), side) if found.startswith("domain ") else name


def _definition(name: str, side: Snapshot) -> str:
    """What a type is made of; "" for one of PostgreSQL's own."""
    return head(side.get(f"type {name if split(name)[0] else f'public.{name}'}"))


# sequences


def _sequences(column: str, side: Snapshot) -> Iterator[tuple[str, Sequence]]:
    """The sequences of a column."""
    return ((name, each) for name, each in fields.each(side, Sequence) if column in (each.owned_by, each.identity_of))


def _is_usual(sequence: str, column: str, kind: str, options: str) -> bool:
    """Whether a sequence is as PostgreSQL makes it for a column when nothing else is said."""
    table, last = split(column)
    schema, bare = split(table)
    usual = f"AS {kind} INCREMENT BY 1 MINVALUE 1 MAXVALUE {LARGEST.get(kind)} START WITH 1 CACHE 1 NO CYCLE"
    return plain(sequence) == plain(f"{schema}.") + f"{plain(bare)}_{plain(last)}_seq" and options == usual


def _is_serial(column: str, side: Snapshot) -> bool:
    found = fields.column(side, column)
    return any(
        sequence.owned_by
        and found.default == f"nextval('{name.removeprefix('public.')}'::regclass)"
        and _is_usual(name, column, found.type, sequence.text)
        for name, sequence in _sequences(column, side)
    )


def _identity_options(column: str, kind: str, side: Snapshot) -> str:
    for name, sequence in _sequences(column, side):
        if not _is_usual(name, column, kind, sequence.text):
            return f" (SEQUENCE NAME {name} INCREMENT{sequence.text.partition('INCREMENT')[2]})"
    return ""


def _go_on(sequence: str, name: str) -> str:
    """Numbers that are taken are not given again."""
    table, column = split(name)
    quoted = sequence.replace("'", "''")
    return f"SELECT setval('{quoted}', max({column})) FROM {table} HAVING max({column}) IS NOT NULL"  # noqa: S608


def sequence(
    name: str, before: Sequence | None, after: Sequence | None, source: Snapshot, target: Snapshot
) -> Iterator[tuple[str, str]]:
    """Statements for a sequence, each with when it is its turn: "first"; "between" the old default of its column and the new
    one; "last"; at the very "end".
    """
    if after and after.identity_of:  # it comes with its column
        if before and before.identity_of and before.text != after.text:
            yield "last", f"ALTER SEQUENCE {name} {after.text}"
        elif before and not before.identity_of:
            yield "between", f"DROP SEQUENCE {name}"
        return
    former = before.owned_by if before else None
    existing = before if before and not before.identity_of else None
    if not after:
        if existing and (not former or f"column {former}" in target):
            yield "end", f"DROP SEQUENCE IF EXISTS {name}"
        return
    owner = after.owned_by
    if not existing and owner and f"column {owner}" not in source and _is_serial(owner, target):
        return  # it is made with its column
    if not existing:
        yield "between" if before else "first", f"CREATE SEQUENCE {name} {after.text}"
    elif existing.text != after.text:
        yield "last", f"ALTER SEQUENCE {name} {after.text}"
    if owner != (former if existing else None):
        yield "last", f"ALTER SEQUENCE {name} OWNED BY {owner or 'NONE'}"
    if not existing and owner and f"column {owner}" in source:
        yield "last", _go_on(name, owner)

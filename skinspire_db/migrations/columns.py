"""Statements for columns, and for the sequences that number them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from skinspire_db.catalog.definitions import Snapshot, plain, properties, split
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
    return [
        split(name)[1]
        for key in side
        if key.startswith(f"column {table}.") and split(name := key.removeprefix("column "))[0] == table
    ]


def mentions(sql: str, column: str) -> bool:
    """Whether an expression may use the column. A false yes costs only an object that is made again."""
    return re.search(rf"(?<![\w\"]){re.escape(column)}(?![\w\"])", sql) is not None


def retyped(source: Snapshot, target: Snapshot) -> set[str]:
    """The columns of both sides whose type is another one, not only a longer or shorter one."""
    return {
        key.removeprefix("column ")
        for key in source.keys() & target.keys()
        if key.startswith("column ") and losses.base(_type_of(source[key])) != losses.base(_type_of(target[key]))
    }


def _type_of(definition: str) -> str:
    facts = properties(definition)
    return f"{facts['is']} {facts['collate']}" if "collate" in facts else facts["is"]


def remade(source: Snapshot, target: Snapshot) -> set[str]:
    """The columns that no statement can change: they become generated ones, or what they are generated from is another."""
    found = set()
    for key in source.keys() & target.keys():
        if not key.startswith("column "):
            continue
        name = key.removeprefix("column ")
        then = properties(target[key]).get("generated")
        if then is not None and (properties(source[key]).get("generated") != then or _stands_on(name, then, source, target)):
            found.add(name)
    return found


def _stands_on(name: str, generated: str, source: Snapshot, target: Snapshot) -> bool:
    table = split(name)[0]
    for column in of_table(source, table):
        after = target.get(f"column {table}.{column}")
        changes = after is not None and _type_of(after) != _type_of(source[f"column {table}.{column}"])
        if changes and f"{table}.{column}" != name and mentions(generated, column):
            return True
    return False


def definition(name: str, side: Snapshot) -> str:
    """A column as CREATE TABLE says it, behind its name."""
    facts = properties(side[f"column {name}"])
    required = " NOT NULL" if "not null" in facts else ""
    if _is_serial(name, side):
        return SERIALS[facts["is"]] + required
    said = facts["is"] + (f" COLLATE {facts['collate']}" if "collate" in facts else "")
    if "generated" in facts:
        said += f" GENERATED ALWAYS AS ({facts['generated']}) STORED"
    elif "identity" in facts:
        said += f" GENERATED {facts['identity']} AS IDENTITY{_identity_options(name, facts['is'], side)}"
    elif "default" in facts:
        said += f" DEFAULT {facts['default']}"
    return said + required


def alter(name: str, source: Snapshot, target: Snapshot, casts: Casts) -> Change:
    """From one definition of a column to another."""
    now, then = (properties(side[f"column {name}"]) for side in (source, target))
    table, column = split(name)
    sql = f"ALTER TABLE {table} ALTER COLUMN {column}"
    shown, change = plain(name).removeprefix("public."), Change()
    changes_type = any(now.get(each) != then.get(each) for each in ("is", "collate"))
    if "identity" in now and "identity" not in then:
        change.before.append(f"{sql} DROP IDENTITY")
    if "default" in now and (changes_type or "default" not in then):  # the old default may not fit the new type
        change.before.append(f"{sql} DROP DEFAULT")
    if "generated" in now and "generated" not in then:
        change.before.append(f"{sql} DROP EXPRESSION")
    if "not null" in now and "not null" not in then:
        change.middle.append((f"{sql} DROP NOT NULL", ""))
    if changes_type:
        collate = f" COLLATE {then['collate']}" if "collate" in then else ""
        using = "" if "generated" in now else _using(column, now["is"], then["is"], source, target, casts)
        retype = f"{sql} TYPE {then['is']}{collate}{using}"
        rewrites = losses.rewrites(now["is"], then["is"])
        change.middle.append((retype, f"{retype}: {REWRITES}" if rewrites else ""))
    if "not null" in then and "not null" not in now:
        change.middle.append((f"{sql} SET NOT NULL", f"alter column {shown}: {FILL_FIRST}"))
    if "default" in then and (changes_type or now.get("default") != then["default"]):
        change.after.append(f"{sql} SET DEFAULT {then['default']}")
    if "identity" in now and "identity" in then and now["identity"] != then["identity"]:
        change.after.append(f"{sql} SET GENERATED {then['identity']}")
    if "identity" in then and "identity" not in now:
        change.after.append(
            f"{sql} ADD GENERATED {then['identity']} AS IDENTITY{_identity_options(name, then['is'], target)}"
        )
        change.after += [_go_on(sequence, name) for sequence, _ in _sequences(name, target)]
    if now.get("comment") != then.get("comment"):
        change.after.append(f"COMMENT ON COLUMN {table}.{column} IS {then.get('comment', 'NULL')}")
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
    return _under(found.splitlines()[0].removeprefix("domain "), side) if found.startswith("domain ") else name


def _definition(name: str, side: Snapshot) -> str:
    return side.get(f"type {name if split(name)[0] else f'public.{name}'}", "")


# sequences


def _sequences(column: str, side: Snapshot) -> Iterator[tuple[str, dict[str, str]]]:
    """The sequences of a column, with their facts."""
    for key, text in side.items():
        if key.startswith("sequence ") and column in text:
            facts = properties(text)
            if facts.get("owned by") == column or facts.get("identity") == f"of {column}":
                yield key.removeprefix("sequence "), facts


def _is_usual(sequence: str, column: str, kind: str, options: str) -> bool:
    """Whether a sequence is as PostgreSQL makes it for a column when nothing else is said."""
    table, last = split(column)
    schema, bare = split(table)
    usual = f"AS {kind} INCREMENT BY 1 MINVALUE 1 MAXVALUE {LARGEST.get(kind)} START WITH 1 CACHE 1 NO CYCLE"
    return plain(sequence) == plain(f"{schema}.") + f"{plain(bare)}_{plain(last)}_seq" and options == usual


def _is_serial(column: str, side: Snapshot) -> bool:
    facts = properties(side[f"column {column}"])
    return any(
        "owned by" in own
        and facts.get("default") == f"nextval('{name.removeprefix('public.')}'::regclass)"
        and _is_usual(name, column, facts["is"], own["is"])
        for name, own in _sequences(column, side)
    )


def _identity_options(column: str, kind: str, side: Snapshot) -> str:
    for name, facts in _sequences(column, side):
        if not _is_usual(name, column, kind, facts["is"]):
            return f" (SEQUENCE NAME {name} INCREMENT{facts['is'].partition('INCREMENT')[2]})"
    return ""


def _go_on(sequence: str, name: str) -> str:
    """Numbers that are taken are not given again."""
    table, column = split(name)
    quoted = sequence.replace("'", "''")
    return f"SELECT setval('{quoted}', max({column})) FROM {table} HAVING max({column}) IS NOT NULL"  # noqa: S608


def sequence(name: str, before: str, after: str, source: Snapshot, target: Snapshot) -> Iterator[tuple[str, str]]:
    """Statements for a sequence, each with when it is its turn: "first"; "between" the old default of its column and the new
    one; "last"; at the very "end".
    """
    now, then = properties(before), properties(after)
    if "identity" in then:  # it comes with its column
        if "identity" in now and now["is"] != then["is"]:
            yield "last", f"ALTER SEQUENCE {name} {then['is']}"
        elif before and "identity" not in now:
            yield "between", f"DROP SEQUENCE {name}"
        return
    owner, former = then.get("owned by", ""), now.get("owned by", "")
    exists = bool(before) and "identity" not in now
    if not after:
        if "identity" not in now and (not former or f"column {former}" in target):
            yield "end", f"DROP SEQUENCE IF EXISTS {name}"
        return
    if not exists and owner and f"column {owner}" not in source and _is_serial(owner, target):
        return  # it is made with its column
    if not exists:
        yield "between" if before else "first", f"CREATE SEQUENCE {name} {then['is']}"
    elif now["is"] != then["is"]:
        yield "last", f"ALTER SEQUENCE {name} {then['is']}"
    if owner != (former if exists else ""):
        yield "last", f"ALTER SEQUENCE {name} OWNED BY {owner or 'NONE'}"
    if not exists and owner and f"column {owner}" in source:
        yield "last", _go_on(name, owner)

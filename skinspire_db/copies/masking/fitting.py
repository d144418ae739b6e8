"""Whether masked rows keep to the conditions and keys of their tables, tried on the source before anything is copied."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.copies.masking import named, types
from skinspire_db.copies.masking.catalogue import Check, Column, Key, Place
from skinspire_db.copies.masking.components import minimal_keys
from skinspire_db.copies.masking.plan import LITERAL, NUMBER, Mask, Plan, of_list
from skinspire_db.copies.masking.types import Wish

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SAMPLE = 500  # rows of each table on which conditions are tried; PostgreSQL itself tries them on all when they are copied
MOST = 1000  # values that are tried for a list of numbers
SAFE_ITEM = re.compile(r'(lower|upper)\(\(?"?[^()"]+"?\)?(::text)?\)|"?[^()"]+"?')
NOT_NULL_ONLY = re.compile(r"\(?\(?\"?[^()\"]+\"? IS NOT NULL\)?\)?")
Alternative = dict[Place, Mask]


def fit(connection: Connection, plan: Plan) -> None:
    """Try the plan on the source: give columns without a rule another mask where a condition needs it, and refuse the rest.

    Args:
        connection: a session of the source with the secret, in a transaction that only reads.
        plan: is changed.
    """
    before = dict(plan.masks)
    for column in plan.catalogue.columns.values():
        if types.has_conditions(plan.catalogue, column.type):
            # Printing a value makes PostgreSQL cast it; the cast is what is tried.
            tried = f"octet_length(format('%s', {objects.quoted_name(column.name)})) >= 0"
            domain = Check(f"the condition of {column.declared}", (column.place[1],), tried)
            plan.catalogue.checks[column.place[0]] = [*plan.catalogue.checks.get(column.place[0], ()), domain]
    for columns, check in _checks(plan):
        if not _holds(connection, plan, columns, check):
            _adapt(connection, plan, columns, check)
    if plan.masks != before and not plan.refusals:  # a mask that changed for one table is that of other tables' keys, too
        for columns, check in _checks(plan):
            if not _holds(connection, plan, columns, check):
                _refuse(plan, columns, check)
    for table, columns in plan.catalogue.tables().items():
        if columns[0].table_name in plan.dropped:
            continue
        for key in minimal_keys(plan.catalogue, table):
            if _at_risk(plan, table, key) and _doubles(connection, plan, columns, key):
                plan.refusals.append(f"two masked rows of {columns[0].table_name} would be equal in its key {key.name}")


def _checks(plan: Plan) -> Iterator[tuple[list[Column], Check]]:
    """The columns of each table whose rows are copied, with each of its conditions that masks could break."""
    for table, columns in plan.catalogue.tables().items():
        if columns[0].table_name not in plan.dropped:
            yield from (
                (columns, check) for check in plan.catalogue.checks.get(table, ()) if _concerns(plan, table, check.columns)
            )


def _concerns(plan: Plan, table: int, numbers: tuple[int, ...]) -> bool:
    """Whether the columns are read through masks, and all of them are known; a generated one is not."""
    masks = [plan.masks.get((table, number)) for number in numbers]
    return all(masks) and any(mask.changes for mask in masks if mask)


def _holds(
    connection: Connection, plan: Plan, columns: list[Column], check: Check, instead: Alternative | None = None
) -> bool:
    columns = [column for column in columns if column.place[1] in check.columns]
    query = f"SELECT coalesce(bool_and(({check.condition}) IS NOT FALSE), true) FROM ({rows(plan, columns, instead or {}, SAMPLE)}) AS m"
    return _tried(connection, query) is True


def rows(plan: Plan, columns: list[Column], instead: Alternative, limit: int = 0, *, text: bool = False) -> str:
    """The query of the rows of a table as they would be copied.

    Args:
        plan: their masks.
        columns: the columns of one table.
        instead: masks that are tried in place of the plan's.
        limit: how many rows; 0 for all.
        text: all values as text.
    """
    shown = []
    for column in columns:
        mask = instead.get(column.place) or plan.masks[column.place]
        as_text = "::text" if text else ""
        shown.append(f"({mask.sql})::{column.declared}{as_text} AS {objects.quoted_name(column.name)}")
    table = objects.quoted_name(columns[0].schema, columns[0].table)
    return f"SELECT {', '.join(shown)} FROM ONLY {table} AS t" + (f" LIMIT {limit}" if limit else "")


def _tried(connection: Connection, query: str) -> object:
    """What a query answers; None where PostgreSQL refuses a value, or the query."""
    import psycopg

    try:
        with connection.transaction():
            row = connection.execute(query.encode()).fetchone()
            return row[0] if row else None
    except (psycopg.DataError, psycopg.IntegrityError, psycopg.ProgrammingError):
        return None


def _adapt(connection: Connection, plan: Plan, columns: list[Column], check: Check) -> None:
    """Give columns of a condition other masks, under which it and the other conditions of the table hold."""
    table = columns[0].place[0]
    others = [
        each
        for each in plan.catalogue.checks.get(table, ())
        if set(each.columns) & set(check.columns) and _concerns(plan, table, each.columns)
    ]
    for instead in _alternatives(connection, plan, columns, check):
        if all(
            _holds(connection, plan, columns, each, instead)
            for each in (check, *(each for each in others if each is not check))
        ):
            plan.masks |= {place: replace(mask, origin=plan.masks[place].origin) for place, mask in instead.items()}
            return
    _refuse(plan, columns, check)


def _refuse(plan: Plan, columns: list[Column], check: Check) -> None:
    table = columns[0].place[0]
    fixed = next(
        (plan.masks[table, n].origin for n in check.columns if plan.masks[table, n].origin and plan.masks[table, n].changes),
        "",
    )
    names = ", ".join(column.name for column in columns if column.place[1] in check.columns)
    plan.refusals.append(
        (f"{fixed}: " if fixed else "") + f"masked rows of {columns[0].table_name} would break {check.name}, on {names}"
    )


def _alternatives(connection: Connection, plan: Plan, columns: list[Column], check: Check) -> Iterator[Alternative]:
    """Other masks for the columns of a condition that have no rule, the ones that tell most of the column's shape first."""
    free = [column for column in columns if column.place[1] in check.columns and _is_free(plan, column)]
    dates = {
        column.place: _as_unique(plan, column)
        for column in free
        if types.resolved(plan.catalogue, column.type).known in named.FITS["date"]
    }
    if dates:
        yield dates
    makers: list[Callable[[Column], Mask | None]] = [
        lambda column: _formatted(plan, column),
        lambda column: _listed(connection, plan, column, check),
        lambda column: None if column.not_null else Mask("null", "NULL"),
    ]
    for make in makers:
        for column in free:
            if mask := make(column):
                group = [plan.catalogue.columns[place] for place in plan.groups[column.place]]
                if len(group) == 1:
                    yield {column.place: mask}
                elif mask.name != "null":
                    masks = {each.place: made for each in group if (made := make(each))}
                    if len(masks) == len(group):  # the same values have the same mask everywhere
                        yield masks


def _is_free(plan: Plan, column: Column) -> bool:
    return all(plan.masks[place].by_type for place in plan.groups[column.place])


def _as_unique(plan: Plan, column: Column) -> Mask:
    found = types.default(plan.catalogue, column.type, column.modifier, column.quoted, Wish(unique=True))
    assert found
    return Mask(*found, injective=True)


def _formatted(plan: Plan, column: Column) -> Mask | None:
    """Digits for digits, and letters for letters."""
    if types.resolved(plan.catalogue, column.type).known not in types.TEXTS:
        return None
    wish = types.limited(plan.catalogue, column.type, column.modifier, Wish(unique=True, formatted=True))
    found = types.default(plan.catalogue, column.type, column.modifier, column.quoted, wish)
    return Mask(*found, injective=True) if found else None


def _listed(connection: Connection, plan: Plan, column: Column, check: Check) -> Mask | None:
    """One of those values that the condition itself names, or of the numbers between them, that it allows."""
    if check.columns != (column.place[1],) or len(plan.groups[column.place]) > 1:
        return None
    texts = [each.replace("''", "'") for each in LITERAL.findall(check.condition)]
    numbers = sorted({int(each) for each in NUMBER.findall(LITERAL.sub("", check.condition))})
    if numbers and numbers[-1] - numbers[0] <= MOST:
        texts += [str(number) for number in range(min(numbers[0], 0) - 1, numbers[-1] + 2)][:MOST]
    name, good = objects.quoted_name(column.name), []
    for text in dict.fromkeys(texts):
        value = f"SELECT CAST({named.literal(text)} AS {column.declared}) AS {name}"
        if _tried(connection, f"SELECT ({check.condition}) IS TRUE FROM ({value}) AS m") is True:
            good.append(text)
    return of_list(column, good) if good else None


def _at_risk(plan: Plan, table: int, key: Key) -> bool:
    """Whether masks could make two rows equal that differ."""
    masks = [mask for number in key.reads | set(key.columns) if (mask := plan.masks.get((table, number)))]
    if not any(mask.changes for mask in masks) or any((table, number) not in plan.masks for number in key.reads):
        return False
    plain = all(SAFE_ITEM.fullmatch(item) for item in key.items)
    whole = not key.predicate or NOT_NULL_ONLY.fullmatch(key.predicate) is not None
    return not (plain and whole and all(mask.injective or not mask.changes for mask in masks))


def _doubles(connection: Connection, plan: Plan, columns: list[Column], key: Key) -> bool:
    nulls = "" if key.nulls_equal else " AND ".join(f"({item}) IS NOT NULL" for item in key.items)
    where = " AND ".join(f"({each})" for each in (key.predicate, nulls) if each) or "true"
    items = ", ".join(f"({item})" for item in key.items)
    columns = [column for column in columns if column.place[1] in key.reads | set(key.columns)]
    query = f"SELECT EXISTS (SELECT FROM ({rows(plan, columns, {})}) AS m WHERE {where} GROUP BY {items} HAVING count(*) > 1)"
    return not key.excludes and _tried(connection, query) is not False

"""Whether masked rows keep to the conditions and keys of their tables, tried on the source before anything is copied."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from skinspire_db.catalog import objects
from skinspire_db.copies.masking import named, types
from skinspire_db.copies.masking.catalogue import BOUNDS, Check, Column, Key, Place
from skinspire_db.copies.masking.components import minimal_keys
from skinspire_db.copies.masking.plan import LITERAL, NUMBER, Mask, Plan, of_list
from skinspire_db.copies.masking.types import Wish
from skinspire_db.patterns import lazy_regex

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

SAMPLE = 500  # rows of each table on which conditions are tried; PostgreSQL itself tries them on all when they are copied
COMBINED = 30  # ways of masking all columns of a condition that are tried
MOST = 1000  # values that are tried for a list of numbers
SAFE_ITEM = lazy_regex(r'(lower|upper)\(\(?"?[^()"]+"?\)?(::text)?\)|"?[^()"]+"?')
NOT_NULL_ONLY = lazy_regex(r"\(?\(?\"?[^()\"]+\"? IS NOT NULL\)?\)?")
Alternative = dict[Place, Mask]


def fit(connection: Connection, plan: Plan) -> None:
    """Try the plan on the source: give columns without a rule another mask where a condition needs it, and refuse the rest.

    Args:
        connection: a session of the source with the secret, in a transaction that only reads.
        plan: is changed.
    """
    before = dict(plan.masks)
    for column in plan.catalogue.columns.values():
        if conditions := types.conditions(plan.catalogue, column.type):
            # Printing a value makes PostgreSQL cast it; the cast is what is tried.
            tried = f"octet_length(format('%s', {objects.quoted_name(column.name)})) >= 0"
            domain = Check(f"the condition of {column.declared}", (column.place[1],), tried, conditions)
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
    """Other masks for the columns of a condition that have no rule: of one of them, the ones that tell most of its shape
    first, and then of all of them.
    """
    free = [column for column in columns if column.place[1] in check.columns and _is_free(plan, column)]
    dates = {
        place: _as_unique(plan, plan.catalogue.columns[place])
        for column in free
        if types.resolved(plan.catalogue, column.type).known in named.FITS["date"]
        for place in plan.groups[column.place]
    }
    if dates:
        yield dates
    makers: list[Callable[[Column], Alternative]] = [
        lambda column: _of_group(plan, column, lambda each: _formatted(plan, each)),
        lambda column: _listed(connection, plan, column, check),
        lambda column: _of_group(plan, column, lambda each: None if each.not_null else Mask("null", "NULL", by_type=True)),
    ]
    options = [[found for make in makers if (found := make(column))] for column in free]
    yield from (each for several in itertools.zip_longest(*options) for each in several if each)
    for several in itertools.islice(itertools.product(*options), COMBINED if free[1:] else 0):
        yield {place: mask for each in several for place, mask in each.items()}


def _of_group(plan: Plan, column: Column, make: Callable[[Column], Mask | None]) -> Alternative:
    """The mask for all columns that hold the same values as this one; nothing where it does not fit one of them."""
    group = plan.groups[column.place]
    masks = {place: mask for place in group if (mask := make(plan.catalogue.columns[place]))}
    return masks if len(masks) == len(group) else {}


def _is_free(plan: Plan, column: Column) -> bool:
    return all(plan.masks[place].by_type for place in plan.groups[column.place])


def _as_unique(plan: Plan, column: Column) -> Mask:
    found = types.default(plan.catalogue, column.type, column.modifier, column.quoted, Wish(unique=True))
    assert found
    return Mask(*found, injective=True)


def _formatted(plan: Plan, column: Column) -> Mask | None:
    """Digits for digits and letters for letters, also in the parts of a value."""
    is_text = types.resolved(plan.catalogue, column.type).known in types.TEXTS
    wish = types.limited(plan.catalogue, column.type, column.modifier, Wish(unique=is_text, formatted=True))
    found = types.default(plan.catalogue, column.type, column.modifier, column.quoted, wish)
    return Mask(*found, injective=is_text) if found and found[1] != plan.masks[column.place].sql else None


def _listed(connection: Connection, plan: Plan, column: Column, check: Check) -> Alternative:
    """One of those values that the condition itself names, or of the numbers between them, that it allows, beside the other
    values of a row. What the bounds of a partition name is for this partition, others have their own.
    """
    named_values = f"{check.condition} {check.names}"
    texts = [each.replace("''", "'") for each in LITERAL.findall(named_values)]
    numbers = sorted({int(each) for each in NUMBER.findall(LITERAL.sub("", named_values))})
    texts += map(str, numbers)
    if numbers and numbers[-1] - numbers[0] <= MOST:
        texts += [str(number) for number in range(min(numbers[0], 0) - 1, numbers[-1] + 2)][:MOST]
    others = [plan.catalogue.columns[column.place[0], number] for number in check.columns if number != column.place[1]]
    row = "".join(f", t.{objects.quoted_name(each.name)}" for each in others)
    if others:
        row += f" FROM ONLY {objects.quoted_name(column.schema, column.table)} AS t LIMIT 1"
    name, found = objects.quoted_name(column.name), []
    for text in dict.fromkeys(texts):
        value = f"SELECT CAST({named.literal(text)} AS {column.declared}) AS {name}{row}"
        found.append(_tried(connection, f"SELECT ({name})::text FROM ({value}) AS m WHERE {check.condition}"))
    good = [text for text in dict.fromkeys(found) if isinstance(text, str)]  # as the type writes them
    if check.name != BOUNDS:
        return _of_group(plan, column, lambda each: of_list(each, good) if good else None)
    parts = next((set(parts) for parts in plan.catalogue.parts.values() if column.table_name in parts), set())
    alone = all(plan.catalogue.columns[place].table_name in parts for place in plan.groups[column.place])
    return {column.place: replace(of_list(column, good), injective=False)} if good and alone else {}


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

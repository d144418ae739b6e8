"""The plan of a masked copy: for each column the mask that serves, or why none can."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from skinspire_db.catalog.objects import TOOLS_SCHEMA
from skinspire_db.copies.copied_tables import Reading, Table
from skinspire_db.copies.masking import expressions, named, types
from skinspire_db.copies.masking.catalogue import Catalogue, Check, Column, Place
from skinspire_db.copies.masking.components import components, minimal_keys
from skinspire_db.copies.masking.rules import Rule, Rules
from skinspire_db.copies.masking.types import Wish
from skinspire_db.errors import UsageError
from skinspire_db.patterns import lazy_regex

DROPPED = {f"{TOOLS_SCHEMA}.stamp", f"{TOOLS_SCHEMA}.journal"}
LITERAL = lazy_regex(r"'((?:[^']|'')*)'")
NUMBER = lazy_regex(r"(?<![\w.'])-?\d+(?![\w.'])")
NO_LIST = lazy_regex(r"~|<|>|\blength\b", re.IGNORECASE)
PREPARED = 8 << 20  # bytes of a table in which preparing its expressions takes less time than it saves


@dataclass(frozen=True)
class Mask:
    """What a column is read as: `sql` is of the column's type.

    Attributes:
        name: the mask's name.
        sql: the expression.
        origin: where the rule is, "" for a default.
        injective: two values never become one.
        by_type: it is the type's, and another one may take its place where a condition needs that.
    """

    name: str
    sql: str
    origin: str = ""
    injective: bool = False
    by_type: bool = False

    @property
    def changes(self) -> bool:
        """Whether the value is another one."""
        return self.name != "keep"


@dataclass
class Plan:
    """The masks of all columns, the tables whose rows stay away, and why the copy is refused.

    Attributes:
        catalogue: what they are planned for.
        masks: for each column its mask.
        groups: for each column the columns of the same values.
        dropped: the names of the tables whose rows stay away.
        refusals: sentences; empty where the copy can begin.
        rules: the rules that it follows.
    """

    catalogue: Catalogue
    rules: Rules
    masks: dict[Place, Mask] = field(default_factory=dict)
    groups: dict[Place, list[Place]] = field(default_factory=dict)
    dropped: set[str] = field(default_factory=set)
    refusals: list[str] = field(default_factory=list)

    def require(self, source: str) -> None:
        """Refuse a copy of the environment `source` that could not be made.

        Raises:
            UsageError: the first reason.
        """
        if self.refusals:
            more = f", and {len(self.refusals) - 1} more" if self.refusals[1:] else ""
            raise UsageError(
                f"it cannot be masked: {self.refusals[0]}{more}",
                remedy=f"correct the rules in sql/masks; invoke mask.check --env={source} shows every column",
            )

    @property
    def sought(self) -> set[Place]:
        """The columns whose values the copy is searched for; values of a list are those of the copy, too."""
        columns = (each for each in self.catalogue.columns.values() if each.table_name not in self.dropped)
        masks = {column.place: self.masks[column.place] for column in columns}
        return {place for place, mask in masks.items() if mask.changes and mask.name != "choice"}

    def table(self, table: Table) -> Table:
        """The table, read through its masks."""
        columns = {column.name: column for column in self.catalogue.named(table.schema, table.name)}
        of_many = expressions.prepared if table.size >= PREPARED else str
        expressions_ = {
            name: f"({of_many(self.masks[column.place].sql)})::{_storage(self.catalogue, column)}"
            for name, column in columns.items()
            if column.place in self.masks and self.masks[column.place].changes
        }
        where = "false" if any(column.table_name in self.dropped for column in columns.values()) else table.reading.where
        by_value = frozenset(name for name in expressions_ if _costs_a_hash(self, columns[name]))
        return replace(table, reading=Reading(expressions_, where, by_value))


def _costs_a_hash(plan: Plan, column: Column) -> bool:
    known = types.resolved(plan.catalogue, column.type).known
    return known in types.TEXTS and plan.masks[column.place].name not in ("null", "constant", "password")


def _storage(catalogue: Catalogue, column: Column) -> str:
    """The type that an expression is cast to: of a domain what it is made of, so that its condition is not run at the source."""
    return (
        column.declared
        if catalogue.types[column.type].kind != "d"
        else catalogue.types[types.resolved(catalogue, column.type).oid].name
    )


def make(catalogue: Catalogue, rules: Rules) -> Plan:
    """Plan a masked copy.

    Args:
        catalogue: the source's columns.
        rules: what is declared.
    """
    rules = rules.divided(catalogue.parts)
    plan = Plan(catalogue, rules)
    named_columns = {(column.table_name, column.name): column for column in catalogue.columns.values()}
    names = {column.table_name for column in catalogue.columns.values()}
    _refuse_unknown(plan, named_columns, names)
    plan.dropped = (set(rules.drop_rows) | DROPPED) & names
    more = [
        (named_columns[a].place, named_columns[b].place)
        for a, b in rules.references.items()
        if a in named_columns and b in named_columns
    ]
    unique = {
        (table, n) for table in catalogue.keys for key in minimal_keys(catalogue, table) for n in key.reads or key.columns
    }
    equal = {(table, n) for table, keys in catalogue.keys.items() for key in keys if key.nulls_equal for n in key.columns}
    caseless = {
        (table, n)
        for table, keys in catalogue.keys.items()
        for key in keys
        if key.has_expressions
        for n in key.reads - set(key.columns)
    }
    for group in components(catalogue, more):
        columns = [catalogue.columns[place] for place in group]
        lengths = [
            wish.length
            for column in columns
            if (wish := types.limited(catalogue, column.type, column.modifier, Wish())).length
        ]
        wish = Wish(
            unique=any(place in unique for place in group),
            length=min(lengths, default=None),
            caseless=any(
                place in caseless or types.resolved(catalogue, catalogue.columns[place].type).known == "citext"
                for place in group
            ),
        )
        for column in columns:
            plan.groups[column.place] = group
        _mask_group(plan, columns, wish, equal)
    _refuse_dropped(plan)
    return plan


def _mask_group(plan: Plan, columns: list[Column], wish: Wish, nulls_equal: set[Place]) -> None:
    """Give the columns of the same values the same mask; `null` and `constant` are a column's own."""
    rules = {column.place: rule for column in columns if (rule := plan.rules.columns.get((column.table_name, column.name)))}
    shared = {str(rule.options | {"": rule.mask}): rule for rule in rules.values() if rule.mask not in ("null", "constant")}
    if len(shared) > 1:
        one, other = list(shared.values())[:2]
        places = [plan.catalogue.columns[place] for place, rule in rules.items() if rule in (one, other)]
        plan.refusals.append(
            f"{places[0].full} and {places[1].full} hold the same values, and have the masks {one.mask} and {other.mask}"
        )
    rule = next(iter(shared.values()), None)
    for column in columns:
        own = rules.get(column.place, rule)
        if column.tools:
            own = Rule("keep", {}, "the tools' own tables")
        plan.masks[column.place] = _by_rule(plan, column, own, wish, nulls_equal) if own else _by_default(plan, column, wish)


def _by_rule(plan: Plan, column: Column, rule: Rule, wish: Wish, nulls_equal: set[Place]) -> Mask:
    if not named.fits(plan.catalogue, column, rule.mask):
        plan.refusals.append(f"{rule.origin}: {rule.mask} is no mask for {column.full}, which is of type {column.declared}")
        return Mask("null", "NULL", rule.origin)
    if rule.mask == "null" and (column.not_null or (column.place in nulls_equal)):
        plan.refusals.append(f"{rule.origin}: {column.full} cannot be null")
    if rule.mask == "default" or (rule.mask == "choice" and "values" not in rule.options):
        return replace(_by_default(plan, column, wish), origin=rule.origin)
    by = None
    if rule.mask == "shift" and (person := rule.options.get("by")):
        other = next((c for c in plan.catalogue.columns.values() if (c.place[0], c.name) == (column.place[0], person)), None)
        if other is None:
            plan.refusals.append(
                f"{rule.origin}: {column.table_name} has no column {person}, by which {column.full} is to be shifted"
            )
        by = other.quoted if other else None
    injective = rule.mask in named.INJECTIVE and not by
    injective = injective or (wish.unique and rule.mask in ("phone", "text"))
    return Mask(rule.mask, named.of_rule(plan.catalogue, column, rule, wish, by), rule.origin, injective)


def _by_default(plan: Plan, column: Column, wish: Wish) -> Mask:
    literals = listed(plan.catalogue.checks.get(column.place[0], ()), column)
    if literals and types.resolved(plan.catalogue, column.type).known in types.TEXTS | types.WHOLE:
        return of_list(column, literals)
    found = types.default(plan.catalogue, column.type, column.modifier, column.quoted, wish)
    if found:
        injective = found[0].removesuffix("[]") in named.INJECTIVE | {"choice"} or (found[0] == "bytes" and wish.unique)
        return Mask(found[0], found[1], "", injective, by_type=True)
    if column.not_null:
        plan.refusals.append(f"{column.full} is of type {column.declared}, which no mask is known for, and cannot be null")
    return Mask("null", "NULL", by_type=True)


def of_list(column: Column, literals: list[str]) -> Mask:
    """The mask of a column that takes nothing but the listed values."""
    array = f"ARRAY[{', '.join(map(named.literal, literals))}]::text[]"
    return Mask("choice", named.chosen(column.quoted, array, len(literals)), "", injective=True, by_type=True)


def listed(checks: Iterable[Check], column: Column) -> list[str]:
    """The values that a CHECK allows a column, where it is a list of them; empty where there is none."""
    for check in checks:
        if (
            check.columns == (column.place[1],)
            and not NO_LIST.search(LITERAL.sub("", check.condition))
            and "=" in check.condition
        ):
            texts = [each.replace("''", "'") for each in LITERAL.findall(check.condition)]
            numbers = NUMBER.findall(LITERAL.sub("", check.condition)) if not texts else []
            if found := list(dict.fromkeys(texts or numbers)):
                return found
    return []


def _refuse_unknown(plan: Plan, columns: dict[tuple[str, str], Column], tables: set[str]) -> None:
    for (table, column), rule in plan.rules.columns.items():
        if (table, column) not in columns:
            plan.refusals.append(
                f"{rule.origin}: there is no column {table}.{column}"
                if table in tables
                else f"{rule.origin}: there is no table {table}"
            )
    for one, other in plan.rules.references.items():
        for each in (one, other):
            if each not in columns:
                plan.refusals.append(f"references: there is no column {'.'.join(each)}")
    for table, origin in plan.rules.drop_rows.items():
        if table not in tables:
            plan.refusals.append(f"{origin}: drop_rows names {table}, and there is no such table")


def _refuse_dropped(plan: Plan) -> None:
    """Rows that refer to rows that stay away: the columns that refer must be masked as null."""
    for name, pairs in plan.catalogue.references:
        columns = [(plan.catalogue.columns.get(a), plan.catalogue.columns.get(b)) for a, b in pairs]
        if not all(a and b for a, b in columns):
            continue
        (one, other) = columns[0]
        assert one and other
        kept = other.table_name not in plan.dropped or one.table_name in plan.dropped
        if not kept and not any(plan.masks[a.place].name == "null" for a, _ in columns if a):
            plan.refusals.append(
                f"{one.table_name} refers to {other.table_name}, whose rows stay away, by {name}: name it in drop_rows, or give"
                f" {one.full} the mask null"
            )


def secret_of(value: str | None = None) -> str:
    """The secret of a copy, in hexadecimal digits: 32 random bytes, or the hash of a given text."""
    import hashlib
    import secrets

    return secrets.token_hex(32) if value is None else hashlib.sha256(b"skinspire-db mask:" + value.encode()).hexdigest()


def setting(secret: str) -> str:
    """The option of a connection that gives its session the secret; it is in no statement, and in no program's arguments."""
    return f"-c {expressions.SETTING}={secret}"

"""The masks that rules name, for a column of a type that each fits."""

from __future__ import annotations

import json
from typing import Any

from skinspire_db.copies.masking import expressions, types
from skinspire_db.copies.masking.catalogue import Catalogue, Column
from skinspire_db.copies.masking.rules import Rule
from skinspire_db.copies.masking.types import TEXTS, WHOLE, Wish

# The hash of the password that README.md documents for invented people, by bcrypt at its lowest cost.
PASSWORD = "$2a$04$8ZZ4UYFXLmQ5zjCZ/pe2UusYTgYwG3sDkPS4s5dje/WUO.EE1rNL."  # noqa: S105
FITS = {
    "first_name": TEXTS, "last_name": TEXTS, "full_name": TEXTS, "phone": TEXTS, "email": TEXTS, "address": TEXTS, "text": TEXTS,
    "password": TEXTS, "digits": TEXTS | WHOLE, "number": WHOLE | {"numeric", "money", "float4", "float8"}, "uuid": {"uuid"},
    "date": {"date", "timestamp", "timestamptz"}, "shift": {"date", "timestamp", "timestamptz"}, "json": {"json", "jsonb"},
}  # fmt: skip
INJECTIVE = {"keep", "uuid", "digits", "number", "email", "shift", "code"}  # where two values never become one


def literal(value: object) -> str:
    """A value as an SQL literal: JSON for what is no text."""
    from psycopg import sql

    text = value if isinstance(value, str) else json.dumps(value)
    if text.isascii() and text.isprintable() and "\\" not in text:  # of two thousand tables there are thousands
        return "'" + text.replace("'", "''") + "'"
    return sql.Literal(text).as_string().strip()


def fits(catalogue: Catalogue, column: Column, mask: str) -> bool:
    """Whether a mask can be that of the column, by its type."""
    return mask not in FITS or types.resolved(catalogue, column.type).known in FITS[mask]


def of_rule(catalogue: Catalogue, column: Column, rule: Rule, wish: Wish, by: str | None) -> str:
    """The SQL of a rule's mask, for a column whose type it fits.

    Args:
        catalogue: knows the column's type.
        column: the column.
        rule: the rule.
        wish: what the mask keeps to.
        by: for shift, the SQL of the column that says whose date it is.
    """
    value, known = column.quoted, types.resolved(catalogue, column.type).known
    if rule.mask == "keep":
        return value
    if rule.mask == "null":
        return "NULL"
    if rule.mask == "constant":
        return expressions.constant(value, literal(rule.options["value"]))
    if rule.mask == "choice":
        literals = ", ".join(map(literal, rule.options["values"]))
        return chosen(value, f"ARRAY[{literals}]::text[]", len(rule.options["values"]))
    if rule.mask == "shift":
        unit = "day" if known == "date" else "second"
        return expressions.shifted(value, f"({by})::text" if by else "''", unit)
    if rule.mask == "date":
        return expressions.year(value, known)
    if rule.mask == "json":
        return _json(value, known, rule.options.get("paths") or {})
    if rule.mask in ("digits", "number", "uuid") or (rule.mask == "text" and wish.unique):
        wish = types.Wish(wish.unique, wish.length, wish.caseless, formatted=rule.mask == "digits")
        masked = types.of_base(known, types.modifier_of(catalogue, column), value, wish)
        assert masked
        return masked[1]
    return of_text(rule.mask, f"({value})::text", wish)


def chosen(value: str, literals: str, number: int) -> str:
    """One of the listed texts: the same for the same value, and another one where the value itself is listed."""
    return expressions.choice(f"({value})::text", literals, number)


def of_text(mask: str, value: str, wish: Wish) -> str:
    """The SQL of a mask of a text, cut to the length that the wish allows."""
    caseless = f"lower({value})" if wish.caseless else value
    name = {
        "first_name": expressions.name(caseless),
        "last_name": expressions.name(caseless),
        "full_name": f"{expressions.name(caseless)} || ' ' || {expressions.name(caseless, 'second')}",
        "address": f"get_byte({expressions.hashed(caseless)}, 0) || ' ' || {expressions.name(caseless, 'street')} || ' Street'",
        "phone": expressions.characters(value) if wish.unique else expressions.phone(value),
        "email": _email(caseless, wish),
        "text": expressions.text(value),
        "digits": expressions.characters(value),
        "password": expressions.constant(value, literal(PASSWORD)),
        "keep": value,
        "null": "NULL",
    }[mask]
    return f"left({name}, {wish.length})" if wish.length and mask not in ("keep", "null", "password") else name


def _email(value: str, wish: Wish) -> str:
    domain = "@example.com"
    room = expressions.LONG if wish.length is None else min(expressions.LONG, wish.length - len(domain))
    if room < 4:
        return expressions.text(value)
    return f"{expressions.code(value, room)} || '{domain}'"


def _json(value: str, known: str, paths: dict[str, str]) -> str:
    """A document of the declared paths alone, each leaf masked."""
    tree: dict[str, Any] = {}
    for path, mask in paths.items():
        *above, last = path.split(".")
        node = tree
        for key in above:
            node = node.setdefault(key, {})
            if not isinstance(node, dict):
                break
        else:
            node[last] = mask
    document = f"jsonb_strip_nulls({_built(expressions.document(value, known), tree, [])})"
    return expressions.constant(value, f"({document})::{known}")


def _built(value: str, tree: dict[str, Any], above: list[str]) -> str:
    parts = []
    for key, node in tree.items():
        where = [*above, key]
        path = f"ARRAY[{', '.join(map(literal, where))}]"
        if isinstance(node, dict):
            inner = f"CASE WHEN {value} #> {path} IS NOT NULL THEN {_built(value, node, where)} END"
        elif node == "keep":
            inner = f"{value} #> {path}"
        else:
            # Of a number, an object or a list under the path, its text is masked.
            inner = f"to_jsonb(({of_text(node, f'({value} #>> {path})', Wish())})::text)"
        parts.append(f"{literal(key)}::text, {inner}")
    return f"jsonb_build_object({', '.join(parts)})"

"""What masks a column without a rule: its type, resolved down to one that is known to be safe to make up."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from skinspire_db.copies.masking import expressions
from skinspire_db.copies.masking.catalogue import Catalogue, Column, Type

TEXTS = {"text", "varchar", "bpchar", "citext", "name"}
WHOLE = {"int2", "int4", "int8"}
# Types whose every value becomes one value, and that value as a literal of theirs.
CONSTANTS = {
    "timetz": "00:00+00", "interval": "1 hour", "xml": "<masked/>", "tsvector": "", "tsquery": "masked", "hstore": "",
    "oid": "0", "char": "x", "point": "(0,0)", "box": "(0,0),(0,0)", "lseg": "[(0,0),(0,0)]", "line": "{1,0,0}", "path": "((0,0))",
    "polygon": "((0,0))", "circle": "<(0,0),0>", "ltree": "masked", "lquery": "masked", "ltxtquery": "masked", "cube": "(0)", "seg": "0",
    "jsonpath": "$", "pg_lsn": "0/0", "xid": "0", "xid8": "0", "cid": "0", "tid": "(0,0)", "isbn": "0-00-000000-0",
}  # fmt: skip
NETWORK = {
    "inet": "'fd' || encode(substr({hash}, 1, 1), 'hex') || ':' || encode(substr({hash}, 2, 2), 'hex') || '::' || encode(substr({hash}, 4, 2), 'hex')",
    "cidr": "'fd' || encode(substr({hash}, 1, 1), 'hex') || ':' || encode(substr({hash}, 2, 2), 'hex') || '::/32'",
    "macaddr": "'02' || encode(substr({hash}, 1, 5), 'hex')",
    "macaddr8": "'02' || encode(substr({hash}, 1, 7), 'hex')",
}
KEPT = {"bool"}  # a yes or no tells nothing that could be searched for


@dataclass(frozen=True)
class Wish:
    """What the mask of a value must keep to.

    Attributes:
        unique: two values never become one.
        length: the most characters; None without a limit.
        caseless: values that differ in their case only become one.
        formatted: a text keeps its kinds of characters also where that costs more.
    """

    unique: bool = False
    length: int | None = None
    caseless: bool = False
    formatted: bool = False


def default(catalogue: Catalogue, oid: int, modifier: int, value: str, wish: Wish, depth: int = 0) -> tuple[str, str] | None:
    """The mask of a type.

    Args:
        catalogue: knows the types.
        oid: the type.
        modifier: its modifier, -1 for none.
        value: the SQL of the value.
        wish: what the mask keeps to.
        depth: how many types this one is a part of.

    Returns:
        The mask's name and its SQL, of a type that is cast to the column's; None for a type that is not known.
    """
    type_ = catalogue.types[oid]
    if depth > 8:
        return None
    if type_.kind == "d":
        inner = catalogue.types[type_.base].name
        return default(catalogue, type_.base, type_.modifier, f"({value})::{inner}", wish, depth + 1)
    if type_.kind == "e":
        return ("choice", _labels(type_, value)) if type_.labels else None
    if type_.kind == "r":
        return "empty", expressions.constant(value, f"'empty'::{type_.name}")
    if type_.kind == "m":
        return "empty", expressions.constant(value, f"'{{}}'::{type_.name}")
    if type_.is_array and type_.element:
        return _array(catalogue, type_, modifier, value, wish, depth)
    if type_.kind == "c":
        return _composite(catalogue, type_, value, wish, depth)
    return of_base(type_.known, modifier, value, wish, type_.name)


def of_base(known: str, modifier: int, value: str, wish: Wish, name: str = "") -> tuple[str, str] | None:
    """The mask of a type that is no array and has no parts; arguments as of `default`."""
    if known in KEPT:
        return "keep", value
    if known in TEXTS:
        return _text(known, value, wish)
    if known in WHOLE:
        return "digits", expressions.whole_number(value, int(known[3:]) * 8)
    if known == "numeric":
        scale = (((modifier - 4) & 0x7FF) ^ 1024) - 1024  # eleven bits with a sign, since PostgreSQL 15
        return "number", expressions.numeric(value, min(max(scale, 0), 9) if modifier >= 4 else None)
    if known == "money":
        number = f"({value})::numeric"  # below 9e16, other digits of as many do not go beyond what the type holds
        masked = expressions.numeric(number, 2)
        return "number", f"(CASE WHEN abs({number}) < 9e16 THEN {masked} ELSE sign({number}) * 9e16 END)::money"
    if known in ("float4", "float8"):
        return "number", expressions.real(value, 37 if known == "float4" else 307)
    if known == "uuid":
        return "uuid", expressions.uuid(value)
    if known in ("date", "timestamp", "timestamptz"):
        if wish.unique:
            return "shift", expressions.shifted(value, "''", "day" if known == "date" else "second")
        return "date", expressions.year(value, known)
    if known == "time":
        return "hour", f"date_trunc('hour', ({value})::interval)"
    if known == "bytea":
        hashed = f"sha256({expressions.SECRET} || {value})"
        return "bytes", hashed if wish.unique else expressions.bytes_(value)
    if known in ("json", "jsonb"):
        shape = f"CASE {known}_typeof({value}) WHEN 'array' THEN '[]' WHEN 'object' THEN '{{}}' ELSE 'null' END"
        return "json", expressions.constant(value, f"({shape})::{known}")
    if known in NETWORK:
        return "network", expressions.constant(
            value, f"({NETWORK[known].format(hash=expressions.hashed(f'({value})::text'))})::{known}"
        )
    if known in ("bit", "varbit"):
        return "zero", f"{value} # {value}"
    if known in CONSTANTS:
        return "constant", expressions.constant(value, f"CAST('{CONSTANTS[known]}' AS {name or known})")
    return None


def _text(known: str, value: str, wish: Wish) -> tuple[str, str]:
    plain = f"({value})::text"
    if known == "citext" or wish.caseless:
        plain = f"lower({plain})"
    length = 63 if known == "name" else wish.length
    if wish.formatted or (wish.unique and length is not None and length < 20):
        return "digits", expressions.characters(plain)
    if wish.unique:
        return "code", expressions.code(plain, min(length or 28, 28))
    return "text", expressions.text(plain)


def _labels(type_: Type, value: str) -> str:
    assert type_.labels
    return expressions.choice(value, f"enum_range(NULL::{type_.name})", len(type_.labels))


def _array(catalogue: Catalogue, type_: Type, modifier: int, value: str, wish: Wish, depth: int) -> tuple[str, str]:
    """The elements masked one by one, in their order; of several dimensions one is left."""
    wish = limited(catalogue, type_.element, modifier, dataclasses.replace(wish, length=None))
    item = default(catalogue, type_.element, modifier, f"e{depth}.e", wish, depth + 1)
    if item is None:
        return "empty", expressions.constant(value, f"'{{}}'::{type_.name}")
    element = catalogue.types[type_.element].name
    # unnest() in FROM would take a composite element apart.
    numbered = f"(SELECT s.e, row_number() OVER () FROM (SELECT unnest({value}) AS e) AS s) AS e{depth} (e, i)"
    items = f"SELECT array_agg(({item[1]})::{element} ORDER BY e{depth}.i) FROM {numbered}"
    masked = f"coalesce(({items}), '{{}}')"
    return f"{item[0]}[]", expressions.constant(value, f"({masked})::{type_.name}")


def _composite(catalogue: Catalogue, type_: Type, value: str, wish: Wish, depth: int) -> tuple[str, str]:
    """Each field masked by its own type; one of a type that is not known becomes NULL."""
    items, kept = [], Wish(formatted=wish.formatted)
    for field, oid, modifier in type_.fields or ():
        part = f"({value})." + '"' + field.replace('"', '""') + '"'
        masked = default(catalogue, oid, modifier, part, limited(catalogue, oid, modifier, kept), depth + 1)
        items.append(f"({masked[1]})::{catalogue.types[oid].name}" if masked else "NULL")
    # IS NULL is true for a row of NULLs, too.
    return "fields", f"CASE WHEN {value} IS DISTINCT FROM NULL THEN ROW({', '.join(items)})::{type_.name} END"


def limited(catalogue: Catalogue, oid: int, modifier: int, wish: Wish) -> Wish:
    """The wish with the length of the type: of a domain, that of what it is made of."""
    type_ = resolved(catalogue, oid)
    step = catalogue.types[oid]
    while step.kind == "d":
        modifier, step = step.modifier, catalogue.types[step.base]
    if type_.known in ("varchar", "bpchar") and modifier >= 4:
        return dataclasses.replace(wish, length=modifier - 4)
    return wish


def resolved(catalogue: Catalogue, oid: int) -> Type:
    """The type that a domain is made of, through all its steps; another type is itself."""
    type_ = catalogue.types[oid]
    while type_.kind == "d":
        type_ = catalogue.types[type_.base]
    return type_


def modifier_of(catalogue: Catalogue, column: Column) -> int:
    """The modifier of what the column's type is made of."""
    modifier, type_ = column.modifier, catalogue.types[column.type]
    while type_.kind == "d":
        modifier, type_ = type_.modifier, catalogue.types[type_.base]
    return modifier


def conditions(catalogue: Catalogue, oid: int, depth: int = 0) -> str:
    """The CHECKs of a domain and of the domains that a type is made of, as SQL; empty where there is none."""
    type_ = catalogue.types[oid]
    parts = [type_.base, type_.element, *(part for _, part, _ in type_.fields or ())] if depth < 8 else []
    return (type_.conditions or "") + "".join(
        conditions(catalogue, part, depth + 1) for part in parts if part in catalogue.types
    )

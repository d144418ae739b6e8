"""One meaning in several spellings: PostgreSQL writes some expressions otherwise when it has read its own words again.

`s IN ('a', 'b')` on a varchar column is such a one: a dump and restore, or a revision, makes other text of it than a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Any

from skinspire_db.catalog import fields, objects
from skinspire_db.catalog.definitions import snapshot, split
from skinspire_db.catalog.fields import Column, Definition, Other, Snapshot, Type
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

ROUNDS = 3  # no schema is known for which the second round finds anything
ASIDE = '"spelled again"'
QUOTED = r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\""
NOW = lazy_regex(rf"{QUOTED}|\bCURRENT_TIMESTAMP\b(?!\()|\btransaction_timestamp\(\)")
TODAY = {"date": ("CURRENT_DATE", "now()"), "timestamp without time zone": ("LOCALTIMESTAMP", "now()")}
CONSTANT = lazy_regex(
    r"\(?(?:'(?P<quoted>(?:[^']|'')*)'|(?P<number>-?\d[\d.]*))\)?"
    r"(?:::(?:smallint|integer|bigint|numeric|text|character varying|bpchar))?"
)


class Expected(dict[str, Definition]):
    """A snapshot as the models and files would make it; `spellings` are other words of PostgreSQL's for the same, by key.

    `faults` is what PostgreSQL refuses of the models, and is not in the snapshot: (kind, name, definition, reason) of each.
    """

    def __init__(self, of: Snapshot, spellings: Mapping[str, list[Definition]], faults: Iterable[Sequence[str]] = ()) -> None:
        super().__init__(of)
        self.spellings = spellings
        self.faults = [tuple(each) for each in faults]

    def as_json(self) -> Any:
        """The snapshot as values that JSON has, for `of_json`."""
        return [
            {key: astuple(each) for key, each in self.items()},
            {key: [astuple(each) for each in found] for key, found in self.spellings.items()},
            self.faults,
        ]

    @classmethod
    def of_json(cls, value: Any) -> Expected:
        """The snapshot from what `as_json` made."""
        one, spellings, faults = value
        return cls(
            {key: fields.definition(key, values) for key, values in one.items()},
            {key: [fields.definition(key, values) for values in found] for key, found in spellings.items()},
            faults,
        )


def settled(live: Snapshot, wanted: Snapshot) -> Snapshot:
    """The live snapshot, with what only is spelled otherwise in the words of the wanted one."""
    spellings = wanted.spellings if isinstance(wanted, Expected) else {}
    found = dict(live)
    for key in live.keys() & wanted.keys():
        if live[key] != wanted[key]:
            forms = (wanted[key], *spellings.get(key, ()))
            if _alike(key, live[key]) in {_alike(key, form) for form in forms}:
                found[key] = wanted[key]
    return found


def _alike(key: str, definition: Definition) -> Definition:
    """The definition with one word for the transaction's beginning, and a default that is a constant without its cast."""
    if key.startswith("function "):
        return definition
    alike = definition.mapped(lambda text: NOW.sub(lambda found: found[0] if found[0][0] in "'\"" else "now()", text))
    if isinstance(alike, Column) and alike.default:
        word, meaning = TODAY.get(alike.type, ("", ""))
        if alike.default == word:
            return replace(alike, default=meaning)
        if constant := CONSTANT.fullmatch(alike.default):
            value = constant["number"] if constant["quoted"] is None else constant["quoted"]
            return replace(alike, default=value)
    return alike


def again(connection: Connection, first: Snapshot) -> dict[str, list[Definition]]:
    """Other words for what the database has, as they are after it was dumped and restored, once and again.

    The database is an empty one of our own: what can be spelled otherwise is made anew in it.
    """
    found: dict[str, list[Definition]] = {}
    now = dict(first)
    for _ in range(ROUNDS):
        with search_path.application(connection):
            generated = {key: text for key, sql in _generated(now) if (text := _read_again(connection, key, sql))}
            statements = [*_made_anew(now), *_functions(connection)]
            if not _try(connection, ";\n".join(statements)):  # in one message, where none is refused
                for statement in statements:
                    _try(connection, statement)
        then = snapshot(connection)
        for key, text in generated.items():
            name = key.removeprefix("column ")
            then[key] = replace(fields.column(then, name), generated=text.strip())
        changed = [key for key, definition in now.items() if then.get(key, definition) != definition]
        if not changed:
            break
        for key in changed:
            found.setdefault(key, []).append(then[key])
            now[key] = then[key]
    return found


def _made_anew(now: Snapshot) -> Iterator[str]:
    """Statements that make every object with a cast again: PostgreSQL reads a cast that it added itself in another way."""
    for key, definition in now.items():
        kind, _, name = key.partition(" ")
        if "::" not in str(definition):
            continue
        item, _, table = name.rpartition(" on ")
        head = definition.head
        if kind == "constraint" and head.startswith(("CHECK", "EXCLUDE")):
            yield f"ALTER TABLE {table} DROP CONSTRAINT {item}; ALTER TABLE {table} ADD CONSTRAINT {item} {head}"
        elif kind == "index":
            yield f"DROP INDEX {split(table)[0]}.{item}; {head}"
        elif kind == "trigger":
            yield f"DROP TRIGGER {item} ON {table}; {head}"
        elif kind == "view" and (query := re.fullmatch(r"(materialized )?view(.*)", head, re.DOTALL)):
            word = "VIEW" if query[1] is None else "MATERIALIZED VIEW"
            anew = "CREATE OR REPLACE" if query[1] is None else f"DROP {word} {name}; CREATE"  # not where others need it
            yield f"{anew} {word} {name} AS {query[2]}"
        elif isinstance(definition, Column) and definition.default:
            yield f"ALTER TABLE {split(name)[0]} ALTER {split(name)[1]} SET DEFAULT {definition.default}"
        elif isinstance(definition, Type):
            if definition.default:
                yield f"ALTER DOMAIN {name} SET DEFAULT {definition.default}"
            for constraint, check in definition.constraints:
                added = f"ADD CONSTRAINT {constraint} {check}"
                yield f"ALTER DOMAIN {name} DROP CONSTRAINT {constraint}; ALTER DOMAIN {name} {added}"
        if kind in ("constraint", "trigger") and isinstance(definition, Other) and definition.comment:
            yield f"COMMENT ON {kind} {item} ON {table} IS {definition.comment}"


def _functions(connection: Connection) -> list[str]:
    """Those with a body that PostgreSQL keeps parsed, and writes in its own words."""
    query = (
        "SELECT pg_get_functiondef(p.oid) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"  # noqa: S608
        f" WHERE p.prosqlbody IS NOT NULL AND {objects.USER_SCHEMA}"
    )
    return [text for (text,) in connection.execute(query).fetchall()]


def _generated(now: Snapshot) -> Iterator[tuple[str, str]]:
    """Generated columns, each with the statement that makes another such column beside it."""
    for name, column in fields.each(now, Column):
        if "::" in (column.generated or ""):
            table = split(name)[0]
            yield (
                f"column {name}",
                f"ALTER TABLE {table} ADD {ASIDE} {column.type} GENERATED ALWAYS AS ({column.generated}) STORED",
            )


def _read_again(connection: Connection, key: str, statement: str) -> str | None:
    table = split(key.removeprefix("column "))[0]
    if not _try(connection, statement):
        return None
    row = connection.execute(
        "SELECT pg_get_expr(d.adbin, d.adrelid) FROM pg_attrdef d JOIN pg_attribute a ON (a.attrelid, a.attnum)"
        " = (d.adrelid, d.adnum) WHERE a.attrelid = %s::regclass AND a.attname = %s",
        (table, ASIDE.strip('"')),
    ).fetchone()
    connection.execute(f"ALTER TABLE {table} DROP COLUMN {ASIDE}".encode())
    return str(row[0]) if row else None


def _try(connection: Connection, statement: str) -> bool:
    """Run it, or leave all as it is: what cannot be made anew alone has no other words."""
    import psycopg

    try:
        with connection.transaction():  # a savepoint
            connection.execute(statement.encode())
    except psycopg.Error:
        return False
    return True

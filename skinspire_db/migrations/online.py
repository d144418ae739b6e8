"""Online forms: a revision divided into several, none of which reads or indexes a table under a lock that stops others."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from skinspire_db.catalog import fields
from skinspire_db.catalog.definitions import plain, split
from skinspire_db.catalog.fields import Column, Snapshot, Type
from skinspire_db.migrations.losses import NAME, WORD
from skinspire_db.migrations.phases import Statement
from skinspire_db.patterns import lazy_regex
from skinspire_db.postgres import search_path

if TYPE_CHECKING:
    from skinspire_db.postgres.connections import Connection

ADD = lazy_regex(rf"ALTER TABLE (?P<table>{NAME}) ADD CONSTRAINT (?P<name>{WORD}) (?P<text>.+)", re.DOTALL)
UNIQUE = lazy_regex(
    r"UNIQUE(?P<nulls> NULLS NOT DISTINCT)? (?P<columns>\([^()]+\))(?P<include> INCLUDE \([^()]+\))?"
    r"(?P<rest>(?: NOT)? DEFERRABLE.*)?"
)
CREATE_INDEX = lazy_regex(rf"CREATE (?P<unique>UNIQUE )?INDEX (?P<name>{WORD}) ON (?:ONLY )?(?P<table>{NAME}) .+", re.DOTALL)
DROP_INDEX = lazy_regex(rf"DROP INDEX (?P<schema>{WORD})\.(?P<name>{WORD})")
REQUIRE = lazy_regex(rf"ALTER TABLE (?P<table>{NAME}) ALTER COLUMN (?P<column>{WORD}) SET NOT NULL")
IS_PLAIN = "SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass(%s)"  # PostgreSQL has no such forms for others
IS_LARGE = """
    SELECT reltuples > %(rows)s OR EXISTS (SELECT FROM {} OFFSET %(rows)s) FROM pg_class WHERE oid = to_regclass(%(table)s)
"""
CHECK = lazy_regex(
    rf"ALTER TABLE (?P<table>{NAME}) ADD CONSTRAINT (?P<name>{WORD}) CHECK \(+(?P<column>{WORD}) IS NOT NULL\)+ NOT VALID"
)
DROP = lazy_regex(rf"ALTER TABLE (?P<table>{NAME}) DROP CONSTRAINT (?P<name>{WORD})")
PROVED = """
    SELECT k.conname, a.attname
    FROM pg_constraint k JOIN pg_attribute a ON a.attrelid = k.conrelid AND k.conkey = ARRAY[a.attnum]
    WHERE k.conrelid = to_regclass(%s) AND k.convalidated
    AND pg_get_constraintdef(k.oid) ~ '^CHECK [(]+[^()]+ IS NOT NULL[)]+$'
"""
TITLES = {"drops": "drop indexes", "main": "", "builds": "build and validate", "last": "use what was built"}


def is_proved(connection: Connection, earlier: str, statement: str) -> bool:
    """Whether SET NOT NULL finds a validated CHECK that says the same, or DROP CONSTRAINT drops such a one after that.

    Args:
        connection: the database.
        earlier: the SQL of the pending revisions, with that of the statement's own.
        statement: the statement.
    """
    text = " ".join(earlier.split())
    required = REQUIRE.fullmatch(" ".join(statement.split()))
    found = required or DROP.fullmatch(" ".join(statement.split()))
    if not found:
        return False
    alter = f"ALTER TABLE {found['table']}"
    checks = [each for each in CHECK.finditer(text) if f"{alter} VALIDATE CONSTRAINT {each['name']}" in text]
    proved = {(plain(each["name"]), plain(each["column"])) for each in checks if each["table"] == found["table"]}
    with search_path.application(connection):
        proved |= set(connection.execute(PROVED.encode(), (found["table"],)).fetchall())
    if required:
        return plain(required["column"]) in {column for _, column in proved}
    in_text = {plain(each["column"]) for each in REQUIRE.finditer(text) if each["table"] == found["table"]}
    return any(name == plain(found["name"]) and column in in_text for name, column in proved)


@dataclass
class Part:
    """One of several revisions.

    Attributes:
        title: what tells it from the others.
        concurrent: it runs outside a transaction.
        up: its statements.
        down: those of its way back.
    """

    title: str = ""
    concurrent: bool = False
    up: list[Statement] = field(default_factory=list)
    down: list[Statement] = field(default_factory=list)


def large(connection: Connection, above: int | None) -> Callable[[str], bool]:
    """What tells whether a table is there and has more rows than so many.

    Args:
        connection: the database.
        above: so many; 0 for every plain table that is there, None for no table.
    """
    from psycopg import sql

    known: dict[str, bool] = {}

    def found(table: str) -> bool:
        if table not in known:
            known[table] = above is not None and bool(table) and connection.execute(IS_PLAIN, (table,)).fetchone() == (True,)
            if known[table] and above:
                query = sql.SQL(IS_LARGE).format(sql.SQL(table))
                known[table] = connection.execute(query, {"rows": above, "table": table}).fetchone() == (True,)
        return known[table]

    return found


def table_of(connection: Connection, index: str) -> str:
    """The table of an index that is there; "" where it is not."""
    query = """
        SELECT format('%%I.%%I', n.nspname, c.relname) FROM pg_index x JOIN pg_class c ON c.oid = x.indrelid
        JOIN pg_namespace n ON n.oid = c.relnamespace WHERE x.indexrelid = to_regclass(%s)
    """
    row = connection.execute(query, (index,)).fetchone()
    return str(row[0]) if row else ""


def labels_first(live: Snapshot, expected: Snapshot, is_large: Callable[[str], bool]) -> Snapshot | None:
    """The database with new labels alone, where a large table has the type: PostgreSQL lets them be used after the commit.

    Returns:
        None where there are none.
    """
    between = dict(live)
    for name, then in fields.each(expected, Type):
        now = live.get(f"type {name}")
        spelled = (name, name.removeprefix("public."))
        columns = [each for each, facts in fields.each(live, Column) if facts.type.removesuffix("[]") in spelled]
        if not isinstance(now, Type) or now.kind != "enum" or now == then:
            continue
        stay = [label for label in then.labels if label in now.labels] == list(now.labels)
        if stay and any(is_large(split(each)[0]) for each in columns):
            between[f"type {name}"] = then
    return between if between != live else None


def divide(
    up: list[Statement], down: list[Statement], is_large: Callable[[str], bool], index_table: Callable[[str], str]
) -> list[Part]:
    """Divide the statements of a revision into those of several, in their order; one part where nothing is divided.

    Each part's way back leads to the part before it.

    Args:
        up: the statements of the upgrade.
        down: those of the downgrade.
        is_large: whether a table is one that must not be locked for long.
        index_table: the table of an index that is there.
    """
    way = _Division(up, down, is_large, index_table)
    for statement in up:
        way.take(statement)
    return [part for part in way.parts.values() if part.up or part.down]


class _Division:
    def __init__(
        self, up: list[Statement], down: list[Statement], is_large: Callable[[str], bool], index_table: Callable[[str], str]
    ) -> None:
        self.parts = {key: Part(title, key in ("drops", "builds")) for key, title in TITLES.items()}
        self.up, self.is_large, self.index_table = up, is_large, index_table
        self.parts["main"].down = list(down)

    def put(self, part: str, up: str = "", down: str = "", *, like: Statement) -> None:
        """Give a part a statement, and its way back, which runs before that of the statements that came earlier."""
        self.parts[part].up += [replace(like, sql=up, careful="")] if up else []
        self.parts[part].down[:0] = [replace(like, sql=down, careful="")] if down else []

    def back(self, sql: Callable[[str], bool]) -> Statement | None:
        """Take the statement that fits out of the way back."""
        found = next((each for each in self.parts["main"].down if sql(each.sql)), None)
        if found:
            self.parts["main"].down.remove(found)
        return found

    def take(self, statement: Statement) -> None:
        """Put one statement of the upgrade where it belongs."""
        for pattern, form in FORMS.items():
            found = pattern.fullmatch(statement.sql)
            if found and (pattern is DROP_INDEX or self.is_large(found["table"])) and form(self, statement, found):
                return
        comment = re.fullmatch(rf"COMMENT ON CONSTRAINT ({WORD}) ON ({NAME}) IS .+", statement.sql, re.DOTALL)
        last = self.parts["last"].up
        later = comment and any(f"ALTER TABLE {comment[2]} ADD CONSTRAINT {comment[1]} " in each.sql for each in last)
        self.parts["last" if later else "main"].up.append(statement)

    def is_referred_to(self, table: str) -> bool:
        """Whether a foreign key of the same revision leans on a key of the table, which has to be there before it."""
        return any(f"REFERENCES {name}(" in each.sql for each in self.up for name in (table, table.removeprefix("public.")))

    def _constraint(self, statement: Statement, found: re.Match[str]) -> bool:
        table, name, text = found["table"], found["name"], found["text"]
        if text.startswith(("FOREIGN KEY", "CHECK")) and not text.endswith("NOT VALID"):
            self.parts["main"].up.append(replace(statement, sql=f"{statement.sql} NOT VALID", careful=""))
            self.put("builds", f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}", like=statement)
            return True
        unique = UNIQUE.fullmatch(text)
        if not unique or self.is_referred_to(table):
            return False
        drop = self.back(lambda sql: sql == f"ALTER TABLE {table} DROP CONSTRAINT {name}")
        if not drop:
            return False
        index = f"{name} ON {table} {unique['columns']}{unique['include'] or ''}{unique['nulls'] or ''}"
        self._build(statement, f"CREATE UNIQUE INDEX {index}", split(table)[0], name)
        self.put("last", down=f"CREATE UNIQUE INDEX {index}", like=statement)  # it went with the constraint
        added = f"ALTER TABLE {table} ADD CONSTRAINT {name} UNIQUE USING INDEX {name}{unique['rest'] or ''}"
        self.put("last", added, drop.sql, like=statement)
        return True

    def _build(self, statement: Statement, create: str, schema: str, name: str) -> None:
        concurrently = create.replace("INDEX ", "INDEX CONCURRENTLY ", 1)
        self.put("builds", concurrently, f"DROP INDEX CONCURRENTLY {schema}.{name}", like=statement)

    def _index(self, statement: Statement, found: re.Match[str]) -> bool:
        schema = split(found["table"])[0]
        if found["unique"] and self.is_referred_to(found["table"]):
            return False
        if not self.back(lambda sql: sql == f"DROP INDEX {schema}.{found['name']}"):
            return False
        self._build(statement, statement.sql, schema, found["name"])
        return True

    def _drop_index(self, statement: Statement, found: re.Match[str]) -> bool:
        def makes_it(sql: str) -> bool:  # a unique one may be what a foreign key leans on
            made = CREATE_INDEX.fullmatch(sql)
            same = made and (split(made["table"])[0], made["name"]) == (found["schema"], found["name"])
            return bool(made and same and not made["unique"])

        if not self.is_large(self.index_table(statement.sql.removeprefix("DROP INDEX "))):
            return False
        create = self.back(makes_it)
        if not create:
            return False
        again = create.sql.replace("INDEX ", "INDEX CONCURRENTLY ", 1)
        self.put("drops", f"DROP INDEX CONCURRENTLY {found['schema']}.{found['name']}", again, like=statement)
        return True

    def _require(self, statement: Statement, found: re.Match[str]) -> bool:
        table, column = found["table"], found["column"]
        alter = f"ALTER TABLE {table} "
        now = f"ALTER COLUMN {column} ADD GENERATED", " PRIMARY KEY "
        if any(each.sql.startswith(alter) and word in each.sql for each in self.up for word in now):
            return False  # a primary key or an identity of the same revision needs it at once
        if not self.back(lambda sql: sql == f"ALTER TABLE {table} ALTER COLUMN {column} DROP NOT NULL"):
            return False
        name = '"' + f"{plain(column).encode()[:54].decode(errors='ignore')}_not_null".replace('"', '""') + '"'
        check = f"ALTER TABLE {table} ADD CONSTRAINT {name} CHECK ({column} IS NOT NULL) NOT VALID"
        drop = f"ALTER TABLE {table} DROP CONSTRAINT {name}"
        self.put("main", check, drop, like=statement)
        self.put("builds", f"ALTER TABLE {table} VALIDATE CONSTRAINT {name}", like=statement)
        self.put("last", drop, check, like=statement)
        self.put("last", statement.sql, statement.sql.replace(" SET NOT NULL", " DROP NOT NULL"), like=statement)
        self.parts["last"].up[-2:] = reversed(self.parts["last"].up[-2:])  # the CHECK goes when it was used
        return True


FORMS: dict[re.Pattern[str], Callable[[_Division, Statement, re.Match[str]], bool]] = {
    ADD: _Division._constraint,
    CREATE_INDEX: _Division._index,
    DROP_INDEX: _Division._drop_index,
    REQUIRE: _Division._require,
}

"""What migrate.new writes leads from one state of an application's models to another, and back, whatever they say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Project
from sqlalchemy import (
    CheckConstraint,
    Column,
    Computed,
    Enum,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Numeric,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import ARRAY, ExcludeConstraint

from skinspire_db.config import environment
from skinspire_db.config import project as settings
from skinspire_db.migrations import drift, position, revisions, running, writing
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import target_of
from skinspire_db.schema import models, tables
from skinspire_db.schema.blueprint import Blueprint

Models = Callable[[MetaData], Any]


class Workbench:
    """A project whose database is made what some models say; nothing of it is kept."""

    def __init__(self, project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("SKINSPIRE_PROJECT", str(project.root))
        monkeypatch.setenv("DEV_DATABASE_URL", project.env["DEV_DATABASE_URL"])
        settings._tool_table.cache_clear()
        self.project, self.monkeypatch, self.here = project, monkeypatch, settings.current_project()
        self.to = target_of(environment.resolve("dev"))

    def there_and_back(
        self, before: Models, after: Models, rows: str = "SELECT", look: str = "SELECT 1", online_above: int | None = None
    ) -> tuple[str, Any]:
        """The revision's text, and what `look` finds after the upgrade of a database that had these rows."""
        one, other = MetaData(), MetaData()
        before(one)
        after(other)
        with self.project.connect() as connection:
            connection.autocommit = False
            try:
                connections.begin(connection, self.to.policy)
                tables.reset(connection)
                tables.create(connection, Blueprint.of(one))
                position.mark(connection, self.here, revisions.directory(self.here).get_heads())
                connection.execute(rows.encode())
                first = drift._make(self.to, Blueprint.of(one), [])
                expected = drift._make(self.to, Blueprint.of(other), [])
                self.monkeypatch.setattr(models, "metadata", lambda _: other)
                written = writing.new(connection, self.here, "there", expected, attempt=True, online_above=online_above)
                assert written is not None
                assert [each for each in written.warnings if "it by hand" in each or "it fails" in each] == []
                files = revisions.directory(self.here)
                scripts = [revisions.named(files, name) for name, _ in written.every]
                for script in scripts:
                    running.apply(connection, self.here, files, script)
                assert writing.remaining(connection, self.here, expected) == []
                assert writing.new(connection, self.here, "again", expected, attempt=True) is None
                found = connection.execute(look.encode()).fetchall()
                for script in reversed(scripts):
                    running.apply(connection, self.here, files, script, down=True)
                assert writing.remaining(connection, self.here, first) == []
                return (self.project.root / written.file).read_text(), found
            finally:
                connection.rollback()


@pytest.fixture
def bench(make_project: Callable[..., Project], template: str, monkeypatch: pytest.MonkeyPatch) -> Workbench:
    project = make_project('migrations = "migrations"\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    return Workbench(project, monkeypatch)


def nothing(_: MetaData) -> None: ...


def T(*items: Any, name: str = "novel", **options: Any) -> Models:
    """A table with an id; the items are made anew for each MetaData."""

    def make(metadata: MetaData) -> None:
        made = [item() if callable(item) else item for item in items]
        Table(name, metadata, Column("id", Integer, primary_key=True), *made, **options)

    return make


def together(*models: Models) -> Models:
    return lambda metadata: [each(metadata) for each in models]


PERCENT: dict[str, Callable[[], Any]] = {
    "generated": lambda: Column("g", Text, Computed("s || ' 7%'", persisted=True)),
    "check": lambda: CheckConstraint("s LIKE '5%' OR s IS NULL OR s = '%s'", name="like_it"),
    "check of a column": lambda: Column("c", Text, CheckConstraint("c <> '100%'")),
    "partial index": lambda: Index("ix_part", "id", postgresql_where=text("s LIKE '5%'")),
    "expression index": lambda: Index("ix_expr", text("(s || '%d')")),
    "default": lambda: Column("d", Text, server_default=text("'50% \\:off'")),
    "enum": lambda: Column("e", Enum("5%", ":ten", "it's", name="rate"), server_default="5%"),
    "exclusion": lambda: ExcludeConstraint(("s", "="), name="ex", where=text("s LIKE '%x'"), using="btree"),
    "comment": lambda: Column("k", Text, comment="100 % of :it, 'so'"),
    "name": lambda: Column("a%s :b", Integer, CheckConstraint(text('"a%s \\:b" > 0'))),
    "colons": lambda: CheckConstraint(text(r"s !~ '^(?\:a|b)\\\:c$' AND s \:\: text <> ' \:x'"), name="colons"),
}


@pytest.mark.parametrize("new_table", [True, False])
def test_a_percent_sign_and_a_colon_stay_one(bench: Workbench, new_table: bool) -> None:
    def column() -> Any:
        return Column("s", Text)

    look = "INSERT INTO public.novel (s) VALUES ('5x') RETURNING g, d, e::text"
    _, found = bench.there_and_back(nothing if new_table else T(column), T(column, *PERCENT.values()), look=look)
    assert found == [("5x 7%", "50% :off", "5%")]


def code() -> Any:
    return Column("code", String(10), unique=True)


PAIRS: dict[str, tuple[Models, Models]] = {
    "unnamed foreign key and unique": (
        together(T(name="other"), T()), together(T(name="other"), T(code, lambda: Column("other_id", ForeignKey("other.id")))),
    ),
    "unnamed stay": (
        together(T(name="other"), T(code, lambda: Column("other_id", ForeignKey("other.id")))),
        together(T(name="other"), T(code, lambda: Column("other_id", ForeignKey("other.id")), lambda: Column("n", Integer))),
    ),
    "unnamed of columns that are there": (
        together(T(name="other"), T(lambda: Column("a", Integer), lambda: Column("b", Integer))),
        together(
            T(name="other"),
            T(lambda: Column("a", Integer, ForeignKey("other.id")), lambda: Column("b", Integer), lambda: UniqueConstraint("a", "b")),
        ),
    ),
    "unnamed check on the column": (
        T(lambda: Column("n", Integer)),
        T(lambda: Column("n", Integer, CheckConstraint("n > 0")), lambda: Column("m", Integer, CheckConstraint("m > 0"))),
    ),
    "unnamed enum check": (
        T(lambda: Column("s", String(5))),
        T(lambda: Column("s", Enum("a", "b", native_enum=False, create_constraint=True, length=5))),
    ),
    "two that refer to each other": (
        nothing,
        together(
            T(lambda: Column("two_id", ForeignKey("two.id", name="fk_two")), name="one"),
            T(lambda: Column("one_id", ForeignKey("one.id", name="fk_one")), name="two"),
        ),
    ),
    "use_alter": (
        T(name="kept"),
        together(
            T(name="kept"),
            T(lambda: Column("two_id", ForeignKey("two.id", use_alter=True, name="fk_two")), name="one"),
            T(lambda: Column("one_id", ForeignKey("one.id")), name="two"),
        ),
    ),
    "a cycle of five": (
        nothing,
        together(*(
            T(lambda n=n: Column("next_id", ForeignKey(f"t{(n + 1) % 5}.id", name=f"fk_{n}")), name=f"t{n}") for n in range(5)
        )),
    ),
    "to itself": (nothing, T(lambda: Column("parent_id", ForeignKey("novel.id")))),
    "include": (
        T(lambda: Column("a", Integer), lambda: Column("b", Integer)),
        T(
            lambda: Column("a", Integer), lambda: Column("b", Integer),
            lambda: UniqueConstraint("a", name="uq_a", postgresql_include=["b"]),
            lambda: Index("ix_b", "b", postgresql_include=["a"], unique=True),
        ),
    ),
    "include in a new table": (
        nothing,
        T(lambda: Column("a", Integer), lambda: Column("b", Integer), lambda: UniqueConstraint("a", postgresql_include=["b"])),
    ),
    "nulls not distinct": (
        T(lambda: Column("a", Integer)),
        T(lambda: Column("a", Integer), lambda: UniqueConstraint("a", postgresql_nulls_not_distinct=True)),
    ),
    "a new label as a default": (
        T(lambda: Column("m", Enum("sad", "happy", name="mood"))),
        T(lambda: Column("m", Enum("sad", "calm", "happy", name="mood"), server_default="calm")),
    ),
    "a new label in a check": (
        T(lambda: Column("m", Enum("sad", "happy", name="mood"), server_default="sad")),
        T(
            lambda: Column("m", Enum("sad", "happy", "calm", name="mood"), server_default="sad"),
            lambda: CheckConstraint("m <> 'calm'", name="never"),
        ),
    ),
    "a new label in a column that is added": (
        T(lambda: Column("m", Enum("sad", "happy", name="mood"))),
        T(
            lambda: Column("m", Enum("sad", "happy", "calm", name="mood")),
            lambda: Column("n", Enum("sad", "happy", "calm", name="mood"), server_default="calm"),
        ),
    ),
    "a new label in a new table": (
        T(lambda: Column("m", Enum("sad", "happy", name="mood"))),
        together(
            T(lambda: Column("m", Enum("sad", "happy", "calm", name="mood"))),
            T(lambda: Column("m", Enum("sad", "happy", "calm", name="mood"), server_default="calm"), name="newer"),
        ),
    ),
    "a renamed enum": (
        T(lambda: Column("m", Enum("sad", "happy", name="mood"), server_default="sad"), lambda: CheckConstraint("m <> 'happy'", name="c")),
        T(lambda: Column("m", Enum("sad", "happy", name="feeling"), server_default="sad"), lambda: CheckConstraint("m <> 'happy'", name="c")),
    ),
    "a renamed enum with other labels": (
        T(lambda: Column("m", Enum("sad", "happy", name="mood"), server_default="sad"), lambda: Column("ms", ARRAY(Enum("sad", "happy", name="mood")))),
        T(lambda: Column("m", Enum("sad", "happy", "calm", name="feeling"), server_default="sad"), lambda: Column("ms", ARRAY(Enum("sad", "happy", "calm", name="feeling")))),
    ),
    "a foreign key and the unique that it needs": (
        together(T(lambda: Column("code", String(10)), name="other"), T(lambda: Column("other", String(10)))),
        together(T(code, name="other"), T(lambda: Column("other", String(10), ForeignKey("other.code")))),
    ),
    "a new table that needs a new unique": (
        T(lambda: Column("code", String(10)), name="other"),
        together(T(code, name="other"), T(lambda: Column("other", String(10), ForeignKey("other.code")))),
    ),
    "a foreign key to a unique index": (
        T(lambda: Column("code", String(10)), name="other"),
        together(
            T(lambda: Column("code", String(10)), lambda: Index("ux_code", "code", unique=True), name="other"),
            T(lambda: Column("other", String(10), ForeignKey("other.code")), lambda: Column("two", String(3)), lambda: Index("ux_two", "two", unique=True)),
            T(lambda: Column("two", String(3), ForeignKey("novel.two")), name="zzz"),
        ),
    ),
    "another unique under a foreign key": (
        together(T(lambda: Column("code", Integer), lambda: UniqueConstraint("code", name="a"), name="other"), T(lambda: Column("c", ForeignKey("other.code")))),
        together(T(lambda: Column("code", Integer), lambda: UniqueConstraint("code", name="b", postgresql_include=["id"]), name="other"), T(lambda: Column("c", ForeignKey("other.code")))),
    ),
    "a column and all that hangs on it": (
        together(T(code, lambda: Column("n", Integer, CheckConstraint("n > 0"), index=True), name="other"), T(lambda: Column("o", String(10), ForeignKey("other.code")))),
        together(T(name="other"), T(lambda: Column("o", String(10)))),
    ),
    "types of both sides of a foreign key": (
        together(T(lambda: Column("k", Integer, unique=True), name="other"), T(lambda: Column("k", Integer, ForeignKey("other.k")))),
        together(T(lambda: Column("k", Text, unique=True), name="other"), T(lambda: Column("k", Text, ForeignKey("other.k")))),
    ),
    "a type under a generated column": (
        T(lambda: Column("n", Integer), lambda: Column("g", Integer, Computed("n * 2", persisted=True), index=True)),
        T(lambda: Column("n", Numeric(10, 2)), lambda: Column("g", Integer, Computed("n * 2", persisted=True), index=True)),
    ),
    "a type under a check of in": (
        T(lambda: Column("s", Text), lambda: CheckConstraint("s IN ('a', 'b')", name="c"), lambda: Index("ix_p", "id", postgresql_where=text("s IN ('a', 'b')"))),
        T(lambda: Column("s", String(9)), lambda: CheckConstraint("s IN ('a', 'b')", name="c"), lambda: Index("ix_p", "id", postgresql_where=text("s IN ('a', 'b')"))),
    ),
    "in": (
        T(lambda: Column("s", String(9))),
        T(
            lambda: Column("s", String(9)), lambda: CheckConstraint("s IN ('a', 'b')", name="c"),
            lambda: Index("ix_p", "id", postgresql_where=text("s IN ('a', 'b')")),
            lambda: ExcludeConstraint(("s", "="), name="ex", where=text("s IN ('a', 'b')"), using="btree"),
            lambda: Column("g", Integer, Computed("CASE WHEN s IN ('a', 'b') THEN 1 END", persisted=True)),
        ),
    ),
    "other names": (
        together(
            T(lambda: UniqueConstraint("id", name="a"), lambda: Index("ix_a", "id"), name="other"),
            T(lambda: Column("o", Integer, ForeignKey("other.id", name="fk_a"), CheckConstraint("o > 0", name="ck_a"))),
        ),
        together(
            T(lambda: UniqueConstraint("id", name="b"), lambda: Index("ix_b", "id"), name="other"),
            T(lambda: Column("o", Integer, ForeignKey("other.id", name="fk_b"), CheckConstraint("o > 0", name="ck_b"))),
        ),
    ),
    "storage of the table": (T(), T(postgresql_with={"fillfactor": 70})),
    "partitioned": (nothing, lambda m: Table("novel", m, Column("id", Integer), Column("s", Text, server_default="x"), PrimaryKeyConstraint("id"), postgresql_partition_by="RANGE (id)")),
    "foreign key of two columns": (
        nothing,
        lambda m: [
            Table("a", m, Column("x", Integer, primary_key=True), Column("y", Integer, primary_key=True)),
            Table("b", m, Column("p", Integer), Column("q", Integer), ForeignKeyConstraint(["p", "q"], ["a.x", "a.y"], deferrable=True, initially="DEFERRED")),
        ],
    ),
    "tables come and others go with the same names of indexes": (
        T(lambda: Index("ix_same", "id"), name="old"), T(lambda: Index("ix_same", "id"), lambda: Column("more", Text), name="new"),
    ),
    "hostile names": (
        nothing,
        together(
            T(lambda: Column('b "q" %', Integer, unique=True), lambda: Column("Größe", Text), name="Select"),
            T(lambda: Column("o", ForeignKey("Select.id")), name='a.b"c'),
        ),
    ),
}  # fmt: skip


QUICK = ("unnamed foreign key and unique", "use_alter", "a new label as a default", "a foreign key to a unique index", "in")


@pytest.mark.parametrize("pair", [pair if pair in QUICK else pytest.param(pair, marks=pytest.mark.slow) for pair in PAIRS])
def test_there_and_back(bench: Workbench, pair: str) -> None:
    before, after = PAIRS[pair]
    bench.there_and_back(before, after)
    bench.there_and_back(after, before)


@pytest.mark.slow
def test_there_and_back_online(bench: Workbench) -> None:
    for pair in ("in", "hostile names", "another unique under a foreign key", "nulls not distinct"):
        for before, after in (PAIRS[pair], reversed(PAIRS[pair])):
            bench.there_and_back(before, after, online_above=0)

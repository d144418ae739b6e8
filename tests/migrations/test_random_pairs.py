"""Random pairs of schemas: the revision between them leads there and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from conftest import Project
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from migration_support import app  # noqa: F401
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Computed,
    DateTime,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    Numeric,
    Sequence,
    String,
    Table,
    Text,
    UniqueConstraint,
    text,
)  # fmt: skip
from sqlalchemy.dialects.postgresql import DOMAIN, JSONB

from skinspire_db.catalog import definitions as catalogue
from skinspire_db.catalog.fields import Snapshot
from skinspire_db.clinic.models.base import NAMING_CONVENTION
from skinspire_db.config import environment
from skinspire_db.config import project as settings
from skinspire_db.migrations import drift, position, revisions, running, writing
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import target_of
from skinspire_db.schema import models, tables
from skinspire_db.schema.blueprint import Blueprint

COLUMNS: dict[str, Callable[[], Column[Any]]] = {
    "text": lambda: Column("c1", Text),
    "varchar": lambda: Column("c1", String(30), nullable=False, server_default=text("'none'")),
    "integer": lambda: Column("c2", Integer, server_default=text("7")),
    "bigint": lambda: Column("c2", BigInteger, nullable=False, server_default=text("8"), comment="how many"),
    "numeric": lambda: Column("c3", Numeric(10, 2), comment="what it's worth"),
    "identity": lambda: Column("c4", Integer, Identity(always=True, start=5), nullable=False),
    "by default": lambda: Column("c4", Integer, Identity(start=9, increment=2), nullable=False),
    "time": lambda: Column("c5", DateTime(timezone=True), server_default=text("now()")),
    "jsonb": lambda: Column("c6", JSONB, server_default=text("'{}'")),
    "mood": lambda: Column("c7", Enum("sad", "happy", name="mood"), server_default="sad"),
    "moods": lambda: Column("c7", Enum("sad", "calm", "happy", name="mood"), server_default="happy"),
}
COLUMNS |= {
    "collated": lambda: Column("c1", Text(collation="C")),
    "generated": lambda: Column("c8", Integer, Computed("id * 2", persisted=True)),
    "generated otherwise": lambda: Column("c8", Integer, Computed("id * 3", persisted=True)),
    "email": lambda: Column("c9", DOMAIN("email", Text(), check="VALUE ~ '@'", constraint_name="has_at")),
    "emails": lambda: Column("c9", DOMAIN("email", Text(), check="VALUE ~ '.@.'", constraint_name="has_at", not_null=True)),
    "numbered": lambda: Column("c10", Integer, server_default=text("nextval('numbers'::regclass)")),
    "numbered by fives": lambda: Column("c10", Integer, server_default=text("nextval('numbers'::regclass)")),
}
EXTRAS: dict[str, Callable[[], Any]] = {
    "check": lambda: CheckConstraint("id > 0", name="positive"),
    "other check": lambda: CheckConstraint("id > 10 OR id < 5", name="positive"),
    "unique": lambda: UniqueConstraint("id", "code"),
    "index": lambda: Index("ix_some", "code"),
    "partial": lambda: Index("ix_some", "code", postgresql_where=text("id > 3")),
    "by expression": lambda: Index("ix_lower", text("lower(code)")),
    "comment": lambda: "a table",
}
TABLE = st.tuples(st.sets(st.sampled_from(sorted(COLUMNS)), max_size=5), st.sets(st.sampled_from(sorted(EXTRAS)), max_size=3))
SCHEMA = st.dictionaries(st.sampled_from(["alpha", "beta", "gamma"]), TABLE, min_size=1)


def build(wanted: dict[str, tuple[set[str], set[str]]]) -> MetaData:
    """A schema of tables that refer to each other in a row."""
    made = MetaData(naming_convention=NAMING_CONVENTION)
    used = {kind for columns, _ in wanted.values() for kind in columns}
    shared = {
        family: max(kinds) for family in ("mood", "email", "numbered") if (kinds := {k for k in used if k.startswith(family)})
    }
    if "numbered" in shared:
        Sequence("numbers", metadata=made, increment=5 if "fives" in shared["numbered"] else 1)
    former = None
    for name, (columns, extras) in sorted(wanted.items()):
        table = Table(name, made, Column("id", Integer, primary_key=True), Column("code", String(10)))
        for kind in sorted(columns):
            kind = next((one for family, one in shared.items() if kind.startswith(family)), kind)  # one of that name
            if (column := COLUMNS[kind]()).name not in table.c:
                table.append_column(column)
        if former is not None:
            table.append_column(Column("parent_id", ForeignKey(f"{former}.id", ondelete="CASCADE"), index=True))
        for extra in sorted(extras):
            item = EXTRAS[extra]()
            if isinstance(item, str):
                table.comment = item
            elif isinstance(item, Index):
                item.name = f"{item.name}_{name}"  # type: ignore[assignment]
                if item.name not in {index.name for index in table.indexes}:
                    item._set_parent(table)
            elif extra != "other check" or "check" not in extras:
                table.append_constraint(item)
        former = name
    return made


@pytest.mark.slow
def test_random_pairs_there_and_back(app: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the upgrade the database is what the models say; after the downgrade, what it was."""
    monkeypatch.setenv("SKINSPIRE_PROJECT", str(app.root))
    monkeypatch.setenv("DEV_DATABASE_URL", app.env["DEV_DATABASE_URL"])
    settings._tool_table.cache_clear()
    here = settings.current_project()
    environment_ = environment.resolve("dev")
    to = target_of(environment_)

    @examples(max_examples=30, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(before=SCHEMA, after=SCHEMA)
    def check(before: Any, after: Any) -> None:
        for old in (app.root / "migrations" / "versions").glob("*.py"):
            old.unlink()
        one, other = build(before), build(after)
        with app.connect() as connection:
            connection.autocommit = False
            connections.begin(connection, to.policy)
            tables.reset(connection)
            tables.create(connection, Blueprint.of(one))
            position.mark(connection, here, revisions.directory(here).get_heads())
            first = catalogue.snapshot(connection)
            expected = drift._make(to, Blueprint.of(other), [])
            monkeypatch.setattr(models, "metadata", lambda _: other)
            written = writing.new(connection, here, "there", expected, attempt=True)
            if written is None:
                assert first == expected
            else:
                files = revisions.directory(here)
                script = revisions.named(files, written.revision)
                running.apply(connection, here, files, script)
                assert differing(catalogue.snapshot(connection), expected) == []
                running.apply(connection, here, files, script, down=True)
                assert differing(catalogue.snapshot(connection), first) == []
            connection.rollback()

    check()


def differing(live: Snapshot, wanted: Snapshot) -> list[Any]:
    return [
        (key, live.get(key), wanted.get(key))
        for key in sorted(live.keys() | wanted.keys())
        if live.get(key) != wanted.get(key)
    ]

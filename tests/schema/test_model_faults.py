"""Foreign keys that cannot be made are all named at once, with both columns' types."""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    Uuid,
    text,
)
from sqlalchemy.dialects.postgresql import DOMAIN, ENUM

from skinspire_db.errors import ModelsInvalid
from skinspire_db.schema import refused
from skinspire_db.schema.blueprint import Blueprint
from skinspire_db.schema.model_faults import refuse_loose_ends


def models(*keys: Column[object]) -> MetaData:
    metadata = MetaData()
    Table("users", metadata, Column("user_id", String(15), primary_key=True), Column("number", Integer, unique=True))
    Table("cards", metadata, Column("id", Integer, primary_key=True), *keys)
    return metadata


def test_all_faults_of_foreign_keys_are_named_with_both_types() -> None:
    broken = models(
        Column("agency", Uuid, ForeignKey("agencies.id")),
        Column("written_by", Uuid, ForeignKey("users.user_id")),
        Column("counted", Text, ForeignKey("users.number")),
    )
    with pytest.raises(ModelsInvalid) as caught:
        refuse_loose_ends(broken)
    says, remedy = caught.value.message, caught.value.remedy or ""
    assert "3 foreign keys" in says and "agencies.id: no model defines that table" in says
    assert "cards.written_by, a uuid, points to users.user_id, a varchar(15)" in says
    assert "cards.counted, a text, points to users.number, a integer" in says
    assert "correct the ForeignKey" in remedy and "the type of the column that it points to" in remedy


def test_types_that_postgresql_compares_are_no_fault() -> None:
    refuse_loose_ends(
        models(Column("a", Text, ForeignKey("users.user_id")), Column("b", BigInteger, ForeignKey("users.number")))
    )


def test_only_what_postgresql_refuses_is_left_out(connection: psycopg.Connection[Any]) -> None:
    """Each kind of object: the rest of its table is made, and what depends on it is named, too."""
    metadata = MetaData(schema="faulty")
    Table("a", metadata, Column("id", Integer, primary_key=True), Column("number", Integer), Column("text, (odd", Text))
    Table(
        "b",
        metadata,
        Column("id", Integer, primary_key=True),
        Column("loose", Integer, ForeignKey("faulty.a.number")),
        Column("named", Integer, ForeignKey("faulty.a.number", name="named_key")),
        Column("bound", Integer, ForeignKey("faulty.a.number", name="late_key", use_alter=True)),
        Column("good", Integer, ForeignKey("faulty.a.id")),
        Column("price", Integer, server_default=text("no_such_function(1, 2)")),
        Column("word", ENUM("x", name="word_kind", schema="faulty")),
        Column("pin", DOMAIN("pin", Integer, check=text("no_such_function(VALUE)"), schema="faulty")),
        CheckConstraint("no_such_column > 0", name="checked"),
        CheckConstraint("id > 0", name="sound"),
        Index("by_nothing", text("no_such_column")),
        Index("by_good", "good"),
    )
    faults = refused.make(connection, Blueprint.of(metadata, []).statements)
    assert sorted(f"{each.kind} {each.name}" for each in faults) == [
        "column faulty.b.pin",
        "column faulty.b.price",
        "constraint FOREIGN KEY(loose) REFERENCES faulty.a (number) on faulty.b",
        "constraint checked on faulty.b",
        "constraint late_key on faulty.b",
        "constraint named_key on faulty.b",
        "index by_nothing on faulty.b",
        "type faulty.pin",
    ]
    [said] = [each for each in faults if each.name == "named_key on faulty.b"]
    assert "no unique constraint matching" in str(said) and said.definition.startswith("FOREIGN KEY(named)")
    columns = "SELECT array_agg(attname::text ORDER BY attnum) FROM pg_attribute WHERE attrelid = 'faulty.b'::regclass AND attnum > 0"
    assert connection.execute(columns.encode()).fetchone() == (["id", "loose", "named", "bound", "good", "word"],)
    names = "SELECT count(*) FROM pg_constraint WHERE conrelid = 'faulty.b'::regclass AND contype IN ('p', 'f', 'c')"
    assert connection.execute(names.encode()).fetchone() == (3,)
    assert connection.execute(b"SELECT to_regclass('faulty.by_good') IS NOT NULL").fetchone() == (True,)

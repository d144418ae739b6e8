"""Foreign keys that cannot be made are all named at once, with both columns' types."""

from __future__ import annotations

import pytest
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, MetaData, String, Table, Text, Uuid

from skinspire_db.errors import ModelsInvalid
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

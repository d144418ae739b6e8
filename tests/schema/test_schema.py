"""The tables: what reset takes, what create makes, what is added, what is compared."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from conftest import Project
from sqlalchemy import (
    CheckConstraint,
    Column,
    Enum,
    ForeignKey,
    Identity,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    create_mock_engine,
    text,
)

from skinspire_db.catalog import objects
from skinspire_db.clinic.models import NAMING_CONVENTION, Base
from skinspire_db.config.project import Project as Settings
from skinspire_db.errors import ModelsInvalid, StepFailed
from skinspire_db.lifecycle import tool_schema
from skinspire_db.schema import models, tables
from skinspire_db.schema.blueprint import Blueprint

Connection = psycopg.Connection[Any]

EVERYTHING = """
CREATE SCHEMA own; CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext;
CREATE TABLE own.t (id serial PRIMARY KEY, h ext.hstore);
CREATE TABLE "odd "" name" (id int GENERATED ALWAYS AS IDENTITY);
CREATE TABLE parts (id int) PARTITION BY RANGE (id); CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (9);
CREATE VIEW v AS SELECT 1 AS one; CREATE VIEW v2 AS SELECT * FROM v; CREATE MATERIALIZED VIEW mv AS SELECT * FROM v2;
CREATE SEQUENCE s; CREATE TYPE mood AS ENUM ('happy'); CREATE TYPE pair AS (a int, b mood);
CREATE DOMAIN posint AS int CHECK (VALUE > 0); CREATE TYPE span AS RANGE (subtype = int4);
CREATE FUNCTION f(posint) RETURNS mood LANGUAGE sql AS 'SELECT ''happy''::mood'; CREATE PROCEDURE p() LANGUAGE sql AS '';
CREATE AGGREGATE my_sum(int) (SFUNC = int4pl, STYPE = int); CREATE AGGREGATE my_count(*) (SFUNC = int8inc, STYPE = int8, INITCOND = '0');
"""


def test_reset_takes_everything_of_the_application_and_nothing_else(clinic: Project) -> None:
    clinic.execute(EVERYTHING)
    stamp = clinic.query("SELECT * FROM skinspire_tools.stamp")
    outcome = clinic.invoke("db.reset", "--json")
    assert outcome.code == 0, outcome.out
    assert outcome.json["steps"][0]["summary"]["tables_dropped"] == 17
    with clinic.connect() as connection:
        assert objects.all_objects(connection) == []
    assert clinic.query("SELECT * FROM skinspire_tools.stamp") == stamp
    assert clinic.query("SELECT extname FROM pg_extension ORDER BY 1") == [
        ("citext",),
        ("hstore",),
        ("pgcrypto",),
        ("plpgsql",),
    ]
    assert clinic.query("SELECT to_regnamespace('own'), to_regnamespace('ext')::text") == [(None, "ext")]
    assert clinic.query("SELECT count(*) FROM skinspire_tools.ledger") == [(0,)]
    assert clinic.invoke("db.create").code == 0


def test_reset_leaves_other_databases_alone(clinic: Project) -> None:
    other = clinic.env["TEST_DATABASE_URL"].rpartition("/")[2]
    clinic.execute(f'CREATE DATABASE "{other}" TEMPLATE "{clinic.database}"', "postgres")
    before = clinic.dump(other)
    assert clinic.invoke("db.reset", "--env=dev").code == 0
    assert clinic.dump(other) == before


def test_every_constraint_has_a_name_and_every_foreign_key_an_index(connection: Connection) -> None:
    for table in Base.metadata.tables.values():
        assert all(constraint.name for constraint in table.constraints), table
    bare = connection.execute(
        """
        SELECT conname FROM pg_constraint c WHERE contype = 'f' AND connamespace = 'public'::regnamespace AND NOT EXISTS (
            SELECT FROM pg_index i WHERE i.indrelid = c.conrelid AND i.indpred IS NULL
            AND (i.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)
        """
    ).fetchall()
    assert bare == []


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("UPDATE staff SET branch_id = '{other}'", "fk_staff_hospital_id_branch_id"),
        ("UPDATE patients SET branch_id = '{other}'", "fk_patients_hospital_id_branch_id"),
        ("UPDATE patients SET mrn = 'T000001'", "uq_patients_hospital_id_mrn"),
        ("UPDATE patients SET blood_group = 'C+'", "ck_patients_blood_group"),
        ("UPDATE users SET entity_type = 'robot'", "ck_users_entity_type"),
        ("INSERT INTO login_history (user_id, status) VALUES ('9999999999', 'maybe')", "ck_login_history_status"),
        ("INSERT INTO role_master (role_name) VALUES ('Doctor')", "uq_role_master_hospital_id_role_name"),
        ("DELETE FROM branches WHERE branch_id IN (SELECT branch_id FROM staff)", "fk_patients_hospital_id_branch_id"),
    ],
)
def test_the_tables_refuse(connection: Connection, statement: str, constraint: str) -> None:
    other = connection.execute(
        "WITH h AS (INSERT INTO hospitals (name) VALUES ('Other') RETURNING hospital_id)"
        " INSERT INTO branches (hospital_id, name) SELECT hospital_id, 'Other' FROM h RETURNING branch_id"
    ).fetchone()
    assert other
    with pytest.raises(psycopg.IntegrityError) as refusal:
        connection.execute(statement.format(other=other[0]).encode())
    assert refusal.value.diag.constraint_name == constraint


def test_two_patients_may_lack_a_number(connection: Connection) -> None:
    connection.execute("UPDATE patients SET mrn = NULL")


def test_deleting_a_user_takes_its_rows_along(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO user_sessions (user_id, token, expires_at) VALUES ('9999999999', 't', now());"
        "INSERT INTO login_history (user_id, session_id, status) SELECT user_id, session_id, 'success' FROM user_sessions;"
        "ALTER TABLE users DISABLE TRIGGER _150_user_deletion; DELETE FROM users"
    )
    for table in ("user_role_mapping", "user_sessions", "login_history"):
        assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,)


def apply(connection: Connection, models: MetaData) -> None:
    tables.create(connection, Blueprint.of(models))


def small(*extra: Any) -> MetaData:
    models = MetaData(naming_convention=NAMING_CONVENTION)
    Table("parent", models, Column("id", Integer, Identity(), primary_key=True))
    Table("child", models, Column("id", Integer, primary_key=True), *extra)
    return models


@pytest.fixture
def empty(project: Project) -> Any:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    with psycopg.connect(**project.address.parameters, dbname=project.database) as opened:
        tool_schema.ensure(opened)
        yield opened
        opened.rollback()


def test_create_missing_adds_only_what_is_missing(empty: Connection) -> None:
    apply(empty, small())
    empty.execute("INSERT INTO child VALUES (1); INSERT INTO parent DEFAULT VALUES")
    more = small(
        Column("note", String(30), nullable=False, server_default=text("'x'")),
        Column("parent_id", ForeignKey("parent.id"), index=True),
        CheckConstraint("note <> ''", name="note"),
        Index("ix_child_live", "note", postgresql_where=text("id > 0")),
    )
    Table("other", more, Column("id", Integer, primary_key=True), Column("child_id", ForeignKey("child.id")))
    summary = tables.create_missing(empty, more)
    assert summary.lines == [
        "table public.other",
        "column public.child.note",
        "column public.child.parent_id",
        "constraint ck_child_note",
        "constraint fk_child_parent_id",
        "index ix_child_live",
        "index ix_child_parent_id",
    ]
    assert empty.execute("SELECT id, note, parent_id FROM child").fetchall() == [(1, "x", None)]
    assert tables.compare(empty, Blueprint.of(more)) == []
    assert tables.create_missing(empty, more).lines == []


def test_create_missing_refuses_what_no_row_could_have(empty: Connection) -> None:
    apply(empty, small())
    empty.execute("INSERT INTO child VALUES (1)")
    with pytest.raises(StepFailed, match=r"child\.must is NOT NULL without a default, and the table has rows"):
        tables.create_missing(empty, small(Column("must", Integer, nullable=False)))
    empty.execute("DELETE FROM child")
    tables.create_missing(empty, small(Column("must", Integer, nullable=False)))


def test_create_missing_with_enums(empty: Connection) -> None:
    """A new column with a new enum, and a new table that uses one that is there already."""
    apply(empty, small(Column("kind", Enum("a", "b", name="kind_of"))))
    more = small(Column("kind", Enum("a", "b", name="kind_of")), Column("mood", Enum("happy", name="mood_of")))
    Table("other", more, Column("id", Integer, primary_key=True), Column("kind", Enum("a", "b", name="kind_of")))
    assert tables.create_missing(empty, more).lines == ["table public.other", "type mood_of", "column public.child.mood"]
    empty.execute("INSERT INTO other VALUES (1, 'b'); INSERT INTO child (id, mood) VALUES (1, 'happy')")


def test_create_missing_brings_back_a_primary_key(empty: Connection) -> None:
    apply(empty, small())
    empty.execute("ALTER TABLE child DROP CONSTRAINT pk_child")
    assert tables.create_missing(empty, small()).lines == ["constraint pk_child"]


def test_a_key_that_its_model_calls_nullable(empty: Connection) -> None:
    """PostgreSQL makes it NOT NULL whatever the model says: no difference."""
    own = MetaData()
    Table("encryption", own, Column("encryption_id", Integer, primary_key=True, nullable=True))
    wanted = Blueprint.of(own, [])
    tables.create(empty, wanted)
    assert tables.compare(empty, wanted) == []


def test_an_applications_own_table_gets_its_triggers(make_project: Callable[..., Project], template: str) -> None:
    """The old guide's example: a model, `db.create --update-only`, and the table is there with all that belongs to it."""
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "clinic_app:Base"]\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "clinic_app.py").write_text(
        "import uuid\n"
        "from sqlalchemy import ForeignKey\n"
        "from sqlalchemy.orm import Mapped, mapped_column\n"
        "from skinspire_db.clinic.models import Base, TenantMixin, TimestampMixin\n"
        "from skinspire_db.clinic.models.base import UuidKey\n"
        "class Appointment(TimestampMixin, TenantMixin, Base):\n"
        "    __tablename__ = 'appointments'\n"
        "    appointment_id: Mapped[UuidKey]\n"
        "    patient_id: Mapped[uuid.UUID] = mapped_column(ForeignKey('patients.patient_id'), index=True)\n"
    )
    before = project.query("SELECT * FROM patients ORDER BY 1")
    outcome = project.forked("db.create", "--update-only")
    assert outcome.code == 0, outcome.err
    assert "    table public.appointments" in outcome.out
    assert project.query("SELECT * FROM patients ORDER BY 1") == before
    assert project.query("SELECT tgname FROM pg_trigger WHERE tgrelid = 'appointments'::regclass AND NOT tgisinternal ORDER BY 1") == [
        ("_100_timestamps",), ("_110_user_tracking",),
    ]  # fmt: skip
    verified = project.forked("db.verify")
    assert verified.code == 0, verified.out


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("DROP TABLE login_history", "table public.login_history is missing"),
        ("ALTER TABLE staff DROP COLUMN title", "column public.staff.title is missing"),
        ("ALTER TABLE staff ALTER title TYPE text", "column public.staff.title is text, not character varying(10)"),
        ("ALTER TABLE staff ALTER title SET NOT NULL", "column public.staff.title is not nullable"),
        ("ALTER TABLE staff ALTER personal_info DROP NOT NULL", "column public.staff.personal_info is nullable"),
        ("ALTER TABLE staff ADD extra int", None),
    ],
)
def test_compare(connection: Connection, change: str, difference: str | None) -> None:
    if "SET NOT NULL" in change:
        connection.execute("UPDATE staff SET title = 'X' WHERE title IS NULL")
    connection.execute("SET CONSTRAINTS ALL IMMEDIATE")
    connection.execute(change.encode())
    found = tables.compare(connection, Blueprint.of(Base.metadata))
    assert found == ([difference] if difference else [])


def test_a_table_defined_twice(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "twice_models.py").write_text(
        "from sqlalchemy import MetaData, Table\nmetadata = MetaData()\nTable('patients', metadata)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    here = Settings(tmp_path, {"metadata": ["skinspire_db.clinic.models:Base", "twice_models:metadata"]})
    with pytest.raises(
        ModelsInvalid,
        match=r"1 table is defined twice: patients \(skinspire_db.clinic.models.people.Patient and twice_models:metadata\)",
    ):
        models.metadata(here)


def test_the_blueprint_is_built_anew_when_a_model_changes(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib
    import sys

    source = tmp_path / "changing_models.py"

    def write(column: str) -> None:
        source.write_text(
            f"from sqlalchemy import Column, Integer, MetaData, Table\nmetadata = MetaData()\nTable('t', metadata, Column('{column}', Integer))\n"
        )
        sys.modules.pop("changing_models", None)  # a new process would not have it
        importlib.invalidate_caches()

    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.syspath_prepend(tmp_path)
    here = Settings(tmp_path, {"metadata": ["changing_models:metadata"]})
    write("a")
    assert list(Blueprint.of_project(here).columns["public.t"]) == ["a"]
    sys.modules.pop("changing_models")
    assert list(Blueprint.of_project(here).columns["public.t"]) == ["a"]
    assert "changing_models" not in sys.modules, "the second time comes from the cache"
    write("b_longer")
    assert list(Blueprint.of_project(here).columns["public.t"]) == ["b_longer"]
    monkeypatch.setenv("SOME_FEATURE", "on")
    sys.modules.pop("changing_models")
    Blueprint.of_project(here)
    assert "changing_models" in sys.modules, "models may read the environment"
    (tmp_path / ".skinspire/blueprint.json").write_text("{")
    assert list(Blueprint.of_project(here).columns["public.t"]) == ["b_longer"]


def test_create_all_makes_what_db_create_makes(empty: Connection) -> None:
    """An application that calls Base.metadata.create_all() itself gets the same tables."""
    statements: list[str] = []
    engine: Any = create_mock_engine(
        "postgresql+psycopg://", lambda ddl, *_, **__: statements.append(str(ddl.compile(dialect=engine.dialect)))
    )
    Base.metadata.create_all(engine, checkfirst=False)
    empty.execute(";".join(statements).encode())
    blueprint = Blueprint.of(Base.metadata)
    assert tables.compare(empty, blueprint) == []
    assert tables.live_names(empty) >= {(table, name) for table, name in blueprint.names}


def test_generate_uuid_as_the_default_of_a_key(clinic: Project) -> None:
    """A model as old guides write it: many at once, found again by the key that Python gave."""
    from sqlalchemy import Column, String, create_engine
    from sqlalchemy.dialects.postgresql import UUID
    from sqlalchemy.orm import Session, declarative_base

    from skinspire_db.clinic.models import generate_uuid

    class Appointment(declarative_base()):  # type: ignore[misc]
        __tablename__ = "guide_appointments"
        appointment_id = Column(UUID(as_uuid=True), primary_key=True, default=generate_uuid)
        reason = Column(String(50))

    engine = create_engine(clinic.url(clinic.database).replace("postgresql:", "postgresql+psycopg:"))
    try:
        Appointment.metadata.create_all(engine)
        with Session(engine) as session:
            made = [Appointment(reason=str(number)) for number in range(3)]
            session.add_all(made)
            session.commit()
            keys = {each.appointment_id for each in made}
            assert len(keys) == 3 and all(session.get_one(Appointment, key) in made for key in keys)
    finally:
        engine.dispose()

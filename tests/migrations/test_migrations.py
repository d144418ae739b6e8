"""Migrations written from the models: there and back, and what is said about what they lose or lock."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from conftest import Project
from migration_support import APPOINTMENT, app, at, definitions, head, revision  # noqa: F401


def test_the_models_and_all_revisions_give_the_same_definitions(project: Project) -> None:
    """db.create on an empty database, and every revision from nothing."""
    assert project.invoke("db.create").code == 0
    assert at(project) == [head()]
    made = definitions(project)
    assert project.invoke("db.reset").code == 0
    outcome = project.invoke("migrate.upgrade")
    assert outcome.code == 0, outcome.err
    project.execute("DROP FUNCTION IF EXISTS x(); DELETE FROM skinspire_tools.ledger")
    assert definitions(project) == made
    assert project.invoke("migrate.check").code == 0


@pytest.mark.slow
def test_an_appointment_there_and_back(app: Project) -> None:
    (app.root / "clinic_app.py").write_text(APPOINTMENT)
    before = app.query("SELECT * FROM patients ORDER BY 1")
    outcome = app.forked("migrate.check")
    assert outcome.code == 3 and "table public.appointments: missing" in outcome.err
    outcome = app.forked("migrate.new", "-m", "add appointments", "--json")
    assert outcome.code == 0, outcome.err
    path = app.root / outcome.json["file"]
    text = path.read_text()
    assert path.parent == app.root / "migrations" / "versions" and f"down_revision = '{head()}'" in text
    assert "minutes > 60" in text and "ck_appointments_minutes" in text and outcome.json["warnings"] == []
    for task, count in (("upgrade", 1), ("downgrade", 0), ("upgrade", 1)):
        outcome = app.forked(f"migrate.{task}")
        assert outcome.code == 0, outcome.err
        assert app.query("SELECT count(*) FROM pg_class WHERE relname = 'appointments'") == [(count,)]
        ledger = app.query(
            "SELECT count(*) FROM skinspire_tools.ledger, jsonb_object_keys(triggers) k WHERE k ~ 'appointments'"
        )
        assert ledger == [(2 * count,)]
        assert app.forked("triggers.status").code == 0
    assert app.query("SELECT tgname FROM pg_trigger WHERE tgrelid = 'appointments'::regclass AND NOT tgisinternal ORDER BY 1") == [
        ("_100_timestamps",), ("_110_user_tracking",),
    ]  # fmt: skip
    assert app.query("SELECT * FROM patients ORDER BY 1") == before
    outcome = app.forked("migrate.check")
    assert outcome.code == 0, outcome.out + outcome.err
    assert "0 changes" in app.forked("migrate.new", "-m", "again").out
    assert [row[0] for row in app.query("SELECT operation FROM skinspire_tools.journal ORDER BY started_at")][-3:] == [
        "migrate.upgrade", "migrate.downgrade", "migrate.upgrade",
    ]  # fmt: skip


def test_what_loses_or_locks_is_said(app: Project) -> None:
    app.execute("CREATE TABLE extra (id int); ALTER TABLE staff ADD surplus int; ALTER TABLE staff ALTER title TYPE text;"
                "ALTER TABLE staff ALTER personal_info DROP NOT NULL; DROP INDEX ix_staff_live")  # fmt: skip
    outcome = app.invoke("migrate.new", "-m", "back to the models", "--json")
    said = "\n".join(outcome.json["warnings"])
    for each in (
        "drop table extra",
        "drop column staff.surplus",
        "ALTER COLUMN title TYPE character varying(10): a new type",
        "column public.staff.title: text becomes character varying(10): values over 10 characters are refused: 0 of ",
        "staff.personal_info: NOT NULL",
        "ix_staff_live: the table cannot be written",
    ):
        assert each in said, said
    assert app.invoke("migrate.upgrade").code == 0
    assert app.invoke("migrate.check").code == 0


@pytest.mark.slow
def test_a_renamed_table_takes_its_names_along(make_project: Callable[..., Project], template: str) -> None:
    """A revision renames it; what is named after it follows by one that migrate.new writes, and nothing is made anew."""
    models = (
        "from sqlalchemy import Column, ForeignKey, Identity, Index, Integer, MetaData, String, Table\n"
        "from skinspire_db.clinic.models import Base\n"
        "Table('NAME', Base.metadata, Column('id', Integer, primary_key=True), Column('code', String(9), unique=True),\n"
        "      Column('n', Integer, Identity()), Column('parent_id', ForeignKey('NAME.id'), index=True))\n"
        "Table('other', Base.metadata, Column('id', ForeignKey('NAME.id'), primary_key=True))\n"
    )
    app = make_project('metadata = ["skinspire_db.clinic.models:Base", "renamed_app:Base"]\nmigrations = "migrations"\n')
    app.execute(f'CREATE DATABASE "{app.database}" TEMPLATE {template}', "postgres")
    (app.root / "renamed_app.py").write_text(models.replace("NAME", "before"))
    assert app.forked("db.create", "--update-only").code == 0
    app.execute("INSERT INTO before (code) VALUES ('a'), ('b')")
    (app.root / "renamed_app.py").write_text(models.replace("NAME", "after"))
    (app.root / "migrations" / "versions").mkdir(parents=True)
    revision(app, "renames", head(), "ALTER TABLE before RENAME TO after", "ALTER TABLE after RENAME TO before")
    assert app.forked("migrate.upgrade").code == 0 and app.forked("db.drift").code == 3
    written = app.forked("migrate.new", "-m", "names", "--json")
    assert written.code == 0, written.out
    text = (app.root / written.json["file"]).read_text()
    assert "RENAME" in text and not re.search(r"\b(DROP|ADD|CREATE|SET)\b", text) and written.json["warnings"] == []
    assert app.forked("migrate.upgrade").code == 0
    drift = app.forked("db.drift")
    assert drift.code == 0, drift.out
    assert app.query("INSERT INTO after (code) VALUES ('c') RETURNING id, n") == [(3, 3)]


def test_a_view_mapped_as_a_table_is_left_alone(app: Project) -> None:
    (app.root / "clinic_app.py").write_text(
        "from sqlalchemy import Column, Table, Uuid\nfrom skinspire_db.clinic.models import Base\n"
        "Table('patient_list', Base.metadata, Column('patient_id', Uuid, primary_key=True), info={'is_view': True}, extend_existing=True)\n"
    )
    app.execute("CREATE VIEW patient_list AS SELECT patient_id FROM patients")
    outcome = app.forked("migrate.check")
    assert outcome.code == 0, outcome.err


MODELS = """
from sqlalchemy import *
from sqlalchemy.dialects.postgresql import *
from sqlalchemy.types import TypeDecorator
from skinspire_db.clinic.models import Base

class Money(TypeDecorator):
    impl = Numeric
    cache_ok = True

mood, moods = Enum("sad", "happy", name="mood"), Enum("sad", "calm", name="mood")
def T(name, *items, **options):
    return Table(name, Base.metadata, Column("id", Integer, primary_key=True), *items, **options)

"""
PAIRS = {
    "a schema": ("", "T('novel', schema='annex')"),
    "own type": ("T('novel')", "T('novel', Column('price', Money(10, 2)))"),
    "percent": ("T('novel')", "T('novel', Column('a', String, server_default='50% :off', comment='in %'))"),
    "colon": (
        "T('novel', Column('a', Text))",
        r"""T('novel', Column('a', Text), CheckConstraint(r"a ~ '^(?\:ab|c)$'", name='five'))""",
    ),
    "label in an index": (
        "T('novel', Column('m', mood), Index('ix_m', 'id', postgresql_where=text(\"m = 'sad'\")))",
        "T('novel', Column('m', moods), Index('ix_m', 'id', postgresql_where=text(\"m = 'sad'\")))",
    ),
    "label in an array": ("T('novel', Column('m', ARRAY(mood)))", "T('novel', Column('m', ARRAY(moods)))"),
    "enum to text": ("T('novel', Column('m', mood, server_default='sad'))", "T('novel', Column('m', Text, server_default='x'))"),
    "text to integer": ("T('novel', Column('m', Text, server_default='1'))", "T('novel', Column('m', Integer, server_default='2'))"),
    "serial to identity": (
        "T('novel')", "Table('novel', Base.metadata, Column('id', Integer, Identity(), primary_key=True))",
    ),
    "identity to none": (
        "T('novel', Column('n', Integer, Identity(), nullable=False))", "T('novel', Column('n', Integer, nullable=False))",
    ),
    "serial to bigint": ("T('novel')", "Table('novel', Base.metadata, Column('id', BigInteger, primary_key=True))"),
    "constraint comment": ("T('novel')", "T('novel', CheckConstraint('id > 0', name='up', comment='it\\'s so'))"),
    "primary key": ("T('novel', Column('b', Integer, nullable=False))", "Table('novel', Base.metadata, Column('id', Integer, autoincrement=False, primary_key=True), Column('b', Integer, autoincrement=False, primary_key=True))"),
    "deferrable": ("T('novel', UniqueConstraint('id', name='u'))", "T('novel', UniqueConstraint('id', name='u', deferrable=True))"),
    "unlogged": ("T('novel')", "T('novel', prefixes=['UNLOGGED'])"),
    "another schema": ("T('novel', schema='annex')", "T('novel', schema='extra')"),
    "hostile name": ("T('novel')", "T('novel', Column('a.b \"c\" %', Integer, server_default='1'), Column('select', Text, comment='ö'))"),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("pair", PAIRS)
def test_there_and_back(make_project: Callable[..., Project], template: str, pair: str) -> None:
    before, after = PAIRS[pair]
    app = make_project('metadata = ["skinspire_db.clinic.models:Base", "pair_app:Base"]\n')
    app.execute(f'CREATE DATABASE "{app.database}" TEMPLATE {template}', "postgres")
    (app.root / "pair_app.py").write_text(MODELS + before)
    assert app.forked("db.create", "--update-only").code == 0
    if before and "annex" not in before:
        app.execute(
            "INSERT INTO novel (id) VALUES (DEFAULT), (DEFAULT)"
            if pair != "primary key"
            else "INSERT INTO novel (b) VALUES (1)"
        )
    first = definitions(app)
    (app.root / "pair_app.py").write_text(MODELS + after)
    outcome = app.forked("migrate.new", "-m", pair, "--json")
    assert outcome.code == 0, outcome.out
    written = outcome.json
    wrong = [each for each in written["warnings"] if "add it by hand" in each or "it fails" in each]
    assert wrong == (
        [f"not in this revision, add it by hand: {each} extra" for each in ("schema annex",)]
        if pair == "another schema"
        else []
    )
    if pair == "another schema":
        return
    upgraded = app.forked("migrate.upgrade")
    assert upgraded.code == 0, upgraded.err
    drift = app.forked("db.drift")
    assert drift.code == 0, drift.out
    if pair == "serial to identity":
        app.execute("INSERT INTO novel DEFAULT VALUES")
        assert app.query("SELECT max(id) FROM novel") == [(3,)], "numbers that are taken are not given again"
    if pair == "percent":
        assert app.query("INSERT INTO novel DEFAULT VALUES RETURNING a") == [("50% :off",)]
    assert app.forked("migrate.downgrade").code == 0
    assert definitions(app) == first

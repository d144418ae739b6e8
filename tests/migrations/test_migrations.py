"""Migrations: written from the models, applied and taken back one transaction each, and what must not go wrong with them."""

from __future__ import annotations

import json
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from hypothesis import HealthCheck, Phase, given
from hypothesis import settings as examples
from hypothesis import strategies as st
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
from skinspire_db.clinic.models.base import NAMING_CONVENTION
from skinspire_db.config import environment
from skinspire_db.config import project as settings
from skinspire_db.migrations import drift, revisions, running, writing
from skinspire_db.postgres import connections
from skinspire_db.postgres.target import target_of
from skinspire_db.schema import tables
from skinspire_db.schema.blueprint import Blueprint

APPOINTMENT = """
import uuid
from sqlalchemy import CheckConstraint, ForeignKey, Index, text
from sqlalchemy.orm import Mapped, mapped_column
from skinspire_db.clinic.models import Base, TenantMixin, TimestampMixin
from skinspire_db.clinic.models.base import UuidKey

class Appointment(TimestampMixin, TenantMixin, Base):
    __tablename__ = "appointments"
    appointment_id: Mapped[UuidKey]
    patient_id: Mapped[uuid.UUID] = mapped_column(ForeignKey("patients.patient_id"), index=True)
    minutes: Mapped[int] = mapped_column(server_default=text("15"))
    __table_args__ = (
        CheckConstraint("minutes > 0", name="minutes"),
        Index("ix_appointments_long", "patient_id", postgresql_where=text("minutes > 60")),
    )
"""


@pytest.fixture
def app(make_project: Callable[..., Project], template: str) -> Project:
    """A project with a folder of its own for revisions, whose dev database is set up."""
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "clinic_app:Base"]\nmigrations = "migrations"\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "clinic_app.py").write_text("from skinspire_db.clinic.models import Base\n")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    return project


def head() -> str:
    [found] = revisions.heads(settings.Project(Path("/nonexistent"), {}))
    return found


def revision(project: Project, name: str, after: str | None, up: str = "", down: str = "") -> str:
    """Write a revision whose statements are these."""
    up, down = (f"op.execute({sql!r})" if sql else "pass" for sql in (up, down))
    (project.root / "migrations" / "versions" / f"{name}.py").write_text(
        f'"""{name}"""\nfrom alembic import op\nrevision = {name!r}\ndown_revision = {after!r}\nbranch_labels = None\n'
        f"depends_on = None\ndef upgrade():\n    {up}\ndef downgrade():\n    {down}\n"
    )
    return name


def at(project: Project) -> list[str]:
    return [name for (name,) in project.query("SELECT version_num FROM alembic_version ORDER BY 1")]


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


def definitions(project: Project) -> list[str]:
    """What pg_dump -s says of the tables, sorted, since the order of columns apart the order of making means nothing."""
    dumped = project.dump()
    statements = re.findall(
        r"^(?:CREATE (?:TABLE|SEQUENCE|INDEX|UNIQUE INDEX)|ALTER TABLE|ALTER SEQUENCE) .*?;\n", dumped, re.M | re.S
    )
    return sorted(each for each in statements if "skinspire_tools" not in each)


@pytest.mark.slow
def test_an_appointment_there_and_back(app: Project) -> None:
    (app.root / "clinic_app.py").write_text(APPOINTMENT)
    before = app.query("SELECT * FROM patients ORDER BY 1")
    outcome = app.process("migrate.check")
    assert outcome.code == 3 and "table public.appointments: missing" in outcome.err
    outcome = app.process("migrate.new", "-m", "add appointments", "--json")
    assert outcome.code == 0, outcome.err
    path = app.root / outcome.json["file"]
    text = path.read_text()
    assert path.parent == app.root / "migrations" / "versions" and f"down_revision = '{head()}'" in text
    assert "minutes > 60" in text and "ck_appointments_minutes" in text and outcome.json["warnings"] == []
    for task, count in (("upgrade", 1), ("downgrade", 0), ("upgrade", 1)):
        outcome = app.process(f"migrate.{task}")
        assert outcome.code == 0, outcome.err
        assert app.query("SELECT count(*) FROM pg_class WHERE relname = 'appointments'") == [(count,)]
        ledger = app.query(
            "SELECT count(*) FROM skinspire_tools.ledger, jsonb_object_keys(triggers) k WHERE k ~ 'appointments'"
        )
        assert ledger == [(2 * count,)]
        assert app.process("triggers.status").code == 0
    assert app.query("SELECT tgname FROM pg_trigger WHERE tgrelid = 'appointments'::regclass AND NOT tgisinternal ORDER BY 1") == [
        ("_100_timestamps",), ("_110_user_tracking",),
    ]  # fmt: skip
    assert app.query("SELECT * FROM patients ORDER BY 1") == before
    outcome = app.process("migrate.check")
    assert outcome.code == 0, outcome.out + outcome.err
    assert "0 changes" in app.process("migrate.new", "-m", "again").out
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
    assert app.process("db.create", "--update-only").code == 0
    app.execute("INSERT INTO before (code) VALUES ('a'), ('b')")
    (app.root / "renamed_app.py").write_text(models.replace("NAME", "after"))
    (app.root / "migrations" / "versions").mkdir(parents=True)
    revision(app, "renames", head(), "ALTER TABLE before RENAME TO after", "ALTER TABLE after RENAME TO before")
    assert app.process("migrate.upgrade").code == 0 and app.process("db.drift").code == 3
    written = app.process("migrate.new", "-m", "names", "--json")
    assert written.code == 0, written.out
    text = (app.root / written.json["file"]).read_text()
    assert "RENAME" in text and not re.search(r"\b(DROP|ADD|CREATE|SET)\b", text) and written.json["warnings"] == []
    assert app.process("migrate.upgrade").code == 0
    drift = app.process("db.drift")
    assert drift.code == 0, drift.out
    assert app.query("INSERT INTO after (code) VALUES ('c') RETURNING id, n") == [(3, 3)]


def test_a_view_mapped_as_a_table_is_left_alone(app: Project) -> None:
    (app.root / "clinic_app.py").write_text(
        "from sqlalchemy import Column, Table, Uuid\nfrom skinspire_db.clinic.models import Base\n"
        "Table('patient_list', Base.metadata, Column('patient_id', Uuid, primary_key=True), info={'is_view': True}, extend_existing=True)\n"
    )
    app.execute("CREATE VIEW patient_list AS SELECT patient_id FROM patients")
    outcome = app.process("migrate.check")
    assert outcome.code == 0, outcome.err


def test_a_revision_that_fails_leaves_no_trace_and_those_before_it_stay(app: Project) -> None:
    revision(
        app, "one", head(), "CREATE TABLE one (id int, created_at timestamptz, updated_at timestamptz)", "DROP TABLE one"
    )
    revision(app, "two", "one", "CREATE TABLE two (id int); INSERT INTO nonesuch VALUES (1)")
    revision(app, "three", "two", "CREATE TABLE three (id int)")
    outcome = app.invoke("migrate.upgrade", "--json")
    assert outcome.code == 1 and at(app) == ["one"]
    message = outcome.json["error"]["message"]
    assert "migrations/versions/two.py" in message and 'relation "nonesuch" does not exist' in message
    assert "INSERT INTO nonesuch" in message and [step["ok"] for step in outcome.json["steps"]] == [True, True, True, False]
    assert app.query("SELECT to_regclass('two'), to_regclass('one') IS NOT NULL") == [(None, True)]
    assert app.query("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'one'::regclass") == [(1,)]
    revision(app, "two", "one", "CREATE TABLE two (id int)", "DROP TABLE two")
    assert app.invoke("migrate.upgrade").code == 0 and at(app) == ["three"]
    assert app.invoke("migrate.downgrade", "--steps=2").code == 0 and at(app) == ["one"]
    assert app.invoke("migrate.upgrade", "--to=two").code == 0 and at(app) == ["two"]
    outcome = app.invoke("migrate.status", "--json")
    assert [(each["revision"], each["state"]) for each in outcome.json["revisions"]][1:] == [
        ("one", "applied"), ("two", "applied"), ("three", "pending"),
    ]  # fmt: skip
    assert app.invoke("migrate.check").code == 3


def test_a_view_in_the_way_is_named_with_the_way_around(app: Project) -> None:
    app.execute("CREATE VIEW titles AS SELECT title FROM staff")
    revision(app, "wider", head(), "ALTER TABLE staff ALTER title TYPE text")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "view titles depends on column" in outcome.err
    assert "in wider.py: drop that first with op.execute('DROP ...'), and make it again after" in outcome.err


def test_two_heads(app: Project) -> None:
    revision(app, "mine", head(), "CREATE TABLE mine (id int)")
    revision(app, "yours", head(), "CREATE TABLE yours (id int)")
    for task in (["migrate.upgrade"], ["migrate.check"], ["migrate.new", "-m", "x"], ["db.prepare"]):
        outcome = app.invoke(*task)
        assert outcome.code == 2 and "2 heads: mine, yours -> invoke migrate.merge" in outcome.err, task
    assert "2 heads" in app.invoke("migrate.status").out
    outcome = app.invoke("migrate.merge")
    assert outcome.code == 0, outcome.err
    assert app.invoke("migrate.upgrade").code == 0
    assert app.query("SELECT to_regclass('mine') IS NOT NULL AND to_regclass('yours') IS NOT NULL") == [(True,)]
    outcome = app.invoke("migrate.merge")
    assert outcome.code == 2 and "nothing to merge" in outcome.err


def test_a_file_that_is_missing_or_broken(app: Project) -> None:
    revision(app, "second", "first")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 2 and "first" in outcome.err and "restore the file from version control" in outcome.err
    (app.root / "migrations" / "versions" / "second.py").write_text("revision = 'second'\ndown_revision = (\n")
    outcome = app.invoke("migrate.status")
    assert outcome.code == 2 and "the revision files cannot be used" in outcome.err


def test_a_database_ahead_of_the_code(app: Project) -> None:
    app.execute("UPDATE alembic_version SET version_num = 'later'")
    for task in ("migrate.upgrade", "migrate.check", "migrate.downgrade", "migrate.sql", "db.prepare"):
        outcome = app.invoke(task)
        assert outcome.code == 2 and "the database is at later, which no revision file has" in outcome.err, task
    assert "unknown" in app.invoke("migrate.status").out
    assert app.invoke("migrate.stamp").code == 0 and at(app) == [head()]


def test_a_database_made_without_migrations(app: Project) -> None:
    app.execute("DROP TABLE alembic_version")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 2 and "was made without migrations" in outcome.err and "migrate.stamp --env=dev" in outcome.err
    assert app.invoke("migrate.stamp").code == 0
    assert app.invoke("migrate.upgrade").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["migrate.new"], "needs a message"),
        (["migrate.new", "-m", " "], "needs a message"),
        (["migrate.upgrade", "--to=nonesuch"], "there is no one revision nonesuch"),
        (["migrate.stamp", "--to=nonesuch"], "there is no one revision nonesuch"),
        (["migrate.downgrade", "--steps=0"], "is no number of revisions"),
        (["migrate.downgrade", "--steps=many"], "is no number of revisions"),
    ],
)
def test_wrong_arguments(app: Project, arguments: list[str], says: str) -> None:
    outcome = app.invoke(*arguments)
    assert outcome.code == 2 and says in outcome.err and " -> " in outcome.err


def test_a_downgrade_that_does_not_exist(project: Project) -> None:
    assert project.invoke("db.create").code == 0
    outcome = project.invoke("migrate.downgrade", "--steps=9")
    assert outcome.code == 2 and "the database has 1 revision -> invoke migrate.downgrade --env=dev --steps=1" in outcome.err
    assert at(project) == [head()], "refused is: nothing was tried"
    assert project.invoke("migrate.downgrade").code == 0 and at(project) == []
    assert project.invoke("migrate.downgrade").code == 2


# what a reviewer found


def test_with_two_heads_applied_one_step_back_is_one_step(app: Project) -> None:
    revision(app, "mine", head(), "CREATE TABLE mine (id int); INSERT INTO mine VALUES (1)", "DROP TABLE mine")
    assert app.invoke("migrate.upgrade").code == 0
    revision(app, "yours", head(), "CREATE TABLE yours (id int)", "DROP TABLE yours")
    assert app.invoke("migrate.upgrade", "--to=yours").code == 0
    assert app.invoke("migrate.downgrade").code == 0
    assert len(at(app)) == 1
    assert app.invoke("migrate.upgrade", "--to=yours").code == 0 and app.invoke("migrate.upgrade", "--to=mine").code == 0
    assert app.invoke("migrate.merge").code == 0 and app.invoke("migrate.upgrade").code == 0
    assert app.invoke("migrate.downgrade").code == 0 and sorted(at(app)) == ["mine", "yours"], "a merge can be taken back"


@pytest.mark.parametrize(
    ("up", "says"),
    [
        ("op.execute('CREATE TABLE t1 (id int)'); op.execute('COMMIT'); op.execute('SELECT 1/0')", "it says COMMIT"),
        ("op.execute('CREATE TABLE t1 (id int); ROLLBACK')", "it says ROLLBACK"),
        ("op.execute('CREATE TABLE t1 (id int)'); op.get_bind().commit()", "Can't operate on closed transaction"),
        ("op.execute('CREATE TABLE t1 (id int)'); {}['colour']", "line 8: KeyError: 'colour'"),
        ("op.execute('CREATE TABLE t1 (id int)'); import nonesuch", "No module named 'nonesuch'"),
        ("with op.get_context().autocommit_block(): op.execute('CREATE TABLE t1 (id int)')", "one transaction"),
        ("op.execute(\"CREATE ROLE x PASSWORD 'topsecret'; SELECT 1/0\")", "PASSWORD '...'"),
    ],
)
def test_a_revision_that_is_wrong_itself(app: Project, up: str, says: str) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'wrong', head())}.py"
    file.write_text(file.read_text().replace("def upgrade():\n    pass", f"def upgrade():\n    {up}"))
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and says in outcome.err and "wrong.py" in outcome.err and "left no trace" in outcome.err, (
        outcome.err
    )
    assert "topsecret" not in outcome.err
    assert at(app) == [head()] and app.query("SELECT to_regclass('t1')") == [(None,)]


def test_a_revision_may_use_savepoints(app: Project) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'careful', head())}.py"
    up = "with op.get_bind().begin_nested():\n        op.execute('CREATE TABLE t1 (id int)')"
    file.write_text(file.read_text().replace("def upgrade():\n    pass", f"def upgrade():\n    {up}"))
    assert app.invoke("migrate.upgrade").code == 0 and at(app) == ["careful"]


def test_a_revision_that_breaks_a_trigger_function_is_not_kept(app: Project) -> None:
    revision(app, "breaks", head(), "ALTER TABLE users DROP COLUMN last_login")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "proofs" in outcome.err and "last_login" in outcome.err
    assert at(app) == [head()]


def test_a_table_in_use_is_no_fault_of_the_revision(app: Project) -> None:
    (app.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\nlock_timeout = 0.5\n")
    revision(app, "locks", head(), "ALTER TABLE staff ADD novel int")
    with app.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE staff IN ACCESS SHARE MODE")
        outcome = app.invoke("migrate.upgrade")
        assert outcome.code == 1 and "held by pid" in outcome.err and "correct the revision" not in outcome.err
        holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        outcome = app.invoke("migrate.sql")
        assert outcome.code == 1 and "held by pid" in outcome.err


@pytest.mark.slow
def test_interrupted_between_revisions_what_was_applied_is_said_to_stay(app: Project) -> None:
    revision(app, "r0", head(), "CREATE TABLE t0 (id int)")
    revision(app, "r1", "r0", "SELECT pg_sleep(30)")
    task = app.start("migrate.upgrade", "--json")
    deadline = time.monotonic() + 30
    while not app.query(
        "SELECT FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND datname = current_database() AND pid <> pg_backend_pid()"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    task.send_signal(signal.SIGINT)
    out, _ = task.communicate()
    error = json.loads(out)["error"]
    assert task.returncode == 1 and "stays" in error["message"] and "as it was" not in error["message"]
    assert at(app) == ["r0"]


@pytest.mark.parametrize("message", ['rename "x"', "C:\\new\\"])
def test_any_message(app: Project, message: str) -> None:
    app.execute("ALTER TABLE staff DROP COLUMN title")
    assert app.invoke("migrate.new", "-m", message).code == 0
    assert message.strip() in [each["message"] for each in app.invoke("migrate.status", "--json").json["revisions"]]


def test_dry_writes_no_file(app: Project) -> None:
    app.execute("ALTER TABLE staff DROP COLUMN title")
    assert app.invoke("--dry", "migrate.new", "-m", "x").code == 0
    assert not list(app.root.glob("migrations/versions/*.py"))


def test_update_only_beside_a_revision_that_makes_the_same(app: Project) -> None:
    app.execute("CREATE TABLE novel (id int)")
    revision(app, "same", head(), "CREATE TABLE novel (id int)")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "invoke migrate.stamp --env=dev --to=same" in outcome.err
    assert app.invoke("migrate.stamp", "--to=same").code == 0 and app.invoke("migrate.upgrade").code == 0


def test_update_only_of_an_empty_database_marks_the_head(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    assert project.invoke("db.create", "--update-only").code == 0
    assert at(project) == [head()] and project.invoke("db.prepare").code == 0


def test_an_id_that_two_files_have(app: Project) -> None:
    revision(app, "one", head())
    copy = app.root / "migrations" / "versions" / "other.py"
    copy.write_text((app.root / "migrations" / "versions" / "one.py").read_text())
    outcome = app.invoke("migrate.status")
    assert outcome.code == 2 and "two files have one revision id" in outcome.err


def test_an_older_revision_is_no_upgrade(app: Project) -> None:
    revision(app, "one", head(), "SELECT 1")
    assert app.invoke("migrate.upgrade").code == 0
    outcome = app.invoke("migrate.upgrade", f"--to={head()}")
    assert outcome.code == 2 and "invoke migrate.downgrade" in outcome.err
    assert app.invoke("migrate.upgrade", "--to=").code == 2
    assert app.invoke("migrate.stamp", "--to=base").code == 0 and at(app) == []


def test_prepare_says_when_the_models_are_ahead_of_the_revisions(app: Project) -> None:
    app.execute("ALTER TABLE staff DROP COLUMN title")
    outcome = app.invoke("db.prepare")
    assert outcome.code == 3 and "column public.staff.title is missing -> invoke migrate.new" in outcome.err


# from one state of an application's models to another, and back

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
    assert app.process("db.create", "--update-only").code == 0
    if before and "annex" not in before:
        app.execute(
            "INSERT INTO novel (id) VALUES (DEFAULT), (DEFAULT)"
            if pair != "primary key"
            else "INSERT INTO novel (b) VALUES (1)"
        )
    first = definitions(app)
    (app.root / "pair_app.py").write_text(MODELS + after)
    outcome = app.process("migrate.new", "-m", pair, "--json")
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
    upgraded = app.process("migrate.upgrade")
    assert upgraded.code == 0, upgraded.err
    drift = app.process("db.drift")
    assert drift.code == 0, drift.out
    if pair == "serial to identity":
        app.execute("INSERT INTO novel DEFAULT VALUES")
        assert app.query("SELECT max(id) FROM novel") == [(3,)], "numbers that are taken are not given again"
    if pair == "percent":
        assert app.query("INSERT INTO novel DEFAULT VALUES RETURNING a") == [("50% :off",)]
    assert app.process("migrate.downgrade").code == 0
    assert definitions(app) == first


def test_no_database_and_no_server(project: Project) -> None:
    outcome = project.invoke("migrate.upgrade")
    assert outcome.code == 1 and "does not exist" in outcome.err
    project.env["DEV_DATABASE_URL"] = "postgresql://x:y@127.0.0.1:1/z"
    outcome = project.invoke("migrate.upgrade")
    assert outcome.code == 1 and "cannot connect" in outcome.err


def test_the_sql_alone(app: Project) -> None:
    revision(app, "one", head(), "CREATE TABLE one (id int)")
    before = app.dump()
    outcome = app.invoke("migrate.sql")
    assert outcome.code == 0 and "CREATE TABLE one (id int)" in outcome.out and "CREATE TABLE hospitals" not in outcome.out
    assert app.dump() == before


def test_dry_changes_nothing(app: Project) -> None:
    revision(app, "one", head(), "CREATE TABLE one (id int)")
    before = app.dump()
    for task in ("migrate.upgrade", "migrate.downgrade", "migrate.stamp", "db.prepare"):
        outcome = app.invoke("--dry", task)
        assert outcome.code == 0 and "would run" in outcome.out
    assert app.dump() == before


def test_a_protected_environment_is_backed_up_before_an_upgrade(app: Project) -> None:
    with (app.root / "pyproject.toml").open("a") as file:
        file.write("[tool.skinspire_db.environments.dev]\nprotected = true\ntest_data = false\n")
    revision(app, "one", head(), "CREATE TABLE one (id int)", "DROP TABLE one")
    revision(app, "two", "one", "CREATE TABLE two (id int)", "DROP TABLE two")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 0 and "a backup was taken first, and proved by a restore" in outcome.err
    assert at(app) == ["two"]
    [backup] = app.invoke("backup.list", "--json").json["backups"]
    assert backup["verified"] == "by a restore"
    refused = app.invoke("migrate.downgrade")
    assert refused.code == 2 and f"--confirm={app.database}" in refused.err and at(app) == ["two"]
    assert app.invoke("migrate.stamp", "--to=one").code == 2


@pytest.mark.slow
def test_kill_9_in_the_middle_of_five_revisions(app: Project) -> None:
    before = head()
    for number in range(5):
        before = revision(app, f"r{number}", before, f"CREATE TABLE t{number} (id int); SELECT pg_sleep(0.3)")
    task = app.start("migrate.upgrade")
    deadline = time.monotonic() + 30
    while at(app) < ["r1"] or at(app) == [head()]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    task.kill()
    task.communicate()
    time.sleep(1.5)  # the server notices within a second
    [(last,)] = app.query("SELECT version_num FROM alembic_version")
    applied = int(last[1:]) + 1
    assert 2 <= applied < 5
    tables = app.query("SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-4]$'")
    assert tables == [(applied,)]
    assert app.query("SELECT count(*) FROM skinspire_tools.journal WHERE operation = 'migrate.upgrade'") == [(applied,)]
    assert app.invoke("migrate.upgrade").code == 0 and at(app) == ["r4"]


# Random pairs of schemas

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
            running.mark(connection, revisions.directory(here).get_heads())
            first = catalogue.snapshot(connection)
            expected = drift._make(to, Blueprint.of(other), [])
            monkeypatch.setattr(tables, "metadata", lambda _: other)
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


def differing(live: dict[str, str], wanted: dict[str, str]) -> list[Any]:
    return [
        (key, live.get(key), wanted.get(key))
        for key in sorted(live.keys() | wanted.keys())
        if live.get(key) != wanted.get(key)
    ]


# db.prepare


def test_prepare(app: Project) -> None:
    outcome = app.invoke("db.prepare", "--json")
    assert outcome.code == 0 and outcome.json["steps"] == [] and outcome.json["database"] == app.database
    revision(app, "one", head(), "CREATE TABLE one (created_at timestamptz, updated_at timestamptz)")
    rows = app.query("SELECT * FROM patients ORDER BY 1")
    app.execute(
        "ALTER TABLE staff DISABLE TRIGGER _100_timestamps; DELETE FROM parameter_settings WHERE param_code = 'LOCKOUT_MINUTES'"
    )
    outcome = app.invoke("db.prepare", "--json")
    assert outcome.code == 0, outcome.err
    assert [step["name"] for step in outcome.json["steps"]] == ["revision", "triggers", "proofs", "seed"]
    assert at(app) == ["one"] and app.query("SELECT * FROM patients ORDER BY 1") == rows
    assert app.query("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'one'::regclass") == [(1,)]
    for task in ("triggers.status", "db.verify", "migrate.check"):
        assert app.invoke(task).code in (0, 3 if task == "migrate.check" else 0), task
    assert "all is right" in app.invoke("db.prepare").out
    app.execute("ALTER TABLE staff DISABLE TRIGGER _100_timestamps")
    outcome = app.invoke("db.prepare", "--json")
    assert [step["name"] for step in outcome.json["steps"]] == ["triggers"]


def test_prepare_without_a_database(project: Project) -> None:
    outcome = project.invoke("db.prepare", "--json")
    assert outcome.code == 0, outcome.err
    assert [step["name"] for step in outcome.json["steps"]] == ["create", "triggers", "seed", "verify"]
    assert outcome.json["sign_in"] and project.invoke("migrate.status").code == 0
    assert project.query("SELECT count(*) FROM patients") == [(20,)]


def test_another_environments_database_is_never_all_right(app: Project) -> None:
    """The URL of dev leads to test's database, where there is nothing to do."""
    app.execute("UPDATE skinspire_tools.stamp SET environment = 'test'")
    for task in ("db.prepare", "migrate.upgrade", "migrate.sql"):
        outcome = app.invoke(task)
        assert outcome.code == 2 and "is stamped test, not dev" in outcome.err, task


def test_prepare_of_somebody_elses_database(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE TABLE theirs (id int)")
    outcome = project.invoke("db.prepare")
    assert outcome.code == 2
    assert project.query("SELECT count(*) FROM pg_class WHERE relname = 'hospitals'") == [(0,)]

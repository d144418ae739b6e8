"""db.drift: everything that differs is named, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from conftest import Project
from large_schema import DIFFERENCES

from skinspire_db.lifecycle import scratch
from skinspire_db.postgres import programs
from skinspire_db.postgres.target import Target

# what is done, and the differences that it makes
CHANGES = {
    "ALTER TABLE staff DROP COLUMN title": ["column public.staff.title missing"],
    "ALTER TABLE staff ADD surplus int": ["column public.staff.surplus extra"],
    "ALTER TABLE patients ALTER title TYPE text": ["column public.patients.title differs"],
    "ALTER TABLE patients ALTER personal_info DROP NOT NULL": ["column public.patients.personal_info differs"],
    "ALTER TABLE hospitals ALTER timezone SET DEFAULT 'UTC'": ["column public.hospitals.timezone differs"],
    "ALTER TABLE hospitals ALTER default_currency DROP DEFAULT": ["column public.hospitals.default_currency differs"],
    "COMMENT ON COLUMN users.last_login IS 'late'": ["column public.users.last_login differs"],
    "COMMENT ON TABLE branches IS 'twigs'": ["table public.branches differs"],
    "ALTER TABLE users DROP CONSTRAINT ck_users_entity_type": ["constraint ck_users_entity_type on public.users missing"],
    "ALTER TABLE patients DROP CONSTRAINT ck_patients_blood_group, ADD CONSTRAINT ck_patients_blood_group CHECK (blood_group <> 'X')":
        ["constraint ck_patients_blood_group on public.patients differs"],
    "ALTER TABLE staff ADD CONSTRAINT extra_check CHECK (true)": ["constraint extra_check on public.staff extra"],
    "DROP INDEX ix_users_live; CREATE INDEX ix_users_live ON users (hospital_id, entity_type)": ["index ix_users_live on public.users differs"],
    "DROP INDEX ix_staff_live": ["index ix_staff_live on public.staff missing"],
    "CREATE INDEX ix_extra ON staff (last_name)": ["index ix_extra on public.staff extra"],
    "ALTER SEQUENCE role_master_role_id_seq INCREMENT BY 5": ["sequence public.role_master_role_id_seq differs"],
    "CREATE TABLE extra_table (id serial PRIMARY KEY)": ["table public.extra_table extra"],
    "CREATE VIEW extra_view AS SELECT 1 AS one": ["view public.extra_view extra"],
    "CREATE TYPE mood AS ENUM ('sad')": ["type public.mood extra"],
    "CREATE OR REPLACE FUNCTION expire_sessions() RETURNS integer LANGUAGE sql AS 'SELECT 0'": ["function expire_sessions() differs"],
    "ALTER TABLE branches DISABLE TRIGGER _100_timestamps": ["trigger _100_timestamps on public.branches differs"],
    "DROP TRIGGER _100_timestamps ON module_master": ["trigger _100_timestamps on public.module_master missing"],
    "GRANT SELECT ON role_master TO PUBLIC": ["grant public.role_master to PUBLIC extra"],
    "REVOKE EXECUTE ON FUNCTION verify_password FROM PUBLIC": ["grant verify_password(text,text) to PUBLIC missing"],
    "CREATE EXTENSION citext": ["extension citext extra"],
    "CREATE SCHEMA elsewhere": ["schema elsewhere extra"],
    "DROP TABLE login_history": ["table public.login_history missing"],
    "ALTER TABLE branches SET (fillfactor = 70)": ["table public.branches differs"],
    "ALTER TABLE parameter_settings SET UNLOGGED": ["table public.parameter_settings differs"],
    "ALTER TABLE role_master ENABLE ROW LEVEL SECURITY": ["table public.role_master differs"],
    "ALTER TABLE role_master REPLICA IDENTITY FULL": ["table public.role_master differs"],
    "CREATE POLICY mine ON role_master USING (true)": ["policy mine on public.role_master extra"],
    "CREATE RULE never AS ON DELETE TO module_master DO INSTEAD NOTHING": ["rule never on public.module_master extra"],
    "CREATE STATISTICS together ON first_name, last_name FROM staff": ["statistics together on public.staff extra"],
    "ALTER TABLE patients ALTER medical_info SET STORAGE external": ["column public.patients.medical_info differs"],
    "ALTER TABLE staff ALTER last_name TYPE varchar(100) COLLATE \"C\"": ["column public.staff.last_name differs"],
    "GRANT SELECT (last_login) ON users TO PUBLIC": ["grant public.users.last_login to PUBLIC extra"],
    "GRANT CREATE ON SCHEMA public TO PUBLIC": ["grant schema public to PUBLIC differs"],
    "ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO PUBLIC":
        ["grant what skinspire will make in public (r) to PUBLIC extra"],
    "CREATE DOMAIN pin AS text CHECK (VALUE ~ '^[0-9]+$')": ["type public.pin extra"],
    "CREATE TYPE pair AS (a int, b text)": ["type public.pair extra"],
    "CREATE TYPE span AS RANGE (subtype = int)": ["type public.span extra"],
    "COMMENT ON FUNCTION expire_sessions() IS 'x'": ["function expire_sessions() differs"],
    "COMMENT ON CONSTRAINT pk_branches ON branches IS 'x'": ["constraint pk_branches on public.branches differs"],
    "ALTER TABLE staff ADD CONSTRAINT later CHECK (staff_id IS NOT NULL) NOT VALID": ["constraint later on public.staff extra"],
    "CREATE ROLE owner_of_drift; ALTER TABLE role_module_access OWNER TO owner_of_drift":
        ["table public.role_module_access differs"],
    "ALTER TABLE user_sessions DISABLE TRIGGER ALL": None,
    "CREATE OPERATOR === (leftarg = box, rightarg = box, function = box_same)": ["object operator public.===(pg_catalog.box,pg_catalog.box) extra"],
    "CREATE PUBLICATION all_of_it FOR TABLE staff": ["publication all_of_it extra"],
}  # fmt: skip


def found(project: Project, code: int = 3) -> list[str]:
    outcome = project.invoke("db.drift", "--json")
    assert outcome.code == code, outcome.out + outcome.err
    return sorted(f"{each['kind']} {each['name']} {each['state']}" for each in outcome.json["drift"])


def test_a_database_as_it_should_be(clinic: Project) -> None:
    before = clinic.dump()
    assert found(clinic, 0) == []
    assert clinic.dump() == before
    aside = clinic.query("SELECT datname FROM pg_database WHERE datname LIKE '%expected%'", "postgres")
    assert [name for (name,) in aside if name.startswith(clinic.database)] == [], "nothing is left behind"


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_each_difference_is_named(clinic: Project, change: str) -> None:
    clinic.execute(change)
    try:
        if (expected := CHANGES[change]) is not None:
            assert found(clinic) == expected
        else:  # its own triggers and those of its foreign keys
            kinds = {each.split()[0] for each in found(clinic)}
            assert kinds == {"trigger", "constraint"}
    finally:
        clinic.execute("DROP OWNED BY owner_of_drift CASCADE; DROP ROLE owner_of_drift" if "ROLE" in change else "SELECT")


def test_all_of_them_together(clinic: Project) -> None:
    for change, named in CHANGES.items():
        if named is not None and "ROLE" not in change:
            clinic.execute(change)
    assert found(clinic) == sorted(
        {each for change, named in CHANGES.items() if named is not None and "ROLE" not in change for each in named}
    )
    outcome = clinic.invoke("db.drift")
    assert outcome.code == 3 and "differences: " in outcome.err and "-> invoke migrate.new --env=dev" in outcome.err
    assert "  - " in outcome.out and "  + " in outcome.out


@pytest.mark.slow
def test_what_the_models_say_is_made_anew_when_they_change(make_project: Callable[..., Project], template: str) -> None:
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "clinic_app:Base"]\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "clinic_app.py").write_text("from skinspire_db.clinic.models import Base\n")
    assert project.forked("db.verify").code == 0, "what the models say is cached now, and no model is loaded by the next"
    assert project.forked("db.drift").code == 0
    time.sleep(0.01)
    (project.root / "clinic_app.py").write_text(
        "from sqlalchemy import Column, Integer, Table\nfrom skinspire_db.clinic.models import Base\n"
        "Table('novel', Base.metadata, Column('id', Integer, primary_key=True))\n"
        "Table('looks', Base.metadata, Column('id', Integer, primary_key=True), info={'is_view': True})\n"
    )
    outcome = project.forked("db.drift", "--json")
    assert [(each["name"], each["state"]) for each in outcome.json["drift"]] == [
        ("public.novel", "missing"),
        ("public.looks", "missing"),
    ]
    project.execute("CREATE VIEW looks AS SELECT 1 AS id")
    outcome = project.forked("db.drift", "--json")
    assert outcome.code == 3
    assert [each["name"] for each in outcome.json["drift"]] == ["public.novel"]


def test_a_role_that_may_not_create_databases(clinic: Project) -> None:
    role = f"reader_{clinic.database}"
    clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'; GRANT USAGE ON SCHEMA skinspire_tools TO {role}")
    clinic.execute(f"GRANT SELECT ON skinspire_tools.stamp, skinspire_tools.ledger TO {role}")
    try:
        clinic.env["DEV_DATABASE_URL"] = clinic.url(clinic.database, user=role, password="secret")
        outcome: Any = clinic.invoke("db.drift")
        assert outcome.code == 1 and f'ALTER ROLE "{role}" CREATEDB' in outcome.err
    finally:
        clinic.env["DEV_DATABASE_URL"] = clinic.url(clinic.database)
        clinic.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.slow
def test_what_a_killed_one_left_is_swept_up(clinic: Project) -> None:
    def left() -> list[str]:
        prefix = f"{clinic.database}_scratch_"
        return [name for (name,) in clinic.query("SELECT datname FROM pg_database", "postgres") if name.startswith(prefix)]

    task = clinic.start("db.drift")
    deadline = time.monotonic() + 30
    while not left():
        assert time.monotonic() < deadline and task.poll() is None
    task.kill()
    task.communicate()
    [dead] = left()
    living = scratch.new_name(Target("dev", None, {"dbname": clinic.database})).database  # type: ignore[arg-type]
    mine = f"{clinic.database}_scratch_deadbeefdead"
    alive = clinic.connect("postgres")
    alive.execute("SELECT pg_advisory_lock(hashtextextended(%s, 0))", (living,))
    for name in (living, mine):
        clinic.execute(f'CREATE DATABASE "{name}"', "postgres")
    deadline = time.monotonic() + 10
    while dead in left():  # the server notices a dead client within a second or two
        assert found(clinic, 0) == [] and time.monotonic() < deadline
        (clinic.root / ".skinspire" / "expected-dev.json").unlink()
    assert sorted(left()) == sorted([living, mine]), "another operation's, which lives, and another project's are left alone"
    alive.close()
    for name in (living, mine):
        clinic.execute(f'DROP DATABASE "{name}"', "postgres")


@pytest.mark.slow
def test_a_name_of_63_bytes(make_project: Callable[..., Project], template: str) -> None:
    project = make_project()
    project.env["DEV_DATABASE_URL"] = project.url("%E2%82%AC" * 19 + project.database[-6:])
    project.execute(f'CREATE DATABASE "{"€" * 19}{project.database[-6:]}" TEMPLATE {template}', "postgres")
    assert found(project, 0) == []
    project.execute(f'DROP DATABASE "{"€" * 19}{project.database[-6:]}"', "postgres")


def test_partitions_and_what_extensions_own(clinic: Project) -> None:
    clinic.execute(
        "CREATE TABLE extra (id int) PARTITION BY RANGE (id); CREATE TABLE extra_1 PARTITION OF extra FOR VALUES FROM (1) TO (9);"
        "CREATE TABLE of_extension (id int); ALTER EXTENSION pgcrypto ADD TABLE of_extension"
    )
    assert found(clinic) == ["table public.extra extra"], "a partition is what its table holds"


@pytest.mark.slow
def test_extensions_of_the_application(make_project: Callable[..., Project]) -> None:
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "citext_app:Base"]\nextensions = ["citext"]\n')
    (project.root / "citext_app.py").write_text(
        "from sqlalchemy import Column, Table\nfrom sqlalchemy.dialects.postgresql import CITEXT\n"
        "from skinspire_db.clinic.models import Base\nTable('novel', Base.metadata, Column('id', CITEXT, primary_key=True))\n"
    )
    assert project.forked("db.create").code == 0
    outcome = project.forked("db.drift")
    assert outcome.code == 3 and "citext" not in outcome.out, "only the triggers are missing"
    (project.root / "pyproject.toml").write_text('[tool.skinspire_db]\nextensions = ["nonesuch"]\n')
    outcome = project.forked("db.setup")
    assert outcome.code == 1 and "CREATE EXTENSION nonesuch" in outcome.err


# 150 tables with everything that models can say


@pytest.fixture
def large(make_project: Callable[..., Project]) -> Project:
    """A project with the core tables and 150 more, set up; `app` in its folder can be written anew."""
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "large_app:metadata"]\n')
    project.env["PYTHONPATH"] = str(Path(__file__).parent.parent)
    models(project, changed=False)
    assert project.forked("sql.new", "--view=overview").code == 0  # its skeleton will do
    assert project.forked("sql.bump", "--name=overview").code == 0
    outcome = project.forked("db.setup", "--reference-only")
    assert outcome.code == 0, outcome.err
    return project


def models(project: Project, *, changed: bool) -> None:
    (project.root / "large_app.py").write_text(f"from large_schema import build\nmetadata = build(changed={changed})\n")


@pytest.mark.slow
def test_twenty_changes_of_150_tables(large: Project) -> None:
    assert large.forked("db.drift").code == 0
    assert large.forked("migrate.new", "-m", "nothing", "--json").json["steps"][0]["summary"] == {"changes": 0}
    large.execute("INSERT INTO t_004 (body, code) VALUES ('kept', 'c'); INSERT INTO t_006 (body, code) VALUES ('kept', 'd')")
    models(large, changed=True)
    outcome = large.forked("db.drift", "--json")
    assert outcome.code == 3
    assert sorted(f"{each['kind']} {each['name']} {each['state']}" for each in outcome.json["drift"]) == DIFFERENCES
    written = large.forked("migrate.new", "-m", "twenty changes", "--json").json
    assert [each for each in written["warnings"] if "add it by hand" in each or "it fails" in each] == []
    upgraded = large.forked("migrate.upgrade")
    assert upgraded.code == 0, upgraded.err
    after = large.forked("db.drift")
    assert after.code == 0, after.out
    assert large.query("SELECT body FROM t_006") == [("kept",)]
    assert large.forked("migrate.downgrade").code == 0
    models(large, changed=False)
    back = large.forked("db.drift")
    assert back.code == 0, back.out


def others_binaries() -> list[Path]:
    """Folders with other servers than the wheel's, of any major version from 15 on."""
    folders = [path for pattern in programs.USUAL_FOLDERS for path in Path("/").glob(pattern) if (path / "initdb").exists()]
    return [folder for folder in folders if (programs.major_of(folder, "postgres") or 0) >= programs.OLDEST_MAJOR]


IN_APP = """
from sqlalchemy import CheckConstraint, Column, Computed, Enum, ForeignKey, Identity, Index, Integer, String, Table, text
from skinspire_db.clinic.models import Base
Table("told", Base.metadata, Column("id", Integer, Identity(), primary_key=True), Column("parent_id", ForeignKey("told.id")),
      Column("s", String(9)), Column("m", Enum("sad", "happy", name="mood")), Column("w", Enum("a", "b", name="w", native_enum=False, create_constraint=True)),
      Column("g", Integer, Computed("CASE WHEN s IN ('a', 'b') THEN 1 END", persisted=True)), CheckConstraint("s IN ('a', 'b')", name="c"),
      Index("ix_told", "s", postgresql_where=text("s IN ('a', 'b')")))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "folder", others_binaries(), ids=lambda folder: f"PostgreSQL {programs.major_of(folder, 'postgres')}"
)
def test_other_majors_have_no_drift_after_setup(make_project: Callable[..., Project], folder: Path) -> None:
    project = make_project('metadata = ["skinspire_db.clinic.models:Base", "in_app:Base"]\nmigrations = "migrations"\n')
    (project.root / "in_app.py").write_text(IN_APP)
    project.env = {"SKINSPIRE_PG_BIN": str(folder)}
    try:
        assert (made := project.forked("db.setup", "--env=test")).code == 0, made.err
        assert (drift := project.forked("db.drift", "--env=test")).code == 0, drift.out
        (project.root / "in_app.py").write_text(
            IN_APP.replace("THEN 1 END", "THEN 2 END").replace('"happy"', '"calm", "happy"')
        )
        assert (written := project.forked("migrate.new", "--env=test", "-m", "change")).code == 0, written.err
        assert (upgraded := project.forked("migrate.upgrade", "--env=test")).code == 0, upgraded.err
        assert (drift := project.forked("db.drift", "--env=test")).code == 0, drift.out
    finally:
        project.forked("server.stop")
        refused = project.forked("server.destroy").err
        assert project.forked(*refused.rpartition("-> invoke ")[2].split()).code == 0, refused


@pytest.mark.slow
def test_a_subscription_of_another_database_is_no_difference(clinic: Project) -> None:
    """The catalogue of subscriptions is the whole server's."""
    made = f"elsewhere_{clinic.database}"
    clinic.execute(
        f"CREATE SUBSCRIPTION {made} CONNECTION 'dbname=x' PUBLICATION p WITH (connect = false, slot_name = NONE)", "postgres"
    )
    try:
        assert (drift := clinic.invoke("db.drift")).code == 0, drift.out
    finally:
        clinic.execute(f"DROP SUBSCRIPTION {made}", "postgres")

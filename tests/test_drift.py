"""db.drift: everything that differs is named, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from conftest import Project

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
    "CREATE TABLE extra_table (id serial PRIMARY KEY)": ["sequence public.extra_table_id_seq extra", "table public.extra_table extra"],
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
    assert found(clinic) == CHANGES[change]


def test_all_of_them_together(clinic: Project) -> None:
    for change in CHANGES:
        clinic.execute(change)
    assert found(clinic) == sorted(each for named in CHANGES.values() for each in named)
    outcome = clinic.invoke("db.drift")
    assert outcome.code == 3 and "differences: " in outcome.err and "-> invoke migrate.new --env=dev" in outcome.err
    assert "  - " in outcome.out and "  + " in outcome.out


def test_what_the_models_say_is_made_anew_when_they_change(make_project: Callable[..., Project], template: str) -> None:
    project = make_project('metadata = ["skinspire_db.models:Base", "clinic_app:Base"]\n')
    project.execute(f'CREATE DATABASE "{project.database}" TEMPLATE {template}', "postgres")
    (project.root / "clinic_app.py").write_text("from skinspire_db.models import Base\n")
    assert project.process("db.verify").code == 0, "what the models say is cached now, and no model is loaded by the next"
    assert project.process("db.drift").code == 0
    time.sleep(0.01)
    (project.root / "clinic_app.py").write_text(
        "from sqlalchemy import Column, Integer, Table\nfrom skinspire_db.models import Base\n"
        "Table('novel', Base.metadata, Column('id', Integer, primary_key=True))\n"
        "Table('looks', Base.metadata, Column('id', Integer, primary_key=True), info={'is_view': True})\n"
    )
    project.execute("CREATE VIEW looks AS SELECT 1 AS id")
    outcome = project.process("db.drift", "--json")
    assert outcome.code == 3
    assert [each["name"] for each in outcome.json["drift"]] == ["public.novel_id_seq", "public.novel"]


def test_a_role_that_may_not_create_databases(clinic: Project) -> None:
    role = f"reader_{clinic.database}"
    clinic.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'secret'")
    try:
        clinic.env["DEV_DATABASE_URL"] = clinic.url(clinic.database, user=role, password="secret")
        outcome: Any = clinic.invoke("db.drift")
        assert outcome.code == 1 and "may not create the database" in outcome.err
    finally:
        clinic.env["DEV_DATABASE_URL"] = clinic.url(clinic.database)
        clinic.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")

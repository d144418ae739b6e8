"""Revisions that drop or change what a policy depends on: it is taken away, and made again where it still belongs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from conftest import Project
from migration_support import head, revision

TABLES = """
    CREATE TABLE visits (visit_id varchar(9), hospital_id uuid NOT NULL, note text);
    CREATE TABLE codes (code varchar(9), hospital_id uuid NOT NULL);
    CREATE TABLE log (hospital_id uuid NOT NULL, day int) PARTITION BY RANGE (day);
    CREATE TABLE log_1 PARTITION OF log FOR VALUES FROM (1) TO (2)
"""
OWN = """/*
version = 1
summary = "a code is seen where a visit has it"
[[policy]]
name = "of visits"
tables = ["codes"]
for = "SELECT"
using = "EXISTS (SELECT FROM visits WHERE visit_id = code)"
*/
"""
POLICIES = "SELECT polrelid::regclass::text, polname::text FROM pg_policy WHERE polname <> 'tenant_all' ORDER BY 1, 2"


def dropped(project: Project) -> None:
    project.execute(f'DROP DATABASE IF EXISTS "{project.database}" WITH (FORCE)', "postgres")
    for role in ("app", "system"):
        project.execute(f'DROP ROLE IF EXISTS "{project.database}_{role}"', "postgres")


@pytest.fixture
def clinic(make_project: Callable[..., Project]) -> Iterator[Project]:
    """An application with revisions of its own, and tenancy."""
    project = make_project('tenancy = true\nmetadata = ["app:metadata"]\nmigrations = "migrations"\n')
    (project.root / "app.py").write_text("from sqlalchemy import MetaData\nmetadata = MetaData()\n")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    (project.root / "sql" / "policies").mkdir(parents=True)
    (project.root / "sql" / "policies" / "visits.sql").write_text(OWN)
    assert project.invoke("sql.bump", "--name=policies/visits").code == 0
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    assert project.invoke("env.stamp").code == 0
    yield project
    dropped(project)


@pytest.mark.slow
def test_revisions_of_tables_with_policies(clinic: Project) -> None:
    """Columns of other types, tables and columns that go, also of partitions; each way back, and the SQL for a script."""
    ups = {
        "tables": (TABLES, "DROP TABLE visits, codes, log"),
        "retyped": ("ALTER TABLE visits ALTER visit_id TYPE text", "ALTER TABLE visits ALTER visit_id TYPE varchar(9)"),
        "without": (
            "ALTER TABLE visits DROP COLUMN hospital_id; ALTER TABLE log DROP hospital_id",
            "ALTER TABLE visits ADD hospital_id uuid; ALTER TABLE log ADD hospital_id uuid",
        ),
    }
    all_four = [("codes", "of visits"), ("codes", "tenant"), ("log", "tenant"), ("log_1", "tenant"), ("visits", "tenant")]
    expected = {"tables": all_four, "retyped": all_four, "without": all_four[:2]}
    after = None
    for name, (up, down) in ups.items():
        after = revision(clinic, name, after, up, down)
        outcome = clinic.invoke("migrate.upgrade")
        assert outcome.code == 0, outcome.out + outcome.err
        assert clinic.query(POLICIES) == expected[name], name
    secured = "SELECT relname::text FROM pg_class WHERE relforcerowsecurity ORDER BY 1"
    assert clinic.query(secured) == [("codes",)], "row security goes with the last policy"
    for name in ("retyped", "tables"):
        outcome = clinic.invoke("migrate.downgrade")
        assert outcome.code == 0, outcome.out + outcome.err
        with_system = {("log", "tenant_of_system"), ("log_1", "tenant_of_system"), ("visits", "tenant_of_system")}
        assert clinic.query(POLICIES) == sorted(with_system | set(all_four)), name
    clinic.execute("CREATE POLICY by_hand ON visits USING (hospital_id IS NOT NULL)")
    assert clinic.invoke("migrate.upgrade", "--to=retyped").code == 0
    outcome = clinic.invoke("migrate.upgrade")
    assert outcome.code == 2 and "no SQL file made policy by_hand on table visits" in outcome.err, outcome.err
    clinic.execute("DROP POLICY by_hand ON visits")
    written = clinic.invoke("migrate.sql").out
    clinic.execute(written)
    assert clinic.query(POLICIES) == all_four[:2]
    assert clinic.invoke("sql.install").code == 0 and clinic.invoke("migrate.status").code == 0


@pytest.mark.slow
def test_the_cores_revision_of_hospitals_can_be_taken_back(make_project: Callable[..., Project]) -> None:
    project = make_project("tenancy = true\n")
    try:
        assert project.invoke("db.setup").code == 0
        before = project.query(POLICIES)
        outcome = project.invoke("migrate.downgrade")
        assert outcome.code == 0, outcome.out + outcome.err
        assert len(before) > len(project.query(POLICIES)) > 0 and ("login_history", "tenant") not in project.query(POLICIES)
        outcome = project.invoke("migrate.upgrade")
        assert outcome.code == 0, outcome.out + outcome.err
        assert project.query(POLICIES) == before and project.query("SELECT version_num FROM alembic_version") == [(head(),)]
        assert project.invoke("db.drift").code == 0
    finally:
        dropped(project)

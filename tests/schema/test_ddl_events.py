"""Functions and DDL that listen to the creation of an application's tables run as SQLAlchemy's create_all would run them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable

import pytest
from conftest import Project

MODELS = """
from sqlalchemy import Column, DDL, Integer, Enum, MetaData, String, Table, event, inspect, text
from sqlalchemy.orm import declarative_base

Base = declarative_base()


class Visit(Base):
    __tablename__ = "visits"
    id = Column(Integer, primary_key=True)
    kind = Column(Enum("first", "again", name="visit_kind"))


class Bill(Base):
    __tablename__ = "bills"
    __table_args__ = {"schema": "money"}
    id = Column(Integer, primary_key=True)


event.listen(Visit.__table__, "after_create", DDL("COMMENT ON TABLE visits IS 'by DDL'"))


@event.listens_for(Visit.__table__, "after_create")
def fill(target, connection, **options):
    assert inspect(connection).has_table(target.name)
    connection.execute(target.insert(), [{"id": 1, "kind": "first"}])
    connection.exec_driver_sql("CREATE TABLE audit (n integer)")


@event.listens_for(Base.metadata, "after_create")
def count(target, connection, tables, **options):
    names = sorted(table.name for table in tables)
    connection.execute(text("CREATE VIEW made AS SELECT " + ", ".join(f"1 AS {name}" for name in names)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("core", [False, True])
def test_functions_that_listen_are_called_with_a_connection(make_project: Callable[..., Project], core: bool) -> None:
    module = f"listening_{secrets.token_hex(4)}"
    entries = ["skinspire_db.clinic.models:Base"] if core else []
    project = make_project(f"metadata = {json.dumps([*entries, f'{module}:Base'])}\n")
    (project.root / f"{module}.py").write_text(MODELS)
    assert project.forked("db.create").code == 0
    assert project.query("SELECT id, kind::text FROM visits") == [(1, "first")]
    assert project.query("SELECT obj_description('visits'::regclass)") == [("by DDL",)]
    [columns] = project.query(
        "SELECT array_agg(attname::text) FROM pg_attribute WHERE attrelid = 'made'::regclass AND attnum > 0"
    )
    assert {"visits", "bills"} <= set(columns[0]) and ("users" in columns[0]) is core
    assert project.query("SELECT count(*) FROM money.bills") == [(0,)]
    drift = project.forked("db.drift")
    assert "audit" not in drift.out and "made" not in drift.out, "the scratch database has them too"


@pytest.mark.slow
def test_a_function_that_fails_is_named_and_leaves_nothing(make_project: Callable[..., Project]) -> None:
    module = f"listening_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["{module}:Base"]\n')
    (project.root / f"{module}.py").write_text(
        MODELS.replace("CREATE TABLE audit (n integer)", "CREATE TABLE audit (n nothing)")
    )
    failed = project.forked("db.create")
    assert failed.code == 1 and 'type "nothing" does not exist' in failed.err and failed.err.count("\n") == 1
    assert "CREATE TABLE audit" in failed.err
    assert project.query(f"SELECT FROM pg_database WHERE datname = '{project.database}'", "postgres") == []

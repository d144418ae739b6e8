"""migrate.rehearse: the pending revisions on a copy, what each statement locks, and what is lost."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from conftest import Project
from migration_support import revision

SHOP = """
from sqlalchemy import ForeignKey, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    pass
"""


@pytest.fixture
def shop(make_project: Callable[..., Project]) -> Project:
    """An application without the core, whose database has tables of its own and is at no revision yet."""
    project = make_project('metadata = ["shop:Base"]\nmigrations = "migrations"\nreference = []\nsql = []\n')
    (project.root / "shop.py").write_text(SHOP)
    (project.root / "migrations" / "versions").mkdir(parents=True)
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    revision(project, "first", None, TABLES)
    outcome = project.invoke("migrate.upgrade")
    assert outcome.code == 0, outcome.err
    return project


TABLES = """
CREATE TABLE people (id int PRIMARY KEY, name varchar(100), phone text, hidden text);
CREATE TABLE visits (id int PRIMARY KEY, person int NOT NULL, price numeric(9, 2), note text);
INSERT INTO people SELECT n, repeat('x', n % 100), n::text, CASE WHEN n % 2 = 0 THEN 'x' END FROM generate_series(1, 5000) AS n;
INSERT INTO visits SELECT n, n % 5000, n / 4.0, 'note' FROM generate_series(1, 20000) AS n;
"""


def test_try(shop: Project) -> None:
    revision(
        shop,
        "second",
        "first",
        "ALTER TABLE people ALTER name TYPE varchar(50) USING left(name, 50)",
        "ALTER TABLE people ALTER name TYPE varchar(100)",
    )
    revision(
        shop,
        "third",
        "second",
        "ALTER TABLE visits ADD CONSTRAINT f FOREIGN KEY (person) REFERENCES people NOT VALID; CREATE INDEX ix ON visits (person); UPDATE people SET hidden = NULL WHERE id < 1000",
        "ALTER TABLE visits DROP CONSTRAINT f; DROP INDEX ix",
    )
    outcome = shop.invoke("migrate.rehearse", "--from=copy")
    print(outcome.code, outcome.out, outcome.err)
    outcome = shop.invoke("migrate.rehearse", "--from=copy", "--json")
    print(json.dumps(outcome.json, indent=1))
    assert 0

"""Errors of db.create name the statement, and a revision in a subfolder is one."""

from __future__ import annotations

import secrets
from collections.abc import Callable

import pytest
from conftest import Project
from migration_support import app, at, head, revision  # noqa: F401


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ("sa.Column('a', sa.Integer), sa.CheckConstraint('nonesuch(a) > 1')", "nonesuch(a) > 1"),
        ("sa.Column('a', sa.Text), sa.Index('same', 'a')", "CREATE INDEX same ON second (a)"),
        ("sa.Column('a', sa.Text, server_default=sa.text('b'))", "CREATE TABLE second"),
        (
            ", ".join(f"sa.Column('column_{n}', sa.Text)" for n in range(40)) + ", sa.CheckConstraint('wrong = 1')",
            "wrong = 1",
        ),
    ],
)
@pytest.mark.parametrize("task", ["db.create", "db.create --update-only"])
def test_the_statement_that_is_refused(make_project: Callable[..., Project], wrong: str, says: str, task: str) -> None:
    module = f"wrong_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["skinspire_db.clinic.models:Base", "{module}:models"]\n')
    (project.root / f"{module}.py").write_text("models = None\nimport sqlalchemy as sa\nmodels = sa.MetaData()\n"
        f"sa.Table('first', models, sa.Column('b', sa.Text), sa.Index('same', 'b'))\nsa.Table('second', models, {wrong})\n")  # fmt: skip
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("COMMENT ON SCHEMA public IS 'as it was'")
    outcome = project.invoke(*task.split())
    assert outcome.code == 1 and "the statement: " in outcome.err and says in outcome.err, outcome
    assert outcome.err.count("\n") == 1 and project.query("SELECT to_regclass('first'), to_regclass('users')") == [
        (None, None)
    ]


@pytest.mark.slow
def test_a_refused_model_is_a_difference_that_no_revision_mends(make_project: Callable[..., Project]) -> None:
    module = f"wrong_{secrets.token_hex(4)}"
    project = make_project(f'metadata = ["skinspire_db.clinic.models:Base", "{module}:models"]\n')
    (project.root / f"{module}.py").write_text("models = None\nimport sqlalchemy as sa\nmodels = sa.MetaData()\n"
        "sa.Table('second', models, sa.Column('a', sa.Integer), sa.CheckConstraint('nonesuch(a) > 1'))\n")  # fmt: skip
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    assert project.invoke("env.stamp").code == 0
    outcome = project.invoke("db.drift")
    assert outcome.code == 3 and "function nonesuch(integer) does not exist" in outcome.out, outcome
    assert "constraint CHECK (nonesuch(a) > 1) on public.second: refused -> correct the model" in outcome.err, outcome.err


def test_a_revision_in_a_subfolder(app: Project) -> None:
    folder = app.root / "migrations" / "versions"
    assert app.invoke("db.prepare").code == 0
    revision(app, "inside", head(), "CREATE TABLE inside (id int)")
    (folder / "2026" / "march").mkdir(parents=True)
    (folder / "inside.py").rename(folder / "2026" / "march" / "inside.py")
    outcome = app.invoke("db.prepare")
    assert outcome.code == 0 and at(app) == ["inside"], outcome.err
    revision(app, "later", "inside")
    (folder / "later.py").rename(folder / "2026" / "later.py")
    assert app.invoke("db.prepare").code == 0 and at(app) == ["later"]
    (folder / "2026" / "wrong.py").write_text("import nonesuch\n")
    assert "wrong.py, line 1" in app.invoke("migrate.status").err

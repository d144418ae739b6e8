"""An application's own Alembic history is its migrations folder as it is: its own base, several lines, folders, settings."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project
from migration_support import at, head

MODELS = """
from sqlalchemy import Column, Integer, MetaData, Table
metadata = MetaData()
"""


def table(name: str) -> str:
    return f'Table("{name}", metadata, Column("id", Integer, primary_key=True))\n'


def write(folder: Path, name: str, after: str | None, *, depends: str | None = None, label: str | None = None) -> None:
    """A revision that makes a table of its own name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.py").write_text(
        f'"""{name}"""\nfrom alembic import op\nimport sqlalchemy as sa\nrevision = {name!r}\ndown_revision = {after!r}\n'
        f"branch_labels = {label!r}\ndepends_on = {depends!r}\n"
        f"def upgrade():\n    op.create_table({name!r}, sa.Column('id', sa.Integer, primary_key=True))\n"
        f"def downgrade():\n    op.drop_table({name!r})\n"
    )


def application(
    make_project: Callable[..., Project], tables: list[str], settings: str = "", *, core: bool = False
) -> Project:
    module = f"history_{secrets.token_hex(4)}"
    entries = '"skinspire_db.clinic.models:Base", ' if core else ""
    project = make_project(f'metadata = [{entries}"{module}:metadata"]\n{settings}')
    (project.root / f"{module}.py").write_text(MODELS + "".join(map(table, tables)))
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    return project


def upgraded(project: Project, *tasks: str) -> None:
    for task in ("migrate.upgrade", "migrate.check", *tasks):
        outcome = project.process(*task.split())
        assert outcome.code == 0, (task, outcome.out, outcome.err)


def test_a_history_without_the_core_has_its_own_head_alone(make_project: Callable[..., Project]) -> None:
    project = application(make_project, ["one", "two"])
    write(project.root / "migrations" / "versions" / "2019", "one", None)
    write(project.root / "migrations" / "versions" / "2024" / "spring", "two", "one")
    upgraded(project)
    assert at(project) == ["two"]


@pytest.mark.slow
def test_lines_that_begin_apart_each_have_a_head(make_project: Callable[..., Project]) -> None:
    project = application(make_project, ["one", "two", "other"], 'migrations = "db/history"\n')
    (project.root / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/db/history\npath_separator = os\n"
        f"version_locations = %(here)s/db/history/versions{os.pathsep}%(here)s/plugin/versions\n"
        "file_template = %%(rev)s\n[loggers]\nkeys = root\n"
    )
    write(project.root / "db/history/versions", "one", None)
    write(project.root / "db/history/versions", "two", "one")
    write(project.root / "plugin/versions", "other", None, label="plugin")
    upgraded(project, "db.prepare", "db.verify")
    assert at(project) == ["other", "two"]
    module = next(project.root.glob("history_*.py"))
    module.write_text(module.read_text() + table("more"))
    refused = project.process("migrate.new", "-m", "which")
    assert refused.code == 2 and "2 lines of revisions" in refused.err and "migrate.merge" in refused.err
    write(project.root / "plugin/versions", "late", None, depends="two")
    forked = project.process("migrate.check")
    assert forked.code == 3 and "late" in forked.out + forked.err, "a new line is pending, and no fork"
    write(project.root / "db/history/versions", "fork", "one")
    assert "heads: fork, two" in project.process("migrate.check").err.replace("two, fork", "fork, two")


@pytest.mark.slow
def test_settings_of_alembic_alone_are_enough(make_project: Callable[..., Project]) -> None:
    project = application(make_project, ["one"])
    with (project.root / "pyproject.toml").open("a") as file:
        file.write('\n[tool.alembic]\nscript_location = "%(here)s/schema"\n')
    write(project.root / "schema" / "versions", "one", None)
    upgraded(project)
    module = next(project.root.glob("history_*.py"))
    module.write_text(module.read_text() + table("two"))
    written = project.process("migrate.new", "-m", "two", "--json").json["steps"][0]
    assert next((project.root / "schema" / "versions").glob("*two*.py")), written
    upgraded(project)


@pytest.mark.slow
def test_beside_the_core_a_history_of_its_own_is_another_line(make_project: Callable[..., Project]) -> None:
    project = application(make_project, ["one"], core=True)
    write(project.root / "migrations" / "versions", "one", None)
    upgraded(project)
    assert at(project) == sorted([head(), "one"])
    setup = project.process("db.setup")
    assert setup.code == 0 and at(project) == sorted([head(), "one"]), setup.err
    module = next(project.root.glob("history_*.py"))
    module.write_text(module.read_text() + table("two"))
    assert project.process("migrate.new", "-m", "two").code == 0
    [file] = (project.root / "migrations" / "versions").glob("*two*.py")
    assert "down_revision = 'one'" in file.read_text().replace('"', "'"), "it follows the application's own"

"""An application's own Alembic history is its migrations folder as it is: its own base, several lines, folders, settings."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import Project
from migration_support import at, head

from skinspire_db.config import project as settings
from skinspire_db.copies import empty_dump
from skinspire_db.errors import InvalidSetting, MigrationInvalid, UsageError
from skinspire_db.migrations import lines, revisions, version_table

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
        outcome = project.forked(*task.split())
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
    of_several_lines(project)
    write(project.root / "plugin/versions", "late", None, depends="two")
    forked = project.forked("migrate.check")
    assert forked.code == 3 and "late" in forked.out + forked.err, "a new line is pending, and no fork"
    write(project.root / "db/history/versions", "fork", "one")
    assert "heads: fork, two" in project.forked("migrate.check").err.replace("two, fork", "fork, two")


def of_own_table(make_project: Callable[..., Project], settings: str) -> Project:
    """An application whose revisions one and two are applied, noted in meta.history by its own env.py."""
    project = application(make_project, ["one", "two"], settings)
    write(project.root / "migrations" / "versions", "one", None)
    write(project.root / "migrations" / "versions", "two", "one")
    tables = "CREATE TABLE one (id serial PRIMARY KEY); CREATE TABLE two (id serial PRIMARY KEY)"
    noted = "CREATE TABLE meta.history (version_num varchar(32) CONSTRAINT history_pkc PRIMARY KEY)"
    project.execute(f"{tables}; CREATE SCHEMA meta; {noted}; INSERT INTO meta.history VALUES ('two')")
    return project


@pytest.mark.slow
def test_a_table_of_revisions_with_a_name_of_its_own(make_project: Callable[..., Project]) -> None:
    """Without the setting it is found, and the setting is told; an adopted database keeps it, and gets no second one."""
    project = of_own_table(make_project, "")
    told = 'write version_table = "meta.history" into [tool.skinspire_db]'
    adopted = project.invoke("db.adopt", f"--confirm={project.database}", "--json")
    assert adopted.code == 0, adopted.out
    status = project.invoke("migrate.status")
    assert "2 applied" in status.out and told in status.out, status.out
    assert project.invoke("migrate.check").code == 0, "neither the table nor its schema is a difference"
    write(project.root / "migrations" / "versions", "three", "two")
    assert project.invoke("migrate.upgrade").code == 0
    assert project.query("SELECT version_num FROM meta.history") == [("three",)]
    assert project.invoke("migrate.downgrade").code == 0
    assert project.query("SELECT version_num FROM meta.history") == [("two",)]
    assert project.query("SELECT to_regclass('public.alembic_version')") == [(None,)]
    project.execute("CREATE TABLE alembic_version (version_num varchar(32)); INSERT INTO alembic_version VALUES ('others')")
    assert told in project.invoke("migrate.status").out
    project.execute("UPDATE meta.history SET version_num = 'other' WHERE version_num = 'two'")
    assert told not in project.invoke("migrate.status").out, "a table with other revisions is another application's"


@pytest.mark.slow
def test_a_baseline_beside_a_table_of_revisions_of_its_own(make_project: Callable[..., Project]) -> None:
    """It is in the folder in which migrate.new writes, and makes the database anew though the table's schema is in it."""
    project = of_own_table(make_project, 'version_table = "meta.history"\n')
    shutil.rmtree(project.root / "migrations")
    (project.root / "alembic.ini").write_text(
        "[alembic]\nscript_location = own\npath_separator = newline\n"
        "version_locations =\n    %(here)s/own/versions\n    %(here)s/plugin\n"
    )
    (project.root / "own" / "versions").mkdir(parents=True)
    (project.root / "plugin").mkdir()
    project.execute("DELETE FROM meta.history")
    adopted = project.process("db.adopt", f"--confirm={project.database}")
    assert adopted.code == 0, adopted.err
    assert (project.root / "own" / "versions" / "0001_baseline.py").is_file()
    assert project.query("SELECT version_num FROM meta.history") == [("0001_baseline",)]
    project.execute(f'DROP DATABASE "{project.database}"', "postgres")
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    upgraded(project)
    assert project.query("SELECT version_num FROM meta.history") == [("0001_baseline",)]
    assert project.query("SELECT to_regclass('one') IS NOT NULL, to_regclass('alembic_version')") == [(True, None)]


@pytest.mark.slow
def test_the_table_of_revisions_that_settings_name(make_project: Callable[..., Project]) -> None:
    project = application(make_project, ["one", "two"])
    write(project.root / "migrations" / "versions", "one", None)
    write(project.root / "migrations" / "versions", "two", "one")
    (project.root / "alembic.ini").write_text(
        "[alembic]\nscript_location = migrations\nversion_table = history\nversion_table_schema = meta\n"
    )
    for task in ("migrate.upgrade --to=one", "migrate.upgrade", "migrate.check", "migrate.stamp --to=one", "migrate.stamp"):
        outcome = project.invoke(*task.split())
        assert outcome.code == 0, (task, outcome.err)
    assert project.query("SELECT version_num FROM meta.history") == [("two",)]
    project.execute("UPDATE meta.history SET version_num = 'one'")
    assert "UPDATE meta.history SET version_num='two'" in project.invoke("migrate.sql").out
    assert project.invoke("migrate.upgrade").code == 1, "the tables are there"
    setup = project.invoke("db.setup")
    assert setup.code == 0 and project.query("SELECT version_num FROM meta.history") == [("two",)], setup.err
    assert project.query("SELECT to_regclass('public.alembic_version')") == [(None,)]


def test_which_setting_names_the_table_of_revisions(tmp_path: Path) -> None:
    (tmp_path / "alembic.ini").write_text("[alembic]\nversion_table = history\nversion_table_schema = meta\n")
    assert version_table.named(settings.Project(tmp_path, {})) == ("meta", "history")
    own = settings.Project(tmp_path, {"version_table": "own.noted"})
    assert version_table.named(own) == ("own", "noted"), "our own setting is above Alembic's"
    assert version_table.named(settings.Project(tmp_path, {"version_table": "noted"})) == ("public", "noted")
    with pytest.raises(InvalidSetting, match="is no name of a table"):
        version_table.named(settings.Project(tmp_path, {"version_table": ["a"]}))
    (tmp_path / "alembic.ini").unlink()
    assert version_table.named(settings.Project(tmp_path, {})) is None
    assert not empty_dump.ROWS.match(b"COPY meta.history (version_num) FROM stdin;"), "no rows of the application's"


def of_several_lines(project: Project) -> None:
    """migrate.new goes on the line that makes the tables that differ; the downgrade takes back what was applied last."""
    module = next(project.root.glob("history_*.py"))
    former = module.read_text()
    module.write_text(former + 'metadata.tables["two"].append_column(Column("note", Integer))\n' + table("more"))
    written = project.forked("migrate.new", "-m", "more")
    assert written.code == 0, written.err
    [file] = list(project.root.rglob("versions/*_more.py"))
    assert "down_revision = 'two'" in file.read_text() and file.parent.parent.name == "history"
    alone = project.process("migrate.sql")
    assert "WHERE alembic_version.version_num = 'two'" in alone.out and "CREATE TABLE public.more" in alone.out, alone.err
    upgraded(project)
    assert project.forked("migrate.downgrade").code == 0 and at(project) == ["other", "two"]
    file.unlink()
    module.write_text(former)


def test_the_line_that_a_new_revision_goes_on(tmp_path: Path) -> None:
    (tmp_path / "alembic.ini").write_text(
        "[alembic]\nscript_location = %(here)s/own\nversion_locations = %(here)s/own/versions %(here)s/plugin\n"
    )
    project = settings.Project(tmp_path, {"metadata": []})
    own, plugin = tmp_path / "own/versions", tmp_path / "plugin"
    write(own, "one", None)
    write(own, "two", "one")
    write(plugin, "other", None, label="plugin")
    (own / "one.sql").write_text('CREATE TABLE IF NOT EXISTS public."of_sql" (id int);')
    files = revisions.directory(project)
    for chosen, tables, after, folder in (
        ("plugin", {"one"}, "other", plugin), ("othe", set(), "other", plugin), ("one", set(), "two", own),
        (None, {"one", "new"}, "two", own), (None, {"of_sql"}, "two", own), (None, {"other"}, "other", plugin),
    ):  # fmt: skip
        assert lines.following(project, files, chosen, tables) == (after, folder), (chosen, tables)
    for tables in ({"new"}, {"one", "other"}, set()):
        with pytest.raises(MigrationInvalid) as untold:
            lines.following(project, files, None, tables)
        assert "2 lines of revisions, plugin (head other), one (head two)" in untold.value.message
        assert untold.value.remedy == "invoke migrate.new --env={env} --head=other --message=changes, or --head=two"
    with pytest.raises(UsageError, match="more than one, is called plugins"):
        lines.following(project, files, "plugins")
    write(own, "left", "two", label="lefts")
    write(own, "right", "two", label="rights")
    with pytest.raises(UsageError, match="one is in 2 lines of revisions, lefts"):
        lines.following(project, revisions.directory(project), "one")


@pytest.mark.slow
def test_settings_of_alembic_alone_are_enough(make_project: Callable[..., Project]) -> None:
    project = application(make_project, ["one"])
    with (project.root / "pyproject.toml").open("a") as file:
        file.write('\n[tool.alembic]\nscript_location = "%(here)s/schema"\n')
    write(project.root / "schema" / "versions", "one", None)
    upgraded(project)
    module = next(project.root.glob("history_*.py"))
    module.write_text(module.read_text() + table("two"))
    written = project.forked("migrate.new", "-m", "two", "--json").json["steps"][0]
    assert next((project.root / "schema" / "versions").glob("*two*.py")), written
    upgraded(project)


@pytest.mark.slow
def test_beside_the_core_a_history_of_its_own_is_another_line(make_project: Callable[..., Project]) -> None:
    project = application(make_project, ["one"], core=True)
    write(project.root / "migrations" / "versions", "one", None)
    upgraded(project)
    assert at(project) == sorted([head(), "one"])
    setup = project.forked("db.setup")
    assert setup.code == 0 and at(project) == sorted([head(), "one"]), setup.err
    module = next(project.root.glob("history_*.py"))
    module.write_text(module.read_text() + table("two"))
    assert project.forked("migrate.new", "-m", "two").code == 0
    [file] = (project.root / "migrations" / "versions").glob("*two*.py")
    assert "down_revision = 'one'" in file.read_text().replace('"', "'"), "it follows the application's own"

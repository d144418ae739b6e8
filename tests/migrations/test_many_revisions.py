"""Commands on a long history: its files are run where their code is needed, and not at every command."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from conftest import Project

from skinspire_db.config import project as settings
from skinspire_db.migrations import revisions

REVISION = """'''number {number}'''
from pathlib import Path

from alembic import op

revision = "r{number:03}"
down_revision = {former!r}
with (Path(__file__).parents[3] / "run.txt").open("a") as file:
    file.write(f"{{revision}}\\n")


def upgrade():
    op.execute("COMMENT ON SCHEMA public IS '{number}'")
"""


@pytest.fixture
def history(make_project: Callable[..., Project]) -> Project:
    """An application of six revisions that note when they are run."""
    project = make_project('metadata = ["models:metadata"]\n')
    (project.root / "models.py").write_text("from sqlalchemy import MetaData\n\nmetadata = MetaData()\n")
    (project.root / "migrations" / "versions").mkdir(parents=True)
    for number in range(6):
        former = f"r{number - 1:03}" if number else None
        (project.root / "migrations" / "versions" / f"r{number}.py").write_text(REVISION.format(number=number, former=former))
    return project


def runs(project: Project) -> Counter[str]:
    """How often each file was run since the last time that this was asked."""
    noted = project.root.parent / "run.txt"
    found = Counter(noted.read_text().split()) if noted.exists() else Counter[str]()
    noted.unlink(missing_ok=True)
    return found


def test_a_history_that_has_not_changed_is_not_run_again(history: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SKINSPIRE_PROJECT", str(history.root))
    settings._tool_table.cache_clear()
    project = settings.current_project()
    assert [each.doc for each in revisions.directory(project).walk_revisions()][-1] == "number 0"
    assert sum(runs(history).values()) == 6
    files = revisions.directory(project)
    assert [each.revision for each in files.walk_revisions()] == [f"r{number:03}" for number in reversed(range(6))]
    assert next(each.doc for each in files.walk_revisions()) == "number 5"
    assert files.get_revision("r003").down_revision == "r002"
    assert not runs(history)
    assert callable(files.get_revision("r003").module.upgrade), "the one whose code is asked for"
    assert runs(history) == {"r003": 1}
    changed = history.root / "migrations" / "versions" / "r5.py"
    changed.write_text(changed.read_text().replace("number 5", "number five"))
    assert next(iter(revisions.directory(project).walk_revisions())).doc == "number five"
    assert sum(runs(history).values()) == 6


@pytest.mark.slow
def test_an_upgrade_runs_each_file_twice_at_most(history: Project) -> None:
    """Once to learn the order of all, once to apply it; it was once for each revision that is pending."""
    history.execute(f"CREATE DATABASE {history.database}", "postgres")
    outcome = history.invoke("migrate.upgrade", "--json")
    assert outcome.code == 0, outcome.err
    assert [each["summary"]["applied"] for each in outcome.json["steps"] if "applied" in each["summary"]] == [
        f"r{number:03} number {number}" for number in range(6)
    ]
    assert max(runs(history).values()) <= 2
    for command in ("migrate.status", "migrate.upgrade", "db.prepare"):
        assert history.invoke(command).code == 0
        assert not runs(history), command

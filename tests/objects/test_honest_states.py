"""What status, diff, install and bump say agrees, and nothing is called pending or new that may not be."""

from __future__ import annotations

import pytest
from conftest import Project
from migration_support import app, head, revision  # noqa: F401
from test_trigger_files import NOW, commit, edit, sql  # noqa: F401


def states(project: Project) -> dict[str, str]:
    """The state of the core's newest revision and of the project's own."""
    outcome = project.invoke("migrate.status", "--json")
    assert outcome.code == 0
    own = (head(), "first", "second", "third")
    return {each["revision"]: each["state"] for each in outcome.json["revisions"] if each["revision"] in own}


def test_what_came_before_a_missing_file_is_not_pending(app: Project) -> None:
    revision(app, "first", head())
    revision(app, "second", "first")
    assert app.invoke("migrate.upgrade").code == 0
    (app.root / "migrations" / "versions" / "second.py").unlink()
    assert states(app) == {head(): "unknown", "first": "unknown", "second": "unknown"}
    app.execute("INSERT INTO alembic_version VALUES ('first')")
    revision(app, "third", "first")
    assert states(app) == {head(): "applied", "first": "applied", "third": "unknown", "second": "unknown"}
    app.execute("DELETE FROM alembic_version WHERE version_num = 'second'")
    assert states(app) == {head(): "applied", "first": "applied", "third": "pending"}


def test_bump_again_without_an_edit_makes_no_further_version(clinic: Project, sql: object) -> None:
    for committed in (False, True):
        for _ in range(2):
            outcome = clinic.invoke("triggers.bump", "--name=timestamps", "--json")
            assert outcome.code == 0 and outcome.json["version"] == NOW + 1
        if not committed:
            commit(sql)  # type: ignore[arg-type]
    edit(sql / "triggers" / "timestamps.sql", "now()", "clock_timestamp()")  # type: ignore[operator]
    assert clinic.invoke("triggers.bump", "--name=timestamps", "--json").json["version"] in (NOW + 1, NOW + 2)


@pytest.mark.parametrize("what", ["comment", "function"])
def test_status_diff_and_install_agree(clinic: Project, sql: object, what: str) -> None:
    path = sql / "triggers" / "timestamps.sql"  # type: ignore[operator]
    if what == "comment":
        path.write_text(path.read_text() + "-- and a word at the end\n")
    else:
        edit(path, "NEW.created_at := coalesce(", "NEW.created_at  := coalesce(")
    assert clinic.invoke("triggers.bump", "--name=timestamps").code == 0
    assert clinic.invoke("triggers.status").code == 3
    outcome = clinic.invoke("triggers.diff")
    assert outcome.code == 3 and ("the same functions and triggers" in outcome.out) == (what == "comment"), outcome
    outcome = clinic.invoke("triggers.install", "--json")
    assert outcome.code == 0
    numbers = outcome.json["steps"][0]["summary"]
    assert (numbers["functions"], numbers["attached"], numbers["new_versions"]) == (1 if what == "function" else 0, 0, 1), (
        numbers
    )
    assert clinic.invoke("triggers.status").code == clinic.invoke("triggers.diff").code == 0

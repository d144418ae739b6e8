"""db.prepare: a database is brought to where the models are, or it is said what keeps it from there."""

from __future__ import annotations

from conftest import Project
from migration_support import app, at, head, revision  # noqa: F401


def test_prepare_says_when_the_models_are_ahead_of_the_revisions(app: Project) -> None:
    app.execute("ALTER TABLE staff DROP COLUMN title")
    outcome = app.invoke("db.prepare")
    assert outcome.code == 3 and "column public.staff.title is missing -> invoke migrate.new" in outcome.err


def test_prepare(app: Project) -> None:
    outcome = app.invoke("db.prepare", "--json")
    assert outcome.code == 0 and outcome.json["steps"] == [] and outcome.json["database"] == app.database
    revision(app, "one", head(), "CREATE TABLE one (created_at timestamptz, updated_at timestamptz)")
    rows = app.query("SELECT * FROM patients ORDER BY 1")
    app.execute(
        "ALTER TABLE staff DISABLE TRIGGER _100_timestamps; DELETE FROM parameter_settings WHERE param_code = 'LOCKOUT_MINUTES'"
    )
    outcome = app.invoke("db.prepare", "--json")
    assert outcome.code == 0, outcome.err
    assert [step["name"] for step in outcome.json["steps"]] == ["revision", "triggers", "proofs", "seed"]
    assert at(app) == ["one"] and app.query("SELECT * FROM patients ORDER BY 1") == rows
    assert app.query("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'one'::regclass") == [(1,)]
    for task in ("triggers.status", "db.verify", "migrate.check"):
        assert app.invoke(task).code in (0, 3 if task == "migrate.check" else 0), task
    assert "all is right" in app.invoke("db.prepare").out
    app.execute("ALTER TABLE staff DISABLE TRIGGER _100_timestamps")
    outcome = app.invoke("db.prepare", "--json")
    assert [step["name"] for step in outcome.json["steps"]] == ["triggers"]


def test_prepare_without_a_database(project: Project) -> None:
    outcome = project.invoke("db.prepare", "--json")
    assert outcome.code == 0, outcome.err
    assert [step["name"] for step in outcome.json["steps"]] == ["create", "triggers", "seed", "verify"]
    assert outcome.json["sign_in"] and project.invoke("migrate.status").code == 0
    assert project.query("SELECT count(*) FROM patients") == [(20,)]


def test_another_environments_database_is_never_all_right(app: Project) -> None:
    """The URL of dev leads to test's database, where there is nothing to do."""
    app.execute("UPDATE skinspire_tools.stamp SET environment = 'test'")
    for task in ("db.prepare", "migrate.upgrade", "migrate.sql"):
        outcome = app.invoke(task)
        assert outcome.code == 2 and "is stamped test, not dev" in outcome.err, task


def test_prepare_of_somebody_elses_database(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    project.execute("CREATE TABLE theirs (id int)")
    outcome = project.invoke("db.prepare")
    assert outcome.code == 2
    assert project.query("SELECT count(*) FROM pg_class WHERE relname = 'hospitals'") == [(0,)]

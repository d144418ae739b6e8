"""Applying revisions and taking them back, one transaction each, and what must not go wrong with them."""

from __future__ import annotations

import json
import signal
import time

import pytest
from conftest import Project
from migration_support import app, at, head, revision  # noqa: F401


def test_a_revision_that_fails_leaves_no_trace_and_those_before_it_stay(app: Project) -> None:
    revision(
        app, "one", head(), "CREATE TABLE one (id int, created_at timestamptz, updated_at timestamptz)", "DROP TABLE one"
    )
    revision(app, "two", "one", "CREATE TABLE two (id int); INSERT INTO nonesuch VALUES (1)")
    revision(app, "three", "two", "CREATE TABLE three (id int)")
    outcome = app.invoke("migrate.upgrade", "--json")
    assert outcome.code == 1 and at(app) == ["one"]
    message = outcome.json["error"]["message"]
    assert "migrations/versions/two.py" in message and 'relation "nonesuch" does not exist' in message
    assert "INSERT INTO nonesuch" in message and [step["ok"] for step in outcome.json["steps"]] == [True, True, True, False]
    assert app.query("SELECT to_regclass('two'), to_regclass('one') IS NOT NULL") == [(None, True)]
    assert app.query("SELECT count(*) FROM pg_trigger WHERE tgrelid = 'one'::regclass") == [(1,)]
    revision(app, "two", "one", "CREATE TABLE two (id int)", "DROP TABLE two")
    assert app.invoke("migrate.upgrade").code == 0 and at(app) == ["three"]
    assert app.invoke("migrate.downgrade", "--steps=2").code == 0 and at(app) == ["one"]
    assert app.invoke("migrate.upgrade", "--to=two").code == 0 and at(app) == ["two"]
    outcome = app.invoke("migrate.status", "--json")
    assert [(each["revision"], each["state"]) for each in outcome.json["revisions"]][-3:] == [
        ("one", "applied"), ("two", "applied"), ("three", "pending"),
    ]  # fmt: skip
    assert app.invoke("migrate.check").code == 3


def test_a_view_in_the_way_is_named_with_the_way_around(app: Project) -> None:
    app.execute("CREATE VIEW titles AS SELECT title FROM staff")
    revision(app, "wider", head(), "ALTER TABLE staff ALTER title TYPE text")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 2 and "titles" in outcome.err
    assert "wider.py" in outcome.err and "invoke sql.new --env=dev --view=titles --from-database" in outcome.err


def test_two_heads(app: Project) -> None:
    revision(app, "mine", head(), "CREATE TABLE mine (id int)")
    revision(app, "yours", head(), "CREATE TABLE yours (id int)")
    for task in (["migrate.upgrade"], ["migrate.check"], ["migrate.new", "-m", "x"], ["db.prepare"]):
        outcome = app.invoke(*task)
        assert outcome.code == 2 and "2 heads: mine, yours -> invoke migrate.merge" in outcome.err, task
    assert "2 heads" in app.invoke("migrate.status").out
    outcome = app.invoke("migrate.merge")
    assert outcome.code == 0, outcome.err
    assert app.invoke("migrate.upgrade").code == 0
    assert app.query("SELECT to_regclass('mine') IS NOT NULL AND to_regclass('yours') IS NOT NULL") == [(True,)]
    outcome = app.invoke("migrate.merge")
    assert outcome.code == 2 and "nothing to merge" in outcome.err


def test_a_file_that_is_missing_or_broken(app: Project) -> None:
    revision(app, "second", "first")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 2 and "first" in outcome.err and "restore the file from version control" in outcome.err
    (app.root / "migrations" / "versions" / "second.py").write_text("revision = 'second'\ndown_revision = (\n")
    outcome = app.invoke("migrate.status")
    assert outcome.code == 2 and "the revision files cannot be used" in outcome.err


def test_a_database_ahead_of_the_code(app: Project) -> None:
    app.execute("UPDATE alembic_version SET version_num = 'later'")
    for task in ("migrate.upgrade", "migrate.check", "migrate.downgrade", "migrate.sql", "db.prepare"):
        outcome = app.invoke(task)
        assert outcome.code == 2 and "the database is at later, which no revision file has" in outcome.err, task
    assert "unknown" in app.invoke("migrate.status").out
    assert app.invoke("migrate.stamp").code == 0 and at(app) == [head()]


def test_a_database_made_without_migrations(app: Project) -> None:
    app.execute("DROP TABLE alembic_version")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 2 and "was made without migrations" in outcome.err and "migrate.stamp --env=dev" in outcome.err
    assert app.invoke("migrate.stamp").code == 0
    assert app.invoke("migrate.upgrade").code == 0


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["migrate.new"], "needs a message"),
        (["migrate.new", "-m", " "], "needs a message"),
        (["migrate.upgrade", "--to=nonesuch"], "no revision, or more than one, is called nonesuch"),
        (["migrate.stamp", "--to=nonesuch"], "no revision, or more than one, is called nonesuch"),
        (["migrate.downgrade", "--steps=0"], "is no number of revisions"),
        (["migrate.downgrade", "--steps=many"], "is no number of revisions"),
    ],
)
def test_wrong_arguments(app: Project, arguments: list[str], says: str) -> None:
    outcome = app.invoke(*arguments)
    assert outcome.code == 2 and says in outcome.err and " -> " in outcome.err


def test_a_downgrade_that_does_not_exist(project: Project) -> None:
    assert project.invoke("db.create").code == 0
    outcome = project.invoke("migrate.downgrade", "--steps=9")
    assert outcome.code == 2 and "the database has 2 revisions -> invoke migrate.downgrade --env=dev --steps=2" in outcome.err
    assert at(project) == [head()], "refused is: nothing was tried"
    assert project.invoke("migrate.downgrade", "--steps=2").code == 0 and at(project) == []
    assert project.invoke("migrate.downgrade").code == 2


def test_with_two_heads_applied_one_step_back_is_one_step(app: Project) -> None:
    revision(app, "mine", head(), "CREATE TABLE mine (id int); INSERT INTO mine VALUES (1)", "DROP TABLE mine")
    assert app.invoke("migrate.upgrade").code == 0
    revision(app, "yours", head(), "CREATE TABLE yours (id int)", "DROP TABLE yours")
    assert app.invoke("migrate.upgrade", "--to=yours").code == 0
    assert app.invoke("migrate.downgrade").code == 0
    assert at(app) == ["mine"], "what was applied last is taken back"
    assert app.invoke("migrate.downgrade").code == 0
    for name in ("--to=yours", "--to=mine"):
        assert app.invoke("migrate.upgrade", name).code == 0
    assert app.invoke("migrate.downgrade").code == 0 and at(app) == ["yours"]
    assert app.invoke("migrate.upgrade", "--to=mine").code == 0
    assert app.invoke("migrate.merge").code == 0 and app.invoke("migrate.upgrade").code == 0
    assert app.invoke("migrate.downgrade").code == 0 and sorted(at(app)) == ["mine", "yours"], "a merge can be taken back"


@pytest.mark.parametrize(
    ("up", "says"),
    [
        ("op.execute('CREATE TABLE t1 (id int)'); op.execute('COMMIT'); op.execute('SELECT 1/0')", "it says COMMIT"),
        ("op.execute('CREATE TABLE t1 (id int); ROLLBACK')", "it says ROLLBACK"),
        ("op.execute('CREATE TABLE t1 (id int)'); op.get_bind().commit()", "Can't operate on closed transaction"),
        ("op.execute('CREATE TABLE t1 (id int)'); {}['colour']", "line 8: KeyError: 'colour'"),
        ("op.execute('CREATE TABLE t1 (id int)'); import nonesuch", "No module named 'nonesuch'"),
        ("with op.get_context().autocommit_block(): op.execute('CREATE TABLE t1 (id int)')", "take the block off"),
        ("op.execute(\"CREATE ROLE x PASSWORD 'topsecret'; SELECT 1/0\")", "PASSWORD '...'"),
    ],
)
def test_a_revision_that_is_wrong_itself(app: Project, up: str, says: str) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'wrong', head())}.py"
    file.write_text(file.read_text().replace("def upgrade():\n    pass", f"def upgrade():\n    {up}"))
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and says in outcome.err and "wrong.py" in outcome.err and "left no trace" in outcome.err, (
        outcome.err
    )
    assert "topsecret" not in outcome.err
    assert at(app) == [head()] and app.query("SELECT to_regclass('t1')") == [(None,)]


def test_a_revision_may_use_savepoints(app: Project) -> None:
    file = app.root / "migrations" / "versions" / f"{revision(app, 'careful', head())}.py"
    up = "with op.get_bind().begin_nested():\n        op.execute('CREATE TABLE t1 (id int)')"
    file.write_text(file.read_text().replace("def upgrade():\n    pass", f"def upgrade():\n    {up}"))
    assert app.invoke("migrate.upgrade").code == 0 and at(app) == ["careful"]


def test_a_revision_that_breaks_a_trigger_function_is_not_kept(app: Project) -> None:
    revision(app, "breaks", head(), "ALTER TABLE users DROP COLUMN last_login")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "login_tracking is not applicable" in outcome.err and "last_login" in outcome.err
    assert at(app) == [head()]


def test_a_table_in_use_is_no_fault_of_the_revision(app: Project) -> None:
    (app.root / "pyproject.toml").write_text(
        "[tool.skinspire_db.environments.dev]\nlock_timeout = 0.2\nddl_lock_timeout = 0.05\nddl_tries = 2\n"
    )
    revision(app, "locks", head(), "ALTER TABLE staff ADD novel int")
    with app.connect() as holder, holder.transaction():
        holder.execute("LOCK TABLE staff IN ACCESS SHARE MODE")
        outcome = app.invoke("migrate.upgrade")
        assert outcome.code == 1 and "held by pid" in outcome.err and "correct the revision" not in outcome.err
        assert "waited 0.05 s" in outcome.err and "it was tried 2 times" in outcome.err
        assert "try 1 of 2" in outcome.out and "idle after LOCK)" in outcome.out, outcome.out
        holder.execute("LOCK TABLE alembic_version IN ACCESS EXCLUSIVE MODE")
        outcome = app.invoke("migrate.sql")
        assert outcome.code == 1 and "held by pid" in outcome.err


@pytest.mark.slow
def test_interrupted_between_revisions_what_was_applied_is_said_to_stay(app: Project) -> None:
    revision(app, "r0", head(), "CREATE TABLE t0 (id int)")
    revision(app, "r1", "r0", "SELECT pg_sleep(30)")
    task = app.start("migrate.upgrade", "--json")
    deadline = time.monotonic() + 30
    while not app.query(
        "SELECT FROM pg_stat_activity WHERE query ~ 'pg_sleep' AND datname = current_database() AND pid <> pg_backend_pid()"
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    task.send_signal(signal.SIGINT)
    out, _ = task.communicate()
    error = json.loads(out)["error"]
    assert task.returncode == 1 and "stays" in error["message"] and "as it was" not in error["message"]
    assert at(app) == ["r0"]


@pytest.mark.parametrize("message", ['rename "x"', "C:\\new\\"])
def test_any_message(app: Project, message: str) -> None:
    app.execute("ALTER TABLE staff DROP COLUMN title")
    assert app.invoke("migrate.new", "-m", message).code == 0
    assert message.strip() in [each["message"] for each in app.invoke("migrate.status", "--json").json["revisions"]]


def test_dry_writes_no_file(app: Project) -> None:
    app.execute("ALTER TABLE staff DROP COLUMN title")
    assert app.invoke("--dry", "migrate.new", "-m", "x").code == 0
    assert not list(app.root.glob("migrations/versions/*.py"))


def test_update_only_beside_a_revision_that_makes_the_same(app: Project) -> None:
    app.execute("CREATE TABLE novel (id int)")
    revision(app, "same", head(), "CREATE TABLE novel (id int)")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "invoke migrate.stamp --env=dev --to=same" in outcome.err
    assert app.invoke("migrate.stamp", "--to=same").code == 0 and app.invoke("migrate.upgrade").code == 0


def test_update_only_of_an_empty_database_marks_the_head(project: Project) -> None:
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    assert project.invoke("db.create", "--update-only").code == 0
    assert at(project) == [head()] and project.invoke("db.prepare").code == 0


def test_an_id_that_two_files_have(app: Project) -> None:
    revision(app, "one", head())
    copy = app.root / "migrations" / "versions" / "other.py"
    copy.write_text((app.root / "migrations" / "versions" / "one.py").read_text())
    outcome = app.invoke("migrate.status")
    assert outcome.code == 2 and "two files have one revision id" in outcome.err


def test_an_older_revision_is_no_upgrade(app: Project) -> None:
    revision(app, "one", head(), "SELECT 1")
    assert app.invoke("migrate.upgrade").code == 0
    outcome = app.invoke("migrate.upgrade", f"--to={head()}")
    assert outcome.code == 2 and "invoke migrate.downgrade" in outcome.err
    assert app.invoke("migrate.upgrade", "--to=").code == 2
    assert app.invoke("migrate.stamp", "--to=base").code == 0 and at(app) == []


def test_no_database_and_no_server(project: Project) -> None:
    outcome = project.invoke("migrate.upgrade")
    assert outcome.code == 1 and "does not exist" in outcome.err
    project.env["DEV_DATABASE_URL"] = "postgresql://x:y@127.0.0.1:1/z"
    outcome = project.invoke("migrate.upgrade")
    assert outcome.code == 1 and "cannot connect" in outcome.err


def test_the_sql_alone(app: Project) -> None:
    revision(app, "one", head(), "CREATE TABLE one (id int)")
    before = app.dump()
    outcome = app.invoke("migrate.sql")
    assert outcome.code == 0 and "CREATE TABLE one (id int)" in outcome.out and "CREATE TABLE hospitals" not in outcome.out
    assert app.dump() == before


def test_dry_changes_nothing(app: Project) -> None:
    revision(app, "one", head(), "CREATE TABLE one (id int)")
    before = app.dump()
    for task in ("migrate.upgrade", "migrate.downgrade", "migrate.stamp", "db.prepare"):
        outcome = app.invoke("--dry", task)
        assert outcome.code == 0 and "would run" in outcome.out
    assert app.dump() == before


def test_a_protected_environment_is_backed_up_before_an_upgrade(app: Project) -> None:
    with (app.root / "pyproject.toml").open("a") as file:
        file.write("[tool.skinspire_db.environments.dev]\nprotected = true\ntest_data = false\n")
    revision(app, "one", head(), "CREATE TABLE one (id int)", "DROP TABLE one")
    revision(app, "two", "one", "CREATE TABLE two (id int)", "DROP TABLE two")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 0 and "a backup was taken first, and proved by a restore" in outcome.err
    assert at(app) == ["two"]
    [backup] = app.invoke("backup.list", "--json").json["backups"]
    assert backup["verified"] == "by a restore"
    refused = app.invoke("migrate.downgrade")
    assert refused.code == 2 and f"--confirm={app.database}" in refused.err and at(app) == ["two"]
    assert app.invoke("migrate.stamp", "--to=one").code == 2


@pytest.mark.slow
def test_kill_9_in_the_middle_of_five_revisions(app: Project) -> None:
    before = head()
    for number in range(5):
        before = revision(app, f"r{number}", before, f"CREATE TABLE t{number} (id int); SELECT pg_sleep(0.3)")
    task = app.start("migrate.upgrade")
    deadline = time.monotonic() + 30
    while at(app) < ["r1"] or at(app) == [head()]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    task.kill()
    task.communicate()
    time.sleep(1.5)  # the server notices within a second
    [(last,)] = app.query("SELECT version_num FROM alembic_version")
    applied = int(last[1:]) + 1
    assert 2 <= applied < 5
    tables = app.query("SELECT count(*) FROM pg_class WHERE relname ~ '^t[0-4]$'")
    assert tables == [(applied,)]
    assert app.query("SELECT count(*) FROM skinspire_tools.journal WHERE operation = 'migrate.upgrade'") == [(applied,)]
    assert app.invoke("migrate.upgrade").code == 0 and at(app) == ["r4"]

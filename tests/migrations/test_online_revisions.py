"""Concurrent revisions: what they may hold, that they run outside a transaction, and that each can be run again."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from conftest import Project, throw_away_home
from migration_support import app, at, head, revision  # noqa: F401

from skinspire_db.postgres.embedded_server import EmbeddedServer


def concurrent(project: Project, name: str, after: str | None, *up: str, down: str = "pass", marker: object = True) -> Path:
    """Write a revision that says `concurrently`, with these statements."""
    path = project.root / "migrations" / "versions" / f"{name}.py"
    body = "\n    ".join(f"op.execute({sql!r})" for sql in up) or "pass"
    path.write_text(
        f"from alembic import op\nrevision = {name!r}\ndown_revision = {after!r}\nbranch_labels = depends_on = None\n"
        f"concurrently = {marker!r}\n\ndef upgrade():\n    {body}\n\ndef downgrade():\n    {down}\n"
    )
    return path


def indexes(project: Project) -> list[tuple[str, bool]]:
    return project.query(
        "SELECT indexrelid::regclass::text, indisvalid FROM pg_index WHERE indexrelid::regclass::text ~ 'ix_own' ORDER BY 1"
    )


def test_a_concurrent_revision_is_run_noted_and_run_again(app: Project) -> None:
    app.execute(
        "CREATE TABLE old (id int, a int); INSERT INTO old VALUES (1, 1), (2, 2); CREATE TYPE mood AS ENUM ('calm');"
        "ALTER TABLE old ADD CONSTRAINT positive CHECK (a > 0) NOT VALID"
    )
    path = concurrent(
        app, "online", head(), "CREATE INDEX CONCURRENTLY ix_own ON old USING btree (a) WHERE id > 0 AND 'a:b' LIKE '%\\:b'",
        "ALTER TABLE old VALIDATE CONSTRAINT positive", "ALTER TYPE mood ADD VALUE 'it''s fine' AFTER 'calm'",
        down="op.drop_index('ix_own', postgresql_concurrently=True)",
    )  # fmt: skip
    offline = app.invoke("migrate.sql").out
    assert offline.index("COMMIT;") < offline.index("CREATE INDEX CONCURRENTLY") < offline.rindex("BEGIN;"), offline
    outcome = app.invoke("migrate.upgrade", "--json")
    assert outcome.code == 0, outcome.err
    steps = {step["name"]: step["summary"] for step in outcome.json["steps"]}
    assert list(steps) == ["begin", "concurrent", "revision", "triggers", "proofs"] and at(app) == ["online"]
    assert steps["concurrent"] == {"statements": 3} and indexes(app) == [("ix_own", True)]
    journal = app.query("SELECT steps -> 0 -> 'summary' FROM skinspire_tools.journal ORDER BY started_at DESC LIMIT 2")
    assert [*journal[0][0], *journal[1][0]] == ["applied", "begun"], "before and after"

    assert app.invoke("migrate.downgrade").code == 0 and indexes(app) == [] and at(app) == [head()]
    # What a kill leaves: an INVALID index of this name, and statements that are done.
    app.execute(
        "CREATE INDEX ix_own ON old (a); UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'ix_own'::regclass"
    )
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 0 and "the INVALID index of an earlier try dropped, and built again" in outcome.out, outcome
    assert "1 statement, 2 done before" in outcome.out and indexes(app) == [("ix_own", True)]

    assert app.invoke("migrate.downgrade").code == 0
    app.execute("CREATE INDEX ix_own ON old (id)")
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "ix_own is there, and is not what this makes: CREATE INDEX" in outcome.err, outcome.err
    app.execute("DROP INDEX ix_own; INSERT INTO old VALUES (1, 5), (1, 5)")
    path.write_text(
        path.read_text().replace(
            "INDEX CONCURRENTLY ix_own ON old USING btree (a)", "UNIQUE INDEX CONCURRENTLY ix_own ON old (a)"
        )
    )
    outcome = app.invoke("migrate.upgrade")
    assert outcome.code == 1 and "could not create unique index" in outcome.err and "(5)" not in outcome.err, outcome.err
    assert "goes on from there" in outcome.err and indexes(app) == [] and at(app) == [head()]


WRONG = [
    (
        ["CREATE INDEX CONCURRENTLY ix_own ON staff (title)", "ALTER TABLE staff ADD a int"],
        True,
        "ALTER TABLE staff ADD a int",
    ),
    (["CREATE INDEX CONCURRENTLY ON staff (title)"], True, "of a named index"),
    (
        ["CREATE INDEX CONCURRENTLY ix_own ON staff (title)", "ALTER TABLE staff ADD a int"],
        False,
        "cannot run in a transaction",
    ),
    (["CREATE INDEX CONCURRENTLY ix_own ON staff (title)"], "yes", "concurrently = 'yes' is neither True nor False"),
    (["ALTER TABLE staff VALIDATE CONSTRAINT one, DROP COLUMN title"], True, "is another statement"),
]


@pytest.mark.slow
def test_what_a_concurrent_revision_may_not_hold(app: Project) -> None:
    concurrent(app, "harmless", head(), "CREATE INDEX CONCURRENTLY ix_own_first ON staff (title)")
    for statements, marker, says in WRONG:
        path = concurrent(app, "wrong", "harmless", *statements, marker=marker)
        outcome = app.invoke("migrate.upgrade")
        assert outcome.code == 2 and says in outcome.err and " -> " in outcome.err, outcome.err
    for code, says in (
        ("async def upgrade", "is async"),
        ("def upgrade():\n    op.get_bind().execute()\ndef old", "must be known before"),
    ):
        path = concurrent(app, "wrong", "harmless", "CREATE INDEX CONCURRENTLY ix_own ON staff (title)")
        path.write_text(path.read_text().replace("def upgrade", code))
        outcome = app.invoke("migrate.upgrade")
        assert outcome.code == 2 and says in outcome.err, outcome.err
    assert at(app) == [head()] and indexes(app) == [], "nothing of the first revision was run either"


MODELS = """
from sqlalchemy import CheckConstraint, Enum, ForeignKey, Index, Integer, MetaData, String, text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

class Base(DeclarativeBase):
    metadata = MetaData()

class Owner(Base):
    __tablename__ = "owners"
    id: Mapped[int] = mapped_column(primary_key=True)

class Pet(Base):
    __tablename__ = "pets"
    id: Mapped[int] = mapped_column(primary_key=True)
"""
BEFORE = """
    owner: Mapped[int | None]
    tag: Mapped[str | None] = mapped_column(String(20))
    name: Mapped[str | None] = mapped_column(String(20), index=True)
    mood: Mapped[str | None] = mapped_column(Enum("calm", name="mood"))
"""
AFTER = """
    owner: Mapped[int] = mapped_column(ForeignKey("owners.id", name="pets_owner"))
    tag: Mapped[str] = mapped_column(String(20), unique=True)
    name: Mapped[str | None] = mapped_column(String(20))
    mood: Mapped[str | None] = mapped_column(Enum("calm", "it's fine", name="mood"), server_default="it's fine")
    __table_args__ = (CheckConstraint("id > 0", name="positive"), Index("ix_pets_both", "owner", text("(tag || ':b')")))
"""


@pytest.fixture
def pets(make_project: Callable[..., Project]) -> Project:
    """An application's own tables and history, no line of the core; the newest revision is noted in a table of its own."""
    project = make_project('metadata = ["pets:Base"]\nmigrations = "history"\nversion_table = "meta.history"\n')
    (project.root / "pets.py").write_text(MODELS + BEFORE)
    (project.root / "history" / "versions").mkdir(parents=True)
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    for task in (["migrate.new", "-m", "first"], ["migrate.upgrade"]):
        outcome = project.forked(*task)
        assert outcome.code == 0, outcome.err
    project.execute("INSERT INTO owners VALUES (1); INSERT INTO pets SELECT n, 1, n, n, 'calm' FROM generate_series(1, 50) n")
    (project.root / "pets.py").write_text(MODELS + AFTER)
    return project


@pytest.mark.slow
def test_migrate_new_writes_the_safe_forms_online(pets: Project) -> None:
    written = pets.forked("migrate.new", "-m", "safe", "--online", "--json")
    assert written.code == 0, written.err
    texts = [(pets.root / each["file"]).read_text() for each in written.json["revisions"]]
    assert ["concurrently = True" in each for each in texts] == [False, True, False, True, False], texts
    assert "ADD VALUE" in texts[0] and "DROP INDEX CONCURRENTLY" in texts[1] and "NOT VALID" in texts[2]
    assert texts[3].count("VALIDATE CONSTRAINT") == 4 and texts[3].count("INDEX CONCURRENTLY") == 4  # two there, two back
    assert "UNIQUE USING INDEX" in texts[4] and texts[4].index("SET NOT NULL") < texts[4].index("DROP CONSTRAINT")
    assert written.json["warnings"] == ["it was not tried: a new label can be used only after the commit of its revision"]
    assert written.json["lint"] == []
    lint = pets.forked("migrate.lint")
    assert lint.code == 0, lint.out

    def again(task: str, *arguments: str) -> None:
        outcome = pets.forked(task, *arguments)
        assert outcome.code == 0, outcome.err + outcome.out

    again("migrate.upgrade")
    again("db.drift")
    for steps in (1, 2, 3, 5):  # from wherever the way back has led, the way up leads to the same
        again("migrate.downgrade", f"--steps={steps}")
        if steps == 5:
            (pets.root / "pets.py").write_text(MODELS + BEFORE)
            again("db.drift")
            (pets.root / "pets.py").write_text(MODELS + AFTER)
        again("migrate.upgrade")
        again("db.drift")
    assert pets.query("SELECT count(*) FROM pets WHERE mood = 'calm'") == [(50,)]

    # By itself, where the table has more rows than the policy says.
    (pets.root / "pets.py").write_text(MODELS + AFTER.replace('Index("ix', 'Index("ix_own", "name"), Index("ix'))
    settings = (pets.root / "pyproject.toml").read_text()
    for above, is_online in ((50, False), (49, True)):
        (pets.root / "pyproject.toml").write_text(f"{settings}[tool.skinspire_db.environments.dev]\nonline_above = {above}\n")
        written = pets.forked("migrate.new", "-m", f"above {above}", "--json")
        assert written.code == 0, written.err
        path = pets.root / written.json["file"]
        assert ("concurrently = True" in path.read_text()) is is_online
        path.unlink()


@pytest.mark.slow
def test_the_branch_that_has_an_applied_revision_is_named(app: Project) -> None:
    def git(*arguments: str) -> None:
        identity = "-c", "user.name=a", "-c", "user.email=a@b"
        subprocess.run(["git", *identity, *arguments], cwd=app.root, check=True, capture_output=True)

    def refused(*says: str) -> None:
        for task in ("migrate.upgrade", "db.prepare", "migrate.sql"):
            outcome = app.invoke(task)
            assert outcome.code == 2 and all(each in outcome.err for each in says), outcome.err

    path = concurrent(app, "ours", head(), "CREATE INDEX CONCURRENTLY ix_own ON staff (title)")
    assert app.invoke("migrate.upgrade").code == 0
    text = path.read_text()
    path.unlink()
    refused("which no revision file has", "git knows no branch that has it -> git pull")
    git("init", "-b", "main")
    git("commit", "--allow-empty", "-m", "none")
    git("switch", "-c", "feature/pets")
    path.write_text(text)
    git("add", str(path))
    git("commit", "-m", "pets")
    git("switch", "main")
    refused("git has it on feature/pets -> git merge feature/pets; or")
    outcome = app.invoke("migrate.status")
    assert "careful: ours is applied, and not in this checkout: git has it on feature/pets" in outcome.out, outcome.out
    assert app.invoke("migrate.status", "--json").json["elsewhere"] == {"ours": ["feature/pets"]}
    git("merge", "feature/pets")
    assert app.invoke("db.prepare").code == 0


@pytest.mark.slow
def test_kill_9_of_task_and_server_in_each_phase(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[tool.skinspire_db]\nmetadata = ["pets:Base"]\nmigrations = "migrations"\n'
        "[tool.skinspire_db.environments.dev]\nddl_lock_timeout = 0.1\nddl_tries = 300\n"
    )
    (tmp_path / "pets.py").write_text(MODELS + BEFORE)
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    server = EmbeddedServer(throw_away_home(tmp_path), durable=False)
    running: list[subprocess.Popen[str]] = []
    try:
        project = Project(tmp_path, server.start())
        project.env = {"DEV_DATABASE_URL": project.url("clinic")}
        project.execute("CREATE DATABASE clinic", "postgres")
        revision(project, "first", None, "CREATE TABLE visits (day int); INSERT INTO visits SELECT generate_series(1, 9)")
        assert project.forked("migrate.upgrade").code == 0
        concurrent(project, "online", "first", "CREATE INDEX CONCURRENTLY ix_own ON visits (day)")

        def until(query: str) -> None:
            deadline = time.monotonic() + 30
            while project.query(f"SELECT EXISTS ({query})") != [(True,)]:
                assert time.monotonic() < deadline, query
                time.sleep(0.05)

        def start(writer: psycopg.Connection, waits_in: str) -> subprocess.Popen[str]:
            """The task, as it waits for the writer's transaction."""
            writer.execute("BEGIN; INSERT INTO visits VALUES (0)")
            running.append(project.start("migrate.upgrade"))
            until(f"SELECT FROM pg_stat_activity WHERE query ~ '^{waits_in} INDEX CONCURRENTLY' AND wait_event_type = 'Lock'")
            project.execute("SET lock_timeout = '5s'; INSERT INTO visits VALUES (10)")  # no other writer waits
            return running[-1]

        def gone() -> None:
            until("SELECT WHERE NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory')")

        for waits_in in ("CREATE", "DROP"):  # the index is built, then what is left of it is dropped
            with project.connect() as writer:
                start(writer, waits_in).kill()
                gone()
            assert indexes(project) == [("ix_own", False)] and at(project) == ["first"]
        with contextlib.closing(project.connect()) as writer:
            task = start(writer, "DROP")
            time.sleep(1)  # ten times what it waits before it says for whom
            os.kill(server.status().pid or 0, signal.SIGKILL)
            out, err = task.communicate(timeout=60)
            assert f"for pid {writer.info.backend_pid} (" in out and "idle after" in out, out
        assert task.returncode == 1 and "goes on from there" in err and "as it was" not in err, err
        server.start()
        with project.connect() as writer, project.connect() as journal:
            task = start(writer, "DROP")
            journal.execute("BEGIN; LOCK TABLE skinspire_tools.journal IN EXCLUSIVE MODE")
            writer.execute("ROLLBACK")
            until(
                "SELECT FROM pg_stat_activity WHERE query ~ 'INSERT INTO skinspire_tools.journal' AND wait_event_type = 'Lock'"
            )
            task.kill()
            gone()
        assert indexes(project) == [("ix_own", True)] and at(project) == ["first"], "built, and not yet noted"
        outcome = project.forked("migrate.upgrade")
        assert outcome.code == 0 and "1 done before" in outcome.out and at(project) == ["online"], outcome
        assert indexes(project) == [("ix_own", True)]
    finally:
        for task in running:
            task.kill()
            task.communicate()
        server.destroy()

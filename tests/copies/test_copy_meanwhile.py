"""db.copy while other sessions are at work: on the source, on the target, and on the databases themselves."""

from __future__ import annotations

import os
import secrets
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from conftest import Project
from support import both, database, leftovers

from skinspire_db.config.policy import Policy
from skinspire_db.lifecycle import scratch
from skinspire_db.postgres.target import Target, target_of


@pytest.fixture
def two(project: Project, template: str) -> Iterator[Project]:
    """A project with a dev and a test database, both set up; test holds everything that a database can hold."""
    with both(project, template):
        yield project


@pytest.mark.slow
def test_a_source_that_changes_meanwhile(two: Project) -> None:
    """The stream is of one moment, whatever is written meanwhile."""
    with two.connect(database(two, "TEST")) as writer:
        task = two.start("db.copy", "--source=test", "--target=dev", "--method=stream")
        while task.poll() is None:
            writer.execute("INSERT INTO no_rows SELECT generate_series(1, 10)")
            writer.execute("UPDATE patients SET last_name = 'x' || length(last_name) WHERE mrn = 'T000001'")
            time.sleep(0.01)
        _, err = task.communicate()
        assert task.returncode == 0, err
    [(rows,)] = two.query("SELECT count(*) FROM no_rows")
    assert rows % 10 == 0


def test_another_operation_at_work(two: Project) -> None:
    with two.connect() as holder, holder.transaction():
        holder.execute("SELECT pg_advisory_xact_lock(6037467)")
        (two.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\noperation_wait = 0.2\n")
        outcome = two.invoke("db.copy", "--source=test", "--target=dev")
        assert outcome.code == 2 and "is in use by" in outcome.err


@pytest.mark.slow
def test_truncated_while_it_is_copied(two: Project) -> None:
    """TRUNCATE and a rewrite do not go by snapshots. They wait for the copy, which gives up rather than wait for them."""
    test, before = database(two, "TEST"), two.dump()
    (two.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.test]\nlock_timeout = 0.5\n")
    two.execute(
        "INSERT INTO no_rows SELECT generate_series(1, 1500000); CREATE TABLE small AS SELECT generate_series(1, 1000) AS a",
        test,
    )
    task = two.start("db.copy", "--source=test", "--target=dev", "--method=stream", "--jobs=1")
    while not two.query(f"SELECT FROM pg_stat_progress_copy WHERE datname = '{test}'", "postgres"):
        assert task.poll() is None
    two.execute("ALTER TABLE small ALTER a TYPE bigint", test)
    _, err = task.communicate(timeout=60)
    if task.returncode == 0:  # it had come that far already
        assert two.query("SELECT count(*) FROM small") == [(1000,)]
    else:
        assert "lock timeout" in err and two.dump() == before, err
    assert two.query("SELECT count(*) FROM small", test) == [(1000,)]


@pytest.mark.slow
def test_a_look_that_fails_ends_no_other(two: Project) -> None:
    """Of two looks at once, each fails for its own reason, or not at all."""
    from concurrent.futures import ThreadPoolExecutor

    from skinspire_db.catalog import fingerprint
    from skinspire_db.config import environment
    from skinspire_db.config import project as settings

    with pytest.MonkeyPatch.context() as patch, ThreadPoolExecutor() as pool:
        for name, value in {"SKINSPIRE_PROJECT": str(two.root), **two.env}.items():
            patch.setenv(name, value)
        settings._tool_table.cache_clear()
        dev, test = (target_of(environment.resolve(name)) for name in ("dev", "test"))
        test_name = database(two, "TEST")
        two.execute("CREATE TABLE slow AS SELECT n, n::numeric AS m FROM generate_series(1, 1500000) n")
        at_it = "SELECT pid FROM pg_stat_activity WHERE datname = '{}' AND state = 'active' AND {}"
        with two.connect(test_name) as holder:
            holder.execute("BEGIN; LOCK TABLE patients")
            bad = pool.submit(fingerprint.take, test, "look")
            while not (waiting := two.query(at_it.format(test_name, "wait_event_type = 'Lock'"), "postgres")):
                time.sleep(0.01)
            good = pool.submit(fingerprint.take, dev, "look")
            while not two.query(at_it.format(two.database, "query LIKE '%count(*)%slow%'"), "postgres"):
                assert not good.done()
            two.query(f"SELECT pg_terminate_backend({waiting[0][0]})", "postgres")
            assert isinstance(
                bad.exception(), psycopg.errors.AdminShutdown | psycopg.errors.LockNotAvailable
            )  # on a slow machine
            assert good.result().rows > 1500000


def exchange(project: Project, name: str) -> dict[str, int]:
    """Rename the database of that name away, and one that is stamped prod to its name. Returns what all are called, and are."""
    prod = f"{project.database}_prod"
    template = database(project, "TEST")
    with psycopg.connect(**project.address.parameters, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{prod}" TEMPLATE "{template}"'.encode())
        project.execute("UPDATE skinspire_tools.stamp SET environment = 'prod'", prod)
        ended = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s"
        admin.execute(ended, (name,))
        if project.query(f"SELECT 1 FROM pg_database WHERE datname = '{name}'", "postgres"):
            admin.execute(f'ALTER DATABASE "{name}" RENAME TO "{project.database}_away"'.encode())
        admin.execute(f'ALTER DATABASE "{prod}" RENAME TO "{name}"'.encode())
    return all_databases(project)


def all_databases(project: Project) -> dict[str, int]:
    """Name and oid of the project's databases, scratch databases left out."""
    rows = project.query("SELECT datname, oid FROM pg_database WHERE datname !~ '_scratch_'", "postgres")
    mine = (project.database, database(project, "TEST"))
    return {name: oid for name, oid in rows if name.startswith(mine)}


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["_send_away", "_wait_for_leaving"])
@pytest.mark.parametrize("victim", ["target", "former", "new former"])
@pytest.mark.parametrize("operation", ["db.copy", "db.undo"])
def test_a_database_exchanged_before_the_swap(
    two: Project, monkeypatch: pytest.MonkeyPatch, operation: str, victim: str, moment: str
) -> None:
    """The swap goes by name: prod's would be moved away, or dropped by it or by the next copy."""
    if victim != "new former":
        assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    elif operation == "db.undo":
        pytest.skip("without a former database there is nothing to undo")
    former = scratch.former(Target("dev", Policy(), {"dbname": two.database})).database
    real = getattr(scratch, moment)
    after: dict[str, Any] = {}

    def attack(*arguments: Any) -> Any:
        if not after:
            after.update(exchange(two, two.database if victim == "target" else former))
        return real(*arguments)

    monkeypatch.setattr(scratch, moment, attack)
    outcome = two.invoke(operation, *(("--source=test", "--target=dev") if operation == "db.copy" else ()))
    assert after and outcome.code == 1 and "as it was" in outcome.err, outcome.err
    assert all_databases(two) == after
    prod = two.database if victim == "target" else former
    assert two.query("SELECT environment FROM skinspire_tools.stamp", prod) == [("prod",)]
    again = two.invoke("db.copy", "--source=test", "--target=dev")
    assert again.code == 2 and "is stamped prod, not dev" in again.err
    assert all_databases(two) == after


def test_a_former_database_that_is_not_ours_is_never_dropped(two: Project) -> None:
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    (kept,) = leftovers(two)
    for command in ("UPDATE skinspire_tools.stamp SET environment = 'prod'", "DROP SCHEMA skinspire_tools CASCADE"):
        two.execute(command, kept)
        before = all_databases(two)
        outcome = two.invoke("db.copy", "--source=test", "--target=dev")
        assert outcome.code == 2 and f"{kept} on" in outcome.err and "would drop" in outcome.err, outcome.err
        assert all_databases(two) == before
    two.execute(outcome.err.partition("in psql: ")[2], "postgres")
    assert two.invoke("db.copy", "--source=test", "--target=dev").code == 0
    assert two.query("SELECT count(*) > 0 FROM patients", f"{kept}_not_ours") == [(True,)]


@pytest.mark.slow
def test_a_copy_whose_lock_was_lost_changes_nothing(two: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """The session that holds the operation lock was ended: another operation may be at work."""
    before, real = all_databases(two), scratch.swap

    def lose(to: Any, new: Any, operation: str, holder: Any) -> Any:
        two.query(f"SELECT pg_terminate_backend({holder.info.backend_pid}, 5000)", "postgres")
        return real(to, new, operation, holder)

    monkeypatch.setattr(scratch, "swap", lose)
    outcome = two.invoke("db.copy", "--source=test", "--target=dev")
    assert outcome.code == 1 and "session was ended" in outcome.err and "as it was" in outcome.err
    assert all_databases(two) == before


@pytest.mark.slow
def test_a_role_that_is_shut_out_meanwhile(two: Project) -> None:
    """What was made aside goes over the connection that is there."""
    role, test = f"shut_{secrets.token_hex(4)}", database(two, "TEST")
    two.execute(
        f"CREATE ROLE {role} SUPERUSER LOGIN PASSWORD 'secret'; ALTER ROLE {role} SET statement_timeout = '300ms'", "postgres"
    )
    two.execute("INSERT INTO no_rows SELECT generate_series(1, 3000000)", test)
    before = two.dump()
    for name in ("DEV", "TEST"):
        two.env[f"{name}_DATABASE_URL"] = two.url(database(two, name), user=role, password="secret")
    try:
        task = two.start("db.copy", "--source=test", "--target=dev", "--method=stream")
        made = f"SELECT FROM pg_database WHERE datname ~ '^{two.database}_scratch_'"
        while not two.query(made, "postgres"):
            assert task.poll() is None, task.communicate()
            time.sleep(0.01)
        two.execute(f"ALTER ROLE {role} NOLOGIN", "postgres")
        _, err = task.communicate(timeout=120)
        assert task.returncode == 1 and "->" in err and "Traceback" not in err, err
        assert two.query(made, "postgres") == [] and two.dump() == before
        two.execute(f"ALTER ROLE {role} LOGIN", "postgres")
        outcome = two.invoke("db.copy", "--source=test", "--target=dev", "--method=stream")
        assert outcome.code == 0, outcome.err
    finally:
        for name in ("DEV", "TEST"):
            two.env[f"{name}_DATABASE_URL"] = two.url(database(two, name))
        for name in (two.database, test, *leftovers(two)):
            two.execute(f"REASSIGN OWNED BY {role} TO skinspire", name)
        two.execute(f"DROP ROLE {role}", "postgres")


def test_what_killed_processes_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What belongs to a process that lives, or to another tool, stays."""
    from skinspire_db.postgres import scripts

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    left, theirs = (
        tmp_path / f"{scripts.FOLDER}left",
        [tmp_path / "tmpx", tmp_path / "skinspire-db-clone", tmp_path / f"{scripts.FOLDER}x"],
    )
    for folder in (left, *theirs):
        folder.mkdir()
        (folder / "definitions").write_text("x")
        if folder is left:
            (folder / scripts.LOCK).touch()
        os.utime(folder, (1, 1))
    with scripts.private_folder() as living:
        os.utime(living, (1, 1))
        with scripts.private_folder():
            assert not left.exists() and living.exists() and all(each.exists() for each in theirs)
    assert sorted(tmp_path.iterdir()) == sorted(theirs)

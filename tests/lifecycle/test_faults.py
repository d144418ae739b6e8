"""Kills, signals and crashes in the middle of a pipeline, and operations at once: the database is as it was, or as it should be."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import CHECKOUT, Project, dump
from fault_support import (  # noqa: F401
    MIDDLE,
    RUNNING,
    halted,
    killable,
    no_task_left_behind,
    own_server,
    rows_and_definitions,
    wait_until_idle,
)

from skinspire_db.config.policy import Policy
from skinspire_db.config.server_pin import Pin
from skinspire_db.postgres import connections, databases
from skinspire_db.postgres.embedded_server import EmbeddedServer
from skinspire_db.postgres.target import Target


@pytest.mark.parametrize("step", MIDDLE)
def test_kill_9_of_the_task_in_the_middle_of(step: str, own_server: Project) -> None:
    before = dump(own_server.address, "skinspire_dev")
    task = halted(own_server, step, "db.setup")
    task.kill()
    task.communicate()
    wait_until_idle(own_server)
    assert dump(own_server.address, "skinspire_dev") == before


@pytest.mark.parametrize("step", MIDDLE)
def test_kill_9_of_the_server_in_the_middle_of(step: str, own_server: Project) -> None:
    before = rows_and_definitions(own_server)
    task = halted(own_server, step, "db.setup")
    server = EmbeddedServer(Path(own_server.env["SKINSPIRE_PG_HOME"]))
    pid = server.status().pid
    assert pid
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.5)  # or the task's own backend may not have noticed, and still carry out what comes, even the commit
    out, err = task.communicate("go on\n", timeout=60)
    assert task.returncode == 1, out + err
    assert "the server went away" in err and "the database is as it was" in err
    assert "sign in as" not in out, "no user can: it was not committed"
    assert "Traceback" not in err
    assert own_server.invoke("db.verify").code == 0  # which starts the server again
    assert rows_and_definitions(own_server) == before


def test_a_server_that_stops_in_the_middle(own_server: Project) -> None:
    before = dump(own_server.address, "skinspire_dev")
    task = halted(own_server, "seed", "db.setup", "--json")
    assert own_server.invoke("server.stop").code == 0
    out, _ = task.communicate("go on\n", timeout=60)
    assert task.returncode == 1
    assert '"type": "ConnectionFailed"' in out
    assert own_server.invoke("server.start").code == 0
    assert dump(own_server.address, "skinspire_dev") == before


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_and_termination(number: signal.Signals, own_server: Project) -> None:
    before = dump(own_server.address, "skinspire_dev")
    task = halted(own_server, "seed", "db.setup")
    task.send_signal(number)
    _, err = task.communicate(timeout=60)
    assert task.returncode == 1
    assert err == "error: interrupted; the database is as it was\n"
    assert dump(own_server.address, "skinspire_dev") == before


def test_ctrl_c_of_the_first_setup_leaves_no_database(project: Project) -> None:
    task = halted(project, "seed", "db.setup")
    task.send_signal(signal.SIGINT)
    task.communicate(timeout=60)
    assert task.returncode == 1
    assert project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres") == []


def test_a_failed_first_setup_does_not_take_anothers_database_along(project: Project) -> None:
    """The first creates the database and fails while a second waits for it: what the second makes must stay."""
    first = halted(project, "seed", "db.setup")
    second = project.start("db.setup")
    RUNNING.append(second)
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    deadline = time.monotonic() + 10
    while project.query(waiting) != [(1,)]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    first.send_signal(signal.SIGINT)
    first.communicate(timeout=60)
    out, err = second.communicate(timeout=60)
    assert second.returncode == 0, out + err
    assert project.query("SELECT count(*) FROM patients") == [(20,)]


@pytest.mark.parametrize(("step", "statement"), [("create", "CREATE TABLE%"), ("seed", "COPY public.patients%")])
@pytest.mark.parametrize("victim", ["task", "server"])
def test_kill_9_while_the_server_executes(step: str, statement: str, victim: str, own_server: Project) -> None:
    if step == "create":  # so that it takes seconds; in the tools' own schema, or the reset would take it along
        own_server.execute(
            "CREATE FUNCTION skinspire_tools.slow() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.2); END';"
            "CREATE EVENT TRIGGER slow ON ddl_command_start WHEN TAG IN ('CREATE INDEX') EXECUTE FUNCTION skinspire_tools.slow()",
            "skinspire_dev",
        )
    before = rows_and_definitions(own_server)
    task = own_server.start("db.setup", "--patients=200000")
    RUNNING.append(task)
    running = f"SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '{statement}'"
    deadline = time.monotonic() + 20
    while own_server.query(running, "skinspire_dev") != [(1,)]:
        assert time.monotonic() < deadline and task.poll() is None
        time.sleep(0.02)
    if victim == "task":
        task.kill()
        wait_until_idle(own_server)
    else:
        server = EmbeddedServer(Path(own_server.env["SKINSPIRE_PG_HOME"]))
        os.kill(server.status().pid or 0, signal.SIGKILL)
        out, err = task.communicate(timeout=60)
        assert task.returncode == 1 and "Traceback" not in err, out + err
        server.start()
    after = rows_and_definitions(own_server)
    own_server.execute("DROP EVENT TRIGGER IF EXISTS slow; DROP FUNCTION IF EXISTS skinspire_tools.slow()", "skinspire_dev")
    assert after == before


def test_ctrl_c_after_the_commit_does_not_say_that_nothing_was_done(own_server: Project) -> None:
    script = f"""
from invoke.main import program
from skinspire_db.lifecycle import journal
def recorded(*_, **__):
    raise KeyboardInterrupt
journal.recorded = recorded
program.run(["invoke", "-r", {str(CHECKOUT)!r}, "db.seed", "--patients=23"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=own_server.environment, cwd=own_server.root, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "interrupted after the commit: it is done" in done.stderr and "as it was" not in done.stderr
    assert own_server.query("SELECT count(*) FROM patients", "skinspire_dev") == [(23,)]


def test_a_commit_whose_answer_is_lost_is_looked_up(own_server: Project) -> None:
    """The connection breaks after the server has committed: the task must find out, and say that it is done."""
    script = f"""
import psycopg, sys
from invoke.main import program
real = psycopg.Connection.commit
def commit(self):
    real(self)
    if self.info.get_parameters().get("application_name", "").endswith("db.seed"):
        raise psycopg.OperationalError("the answer is lost")
psycopg.Connection.commit = commit
program.run(["invoke", "-r", {str(CHECKOUT)!r}, "db.seed", "--patients=24", "--json"])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=own_server.environment, cwd=own_server.root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert own_server.query("SELECT count(*) FROM patients", "skinspire_dev") == [(24,)]


def test_a_server_that_dies_after_a_dump_was_restored(own_server: Project, tmp_path: Path) -> None:
    """pg_restore does not wait for the disk: what a crash takes right after it must not be called restored."""
    name, server = "skinspire_dev", EmbeddedServer(Path(own_server.env["SKINSPIRE_PG_HOME"]))
    file = tmp_path / "of others"
    file.write_text(dump(own_server.address, name) + "\n")
    own_server.execute("ALTER SYSTEM SET wal_writer_delay = '10s'", name)  # or it would be there in a moment by itself
    own_server.query("SELECT pg_reload_conf()", name)
    before = rows_and_definitions(own_server)
    script = f"""
import os, signal, time
from invoke.main import program
from skinspire_db.copies import restore as restoring
real = restoring._restore
def restore(*arguments, **options):
    notes = real(*arguments, **options)
    os.kill({server.status().pid}, signal.SIGKILL)
    time.sleep(0.5)
    return notes
restoring._restore = restore
program.run(["invoke", "-r", {str(CHECKOUT)!r}, "backup.restore", {f"--file={file}"!r}])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], env=own_server.environment, cwd=own_server.root, capture_output=True, text=True
    )
    server.start()
    own_server.execute("ALTER SYSTEM RESET wal_writer_delay", name)
    own_server.query("SELECT pg_reload_conf()", name)
    assert done.returncode == 1 and "the database is as it was" in done.stderr, done.stdout + done.stderr
    assert rows_and_definitions(own_server) == before


def test_what_was_committed_without_waiting_is_on_disk(own_server: Project) -> None:
    name = "skinspire_dev"
    own_server.execute("ALTER SYSTEM SET wal_writer_delay = '10s'", name)
    own_server.query("SELECT pg_reload_conf()", name)
    try:
        with own_server.connect(name, options="-c synchronous_commit=off") as hasty, own_server.connect(name) as witness:
            witness.autocommit = False
            hasty.execute("CREATE TABLE hasty AS SELECT generate_series(1, 1000)")
            written = hasty.execute("SELECT pg_current_wal_insert_lsn()").fetchone()
            connections.settle(witness)
            assert hasty.execute("SELECT pg_current_wal_flush_lsn() >= %s::pg_lsn", written).fetchone() == (True,)
    finally:
        own_server.execute("DROP TABLE IF EXISTS hasty", name)
        own_server.execute("ALTER SYSTEM RESET wal_writer_delay", name)
        own_server.query("SELECT pg_reload_conf()", name)


def test_two_setups_at_once_both_end_well_one_after_the_other(own_server: Project) -> None:
    tasks = [own_server.start("db.setup", "--json") for _ in range(2)]
    for task in tasks:
        out, err = task.communicate(timeout=60)
        assert task.returncode == 0, out + err


def test_a_second_setup_names_the_holder_when_it_has_waited_long_enough(own_server: Project) -> None:
    text = "[tool.skinspire_db.environments.dev]\noperation_wait = 0.3\n"
    pyproject = own_server.root / "pyproject.toml"
    former = pyproject.read_text()
    pyproject.write_text(former + text)
    try:
        first = halted(own_server, "seed", "db.setup")
        second = own_server.invoke("db.setup")
        assert second.code == 2
        assert "in use by skinspire-db db.setup (pid " in second.err and "waited 0.3 s" in second.err
        out, err = first.communicate("go on\n", timeout=60)
        assert first.returncode == 0, out + err
    finally:
        pyproject.write_text(former)


def test_two_first_setups_at_once(project: Project) -> None:
    """Neither database exists: one creates it, both end well or one is told who is at work."""
    tasks = [project.start("db.setup", "--json") for _ in range(2)]
    for task in tasks:
        out, err = task.communicate(timeout=60)
        assert task.returncode == 0, out + err
    assert project.query("SELECT count(*) FROM skinspire_tools.journal") == [(2,)]


DROPS = """
import os, psycopg
from skinspire_db.config import environment
from skinspire_db.postgres import connections, databases
from skinspire_db.postgres.target import target_of
to = target_of(environment.resolve("dev"))
own = connections.connect(to, "db.setup")
real = psycopg.Connection.execute
def execute(self, query, *arguments, **options):
    if "pg_stat_activity" in str(query):
        os.kill(os.getpid(), 9)
    return real(self, query, *arguments, **options)
psycopg.Connection.execute = execute
databases.drop_unless_used(to, "db.setup", own.info.backend_pid)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="kill -9")
def test_killed_between_closing_a_new_database_and_dropping_it(project: Project) -> None:
    """Only these tools would open it again; one that an administrator has closed stays closed."""
    closed = (
        f"SELECT datallowconn, shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{project.database}'"
    )
    project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
    done = subprocess.run(
        [sys.executable, "-c", DROPS], env=project.environment, cwd=project.root, capture_output=True, timeout=60
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    [(allowed, _)] = project.query(closed, "postgres")
    assert not allowed
    with project.connect("postgres") as at_it:  # another process closes it just now
        at_it.execute("SELECT pg_advisory_lock(hashtextextended(%s, 1))", (project.database,))
        assert project.invoke("db.inspect").code == 1
    outcome = project.invoke("db.setup")
    assert outcome.code == 0, outcome.err
    assert project.query(closed, "postgres") == [(True, None)]
    project.execute(f'ALTER DATABASE "{project.database}" ALLOW_CONNECTIONS false', "postgres")
    try:
        outcome = project.invoke("db.setup")
        assert outcome.code == 1 and "not currently accepting connections" in outcome.err, outcome.err
    finally:
        project.execute(f'ALTER DATABASE "{project.database}" ALLOW_CONNECTIONS true', "postgres")


@pytest.mark.parametrize("what_happens", ["made", "made and dropped", "closed for a moment"])
def test_a_database_that_another_operation_has_just_made(
    project: Project, monkeypatch: pytest.MonkeyPatch, what_happens: str
) -> None:
    """It was not there when this connected, and is when this asks why; or goes again when the other one fails."""
    real, times = connections._exists, []

    def other(*arguments: Any) -> bool | None:
        times.append(1)
        if len(times) == 1:
            project.execute(f'CREATE DATABASE "{project.database}"', "postgres")
            if what_happens == "closed for a moment":
                project.execute(f'ALTER DATABASE "{project.database}" ALLOW_CONNECTIONS false', "postgres")
        found = real(*arguments)
        if len(times) == 1 and what_happens == "made and dropped":
            project.execute(f'DROP DATABASE "{project.database}"', "postgres")
        if len(times) == 2 and what_happens == "closed for a moment":
            project.execute(f'ALTER DATABASE "{project.database}" ALLOW_CONNECTIONS true', "postgres")
        return found

    monkeypatch.setattr(connections, "_exists", other)
    outcome = project.invoke("db.create")
    assert times and outcome.code == 0, outcome.err


@pytest.mark.slow
def test_first_operations_race(project: Project) -> None:
    """Each round three at once, on a database that does not exist: all get there, and one has made it."""
    to = target_of(project)
    for _ in range(20):
        start = threading.Barrier(3)

        def first(start: threading.Barrier = start) -> bool:
            start.wait(30)
            connection, created = databases.open_database(replace(to, pin=Pin()), "race", create=True)
            connection.close()
            return created

        with ThreadPoolExecutor(3) as pool:
            made = [each.result(60) for each in [pool.submit(first) for _ in range(3)]]
        assert sum(made) == 1
        project.execute(f'DROP DATABASE "{project.database}" WITH (FORCE)', "postgres")


def target_of(project: Project) -> Target:
    parameters = {**project.address.parameters, "dbname": project.database}
    return Target("dev", Policy(), parameters)

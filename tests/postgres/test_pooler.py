"""PgBouncer in front of the server: the tools notice it before they do anything, and go past it where they are told how."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from conftest import Project
from test_hosts import application, closed_port

from skinspire_db.postgres.programs import unprivileged_account

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("pgbouncer"), reason="no PgBouncer here"),
]
POOLER = """
[databases]
* = host=127.0.0.1 port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = {mode}
default_pool_size = 4
ignore_startup_parameters = extra_float_digits
logfile = {folder}/log
"""


@contextlib.contextmanager
def pooler(project: Project, mode: str) -> Iterator[str]:
    """PgBouncer in front of the run's server; gives its host and port."""
    own = closed_port()
    account = unprivileged_account(project.root)
    folder = Path("/dev/shm" if Path("/dev/shm").is_dir() else "/tmp") / f"skinspire-pooler-{secrets.token_hex(4)}"
    folder.mkdir(mode=0o700)
    (folder / "users").write_text(f'"{project.address.user}" "{project.address.password}"\n')
    (folder / "ini").write_text(POOLER.format(port=project.address.port, own=own, folder=folder, mode=mode))
    options = {}
    if account:
        for path in (folder, *folder.iterdir()):
            os.chown(path, account.uid, account.gid)
        options = {"user": account.uid, "group": account.gid, "extra_groups": []}
    process = subprocess.Popen(
        ["pgbouncer", "-q", str(folder / "ini")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **options
    )  # type: ignore[call-overload]
    try:
        for _ in range(100):
            with contextlib.suppress(psycopg.OperationalError):
                psycopg.connect(**project.address.parameters | {"port": own}, dbname="postgres").close()
                break
            time.sleep(0.1)
        yield f"127.0.0.1:{own}"
    finally:
        process.terminate()
        process.wait(20)
        shutil.rmtree(folder)


@pytest.fixture(params=["transaction", "session"])
def pooled(clinic: Project, request: pytest.FixtureRequest) -> Iterator[Project]:
    """A clinic whose application URL leads through PgBouncer."""
    (clinic.root / "pyproject.toml").write_text("[tool.skinspire_db.environments.dev]\ntransaction_pooler = true\n")
    with pooler(clinic, request.param) as where:
        clinic.env["DEV_DATABASE_URL"] = clinic.env["DEV_DATABASE_URL"].replace(f"127.0.0.1:{clinic.address.port}", where)
        yield clinic


def units_that_fail(project: Project) -> int:
    """How many of the application's units of work fail, as they do where pg_dump has left its empty search_path."""
    code = """
        from concurrent.futures import ThreadPoolExecutor
        from skinspire_db.database_service import get_db_session
        from sqlalchemy import text
        import sys
        def work(_):
            try:
                with get_db_session() as session:
                    session.execute(text("SELECT count(*), pg_sleep(0.02) FROM hospitals"))
            except Exception as error:
                return 1
            return 0
        with ThreadPoolExecutor(4) as pool:
            print(sum(pool.map(work, range(24))))
    """
    return int(application(project, code))


def test_what_changes_or_dumps_is_refused_at_once(pooled: Project) -> None:
    before = pooled.dump()
    own = f"SELECT oid, datname FROM pg_database WHERE datname LIKE '{pooled.database}%' ORDER BY 1"
    databases = pooled.query(own)
    assert units_that_fail(pooled) == 0
    for command in (
        ["db.setup"], ["db.reset"], ["db.create", "--update-only"], ["db.seed"], ["triggers.install"], ["migrate.upgrade"],
        ["migrate.downgrade"], ["migrate.new", "-m", "x"], ["db.drift"], ["backup.create"], ["env.stamp"], ["db.undo"],
        ["db.copy", "--source=dev", "--target=test"], ["db.copy", "--source=test", "--target=dev"], ["db.prepare"],
    ):  # fmt: skip
        outcome = pooled.invoke(*command)
        if outcome.code == 0:  # it found that there is nothing to do
            assert command[0] in ("migrate.upgrade", "db.prepare"), (command, outcome.out)
            continue
        assert outcome.code == 2, (command, outcome.out, outcome.err)
        assert "DEV_DATABASE_URL leads through a pooler" in outcome.err and "DEV_ADMIN_URL=" in outcome.err, (
            command,
            outcome.err,
        )
    assert not (pooled.root / "backups").exists() or not list((pooled.root / "backups").iterdir())
    assert pooled.dump() == before
    assert pooled.query(own) == databases
    assert units_that_fail(pooled) == 0
    for command in (["db.verify"], ["db.inspect"], ["db.history"], ["triggers.status"], ["migrate.status"]):
        outcome = pooled.invoke(*command)
        assert outcome.code == 0, (command, outcome.err)
    assert units_that_fail(pooled) == 0


def test_a_script_in_the_shell_is_refused_before_its_first_line(pooled: Project) -> None:
    """What it sets, a pooler would hand on to the application."""
    script = "SET search_path = nowhere; CREATE TABLE public.piped ();"

    def piped() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            pooled.command("db.shell"), input=script, cwd=pooled.root, env=pooled.environment, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip

    done = piped()
    assert done.returncode == 2, done
    assert "DEV_DATABASE_URL leads through a pooler" in done.stderr and "DEV_ADMIN_URL=" in done.stderr
    assert pooled.query("SELECT to_regclass('public.piped')") == [(None,)]
    assert units_that_fail(pooled) == 0
    pooled.env["DEV_ADMIN_URL"] = pooled.url(pooled.database)
    assert piped().returncode == 0
    assert pooled.query("SELECT to_regclass('public.piped') IS NOT NULL") == [(True,)]


def test_the_doctor_names_it(pooled: Project) -> None:
    outcome = pooled.invoke("db.doctor", "--json")
    assert outcome.code == 1
    assert (outcome.json["checks"][-1]["name"], outcome.json["checks"][-1]["status"]) == ("pooler", "fail")
    assert "DEV_ADMIN_URL=" in outcome.json["error"]["remedy"]
    pooled.env["DEV_ADMIN_URL"] = pooled.url(pooled.database)
    outcome = pooled.invoke("db.doctor", "--json")
    assert outcome.code == 0, outcome.out
    assert [each["detail"] for each in outcome.json["checks"] if each["name"] == "application"] == [
        f"role {pooled.address.user} reaches it through a pooler, by DEV_DATABASE_URL"
    ]


def test_a_missing_database_behind_it_is_not_made(project: Project) -> None:
    with pooler(project, "transaction") as where:
        project.env["DEV_DATABASE_URL"] = project.env["DEV_DATABASE_URL"].replace(f"127.0.0.1:{project.address.port}", where)
        outcome = project.invoke("db.setup")
        assert outcome.code == 2 and "DEV_ADMIN_URL=" in outcome.err, outcome.err
        assert not project.query(f"SELECT 1 FROM pg_database WHERE datname = '{project.database}'", "postgres")


def test_an_option_that_it_does_not_take(pooled: Project) -> None:
    pooled.env["DEV_DATABASE_URL"] += "?options=-c%20geqo%3Doff"
    outcome = pooled.invoke("backup.create")
    assert outcome.code == 2 and "DEV_ADMIN_URL" in outcome.err, outcome.err


def test_the_admin_url_goes_past_it(pooled: Project) -> None:
    pooled.env["DEV_ADMIN_URL"] = pooled.url(pooled.database)
    for command in (
        ["backup.create"],
        ["backup.verify", "--full"],
        ["backup.restore"],
        ["db.undo"],
        ["db.drift"],
        ["db.setup"],
    ):
        outcome = pooled.invoke(*command)
        assert outcome.code == 0, (command, outcome.err)
        assert f"on 127.0.0.1:{pooled.address.port}\n" in outcome.out, "the direct one is shown"
        assert units_that_fail(pooled) == 0, command
    shown = {each["name"]: each["value"] for each in pooled.invoke("env.status", "--json").json["settings"]}
    assert shown["DEV_ADMIN_URL"].count("***") == 1


def test_an_admin_url_alone_is_refused(project: Project) -> None:
    project.env["DEV_ADMIN_URL"] = project.env.pop("DEV_DATABASE_URL")
    outcome = project.invoke("db.setup")
    assert outcome.code == 2 and "DEV_DATABASE_URL is not" in outcome.err
